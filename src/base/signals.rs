//! Signals that a process outlives.

use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Takes the default action, to end this process, from these signals, for as long as it lives. Programs that it starts have it
/// again.
///
/// # Errors
/// The system refuses.
pub fn outlive(signals: &[i32]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = runtime.enter();
    // A handler, once there, stays.
    let hear = |number: &i32| signal(SignalKind::from_raw(*number)).map(drop);
    signals.iter().try_for_each(hear)
}
