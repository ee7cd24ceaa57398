//! The job file's sections, each value with its documented default.
//!
//! These types are the one description of the job file: serde reads them, and the JSON Schema derived from them is both
//! the published `schemas/job.schema.json` and what `check` validates a job file against. So a range, a default or
//! a description is here and nowhere else. `Default:` in a doc comment is compared with the code by a test.

use super::device::DeviceChoice;
use super::services::{NatsSettings, S3Settings};
use affectmill_base::{Crop, Location, NamedOutputs, NetworkKind, Precision, Task};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A job: what to label, how, with which models, and where the rows go.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Where the videos are. Required.
    pub input: Input,
    /// Which frames are labelled.
    #[serde(default)]
    pub sampling: Sampling,
    /// Where the faces are.
    #[serde(default)]
    pub faces: Faces,
    /// The models; each adds its columns to every row. At least one.
    #[schemars(length(min = 1))]
    pub models: Vec<ModelSpec>,
    /// Where the rows go. Required.
    pub output: Output,
    /// How the run is carried out; nothing here changes a label.
    #[serde(default)]
    pub run: Run,
    /// How S3 is reached; nothing here changes a label.
    #[serde(default)]
    pub s3: S3Settings,
    /// How NATS is reached and used, with `run.queue = "nats://host:4222"`; nothing here changes a label.
    #[serde(default)]
    pub nats: NatsSettings,
}

impl Job {
    /// Addresses of the NATS servers whose workers label this job; `None` for the queue in the coordinator's memory.
    pub fn servers(&self) -> Option<Vec<String>> {
        let queue = &self.run.queue;
        (queue != LOCAL).then(|| queue.split(',').map(|server| server.trim().to_owned()).collect())
    }

    /// The crop recipes in use, each once. The first is that of `[faces]`, which stored crops have, unless nothing uses it.
    pub fn crops(&self) -> Vec<Crop> {
        let kept = (self.output.crops != Crops::None).then_some(self.faces.crop);
        let wanted: Vec<Crop> = kept
            .into_iter()
            .chain(self.models.iter().map(|model| self.crop_of(model)))
            .collect();
        let mut crops: Vec<Crop> = Crop::ALL
            .into_iter()
            .filter(|crop| wanted.contains(crop))
            .collect();
        crops.sort_by_key(|crop| *crop != self.faces.crop);
        crops
    }

    /// The crop recipe of a model.
    pub fn crop_of(&self, model: &ModelSpec) -> Crop {
        model.crop.unwrap_or(self.faces.crop)
    }
}

/// `[input]`: where the videos are.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// A folder (searched with its subfolders) or one video file, as a path, `file://` uri or `s3://bucket/prefix`. A
    /// relative path is relative to the job file; one given by `--set`, to the current directory. A `/` at the end of an
    /// `s3://` uri says that a prefix is meant, even where an object has that name. Required.
    #[schemars(with = "String")]
    #[serde(deserialize_with = "Location::deserialize_input")]
    pub uri: Location,
    /// File name extensions treated as videos, without the dot, any case. An image folder needs none. Where an extension has
    /// another meaning too (ts, mts: TypeScript; mod, dat, ogg), the first bytes of the file decide.
    /// Default: `["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "flv", "wmv", "3gp", "ogv",
    /// "gif", "mts", "m2t", "tp", "trp", "mod", "tod", "vob", "vro", "evo", "mpe", "m2p", "m1v", "m2v", "dat", "dv",
    /// "mxf", "gxf", "asf", "dvr-ms", "wtv", "f4v", "qt", "mk3d", "mj2", "ismv", "insv", "360", "3g2", "3gpp", "divx",
    /// "xvid", "ogm", "ogg", "rm", "rmvb", "amv", "dav", "h261", "h263", "h264", "264", "avc", "hevc", "h265", "265",
    /// "obu", "ivf", "mjpg", "mjpeg", "y4m", "nut", "nuv"]`.
    #[serde(default = "default_extensions")]
    #[schemars(length(min = 1))]
    pub extensions: Vec<String>,
    /// Number in the file name of frame 0 of a folder of numbered images. Aff-Wild2 counts from 1.
    /// Default: `1`.
    #[serde(default = "default_image_base")]
    pub image_base: u64,
    /// Frames a second of folders of numbered images, above 0. Default: none; their `timestamp_us` is then null.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub image_fps: Option<f64>,
    /// Pixels of the largest picture that is decoded, as stored, at least 1: a file that declares more fails, a larger picture
    /// in the midst of a video gets a row with status `decode_error`. Default: `100000000`.
    #[serde(default = "default_max_pixels")]
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
    /// Frames of a video file that are taken, at least 1: what comes after them is left out and the video is `partial`.
    /// Default: `10000000`.
    #[serde(default = "default_max_frames")]
    #[schemars(range(min = 1))]
    pub max_frames: u64,
    /// What decodes video files: `cpu`; `nvdec`, NVIDIA's decoder of the worker's GPU, several times as fast as a core of the CPU; or
    /// `auto`, `nvdec` where the machine that starts the run has a GPU with it, else `cpu`, settled when an output is begun and
    /// recorded there. What nvdec cannot decode falls back to the CPU video by video, for a reason that `videos.parquet` names.
    /// It does not detect damage inside a picture's data as reliably as the CPU's decoder does. Default: `"cpu"`.
    #[serde(default)]
    pub decode: Decode,
}

/// What decodes video files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decode {
    /// FFmpeg's own decoders.
    #[default]
    Cpu,
    /// NVIDIA's decoder of the worker's GPU.
    Nvdec,
    /// As the machine has it that starts the run; a record of a run never says so.
    Auto,
}

/// `[sampling]`: which frames get rows.
#[derive(Clone, Debug, PartialEq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// `every`, `stride`, `fps` or `keyframes`. Default: `"every"`.
    pub mode: SamplingMode,
    /// With `mode = "stride"`: frames 0, stride, 2·stride, … are labelled; at least 1. Default: none.
    #[schemars(range(min = 1))]
    pub stride: Option<u64>,
    /// With `mode = "fps"`: the first frame at or after each multiple of 1/fps seconds of presentation time; above 0.
    /// Default: none.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub fps: Option<f64>,
}

/// How frames are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faces {
    /// `detect`; `from_labels`: as an earlier run found them; or `full_frame`: the whole picture is the face, as in footage
    /// that was cropped before. Default: `"detect"`.
    pub mode: FaceMode,
    /// With `mode = "detect"`: weights of CenterFace as safetensors (`affectmill import-weights centerface.onnx` makes
    /// them); a path like `input.uri`. Required then. Default: none.
    #[schemars(with = "Option<String>")]
    pub detector: Option<Location>,
    /// With `mode = "from_labels"`: the finished output of an earlier run over the same videos with the same sampling, whose
    /// boxes, landmarks and tracks are taken over; a path like `input.uri`. Required then. Default: none.
    #[schemars(with = "Option<String>")]
    pub labels: Option<Location>,
    /// How a found face is cut out: `arcface112` (aligned by five landmarks), `square` or `box`. It must be what the models
    /// were trained on, which their weight files say; a model of another recipe states its own `crop`.
    /// Default: `"arcface112"`.
    #[schemars(schema_with = "crops")]
    pub crop: Crop,
    /// Least score of a face, 0 to 1. Default: `0.5`.
    #[schemars(range(min = 0, max = 1))]
    pub min_score: f32,
    /// Least width and height of a face in pixels of the displayed picture. Default: `20`.
    pub min_face: u32,
    /// Faces a frame that are labelled, the largest first; at least 1. Default: none, all are.
    #[schemars(range(min = 1))]
    pub max_faces: Option<u32>,
    /// Pixels of the picture's longer side as the detector sees it, 32 to 4096; a smaller picture stays as it is. Larger finds
    /// smaller faces and takes longer. Default: `640`.
    #[schemars(range(min = 32, max = 4096))]
    pub detect_size: u32,
    /// The detector looks at one frame in so many, and at every frame where faces come, go or move fast; boxes and
    /// landmarks between are carried, their `face_score` is null. 1 looks at every frame; at most 64. Default: `8`.
    #[schemars(range(min = 1, max = 64))]
    pub detect_every: u32,
}

impl Default for Faces {
    fn default() -> Self {
        Self {
            mode: FaceMode::default(),
            detector: None,
            labels: None,
            crop: Crop::default(),
            min_score: 0.5,
            min_face: 20,
            max_faces: None,
            detect_size: 640,
            detect_every: 8,
        }
    }
}

/// How faces are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaceMode {
    /// A detector finds and follows them.
    #[default]
    Detect,
    /// As an earlier run found them: new models over old faces cost no detection.
    FromLabels,
    /// The whole picture is the face: footage that was cropped before.
    FullFrame,
}

/// One `[[models]]` entry.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Prefix of the model's columns; ASCII letters, digits and `_`, starting with a letter; unique in the job, where
    /// upper and lower case count as the same (DuckDB and Spark do not distinguish such columns). Required.
    #[schemars(extend("pattern" = "^[A-Za-z][A-Za-z0-9_]*$"))]
    pub name: String,
    /// `student`, `teacher_va`, `teacher_expr`, `teacher_au`, `mini_xception`, or `torchscript`, a network of your own, whose file
    /// is a program that the workers run. Required.
    #[schemars(schema_with = "model_kinds")]
    pub kind: NetworkKind,
    /// Weights as safetensors (`affectmill import-weights` makes them), or the TorchScript file; a path like `input.uri`.
    /// Required.
    #[schemars(with = "String")]
    pub weights: Location,
    /// With `kind = "torchscript"`: what each number means that the module gives of a face, in order. `valence`, `arousal`,
    /// expressions and action units by the names of their columns, all or none of a task; `va`, `expr` or `au` for all of one in
    /// the order of the columns; `_` for a number that is left out. Required then. Default: `[]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "outputs")]
    pub outputs: Vec<String>,
    /// Weights of further models of the same kind, paths like `input.uri`: every number is then the mean over all of them, and
    /// columns that end in `_sd` have the standard deviation. Default: `[]`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub also: Vec<Location>,
    /// Each face is also seen mirrored, and the numbers are the mean over both, with columns that end in `_sd` as those of
    /// `also`; takes twice as long. Default: `false`.
    #[serde(default)]
    pub flip: bool,
    /// Arithmetic of the convolutions, `fp32`, `bf16` or `fp16`: bf16 is about twice as fast where the device has it, and drifts
    /// from fp32 as jobs/BENCHMARKS.md says; fp16 is for GPUs alone and has three bits of fraction more. Default: `"fp32"`.
    #[serde(default)]
    #[schemars(schema_with = "precisions")]
    pub precision: Precision,
    /// How faces are cut out for this model, where that differs from `faces.crop`. It must be what the model was trained on,
    /// which its weight file says; of a TorchScript file only you can say it, here. Default: none, as `faces.crop`.
    #[serde(default)]
    #[schemars(schema_with = "optional_crops")]
    pub crop: Option<Crop>,
}

impl ModelSpec {
    /// Its weights, and those of further members.
    pub fn all_weights(&self) -> impl Iterator<Item = &Location> {
        std::iter::once(&self.weights).chain(&self.also)
    }

    /// The tasks it predicts, in output order.
    pub fn tasks(&self) -> &'static [Task] {
        self.kind.tasks(&self.outputs)
    }
}

/// `[output]`: where the rows go and what they contain.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// A folder, made when missing; a path like `input.uri`, and another one. It may lie inside the input folder:
    /// nothing in it is treated as a video. Required.
    #[schemars(with = "String")]
    pub uri: Location,
    /// `logits`, `probabilities` (columns end in `_p`) or `both`. Default: `"both"`.
    #[serde(default)]
    pub values: Values,
    /// Frames a shard (one Parquet part) aims at; at least 1. Fixed for videos that are planned already.
    /// Default: `5000`.
    #[serde(default = "default_shard_frames")]
    #[schemars(range(min = 1))]
    pub shard_frames: u64,
    /// `webdataset`: the faces as the models saw them (`faces.crop`, 128×128 pixels) are kept beside the labels, as JPEG in
    /// tar shards `crops/part-<shard>.tar`, one sample a row with its labels as JSON. `none`. Default: `"none"`.
    #[serde(default)]
    pub crops: Crops,
    /// JPEG quality of the crops, 1 to 100. Default: `95`.
    #[serde(default = "default_crop_quality")]
    #[schemars(range(min = 1, max = 100))]
    pub crop_quality: u8,
}

/// How crops are kept for training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crops {
    /// Not at all.
    #[default]
    None,
    /// As tar shards that the Python package webdataset reads.
    Webdataset,
}

/// Which numbers of a head are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Worker processes in all, 1 to 1024, on the GPUs in turn: more than there are GPUs share them, which helps where one decoder
    /// does not keep a GPU busy. Default: none; one per GPU, else one.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// What the models run on: `cuda`, NVIDIA GPUs, and no run without one; `cpu`; or `auto`, GPUs where there are any, else
    /// the CPU. An output that was started on one continues on the other only with `allow_device_change`. Default: `"auto"`.
    pub device: DeviceChoice,
    /// Whether an output may continue on another class of device than it was started on, as `--allow-device-change` says for one
    /// run. Default: `false`.
    pub allow_device_change: bool,
    /// `local`: leases live in the coordinator's memory, and it starts the workers. `nats://host:4222`, or several servers
    /// of one cluster with commas between them (`tls://` where the server wants TLS): NATS JetStream hands out the shards to
    /// `affectmill worker --queue … --job NAME` on any number of hosts. Default: `"local"`.
    pub queue: String,
    /// What the job is called on the NATS servers: letters, digits, `-` and `_`, at most 64. Needed there. Default: none.
    pub name: Option<String>,
    /// Faces a model sees at once, 1 to 1024. Default: `32`.
    #[schemars(range(min = 1, max = 1024))]
    pub batch: usize,
    /// Threads of one worker, 1 to 1024. Default: none; the processors divided by the workers.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Seconds without progress after which a worker counts as hung, is killed, and its video gets a strike; above 0, at
    /// most a week. Default: `120.0`.
    #[schemars(range(max = 604_800), extend("exclusiveMinimum" = 0))]
    pub stall_timeout: f64,
    /// Seconds that one video may keep its worker, from opening it on, after which the worker is killed and the video
    /// struck; above 0, at most a week. Default: `86400.0`.
    #[schemars(range(max = 604_800), extend("exclusiveMinimum" = 0))]
    pub video_timeout: f64,
    /// Seconds in which workers may finish their current shards after SIGTERM; then the shards are returned. 0 to a week. Schedulers
    /// kill 30 seconds after it by default. Default: `25.0`.
    #[schemars(range(min = 0, max = 604_800))]
    pub drain_seconds: f64,
    /// Strikes (crashes or hangs of a worker on the video, or interrupted reads) after which a video is quarantined, 1 to
    /// 1000.
    /// Default: `3`.
    #[schemars(range(min = 1, max = 1000))]
    pub max_strikes: u32,
    /// Frames between checkpoints of a long video: after its worker died, the next one resumes from the last checkpoint. At
    /// least 1. Default: `5000`.
    #[schemars(range(min = 1))]
    pub span_frames: u64,
    /// Folder on a local disk for transfers from and to S3: videos until they are decoded, parts until they are
    /// stored. A path like `input.uri`. Default: none; the system's folder for temporary files.
    pub scratch: Option<PathBuf>,
    /// Bytes of scratch space that one worker fills with videos ahead of the current one, at least 1 MiB; a longer video
    /// is fetched alone. Default: `4294967296`.
    #[schemars(range(min = 1_048_576))]
    pub fetch_bytes: u64,
    /// Seconds that S3, an input on a disk or share that went away, or the queue of a worker on another host, may be unreachable
    /// or fail before the run (or that worker) ends with exit code 4; until then it retries, and no video
    /// gets a strike. 1 to a week.
    /// Default: `1800.0`.
    #[schemars(range(min = 1, max = 604_800))]
    pub outage_timeout: f64,
    /// Address of the status page while the run is on: `/metrics` for Prometheus, `/` for people. Anyone who reaches it can read
    /// names of videos and errors, so prefer an address of this machine only, such as `127.0.0.1:9100`; port 0
    /// selects a free one. Default: none.
    pub metrics: Option<SocketAddr>,
    /// Host names accepted by that address, beside this machine's own name, `localhost` and IP addresses: of a service or a proxy in
    /// front of it. Requests for other names are refused, as protection against DNS rebinding. Default: `[]`.
    pub metrics_hosts: Vec<String>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            workers: None,
            device: DeviceChoice::default(),
            allow_device_change: false,
            queue: LOCAL.into(),
            name: None,
            batch: 32,
            threads: None,
            stall_timeout: 120.0,
            video_timeout: 86_400.0,
            drain_seconds: 25.0,
            max_strikes: 3,
            span_frames: 5_000,
            scratch: None,
            fetch_bytes: 4 << 30,
            outage_timeout: 1800.0,
            metrics: None,
            metrics_hosts: Vec::new(),
        }
    }
}

/// The queue in the coordinator's memory.
const LOCAL: &str = "local";

/// The default of `[input] extensions`: what cameras, phones, discs, recorders and broadcasters write, and streams without a container.
pub const DEFAULT_EXTENSIONS: &str = "
    mp4 m4v mov mkv webm avi mpg mpeg ts m2ts flv wmv 3gp ogv gif mts m2t tp trp mod tod vob vro evo mpe
    m2p m1v m2v dat dv mxf gxf asf dvr-ms wtv f4v qt mk3d mj2 ismv insv 360 3g2 3gpp divx xvid ogm ogg rm
    rmvb amv dav h261 h263 h264 264 avc hevc h265 265 obu ivf mjpg mjpeg y4m nut nuv
";

fn default_extensions() -> Vec<String> {
    DEFAULT_EXTENSIONS.split_whitespace().map(String::from).collect()
}

fn default_image_base() -> u64 {
    1
}

fn default_crop_quality() -> u8 {
    95
}

fn default_max_pixels() -> u64 {
    100_000_000
}

fn default_max_frames() -> u64 {
    10_000_000
}

fn default_shard_frames() -> u64 {
    5_000
}

/// As [`model_kinds`].
pub(super) fn precisions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Precision::ALL.map(Precision::name), "default": "fp32" })
}

/// As [`model_kinds`].
pub(super) fn crops(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Crop::ALL.map(Crop::name), "default": "arcface112" })
}

/// As [`model_kinds`].
pub(super) fn optional_crops(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": Crop::ALL.map(Crop::name), "default": null })
}

/// `base` does not depend on schemars for these, so the kinds are listed here by name.
pub(super) fn model_kinds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": NetworkKind::names().collect::<Vec<_>>() })
}

/// As [`model_kinds`].
pub(super) fn outputs(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = NamedOutputs::names().collect();
    json_schema!({ "type": "array", "items": { "type": "string", "enum": names }, "default": [] })
}
