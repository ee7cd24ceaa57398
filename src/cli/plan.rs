//! `affectmill plan`.

use super::run::{Input, failure};
use super::{Failure, block_on, exit, print, print_json, to_stderr};
use affectmill_base::escaped;
use affectmill_coordinator as coordinator;
use affectmill_coordinator::{Outlook, Signals};
use affectmill_labelset::PassedOver;
use affectmill_progress::text;
use affectmill_spec as spec;
use std::path::PathBuf;
use std::time::Duration;

/// Show what a run would do: videos, frames, hours, shards, expected output size, files that cannot be read, and what of the
/// input is passed over.
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
        let looking = coordinator::outlook(job, args.input.moved);
        Ok(signals.unless(looking).await)
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
    let (more, without) = match outlook.unknown as u64 {
        0 => (String::new(), String::new()),
        unknown => {
            let videos = format!("{} of unknown length", text::plural(unknown, "video"));
            (format!(", and {videos}"), format!(", without {videos}"))
        }
    };
    let mut lines = vec![
        format!("videos      {}", text::count(outlook.videos as u64)),
        format!(
            "frames      about {} ({}){more}",
            text::count(outlook.frames),
            text::duration(hours)
        ),
        format!("input       {}", text::bytes(outlook.input_bytes)),
        format!("rows        about {}{without}", text::count(outlook.rows)),
        format!(
            "output      at most about {}{without}",
            text::bytes(outlook.output_bytes)
        ),
        format!("shards      {} ({} done)", outlook.shards, outlook.shards_done),
        format!("models      {}", outlook.models.join(", ")),
        format!("fingerprint {}", outlook.fingerprint),
    ];
    if let Some(list) = PassedOver::list(&outlook.passed_over) {
        lines.push(format!("passed over {list}"));
    }
    for place in &outlook.unseen.first {
        lines.push(format!("unseen      {place}"));
    }
    if outlook.unseen.more() > 0 {
        lines.push(format!(
            "unseen      … and {} more",
            text::count(outlook.unseen.more())
        ));
    }
    for (key, reason) in &outlook.unreadable {
        lines.push(format!("unreadable  {key}: {}", escaped(reason)));
    }
    lines.join("\n")
}
