//! Parses the command line, runs the command, maps its end to an exit code.

use affectmill_cli as cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::parse())
}
