//! The columns of a label set, as Arrow schemas, and the key-value metadata of a part.
//!
//! Flows in: the models of a job and `[output] values`. Flows out: the schema that the row writer fills and readers
//! see. What a column means stands in `reference.rs`. Nothing in here may depend on when or where it runs:
//! parts are compared byte for byte.

use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Fingerprint, Task};
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use std::sync::Arc;

/// Version of the columns and their meaning; part of the fingerprint's identity and of every part's metadata.
pub const SCHEMA_VERSION: u32 = 1;
/// Written as `created_by`; fixed, since a part's bytes must not change with the affectmill version.
pub const CREATED_BY: &str = "affectmill version 1.0.0 (build labels)";

/// Metadata key of [`SCHEMA_VERSION`].
pub const META_SCHEMA_VERSION: &str = "affectmill.schema_version";
/// Metadata key of the fingerprint, hex.
pub const META_FINGERPRINT: &str = "affectmill.fingerprint";
/// Metadata key of `[output] values`.
pub const META_VALUES: &str = "affectmill.values";
/// Metadata key of the models: a JSON array of [`ModelRecord`]s in job order.
pub const META_MODELS: &str = "affectmill.models";
/// Metadata key of the class order: a JSON array.
pub const META_EXPRESSIONS: &str = "affectmill.expressions";
/// Metadata key of the action unit order: a JSON array.
pub const META_ACTION_UNITS: &str = "affectmill.action_units";
/// Metadata key of the recipes by which faces were cropped that came as crops: a JSON array; absent where none did.
pub const META_CROPPED_BY: &str = "affectmill.cropped_by";

/// Columns of every label set, before those of its models.
pub const FIXED_COLUMNS: usize = 12;

/// Names of columns.
pub mod column {
    use affectmill_base::Task;

    /// Key of the video.
    pub const VIDEO: &str = "video";
    /// Index of the frame.
    pub const FRAME: &str = "frame";
    /// Presentation time in microseconds.
    pub const TIMESTAMP: &str = "timestamp_us";
    /// [`RowStatus`](affectmill_base::RowStatus).
    pub const STATUS: &str = "status";
    /// Index of the face within the frame.
    pub const FACE: &str = "face";
    /// Track of the face.
    pub const TRACK: &str = "track";
    /// Box of the face: left, top, width, height, in pixels.
    pub const BOX: [&str; 4] = ["box_x", "box_y", "box_w", "box_h"];
    /// Confidence of the detector.
    pub const FACE_SCORE: &str = "face_score";
    /// Five points of the face.
    pub const LANDMARKS: &str = "landmarks";

    /// The columns of every label set, in order.
    pub const FIXED: [&str; super::FIXED_COLUMNS] = [
        VIDEO, FRAME, TIMESTAMP, STATUS, FACE, TRACK, BOX[0], BOX[1], BOX[2], BOX[3], FACE_SCORE, LANDMARKS,
    ];

    /// The column of a model's most likely expression.
    pub fn expression(model: &str) -> String {
        format!("{model}_expression")
    }

    /// The column of an output of a task as the network gives it: raw valence and arousal, or a logit.
    pub fn raw(model: &str, task: Task, output: &str) -> String {
        match task {
            Task::Expr => format!("{model}_expr_{output}"),
            Task::Va | Task::Au => format!("{model}_{output}"),
        }
    }

    /// The column of the probability of an expression or of an action unit; of valence and arousal, which have none, the raw one.
    pub fn probability(model: &str, task: Task, output: &str) -> String {
        let raw = raw(model, task, output);
        match task {
            Task::Va => raw,
            Task::Expr | Task::Au => raw + "_p",
        }
    }

    /// The column of the standard deviation of an output over the members of an ensemble.
    pub fn deviation(model: &str, task: Task, output: &str) -> String {
        raw(model, task, output) + "_sd"
    }
}

/// The columns of the rows under `labels/`.
#[derive(Clone, Debug)]
pub struct LabelSchema {
    arrow: SchemaRef,
    models: Vec<ModelRecord>,
    values: Values,
    fingerprint: Fingerprint,
    metadata: Vec<(String, String)>,
}

impl LabelSchema {
    /// The schema of a job's labels. Model names are unique, as the job file's check holds.
    pub fn new(models: &[ModelRecord], values: Values, fingerprint: &Fingerprint) -> Self {
        let mut fields = vec![
            Field::new(column::VIDEO, dictionary(), false),
            Field::new(column::FRAME, DataType::Int64, false),
            Field::new(column::TIMESTAMP, DataType::Int64, true),
            Field::new(column::STATUS, dictionary(), false),
            Field::new(column::FACE, DataType::Int32, true),
            Field::new(column::TRACK, DataType::Int32, true),
        ];
        fields.extend(column::BOX.map(float));
        fields.push(float(column::FACE_SCORE));
        fields.push(Field::new(column::LANDMARKS, landmarks(), true));
        for model in models {
            fields.extend(model_fields(model, values));
        }
        Self {
            arrow: Arc::new(Schema::new(fields)),
            models: models.to_vec(),
            values,
            fingerprint: fingerprint.clone(),
            metadata: metadata(models, values, fingerprint),
        }
    }

    /// The Arrow schema. Per model: `<m>_valence`, `<m>_arousal`; `<m>_expression`, logits `<m>_expr_<Class>`,
    /// probabilities `<m>_expr_<Class>_p`; logits `<m>_<AU>`, probabilities `<m>_<AU>_p`. Of an ensemble, behind each task, the
    /// standard deviations of its outputs: `<m>_valence_sd`, `<m>_expr_<Class>_sd`, `<m>_<AU>_sd`.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The columns of the models, behind the first [`FIXED_COLUMNS`].
    pub fn of_models(&self) -> &[FieldRef] {
        &self.arrow.fields()[FIXED_COLUMNS..]
    }

    /// The fingerprint the rows are labelled under.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The models, in job order.
    pub fn models(&self) -> &[ModelRecord] {
        &self.models
    }

    /// Whether logits are stored.
    pub fn has_logits(&self) -> bool {
        self.values != Values::Probabilities
    }

    /// Whether probabilities are stored.
    pub fn has_probabilities(&self) -> bool {
        self.values != Values::Logits
    }

    /// The key-value metadata of a part, in the order it is written.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }
}

/// The columns of `videos.parquet`: one row per video, sorted by `video`. `seconds` is worker time spent on it; `shard`
/// names its part `labels/part-<shard>.parquet`; `duration_us` is null when unknown; `error`, `error_class`
/// ([`ErrorClass`](affectmill_base::ErrorClass)) and `error_frame` when there is none; `attempt` counts `affectmill retry`s;
/// `decode_fallback` says why a video was decoded on the CPU though the job decodes on GPUs, and is null otherwise; `lost` counts
/// frames without a picture; `transfer` is the pictures' transfer characteristics by ffprobe's name, and `tone_mapping` how HDR
/// was brought to SDR. The last three are null of videos that were labelled before they were kept. `device` says what a video was
/// labelled on ([`ShardDevice`](super::ShardDevice)), and is null where that is not known; `not_finite` counts the faces for which
/// a model gave NaN or an infinity.
pub fn videos_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("video", DataType::Utf8, false),
        Field::new("status", dictionary(), false),
        Field::new("frames", DataType::Int64, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("faces", DataType::Int64, false),
        Field::new("seconds", DataType::Float64, false),
        Field::new("error", DataType::Utf8, true),
        Field::new("error_class", dictionary(), true),
        Field::new("error_frame", DataType::Int64, true),
        Field::new("attempt", DataType::Int32, false),
        Field::new("shard", DataType::Utf8, false),
        Field::new("bytes", DataType::Int64, false),
        Field::new("duration_us", DataType::Int64, true),
        Field::new("decode_fallback", DataType::Utf8, true),
        Field::new("lost", DataType::Int64, true),
        Field::new("transfer", DataType::Utf8, true),
        Field::new("tone_mapping", DataType::Utf8, true),
        Field::new("device", dictionary(), true),
        Field::new("not_finite", DataType::Int64, false),
    ]))
}

/// The items of `landmarks`: `x, y` of five points.
pub fn landmark_item() -> Field {
    // `element` is the name the Parquet specification gives it.
    Field::new("element", DataType::Float32, true)
}

fn landmarks() -> DataType {
    DataType::FixedSizeList(Arc::new(landmark_item()), 10)
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn float(name: impl Into<String>) -> Field {
    Field::new(name, DataType::Float32, true)
}

fn model_fields(model: &ModelRecord, values: Values) -> Vec<Field> {
    let name = &model.name;
    let mut fields = Vec::new();
    for &task in model.tasks() {
        let outputs = task.outputs().iter();
        if task == Task::Expr {
            fields.push(Field::new(column::expression(name), dictionary(), true));
        }
        if task == Task::Va || values != Values::Probabilities {
            fields.extend(
                outputs
                    .clone()
                    .map(|output| float(column::raw(name, task, output))),
            );
        }
        if task != Task::Va && values != Values::Logits {
            fields.extend(
                outputs
                    .clone()
                    .map(|output| float(column::probability(name, task, output))),
            );
        }
        if model.is_ensemble() {
            fields.extend(outputs.map(|output| float(column::deviation(name, task, output))));
        }
    }
    fields
}

fn metadata(models: &[ModelRecord], values: Values, fingerprint: &Fingerprint) -> Vec<(String, String)> {
    let json = |value: serde_json::Result<String>| value.expect("records of plain text become JSON");
    let values = match values {
        Values::Logits => "logits",
        Values::Probabilities => "probabilities",
        Values::Both => "both",
    };
    [
        (META_SCHEMA_VERSION, SCHEMA_VERSION.to_string()),
        (META_FINGERPRINT, fingerprint.to_string()),
        (META_VALUES, values.to_string()),
        (META_MODELS, json(serde_json::to_string(models))),
        (META_EXPRESSIONS, json(serde_json::to_string(&EXPRESSIONS))),
        (META_ACTION_UNITS, json(serde_json::to_string(&ACTION_UNITS))),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .to_vec()
}
