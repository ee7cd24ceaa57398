//! What became of a shard's decoding.

use super::PipelineError;
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
    pub read_interrupted: Option<(VideoKey, Trouble)>,
    /// Why the video cannot be gone on with where its checkpoints end.
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
    /// The video broke off. Frames of it are on their way to the part, which must not be kept: a row that is missing is
    /// made up for by the next attempt, a video that ends where a disk failed would look like damage for good.
    ReadInterrupted(Trouble),
    /// The video is decoded in another way than when its checkpoints were labelled.
    ResumeMismatch,
    /// The input went away; no video should suffer for it.
    InputGone(String),
}

impl Decoded {
    /// Notes why the shard ends with this video.
    pub fn abandon(&mut self, video: &VideoKey, why: Abandoned) {
        match why {
            Abandoned::Receiver => {}
            Abandoned::Store(error) => self.failure = Some(error.into()),
            Abandoned::Model(error) => self.failure = Some(error.into()),
            Abandoned::InputGone(error) => self.failure = Some(PipelineError::InputGone(error)),
            Abandoned::ReadInterrupted(trouble) => self.read_interrupted = Some((video.clone(), trouble)),
            Abandoned::ResumeMismatch => {
                self.resume_mismatch = Some(format!("{video} is decoded in another way now"))
            }
        }
    }
}
