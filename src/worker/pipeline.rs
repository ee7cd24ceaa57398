//! The pipeline of one shard, and the one place that owns threads and channels.
//!
//! ```text
//! decode thread: open ─► decode ─► sample ─► prepare ──bounded channel──► this thread: batch ─► models ─► rows
//!                                      └───► picture ──────────────────► find and crop faces ┘
//! ```
//!
//! Footage that is cropped already is prepared on the decode thread. Where faces are detected the pictures themselves
//! cross over, because detection is libtorch's work as much as the models are, and both want all cores in turn.
//!
//! Batches run across the seams between videos, so short videos do not leave them half empty; a row does not
//! depend on its neighbours in a batch. Frames in flight are bounded by the channel, whose entries are prepared faces of
//! 192 KiB or few pictures, and by what the finder holds back, whatever the length of the video.

use super::heartbeat::Reports;
use crate::dataset::{LabelSchema, PartInfo, PlannedVideo, StageSeconds, VideoOutcome, VideoStatus};
use crate::discover;
use crate::domain::{Crop, Face, FrameIndex, Micros};
use crate::model::{Detector, Device, INPUT_LEN, ModelError};
use crate::queue::{Assignment, Lease};
use crate::spec::{FaceMode, Job};
use crate::stages::decode::{DecodeError, DecodeOptions, Picture, Sampler, VideoReader};
use crate::stages::faces::{self, Cropper, Cuts, Finder, Found, Preparer, Seen};
use crate::stages::infer::Engine;
use crate::stages::rows::{self, Row, RowError, RowWriter};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Rows held back for a batch that is not full yet.
const MAX_PENDING: usize = 4_096;
/// Pictures in the channel; the finder holds back more.
const PICTURES_IN_FLIGHT: usize = 8;

/// Why a shard could not be labelled. Trouble with a single video is an outcome, not an error.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A row could not be written.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// A thread could not be started or broke off.
    #[error("the decode thread {0}")]
    Thread(String),
}

/// A labelled shard, not committed yet.
pub struct Labelled {
    /// The finished part.
    pub part: PartInfo,
    /// What became of each video, in key order.
    pub videos: Vec<VideoOutcome>,
    /// Where the time went.
    pub seconds: StageSeconds,
}

/// The models of a job on one device, and what labelling a shard needs beside them.
pub struct Pipeline {
    engine: Engine,
    /// Where faces are detected.
    finder: Option<Finder>,
    schema: LabelSchema,
    source: Source,
}

/// What the decode thread needs to know.
struct Source {
    root: PathBuf,
    job: Job,
    options: DecodeOptions,
}

/// One frame on its way from the decode thread to the models.
struct Item {
    /// Index of the video within the shard.
    video: usize,
    frame: FrameIndex,
    timestamp: Option<Micros>,
    content: Content,
}

enum Content {
    /// A face, prepared: planar RGB `[3, 128, 128]`, normalised.
    Face(Face, Vec<f32>),
    /// A picture to find faces in, and whether a scene cut lies between it and the one before.
    Picture(Picture, bool),
    /// The frame could not be decoded whole.
    Damaged,
}

impl Pipeline {
    /// Loads the models.
    pub fn new(assignment: &Assignment, device: Device) -> Result<Self, PipelineError> {
        let record = &assignment.job;
        let job = &record.job;
        let finder = match (job.faces.mode, &job.faces.detector) {
            (FaceMode::Detect, Some(weights)) => {
                let detector = Detector::load(weights, device)?;
                Some(Finder::new(detector, job.faces.clone()))
            }
            _ => None,
        };
        Ok(Self {
            finder,
            engine: Engine::load(&job.models, job.run.batch, device)?,
            schema: LabelSchema::new(&record.models, job.output.values, &record.fingerprint),
            source: Source {
                root: assignment.input_root.clone(),
                job: job.clone(),
                options: DecodeOptions {
                    threads: assignment.threads,
                    image_base: job.input.image_base,
                    image_fps: job.input.image_fps,
                },
            },
        })
    }

    /// The models, for whoever wants to run them alone.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// How videos are read.
    pub fn decode_options(&self) -> DecodeOptions {
        self.source.options
    }

    /// Labels the videos of a lease into `part`, in order.
    pub fn label(
        &mut self,
        lease: &Lease,
        part: &Path,
        reports: &Reports,
    ) -> Result<Labelled, PipelineError> {
        let began = Instant::now();
        reports.begin_shard();
        // Two batches: one that the models work on, one being filled meanwhile.
        let in_flight = match self.finder {
            Some(_) => PICTURES_IN_FLIGHT,
            None => 2 * self.engine.capacity(),
        };
        let (sender, items) = sync_channel(in_flight);
        let (recycle, recycled) = sync_channel(in_flight);
        let writer = RowWriter::create(part, &self.schema)?;

        let source = &self.source;
        let (tally, decoded) = thread::scope(|scope| {
            let decoder = thread::Builder::new()
                .name("decode".into())
                .spawn_scoped(scope, move || {
                    decode_shard(source, lease, reports, &sender, &recycled)
                })
                .map_err(|error| PipelineError::Thread(format!("could not be started: {error}")))?;
            let models = Labelling {
                engine: &mut self.engine,
                finder: self.finder.as_mut(),
                crop: self.source.job.faces.crop,
                cropper: Cropper::default(),
                input: vec![0.0; INPUT_LEN],
                lease,
                reports,
                recycle,
                writer,
                pending: Vec::new(),
                tally: Tally::new(lease.shard.videos.len()),
            };
            // `items` is dropped inside when labelling fails, which lets the decoder end.
            let tally = models.run(items);
            let decoded = decoder
                .join()
                .map_err(|_| PipelineError::Thread("panicked".into()))?;
            Ok::<_, PipelineError>((tally?, decoded))
        })?;

        let (part, tally) = tally;
        let mut seconds = tally.seconds;
        seconds.decode = decoded.busy.as_secs_f64();
        seconds.decode_blocked = decoded.blocked.as_secs_f64();
        seconds.total = began.elapsed().as_secs_f64();
        let mut videos = decoded.outcomes;
        for (outcome, (rows, faces)) in videos.iter_mut().zip(tally.rows) {
            (outcome.rows, outcome.faces) = (rows, faces);
        }
        Ok(Labelled {
            part,
            videos,
            seconds,
        })
    }
}

/// What the decode thread has to tell when it is through.
#[derive(Default)]
struct Decoded {
    outcomes: Vec<VideoOutcome>,
    busy: Duration,
    blocked: Duration,
}

/// The receiving side is gone: labelling failed, and says why itself.
struct Abandoned;

fn decode_shard(
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
    fn prepare(&mut self, picture: &Picture) -> Result<Content, faces::PrepareError> {
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

/// Rows, faces and time, counted where rows are made.
struct Tally {
    /// Rows and faces of each video of the shard.
    rows: Vec<(u64, u64)>,
    seconds: StageSeconds,
}

impl Tally {
    fn new(videos: usize) -> Self {
        Self {
            rows: vec![(0, 0); videos],
            seconds: StageSeconds::default(),
        }
    }
}

/// The labelling side of the pipeline: batches, models, rows.
struct Labelling<'a> {
    engine: &'a mut Engine,
    finder: Option<&'a mut Finder>,
    crop: Crop,
    cropper: Cropper,
    /// One cropped face.
    input: Vec<f32>,
    lease: &'a Lease,
    reports: &'a Reports,
    recycle: SyncSender<Vec<f32>>,
    writer: RowWriter,
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
    Face(Face),
    NoFace,
    Damaged,
}

impl Labelling<'_> {
    fn run(mut self, items: Receiver<Item>) -> Result<(PartInfo, Tally), PipelineError> {
        self.engine.clear();
        if let Some(finder) = &mut self.finder {
            finder.clear();
        }
        loop {
            let waiting = Instant::now();
            let Ok(item) = items.recv() else { break };
            self.tally.seconds.infer_blocked += waiting.elapsed().as_secs_f64();
            self.take(item)?;
        }
        if let Some(finder) = &mut self.finder {
            let finding = Instant::now();
            let found = finder.finish()?;
            self.tally.seconds.faces += finding.elapsed().as_secs_f64();
            self.show(found)?;
        }
        self.flush()?;
        let writing = Instant::now();
        let part = self.writer.finish()?;
        self.tally.seconds.rows += writing.elapsed().as_secs_f64();
        Ok((part, self.tally))
    }

    fn take(&mut self, item: Item) -> Result<(), PipelineError> {
        let Item {
            video,
            frame,
            timestamp,
            content,
        } = item;
        let pending = |shown| Pending {
            video,
            frame,
            timestamp,
            shown,
        };
        let (picture, cut) = match content {
            Content::Face(face, input) => {
                self.engine.push(&input)?;
                // A full return channel only means that this buffer is not needed again.
                let _ = self.recycle.try_send(input);
                return self.hold(pending(Shown::Face(face)));
            }
            Content::Picture(picture, cut) => (Some(picture), cut),
            Content::Damaged => (None, false),
        };
        let Some(finder) = &mut self.finder else {
            return self.hold(pending(Shown::Damaged));
        };
        let finding = Instant::now();
        let found = finder.push(Seen {
            video,
            frame,
            timestamp,
            picture,
            cut,
        })?;
        self.tally.seconds.faces += finding.elapsed().as_secs_f64();
        self.show(found)
    }

    /// Cuts out the faces that were found.
    fn show(&mut self, found: Vec<Found>) -> Result<(), PipelineError> {
        for Found { seen, faces } in found {
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
                // A face whose landmarks cannot be aligned is none.
                let made = self.cropper.crop(picture, &face, self.crop, &mut self.input);
                self.tally.seconds.faces += cropping.elapsed().as_secs_f64();
                if made.is_ok() {
                    self.engine.push(&self.input)?;
                    self.hold(pending(Shown::Face(face)))?;
                    shown += 1;
                }
            }
            if shown == 0 {
                self.hold(pending(Shown::NoFace))?;
            }
        }
        Ok(())
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
        let outputs = self.engine.run()?;
        let writing = Instant::now();
        self.tally.seconds.infer += (writing - inferring).as_secs_f64();

        let rows = self.pending.len() as u64;
        let mut entry = 0;
        for pending in self.pending.drain(..) {
            let count = &mut self.tally.rows[pending.video];
            count.0 += 1;
            let labels;
            let content = match &pending.shown {
                Shown::Face(face) => {
                    labels = outputs.face(entry);
                    entry += 1;
                    count.1 += 1;
                    rows::Content::Face {
                        face,
                        outputs: &labels,
                    }
                }
                Shown::NoFace => rows::Content::NoFace,
                Shown::Damaged => rows::Content::DecodeError,
            };
            self.writer.push(&Row {
                video: &self.lease.shard.videos[pending.video].key,
                frame: pending.frame,
                timestamp: pending.timestamp,
                content,
            })?;
        }
        self.tally.seconds.rows += writing.elapsed().as_secs_f64();
        self.reports.labelled(rows);
        Ok(())
    }
}
