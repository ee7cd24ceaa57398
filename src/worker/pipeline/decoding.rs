//! The decode thread of the pipeline: videos in order, frames into the channel, what became of each video.

mod opening;

use super::checkpoints::{CheckpointCandidate, CheckpointInterval};
use super::decoded::{Abandoned, Decoded};
use super::earlier::{EarlierFrames, Parts};
use super::input::{NotOpened, WithinReach};
use super::outlet::Outlet;
use super::{Content, Item, Source};
use crate::heartbeat::Reports;
use crate::pipeline::verdict;
use crate::pipeline::verdict::{Course, Panicked, shielded};
use affectmill_base::INPUT_LEN;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{Face, FrameIndex, Micros};
use affectmill_labelset::{PlannedVideo, ResumePoint, VideoOutcome, VideoStatus};
use affectmill_media::decode::{DecodeError, DecodedFrame, Picture, Sampler, VideoReader};
use affectmill_nn::Sample;
use affectmill_queue::{EarlierVideo, Lease};
use affectmill_spec::FaceMode;
use affectmill_vision as faces;
use affectmill_vision::{CropError, Cuts, InputMaker};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

/// Decodes the videos of a lease.
pub(super) fn decode_shard(
    source: &Source,
    lease: &Lease,
    spans: Option<(&CheckpointInterval, Option<&ResumePoint>)>,
    reports: &Reports,
    sender: &SyncSender<Item>,
    recycled: &Receiver<Vec<f32>>,
) -> Decoded {
    let mut decoded = Decoded::default();
    let mut frames = Frames {
        source,
        inputs: InputMaker::default(),
        cuts: Cuts::default(),
        parts: Parts::default(),
        course: Course::default(),
        goal: spans.map(|(goal, _)| goal),
        resume_point: spans.and_then(|(_, resume_point)| resume_point),
        reports,
        outlet: Outlet { sender, reports },
        recycled,
    };
    for (index, video) in lease.shard.videos.iter().enumerate() {
        let blocked_before = decoded.blocked + decoded.fetching;
        let began = Instant::now();
        let mut outcome = VideoOutcome::new(video.key.clone());
        if let Some(entry) = lease.quarantined.iter().find(|entry| entry.key == video.key) {
            outcome.status = match entry.trouble.class {
                ErrorClass::Io | ErrorClass::Changed => VideoStatus::Failed,
                _ => VideoStatus::Quarantined,
            };
            outcome.note(entry.trouble.clone());
        } else {
            let earlier = lease.earlier.get(&video.key);
            let waited = (&mut decoded.blocked, &mut decoded.fetching);
            let ended = shielded(|| frames.decode(index, video, earlier, &mut outcome, waited));
            let ended = ended.unwrap_or_else(|Panicked(message)| {
                frames.broke_down(&mut outcome, &message);
                Ok(())
            });
            if let Err(why) = source.presence.judge(video, ended, &outcome) {
                decoded.abandon(&video.key, why);
                return decoded;
            }
        }
        let waited = decoded.blocked + decoded.fetching - blocked_before;
        let busy = began.elapsed().saturating_sub(waited);
        outcome.seconds = busy.as_secs_f64();
        decoded.busy += busy;
        decoded.outcomes.push(outcome);
    }
    decoded
}

/// Decoding of one video after the other.
pub(super) struct Frames<'a> {
    pub source: &'a Source,
    inputs: InputMaker,
    cuts: Cuts,
    parts: Parts,
    /// The video in hand.
    course: Course,
    /// Where checkpoints are kept, of a shard that is one video.
    goal: Option<&'a CheckpointInterval>,
    /// Where that video is gone on with.
    resume_point: Option<&'a ResumePoint>,
    reports: &'a Reports,
    outlet: Outlet<'a>,
    recycled: &'a Receiver<Vec<f32>>,
}

impl Frames<'_> {
    #[expect(clippy::too_many_lines, reason = "one loop over the frames of a video")]
    fn decode(
        &mut self,
        index: usize,
        video: &PlannedVideo,
        earlier: Option<&EarlierVideo>,
        outcome: &mut VideoOutcome,
        (blocked, fetching): (&mut Duration, &mut Duration),
    ) -> Result<(), Abandoned> {
        self.course = Course::default();
        let waiting = Instant::now();
        self.reports.decoder_waits();
        let within_reach = self.source.input.obtain(video, self.reports);
        *fetching += waiting.elapsed();
        self.reports.opened(&video.key);
        let opened = within_reach.and_then(|video_here| {
            let reader = self.open(&video_here, video, self.source.options)?;
            Ok((reader, self.earlier(video, earlier)?, video_here))
        });
        let (mut reader, mut earlier, within_reach) = match opened {
            Ok(opened) => opened,
            Err(NotOpened::Video(trouble)) => {
                outcome.status = VideoStatus::Failed;
                outcome.note(trouble);
                return Ok(());
            }
            Err(not_opened) => return Err(not_opened.into()),
        };
        let recipe: Option<Arc<str>> = reader.recipe().map(Arc::from);
        self.cuts.clear();
        let mut sampler = Sampler::new(&self.source.job.sampling);
        let detect = self.source.job.faces.mode == FaceMode::Detect;
        let mut cut = false;
        let mut first = None;
        if let Some(resume_point) = self.resume_point {
            first = Some(self.resume(&mut reader, &within_reach, video, resume_point)?);
            self.course.kept = 1;
            outcome.frames = resume_point.frames;
            outcome.lost = Some(resume_point.lost);
            outcome.transfer = resume_point.transfer.clone();
            outcome.tone_mapping = resume_point.tone_mapping.clone();
            outcome.decode_fallback = resume_point.decode_fallback.clone();
            if let Some(trouble) = &resume_point.trouble {
                outcome.note(trouble.clone());
            }
            if let Some(earlier) = &mut earlier {
                earlier.skip_to(resume_point.frame)?;
            }
        }
        let read_interrupted = loop {
            match self.goal {
                Some(goal) if goal.due(outcome.frames) => reader.watch(),
                Some(_) => reader.unwatch(),
                None => {}
            }
            let next = match first.take() {
                Some(frame) => Ok(Some(frame)),
                None => reader.next(),
            };
            let frame = match next {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(DecodeError::Nvdec { frame, cause, .. }) => {
                    if let Some(damage) = reader.damage() {
                        outcome.note(damage.clone());
                    }
                    let why = format!("NVDEC failed at frame {frame}: {cause}");
                    outcome.decode_fallback.get_or_insert(why);
                    reader = self.on_the_cpu(&within_reach, video, frame)?;
                    continue;
                }
                Err(error) => match within_reach.interruption(&error) {
                    Some(interruption) => return Err(Abandoned::ReadInterrupted(interruption)),
                    None => break Some(error),
                },
            };
            self.course.see(&frame, outcome);
            self.reports.decoded(frame.index);
            if detect && let Some(picture) = &frame.picture {
                cut |= self.cuts.seen(picture).map_err(Abandoned::Model)?;
            }
            if !sampler.keep(frame.index, frame.timestamp, frame.key) {
                continue;
            }
            self.course.kept += 1;
            let (at, timestamp) = (frame.index, frame.timestamp);
            let mut mark = match (self.goal, &frame.picture) {
                (Some(_), Some(_)) => reader.seek_anchor(at).map(|seek_anchor| {
                    Box::new(CheckpointCandidate::new(
                        at,
                        seek_anchor,
                        outcome,
                        reader.damage(),
                        reader.fallback(),
                    ))
                }),
                _ => None,
            };
            let mut contents = Vec::new();
            match (&mut earlier, frame.picture) {
                (Some(earlier), picture) => {
                    contents = self.taken_over(earlier, at, timestamp, picture.as_ref())?;
                }
                (None, Some(picture)) if detect => {
                    contents.push(Content::Picture(picture, std::mem::take(&mut cut)));
                }
                (None, Some(picture)) if picture.gpu_picture().is_some() => {
                    contents.push(Content::Whole(picture));
                }
                (None, picture) => {
                    let whole = picture.map(|picture| self.prepare(faces::full_frame(&picture), &picture));
                    let whole = whole.map(|face| face.map(|(face, input)| Content::Face(face, input)));
                    let cropped = frame.faces.into_iter().map(|face| self.cropped(face, &recipe));
                    for content in cropped.chain(whole) {
                        match content {
                            Ok(content) => contents.push(content),
                            Err(CropError::Model(error)) => return Err(Abandoned::Model(error)),
                            Err(error) => outcome.note(Trouble {
                                error: format!("frame {at} was not labelled: {error}"),
                                class: ErrorClass::Unsupported,
                                frame: Some(at),
                            }),
                        }
                    }
                }
            }
            if contents.is_empty() {
                contents.push(Content::Damaged);
            }
            for content in contents {
                let item = Item {
                    video: index,
                    frame: at,
                    timestamp,
                    content,
                    mark: mark.take(),
                };
                let handed = self.outlet.hand(item, &video.key);
                *blocked += handed.ok_or(Abandoned::Receiver)?;
            }
        };
        // First of all: whatever else is wrong with a file that changed under the reader comes from that.
        within_reach
            .still_the_same(video)
            .map_err(|(trouble, _)| trouble)?;
        if let Some(earlier) = &mut earlier {
            earlier.end()?;
        }
        let fallback = reader.fallback().map(str::to_owned);
        outcome.decode_fallback = outcome.decode_fallback.take().or(fallback);
        let read_interrupted = read_interrupted.map(|error| within_reach.trouble(&error));
        let (name, sampling) = (&within_reach.name, &self.source.job.sampling);
        if let Some(warning) = self
            .course
            .judge(outcome, name, &reader, read_interrupted, sampling)
        {
            self.reports.warn(warning);
        }
        Ok(())
    }

    /// Ends a video on which decoding panicked, and forgets what may be half done.
    fn broke_down(&mut self, outcome: &mut VideoOutcome, message: &str) {
        verdict::panicked(outcome, message, self.course.kept);
        (self.inputs, self.parts) = (InputMaker::default(), Parts::default());
    }

    /// Brings the reader to a resume point, whose frame it returns: by seeking, and where that does not show the same frames again, from
    /// the beginning.
    fn resume(
        &mut self,
        reader: &mut VideoReader,
        here: &WithinReach,
        video: &PlannedVideo,
        resume_point: &ResumePoint,
    ) -> Result<DecodedFrame, Abandoned> {
        // Pictures of the CPU lie otherwise in memory, and would not be known again.
        let options = match resume_point.decode_fallback {
            Some(_) => self.source.options.on_the_cpu(),
            None => self.source.options,
        };
        if resume_point.decode_fallback.is_some() {
            *reader = self.again(here, video, options)?;
        }
        for seek in [true, false] {
            self.cuts.clear();
            let mut failed = None;
            let found = reader.resume(&resume_point.seek_anchor, resume_point.frame, seek, |frame| {
                self.reports.passed(frame.index);
                if let Some(picture) = &frame.picture {
                    failed = self.cuts.seen(picture).err().or(failed.take());
                }
            });
            if let Some(error) = failed {
                return Err(Abandoned::Model(error));
            }
            match found {
                // What was labelled before it was brought to SDR, or by another curve, is labelled anew.
                Ok(Some((frame, _))) if verdict::is_toned_anew(&frame, resume_point) => {
                    return Err(Abandoned::ResumeMismatch);
                }
                Ok(Some((frame, again))) => {
                    self.reports
                        .resumed(&video.key, resume_point.frame, resume_point.frames, again);
                    return Ok(frame);
                }
                Ok(None) => {}
                Err(error) => {
                    if let Some(interruption) = here.interruption(&error) {
                        return Err(Abandoned::ReadInterrupted(interruption));
                    }
                }
            }
            *reader = self.again(here, video, options)?;
        }
        Err(Abandoned::ResumeMismatch)
    }

    /// A face whose crop is the whole picture.
    pub fn prepare(&mut self, face: Face, picture: &Picture) -> Result<(Face, Sample), CropError> {
        let room = self.input();
        Ok((face, self.inputs.whole(picture, room)?))
    }

    /// The faces of an earlier run, cut out of this frame.
    fn taken_over(
        &mut self,
        earlier: &mut EarlierFrames,
        frame: FrameIndex,
        timestamp: Option<Micros>,
        picture: Option<&Picture>,
    ) -> Result<Vec<Content>, Abandoned> {
        let faces = earlier.next(frame, timestamp, picture.is_some())?;
        let (Some(faces), Some(picture)) = (faces, picture) else {
            return Ok(vec![Content::Damaged]);
        };
        let mut contents = Vec::with_capacity(faces.len().max(1));
        for face in faces {
            let room = self.input();
            let made = self.inputs.crops(picture, &face, &self.source.crops, room);
            let input = made.map_err(|error| match error {
                CropError::Model(error) => Abandoned::Model(error),
                error => earlier.refuse(frame, error.to_string()).into(),
            })?;
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
    ) -> Result<Option<EarlierFrames>, NotOpened> {
        let Some(store) = &self.source.earlier else {
            return Ok(None);
        };
        EarlierFrames::open(store, &mut self.parts, video, earlier).map(Some)
    }
}
