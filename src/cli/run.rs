//! `affectmill run`.

use super::{Failure, block_on, exit};
use affectmill_coordinator as coordinator;
use affectmill_coordinator::{Ended, Prepared, RunError, Signal, Signals, Sink};
use affectmill_labelset::events::Event;
use affectmill_progress::{Reporter, Style};
use affectmill_spec as spec;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Label a collection; run again to resume, to add new videos, or to confirm that nothing is left to do.
///
/// The first Ctrl-C or SIGTERM finishes the current shards and stops, the second stops at once; `run` completes the label set
/// after either.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job file.
    job: PathBuf,
    /// Override a value of the job file, such as run.workers=2 or models.student.weights=/w/s.safetensors;
    /// may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Continue although the output was started on another class of device (GPU or CPU): rows may differ in their last bits, and
    /// each shard's commit record says what it was labelled on.
    #[arg(long)]
    allow_device_change: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    shown: Shown,
}

/// Options about the input.
#[derive(Debug, clap::Args)]
pub struct Input {
    /// The input is the collection that the output labels, moved or mounted elsewhere: videos of the same name are the
    /// same. Recorded, so later runs do not need the option.
    #[arg(long = "input-moved")]
    pub moved: bool,
}

/// Options of the progress display.
#[derive(Debug, clap::Args)]
pub struct Shown {
    /// One JSON event per line on standard output instead of progress.
    #[arg(long)]
    json: bool,
    /// Warnings and failures only.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

impl Shown {
    /// The reporter's style.
    pub fn style(&self) -> Style {
        match (self.json, self.quiet) {
            (true, _) => Style::Json,
            (_, true) => Style::Quiet,
            _ => Style::Human,
        }
    }
}

pub fn run(args: Args) -> Result<u8, Failure> {
    block_on(async {
        let mut signals = Signals::hear().map_err(failure)?;
        let mut job = spec::load(&args.job, &args.set).map_err(Failure::usage)?;
        job.run.allow_device_change |= args.allow_device_change;
        let run = job.run.clone();
        carry_out(args.shown, &run, &mut signals, async |signals, sink| {
            coordinator::prepare(job, args.input.moved, signals, sink).await
        })
        .await
    })?
}

/// Prepares a run, runs it, reports it, and returns the exit code.
pub async fn carry_out(
    shown: Shown,
    run: &spec::Run,
    signals: &mut Signals,
    prepare: impl AsyncFnOnce(&mut Signals, Sink<'_>) -> Result<Result<Prepared, Signal>, RunError>,
) -> Result<u8, Failure> {
    let mut reporter = Reporter::new(shown.style());
    // Before anything is written: planning is reported too, and an address in use fails early.
    if let Some(address) = run.metrics {
        show_at(address, &run.metrics_hosts, &mut reporter)?;
    }
    let prepared = prepare(signals, &mut |event| reporter.event(event)).await;
    let prepared = match prepared.map_err(failure)? {
        Ok(prepared) => prepared,
        Err(signal) => return Ok(exit::stopped(signal)),
    };
    reporter.log_into(&prepared.store);
    let ended = coordinator::run(prepared, signals, &mut |event| reporter.event(event))
        .await
        .map_err(failure)?;
    Ok(match ended {
        Ended::Finished(summary) if summary.ok < summary.videos() => exit::VIDEOS_FAILED,
        Ended::Finished(summary) if !summary.unseen.is_empty() => exit::VIDEOS_FAILED,
        Ended::Finished(_) => exit::OK,
        Ended::Stopped(signal) => exit::stopped(signal),
    })
}

fn show_at(address: SocketAddr, names: &[String], reporter: &mut Reporter) -> Result<(), Failure> {
    let shown = reporter.serve(address, names).map_err(|error| {
        Failure::usage(format!(
            "the run cannot be shown at {address} ([run] metrics): {error}; \
             name a free port of this machine, or 0 for any"
        ))
    })?;
    reporter.event(&Event::Shown { address: shown });
    Ok(())
}

/// The exit code distinguishes a wrong job from a run that stopped on an error.
pub fn failure(error: RunError) -> Failure {
    if error.is_usage() {
        Failure::usage(error)
    } else {
        Failure::stopped(error)
    }
}
