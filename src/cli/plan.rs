//! `affectmill plan`.

use super::{Failure, block_on, exit, print, print_json, run::failure, to_stderr};
use crate::coordinator::{self, Outlook, Signals};
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
    let looked = block_on(async {
        let mut signals = Signals::hear().map_err(failure)?;
        let job = spec::load(&args.job, &args.set).map_err(Failure::usage)?;
        Ok(signals.unless(coordinator::outlook(job)).await)
    })??;
    let outlook = match looked {
        Ok(outlook) => outlook.map_err(failure)?,
        Err(signal) => {
            to_stderr(format_args!("stopped by {}; nothing was written", signal.name()));
            return Ok(exit::stopped(signal));
        }
    };
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
