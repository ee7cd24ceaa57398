//! `affectmill completions`.

use super::{Cli, Failure, exit};
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
    generate(
        args.shell,
        &mut Cli::command(),
        "affectmill",
        &mut std::io::stdout(),
    );
    Ok(exit::OK)
}
