//! `schemas/README.md`: every file, column and key of a label set, generated from the schemas that write them.
//!
//! Names and types come from the code; the meanings below are looked up by name, and a test fails for a name without one.

use crate::paths;
use crate::schema::{
    FIXED_COLUMNS, LabelSchema, META_ACTION_UNITS, META_CROPPED_BY, META_EXPRESSIONS, META_FINGERPRINT,
    META_MODELS, META_SCHEMA_VERSION, META_VALUES, videos_schema,
};
use crate::schemas::schemas;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Fingerprint, ModelKind, NetworkKind, Precision, ShardId};
use affectmill_spec::{ModelRecord, Values};
use arrow::datatypes::{DataType, FieldRef};
use serde_json::Value;
use std::fmt::Write;

/// Columns of `labels/`; `<model>` is the model's name in the job.
const ROWS: [(&str, &str); 23] = [
    ("video", "path relative to the input folder"),
    (
        "frame",
        "presentation index in the decoded stream, from 0; of images, the number in the name minus `image_base`",
    ),
    (
        "timestamp_us",
        "presentation time in µs after the container's start time, as players count (ffprobe's `best_effort_timestamp` minus `start_time`); never frame ÷ fps; null where a frame has no time",
    ),
    (
        "status",
        "`ok`; `no_face` and `decode_error`: a frame without a label still has its row; `not_finite`: a model gave NaN or an infinity for the face, and that model's columns are null",
    ),
    ("face", "index within the frame, largest first"),
    (
        "track",
        "identity within the video while a face is followed (null in `full_frame`)",
    ),
    (
        "box_x",
        "left edge of the face in pixels of the displayed frame, rotation applied",
    ),
    ("box_y", "top edge"),
    ("box_w", "width; the box is half-open"),
    ("box_h", "height"),
    (
        "face_score",
        "the detector's confidence, 0 to 1 (null in `full_frame`, and where a box was interpolated between two detections)",
    ),
    (
        "landmarks",
        "x and y of 5 points, the eye on the image's left first (null in `full_frame`)",
    ),
    ("<model>_valence", "raw and unclipped; trained for −1 to 1"),
    ("<model>_arousal", "raw and unclipped; trained for −1 to 1"),
    ("<model>_expression", "the expression with the largest logit"),
    ("<model>_expr_<Class>", "logits"),
    (
        "<model>_expr_<Class>_p",
        "probabilities: softmax of the logits, temperature 1",
    ),
    ("<model>_<AU>", "logits"),
    ("<model>_<AU>_p", "probabilities: the sigmoid of each logit"),
    (
        "<model>_valence_sd",
        "of an ensemble: standard deviation over its views of a face, population form",
    ),
    ("<model>_arousal_sd", "of an ensemble: the same"),
    (
        "<model>_expr_<Class>_sd",
        "of an ensemble: standard deviation of the logit over its views",
    ),
    (
        "<model>_<AU>_sd",
        "of an ensemble: standard deviation of the logit over its views",
    ),
];

/// Columns of `videos.parquet`.
const VIDEOS: [(&str, &str); 19] = [
    ("video", "as in `labels/`"),
    (
        "status",
        "`ok`; `partial`: the good frames have labels, the others a row that says why not; `failed` and `quarantined`: no row",
    ),
    ("frames", "frames of it that were decoded"),
    ("rows", "rows of it in `labels/`"),
    ("faces", "rows of it with a face"),
    ("seconds", "worker time spent on it"),
    ("error", "what was wrong, in words"),
    (
        "error_class",
        "`corrupt`, `unsupported`, `timeout`, `crash`, `io`, `changed` or `not_finite`",
    ),
    (
        "error_frame",
        "the first damaged frame, or the last one that was reached",
    ),
    (
        "attempt",
        "how often it was planned before: one more for each `affectmill retry` of it, or of another video of its part, whose rows were then moved",
    ),
    ("shard", "its part is `labels/part-<shard>.parquet`"),
    ("bytes", "size of the file when it was planned"),
    ("duration_us", "duration by its header; null when unknown"),
    (
        "decode_fallback",
        "why it was decoded on the CPU although the job decodes on GPUs; else null",
    ),
    (
        "lost",
        "frames that have no picture; null where an earlier version labelled it",
    ),
    (
        "transfer",
        "transfer characteristics of its pictures by ffprobe's name; null where an earlier version labelled it",
    ),
    (
        "tone_mapping",
        "how HDR was brought to SDR; null for SDR, and for HDR that an earlier version labelled",
    ),
    ("device", "what it was labelled on; null where that is not known"),
    ("not_finite", "faces for which a model gave NaN or an infinity"),
];

/// Key-value metadata of a part.
const METADATA: [(&str, &str); 7] = [
    (META_SCHEMA_VERSION, "version of the columns and their meaning"),
    (
        META_FINGERPRINT,
        "hash of everything that can change a label, hex",
    ),
    (META_VALUES, "`[output] values`"),
    (
        META_MODELS,
        "JSON array: name, kind, checksum, architecture, preprocessing and precision of each model, in job order",
    ),
    (META_EXPRESSIONS, "JSON array: the order of the classes"),
    (META_ACTION_UNITS, "JSON array: the order of the action units"),
    (
        META_CROPPED_BY,
        "JSON array: recipes by which faces were cropped that came as crops; absent where none did",
    ),
];

const INTRODUCTION: &str = "\
# The files of a label set

Generated by `affectmill schema -o schemas` from the code that writes them; a test fails when this page or a schema is stale. The
JSON Schemas beside it describe job files and every JSON record. Persisted formats carry a version, and a reader refuses a version that it
does not know. [`jobs/readers/`](../jobs/readers/) has programs that read the tables with Polars, DuckDB, PyArrow, Spark, datasets
and webdataset. Names that begin with `_` are ignored by Spark and Polars alike.
";

const CROPS: &str = "
With `[output] crops = \"webdataset\"` there is one sample for each row with a face: `<video>/<frame>-<face>.jpg` (128×128 pixels, as the models
saw the face) and `.json`, which has the columns of the row by name (except `status`), the crop recipe and the fingerprint.
";

/// The text of `schemas/README.md`.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    files(&mut page);
    page.push_str("\n## Columns of `labels/part-<shard>.parquet`\n\nOne row for each sampled frame and face, sorted by video, frame and face within a part. Floats are encoded as BYTE_STREAM_SPLIT, \
         which Spark's vectorised reader does not know and its row reader does ([`read_spark.py`](../jobs/readers/read_spark.py)).\n\n");
    columns(&mut page, &label_columns(), &ROWS);
    let classes = EXPRESSIONS.map(|name| format!("`{name}`")).join(" ");
    let units = ACTION_UNITS.map(|name| format!("`{name}`")).join(" ");
    let _ = writeln!(
        page,
        "\n`<model>` is the model's name in the job. `<Class>`: {classes}. `<AU>`: {units}. A model has the columns of its tasks only: a \
         `student` all of them, a `teacher_va` valence and arousal. `[output] values` chooses logits, probabilities or both; `_sd` columns are those of an \
         [ensemble](../jobs/README.md#ensembles). Each part's key-value metadata:\n"
    );
    table(
        &mut page,
        &["key", "meaning"],
        METADATA
            .iter()
            .map(|(key, meaning)| [code(key), (*meaning).into()]),
    );
    page.push_str("\n## Columns of `videos.parquet`\n\nOne row for each video, sorted by video; written when a run finishes.\n\n");
    let videos = videos_schema();
    let videos: Vec<_> = videos
        .fields()
        .iter()
        .map(|field| (field.name().clone(), field.clone(), 1))
        .collect();
    columns(&mut page, &videos, &VIDEOS);
    page.push_str("\n## Crops\n");
    page.push_str(CROPS);
    page.push_str("\n## JSON records\n");
    for (name, schema) in schemas() {
        record(&mut page, name, &schema);
    }
    page
}

fn files(page: &mut String) {
    let shard: ShardId = SHARD
        .to_owned()
        .try_into()
        .expect("sixteen hex digits are a shard's id");
    let named = |key: String| code(&key.replace(SHARD, "<shard>"));
    let files = [
        (named(paths::part(&shard)), "the rows; create-only"),
        (
            named(paths::crops(&shard)),
            "the cropped faces, where the job asks for them; create-only",
        ),
        (
            code(paths::VIDEOS),
            "one row for each video; written when a run finishes, removed while a run adds rows",
        ),
        (
            code(paths::SUCCESS),
            "empty; written last, removed while a run adds rows",
        ),
        (
            code(paths::JOB),
            "the resolved job and its fingerprint; create-only: another job is refused here",
        ),
        (
            code(&paths::plan(1)),
            "shards of videos that no earlier plan covers, or that are tried again; create-only",
        ),
        (
            named(paths::commit(&shard)),
            "the shard is done; create-only, and the first writer wins",
        ),
        (
            code(paths::MANIFEST),
            "every part with its rows and checksum; written when a run finishes, removed while a run adds rows",
        ),
        (
            code(paths::INPUT),
            "what the last search of the input skipped or could not look at",
        ),
        (
            code(paths::DEVICE),
            "the class of device that the first shard was labelled on; create-only",
        ),
        (
            code(paths::STRIKES),
            "strikes of earlier runs against videos of shards that are not committed",
        ),
        (
            code(paths::TALLY),
            "sums over the commits, for a fast `status`; may be deleted",
        ),
        (
            code(&format!("{}/<start>-<pid>.<n>.jsonl", paths::EVENTS)),
            "what happened, one JSON event a line",
        ),
        (
            named(paths::span(&shard, 0)),
            "a checkpoint of a long video; removed when its shard is committed. Its rows, and its crops, lie beside it as `.parquet` and `.tar`",
        ),
    ];
    page.push_str("\n## Files\n\n");
    table(
        page,
        &["file", "what it is"],
        files.into_iter().map(|(file, meaning)| [file, meaning.into()]),
    );
}

const SHARD: &str = "0123456789abcdef";

/// Columns of an ensemble with all tasks; those of classes and of action units under one name, with their number.
fn label_columns() -> Vec<(String, FieldRef, usize)> {
    let model = ModelRecord {
        name: "<model>".into(),
        kind: NetworkKind::Own(ModelKind::Student),
        outputs: Vec::new(),
        sha256: String::new(),
        also: Vec::new(),
        flip: true,
        architecture: String::new(),
        preprocessing: String::new(),
        precision: Precision::Fp32,
        untrained: false,
    };
    let fingerprint: Fingerprint = "0"
        .repeat(64)
        .try_into()
        .expect("64 hex digits are a fingerprint");
    let schema = LabelSchema::new(&[model], Values::Both, &fingerprint);
    let mut columns: Vec<(String, FieldRef, usize)> = Vec::new();
    for (at, field) in schema.arrow().fields().iter().enumerate() {
        let name = if at < FIXED_COLUMNS {
            field.name().clone()
        } else {
            generic(field.name())
        };
        match columns.last_mut() {
            Some((last, _, times)) if *last == name => *times += 1,
            _ => columns.push((name, field.clone(), 1)),
        }
    }
    columns
}

/// A column's name with `<Class>` or `<AU>` for the one that it names.
fn generic(name: &str) -> String {
    let parts = name.split('_').map(|part| match part {
        _ if EXPRESSIONS.contains(&part) => "<Class>",
        _ if ACTION_UNITS.contains(&part) => "<AU>",
        other => other,
    });
    parts.collect::<Vec<_>>().join("_")
}

fn columns(page: &mut String, columns: &[(String, FieldRef, usize)], meanings: &[(&str, &str)]) {
    let rows = columns.iter().map(|(name, field, times)| {
        let times = if *times > 1 {
            format!(" ×{times}")
        } else {
            String::new()
        };
        let null = if field.is_nullable() { ", null" } else { "" };
        let meaning = meanings
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, meaning)| meaning);
        [
            format!("{}{times}", code(name)),
            format!("{}{null}", type_name(field.data_type())),
            meaning.into(),
        ]
    });
    table(page, &["column", "type", "meaning"], rows);
}

fn type_name(of: &DataType) -> String {
    match of {
        DataType::Utf8 => "string".into(),
        DataType::Dictionary(..) => "string, dictionary".into(),
        DataType::FixedSizeList(item, length) => format!("list of {length} {}", type_name(item.data_type())),
        other => other.to_string().to_lowercase(),
    }
}

/// A record's keys, as its schema describes them.
fn record(page: &mut String, name: &str, schema: &Value) {
    let text = |value: &Value| {
        value["description"]
            .as_str()
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let _ = writeln!(page, "\n### [`{name}`]({name})\n\n{}\n", text(schema));
    let keys = schema["properties"].as_object().into_iter().flatten();
    table(
        page,
        &["key", "meaning"],
        keys.map(|(key, value)| [code(key), text(value).replace('|', "\\|")]),
    );
}

fn table<const N: usize>(page: &mut String, head: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let _ = writeln!(page, "| {} |\n|{}", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_and_key_has_a_meaning() {
        let page = reference();
        let blank = page.lines().find(|line| line.ends_with("|  |"));
        assert_eq!(
            blank, None,
            "say what it means in src/labelset/reference.rs, or in the doc of the field"
        );
    }
}
