//! Parses the command line, runs the command, maps its end to an exit code.

use affectmill::cli::{self, Cli};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
