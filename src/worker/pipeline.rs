//! The pipeline of one shard, and the one place that owns threads and channels.
//!
//! ```text
//! fetch threads: bucket ─► scratch space (where the videos do not lie on a disk)
//! decode thread: open ─► decode ─► sample ─► prepare ──bounded channel──► this thread: batch ─► models ─► rows
//!                                      └───► picture ──────────────────► find and crop faces ┘
//! ```
//!
//! Faces that need not be looked for (footage that is cropped already, faces of an earlier run) are prepared on the decode
//! thread. Where faces are detected the pictures themselves cross over, because detection is libtorch's work as much as the
//! models are, and both want all cores in turn; so do pictures that lie on a GPU, to leave the decode thread to NVDEC.
//!
//! Batches run across the resume points between videos, so short videos do not leave them half empty; a row does not
//! depend on its neighbours in a batch. Frames in flight are bounded by the channel, whose entries are prepared faces of
//! 192 KiB or few pictures, and by what the finder holds back, whatever the length of the video.

mod checkpoints;
mod cropped;
mod decoded;
mod decoding;
mod earlier;
mod fetching;
mod input;
mod labelling;
mod outlet;
mod presence;
mod soundness;
mod verdict;
mod weights;

use super::heartbeat::Reports;
use crate::infer::Engine;
use affectmill_base::{Crop, Face, FrameIndex, Location, Micros, NetworkKind, VideoKey};
use affectmill_labelset::rows::{CropWriter, RowError, RowWriter};
use affectmill_labelset::{JobRecord, LabelSchema, PartInfo, StageSeconds, VideoOutcome};
use affectmill_media::decode;
use affectmill_media::decode::{DecodeOptions, Picture};
use affectmill_nn as model;
use affectmill_nn::{Detector, Device, ModelError, Sample};
use affectmill_queue::{Assignment, Lease};
use affectmill_spec::{Crops, Decode, FaceMode, Job};
use affectmill_store::{Access, Store, StoreError};
use affectmill_vision::Finder;
pub use checkpoints::Checkpoints;
use checkpoints::{CheckpointCandidate, CheckpointInterval, CheckpointWriter, CropStyle};
use decoded::Interruption;
use decoding::decode_shard;
use input::Input;
use labelling::{Labelling, Writers};
use presence::Presence;
use soundness::Soundness;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

/// Pictures in the channel; the finder holds back more.
const PICTURES_IN_FLIGHT: usize = 8;

/// Told once, when it begins.
const HALVED: &str = "the GPU had no memory for a whole batch: from now on batches are read in halves, and rows may differ in their last \
                      bits from those of whole ones; set a smaller run.batch in a new output, run fewer workers on it, or \
                      close what else uses it";

/// Why a shard could not be labelled. Trouble with a single video is an outcome, not an error.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A row could not be written.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// A store, or scratch space.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The weights are not those of the job.
    #[error(
        "the weights of {whose}, {place}, were replaced since the run began; put the former ones back, or label into another output"
    )]
    Weights {
        /// A model, or the face detector.
        whose: String,
        /// Its weight file.
        place: Location,
    },
    /// The record of the job names no checksum of some weights.
    #[error(
        "the record of the job names no weights of {0}; it was written by another version of affectmill or damaged"
    )]
    Unrecorded(String),
    /// FFmpeg is not the one that the run was begun with.
    #[error(
        "videos are decoded by `{is}` here, and by `{was}` when the run began; put the former FFmpeg back, or label into another output"
    )]
    Decoder {
        /// As the record names it.
        was: String,
        /// As it is here.
        is: String,
    },
    /// A model gives no numbers for most faces.
    #[error(
        "model `{model}` gave NaN or an infinity for {broken} of {faces} faces; check its weights, and with half precision try a \
         wider one, which makes another dataset"
    )]
    NotFinite {
        /// Its name.
        model: String,
        /// Faces without numbers.
        broken: u64,
        /// Faces it has seen.
        faces: u64,
    },
    /// A video could not be read to its end, though another attempt may: what was labelled of the shard does not count.
    #[error("{}", interruption.trouble.error)]
    ReadInterrupted {
        /// The video.
        video: VideoKey,
        /// Why.
        interruption: Interruption,
    },
    /// The input went away: nothing of the shard counts, and no video is to blame.
    #[error("{0}")]
    InputGone(String),
    /// What was kept of the video cannot be gone on from; it is to be labelled from its beginning.
    #[error("the spans of the video are of no use: {0}")]
    ResumeMismatch(String),
    /// The job decodes on GPUs, and this worker cannot.
    #[error(
        "[input] decode = \"nvdec\" cannot be had here: {0}; start workers where it can (`affectmill doctor` tells), or set \
         decode = \"cpu\", which makes another dataset"
    )]
    NoNvdec(String),
    /// A thread could not be started or broke off.
    #[error("the decode thread {0}")]
    Thread(String),
}

/// A labelled shard, not committed yet.
pub struct Labelled {
    /// The finished part.
    pub part: PartInfo,
    /// The finished crops, where they are kept.
    pub crops: Option<PartInfo>,
    /// What became of each video, in key order.
    pub videos: Vec<VideoOutcome>,
    /// Where the time went.
    pub seconds: StageSeconds,
    /// Bytes of videos that came from S3 meanwhile.
    pub fetched_bytes: u64,
}

/// The models of a job on one device, and what labelling a shard needs beside them.
pub struct Pipeline {
    engine: Engine,
    /// Whether it was told that batches are read in halves.
    told_halved: bool,
    /// Where faces are detected.
    finder: Option<Finder>,
    schema: LabelSchema,
    soundness: Soundness,
    source: Source,
}

/// What the decode thread needs to know.
struct Source {
    input: Input,
    presence: Presence,
    job: Job,
    options: DecodeOptions,
    /// The output whose faces are taken over.
    earlier: Option<Store>,
    /// How faces are cropped.
    crops: Vec<Crop>,
    /// How the faces were cropped that each model was trained on, where its weights say so.
    trained_on: Vec<Option<String>>,
}

/// One frame on its way from the decode thread to the models.
struct Item {
    /// Index of the video within the shard.
    video: usize,
    frame: FrameIndex,
    timestamp: Option<Micros>,
    content: Content,
    /// A checkpoint may end before it.
    mark: Option<Box<CheckpointCandidate>>,
}

enum Content {
    /// A face, prepared: for each crop planar RGB `[3, 128, 128]`, normalised.
    Face(Face, Sample),
    /// A face of a set of crops, prepared likewise.
    Cropped(Face, Sample, Cropped),
    /// A picture on a GPU that is a face as a whole.
    Whole(Picture),
    /// There is no face in the frame.
    NoFace,
    /// A picture to find faces in, and whether a scene cut lies between it and the one before.
    Picture(Picture, bool),
    /// The frame could not be decoded whole.
    Damaged,
}

/// What a set of crops has of a face beside its picture.
#[derive(Default)]
struct Cropped {
    /// The file, where the models see it as it is.
    jpeg: Option<Vec<u8>>,
    /// How it was cropped.
    recipe: Option<Arc<str>>,
}

/// The GPU that decodes, as the run's record and the worker's device say.
fn nvdec(job: &Job, device: Device) -> Result<Option<usize>, PipelineError> {
    match job.input.decode {
        // What was left open was settled when the run began.
        Decode::Cpu | Decode::Auto => Ok(None),
        Decode::Nvdec => {
            let none = || PipelineError::NoNvdec(format!("this worker's device is `{device}`, not a GPU"));
            let gpu = device.gpu().ok_or_else(none)?;
            decode::nvdec_available().map_err(PipelineError::NoNvdec)?;
            decode::nvdec_opens(gpu).map_err(PipelineError::NoNvdec)?;
            Ok(Some(gpu))
        }
    }
}

/// Refuses another FFmpeg than the one that the record names: a package may be replaced while a run goes on.
fn as_begun(record: &JobRecord) -> Result<(), PipelineError> {
    let is = decode::backend(record.job.input.decode == Decode::Nvdec);
    match record.identity["decode_backend"].as_str() {
        Some(was) if was != is => Err(PipelineError::Decoder { was: was.into(), is }),
        _ => Ok(()),
    }
}

impl Pipeline {
    /// Loads the models, each from the very bytes that the record names.
    pub fn new(assignment: &Assignment, device: Device, access: &Access) -> Result<Self, PipelineError> {
        let record = &assignment.job;
        let job = &record.job;
        let nvdec = nvdec(job, device)?;
        as_begun(record)?;
        let mut weights = record.weights();
        let mut trained_on = BTreeMap::new();
        let engine = Engine::load(job, device, |model| {
            let whose = || format!("model `{}`", model.name);
            let file = weights::as_recorded(weights.next(), whose, access)?;
            let stated = match model.kind {
                NetworkKind::Own(_) => model::stated_crop(&file)?,
                NetworkKind::TorchScript => model.crop.map(|crop| crop.name().into()),
            };
            // The members of a model state one recipe: the coordinator saw to it.
            trained_on.entry(model.name.clone()).or_insert(stated);
            Ok::<_, PipelineError>(file)
        })?;
        let finder = match job.faces.mode {
            FaceMode::Detect => {
                let file = weights::as_recorded(weights.next(), || "the face detector".into(), access)?;
                Some(Finder::new(Detector::load(&file, device)?, job.faces.clone()))
            }
            _ => None,
        };
        let stated = job
            .models
            .iter()
            .map(|model| trained_on.remove(&model.name).flatten());
        let trained_on = stated.collect();
        let earlier = match (job.faces.mode, &job.faces.labels) {
            (FaceMode::FromLabels, Some(root)) => Some(Store::connect_existing(root, access)?),
            _ => None,
        };
        Ok(Self {
            finder,
            engine,
            told_halved: false,
            soundness: Soundness::new(record.models.iter().map(|model| model.name.as_str())),
            schema: LabelSchema::new(&record.models, job.output.values, &record.fingerprint),
            source: Source {
                input: Input::open(&assignment.input_root, access, assignment.fetch_bytes)?,
                presence: Presence::new(&assignment.input_root, assignment.folders.clone()),
                job: job.clone(),
                options: DecodeOptions {
                    threads: assignment.threads,
                    image_base: job.input.image_base,
                    image_fps: job.input.image_fps,
                    max_pixels: job.input.max_pixels,
                    max_frames: job.input.max_frames,
                    nvdec,
                },
                earlier,
                crops: job.crops(),
                trained_on,
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

    /// Whether crops are kept beside the labels.
    pub fn keeps_crops(&self) -> bool {
        self.source.job.output.crops != Crops::None
    }

    /// Labels the videos of a lease into `part`, in order, and their faces into `crops`. Of a long video, goes on where the
    /// checkpoints end that are there, and keeps further ones; without `spans`, neither.
    #[expect(clippy::too_many_lines, reason = "the threads of one shard, side by side")]
    pub fn label(
        &mut self,
        lease: &Lease,
        part: &Path,
        crops: Option<&Path>,
        spans: Option<&Checkpoints<'_>>,
        reports: &Reports,
    ) -> Result<Labelled, PipelineError> {
        let began = Instant::now();
        reports.begin_shard();
        self.source.input.lease(lease);
        // Two batches: one that the models work on, one being filled meanwhile.
        let whole_on_gpu =
            self.source.options.nvdec.is_some() && self.source.job.faces.mode == FaceMode::FullFrame;
        let in_flight = if self.finder.is_some() || whole_on_gpu {
            PICTURES_IN_FLIGHT
        } else {
            2 * self.engine.capacity()
        };
        let (sender, items) = sync_channel(in_flight);
        let (recycle, recycled) = sync_channel(in_flight);
        let writer = RowWriter::create(part, &self.schema)?;
        let output = &self.source.job.output;
        let recipe = match self.source.job.faces.mode {
            FaceMode::FullFrame => "full_frame",
            FaceMode::Detect | FaceMode::FromLabels => self.source.crops[0].name(),
        };
        let style = CropStyle {
            recipe,
            quality: output.crop_quality,
        };
        let keeper = |path| CropWriter::create(path, &self.schema, style.recipe, style.quality);
        let crops = crops.map(keeper).transpose()?;

        let kept = spans.map_or(&[][..], |spans| &spans.kept);
        let resume_point = kept.last().map(|span| &span.resume_point);
        if resume_point.is_some_and(|resume_point| resume_point.following.is_some() != self.finder.is_some())
        {
            return Err(PipelineError::ResumeMismatch("they do not fit the job".into()));
        }
        let goal = CheckpointInterval::new(self.source.job.run.span_frames, resume_point);
        let keeper = spans.map(|spans| {
            let style = crops.is_some().then_some(style);
            CheckpointWriter::new(spans, &goal, &lease.shard.id, &self.schema, style)
        });
        let goal = spans.map(|_| (&goal, resume_point));
        let source = &self.source;
        let labelled = thread::scope(|scope| {
            let decoder = thread::Builder::new()
                .name("decode".into())
                .spawn_scoped(scope, move || {
                    let decoded = decode_shard(source, lease, goal, reports, &sender, &recycled);
                    reports.decoder_waits();
                    decoded
                })
                .map_err(|error| PipelineError::Thread(format!("could not be started: {error}")))?;
            let mut models = Labelling::new(
                &mut self.engine,
                self.finder.as_mut(),
                lease,
                reports,
                recycle,
                &mut self.soundness,
                Writers {
                    rows: writer,
                    crops,
                    spans: keeper,
                },
            );
            let taken_over = match spans {
                Some(spans) => models.go_on_after(kept, spans.store, &self.schema),
                None => Ok(()),
            };
            // `items` is dropped when labelling fails, which lets the decoder end.
            let tally = match taken_over {
                Ok(()) => models.run(items),
                Err(error) => {
                    drop(items);
                    Err(error)
                }
            };
            let mut decoded = decoder
                .join()
                .map_err(|_| PipelineError::Thread("panicked".into()))?;
            // What decoding met came first: labelling may have failed of the same trouble.
            if let Some(error) = decoded.failure.take() {
                return Err(error);
            }
            match (tally, decoded.read_interrupted.take()) {
                (Err(error @ PipelineError::Model(ModelError::GpuMemory { .. })), _) => Err(error),
                (_, Some((video, interruption))) => {
                    Err(PipelineError::ReadInterrupted { video, interruption })
                }
                (tally, None) => Ok((tally?, decoded)),
            }
        });
        reports.end_shard();
        if self.engine.halves() && !self.told_halved {
            self.told_halved = true;
            reports.warn(HALVED.into());
        }
        let (tally, decoded) = labelled?;

        if let Some(cause) = decoded.resume_mismatch {
            return Err(PipelineError::ResumeMismatch(cause));
        }
        let (part, crops, tally) = tally;
        let mut seconds = tally.seconds;
        let fetched = self.source.input.fetched();
        seconds.fetch = fetched.time.as_secs_f64();
        seconds.fetch_blocked = match seconds.fetch {
            0.0 => 0.0,
            _ => decoded.fetching.as_secs_f64(),
        };
        seconds.decode = decoded.busy.as_secs_f64();
        seconds.decode_blocked = decoded.blocked.as_secs_f64();
        seconds.total = began.elapsed().as_secs_f64();
        let mut videos = decoded.outcomes;
        for (outcome, counts) in videos.iter_mut().zip(tally.videos) {
            counts.enter(outcome);
        }
        Ok(Labelled {
            part,
            crops,
            videos,
            seconds,
            fetched_bytes: fetched.bytes,
        })
    }
}
