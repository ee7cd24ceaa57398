//! `affectmill train`.

use super::{Failure, block_on, exit, print, to_stderr};
use affectmill_base::escaped;
use affectmill_base::write_atomic;
use affectmill_coordinator::Signal;
use affectmill_progress::curves;
use affectmill_progress::curves::{Curve, Panel};
use affectmill_progress::text;
use affectmill_spec as spec;
use affectmill_spec::TrainJob;
use affectmill_training as fit;
use affectmill_training::{Ended, Event};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Train a student or a teacher on crops; run again to resume from the last checkpoint.
///
/// Crops come from a job with `[output] crops = "webdataset"`, with teachers' labels beside them, or from folders of images;
/// people's labels from annotations in ABAW's format. jobs/distill.toml is a commented example. The output folder gets
/// best.safetensors for `run`, curves.jsonl, curves.svg and a checkpoint.
///
/// The first Ctrl-C or SIGTERM finishes the current step and writes a checkpoint.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The train job file.
    job: PathBuf,
    /// Override a value of the job file, such as train.epochs=40; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// One JSON event per line on standard output instead of progress.
    #[arg(long)]
    json: bool,
    /// Warnings and failures only.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let job = spec::load_train(&args.job, &args.set).map_err(Failure::usage)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (done, ended) = oneshot::channel();
    let (theirs, mut shown) = (Arc::clone(&stop), Shown::new(&args, &job));
    std::thread::Builder::new()
        .name("training".into())
        .spawn(move || {
            let ended = fit::run(&job, &theirs, &mut |event| shown.event(&event));
            let _ = done.send(ended);
        })
        .map_err(Failure::stopped)?;
    let (ended, signal_received) = block_on(until_done(ended, &stop))??;
    match ended.map_err(|error| {
        if error.is_usage() {
            Failure::usage(error)
        } else {
            Failure::stopped(error)
        }
    })? {
        Ended::Finished { .. } => Ok(exit::OK),
        Ended::Stopped => Ok(signal_received.map_or(exit::STOPPED, exit::stopped)),
    }
}

type Training = Result<Ended, fit::TrainError>;

/// Waits for the training's end. The first signal requests a stop, the second returns at once.
async fn until_done(
    mut ended: oneshot::Receiver<Training>,
    stop: &AtomicBool,
) -> Result<(Training, Option<Signal>), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::stopped)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::stopped)?;
    let mut signal_received = None;
    loop {
        let met = tokio::select! {
            ended = &mut ended => {
                let lost = |_| Failure::stopped("the training's thread ended without a word; see above");
                return Ok((ended.map_err(lost)?, signal_received));
            }
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
        };
        if signal_received.replace(met).is_some() {
            return Ok((Ok(Ended::Stopped), signal_received));
        }
        stop.store(true, Ordering::Relaxed);
        to_stderr("stopping after this step; once more stops at once");
    }
}

/// Reports a training: lines on standard error, or JSON on standard output; and updates the picture of the curves.
struct Shown {
    json: bool,
    quiet: bool,
    curves: PathBuf,
    picture: PathBuf,
    started: Instant,
    last_line: Option<Instant>,
    steps: u64,
    faces: u64,
}

/// Interval between progress lines.
const PAUSE: Duration = Duration::from_secs(5);

impl Shown {
    fn new(args: &Args, job: &TrainJob) -> Self {
        Self {
            json: args.json,
            quiet: args.quiet,
            curves: job.output.path.join("curves.jsonl"),
            picture: job.output.path.join("curves.svg"),
            started: Instant::now(),
            last_line: None,
            steps: 0,
            faces: 0,
        }
    }

    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Epoch { .. } | Event::Finished { .. })
            && let Err(cause) = draw(&self.curves, &self.picture)
        {
            to_stderr(escaped(&format!("warning: {}: {cause}", self.picture.display())));
        }
        if self.json {
            // A failed print must not stop the training; the curves have the same data.
            let _ = print(serde_json::to_string(event).unwrap_or_default());
            return;
        }
        if let Some(line) = self
            .line(event)
            .filter(|_| !self.quiet || matches!(event, Event::Warning { .. }))
        {
            to_stderr(escaped(&line));
        }
    }

    fn line(&mut self, event: &Event) -> Option<String> {
        Some(match event {
            Event::Started {
                kind,
                device,
                training,
                held_out,
                steps,
                resumed,
            } => {
                self.started = Instant::now();
                let from = match resumed {
                    0 => String::new(),
                    step => format!(", going on after step {step}"),
                };
                format!(
                    "training a {kind} on {device}: {} faces of {} videos, {} of {} held out; {steps} steps{from}",
                    training.faces, training.videos, held_out.faces, held_out.videos
                )
            }
            Event::Warning { message } => format!("warning: {message}"),
            Event::Step {
                step,
                epochs,
                steps,
                faces,
            } => {
                self.steps += 1;
                self.faces += *faces as u64;
                if self.last_line.is_some_and(|last| last.elapsed() < PAUSE) {
                    return None;
                }
                self.last_line = Some(Instant::now());
                let seconds = self.started.elapsed().as_secs_f64();
                let left = seconds / self.steps as f64 * steps.saturating_sub(step.step) as f64;
                format!(
                    "epoch {} of {epochs}, step {} of {steps}: loss {:.4}, {:.1} faces/s, {} left",
                    step.epoch,
                    step.step,
                    step.loss,
                    self.faces as f64 / seconds,
                    text::duration(Duration::from_secs_f64(left))
                )
            }
            Event::Epoch { epoch, best } => {
                let figures = epoch.score.figures.iter();
                let figures: Vec<String> = figures
                    .map(|(name, value)| format!("{name} {value:.3}"))
                    .collect();
                format!(
                    "epoch {}: loss {:.4}, held out {:.4}; score {:.4}{} ({})",
                    epoch.epoch,
                    epoch.training_loss,
                    epoch.held_out_loss,
                    epoch.score.score,
                    if *best { ", the best so far" } else { "" },
                    figures.join(", ")
                )
            }
            Event::Finished {
                reason,
                weights,
                epoch,
                score,
            } => format!(
                "done, {reason}; the best is epoch {epoch} with score {score:.4}: {}",
                weights.display()
            ),
        })
    }
}

/// Draws the curves recorded so far.
fn draw(curves: &Path, picture: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(curves).map_err(|error| error.to_string())?;
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let curve = |name: &str, key: &str| {
        let point = |line: &Value| Some((line["step"].as_f64()?, line[key].as_f64()?));
        Curve {
            name: name.into(),
            points: lines.iter().filter_map(point).collect(),
        }
    };
    let losses = [
        ("step", "loss"),
        ("training, mean of the epoch", "training_loss"),
        ("held out", "held_out_loss"),
    ];
    let mut figures: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for line in &lines {
        let (step, of) = (line["step"].as_f64(), line["figures"].as_object());
        for (name, value) in of.into_iter().flatten() {
            if let (Some(step), Some(value)) = (step, value.as_f64()) {
                figures.entry(name).or_default().push((step, value));
            }
        }
    }
    let panels = [
        Panel {
            title: "loss".into(),
            curves: losses.map(|(name, key)| curve(name, key)).into(),
        },
        Panel {
            title: "held-out faces".into(),
            curves: figures
                .into_iter()
                .map(|(name, points)| Curve {
                    name: name.into(),
                    points,
                })
                .collect(),
        },
    ];
    let drawn = curves::svg(&panels, "step")?;
    write_atomic(picture, drawn.as_bytes()).map_err(|error| error.to_string())
}
