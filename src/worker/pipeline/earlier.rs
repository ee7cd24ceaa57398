//! Faces that an earlier run found, matched to the frames of this one.
//!
//! Frames and faces must match one to one. Where they do not, the video is not the one that was labelled then, or is read in
//! another way now, and no label is better than one on the wrong face.

use super::input::NotOpened;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{Face, FrameIndex, Micros, RowStatus, ShardId, VideoKey, hex};
use affectmill_labelset::rows::{EarlierFaces, EarlierFrame, ReadError};
use affectmill_labelset::{PlannedVideo, VideoStatus, paths};
use affectmill_queue::EarlierVideo;
use affectmill_store::{Store, StoreError};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Parts of an earlier output; the last one is kept, as the next video most often lies in it too.
#[derive(Default)]
pub(super) struct Parts {
    last: Option<(ShardId, Bytes)>,
}

/// Why a part cannot be had.
enum PartError {
    Store(StoreError),
    Wrong(String),
}

impl Parts {
    fn get(&mut self, store: &Store, video: &EarlierVideo) -> Result<Bytes, PartError> {
        if let Some((shard, bytes)) = &self.last
            && *shard == video.shard
        {
            return Ok(bytes.clone());
        }
        let part = paths::part(&video.shard);
        let path = store.path(&part);
        let bytes = store.get(&part).map_err(PartError::Store)?;
        let bytes =
            bytes.ok_or_else(|| PartError::Wrong(format!("{path}: the earlier run's part is missing")))?;
        if hex(&Sha256::digest(&bytes)) != video.sha256 {
            return Err(PartError::Wrong(format!(
                "{path}: the earlier run's part is not what its commit record says"
            )));
        }
        let bytes = Bytes::from(bytes);
        self.last = Some((video.shard.clone(), bytes.clone()));
        Ok(bytes)
    }
}

/// The earlier frames of one video.
pub(super) struct EarlierFrames {
    video: VideoKey,
    faces: EarlierFaces,
    /// Read ahead.
    ahead: Option<EarlierFrame>,
    last: Option<FrameIndex>,
}

impl EarlierFrames {
    /// Opens them; the error says why the earlier run's faces cannot be those of this video.
    pub fn open(
        store: &Store,
        parts: &mut Parts,
        video: &PlannedVideo,
        earlier: Option<&EarlierVideo>,
    ) -> Result<Self, NotOpened> {
        let trouble = |class, cause: &str| Trouble {
            error: format!("{}: {cause} ([faces] labels)", video.key),
            class,
            frame: None,
        };
        let refuse = |class, cause: &str| NotOpened::Video(trouble(class, cause));
        let interrupted = |cause: &str| NotOpened::Interrupted(trouble(ErrorClass::Io, cause).into());
        let Some(earlier) = earlier else {
            let cause = "the earlier run did not label it, or several whose names read the same; detect its faces, or run that \
                         job again first";
            return Err(refuse(ErrorClass::Unsupported, cause));
        };
        if matches!(earlier.status, VideoStatus::Failed | VideoStatus::Quarantined) {
            let cause = "the earlier run could not label it and has no faces of it";
            return Err(refuse(ErrorClass::Unsupported, cause));
        }
        if earlier.bytes != video.bytes {
            let cause = format!(
                "it has {} bytes and had {} when its faces were found, so it is another video",
                video.bytes, earlier.bytes
            );
            return Err(refuse(ErrorClass::Changed, &cause));
        }
        let part = parts.get(store, earlier).map_err(|failed| match failed {
            // A store in S3 that fails is not the video's fault.
            PartError::Store(error) if error.trouble().is_some() => NotOpened::Store(error),
            PartError::Store(error) => interrupted(&error.to_string()),
            PartError::Wrong(cause) => interrupted(&cause),
        })?;
        let unreadable = |cause: ReadError| {
            let path = store.path(&paths::part(&earlier.shard));
            refuse(ErrorClass::Corrupt, &format!("{path}: {cause}"))
        };
        Ok(Self {
            video: video.key.clone(),
            faces: EarlierFaces::open(part, earlier.key.as_ref().unwrap_or(&video.key))
                .map_err(unreadable)?,
            ahead: None,
            last: None,
        })
    }

    /// Passes over the frames before one.
    pub fn skip_to(&mut self, frame: FrameIndex) -> Result<(), Trouble> {
        loop {
            self.ahead = self
                .faces
                .next()
                .map_err(|error| self.refuse(frame, error.to_string()))?;
            if self.ahead.as_ref().is_none_or(|then| then.frame >= frame) {
                return Ok(());
            }
        }
    }

    /// The faces of the next sampled frame; `whole` says whether it was decoded now. A frame that was damaged then and is
    /// now gives `None`.
    pub fn next(
        &mut self,
        frame: FrameIndex,
        timestamp: Option<Micros>,
        whole: bool,
    ) -> Result<Option<Vec<Face>>, Trouble> {
        self.last = Some(frame);
        let then = match self.ahead.take() {
            Some(then) => Some(then),
            None => self
                .faces
                .next()
                .map_err(|error| self.refuse(frame, error.to_string()))?,
        };
        let Some(then) = then else {
            return Err(self.refuse(frame, format!("frame {frame} comes where it had ended")));
        };
        if then.frame != frame {
            let cause = format!("frame {frame} comes where it had frame {}", then.frame);
            return Err(self.refuse(frame, cause));
        }
        if then.timestamp != timestamp {
            let at = |time: Option<Micros>| time.map_or("no time".into(), |time| format!("{} µs", time.0));
            let (now, then) = (at(timestamp), at(then.timestamp));
            return Err(self.refuse(frame, format!("frame {frame} is at {now} and was at {then}")));
        }
        match (then.status, whole) {
            (RowStatus::DecodeError, false) => Ok(None),
            (RowStatus::Ok | RowStatus::NoFace | RowStatus::NotFinite, true) => Ok(Some(then.faces)),
            (_, true) => Err(self.refuse(
                frame,
                format!("frame {frame} is decoded whole, which it was not then"),
            )),
            (_, false) => Err(self.refuse(
                frame,
                format!("frame {frame} is not decoded whole, which it was then"),
            )),
        }
    }

    /// The video is over; so must be the faces.
    pub fn end(&mut self) -> Result<(), Trouble> {
        let last = self.last.unwrap_or(FrameIndex(0));
        match self
            .faces
            .next()
            .map_err(|error| self.refuse(last, error.to_string()))?
        {
            None => Ok(()),
            Some(more) => Err(self.refuse(
                last,
                format!("it ends before frame {}, which it had then", more.frame),
            )),
        }
    }

    /// The video is not the one that was labelled then.
    pub fn refuse(&self, frame: FrameIndex, cause: String) -> Trouble {
        Trouble {
            error: format!(
                "{}: {cause}: it is not as it was when its faces were found ([faces] labels); label it in a job that \
                 detects faces",
                self.video
            ),
            class: ErrorClass::Changed,
            frame: Some(frame),
        }
    }
}
