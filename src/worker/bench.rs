//! How fast a job runs here, beside the limits that the machine sets it: decoding alone, the models alone.
//!
//! All kinds of measurement take turns, round by round, so that what else the machine does strikes them alike.

use super::heartbeat::Reports;
use super::pipeline::{Pipeline, PipelineError};
use affectmill_base::Crop;
use affectmill_media::decode::{DecodeError, Sampler, VideoReader};
use affectmill_nn::{Device, Sample};
use affectmill_queue::{Assignment, Lease};
use affectmill_store::Access;
use affectmill_vision as faces;
use affectmill_vision::{CropError, InputMaker};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// Batches that the models run in a round.
const BATCHES: usize = 6;
/// The same on a GPU, where one takes milliseconds.
const BATCHES_ON_GPU: usize = 100;

/// Faces a second of each kind of measurement.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Round {
    /// Decoding alone, on one thread of the program (and FFmpeg's own).
    pub decode: f64,
    /// Preparation alone: planes to 128×128.
    pub prepare: f64,
    /// All models of the job alone, on full batches.
    pub model: f64,
    /// The whole pipeline: video to Parquet.
    pub whole: f64,
    /// What the cores could do at best if they did the work of all three stages and nothing else, from the processor
    /// time that each took alone. On the CPU this is the limit: decoding and the models want the same cores.
    pub shared: f64,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The pipeline failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The video failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No frame to measure with.
    #[error("the job's videos give no frame that could be labelled")]
    NoFrames,
    /// No scratch file for the part.
    #[error("the system's folder for temporary files is unusable: {0}")]
    Scratch(#[from] io::Error),
}

/// Measures one shard of a job again and again.
pub struct Bench {
    assignment: Assignment,
    lease: Lease,
    pipeline: Pipeline,
    faces: Vec<Sample>,
    on_gpu: bool,
}

impl Bench {
    /// Loads the models.
    ///
    /// # Errors
    /// [`BenchError`] as for a worker.
    pub fn new(assignment: Assignment, lease: Lease, device: Device) -> Result<Self, BenchError> {
        affectmill_nn::set_threads(assignment.threads);
        Ok(Self {
            pipeline: Pipeline::new(&assignment, device, &Access::of(&assignment.job.job))?,
            assignment,
            lease,
            faces: Vec::new(),
            on_gpu: device != Device::cpu(),
        })
    }

    /// One round of everything.
    ///
    /// # Errors
    /// [`BenchError`] when a video, a model or the part fails.
    pub fn round(&mut self) -> Result<Round, BenchError> {
        let began = cpu_time();
        let (frames, decode, prepare) = self.decode(true)?;
        let decoded = cpu_time();
        let (faces, model) = self.model()?;
        let each = (decoded - began) / frames as f64 + (cpu_time() - decoded) / faces as f64;
        Ok(Round {
            // A GPU decodes on while faces are prepared, so there the time of the one cannot be told from the other's.
            decode: if self.on_gpu {
                self.decode(false)?.1
            } else {
                decode
            },
            prepare,
            model,
            whole: self.whole()?,
            shared: self.assignment.threads as f64 / each,
        })
    }

    /// Whether the GPU had no memory for whole batches.
    pub fn halves(&mut self) -> bool {
        self.pipeline.engine().halves()
    }

    /// Frames, and frames a second of decoding and of preparation.
    fn decode(&mut self, prepare: bool) -> Result<(u64, f64, f64), BenchError> {
        let options = self.pipeline.decode_options();
        let capacity = self.pipeline.engine().capacity();
        // A whole picture has no landmarks, whatever the job crops by.
        let recipes = vec![Crop::Box; self.pipeline.engine().crops().len()];
        let mut inputs = InputMaker::default();
        let mut frames = 0;
        let mut preparing = Duration::ZERO;
        let began = Instant::now();
        for video in &self.lease.shard.videos {
            let path = self.assignment.input_root.join(video.file()).to_string();
            let mut reader = VideoReader::open(path.as_ref(), video.kind, &options)?;
            let mut sampler = Sampler::new(&self.assignment.job.job.sampling);
            loop {
                let frame = match reader.next() {
                    Ok(Some(frame)) => frame,
                    // A run would go on without NVDEC, and be another measurement.
                    Ok(None) | Err(DecodeError::Nvdec { .. }) => break,
                    Err(error) => return Err(error.into()),
                };
                if !sampler.keep(frame.index, frame.timestamp, frame.key) {
                    continue;
                }
                let Some(picture) = frame.picture else { continue };
                frames += 1;
                if !prepare {
                    continue;
                }
                let preparation = Instant::now();
                let face = faces::full_frame(&picture);
                match inputs.crops(&picture, &face, &recipes, Vec::new()) {
                    Ok(input) if self.faces.len() < capacity => self.faces.push(input),
                    Err(CropError::Model(error)) => return Err(PipelineError::from(error).into()),
                    Ok(_) | Err(_) => {}
                }
                preparing += preparation.elapsed();
            }
        }
        if frames == 0 || (prepare && self.faces.is_empty()) {
            return Err(BenchError::NoFrames);
        }
        let decoding = began.elapsed() - preparing;
        Ok((frames, rate(frames, decoding), rate(frames, preparing)))
    }

    /// Faces, and faces a second.
    fn model(&mut self) -> Result<(u64, f64), BenchError> {
        let engine = self.pipeline.engine();
        let began = Instant::now();
        let mut labelled = 0;
        let batches = if self.on_gpu { BATCHES_ON_GPU } else { BATCHES };
        for _ in 0..batches {
            for face in self.faces.iter().cycle().take(engine.capacity()) {
                engine.push(face).map_err(PipelineError::from)?;
                labelled += 1;
            }
            engine.run(&|| {}).map_err(PipelineError::from)?;
        }
        Ok((labelled, rate(labelled, began.elapsed())))
    }

    fn whole(&mut self) -> Result<f64, BenchError> {
        let part = tempfile::NamedTempFile::new()?;
        let reports = Reports::new(File::options().write(true).open("/dev/null")?)?;
        let began = Instant::now();
        let labelled = self
            .pipeline
            .label(&self.lease, part.path(), None, None, &reports)?;
        Ok(rate(labelled.part.rows, began.elapsed()))
    }
}

/// Seconds of processor time that this process, all its threads together, has used.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn rate(frames: u64, time: Duration) -> f64 {
    frames as f64 / time.as_secs_f64().max(1e-9)
}
