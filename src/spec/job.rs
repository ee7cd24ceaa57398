//! The job file's sections, each value with its documented default.

use crate::domain::ModelKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A job: what to label, how, with which models, and where the rows go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Where the videos are.
    pub input: Input,
    /// Which frames are labelled.
    #[serde(default)]
    pub sampling: Sampling,
    /// Where the faces are.
    #[serde(default)]
    pub faces: Faces,
    /// The models; each adds its columns to every row.
    pub models: Vec<ModelSpec>,
    /// Where the rows go.
    pub output: Output,
    /// How the run is carried out; nothing here changes a label.
    #[serde(default)]
    pub run: Run,
}

/// `[input]`: where the videos are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// A folder (searched through and through) or one video file; relative to the job file.
    pub uri: PathBuf,
    /// File name extensions taken for videos, without the dot, any case.
    #[serde(default = "default_extensions")]
    pub extensions: Vec<String>,
    /// Number in the file name of frame 0 of a folder of numbered images. Aff-Wild2 counts from 1.
    #[serde(default = "default_image_base")]
    pub image_base: u64,
    /// Frames a second of folders of numbered images; without it their `timestamp_us` is null.
    #[serde(default)]
    pub image_fps: Option<f64>,
}

/// `[sampling]`: which frames get rows.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// `every`, `stride`, `fps` or `keyframes`.
    pub mode: SamplingMode,
    /// With `mode = "stride"`: frames 0, stride, 2·stride, … are labelled.
    pub stride: Option<u64>,
    /// With `mode = "fps"`: the first frame at or after each multiple of 1/fps seconds of presentation time.
    pub fps: Option<f64>,
}

/// How frames are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingMode {
    /// Every frame.
    #[default]
    Every,
    /// Every n-th frame.
    Stride,
    /// At most so many frames a second, by presentation time.
    Fps,
    /// Key frames only.
    Keyframes,
}

/// `[faces]`: where the faces are.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faces {
    /// `full_frame`.
    pub mode: FaceMode,
}

/// How faces are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaceMode {
    /// The whole picture is the face: footage that was cropped before.
    #[default]
    FullFrame,
}

/// One `[[models]]` entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Prefix of the model's columns; letters, digits and `_`, starting with a letter; unique in the job.
    pub name: String,
    /// `student`, `teacher_va`, `teacher_expr` or `teacher_au`.
    pub kind: ModelKind,
    /// Weights as safetensors (`affectmill import-weights` makes them); relative to the job file.
    pub weights: PathBuf,
}

/// `[output]`: where the rows go and what they hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// A folder, made when missing; relative to the job file.
    pub uri: PathBuf,
    /// `logits`, `probabilities` (columns end in `_p`) or `both`.
    #[serde(default)]
    pub values: Values,
    /// Frames a shard (one Parquet part) aims at. Fixed for videos that are planned already.
    #[serde(default = "default_shard_frames")]
    pub shard_frames: u64,
}

/// Which numbers of a head are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// Logits at temperature 1.
    Logits,
    /// Softmax (expression) or sigmoid (action units) of the logits.
    Probabilities,
    /// Both.
    #[default]
    Both,
}

/// `[run]`: how the run is carried out; nothing here changes a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Worker processes; default: one per GPU, else one.
    pub workers: Option<usize>,
    /// `local`: leases live in the coordinator's memory.
    pub queue: String,
    /// Faces a model sees at once.
    pub batch: usize,
    /// Threads of one worker; default: the processors divided by the workers.
    pub threads: Option<usize>,
    /// Seconds without progress after which a worker is taken for hung, killed, and its video struck.
    pub stall_timeout: f64,
    /// Strikes (crashes or hangs of a worker with the video in hand) after which a video is quarantined.
    pub max_strikes: u32,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            workers: None,
            queue: "local".into(),
            batch: 32,
            threads: None,
            stall_timeout: 120.0,
            max_strikes: 3,
        }
    }
}

fn default_extensions() -> Vec<String> {
    [
        "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "flv", "wmv", "3gp", "ogv",
        "gif",
    ]
    .map(String::from)
    .to_vec()
}

fn default_image_base() -> u64 {
    1
}

fn default_shard_frames() -> u64 {
    5_000
}
