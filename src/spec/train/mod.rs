//! The train job file: TOML in, a validated [`TrainJob`] out; read, overridden and checked as a job of `run` is.
//!
//! The published hyper-parameters (arXiv 2107.03670) are the defaults; those that differ between teacher and student come
//! from [`TrainJob::optimiser`] and [`TrainJob::epoch_share`].

mod read;

pub use read::load_train;

use super::job::optional_crops;
use affectmill_base::{Crop, ModelKind, Precision, Task};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A train job: what to learn, from which crops and labels, and where the weights go.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainJob {
    /// What is trained, and how long. Required.
    pub train: Train,
    /// The faces and their labels. Required.
    pub data: Data,
    /// Which videos are held out.
    #[serde(default)]
    pub validation: Validation,
    /// What the weights are before the first step.
    #[serde(default)]
    pub start: Start,
    /// How weights are changed.
    #[serde(default)]
    pub optimiser: OptimiserSettings,
    /// What is made of teachers' labels.
    #[serde(default)]
    pub distill: Distill,
    /// Where weights, checkpoints and curves go. Required.
    pub output: TrainOutput,
    /// How the training is carried out; nothing here changes a weight.
    #[serde(default)]
    pub run: TrainRun,
}

/// `[train]`: what is trained, and how long.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// `teacher`: one task; `student`: all three, by one network. Required.
    pub recipe: Recipe,
    /// With `recipe = "teacher"`: `va`, `expr` or `au`. Required then. Default: none.
    #[serde(default)]
    #[schemars(schema_with = "tasks")]
    pub task: Option<Task>,
    /// Passes over the training videos' faces (with `epoch_share`, parts of passes); 1 to 1000000. Default: `20`.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: u64,
    /// Share of the batches of each epoch that is used, above 0, at most 1. Default: none; 0.25 for a teacher, 1 for a student.
    #[serde(default)]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub epoch_share: Option<f64>,
    /// Faces of one step, 1 to 65536. Default: `128`.
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch: usize,
    /// Parts in which a batch goes through the network, where memory is short; their gradients are added up. 1 to 1024.
    /// Default: `1`.
    #[serde(default = "default_accumulate")]
    #[schemars(range(min = 1, max = 1024))]
    pub accumulate: usize,
    /// Layers of the body that are trained, from the top: 3 are layer4, layer3 and layer2, and the stem and layer1 stay as they
    /// are; 5 are all, 0 is none. Batch norm is frozen throughout. Default: `3`.
    #[serde(default = "default_trainable_layers")]
    #[schemars(range(max = 5))]
    pub trainable_layers: usize,
    /// Arithmetic of the convolutions, `fp32` or `bf16`; weights, sums, losses and moments are fp32 in both. Default: `"fp32"`.
    #[serde(default)]
    #[schemars(schema_with = "trained_in")]
    pub precision: Precision,
    /// Share of the faces that are mirrored, 0 to 1; no label has a side. Default: `0.5`.
    #[serde(default = "default_flip")]
    #[schemars(range(min = 0, max = 1))]
    pub flip: f64,
    /// Seed of the order of the faces, of mirroring, and of weights that start untrained. Default: `1`.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Epochs without a better score after which training ends; at least 1. Default: none, all epochs are made.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub patience: Option<u64>,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// One task.
    Teacher,
    /// All three tasks.
    Student,
}

/// `[data]`: the faces and their labels.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Crops that `affectmill run` kept (`[output] crops = "webdataset"`): a folder of tar files, or one. Relative to the job
    /// file; given by `--set`, to the current directory. Default: none.
    #[serde(default)]
    pub crops: Option<PathBuf>,
    /// A folder of folders of numbered images, one a video, as Aff-Wild2's `cropped_aligned`; image 00001 is frame 0. A path like
    /// `crops`. Default: none.
    #[serde(default)]
    pub images: Option<PathBuf>,
    /// How the faces in `images` were cropped; Aff-Wild2's `cropped_aligned` is `arcface112`. The weights state it, and a job that
    /// crops otherwise is refused. Default: none; the weights state no crop.
    #[serde(default)]
    #[schemars(schema_with = "optional_crops")]
    pub image_crop: Option<Crop>,
    /// Labels by people: a folder with files in ABAW's format at any depth, `<video>.txt` or those of the multi-task challenges,
    /// distinguished by their first line. Those of a test set are skipped. A path like `crops`. Default: none.
    #[serde(default)]
    pub annotations: Option<PathBuf>,
    /// Name of the model whose valence and arousal in the crops' JSON are used as labels. Default: none.
    #[serde(default)]
    pub va_teacher: Option<String>,
    /// Name of the model whose expressions in the crops' JSON are used as labels. Default: none.
    #[serde(default)]
    pub expr_teacher: Option<String>,
    /// Name of the model whose action units in the crops' JSON are used as labels. Default: none.
    #[serde(default)]
    pub au_teacher: Option<String>,
}

/// `[validation]`: which videos are held out. A video is held out whole, with all recordings of it (`a.mp4` and `a.webm`,
/// `a_left` and `a_right`): neighbouring frames are alike, and a split by frame would measure memory.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validation {
    /// `share`: about `share` of the videos, by a hash of their names; `videos`: those listed; `annotations`: those whose
    /// annotations belong to the validation set, as the nearest folder (`Validation_Set`) or the name of a file of many videos
    /// (`validation_set_annotations.txt`) says. Default: `"share"`.
    pub by: SplitBy,
    /// With `by = "share"`: that share of the videos, above 0, below 1; at least one video. Default: `0.2`.
    #[schemars(range(max = 0.9), extend("exclusiveMinimum" = 0))]
    pub share: f64,
    /// With `by = "videos"`: their names, with or without ending. Default: `[]`.
    pub videos: Vec<String>,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            by: SplitBy::Share,
            share: 0.2,
            videos: Vec::new(),
        }
    }
}

/// How held-out videos are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// A share of them, by a hash of their names.
    Share,
    /// Those that are listed.
    Videos,
    /// As the sets of the annotations say.
    Annotations,
}

/// `[start]`: what the weights are before the first step. With neither key they are untrained, from `train.seed`.
#[derive(Clone, Debug, PartialEq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Start {
    /// A ResNet-50, such as torchvision's `resnet50-….pth` of ImageNet: the body begins as it, pyramid and heads untrained. A path
    /// like `data.crops`. Default: none.
    pub body: Option<PathBuf>,
    /// Weights of the same kind as safetensors: everything begins as it. A path like `data.crops`. Default: none.
    pub weights: Option<PathBuf>,
}

/// `[optimiser]`: how weights are changed.
#[derive(Clone, Debug, PartialEq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserSettings {
    /// `sgd` or `adam`. Default: none; `sgd` for a teacher, `adam` for a student.
    #[schemars(schema_with = "optimisers")]
    pub name: Option<OptimiserKind>,
    /// Learning rate, above 0. Default: none; 0.0003 with `sgd`, 0.001 with `adam`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: Option<f64>,
    /// With `sgd`: momentum, 0 to below 1. Default: none, 0.9.
    #[schemars(range(min = 0, max = 0.999_999))]
    pub momentum: Option<f64>,
    /// Weight decay, at least 0. Default: none; 0.0001 with `sgd`, 0 with `adam`.
    #[schemars(range(min = 0))]
    pub weight_decay: Option<f64>,
    /// With `adam`: decay of the first moment, 0 to below 1. Default: none, 0.9.
    #[schemars(range(min = 0, max = 0.999_999))]
    pub beta1: Option<f64>,
    /// With `adam`: decay of the second moment, 0 to below 1. Default: none, 0.999.
    #[schemars(range(min = 0, max = 0.999_999))]
    pub beta2: Option<f64>,
}

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam.
    Adam,
}

/// The optimiser with every number filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimiser {
    /// The update rule.
    pub name: OptimiserKind,
    /// Learning rate.
    pub lr: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Decay of the weights, added to the gradient (L2).
    pub weight_decay: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
}

/// `[distill]`: what is made of teachers' labels.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distill {
    /// `soft`: the student is to say what the teachers say, with their doubts; `hard`: the class, the active units and the
    /// clipped values that they come to, as the paper's released code does. Default: `"soft"`.
    pub targets: Targets,
    /// With `targets = "soft"`: temperature of the expressions' softmaxes, above 0. Default: `2.0`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// Weight of a person's label where there is a teacher's too, 0 to 1; the teacher's has the rest. 1: people override
    /// teachers, as in the paper. Default: `1.0`.
    #[schemars(range(min = 0, max = 1))]
    pub human_weight: f64,
}

impl Default for Distill {
    fn default() -> Self {
        Self {
            targets: Targets::Soft,
            temperature: 2.0,
            human_weight: 1.0,
        }
    }
}

/// What teachers' labels are to the student.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// Probabilities.
    Soft,
    /// Decisions.
    Hard,
}

/// `[output]`: where weights, checkpoints and curves go.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOutput {
    /// A folder, made when missing; a path like `data.crops`. Required.
    pub path: PathBuf,
    /// Epochs whose weights are kept, those of the best scores; at least 1. Default: `1`.
    #[serde(default = "default_keep")]
    #[schemars(range(min = 1))]
    pub keep: usize,
}

/// `[run]`: how the training is carried out; nothing here changes a weight, save that another device or number of threads
/// rounds otherwise.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainRun {
    /// `cpu`, `cuda` or `cuda:1`. Default: none; the first GPU, else the CPU.
    pub device: Option<String>,
    /// Threads of libtorch on the CPU, 1 to 1024. Default: none, one for each processor.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Threads that decode crops ahead, 1 to 256. Default: `2`.
    #[schemars(range(min = 1, max = 256))]
    pub loaders: usize,
    /// Steps between checkpoints, at least 1; the end of an epoch and a stop write one too. Default: `200`.
    #[schemars(range(min = 1))]
    pub checkpoint_steps: u64,
}

impl Default for TrainRun {
    fn default() -> Self {
        Self {
            device: None,
            threads: None,
            loaders: 2,
            checkpoint_steps: 200,
        }
    }
}

impl TrainJob {
    /// What is trained.
    pub fn kind(&self) -> ModelKind {
        match (self.train.recipe, self.train.task) {
            (Recipe::Teacher, Some(Task::Va)) => ModelKind::TeacherVa,
            (Recipe::Teacher, Some(Task::Expr)) => ModelKind::TeacherExpr,
            (Recipe::Teacher, Some(Task::Au)) => ModelKind::TeacherAu,
            (Recipe::Student, _) | (Recipe::Teacher, None) => ModelKind::Student,
        }
    }

    /// The optimiser, with the recipe's published defaults.
    pub fn optimiser(&self) -> Optimiser {
        let settings = &self.optimiser;
        let name = settings.name.unwrap_or(match self.train.recipe {
            Recipe::Teacher => OptimiserKind::Sgd,
            Recipe::Student => OptimiserKind::Adam,
        });
        let (lr, weight_decay) = match name {
            OptimiserKind::Sgd => (3e-4, 1e-4),
            OptimiserKind::Adam => (1e-3, 0.0),
        };
        Optimiser {
            name,
            lr: settings.lr.unwrap_or(lr),
            momentum: settings.momentum.unwrap_or(0.9),
            weight_decay: settings.weight_decay.unwrap_or(weight_decay),
            beta1: settings.beta1.unwrap_or(0.9),
            beta2: settings.beta2.unwrap_or(0.999),
        }
    }

    /// The share of batches used per epoch.
    pub fn epoch_share(&self) -> f64 {
        self.train.epoch_share.unwrap_or(match self.train.recipe {
            Recipe::Teacher => 0.25,
            Recipe::Student => 1.0,
        })
    }

    /// The model whose labels are used for a task.
    pub fn teacher(&self, task: Task) -> Option<&str> {
        match task {
            Task::Va => self.data.va_teacher.as_deref(),
            Task::Expr => self.data.expr_teacher.as_deref(),
            Task::Au => self.data.au_teacher.as_deref(),
        }
    }
}

/// The JSON Schema (2020-12) of the train job file, with explanations and defaults.
pub fn train_schema() -> serde_json::Value {
    schemars::schema_for!(TrainJob).to_value()
}

fn task_name(task: Task) -> &'static str {
    match task {
        Task::Va => "va",
        Task::Expr => "expr",
        Task::Au => "au",
    }
}

/// `base` does not depend on schemars for these, so the tasks are listed here by name.
fn tasks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": Task::ALL.map(task_name), "default": null })
}

/// Precisions for training: gradients underflow in fp16.
fn trained_in(_: &mut SchemaGenerator) -> Schema {
    let precisions = [Precision::Fp32, Precision::Bf16].map(Precision::name);
    json_schema!({ "type": "string", "enum": precisions, "default": "fp32" })
}

fn optimisers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": ["sgd", "adam"], "default": null })
}

fn default_epochs() -> u64 {
    20
}

fn default_batch() -> usize {
    128
}

fn default_accumulate() -> usize {
    1
}

fn default_trainable_layers() -> usize {
    3
}

fn default_flip() -> f64 {
    0.5
}

fn default_seed() -> u64 {
    1
}

fn default_keep() -> usize {
    1
}
