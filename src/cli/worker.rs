//! `affectmill worker`.

use super::{Failure, exit};
use crate::worker;

/// Serve one coordinator over standard input and output; `run` starts these, nobody else needs to.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> Result<u8, Failure> {
    worker::serve().map_err(Failure::usage)?;
    Ok(exit::OK)
}
