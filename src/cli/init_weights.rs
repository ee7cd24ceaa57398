//! `affectmill init-weights`.

use super::import_weights::{Kind, Recipe};
use super::{Failure, exit, print};
use affectmill_nn as model;
use std::path::PathBuf;

/// Write UNTRAINED weights, for wiring and tests: labels made with them mean nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind of the model.
    #[arg(long)]
    kind: Kind,
    /// Same seed, same bytes.
    #[arg(long)]
    seed: u64,
    /// Mark the weights as trained on faces cropped by this recipe, so that jobs that detect faces accept them.
    #[arg(long, value_name = "RECIPE")]
    crop: Option<Recipe>,
    /// Where to write safetensors.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    model::init_weights(args.kind.0, args.seed, args.crop.map(|crop| crop.0), &args.output)
        .map_err(Failure::usage)?;
    print(format!(
        "UNTRAINED {} weights (seed {}): {}",
        args.kind.0.name(),
        args.seed,
        args.output.display()
    ))?;
    Ok(exit::OK)
}
