//! Faces that an earlier run found, matched to the frames of this one.
//!
//! Frames and faces must match one to one. Where they do not, the video is not the one that was labelled then, or is read in
//! another way now, and no label is better than one on the wrong face.

use crate::dataset::{ErrorClass, PlannedVideo, Trouble, VideoStatus};
use crate::domain::{Face, FrameIndex, Micros, RowStatus, VideoKey, hex};
use crate::queue::EarlierVideo;
use crate::stages::rows::EarlierFaces;
use crate::store::Store;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Parts of an earlier output; the last one is kept, as the next video most often lies in it too.
#[derive(Default)]
pub(super) struct Parts {
    last: Option<(String, Bytes)>,
}

impl Parts {
    fn get(&mut self, store: &Store, video: &EarlierVideo) -> Result<Bytes, String> {
        if let Some((key, bytes)) = &self.last
            && *key == video.part
        {
            return Ok(bytes.clone());
        }
        let path = store.path(&video.part);
        let bytes = store.get(&video.part).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("{}: the earlier run's part is missing", path.display()))?;
        if hex(&Sha256::digest(&bytes)) != video.sha256 {
            let path = path.display();
            return Err(format!(
                "{path}: the earlier run's part is not what its commit record says"
            ));
        }
        let bytes = Bytes::from(bytes);
        self.last = Some((video.part.clone(), bytes.clone()));
        Ok(bytes)
    }
}

/// The earlier frames of one video.
pub(super) struct EarlierFrames {
    video: VideoKey,
    faces: EarlierFaces,
}

impl EarlierFrames {
    /// Opens them; the error says why the earlier run's faces cannot be those of this video.
    pub fn open(
        store: &Store,
        parts: &mut Parts,
        video: &PlannedVideo,
        earlier: Option<&EarlierVideo>,
    ) -> Result<Self, Trouble> {
        let refuse = |cause: String| Trouble {
            error: format!("{}: {cause} ([faces] labels)", video.key),
            class: ErrorClass::Changed,
            frame: None,
        };
        let earlier = earlier.ok_or_else(|| {
            refuse("the earlier run did not label it; detect its faces, or run that job again first".into())
        })?;
        if matches!(earlier.status, VideoStatus::Failed | VideoStatus::Quarantined) {
            let status = earlier.status.as_str();
            return Err(refuse(format!(
                "it {status} in the earlier run, which has no faces of it"
            )));
        }
        if earlier.bytes != video.bytes {
            return Err(refuse(format!(
                "it has {} bytes and had {} when its faces were found, so it is another video",
                video.bytes, earlier.bytes
            )));
        }
        let part = parts.get(store, earlier).map_err(unreadable)?;
        let unfit = |cause: String| unreadable(format!("{}: {cause}", store.path(&earlier.part).display()));
        Ok(Self {
            video: video.key.clone(),
            faces: EarlierFaces::open(part, &video.key).map_err(unfit)?,
        })
    }

    /// The faces of the next sampled frame; `whole` says whether it was decoded now. A frame that was damaged then and is
    /// now gives `None`.
    pub fn next(
        &mut self,
        frame: FrameIndex,
        timestamp: Option<Micros>,
        whole: bool,
    ) -> Result<Option<Vec<Face>>, Trouble> {
        let at = Some(frame);
        let then = self.faces.next().map_err(unreadable)?.ok_or_else(|| {
            let cause = format!("its faces end before frame {frame}, though the video goes on");
            self.refuse(at, cause)
        })?;
        if then.frame != frame {
            let cause = format!("frame {frame} comes where it had frame {}", then.frame);
            return Err(self.refuse(at, cause));
        }
        if then.timestamp != timestamp {
            let text = |time: Option<Micros>| time.map_or("no time".into(), |time| format!("{} µs", time.0));
            let (now, then) = (text(timestamp), text(then.timestamp));
            return Err(self.refuse(at, format!("frame {frame} is at {now} and was at {then}")));
        }
        match (then.status, whole) {
            (RowStatus::DecodeError, false) => Ok(None),
            (RowStatus::Ok | RowStatus::NoFace, true) => Ok(Some(then.faces)),
            (_, whole) => {
                let cause = format!(
                    "frame {frame} {} decoded whole, which it {} then",
                    if whole { "is" } else { "is not" },
                    if whole { "was not" } else { "was" },
                );
                Err(self.refuse(at, cause))
            }
        }
    }

    /// The video is over; so must be the faces.
    pub fn end(&mut self) -> Result<(), Trouble> {
        match self.faces.next().map_err(unreadable)? {
            None => Ok(()),
            Some(more) => {
                let cause = format!("it ends before frame {}, of which it had faces", more.frame);
                Err(self.refuse(Some(more.frame), cause))
            }
        }
    }

    /// The video does not match its earlier faces, from this frame on.
    pub fn refuse(&self, frame: Option<FrameIndex>, cause: String) -> Trouble {
        Trouble {
            error: format!(
                "{}: {cause}: it is not as it was when its faces were found ([faces] labels); label it in a job that detects faces",
                self.video
            ),
            class: ErrorClass::Changed,
            frame,
        }
    }
}

/// The earlier output cannot be read.
fn unreadable(error: String) -> Trouble {
    Trouble {
        error,
        class: ErrorClass::Io,
        frame: None,
    }
}
