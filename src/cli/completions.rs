//! `affectmill completions`.

use super::{Cli, Failure, exit, print};
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Print a completion script for a shell.
///
/// For bash: affectmill completions bash > ~/.local/share/bash-completion/completions/affectmill
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    // `generate` panics when it cannot write, for example after `| head` has exited.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "affectmill", &mut script);
    print(String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
