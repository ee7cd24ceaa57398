//! The program that runs, to be started once more: as a worker, a prober, or what draws.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The file that runs, whatever lies under its name by now. An upgrade in the midst of a run must not start workers of
/// another version, nor find none.
const ITSELF: &str = "/proc/self/exe";

/// What the kernel calls the process; started by [`ITSELF`], it would be `exe`.
const NAME: &str = "affectmill";

/// A command that starts this very program.
pub fn this_program() -> Command {
    let mut command = Command::new(ITSELF);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command
}

/// Gives this process the name that `top` and `pgrep` know it by.
pub fn name_this_process() {
    // A name is no reason to stop.
    let _ = fs::write("/proc/self/comm", NAME);
}
