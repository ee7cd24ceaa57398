//! The run: prepare → dispatch → finish. Owns run state; never touches a frame.
//!
//! Flows in: a validated job. Flows out: [`Event`]s for `report/`, a finished label set, and how it ended.

mod cluster;
mod device;
mod dispatch;
mod earlier;
mod estimate;
mod finish;
mod heartbeat;
mod host_config;
mod labelled;
mod moving;
mod opened;
mod permits;
mod planning;
mod prepare;
mod probe;
mod process;
mod retry;
mod signals;
mod supervised;
mod suspects;
mod tallying;
mod worker_host;

pub use device::gpus;
pub use earlier::Earlier;
pub use estimate::{RunEstimate, estimate};
use heartbeat::alive;
use host_config::{HostConfig, gpu_names};
use labelled::Labelled;
pub use permits::{NotAllowed, Permits, Scripts};
pub use prepare::{Prepared, prepare, resolve};
pub use retry::{Wanted, prepare_retry, recorded_job};
pub use signals::{Signal, Signals};
pub use worker_host::{Part, WorkerHost, join};

use affectmill_base::{AmbiguousName, ProcessIdentity, hostname};
use affectmill_base::{Location, ShardId, VideoKey};
use affectmill_discover::DiscoverError;
use affectmill_labelset::commit::CommitError;
use affectmill_labelset::events::{Event, Summary, Totals};
use affectmill_labelset::plan::PlanError;
use affectmill_labelset::rows::RowError;
use affectmill_labelset::{LabelSetError, PlannedVideo, ShardPlan, paths};
use affectmill_nn::ModelError;
use affectmill_queue::local::LocalQueue;
use affectmill_queue::nats::NatsError;
use affectmill_queue::{Leases, WireError};
use affectmill_store::{StoreError, Trouble};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

/// Where events go. Called on the coordinator's only thread, so it must not block for long.
pub type Sink<'a> = &'a mut dyn FnMut(&Event);

/// How a run ended, when it did not fail.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// Everything is labelled and the dataset is finished.
    Finished(Box<Summary>),
    /// A signal asked to stop; run again to go on.
    Stopped(Signal),
}

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The input is missing or empty.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A weight file is missing or does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model was trained on faces cropped in another way than the job crops them.
    #[error(
        "model `{model}`: {weights} {stated}, but the job crops faces by `{job}` for it, and other crops give wrong labels; \
         change `crop` in [faces], or give this model its own in [[models]], or state what the model was trained on: \
         `affectmill import-weights {weights} --crop RECIPE -o FILE`"
    )]
    Crop {
        /// The model's name.
        model: String,
        /// Its weight file.
        weights: String,
        /// The job's recipe.
        job: &'static str,
        /// What the weight file says.
        stated: String,
    },
    /// A video does not fit where it must be brought before it can be read.
    #[error(
        "the scratch folder {} has {free} bytes free, and the video `{video}` has {bytes}; free space there, or name a larger \
         disk as [run] scratch", scratch.display()
    )]
    Scratch {
        /// The folder.
        scratch: PathBuf,
        /// Bytes free.
        free: u64,
        /// The longest video.
        video: VideoKey,
        /// Its bytes.
        bytes: u64,
    },
    /// The credentials may list the input and read none of it.
    #[error("no video in `{input}` may be read; of the first one: {cause}")]
    Forbidden {
        /// What the keys are relative to.
        input: String,
        /// Why the first one may not be read, with the remedy.
        cause: String,
    },
    /// Faces are to be looked for in crops.
    #[error(
        "`{0}` holds crops, whose faces were found before; label them with [faces] mode = \"full_frame\", or name another \
         [input] uri"
    )]
    Crops(String),
    /// Frames are to be chosen by their times, and images have none.
    #[error(
        "`{0}` holds images, which have no times, and [sampling] mode = \"fps\" goes by them; set [input] image_fps, or \
         mode = \"stride\""
    )]
    Timeless(String),
    /// The job decodes on GPUs, and this machine cannot.
    #[error(
        "[input] decode = \"nvdec\" cannot be had here: {0}; `affectmill doctor` says what there is; or set decode = \"cpu\", \
         which makes another dataset"
    )]
    NoNvdec(String),
    /// The job computes on GPUs, and this machine has none.
    #[error(
        "[run] device = \"cuda\" cannot be had here: {0}; `affectmill doctor` says what there is; or set device = \"auto\" or \
         \"cpu\""
    )]
    NoGpu(String),
    /// The faces of an earlier run cannot be taken over.
    #[error("{output}: its faces cannot be taken over ([faces] labels): {cause}")]
    Earlier {
        /// The earlier output's root.
        output: String,
        /// Why, and the remedy.
        cause: String,
    },
    /// A video was named that no plan has.
    #[error(
        "no plan has the video `{0}`; `videos.parquet` lists the videos there are, by their paths within the input"
    )]
    NoSuchVideo(VideoKey),
    /// A retry names a video that reads like several.
    #[error(transparent)]
    AmbiguousName(#[from] AmbiguousName),
    /// The output belongs to another job.
    #[error("{output} was {} by another job; what differs:\n{}\nname another [output] uri, or restore these values{}", if *committed { "labelled" } else { "begun" }, differences.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"), if *committed { String::new() } else { format!("; no shard is committed there, so that removing {output}/{} begins it anew", paths::RECORDS) })]
    OtherFingerprint {
        /// The output root.
        output: String,
        /// Whether that job has committed anything.
        committed: bool,
        /// One line for each field that differs.
        differences: Vec<String>,
    },
    /// A host that joins a run would label in another way than the coordinator.
    #[error("this machine would label in another way than the coordinator; what differs:\n{}\nuse the same build of affectmill, FFmpeg and weights everywhere", differences.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))]
    OtherMachine {
        /// One line for each field that differs.
        differences: Vec<String>,
    },
    /// A host that joins a run does not see what the coordinator sees.
    #[error(
        "{place} is not here what it is for the coordinator: {cause}; mount the same file system under the same path on every host, or keep it in S3"
    )]
    NotShared {
        /// The folder.
        place: String,
        /// What is amiss.
        cause: String,
    },
    /// A posted job wants what this host does not allow.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The queue past this machine cannot be used.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A record in the output cannot be read.
    #[error("{path}: {cause}; it was written by another version of affectmill or damaged")]
    Record {
        /// Its path.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// What is there of the label set cannot be read.
    #[error(transparent)]
    Set(#[from] LabelSetError),
    /// A shard was committed, and its record is not there.
    #[error(
        "{commit} was written and is not there; the store has lost it: run again, its shard is labelled anew or its part adopted"
    )]
    Uncommitted {
        /// The commit record.
        commit: String,
    },
    /// Another run has planned more meanwhile.
    #[error(
        "another run planned {shards} more shards for {output} meanwhile, which are not labelled yet: the label set is finished \
         when they are; run again to see"
    )]
    PlannedMeanwhile {
        /// The output root.
        output: String,
        /// How many.
        shards: usize,
    },
    /// The output cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan cannot be read or written.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A commit cannot be read.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// `videos.parquet` could not be made.
    #[error(transparent)]
    Videos(#[from] RowError),
    /// A worker could not be started.
    #[error("a worker process could not be started: {0}")]
    Spawn(#[source] std::io::Error),
    /// Messages to workers broke in an unexpected place.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A worker reported trouble that no retry mends.
    #[error("worker {worker}: {error}")]
    Worker {
        /// Which.
        worker: usize,
        /// Its report.
        error: String,
    },
    /// The input went away in the midst of the run, and did not come back in time.
    #[error("{error}; `affectmill run` goes on when it is back")]
    InputGone {
        /// What is known of it, with the remedy.
        error: String,
    },
    /// Workers die one after the other.
    #[error(
        "{losses} workers in a row were lost without one shard committed; the last one: {reason}{}\n\
         nothing was marked as failed; `affectmill doctor` checks this machine, `affectmill run` goes on",
        last_words.iter().map(|line| format!("\n  | {line}")).collect::<String>()
    )]
    WorkersKeepDying {
        /// How many.
        losses: usize,
        /// How the last one ended.
        reason: String,
        /// Its last lines on standard error.
        last_words: Vec<String>,
    },
}

impl RunError {
    /// The command or the job is to blame, rather than the machine: nothing was begun.
    pub fn is_usage(&self) -> bool {
        let passing = |error: &StoreError| error.trouble() == Some(Trouble::Transient);
        match self {
            RunError::Discover(DiscoverError::Store(error)) if passing(error) => return false,
            _ => {}
        }
        matches!(
            self,
            RunError::Discover(_)
                | RunError::Plan(PlanError::OtherInput { .. })
                | RunError::Model(_)
                | RunError::Scratch { .. }
                | RunError::Crop { .. }
                | RunError::Crops(_)
                | RunError::Timeless(_)
                | RunError::NoNvdec(_)
                | RunError::NoGpu(_)
                | RunError::Commit(CommitError::OtherDevice { .. })
                | RunError::Earlier { .. }
                | RunError::NoSuchVideo(_)
                | RunError::AmbiguousName(_)
                | RunError::OtherFingerprint { .. }
                | RunError::OtherMachine { .. }
                | RunError::NotShared { .. }
                | RunError::NotAllowed(_)
                | RunError::Nats(
                    NatsError::Refused { .. }
                        | NatsError::TooOld { .. }
                        | NatsError::Forbidden { .. }
                        | NatsError::File { .. }
                        | NatsError::NoJob { .. }
                        | NatsError::Taken { .. }
                        | NatsError::Version { .. }
                )
        )
    }
}

/// Carries a prepared job to its end.
///
/// # Errors
/// [`RunError`] when the run cannot go on. Whatever happens, what is committed stays committed.
pub async fn run(prepared: Prepared, signals: &mut Signals, sink: Sink<'_>) -> Result<Ended, RunError> {
    let Totals {
        shards,
        mut shards_done,
        ..
    } = prepared.totals();
    let mut counting = |event: &Event| {
        shards_done += usize::from(matches!(event, Event::ShardDone { .. }));
        sink(event);
    };
    let ended = carry_out(prepared, signals, &mut counting).await;
    if ended.is_err() {
        // Readers of the log can then tell it from a run that died.
        sink(&Event::Stopped {
            reason: "an error".into(),
            shards_done,
            shards,
            planned: None,
            failed: true,
        });
    }
    ended
}

async fn carry_out(prepared: Prepared, signals: &mut Signals, sink: Sink<'_>) -> Result<Ended, RunError> {
    let began = Instant::now();
    let totals = prepared.tally.totals();
    let host_config = prepared.host_config();
    sink(&Event::RunStarted {
        affectmill: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        host: hostname(),
        process: ProcessIdentity::own(),
        fingerprint: prepared.record.fingerprint.clone(),
        output: prepared.store.root().to_owned(),
        workers: match cluster::address(&prepared) {
            Some(_) => 0,
            None => host_config.devices.len(),
        },
        devices: match cluster::address(&prepared) {
            Some(_) => Vec::new(),
            None => host_config.devices_in_words(),
        },
        totals,
        passed_over: prepared.passed_over.clone(),
        unseen: prepared.unseen.clone(),
    });
    let untrained: Vec<&str> = prepared.record.untrained().collect();
    if !untrained.is_empty() {
        let message = format!(
            "UNTRAINED weights (made by init-weights), labels that mean nothing, good for tests only: {}",
            untrained.join(", ")
        );
        sink(&Event::Warning { message });
    }
    if cluster::address(&prepared).is_none()
        && let Some(message) = device::device_warning(&prepared.record.job)
    {
        sink(&Event::Warning { message });
    }

    for message in prepared.suspects.words.clone() {
        sink(&Event::Warning { message });
    }
    let tallying = tallying::Tallying::start(prepared.store.clone(), prepared.tally.clone());
    let tallying = tallying.map_err(RunError::Spawn)?;
    let nothing_to_do = totals.shards == totals.shards_done;
    let mut labelled = Labelled::default();
    let job = prepared.record.job.clone();
    if !nothing_to_do {
        let store = prepared.store.clone();
        alive(blocking(move || finish::retract(&store)), sink).await??;
        let (signal, done) = match cluster::address(&prepared) {
            Some(address) => cluster::run_cluster(&prepared, address, signals, sink).await?,
            None => label_here(&prepared, signals, sink).await?,
        };
        if let Some(signal) = signal {
            sink(&Event::Stopped {
                reason: signal.name().into(),
                shards_done: totals.shards_done + done.shards,
                shards: totals.shards,
                planned: None,
                failed: false,
            });
            return Ok(Ended::Stopped(signal));
        }
        labelled = done;
    } else if let Some(address) = cluster::address(&prepared) {
        cluster::release(&prepared, address, sink).await;
    }
    // On a thread of its own, since a store may keep it waiting.
    let finishing = blocking(move || {
        let mut events = Vec::new();
        tallying.end();
        let finished = finish::finish(&prepared, &mut |event| events.push(event.clone()));
        (events, finished)
    });
    let (mut summary, changed) = match alive(signals.unless(finishing), sink).await {
        Ok(finished) => {
            let (events, finished) = finished?;
            events.iter().for_each(&mut *sink);
            finished?
        }
        Err(signal) => {
            sink(&Event::Stopped {
                reason: signal.name().into(),
                shards_done: totals.shards,
                shards: totals.shards,
                planned: None,
                failed: false,
            });
            return Ok(Ended::Stopped(signal));
        }
    };
    summary.seconds = began.elapsed().as_secs_f64();
    summary.frames_this_run = labelled.frames;
    summary.bottleneck = labelled.bottleneck(&job);
    sink(&Event::Finished {
        nothing_to_do: nothing_to_do && !changed,
        summary: summary.clone(),
    });
    Ok(Ended::Finished(Box::new(summary)))
}

/// Labels what has no commit with this machine's own workers.
async fn label_here(
    prepared: &Prepared,
    signals: &mut Signals,
    sink: Sink<'_>,
) -> Result<(Option<Signal>, Labelled), RunError> {
    let todo = prepared.without(&prepared.committed);
    let todo = todo.map(|shard| prepared.handed_out(shard)).collect();
    let queue = LocalQueue::new(todo, prepared.record.job.run.max_strikes);
    let queue = queue.holding(prepared.suspects.strikes.clone());
    let queue = match prepared.input_root {
        Location::Local(_) => queue,
        Location::S3 { .. } => queue.foretelling(),
    };
    let host_config = prepared.host_config();
    dispatch::Dispatcher::new(&host_config, Leases::Local(queue), sink)
        .run(signals)
        .await
}

/// Does what may take long on a thread of its own, so that the loop goes on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RunError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| RunError::Spawn(std::io::Error::other(error)))
}

impl Prepared {
    /// The shards that are not among `done`.
    fn without<'a>(&'a self, done: &BTreeSet<ShardId>) -> impl Iterator<Item = &'a ShardPlan> {
        self.shards.iter().filter(move |shard| !done.contains(&shard.id))
    }

    /// A shard as workers get it: with what is known of its videos by now. That one is missing is no news then.
    fn handed_out(&self, shard: &ShardPlan) -> ShardPlan {
        let mut shard = shard.clone();
        let missing = |video: &&mut PlannedVideo| self.missing.contains(&video.key);
        for video in shard.videos.iter_mut().filter(missing) {
            video.unreadable = Some("it was gone from the input when the run began".into());
        }
        shard
    }

    /// Totals over all plans, and what commits cover.
    pub fn totals(&self) -> Totals {
        self.tally.totals()
    }
}
