//! `affectmill status`.

use super::{Failure, existing, exit, print, print_json};
use crate::report::status;
use std::ffi::OsString;

/// Show how far a label set is, while a run is on or after.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix. S3 is reached as the environment says: AWS_PROFILE, AWS_REGION,
    /// AWS_ENDPOINT_URL and the other variables of AWS tools.
    output: OsString,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let store = existing(&args.output)?;
    let status = status::read(&store).map_err(Failure::stopped)?;
    if args.json {
        print_json(&status)?;
    } else {
        print(status::render(&status));
    }
    Ok(exit::OK)
}
