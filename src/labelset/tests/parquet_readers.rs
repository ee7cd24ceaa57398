//! The label set as others read it: Polars, PyArrow, DuckDB and Spark see what was pushed, value for value.

use crate::rows::{Content, Row, RowWriter, VideoRow, write_videos};
use crate::schema::LabelSchema;
use crate::{DeviceClass, PartInfo, PlannedVideo, ShardDevice, VideoOutcome, VideoStatus};
use affectmill_base::{ErrorClass, SourceKind, Trouble};
use affectmill_base::{Face, Fingerprint, FrameIndex, Micros, ModelKind, Rect, ShardId, VideoKey};
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const EVERY_MODEL: &[(&str, ModelKind)] = &[
    ("student", ModelKind::Student),
    ("va", ModelKind::TeacherVa),
    ("expr", ModelKind::TeacherExpr),
    ("au", ModelKind::TeacherAu),
];

/// Why one of the videos was not decoded as the job says.
const FALLBACK: &str = "no decoder of H.264 4:4:4, \"High 4:4:4\"";

/// A row that owns what it says.
struct Pushed {
    video: VideoKey,
    frame: u64,
    timestamp: Option<i64>,
    content: Told,
}

enum Told {
    Face(Face, Vec<Vec<f32>>),
    NoFace,
    DecodeError,
}

fn fingerprint() -> Fingerprint {
    Fingerprint::from_digest(&[0x5a; 32])
}

fn schema(models: &[(&str, ModelKind)], values: Values) -> LabelSchema {
    let record = |&(name, kind): &(&str, ModelKind)| ModelRecord {
        name: name.into(),
        kind: kind.into(),
        outputs: Vec::new(),
        sha256: "ab".repeat(32),
        also: Vec::new(),
        flip: false,
        architecture: "resnet50-fpn256-mean5".into(),
        preprocessing: "whole-128".into(),
        precision: Default::default(),
        untrained: true,
    };
    let models: Vec<_> = models.iter().map(record).collect();
    LabelSchema::new(&models, values, &fingerprint())
}

/// Numbers without a pattern, in [−8, 8): a linear congruential generator (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 20) as f32 - 8.0
    }

    fn face(&mut self, index: i32, whole: bool) -> Face {
        let mut at = || self.next() * 40.0;
        Face {
            index,
            track: whole.then_some(index + 100),
            rect: Rect {
                x: at(),
                y: at(),
                w: at(),
                h: at(),
            },
            score: whole.then_some(0.875),
            landmarks: whole.then(|| [(); 10].map(|()| at())),
        }
    }

    /// Mostly ordinary logits; some equal, some where a naive exponential overflows or vanishes.
    fn outputs(&mut self, models: &[(&str, ModelKind)], frame: u64) -> Vec<Vec<f32>> {
        let mut of = |kind: ModelKind| -> Vec<f32> {
            (0..kind.output_count())
                .map(|at| match frame % 50 {
                    7 => 0.0,
                    8 => [1000.0, -1000.0, 88.8, -104.0][at % 4],
                    9 => [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0][at % 4],
                    _ => self.next(),
                })
                .collect()
        };
        let mut outputs: Vec<Vec<f32>> = models.iter().map(|&(_, kind)| of(kind)).collect();
        // Now and then a model gives a number that is none, another one each time.
        let broken = match frame % 50 {
            10 => Some(f32::NAN),
            11 => Some(f32::INFINITY),
            12 => Some(f32::NEG_INFINITY),
            _ => None,
        };
        let model = frame as usize / 50 % outputs.len();
        if let (Some(broken), Some(output)) = (broken, outputs[model].last_mut()) {
            *output = broken;
        }
        outputs
    }
}

/// Rows of several videos, some with odd keys, with faces, two faces, none, and damage.
fn rows(models: &[(&str, ModelKind)], frames: u64) -> Vec<Pushed> {
    let mut keys =
        ["a b/ü – 日本#%.mp4", "\"quoted\".mov", "z/😀.mkv", "a"].map(|key| VideoKey::new(key).unwrap());
    keys.sort();
    let mut numbers = Numbers(1);
    let mut rows = Vec::new();
    for (at, video) in keys.iter().enumerate() {
        for n in 0..frames {
            let frame = if at == 3 { n * 3 + (1 << 40) } else { n };
            let faces = match n % 11 {
                3 => 0,
                4 => 2,
                _ => 1,
            };
            let mut push = |content| {
                rows.push(Pushed {
                    video: video.clone(),
                    frame,
                    timestamp: (at != 1).then_some(n as i64 * 33_367 - 1_000),
                    content,
                });
            };
            for index in 0..faces {
                let face = numbers.face(index, at != 2);
                push(Told::Face(face, numbers.outputs(models, n)));
            }
            if faces == 0 {
                push(if n % 2 == 0 {
                    Told::NoFace
                } else {
                    Told::DecodeError
                });
            }
        }
    }
    rows
}

fn write(path: &Path, schema: &LabelSchema, rows: &[Pushed]) -> PartInfo {
    std::fs::write(path, b"").unwrap();
    let mut writer = RowWriter::create(path, schema).unwrap();
    for row in rows {
        let slices: Vec<&[f32]> = match &row.content {
            Told::Face(_, outputs) => outputs.iter().map(Vec::as_slice).collect(),
            _ => Vec::new(),
        };
        let content = match &row.content {
            Told::Face(face, _) => Content::Face {
                face,
                outputs: &slices,
            },
            Told::NoFace => Content::NoFace,
            Told::DecodeError => Content::DecodeError,
        };
        let row = Row {
            video: &row.video,
            frame: FrameIndex(row.frame),
            timestamp: row.timestamp.map(Micros),
            content,
        };
        writer.push(&row).unwrap();
    }
    writer.finish().unwrap()
}

fn describe(part: &Path, models: &[(&str, ModelKind)], values: &str, rows: &[Pushed]) -> Value {
    let models: Vec<_> = models
        .iter()
        .map(|(name, kind)| json!([name, kind.name()]))
        .collect();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (status, face, outputs) = match &row.content {
                Told::Face(face, outputs) => {
                    let rect = &face.rect;
                    let told = json!({
                        "index": face.index, "track": face.track, "box": [rect.x, rect.y, rect.w, rect.h],
                        "score": face.score, "landmarks": face.landmarks,
                    });
                    let finite = |model: &Vec<f32>| model.iter().all(|output| output.is_finite());
                    let status = if outputs.iter().all(finite) {
                        "ok"
                    } else {
                        "not_finite"
                    };
                    let said: Vec<_> = outputs
                        .iter()
                        .map(|model| finite(model).then_some(model))
                        .collect();
                    (status, told, json!(said))
                }
                Told::NoFace => ("no_face", Value::Null, Value::Null),
                Told::DecodeError => ("decode_error", Value::Null, Value::Null),
            };
            json!({
                "video": row.video, "frame": row.frame, "timestamp": row.timestamp,
                "status": status, "face": face, "outputs": outputs,
            })
        })
        .collect();
    json!({
        "part": part, "models": models, "values": values, "rows": rows, "fingerprint": fingerprint(),
    })
}

/// Hands a case to the readers; fails with what they say.
fn check(folder: &Path, case: &Value, arguments: &[&str]) {
    let python = affectmill_testing::media::cache().join("venv/bin/python");
    assert!(
        python.exists(),
        "`{}` is missing: run `make setup`",
        python.display()
    );
    let path = folder.join("case.json");
    std::fs::write(&path, serde_json::to_vec(case).unwrap()).unwrap();
    let script = affectmill_testing::repository().join("src/labelset/tests/parquet_readers.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&path)
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("equal"),
        "{errors}"
    );
}

fn round_trip(models: &[(&str, ModelKind)], values: Values, name: &str, frames: u64, readers: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part.parquet");
    let rows = rows(models, frames);
    let info = write(&part, &schema(models, values), &rows);
    assert_eq!(info.rows, rows.len() as u64);
    check(folder.path(), &describe(&part, models, name, &rows), readers);
}

#[test]
fn polars_pyarrow_and_duckdb_read_what_was_pushed() {
    // More rows than one batch of the writer.
    round_trip(EVERY_MODEL, Values::Both, "both", 1_100, &[]);
}

#[test]
fn logits_or_probabilities_alone_read_as_well() {
    round_trip(EVERY_MODEL, Values::Logits, "logits", 60, &[]);
    round_trip(EVERY_MODEL, Values::Probabilities, "probabilities", 60, &[]);
    round_trip(
        &[("m", ModelKind::TeacherExpr)],
        Values::Probabilities,
        "probabilities",
        60,
        &[],
    );
}

#[test]
fn a_part_without_rows_is_whole() {
    round_trip(EVERY_MODEL, Values::Both, "both", 0, &[]);
}

#[test]
fn spark_reads_what_was_pushed() {
    round_trip(EVERY_MODEL, Values::Both, "both", 60, &["spark"]);
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(EVERY_MODEL, 1_100);
    let [first, second] = ["first", "second"].map(|name| {
        let path = folder.path().join(name);
        let info = write(&path, &schema(EVERY_MODEL, Values::Both), &rows);
        (info, std::fs::read(path).unwrap())
    });
    assert_eq!(first, second);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_table_of_videos_reads_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let shard = ShardId::from_digest(&[0xcd; 32]);
    let case = |key: &str, status, error: Option<Trouble>, duration_us, rows| {
        let key = VideoKey::new(key).unwrap();
        let planned = PlannedVideo {
            key: key.clone(),
            kind: SourceKind::File,
            bytes: 5_000_000_000,
            etag: "1".into(),
            frames: 9,
            duration_us,
            archive: None,
            unreadable: None,
        };
        let mut outcome = VideoOutcome {
            status,
            frames: 10,
            rows,
            faces: rows / 2,
            seconds: 1.25,
            ..VideoOutcome::new(key)
        };
        error.into_iter().for_each(|trouble| outcome.note(trouble));
        outcome.not_finite = rows / 3;
        // Of one video there is something to tell, of the others nothing.
        outcome.decode_fallback = (rows == 9).then(|| FALLBACK.into());
        outcome.lost = (rows == 9).then_some(4);
        outcome.transfer = (rows == 9).then(|| "smpte2084".into());
        outcome.tone_mapping = (rows == 9).then(|| "bt2390-1000-203".into());
        (planned, outcome)
    };
    let trouble = |error: &str, class, frame: Option<u64>| {
        Some(Trouble {
            error: error.into(),
            class,
            frame: frame.map(FrameIndex),
        })
    };
    let crashed = trouble("crashed 3 times", ErrorClass::Crash, Some(1_337));
    let videos = [
        case("a/ü.mp4", VideoStatus::Ok, None, 3_600_000_000, 10),
        case(
            "b.mp4",
            VideoStatus::Partial,
            trouble("frame 4: damaged", ErrorClass::Corrupt, Some(4)),
            400_000,
            9,
        ),
        case(
            "c.mp4",
            VideoStatus::Failed,
            trouble("no video stream", ErrorClass::Unsupported, None),
            0,
            0,
        ),
        case("z.mp4", VideoStatus::Quarantined, crashed, 0, 0),
    ];
    let gpu = ShardDevice {
        class: DeviceClass::Cuda,
        name: Some("NVIDIA H100".into()),
    };
    let rows = videos.each_ref().map(|(planned, outcome)| VideoRow {
        shard: &shard,
        attempt: u32::from(outcome.rows == 0),
        planned,
        outcome,
        device: (outcome.rows == 9).then_some(&gpu),
    });
    let bytes = write_videos(&rows, &fingerprint()).unwrap();
    let path = folder.path().join("videos.parquet");
    std::fs::write(&path, bytes).unwrap();
    let wanted = |key: &str, status: &str, error: [Value; 3], duration: Value, rows: u64| {
        let [error, class, frame] = error;
        json!({
            "error_class": class, "error_frame": frame, "attempt": u32::from(rows == 0),
            "video": key, "status": status, "frames": 10, "rows": rows, "faces": rows / 2, "seconds": 1.25,
            "error": error, "shard": "cdcdcdcdcdcdcdcd", "bytes": 5_000_000_000_u64, "duration_us": duration,
            "decode_fallback": (rows == 9).then_some(FALLBACK), "lost": (rows == 9).then_some(4),
            "transfer": (rows == 9).then_some("smpte2084"),
            "tone_mapping": (rows == 9).then_some("bt2390-1000-203"),
            "device": (rows == 9).then_some("cuda (NVIDIA H100)"), "not_finite": rows / 3,
        })
    };
    let wanted = [
        wanted(
            "a/ü.mp4",
            "ok",
            [Value::Null, Value::Null, Value::Null],
            json!(3_600_000_000_u64),
            10,
        ),
        wanted(
            "b.mp4",
            "partial",
            [json!("frame 4: damaged"), json!("corrupt"), json!(4)],
            json!(400_000),
            9,
        ),
        wanted(
            "c.mp4",
            "failed",
            [json!("no video stream"), json!("unsupported"), Value::Null],
            Value::Null,
            0,
        ),
        wanted(
            "z.mp4",
            "quarantined",
            [json!("crashed 3 times"), json!("crash"), json!(1_337)],
            Value::Null,
            0,
        ),
    ];
    let case = json!({ "videos": path, "wanted": wanted, "fingerprint": fingerprint() });
    check(folder.path(), &case, &[]);
}
