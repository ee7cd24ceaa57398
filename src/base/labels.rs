//! Names and order of the models' outputs.

use serde::{Deserialize, Serialize};

/// Order of the valence–arousal head; both raw, nominally in [−1, 1].
pub const VALENCE_AROUSAL: [&str; 2] = ["valence", "arousal"];

/// Order of the expression head: the 7 classes of Aff-Wild2 (ABAW2).
pub const EXPRESSIONS: [&str; 7] = [
    "Neutral",
    "Anger",
    "Disgust",
    "Fear",
    "Happiness",
    "Sadness",
    "Surprise",
];

/// Order of the action-unit head: the 12 action units of Aff-Wild2 (ABAW2).
pub const ACTION_UNITS: [&str; 12] = [
    "AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26",
];

/// One of the paper's three tasks. The order of the variants is the order of the student's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Valence and arousal: 2 regression outputs.
    Va,
    /// Expression: 7 logits.
    Expr,
    /// Action units: 12 independent logits.
    Au,
}

impl Task {
    /// Every task, in output order.
    pub const ALL: [Task; 3] = [Task::Va, Task::Expr, Task::Au];

    /// Names of the outputs, in order.
    pub fn outputs(self) -> &'static [&'static str] {
        match self {
            Task::Va => &VALENCE_AROUSAL,
            Task::Expr => &EXPRESSIONS,
            Task::Au => &ACTION_UNITS,
        }
    }

    /// The name used in job files, for all of its outputs.
    pub fn name(self) -> &'static str {
        match self {
            Task::Va => "va",
            Task::Expr => "expr",
            Task::Au => "au",
        }
    }
}

/// Kind of a model: the multi-task student, a teacher of one task, or a small published network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// ResNet-50 feature pyramid with all three heads: 21 outputs.
    Student,
    /// The same with the valence–arousal head only.
    TeacherVa,
    /// The same with the expression head only.
    TeacherExpr,
    /// The same with the action-unit head only.
    TeacherAu,
    /// mini-Xception, a small network of expressions with published weights.
    MiniXception,
}

impl ModelKind {
    /// Every kind.
    pub const ALL: [ModelKind; 5] = [
        ModelKind::Student,
        ModelKind::TeacherVa,
        ModelKind::TeacherExpr,
        ModelKind::TeacherAu,
        ModelKind::MiniXception,
    ];

    /// The tasks this kind predicts, in output order.
    pub fn tasks(self) -> &'static [Task] {
        match self {
            ModelKind::Student => &Task::ALL,
            ModelKind::TeacherVa => &[Task::Va],
            ModelKind::TeacherExpr | ModelKind::MiniXception => &[Task::Expr],
            ModelKind::TeacherAu => &[Task::Au],
        }
    }

    /// Number of outputs of one face.
    pub fn output_count(self) -> usize {
        self.tasks().iter().map(|task| task.outputs().len()).sum()
    }

    /// The name used in job files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Student => "student",
            ModelKind::TeacherVa => "teacher_va",
            ModelKind::TeacherExpr => "teacher_expr",
            ModelKind::TeacherAu => "teacher_au",
            ModelKind::MiniXception => "mini_xception",
        }
    }
}

/// The arithmetic of a model's convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// bfloat16: 8 bits of fraction, the range of fp32; sums and heads stay fp32.
    Bf16,
    /// IEEE half precision: 11 bits of fraction, up to 65504; sums and heads stay fp32. Only on GPUs, not for training.
    Fp16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 3] = [Precision::Fp32, Precision::Bf16, Precision::Fp16];

    /// The name used in job files.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "fp16",
        }
    }
}

/// How a face is cropped from a picture before it is resized to a model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// Aligned by five landmarks, like Aff-Wild2's `cropped_aligned` and ArcFace's crops.
    #[default]
    Arcface112,
    /// The smallest square around the centre of the box.
    Square,
    /// The box, stretched.
    Box,
}

impl Crop {
    /// Every recipe.
    pub const ALL: [Crop; 3] = [Crop::Arcface112, Crop::Square, Crop::Box];

    /// The name used in job files and weight files.
    pub fn name(self) -> &'static str {
        match self {
            Crop::Arcface112 => "arcface112",
            Crop::Square => "square",
            Crop::Box => "box",
        }
    }
}

/// Outcome of one sampled frame; the `status` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStatus {
    /// A face was labelled.
    Ok,
    /// The frame was decoded and has no face.
    NoFace,
    /// The frame exists but could not be decoded whole; nothing was substituted.
    DecodeError,
    /// A face was detected, but a model returned NaN or an infinity for it; the columns of that model are null.
    NotFinite,
}

impl RowStatus {
    /// Every status, in the order of the enum: a status is its own index.
    pub const ALL: [RowStatus; 4] = [
        RowStatus::Ok,
        RowStatus::NoFace,
        RowStatus::DecodeError,
        RowStatus::NotFinite,
    ];

    /// Whether a row with this status describes a face.
    pub fn has_face(self) -> bool {
        matches!(self, RowStatus::Ok | RowStatus::NotFinite)
    }

    /// The text stored in the `status` column.
    pub fn as_str(self) -> &'static str {
        match self {
            RowStatus::Ok => "ok",
            RowStatus::NoFace => "no_face",
            RowStatus::DecodeError => "decode_error",
            RowStatus::NotFinite => "not_finite",
        }
    }
}
