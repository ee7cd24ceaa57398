//! Signals that a process survives.

use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Disables the default action of these signals, which ends the process, for the process's lifetime. Child processes get the
/// default action back.
///
/// # Errors
/// No handler can be installed.
pub fn outlive(signals: &[i32]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = runtime.enter();
    // A handler stays installed.
    let install = |number: &i32| signal(SignalKind::from_raw(*number)).map(drop);
    signals.iter().try_for_each(install)
}
