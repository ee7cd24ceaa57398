//! Starts this program again: as a worker, a prober or a renderer.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The running executable, even if its path has been replaced. An upgrade during a run must not start workers of another
/// version, nor fail to find the program.
const ITSELF: &str = "/proc/self/exe";

/// The kernel's name of the process, which would be `exe` when it is started by [`ITSELF`].
const NAME: &str = "affectmill";

/// A command that starts this program.
pub fn this_program() -> Command {
    let mut command = Command::new(ITSELF);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command
}

/// Sets the name of this process in `top` and `pgrep`.
pub fn name_this_process() {
    // The name is cosmetic, so an error is ignored.
    let _ = fs::write("/proc/self/comm", NAME);
}
