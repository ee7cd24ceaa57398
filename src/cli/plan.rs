//! `affectmill plan`.

use super::{Failure, block_on, exit, print, print_json, run::failure};
use crate::coordinator::{self, Outlook};
use crate::report::text;
use crate::spec;
use std::path::PathBuf;
use std::time::Duration;

/// Show what a run would do: videos, frames, hours, shards, expected output size, files that cannot be read.
///
/// Reads headers only, takes no device and writes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job file.
    job: PathBuf,
    /// Override a value of the job file; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let job = spec::load(&args.job, &args.set).map_err(Failure::usage)?;
    let outlook = block_on(coordinator::outlook(job))?.map_err(failure)?;
    if args.json {
        print_json(&outlook)?;
    } else {
        print(render(&outlook))?;
    }
    Ok(exit::OK)
}

fn render(outlook: &Outlook) -> String {
    let hours = Duration::from_micros(outlook.duration_us);
    let mut lines = vec![
        format!("videos      {}", text::count(outlook.videos as u64)),
        format!(
            "frames      about {} ({})",
            text::count(outlook.frames),
            text::duration(hours)
        ),
        format!("input       {}", text::bytes(outlook.input_bytes)),
        format!("rows        about {}", text::count(outlook.rows)),
        format!("output      at most about {}", text::bytes(outlook.output_bytes)),
        format!("shards      {} ({} done)", outlook.shards, outlook.shards_done),
        format!("models      {}", outlook.models.join(", ")),
        format!("fingerprint {}", outlook.fingerprint),
    ];
    for (path, reason) in &outlook.skipped {
        lines.push(format!("skipped     {path}: {reason}"));
    }
    for (key, reason) in &outlook.unreadable {
        lines.push(format!("unreadable  {key}: {reason}"));
    }
    lines.join("\n")
}
