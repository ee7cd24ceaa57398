//! The decode thread of the pipeline: videos in order, frames into the channel, what became of each video.

use super::earlier::{EarlierFrames, Parts};
use super::{Content, Item, Source};
use crate::dataset::{PlannedVideo, VideoOutcome, VideoStatus};
use crate::discover;
use crate::domain::{FrameIndex, Micros};
use crate::model::INPUT_LEN;
use crate::queue::{EarlierVideo, Lease};
use crate::spec::FaceMode;
use crate::stages::decode::{DecodeError, Picture, Sampler, VideoReader};
use crate::stages::faces::{self, Cropper, Cuts, PrepareError, Preparer};
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
    let mut frames = Frames {
        source,
        preparer: Preparer::new(),
        cropper: Cropper::default(),
        cuts: Cuts::default(),
        parts: Parts::default(),
        reports,
        sender,
        recycled,
    };
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
            let earlier = lease.earlier.get(&video.key);
            match frames.decode(index, video, earlier, &mut outcome, &mut decoded.blocked) {
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

/// Decoding of one video after the other.
struct Frames<'a> {
    source: &'a Source,
    preparer: Preparer,
    cropper: Cropper,
    cuts: Cuts,
    parts: Parts,
    reports: &'a Reports,
    sender: &'a SyncSender<Item>,
    recycled: &'a Receiver<Vec<f32>>,
}

impl Frames<'_> {
    fn decode(
        &mut self,
        index: usize,
        video: &PlannedVideo,
        earlier: Option<&EarlierVideo>,
        outcome: &mut VideoOutcome,
        blocked: &mut Duration,
    ) -> Result<(), Abandoned> {
        let path = discover::source_path(&self.source.root, &video.key);
        let opened = self.open(&path, video);
        let opened = opened.and_then(|reader| Ok((reader, self.earlier(video, earlier)?)));
        let (mut reader, mut earlier) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                outcome.status = VideoStatus::Failed;
                outcome.error = Some(error);
                return Ok(());
            }
        };
        self.cuts.clear();
        let mut sampler = Sampler::new(&self.source.job.sampling);
        let detect = self.source.job.faces.mode == FaceMode::Detect;
        let (mut cut, mut sent) = (false, 0_u64);
        let broke_off = loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break earlier.as_mut().and_then(|earlier| earlier.end().err()),
                Err(error) => break Some(error.to_string()),
            };
            outcome.frames += 1;
            self.reports.decoded(frame.index);
            if detect && let Some(picture) = &frame.picture {
                cut |= self.cuts.seen(picture);
            }
            if !sampler.keep(frame.index, frame.timestamp, frame.key) {
                continue;
            }
            let (at, timestamp) = (frame.index, frame.timestamp);
            let contents = match (&mut earlier, frame.picture) {
                (Some(earlier), picture) => match self.taken_over(earlier, at, timestamp, picture.as_ref()) {
                    Ok(contents) => contents,
                    Err(mismatch) => break Some(mismatch),
                },
                (None, None) => vec![Content::Damaged],
                (None, Some(picture)) if detect => vec![Content::Picture(picture, std::mem::take(&mut cut))],
                (None, Some(picture)) => vec![self.prepare(&picture).unwrap_or_else(|error| {
                    let place = || format!("frame {at} was not labelled: {error}");
                    outcome.error.get_or_insert_with(place);
                    Content::Damaged
                })],
            };
            for content in contents {
                let waiting = Instant::now();
                let item = Item {
                    video: index,
                    frame: at,
                    timestamp,
                    content,
                };
                self.sender.send(item).map_err(|_| Abandoned)?;
                *blocked += waiting.elapsed();
                sent += 1;
            }
        };
        let damage = reader.damage().map(String::from).or(broke_off);
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
            outcome.status = match sent {
                0 => VideoStatus::Failed,
                _ => VideoStatus::Partial,
            };
        }
        Ok(())
    }

    /// The whole picture as a face.
    fn prepare(&mut self, picture: &Picture) -> Result<Content, PrepareError> {
        let face = faces::full_frame(picture);
        let mut input = self.input();
        self.preparer.prepare(picture, &face, &mut input)?;
        Ok(Content::Face(face, input))
    }

    /// The faces of an earlier run, cut out of this frame.
    fn taken_over(
        &mut self,
        earlier: &mut EarlierFrames,
        frame: FrameIndex,
        timestamp: Option<Micros>,
        picture: Option<&Picture>,
    ) -> Result<Vec<Content>, String> {
        let faces = earlier.next(frame, timestamp, picture.is_some())?;
        let (Some(faces), Some(picture)) = (faces, picture) else {
            return Ok(vec![Content::Damaged]);
        };
        let mut contents = Vec::with_capacity(faces.len().max(1));
        for face in faces {
            let mut input = self.input();
            let made = self
                .cropper
                .crop_all(picture, &face, &self.source.crops, &mut input);
            made.map_err(|error| earlier.refuse(format!("frame {frame}: {error}")))?;
            contents.push(Content::Face(face, input));
        }
        if contents.is_empty() {
            contents.push(Content::NoFace);
        }
        Ok(contents)
    }

    /// Room for one face, all its crops.
    fn input(&self) -> Vec<f32> {
        let length = self.source.crops.len() * INPUT_LEN;
        self.recycled.try_recv().unwrap_or_else(|_| vec![0.0; length])
    }

    /// The faces of an earlier run, where the job takes them over.
    fn earlier(
        &mut self,
        video: &PlannedVideo,
        earlier: Option<&EarlierVideo>,
    ) -> Result<Option<EarlierFrames>, String> {
        let Some(store) = &self.source.earlier else {
            return Ok(None);
        };
        EarlierFrames::open(store, &mut self.parts, video, earlier).map(Some)
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
