//! `affectmill summary`.

use super::query::failure;
use super::{Failure, exit, opened, print};
use affectmill_analysis::labels::Labels;
use affectmill_analysis::summary;
use affectmill_labelset::paths;
use std::ffi::OsString;

/// Print small tables about a label set.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix. S3 is reached by the settings in the environment: AWS_PROFILE, AWS_REGION,
    /// AWS_ENDPOINT_URL and the other variables of AWS tools.
    output: OsString,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let set = opened(&args.output)?;
    let labels = Labels::of(&set).map_err(failure)?;
    let tables = summary::read(&labels).map_err(failure)?;
    print(summary::render(&tables).map_err(|error| failure(error.into()))?)?;
    let untrained: Vec<&str> = labels.job().untrained().collect();
    if !untrained.is_empty() {
        print(format!(
            "UNTRAINED weights, labels that mean nothing: {}",
            untrained.join(", ")
        ))?;
    }
    print(format!("labels: {}", labels.store().path(paths::LABELS)))?;
    Ok(exit::OK)
}
