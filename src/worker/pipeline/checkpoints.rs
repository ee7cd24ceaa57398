//! Checkpoints of a long video: what was labelled is kept now and then, with the state to go on from.
//!
//! The decode thread finds key frames to go on from and marks frames that a resume point may lie before; the labelling side makes the
//! resume point where it holds nothing back. Where the resume points lie changes no row.

use super::PipelineError;
use affectmill_base::{FrameIndex, ShardId};
use affectmill_base::{SeekAnchor, TrackerState, Trouble};
use affectmill_labelset::commit;
use affectmill_labelset::rows::{CropWriter, Row, RowWriter, span_schema};
use affectmill_labelset::{
    CheckpointRecord, DeviceClass, LabelSchema, RECORD_VERSION, ResumePoint, VideoOutcome,
};
use affectmill_store::Store;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::NamedTempFile;

/// Where the checkpoints of a shard are kept, and those there are.
pub struct Checkpoints<'a> {
    /// The output.
    pub store: &'a Store,
    /// In order.
    pub kept: Vec<CheckpointRecord>,
    /// What labels here.
    pub class: DeviceClass,
}

/// What the two threads agree on.
pub(super) struct CheckpointInterval {
    /// Frames of a checkpoint.
    every: u64,
    /// Frames decoded before the last resume point.
    taken: AtomicU64,
}

impl CheckpointInterval {
    pub(super) fn new(every: u64, last: Option<&ResumePoint>) -> Self {
        Self {
            every,
            taken: AtomicU64::new(last.map_or(0, |resume_point| resume_point.frames)),
        }
    }

    /// Whether another resume point is due after so many frames.
    pub(super) fn due(&self, frames: u64) -> bool {
        frames.saturating_sub(self.taken.load(Ordering::Relaxed)) >= self.every
    }

    fn give_up(&self) {
        self.taken.store(u64::MAX, Ordering::Relaxed);
    }
}

/// A frame that a resume point may lie before.
pub(super) struct CheckpointCandidate {
    frame: FrameIndex,
    frames: u64,
    trouble: Option<Trouble>,
    decode_fallback: Option<String>,
    lost: u64,
    transfer: Option<String>,
    tone_mapping: Option<String>,
    seek_anchor: SeekAnchor,
}

impl CheckpointCandidate {
    /// Before `frame`, which was decoded last; `damage` and `fallback` are the reader's.
    pub(super) fn new(
        frame: FrameIndex,
        seek_anchor: SeekAnchor,
        outcome: &VideoOutcome,
        damage: Option<&Trouble>,
        fallback: Option<&str>,
    ) -> Self {
        Self {
            frame,
            frames: outcome.frames - 1,
            trouble: outcome.trouble().or_else(|| damage.cloned()),
            decode_fallback: outcome
                .decode_fallback
                .clone()
                .or_else(|| fallback.map(str::to_owned)),
            lost: outcome.lost.unwrap_or(0),
            transfer: outcome.transfer.clone(),
            tone_mapping: outcome.tone_mapping.clone(),
            seek_anchor,
        }
    }
}

/// How crops are written, where they are kept.
#[derive(Clone, Copy)]
pub(super) struct CropStyle {
    pub recipe: &'static str,
    pub quality: u8,
}

/// Keeps checkpoints on the labelling side.
pub(super) struct CheckpointWriter<'a> {
    store: &'a Store,
    class: DeviceClass,
    goal: &'a CheckpointInterval,
    shard: ShardId,
    schema: LabelSchema,
    crops: Option<CropStyle>,
    number: u32,
    follows: Option<String>,
    open: Option<Open>,
    marks: VecDeque<CheckpointCandidate>,
    given_up: bool,
}

/// The files of the checkpoint under way.
struct Open {
    rows: RowWriter,
    part: NamedTempFile,
    crops: Option<(CropWriter, NamedTempFile)>,
}

impl<'a> CheckpointWriter<'a> {
    pub(super) fn new(
        spans: &Checkpoints<'a>,
        goal: &'a CheckpointInterval,
        shard: &ShardId,
        schema: &LabelSchema,
        crops: Option<CropStyle>,
    ) -> Self {
        Self {
            store: spans.store,
            class: spans.class,
            goal,
            shard: shard.clone(),
            schema: span_schema(schema),
            crops,
            number: spans.kept.len() as u32,
            follows: spans.kept.last().map(|span| span.part.sha256.clone()),
            open: None,
            marks: VecDeque::new(),
            given_up: false,
        }
    }

    /// A resume point may lie here.
    pub(super) fn mark(&mut self, mark: CheckpointCandidate) {
        // Those on their way when the last checkpoint ended come too early.
        if self.goal.due(mark.frames) {
            self.marks.push_back(mark);
        }
    }

    /// Whether a resume point may lie before this frame, at which nothing is held back; earlier marks are of no use then.
    pub(super) fn may_end(&mut self, frame: FrameIndex) -> bool {
        while self.marks.front().is_some_and(|mark| mark.frame < frame) {
            self.marks.pop_front();
        }
        !self.given_up && self.marks.front().is_some_and(|mark| mark.frame == frame)
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &Row<'_>, jpeg: &[u8]) {
        if !self.given_up && self.add(row, jpeg).is_err() {
            self.give_up();
        }
    }

    /// Checkpoints are a help. Where they cannot be kept the video is labelled without, and whether its labels can be stored is for
    /// the commit to say.
    fn give_up(&mut self) {
        self.given_up = true;
        self.open = None;
        self.goal.give_up();
    }

    fn add(&mut self, row: &Row<'_>, jpeg: &[u8]) -> Result<(), PipelineError> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let open = self.begin()?;
                self.open.insert(open)
            }
        };
        open.rows.push(row)?;
        if let (Some((crops, _)), false) = (&mut open.crops, jpeg.is_empty()) {
            // A set of crops has no checkpoints, so the recipe is the job's.
            crops.push(row, jpeg, None)?;
        }
        Ok(())
    }

    fn begin(&self) -> Result<Open, PipelineError> {
        let part = self.store.scratch_file(self.shard.as_str())?;
        let crops = match self.crops {
            Some(CropStyle { recipe, quality }) => {
                let file = self.store.scratch_file(self.shard.as_str())?;
                Some((
                    CropWriter::create(file.path(), &self.schema, recipe, quality)?,
                    file,
                ))
            }
            None => None,
        };
        Ok(Open {
            rows: RowWriter::create(part.path(), &self.schema)?,
            part,
            crops,
        })
    }

    /// Ends the checkpoint before the frame that [`may_end`](Self::may_end) was asked for.
    pub(super) fn end(&mut self, following: Option<TrackerState>) {
        let Some(mark) = self.marks.pop_front() else {
            return;
        };
        // Not kept by us, it is another worker's, whose resume points may lie elsewhere.
        if !matches!(self.keep(mark, following), Ok(true)) {
            self.give_up();
        }
    }

    /// Whether the checkpoint is kept.
    fn keep(
        &mut self,
        mark: CheckpointCandidate,
        following: Option<TrackerState>,
    ) -> Result<bool, PipelineError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let (crops, crops_file) = match open.crops {
            Some((crops, file)) => (Some(crops.finish()?), Some(file)),
            None => (None, None),
        };
        let span = CheckpointRecord {
            version: RECORD_VERSION,
            shard: self.shard.clone(),
            fingerprint: self.schema.fingerprint().clone(),
            number: self.number,
            follows: self.follows.take(),
            part: open.rows.finish()?,
            crops,
            device: Some(self.class),
            resume_point: ResumePoint {
                frame: mark.frame,
                frames: mark.frames,
                trouble: mark.trouble,
                decode_fallback: mark.decode_fallback,
                lost: mark.lost,
                transfer: mark.transfer,
                tone_mapping: mark.tone_mapping,
                seek_anchor: mark.seek_anchor,
                following,
            },
        };
        let frames = span.resume_point.frames;
        self.follows = Some(span.part.sha256.clone());
        self.number += 1;
        self.marks.clear();
        let kept = commit::put_span(self.store, &span, open.part, crops_file)?;
        if kept {
            self.goal.taken.store(frames, Ordering::Relaxed);
        }
        Ok(kept)
    }
}
