//! The decode thread of the pipeline: videos in order, frames into the channel, what became of each video.

use super::{Content, Item, Source};
use crate::dataset::{PlannedVideo, VideoOutcome, VideoStatus};
use crate::discover;
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
}

/// The receiving side is gone: labelling failed, and says why itself.
struct Abandoned;

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
        let mut outcome = VideoOutcome {
            key: video.key.clone(),
            status: VideoStatus::Ok,
            frames: 0,
            rows: 0,
            faces: 0,
            seconds: 0.0,
            error: None,
        };
        if let Some(entry) = lease.quarantined.iter().find(|entry| entry.key == video.key) {
            outcome.status = VideoStatus::Quarantined;
            outcome.error = Some(entry.reason.clone());
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
                Err(Abandoned) => return decoded,
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
            Err(error) => {
                outcome.status = VideoStatus::Failed;
                outcome.error = Some(error);
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
                    let place = || format!("frame {} was not labelled: {error}", frame.index);
                    outcome.error.get_or_insert_with(place);
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
            self.sender.send(item).map_err(|_| Abandoned)?;
            *blocked += waiting.elapsed();
        };
        let damage = reader
            .damage()
            .map(String::from)
            .or_else(|| broke_off.map(|error| error.to_string()));
        let meanwhile = || match discover::same(&path, video) {
            Ok(true) => None,
            Ok(false) => Some(format!("{}: changed while it was read", path.display())),
            Err(error) => Some(error.to_string()),
        };
        outcome.error = outcome.error.take().or(damage).or_else(meanwhile);
        if outcome.frames == 0 {
            outcome.status = VideoStatus::Failed;
            outcome
                .error
                .get_or_insert_with(|| format!("{}: no frame could be decoded", path.display()));
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
    fn open(&self, path: &Path, video: &PlannedVideo) -> Result<VideoReader, String> {
        match discover::same(path, video) {
            Ok(true) => VideoReader::open(path, video.kind, &self.source.options)
                .map_err(|error: DecodeError| error.to_string()),
            Ok(false) => Err(format!(
                "{}: changed since it was planned, so its frames may not be those that were meant; \
                 label it into a fresh output",
                path.display()
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}
