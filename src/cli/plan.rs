//! `affectmill plan`.

use super::run::{Input, failure};
use super::{Failure, block_on, exit, print, print_json, to_stderr};
use affectmill_base::escaped;
use affectmill_coordinator as coordinator;
use affectmill_coordinator::{RunEstimate, Signals};
use affectmill_labelset::PassedOver;
use affectmill_progress::text;
use affectmill_spec as spec;
use std::path::PathBuf;
use std::time::Duration;

/// Show what a run would do: videos, frames, hours, shards, expected output size, files that cannot be read, and
/// skipped parts of the input.
///
/// Reads headers only, takes no device and writes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job file.
    job: PathBuf,
    /// Override a value of the job file; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    input: Input,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let looked = block_on(async {
        let mut signals = Signals::hear().map_err(failure)?;
        let job = spec::load(&args.job, &args.set).map_err(Failure::usage)?;
        let looking = coordinator::estimate(job, args.input.moved);
        Ok(signals.unless(looking).await)
    })??;
    let estimate = match looked {
        Ok(estimate) => estimate.map_err(failure)?,
        Err(signal) => {
            to_stderr(format_args!("stopped by {}; nothing was written", signal.name()));
            return Ok(exit::stopped(signal));
        }
    };
    if args.json {
        print_json(&estimate)?;
    } else {
        print(render(&estimate))?;
    }
    Ok(exit::OK)
}

fn render(estimate: &RunEstimate) -> String {
    let hours = Duration::from_micros(estimate.duration_us);
    let (more, without) = match estimate.unknown as u64 {
        0 => (String::new(), String::new()),
        unknown => {
            let videos = format!("{} of unknown length", text::plural(unknown, "video"));
            (format!(", and {videos}"), format!(", without {videos}"))
        }
    };
    let mut lines = vec![
        format!("videos      {}", text::count(estimate.videos as u64)),
        format!(
            "frames      about {} ({}){more}",
            text::count(estimate.frames),
            text::duration(hours)
        ),
        format!("input       {}", text::bytes(estimate.input_bytes)),
        format!("rows        about {}{without}", text::count(estimate.rows)),
        format!(
            "output      at most about {}{without}",
            text::bytes(estimate.output_bytes)
        ),
        format!("shards      {} ({} done)", estimate.shards, estimate.shards_done),
        format!("models      {}", estimate.models.join(", ")),
        format!("fingerprint {}", estimate.fingerprint),
    ];
    if let Some(list) = PassedOver::list(&estimate.passed_over) {
        lines.push(format!("passed over {list}"));
    }
    for place in &estimate.unseen.first {
        lines.push(format!("unseen      {place}"));
    }
    if estimate.unseen.more() > 0 {
        lines.push(format!(
            "unseen      … and {} more",
            text::count(estimate.unseen.more())
        ));
    }
    for (key, reason) in &estimate.unreadable {
        lines.push(format!("unreadable  {key}: {}", escaped(reason)));
    }
    lines.join("\n")
}
