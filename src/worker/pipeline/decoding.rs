//! The decode thread of the pipeline: videos in order, frames into the channel, what became of each video.

use super::{Content, Item, Source};
use crate::dataset::{ErrorClass, PlannedVideo, Trouble, VideoOutcome, VideoStatus};
use crate::discover;
use crate::domain::VideoKey;
use crate::model::INPUT_LEN;
use crate::queue::Lease;
use crate::spec::FaceMode;
use crate::stages::decode::{DecodeError, Picture, Sampler, VideoReader};
use crate::stages::faces::{self, Cuts, PrepareError, Preparer};
use crate::worker::heartbeat::Reports;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

/// What the decode thread has to tell when it is through.
#[derive(Default)]
pub(super) struct Decoded {
    pub outcomes: Vec<VideoOutcome>,
    pub busy: Duration,
    pub blocked: Duration,
    /// The video that could not be read to its end, though another attempt may: then nothing of the shard counts.
    pub broke_off: Option<(VideoKey, Trouble)>,
}

/// Why the shard is not decoded to its end.
enum Abandoned {
    /// The receiving side is gone: labelling failed, and says why itself.
    Receiver,
    /// The video broke off. Frames of it are on their way to the part, which must not be kept: a row that is missing is
    /// made up for by the next attempt, a video that ends where a disk failed would look like damage for good.
    BrokeOff(Trouble),
}

/// Decodes the videos of a lease.
pub(super) fn decode_shard(
    source: &Source,
    lease: &Lease,
    reports: &Reports,
    sender: &SyncSender<Item>,
    recycled: &Receiver<Vec<f32>>,
) -> Decoded {
    let mut decoded = Decoded::default();
    let mut preparer = Preparer::new();
    let mut cuts = Cuts::default();
    for (index, video) in lease.shard.videos.iter().enumerate() {
        let blocked_before = decoded.blocked;
        let began = Instant::now();
        let mut outcome = VideoOutcome::new(video.key.clone());
        if let Some(entry) = lease.quarantined.iter().find(|entry| entry.key == video.key) {
            outcome.status = match entry.trouble.class {
                ErrorClass::Io | ErrorClass::Changed => VideoStatus::Failed,
                _ => VideoStatus::Quarantined,
            };
            outcome.note(entry.trouble.clone());
        } else {
            reports.opened(&video.key);
            cuts.clear();
            let mut frames = Frames {
                source,
                preparer: &mut preparer,
                cuts: &mut cuts,
                reports,
                sender,
                recycled,
            };
            match frames.decode(index, video, &mut outcome, &mut decoded.blocked) {
                Ok(()) => {}
                Err(Abandoned::Receiver) => return decoded,
                Err(Abandoned::BrokeOff(trouble)) => {
                    decoded.broke_off = Some((video.key.clone(), trouble));
                    return decoded;
                }
            }
        }
        let busy = began.elapsed().saturating_sub(decoded.blocked - blocked_before);
        outcome.seconds = busy.as_secs_f64();
        decoded.busy += busy;
        decoded.outcomes.push(outcome);
    }
    decoded
}

/// Decoding of one video.
struct Frames<'a> {
    source: &'a Source,
    preparer: &'a mut Preparer,
    cuts: &'a mut Cuts,
    reports: &'a Reports,
    sender: &'a SyncSender<Item>,
    recycled: &'a Receiver<Vec<f32>>,
}

impl Frames<'_> {
    fn decode(
        &mut self,
        index: usize,
        video: &PlannedVideo,
        outcome: &mut VideoOutcome,
        blocked: &mut Duration,
    ) -> Result<(), Abandoned> {
        let path = discover::source_path(&self.source.root, &video.key);
        let mut reader = match self.open(&path, video) {
            Ok(reader) => reader,
            Err(NotOpened {
                trouble,
                passing: true,
            }) => return Err(Abandoned::BrokeOff(trouble)),
            Err(NotOpened { trouble, .. }) => {
                outcome.status = VideoStatus::Failed;
                outcome.note(trouble);
                return Ok(());
            }
        };
        let mut sampler = Sampler::new(&self.source.job.sampling);
        let detect = self.source.job.faces.mode == FaceMode::Detect;
        let mut cut = false;
        let broke_off = loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(error) if error.broke_off().is_some() => {
                    return Err(Abandoned::BrokeOff(trouble(&error)));
                }
                Err(error) => break Some(error),
            };
            outcome.frames += 1;
            self.reports.decoded(frame.index);
            if detect && let Some(picture) = &frame.picture {
                cut |= self.cuts.seen(picture);
            }
            if !sampler.keep(frame.index, frame.timestamp, frame.key) {
                continue;
            }
            let content = match frame.picture {
                None => Content::Damaged,
                Some(picture) if detect => Content::Picture(picture, std::mem::take(&mut cut)),
                Some(picture) => self.prepare(&picture).unwrap_or_else(|error| {
                    outcome.note(Trouble {
                        error: format!("frame {} was not labelled: {error}", frame.index),
                        class: ErrorClass::Unsupported,
                        frame: Some(frame.index),
                    });
                    Content::Damaged
                }),
            };
            let waiting = Instant::now();
            let item = Item {
                video: index,
                frame: frame.index,
                timestamp: frame.timestamp,
                content,
            };
            self.sender.send(item).map_err(|_| Abandoned::Receiver)?;
            *blocked += waiting.elapsed();
        };
        // First of all: whatever else is wrong with a file that changed under the reader comes from that.
        still_the_same(&path, video).map_err(Abandoned::BrokeOff)?;
        let broke_off = broke_off.map(|error| trouble(&error));
        let damage = reader.damage().cloned().or(broke_off);
        if let Some(damage) = damage {
            outcome.note(damage);
        }
        if outcome.frames == 0 {
            outcome.status = VideoStatus::Failed;
            outcome.note(Trouble {
                error: format!("{}: no frame could be decoded", path.display()),
                class: ErrorClass::Corrupt,
                frame: None,
            });
        } else if outcome.error.is_some() {
            outcome.status = VideoStatus::Partial;
        }
        Ok(())
    }

    /// The whole picture as a face.
    fn prepare(&mut self, picture: &Picture) -> Result<Content, PrepareError> {
        let face = faces::full_frame(picture);
        let mut input = self.recycled.try_recv().unwrap_or_else(|_| vec![0.0; INPUT_LEN]);
        self.preparer.prepare(picture, &face, &mut input)?;
        Ok(Content::Face(face, input))
    }

    /// Opens the video, if it is still the one that was planned.
    fn open(&self, path: &Path, video: &PlannedVideo) -> Result<VideoReader, NotOpened> {
        still_the_same(path, video).map_err(|trouble| NotOpened {
            trouble,
            passing: false,
        })?;
        VideoReader::open(path, video.kind, &self.source.options).map_err(|error| NotOpened {
            trouble: trouble(&error),
            passing: error.broke_off().is_some(),
        })
    }
}

/// Why a video was not opened.
struct NotOpened {
    trouble: Trouble,
    /// Another attempt may open it.
    passing: bool,
}

fn trouble(error: &DecodeError) -> Trouble {
    Trouble {
        error: error.to_string(),
        class: error.class(),
        frame: error.broke_off(),
    }
}

fn still_the_same(path: &Path, video: &PlannedVideo) -> Result<(), Trouble> {
    let (class, error) = match discover::same(path, video) {
        Ok(true) => return Ok(()),
        Ok(false) => {
            let what = "changed since it was planned, so its frames may not be those that were meant";
            let remedy = "`affectmill retry --class changed` labels the file that is there now";
            (
                ErrorClass::Changed,
                format!("{}: {what}; {remedy}", path.display()),
            )
        }
        Err(error) => (ErrorClass::Io, error.to_string()),
    };
    Err(Trouble {
        error,
        class,
        frame: None,
    })
}
