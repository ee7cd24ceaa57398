//! What became of a shard's decoding.

use super::PipelineError;
use super::input::NotOpened;
use affectmill_base::Trouble;
use affectmill_base::VideoKey;
use affectmill_labelset::VideoOutcome;
use affectmill_nn::ModelError;
use affectmill_store::StoreError;
use std::time::Duration;

/// What the decode thread has to tell when it is through.
#[derive(Default)]
pub(super) struct Decoded {
    pub outcomes: Vec<VideoOutcome>,
    pub busy: Duration,
    pub blocked: Duration,
    /// Waiting for videos to arrive.
    pub fetching: Duration,
    /// Why the shard was given up: a store, scratch space, or a GPU.
    pub failure: Option<PipelineError>,
    /// The video that could not be read to its end, though another attempt may: then nothing of the shard counts.
    pub read_interrupted: Option<(VideoKey, Interruption)>,
    /// Why the video cannot be resumed from its checkpoints.
    pub resume_mismatch: Option<String>,
}

/// Why the shard is not decoded to its end.
pub(super) enum Abandoned {
    /// The receiving side is gone: labelling failed, and says why itself.
    Receiver,
    /// A video could not be fetched, which is not its fault.
    Store(StoreError),
    /// A GPU failed, which is not the video's fault.
    Model(ModelError),
    /// The video was not read to its end. Frames of it are on their way to the part, which must not be kept: the next attempt
    /// may read them all, while a video that ends where a disk failed would look damaged for good.
    ReadInterrupted(Interruption),
    /// The video is decoded in another way than when its checkpoints were labelled.
    ResumeMismatch,
    /// The input went away; no video should suffer for it.
    InputGone(String),
}

/// Why a video was not read to its end, though another attempt may.
#[derive(Debug)]
pub struct Interruption {
    /// What happened, and where.
    pub trouble: Trouble,
    /// The decoder got no memory or its GPU failed, so the attempt needs a fresh process.
    pub needs_restart: bool,
}

impl From<Trouble> for Interruption {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            needs_restart: false,
        }
    }
}

impl From<NotOpened> for Abandoned {
    /// For a video that was opened before.
    fn from(not_opened: NotOpened) -> Self {
        match not_opened {
            NotOpened::Store(error) => Self::Store(error),
            NotOpened::Interrupted(interruption) => Self::ReadInterrupted(interruption),
            NotOpened::Video(trouble) => Self::ReadInterrupted(trouble.into()),
        }
    }
}

impl From<Trouble> for Abandoned {
    fn from(trouble: Trouble) -> Self {
        Self::ReadInterrupted(trouble.into())
    }
}

impl Decoded {
    /// Notes why the shard ends with this video.
    pub fn abandon(&mut self, video: &VideoKey, why: Abandoned) {
        match why {
            Abandoned::Receiver => {}
            Abandoned::Store(error) => self.failure = Some(error.into()),
            Abandoned::Model(error) => self.failure = Some(error.into()),
            Abandoned::InputGone(error) => self.failure = Some(PipelineError::InputGone(error)),
            Abandoned::ReadInterrupted(interruption) => {
                self.read_interrupted = Some((video.clone(), interruption))
            }
            Abandoned::ResumeMismatch => {
                self.resume_mismatch = Some(format!("{video} is decoded in another way now"))
            }
        }
    }
}
