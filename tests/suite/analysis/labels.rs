//! Label sets without videos: rows of this test's own, written and committed by the library, so that every value is known.

use affectmill_base::{Face, Fingerprint, FrameIndex, Micros, ModelKind, Rect, ShardId, VideoKey};
use affectmill_labelset::commit::{Files, commit};
use affectmill_labelset::rows::{Content, CropWriter, Row, RowWriter};
use affectmill_labelset::{
    CommitRecord, JobRecord, LabelSchema, RECORD_VERSION, StageSeconds, VideoOutcome, VideoStatus, paths,
};
use affectmill_spec::ModelRecord;
use affectmill_store::Store;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What a frame shows.
pub enum Seen {
    Faces(Vec<Shown>),
    Nothing,
    Damage,
}

/// A face: track, confidence, and what each model puts out.
pub struct Shown {
    pub track: Option<i32>,
    pub score: Option<f32>,
    pub outputs: Vec<Vec<f32>>,
}

/// A sampled frame.
pub struct Line {
    pub frame: u64,
    pub time: Option<i64>,
    pub seen: Seen,
}

/// A video: its key, how many frames were decoded, and those sampled.
pub struct Video {
    pub key: &'static str,
    pub decoded: u64,
    pub lines: Box<dyn Iterator<Item = Line>>,
}

/// A label set in a folder of its own.
pub struct LabelSet {
    dir: TempDir,
    schema: LabelSchema,
    crops: bool,
}

impl LabelSet {
    /// Without rows, labelled by these models. `settings` are lines of the job: `[sampling]` and such.
    pub fn new(models: &[(&str, ModelKind)], settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let sections: String = models
            .iter()
            .map(|(name, kind)| {
                let kind = kind.name();
                format!("[[models]]\nname = \"{name}\"\nkind = \"{kind}\"\nweights = \"w.safetensors\"\n")
            })
            .collect();
        let faces = "[faces]\ndetector = \"d.safetensors\"\n";
        let text = format!("[input]\nuri = \"videos\"\n{faces}{sections}{settings}");
        let job = dir.path().join("job.toml");
        std::fs::write(&job, text).expect("job");
        let job = affectmill_spec::load(&job, &["output.uri=out".into()]).expect("a right job");
        let record = |(name, kind): &(&str, ModelKind)| ModelRecord {
            name: (*name).into(),
            kind: (*kind).into(),
            outputs: Vec::new(),
            sha256: "ab".repeat(32),
            architecture: "a".into(),
            preprocessing: "p".into(),
            precision: Default::default(),
            untrained: false,
            also: Vec::new(),
            flip: false,
        };
        let models: Vec<ModelRecord> = models.iter().map(record).collect();
        let fingerprint = Fingerprint::from_digest(&[0x5a; 32]);
        let schema = LabelSchema::new(&models, job.output.values, &fingerprint);
        let crops = job.output.crops != affectmill_spec::Crops::None;
        let record = JobRecord {
            version: RECORD_VERSION,
            affectmill: "0".into(),
            fingerprint,
            identity: serde_json::json!({}),
            models,
            job,
        };
        let set = Self { dir, schema, crops };
        let record = serde_json::to_vec(&record).expect("a record");
        set.store().replace(paths::JOB, &record).expect("job record");
        set
    }

    fn store(&self) -> Store {
        Store::open(&self.output()).expect("a store")
    }

    pub fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// A place for something beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Commits a shard of videos, which come in order of their keys.
    pub fn shard(&self, number: u8, videos: Vec<Video>) {
        self.shard_of(number, videos, VideoStatus::Ok);
    }

    /// As [`shard`](Self::shard), of videos that are such.
    pub fn shard_of(&self, number: u8, videos: Vec<Video>, status: VideoStatus) {
        let store = self.store();
        let part = store.scratch_file("part").expect("scratch");
        let mut writer = RowWriter::create(part.path(), &self.schema).expect("a part");
        let crops = self.crops.then(|| store.scratch_file("crops").expect("scratch"));
        let mut cropper = crops
            .as_ref()
            .map(|file| CropWriter::create(file.path(), &self.schema, "arcface112", 80).expect("crops"));
        let mut outcomes = Vec::new();
        for video in videos {
            let mut outcome = VideoOutcome::new(VideoKey::new(video.key).expect("a key"));
            outcome.frames = video.decoded;
            outcome.status = status;
            for line in video.lines {
                let (frame, timestamp) = (FrameIndex(line.frame), line.time.map(Micros));
                let key = outcome.key.clone();
                let mut push = |content: Content<'_>| {
                    let row = Row {
                        video: &key,
                        frame,
                        timestamp,
                        content,
                    };
                    writer.push(&row).expect("a row");
                    outcome.rows += 1;
                    if let (Some(cropper), Content::Face { .. }) = (&mut cropper, &row.content) {
                        let grey = vec![f32::from(line.frame as u8); 3 * 128 * 128];
                        let jpeg = cropper.jpeg(&grey).expect("a picture");
                        cropper.push(&row, &jpeg, None).expect("a crop");
                    }
                };
                match &line.seen {
                    Seen::Nothing => push(Content::NoFace),
                    Seen::Damage => push(Content::DecodeError),
                    Seen::Faces(faces) => {
                        for (index, shown) in faces.iter().enumerate() {
                            let outputs: Vec<&[f32]> = shown.outputs.iter().map(Vec::as_slice).collect();
                            let face = face(index as i32, shown, line.frame);
                            push(Content::Face {
                                face: &face,
                                outputs: &outputs,
                            });
                        }
                    }
                }
                if let Seen::Faces(faces) = &line.seen {
                    outcome.faces += faces.len() as u64;
                }
            }
            outcomes.push(outcome);
        }
        let record = CommitRecord {
            version: RECORD_VERSION,
            shard: ShardId::from_digest(&[number; 32]),
            fingerprint: self.schema.fingerprint().clone(),
            part: writer.finish().expect("a whole part"),
            crops: cropper.map(|cropper| cropper.finish().expect("whole crops")),
            videos: outcomes,
            device: None,
            retired: None,
            seconds: StageSeconds::default(),
        };
        commit(&store, Files { part, crops }, record).expect("a commit");
    }

    /// The program with this set as its first argument after the command.
    pub fn ask(&self, command: &str, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_affectmill"));
        program.arg(command).arg(self.output()).args(arguments);
        program.output().expect("affectmill starts")
    }

    /// As [`Self::ask`], which must go well; what it printed.
    pub fn answer(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.ask(command, arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} {arguments:?}: {told}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// As [`Self::ask`], which must end with 2; what it said.
    pub fn refusal(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.ask(command, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command} {arguments:?}: {told}");
        told
    }
}

/// A face whose box and landmarks tell frame and index.
fn face(index: i32, shown: &Shown, frame: u64) -> Face {
    let at = frame as f32 + index as f32 / 4.0;
    Face {
        index,
        track: shown.track,
        rect: Rect {
            x: at,
            y: at + 1.5,
            w: 30.25,
            h: 40.5,
        },
        score: shown.score,
        landmarks: Some(std::array::from_fn(|n| at + n as f32)),
    }
}

/// Numbers without a pattern, in [−1, 1): a linear congruential generator (Knuth, MMIX).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Runs the independent check of this test in Python; it must say that all is equal.
pub fn check(arguments: &[&Path]) {
    let cache = affectmill_testing::media::cache();
    let python = cache.join("venv/bin/python");
    assert!(
        python.exists(),
        "`{}` is missing: run `make setup`",
        python.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/analysis/check.py");
    let output = Command::new(python)
        .arg("-B")
        .arg(script)
        .arg(cache.join("py-feat"))
        .args(arguments)
        .output()
        .expect("Python starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("equal"),
        "{told}"
    );
}
