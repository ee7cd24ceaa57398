//! `affectmill status`.

use super::{Failure, exit, print, print_json};
use crate::report::status;
use crate::store::Store;
use std::path::PathBuf;

/// Show how far a label set is, while a run is on or after.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output folder.
    output: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let store = Store::open_existing(&args.output).map_err(Failure::usage)?;
    let status = status::read(&store).map_err(Failure::stopped)?;
    if args.json {
        print_json(&status)?;
    } else {
        print(status::render(&status));
    }
    Ok(exit::OK)
}
