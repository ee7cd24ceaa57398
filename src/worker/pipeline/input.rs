//! Where the videos of a job come from: a folder, where they are opened as they lie, or a bucket, from which they are
//! fetched ahead.

use super::decoded::Interruption;
use super::fetching::{Copy, Fetched, Fetcher, StoreTrouble};
use crate::heartbeat::Reports;
use affectmill_base::Location;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_discover as discover;
use affectmill_labelset::PlannedVideo;
use affectmill_media::decode::DecodeError;
use affectmill_queue::Lease;
use affectmill_store::{Access, Bucket, StoreError};
use std::path::{Path, PathBuf};

/// The root of a job's videos.
pub(super) enum Input {
    Folder(PathBuf),
    Bucket(Fetcher),
}

impl Input {
    /// The videos below `root`; of a bucket, at most `fetch_bytes` of them lie in scratch space.
    pub fn open(root: &Location, access: &Access, fetch_bytes: u64) -> Result<Self, StoreError> {
        match root {
            Location::Local(path) => Ok(Self::Folder(path.clone())),
            Location::S3 { .. } => {
                // The decoder says that it waits; what is fetched ahead keeps nobody waiting.
                let trouble = StoreTrouble::default();
                let noted = trouble.clone();
                let access = access.on_wait(move |trouble| noted.note(trouble));
                let bucket = Bucket::open(root, &access)?;
                Ok(Self::Bucket(Fetcher::start(bucket, trouble, fetch_bytes)?))
            }
        }
    }

    /// The videos of this lease are next.
    pub fn lease(&self, lease: &Lease) {
        if let Self::Bucket(fetcher) = self {
            let skip = |key: &_| lease.quarantined.iter().any(|entry| entry.key == *key);
            fetcher.want(&lease.shard, skip, lease.next.as_ref());
        }
    }

    /// Brings a video within reach of FFmpeg.
    pub fn obtain(&self, video: &PlannedVideo, reports: &Reports) -> Result<WithinReach, NotOpened> {
        match self {
            Self::Folder(root) => {
                let path = root.join(video.file());
                Ok(WithinReach {
                    name: path.display().to_string(),
                    place: Place::Itself(path),
                })
            }
            Self::Bucket(fetcher) => Ok(WithinReach {
                place: Place::Copy(fetcher.take(&video.key, reports)?),
                name: fetcher.place(&video.key),
            }),
        }
    }

    /// What was fetched since this was last asked.
    pub fn fetched(&self) -> Fetched {
        match self {
            Self::Folder(_) => Fetched::default(),
            Self::Bucket(fetcher) => fetcher.fetched(),
        }
    }
}

/// A video that FFmpeg can open.
pub(super) struct WithinReach {
    /// What people know it by.
    pub name: String,
    place: Place,
}

enum Place {
    Itself(PathBuf),
    Copy(Copy),
}

impl WithinReach {
    /// Where it is opened.
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::Itself(path) => path,
            Place::Copy(copy) => copy.path(),
        }
    }

    /// Whether it still is what was planned. A copy is: it was fetched as that. With the trouble, whether it may pass in a moment.
    pub fn still_the_same(&self, planned: &PlannedVideo) -> Result<(), (Trouble, bool)> {
        let Place::Itself(path) = &self.place else {
            return Ok(());
        };
        match discover::same(path, planned) {
            Ok(true) => Ok(()),
            Ok(false) => Err((changed(&self.name), false)),
            Err(error) => {
                let trouble = Trouble {
                    error: error.to_string(),
                    class: ErrorClass::Io,
                    frame: None,
                };
                Err((trouble, error.is_transient()))
            }
        }
    }

    /// What an error means for the video, which it names instead of its copy.
    pub fn trouble(&self, error: &DecodeError) -> Trouble {
        let path = self.path().display().to_string();
        Trouble {
            error: error.to_string().replace(&path, &self.name),
            class: error.class(),
            frame: error.read_interrupted(),
        }
    }

    /// The same of an error after which another attempt may read the video; `None` of any other.
    pub fn interruption(&self, error: &DecodeError) -> Option<Interruption> {
        error.read_interrupted().map(|_| Interruption {
            trouble: self.trouble(error),
            needs_restart: matches!(error, DecodeError::Memory { .. } | DecodeError::Gpu { .. }),
        })
    }
}

/// Why a video was not opened.
pub(super) enum NotOpened {
    /// The video cannot be opened, now or later.
    Video(Trouble),
    /// Another attempt may open it.
    Interrupted(Interruption),
    /// The store or scratch space failed, which is not the video's fault.
    Store(StoreError),
}

/// The trouble of a video that is not what was planned.
pub(super) fn changed(name: &str) -> Trouble {
    let what = "changed since it was planned, so its frames may not be those that were meant";
    let remedy = "`affectmill retry --class changed` labels the file that is there now";
    Trouble {
        error: format!("{name}: {what}; {remedy}"),
        class: ErrorClass::Changed,
        frame: None,
    }
}
