//! What a run tells the world: the only thing execution says to `report/`.
//!
//! One stream of [`Event`]s feeds the bars, the plain lines, `--json` and the event log. The JSON form is
//! versioned by `affectmill` in `run_started`; fields are added, never renamed.

mod log;

pub use log::{Line, Recap, last_pieces, now_ms, run_of};

use crate::{CommitRecord, PassedOver, StageSeconds, Unseen, VideoOutcome, VideoStatus};
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{Fingerprint, FrameIndex, Location, ShardId, VideoKey};
use affectmill_base::{OomRecord, ProcessIdentity};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How often a run says that it goes on, so that its event log tells a run that lives from one that was killed, also to
/// those who cannot ask its process.
pub const ALIVE: Duration = Duration::from_secs(10);

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The plan is known; work begins.
    RunStarted {
        /// Version of affectmill.
        affectmill: String,
        /// Process of the coordinator.
        pid: u32,
        /// Host it runs on.
        host: String,
        /// What tells that process from every other one, as far as the system says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<ProcessIdentity>,
        /// Fingerprint of the label set.
        fingerprint: Fingerprint,
        /// Output root.
        output: Location,
        /// Worker processes.
        workers: usize,
        /// What they compute on, such as `cuda:0 (NVIDIA H100 80GB HBM3)` or `cpu, 8 threads`, each once.
        #[serde(default)]
        devices: Vec<String>,
        /// Totals over all plans, and what commits cover already.
        totals: Totals,
        /// What the search of the input passed over, by kind.
        #[serde(default)]
        passed_over: Vec<PassedOver>,
        /// What it could not look at.
        #[serde(default)]
        unseen: Unseen,
    },
    /// The run shows itself: `http://<address>/` and `/metrics`.
    Shown {
        /// Where.
        address: SocketAddr,
    },
    /// Something the user ought to know; the run goes on.
    Warning {
        /// What and what to do.
        message: String,
    },
    /// Videos that left no row are tried again.
    Retrying {
        /// How many.
        videos: usize,
        /// How many of each class.
        classes: Vec<(ErrorClass, usize)>,
    },
    /// Headers are being read to plan new videos.
    Probing {
        /// Videos probed.
        done: usize,
        /// Videos to probe.
        of: usize,
    },
    /// A worker process was started.
    WorkerStarted {
        /// Number of the worker in this run.
        worker: usize,
        /// Its process.
        pid: u32,
        /// Its device.
        device: String,
        /// What kind of GPU that is, where it is one and its driver tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<String>,
        /// The host it runs on, where that is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// This host labels shards of a job that a coordinator elsewhere has posted.
    Joined {
        /// The job's name.
        job: String,
        /// Fingerprint of the label set.
        fingerprint: Fingerprint,
        /// Its output.
        output: Location,
        /// Worker processes of this host.
        workers: usize,
        /// What they compute on, as in `run_started`.
        #[serde(default)]
        devices: Vec<String>,
    },
    /// The shards without a commit are in the queue; workers that join label them.
    Queued {
        /// The job's name, which workers ask for.
        job: String,
        /// The servers.
        queue: String,
        /// Shards that wait or are in workers' hands.
        shards: usize,
    },
    /// Its models are loaded.
    WorkerReady {
        /// Worker.
        worker: usize,
    },
    /// A worker process ended while it was needed; its lease went back.
    WorkerLost {
        /// Worker.
        worker: usize,
        /// Signal, exit code or stall, in words.
        reason: String,
        /// The video in hand.
        video: Option<VideoKey>,
        /// Last frame reached.
        last_frame: Option<FrameIndex>,
        /// The last lines it wrote to standard error.
        last_words: Vec<String>,
    },
    /// A worker process is not needed any more and was told to end.
    WorkerEnded {
        /// Worker.
        worker: usize,
    },
    /// The loss counts against the video.
    Strike {
        /// The video.
        video: VideoKey,
        /// Strikes so far.
        strikes: usize,
        /// Strikes that quarantine.
        of: u32,
        /// The shard that was in hand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shard: Option<ShardId>,
        /// What it was for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trouble: Option<Trouble>,
    },
    /// A shard was handed out.
    Leased {
        /// Worker.
        worker: usize,
        /// Shard.
        shard: ShardId,
        /// Its videos.
        videos: usize,
        /// Its estimated frames.
        frames: u64,
        /// Those of its videos whose length is unknown, which `frames` leaves out.
        #[serde(default)]
        unknown: usize,
        /// A death of which nobody could tell is held against its videos.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
        /// What the worker's machine had counted by then, by which it is found whether memory ran out since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<OomRecord>,
    },
    /// A worker gave its shard back, and is well.
    GaveBack {
        /// Worker.
        worker: usize,
    },
    /// A worker opened a video.
    Opened {
        /// Worker.
        worker: usize,
        /// Video.
        video: VideoKey,
    },
    /// It goes on where an earlier attempt at the video had come to.
    Resumed {
        /// Worker.
        worker: usize,
        /// Video.
        video: VideoKey,
        /// The first frame to be labelled.
        frame: FrameIndex,
        /// Frames that were decoded again to get there, this one included.
        again: u64,
    },
    /// Work goes on.
    Progress {
        /// Worker.
        worker: usize,
        /// Frames of the shard in hand decoded so far.
        frames: u64,
        /// Rows of it labelled so far.
        rows: u64,
    },
    /// The run goes on. Said every [`ALIVE`], whatever else is said.
    Alive,
    /// A worker waits for a store: for a video to arrive, or until what failed in passing works again.
    Waiting {
        /// Worker.
        worker: usize,
        /// What for.
        reason: String,
    },
    /// A video did not end `ok`.
    VideoNotOk {
        /// Video.
        video: VideoKey,
        /// Its status.
        status: VideoStatus,
        /// The class of the error.
        #[serde(default)]
        class: Option<ErrorClass>,
        /// Why.
        error: String,
    },
    /// A shard's commit record exists.
    ShardDone {
        /// Worker.
        worker: usize,
        /// Shard.
        shard: ShardId,
        /// Frames its plan expected.
        planned_frames: u64,
        /// Frames decoded.
        frames: u64,
        /// Rows in its part.
        rows: u64,
        /// Videos that ended `ok`; of the others there was a [`Event::VideoNotOk`] each.
        #[serde(default)]
        ok: usize,
        /// Where the worker's time went.
        #[serde(default)]
        seconds: StageSeconds,
        /// Bytes of videos that it brought to scratch space meanwhile.
        #[serde(default)]
        fetched_bytes: u64,
        /// It was committed or left behind by somebody else.
        adopted: bool,
    },
    /// A signal asked to stop: shards in hand are finished, none are handed out.
    Draining {
        /// The signal's name.
        signal: String,
        /// Shards still in hand.
        shards: usize,
    },
    /// What the run has done so far: a further piece of its event log begins with it.
    SoFar {
        /// Shards committed by this run.
        shards: usize,
        /// Frames that their plans expected.
        frames: u64,
    },
    /// Every shard is committed and the dataset is finished.
    Finished {
        /// Nothing was left to do when the run began.
        nothing_to_do: bool,
        /// Totals.
        summary: Summary,
    },
    /// The run ended before that; run again to go on.
    Stopped {
        /// Why.
        reason: String,
        /// Shards committed, of all shards.
        shards_done: usize,
        /// All shards.
        shards: usize,
        /// Where it ended while it was planned: videos of all plans by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        planned: Option<usize>,
        /// It could not go on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        failed: bool,
    },
}

impl Event {
    /// The number of the worker it speaks of.
    pub fn worker_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::WorkerStarted { worker, .. }
            | Self::WorkerReady { worker }
            | Self::WorkerLost { worker, .. }
            | Self::WorkerEnded { worker }
            | Self::Leased { worker, .. }
            | Self::GaveBack { worker }
            | Self::Opened { worker, .. }
            | Self::Progress { worker, .. }
            | Self::Waiting { worker, .. }
            | Self::ShardDone { worker, .. } => Some(worker),
            _ => None,
        }
    }
}

impl From<NotOk> for Event {
    fn from(
        NotOk {
            video,
            status,
            class,
            error,
        }: NotOk,
    ) -> Self {
        Self::VideoNotOk {
            video,
            status,
            class,
            error,
        }
    }
}

/// Totals over all plans of a label set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Videos.
    pub videos: usize,
    /// Estimated frames; of a video whose length is unknown, as many as were decoded once its shard is committed.
    pub frames: u64,
    /// Videos of unknown length in shards that are not committed.
    #[serde(default)]
    pub unknown: usize,
    /// Shards.
    pub shards: usize,
    /// Shards that are committed.
    pub shards_done: usize,
    /// The frames of committed shards.
    pub frames_done: u64,
}

/// What a finished label set holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows of all parts.
    pub rows: u64,
    /// Rows that carry a face.
    pub faces: u64,
    /// Of these, faces for which a model gave NaN or an infinity.
    #[serde(default)]
    pub not_finite: u64,
    /// Frames decoded.
    pub frames: u64,
    /// Videos of each status.
    pub ok: usize,
    /// Damaged, good frames kept.
    pub partial: usize,
    /// Without rows.
    pub failed: usize,
    /// Given up after strikes.
    pub quarantined: usize,
    /// Wall-clock seconds of this run.
    pub seconds: f64,
    /// Frames decoded by this run.
    pub frames_this_run: u64,
    /// Videos that were decoded on the CPU though the job decodes on GPUs.
    #[serde(default)]
    pub fell_back: usize,
    /// Shards by what they were labelled on, as far as that is known.
    #[serde(default)]
    pub devices: BTreeMap<String, usize>,
    /// The first videos that did not end `ok`, in key order; all are in `videos.parquet`.
    pub not_ok: Vec<NotOk>,
    /// What the search of the input passed over, by kind.
    #[serde(default)]
    pub passed_over: Vec<PassedOver>,
    /// What it could not look at: not everything may be labelled, even where all videos are `ok`.
    #[serde(default)]
    pub unseen: Unseen,
    /// One sentence on where the time of this run's shards went; absent when nothing was labelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<String>,
}

/// Shards by what they were labelled on, as far as that is known.
pub fn by_device<'a>(commits: impl Iterator<Item = &'a CommitRecord>) -> BTreeMap<String, usize> {
    let mut devices = BTreeMap::new();
    for device in commits.filter_map(|commit| commit.device.as_ref()) {
        *devices.entry(device.to_string()).or_default() += 1;
    }
    devices
}

impl Summary {
    /// Videos of every status.
    pub fn videos(&self) -> usize {
        self.ok + self.partial + self.failed + self.quarantined
    }
}

/// A video that did not end `ok`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotOk {
    /// Video.
    pub video: VideoKey,
    /// Its status.
    pub status: VideoStatus,
    /// The class of the error.
    #[serde(default)]
    pub class: Option<ErrorClass>,
    /// Why.
    pub error: String,
}

impl NotOk {
    /// What is told of a video; `None` when it is `ok`.
    pub fn of(video: &VideoOutcome) -> Option<Self> {
        (video.status != VideoStatus::Ok).then(|| Self {
            video: video.key.clone(),
            status: video.status,
            class: video.error_class,
            error: video.error.clone().unwrap_or_default(),
        })
    }
}
