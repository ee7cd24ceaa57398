//! One worker as the dispatcher sees it: its shard, its last report, and the video at fault when it is lost.

use super::process::Process;
use affectmill_base::OomCounter;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{FrameIndex, ShardId, VideoKey};
use affectmill_queue::AtWork;
use affectmill_spec::Run;
use std::time::Duration;
use tokio::time::Instant;

/// Loading models shows no progress, and on a machine that is busy it may take far longer than a frame does.
const LEAST_START_TIMEOUT: Duration = Duration::from_secs(120);

/// A worker process.
pub struct Worker {
    pub process: Process,
    pub device: String,
    pub ready: bool,
    pub shard: Option<ShardId>,
    /// The video opened last.
    pub video: Option<VideoKey>,
    /// When it was opened.
    pub opened: Instant,
    /// The last frame decoded of it.
    pub last_frame: Option<FrameIndex>,
    pub at_work: AtWork,
    pub last_sign: Instant,
    /// Where the kernel counts its kills for want of memory, and how many of them were not this worker.
    pub oom: (OomCounter, u64),
    /// When it gets another shard, while the input is gone.
    pub idle_until: Option<Instant>,
    /// Why we killed it.
    pub killed: Option<Killed>,
}

/// A worker that this program killed.
pub struct Killed {
    pub why: KillCause,
    /// The video at fault, if it is known; otherwise the video that was being worked on is.
    pub video: Option<VideoKey>,
}

/// Why this program killed a worker.
#[derive(Debug, thiserror::Error)]
pub enum KillCause {
    /// It showed no progress for so many seconds.
    #[error("no progress for {0} s (run.stall_timeout)")]
    Stalled(f64),
    /// It took longer than so many seconds over one video.
    #[error("not done after {0} s (run.video_timeout)")]
    VideoTimeout(f64),
    /// It reported that its GPU failed.
    #[error("{0}")]
    GpuFailed(String),
}

impl KillCause {
    /// The class of the strike.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Stalled(_) | Self::VideoTimeout(_) => ErrorClass::Timeout,
            Self::GpuFailed(_) => ErrorClass::Crash,
        }
    }
}

impl Worker {
    /// A process that was just started.
    pub fn new(process: Process, device: String) -> Self {
        let counter = OomCounter::of(process.pid);
        Self {
            oom: (counter.clone(), counter.kills()),
            process,
            device,
            ready: false,
            shard: None,
            video: None,
            opened: Instant::now(),
            last_frame: None,
            at_work: AtWork::default(),
            last_sign: Instant::now(),
            idle_until: None,
            killed: None,
        }
    }

    /// It opened a video.
    pub fn video_opened(&mut self, video: &VideoKey) {
        self.video = Some(video.clone());
        self.at_work.decoding = Some(video.clone());
        self.opened = Instant::now();
        self.last_frame = None;
    }

    /// Its shard was committed or given back.
    pub fn release_shard(&mut self) {
        (self.shard, self.video, self.last_frame) = (None, None, None);
        self.at_work = AtWork::default();
    }

    /// The video that is to blame when the worker is lost, and the last frame known of it. A decoder that was at work is rather
    /// to blame than models, which do the same with any picture; `None` where neither was, as while a shard is stored.
    pub fn suspect(&self) -> Option<(VideoKey, Option<FrameIndex>)> {
        let known = self.killed.as_ref().and_then(|killed| killed.video.as_ref());
        match (known.or(self.at_work.decoding.as_ref()), &self.at_work.labelling) {
            (Some(video), _) => Some((
                video.clone(),
                self.last_frame.filter(|_| self.video.as_ref() == Some(video)),
            )),
            (None, Some((video, frame))) => Some((video.clone(), Some(*frame))),
            (None, None) => None,
        }
    }

    /// Whether the kernel killed a process of its group that was out of memory since it started, other than those counted already.
    pub fn out_of_memory(&self) -> bool {
        let (counter, known) = &self.oom;
        counter.kills() > *known
    }

    /// One of the kernel's kills counted there was another worker's.
    pub fn oom_was_another(&mut self, counter: &OomCounter) {
        let (own, known) = &mut self.oom;
        *known += u64::from(own == counter);
    }

    /// Extends the worker's deadlines by the time that this process or the machine slept, when no report could be read.
    pub fn extend_deadlines(&mut self, asleep: Duration) {
        self.last_sign += asleep;
        self.opened += asleep;
    }

    /// Why it must be killed, if it must.
    pub fn overdue(&self, run: &Run) -> Option<Killed> {
        let waits = self.ready && self.shard.is_none();
        let silent = self.last_sign.elapsed();
        if waits || self.killed.is_some() || (!self.ready && silent < LEAST_START_TIMEOUT) {
            return None;
        }
        if silent >= Duration::from_secs_f64(run.stall_timeout) {
            return Some(Killed {
                why: KillCause::Stalled(run.stall_timeout),
                video: None,
            });
        }
        let video = self.video.as_ref()?;
        let late = self.opened.elapsed() >= Duration::from_secs_f64(run.video_timeout);
        late.then(|| Killed {
            why: KillCause::VideoTimeout(run.video_timeout),
            video: Some(video.clone()),
        })
    }
}

/// The strike against the video at fault.
pub fn strike(
    suspect: Option<(VideoKey, Option<FrameIndex>)>,
    class: ErrorClass,
    error: &str,
) -> Option<(VideoKey, Trouble)> {
    suspect.map(|(video, frame)| {
        let trouble = Trouble {
            error: error.to_owned(),
            class,
            frame,
        };
        (video, trouble)
    })
}
