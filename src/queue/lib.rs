//! Who works on what: the lease contract and its messages.
//!
//! The queue only hints. It delivers at least once, may lose or repeat anything, and is rebuilt at every start
//! from the plans minus the commits; the commit is the truth. Nothing here opens a video or a store.

mod leases;
pub mod local;
pub mod nats;
#[cfg(test)]
mod tests;
mod wire;

pub use leases::{Answer, Arrival, Leases};
pub use wire::{WireError, read_message, read_message_async, write_message, write_message_async};

use affectmill_base::InputFolders;
use affectmill_base::Trouble;
use affectmill_base::{FrameIndex, Location, ShardId, VideoKey, checksum};
use affectmill_labelset::{
    JobRecord, PlannedVideo, Quarantined, ShardPlan, StageSeconds, VideoOutcome, VideoStatus,
};
use affectmill_spec::S3Settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Version of the messages; a worker refuses another one.
pub const PROTOCOL: u32 = 5;

/// Number of a worker within a run, counted from 0 and never used twice.
pub type WorkerId = usize;

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// First message to a labelling worker: load the models of this job and report `Ready`.
    Job(Box<Assignment>),
    /// Label this shard, commit it, report `Done` or `Failed`.
    Lease(Box<Lease>),
    /// Read the header of this video and report `Probed`. Needs no job and no model.
    Probe {
        /// The video; `frames` and `duration_us` are still unknown.
        video: PlannedVideo,
        /// What its key is relative to.
        root: Location,
        /// How it is reached in S3.
        reach: Box<Reach>,
        /// Number of frame 0 in a folder of images.
        image_base: u64,
        /// Pixels of the largest picture that is taken.
        max_pixels: u64,
    },
}

/// Everything a worker needs before its first lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// The job, with the models' checksums.
    pub job: JobRecord,
    /// What the video keys are relative to.
    pub input_root: Location,
    /// Which folders these were when the run began; of a bucket nothing.
    pub folders: InputFolders,
    /// `cpu` or `cuda:<n>`.
    pub device: String,
    /// Threads this worker may keep busy.
    pub threads: usize,
    /// Bytes of scratch space it may fill with videos from S3.
    pub fetch_bytes: u64,
}

/// What reaching S3 takes, of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// `[s3]`.
    pub s3: S3Settings,
    /// `[run] scratch`.
    pub scratch: Option<PathBuf>,
    /// `[run] outage_timeout`.
    pub outage_timeout: f64,
}

/// The right, and duty, to label one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The shard.
    pub shard: ShardPlan,
    /// Videos of the shard that must not be opened.
    pub quarantined: Vec<Quarantined>,
    /// The shard that this worker will most likely be given next: worth fetching ahead, nothing else.
    #[serde(default)]
    pub next: Option<ShardPlan>,
    /// Where an earlier run's faces of each video are; of videos that it lacks nothing. Empty unless they are asked for.
    pub earlier: BTreeMap<VideoKey, EarlierVideo>,
}

/// Where the faces of a video lie in the output of an earlier run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierVideo {
    /// Its key there, where it differs in how accents are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<VideoKey>,
    /// The shard in that output whose part has them.
    pub shard: ShardId,
    /// SHA-256 of the part, hex.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
    /// Size of the video then.
    pub bytes: u64,
    /// What became of it then.
    pub status: VideoStatus,
}

/// What a worker's threads are at work on: who is to blame where it hangs or dies. A thread that is said to wait does wait; one
/// that is said to be at work may have begun to wait a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AtWork {
    /// The video in the decoder's hands; `None` while it waits for the models or for a video to arrive.
    pub decoding: Option<VideoKey>,
    /// Video and frame of the oldest row in the batch in the detector's or a model's hands; `None` while these wait for frames.
    pub labelling: Option<(VideoKey, FrameIndex)>,
}

/// What a worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// A transfer from or to a store that works.
    Transfer,
    /// A store that fails; the request is retried.
    Recovery,
}

/// What a worker reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// The models are loaded; leases are welcome.
    Ready,
    /// The video is about to be opened, and in the decoder's hands.
    Opened {
        /// The video.
        video: VideoKey,
    },
    /// Labelling goes on where an earlier attempt at the video had come to.
    Resumed {
        /// The video.
        video: VideoKey,
        /// The first frame to be labelled.
        frame: FrameIndex,
        /// Frames that were decoded again to get there, this one included.
        again: u64,
    },
    /// Work goes on. Sent several times a second while it does, and never when it does not; and before a thread goes to work
    /// on a video that was not told last.
    Progress {
        /// Last frame that was decoded of the video opened last.
        frame: Option<FrameIndex>,
        /// Frames of the shard decoded so far.
        frames: u64,
        /// Rows of the shard labelled so far.
        rows: u64,
        /// Who is at work on what.
        at_work: AtWork,
    },
    /// A store keeps the worker waiting. Sent every second while it does.
    Waiting {
        /// What for.
        on: WaitsFor,
        /// The same in words.
        reason: String,
    },
    /// Something that whoever watches the run should know.
    Warning {
        /// In words.
        message: String,
    },
    /// The shard's commit record exists.
    Done {
        /// The shard.
        shard: ShardId,
        /// Rows in its part.
        rows: u64,
        /// Outcome of each video.
        videos: Vec<VideoOutcome>,
        /// Where the time went.
        seconds: StageSeconds,
        /// Bytes of videos that were brought to scratch space meanwhile.
        fetched_bytes: u64,
        /// Somebody else had committed it, or left a part that was adopted.
        adopted: bool,
    },
    /// A video of the lease could not be read to its end, though another attempt may. Nothing was committed; the worker waits
    /// for a lease.
    ReadInterrupted {
        /// The video.
        video: VideoKey,
        /// Why.
        trouble: Trouble,
        /// Memory or a GPU failed: the next attempt needs a fresh process.
        #[serde(default)]
        needs_restart: bool,
    },
    /// The input went away: an unmounted disk, a share that is out of reach. Nothing was committed; the worker is well and waits
    /// for a lease.
    InputGone {
        /// What is known of it, with the remedy.
        error: String,
    },
    /// The worker cannot go on with this lease, or at all; the videos are not to blame.
    Failed {
        /// What happened, with path and remedy.
        error: String,
        /// The same lease may succeed later.
        retry: bool,
    },
    /// The GPU does not answer any more, and this process is of no more use. The video in hand may have brought it down.
    GpuFailed {
        /// What happened, with the remedy.
        error: String,
    },
    /// Answer to [`ToWorker::Probe`].
    Probed {
        /// The video with what its header tells, or why it could not be read.
        video: PlannedVideo,
        /// The credentials may not read it.
        #[serde(default)]
        forbidden: bool,
    },
}
