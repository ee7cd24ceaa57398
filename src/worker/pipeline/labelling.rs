//! The labelling side of the pipeline: faces, batches, models, rows.

use super::checkpoints::CheckpointWriter;
use super::soundness::Soundness;
use super::{Content, Cropped, Item, PipelineError};
use crate::heartbeat::Reports;
use crate::infer::Engine;
use affectmill_base::{ErrorClass, TrackerState, Trouble};
use affectmill_base::{Face, FrameIndex, Micros};
use affectmill_labelset::commit;
use affectmill_labelset::rows;
use affectmill_labelset::rows::{CropWriter, Row, RowWriter, replay, span_schema};
use affectmill_labelset::{CheckpointRecord, LabelSchema, PartInfo, StageSeconds, VideoOutcome, VideoStatus};
use affectmill_nn::Sample;
use affectmill_queue::Lease;
use affectmill_store::Store;
use affectmill_vision::{CropError, Finder, FrameFaces, InputMaker, SampledFrame, full_frame};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

/// Rows held back for a batch that is not full yet.
const MAX_PENDING: usize = 4_096;

/// Rows and time, counted where rows are made.
pub(super) struct Tally {
    /// Of each video of the shard.
    pub videos: Vec<Counts>,
    pub seconds: StageSeconds,
}

/// What the rows of one video hold.
#[derive(Clone, Default)]
pub(super) struct Counts {
    rows: u64,
    faces: u64,
    not_finite: u64,
    /// The model that gave no numbers first, and in which frame.
    first: Option<(String, FrameIndex)>,
}

impl Counts {
    /// A row; `broken` names the model that gave no numbers for its face.
    fn add(&mut self, row: &Row<'_>, broken: Option<&str>) {
        self.rows += 1;
        self.faces += u64::from(matches!(row.content, rows::Content::Face { .. }));
        if let Some(model) = broken {
            self.not_finite += 1;
            self.first.get_or_insert_with(|| (model.to_owned(), row.frame));
        }
    }

    /// Enters them into what is told of the video: faces without numbers are none that were labelled.
    pub fn enter(self, outcome: &mut VideoOutcome) {
        (outcome.rows, outcome.faces, outcome.not_finite) = (self.rows, self.faces, self.not_finite);
        let Some((model, frame)) = self.first else { return };
        if outcome.status == VideoStatus::Ok {
            outcome.status = VideoStatus::Partial;
        }
        let faces = if self.not_finite == 1 { "face" } else { "faces" };
        outcome.note(Trouble {
            error: format!(
                "model `{model}` gave NaN or an infinity, first in frame {frame}; {} {faces} of the video have rows with status \
                 `not_finite`; check the model's weights, and with half precision try a wider one",
                self.not_finite
            ),
            class: ErrorClass::NotFinite,
            frame: Some(frame),
        });
    }
}

impl Tally {
    fn new(videos: usize) -> Self {
        Self {
            videos: vec![Counts::default(); videos],
            seconds: StageSeconds::default(),
        }
    }
}

/// Tells which row is the oldest that detector or models are at work on.
fn at_work<'a>(lease: &'a Lease, reports: &'a Reports) -> impl Fn(usize, FrameIndex) + use<'a> {
    move |video, frame| reports.labels(&lease.shard.videos[video].key, frame)
}

/// Where rows go.
pub(super) struct Writers<'a> {
    pub rows: RowWriter,
    pub crops: Option<CropWriter>,
    pub spans: Option<CheckpointWriter<'a>>,
}

/// The labelling side of the pipeline: batches, models, rows.
pub(super) struct Labelling<'a> {
    engine: &'a mut Engine,
    finder: Option<&'a mut Finder>,
    inputs: InputMaker,
    /// Memory for one face, all its crops.
    spare: Vec<f32>,
    lease: &'a Lease,
    reports: &'a Reports,
    recycle: SyncSender<Vec<f32>>,
    soundness: &'a mut Soundness,
    writer: RowWriter,
    crops: Option<CropWriter>,
    spans: Option<CheckpointWriter<'a>>,
    /// The faces of the frame that comes first, where labelling goes on in the midst of a video.
    following: Option<TrackerState>,
    /// Rows that wait for the batch, in order; those with a face match the batch's entries one by one.
    pending: Vec<Pending>,
    tally: Tally,
}

struct Pending {
    video: usize,
    frame: FrameIndex,
    timestamp: Option<Micros>,
    shown: Shown,
}

/// What a row is about.
enum Shown {
    Face(Face, Crop),
    NoFace,
    Damaged,
}

/// How a face was cut out.
#[derive(Default)]
struct Crop {
    /// The crop, where crops are kept.
    jpeg: Vec<u8>,
    /// The recipe, where it is that of a set of crops and not the job's.
    recipe: Option<Arc<str>>,
}

impl<'a> Labelling<'a> {
    /// A shard's labelling; prepared inputs go back through `recycle`.
    pub(super) fn new(
        engine: &'a mut Engine,
        finder: Option<&'a mut Finder>,
        lease: &'a Lease,
        reports: &'a Reports,
        recycle: SyncSender<Vec<f32>>,
        soundness: &'a mut Soundness,
        Writers {
            rows: writer,
            crops,
            spans,
        }: Writers<'a>,
    ) -> Self {
        Self {
            finder,
            inputs: InputMaker::default(),
            spare: Vec::new(),
            engine,
            lease,
            reports,
            recycle,
            soundness,
            writer,
            crops,
            spans,
            following: None,
            pending: Vec::new(),
            tally: Tally::new(lease.shard.videos.len()),
        }
    }

    /// Takes over the rows of checkpoints, in order.
    pub(super) fn go_on_after(
        &mut self,
        kept: &[CheckpointRecord],
        store: &Store,
        schema: &LabelSchema,
    ) -> Result<(), PipelineError> {
        let (schema, video) = (span_schema(schema), &self.lease.shard.videos[0].key);
        for span in kept {
            let resume_mismatch = |cause: &str| {
                PipelineError::ResumeMismatch(format!("span {} of {}: {cause}", span.number, span.shard))
            };
            let files = commit::open_span(store, span)?;
            let (rows, crops) =
                files.ok_or_else(|| resume_mismatch("its rows are not what its record says"))?;
            let (writer, kept_crops, counts) = (&mut self.writer, &mut self.crops, &mut self.tally.videos[0]);
            let soundness = &mut *self.soundness;
            let replayed = replay(&schema, video, rows, crops, |row, jpeg| {
                writer.push(row).map_err(|error| error.to_string())?;
                let mut broken = None;
                if let rows::Content::Face { outputs, .. } = row.content {
                    broken = soundness.face(video, outputs);
                    if let Some(crops) = kept_crops {
                        crops.push(row, jpeg, None).map_err(|error| error.to_string())?;
                    }
                }
                counts.add(row, broken);
                Ok(())
            });
            replayed.map_err(|cause| resume_mismatch(&cause))?;
            self.reports.labelled(span.part.rows);
        }
        self.following = kept.last().and_then(|span| span.resume_point.following.clone());
        Ok(())
    }

    /// Takes items until the other side hangs up.
    /// Returns what the part holds, and what the crops.
    pub(super) fn run(
        mut self,
        items: Receiver<Item>,
    ) -> Result<(PartInfo, Option<PartInfo>, Tally), PipelineError> {
        self.engine.clear();
        if let Some(finder) = &mut self.finder {
            finder.clear();
        }
        loop {
            let waiting = Instant::now();
            self.reports.models_wait();
            let Ok(item) = items.recv() else { break };
            self.tally.seconds.infer_blocked += waiting.elapsed().as_secs_f64();
            self.take(item)?;
        }
        if let Some(finder) = &mut self.finder {
            let finding = Instant::now();
            let found = finder.finish(&at_work(self.lease, self.reports))?;
            self.tally.seconds.faces += finding.elapsed().as_secs_f64();
            self.show(found)?;
        }
        self.flush()?;
        let writing = Instant::now();
        let part = self.writer.finish()?;
        let crops = self.crops.map(CropWriter::finish).transpose()?;
        self.tally.seconds.rows += writing.elapsed().as_secs_f64();
        Ok((part, crops, self.tally))
    }

    fn take(&mut self, item: Item) -> Result<(), PipelineError> {
        let Item {
            video,
            frame,
            timestamp,
            content,
            mark,
        } = item;
        at_work(self.lease, self.reports)(video, frame);
        if let (Some(spans), Some(mark)) = (&mut self.spans, mark) {
            spans.mark(*mark);
        }
        if self.finder.is_none() && self.spans.as_mut().is_some_and(|spans| spans.may_end(frame)) {
            self.end_span(None)?;
        }
        let pending = |shown| Pending {
            video,
            frame,
            timestamp,
            shown,
        };
        let (picture, cut) = match content {
            Content::Face(face, input) => {
                let shown = self.face(face, &input, None)?;
                self.give_back(input);
                return self.hold(pending(shown));
            }
            Content::Cropped(face, input, cropped) => {
                let shown = self.face(face, &input, Some(cropped))?;
                self.give_back(input);
                return self.hold(pending(shown));
            }
            Content::Whole(picture) => {
                let preparing = Instant::now();
                let made = self.inputs.whole(&picture, std::mem::take(&mut self.spare));
                self.tally.seconds.faces += preparing.elapsed().as_secs_f64();
                // The whole of a picture can always be prepared.
                let input = made.map_err(CropError::of_model)?;
                let shown = self.face(full_frame(&picture), &input, None)?;
                return self.hold(pending(shown));
            }
            Content::NoFace => return self.hold(pending(Shown::NoFace)),
            Content::Picture(picture, cut) => (Some(picture), cut),
            Content::Damaged => (None, false),
        };
        let Some(finder) = &mut self.finder else {
            return self.hold(pending(Shown::Damaged));
        };
        let finding = Instant::now();
        let seen = SampledFrame {
            video,
            frame,
            timestamp,
            picture,
            cut,
        };
        if let Some(following) = self.following.take() {
            finder.resume(&following, seen);
            return Ok(());
        }
        let found = finder.push(seen, &at_work(self.lease, self.reports))?;
        self.reports.view_done();
        self.tally.seconds.faces += finding.elapsed().as_secs_f64();
        if found.is_empty() {
            return Ok(());
        }
        let resume_point = finder.resume_point();
        self.show(found)?;
        let Some((frame, following)) = resume_point else {
            return Ok(());
        };
        if self.spans.as_mut().is_some_and(|spans| spans.may_end(frame)) {
            self.end_span(Some(following))?;
        }
        Ok(())
    }

    /// Keeps what was labelled up to a mark.
    fn end_span(&mut self, following: Option<TrackerState>) -> Result<(), PipelineError> {
        self.flush()?;
        let writing = Instant::now();
        if let Some(spans) = &mut self.spans {
            spans.end(following);
        }
        self.tally.seconds.rows += writing.elapsed().as_secs_f64();
        Ok(())
    }

    /// Cuts out the faces that were found.
    fn show(&mut self, found: Vec<FrameFaces>) -> Result<(), PipelineError> {
        for FrameFaces { seen, faces } in found {
            let pending = |shown| Pending {
                video: seen.video,
                frame: seen.frame,
                timestamp: seen.timestamp,
                shown,
            };
            let Some(picture) = &seen.picture else {
                self.hold(pending(Shown::Damaged))?;
                continue;
            };
            let mut shown = 0;
            for face in faces {
                let cropping = Instant::now();
                let spare = std::mem::take(&mut self.spare);
                let made = self.inputs.crops(picture, &face, self.engine.crops(), spare);
                self.tally.seconds.faces += cropping.elapsed().as_secs_f64();
                let input = match made {
                    Ok(input) => input,
                    Err(CropError::Model(error)) => return Err(error.into()),
                    // A face whose landmarks cannot be aligned is none.
                    Err(CropError::Prepare(_)) => continue,
                };
                let face = self.face(face, &input, None)?;
                self.hold(pending(face))?;
                shown += 1;
                if let Sample::Host(room) = input {
                    self.spare = room;
                }
            }
            if shown == 0 {
                self.hold(pending(Shown::NoFace))?;
            }
        }
        Ok(())
    }

    /// Lends memory out again.
    fn give_back(&self, input: Sample) {
        if let Sample::Host(room) = input {
            // A full return channel only means that this buffer is not needed again.
            let _ = self.recycle.try_send(room);
        }
    }

    /// Hands a face to the models, and keeps its crop: of one that is a crop already, the very bytes.
    fn face(&mut self, face: Face, input: &Sample, cropped: Option<Cropped>) -> Result<Shown, PipelineError> {
        self.engine.push(input)?;
        let writing = Instant::now();
        let Cropped { jpeg, recipe } = cropped.unwrap_or_default();
        let jpeg = match (&self.crops, jpeg) {
            (Some(_), Some(jpeg)) => jpeg,
            (Some(crops), None) => crops.jpeg(&input.first()?)?,
            (None, _) => Vec::new(),
        };
        self.tally.seconds.rows += writing.elapsed().as_secs_f64();
        Ok(Shown::Face(face, Crop { jpeg, recipe }))
    }

    /// Keeps a row until its batch was run.
    fn hold(&mut self, pending: Pending) -> Result<(), PipelineError> {
        self.pending.push(pending);
        if self.engine.is_full() || self.pending.len() == MAX_PENDING {
            self.flush()?;
        }
        Ok(())
    }

    /// Runs the models over the batch and writes every pending row.
    fn flush(&mut self) -> Result<(), PipelineError> {
        let inferring = Instant::now();
        if let Some(oldest) = self.pending.first() {
            at_work(self.lease, self.reports)(oldest.video, oldest.frame);
        }
        let outputs = self.engine.run(&|| self.reports.view_done())?;
        let writing = Instant::now();
        self.tally.seconds.infer += (writing - inferring).as_secs_f64();

        let rows = self.pending.len() as u64;
        let mut entry = 0;
        for pending in self.pending.drain(..) {
            let video = &self.lease.shard.videos[pending.video].key;
            let (labels, mut broken);
            broken = None;
            let content = match &pending.shown {
                Shown::Face(face, _) => {
                    labels = outputs.face(entry);
                    entry += 1;
                    broken = self.soundness.face(video, &labels);
                    rows::Content::Face {
                        face,
                        outputs: &labels,
                    }
                }
                Shown::NoFace => rows::Content::NoFace,
                Shown::Damaged => rows::Content::DecodeError,
            };
            let row = Row {
                video,
                frame: pending.frame,
                timestamp: pending.timestamp,
                content,
            };
            self.tally.videos[pending.video].add(&row, broken);
            self.writer.push(&row)?;
            let mut jpeg: &[u8] = &[];
            if let Shown::Face(_, crop) = &pending.shown {
                jpeg = &crop.jpeg;
                if let Some(recipe) = &crop.recipe {
                    self.writer.cropped_by(recipe);
                }
                if let Some(crops) = &mut self.crops {
                    crops.push(&row, jpeg, crop.recipe.as_deref())?;
                }
            }
            if let Some(spans) = &mut self.spans {
                spans.push(&row, jpeg);
            }
        }
        self.tally.seconds.rows += writing.elapsed().as_secs_f64();
        self.reports.labelled(rows);
        self.soundness.check()
    }
}
