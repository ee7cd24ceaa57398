//! What the tests share: the program, assets that `make setup` fetched, small corpora, and readers of the output.

pub use affectmill_testing::media::cache;
use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

fn needed(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run `make test`, which fetches it",
        path.display()
    );
    path
}

/// A real video that `make setup` fetched.
pub fn video(name: &str) -> PathBuf {
    needed(cache().join("videos").join(name))
}

/// The Python with Polars, PyArrow, DuckDB, Pillow and PySpark.
pub fn python() -> PathBuf {
    needed(cache().join("venv/bin/python"))
}

/// The program under test.
pub fn affectmill() -> Command {
    Command::new(env!("CARGO_BIN_EXE_affectmill"))
}

/// Runs a command that must succeed; returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{err}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8 output")
}

/// Runs ffmpeg, quietly, overwriting.
pub fn ffmpeg<A: AsRef<std::ffi::OsStr>>(args: &[A]) {
    succeed(
        Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y"])
            .args(args),
    );
}

/// A short synthetic video: `frames` frames of moving test pattern, different for each `seed`.
pub fn synthetic(path: &Path, frames: u32, seed: u32) {
    let source = format!("testsrc2=size=96x{}:rate=25,hue=h={}", 64 + 2 * seed, 37 * seed);
    let frames = frames.to_string();
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        &source,
        "-frames:v",
        &frames,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        path.to_str().expect("UTF-8 path"),
    ]);
}

/// Untrained weights of a kind, made once per test run by the program itself.
pub fn weights(kind: &str) -> PathBuf {
    static MADE: OnceLock<std::sync::Mutex<BTreeMap<String, PathBuf>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Default::default).lock().expect("weights lock");
    made.entry(kind.to_owned())
        .or_insert_with(|| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kind}.safetensors"));
            succeed(
                affectmill()
                    .args(["init-weights", "--seed", "7", "--kind", kind])
                    .args(["--crop", "arcface112", "-o"])
                    .arg(&path),
            );
            path
        })
        .clone()
}

/// The detector's weights, made once from the published file.
pub fn detector() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("centerface.safetensors");
        let source = needed(cache().join("detector/centerface.onnx"));
        succeed(
            affectmill()
                .arg("import-weights")
                .arg(source)
                .arg("-o")
                .arg(&path),
        );
        path
    })
    .clone()
}

/// A folder with videos, a job file and room for outputs.
pub struct Project {
    pub dir: TempDir,
    /// What breaks in the program's processes, as `faults.c` describes it; empty for nothing.
    pub faults: String,
}

/// A video of `frames` frames whose bytes no codec can press: more than 2 kB a frame, the table of frames in front.
pub fn noisy(path: &Path, frames: u32, seed: u32) {
    let source = format!(
        "testsrc2=size=96x{}:rate=25,noise=alls=60:allf=t:all_seed={seed}",
        64 + 2 * seed
    );
    let frames = frames.to_string();
    let to = path.to_str().expect("UTF-8 path");
    let codec = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-qp",
        "12",
        "-pix_fmt",
        "yuv420p",
    ];
    let front = ["-movflags", "+faststart", to];
    ffmpeg(
        &[
            &["-f", "lavfi", "-i", &source, "-frames:v", &frames][..],
            &codec,
            &front,
        ]
        .concat(),
    );
}

/// The library that makes reads and allocations fail, compiled once.
pub fn faults_library() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    compiled(&MADE, "faults.c", "faults.so", &["-shared", "-fPIC"])
}

/// The program that runs another one without `RENAME_NOREPLACE`, compiled once.
pub fn refuse() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    compiled(&MADE, "refuse.c", "refuse", &[])
}

fn compiled(made: &OnceLock<PathBuf>, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    made.get_or_init(|| {
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/suite")
            .join(source);
        let mut cc = Command::new("cc");
        cc.args(flags).args(["-O1", "-o"]).arg(&compiled);
        succeed(cc.arg(source).arg("-ldl"));
        compiled
    })
    .clone()
}

impl Project {
    /// An empty `videos/` and a job with the cheapest of the models: most tests ask about rows, not about what they say.
    pub fn new() -> Self {
        Self::with_models(&["mini_xception"])
    }

    pub fn with_models(kinds: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(dir.path().join("videos")).expect("videos folder");
        let models: String = kinds
            .iter()
            .map(|kind| {
                let weights = weights(kind);
                format!(
                    "[[models]]\nname = \"{kind}\"\nkind = \"{kind}\"\nweights = {:?}\n",
                    weights
                )
            })
            .collect();
        let job = format!(
            "[input]\nuri = \"videos\"\n[faces]\nmode = \"full_frame\"\n{models}\
             [output]\nuri = \"out\"\nshard_frames = 30\n"
        );
        fs::write(dir.path().join("job.toml"), job).expect("job file");
        Self {
            dir,
            faults: String::new(),
        }
    }

    /// The same job on faces that are detected.
    pub fn detecting(self) -> Self {
        let job = fs::read_to_string(self.job()).expect("job file");
        let faces = format!("mode = \"detect\"\ndetector = {:?}", detector());
        fs::write(self.job(), job.replace("mode = \"full_frame\"", &faces)).expect("job file");
        self
    }

    /// `count` synthetic videos of `frames` frames.
    pub fn synthetic(self, count: u32, frames: u32) -> Self {
        for n in 0..count {
            synthetic(&self.videos().join(format!("clip{n:02}.mp4")), frames, n);
        }
        self
    }

    pub fn videos(&self) -> PathBuf {
        self.dir.path().join("videos")
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn job(&self) -> PathBuf {
        self.dir.path().join("job.toml")
    }

    /// `affectmill run` into the output of that name.
    pub fn command(&self, output: &str, sets: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("run").arg(self.job());
        command
            .arg("--set")
            .arg(format!("output.uri={:?}", self.output(output)));
        for set in sets {
            command.args(["--set", set]);
        }
        command
    }

    /// The program, with this project's faults.
    pub fn program(&self) -> Command {
        let mut command = affectmill();
        if !self.faults.is_empty() {
            command
                .env("LD_PRELOAD", faults_library())
                .env("AFFECTMILL_FAULTS", &self.faults);
        }
        command
    }

    /// `affectmill retry` of the output of that name.
    pub fn retry_command(&self, output: &str, arguments: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("retry").arg(self.output(output)).args(arguments);
        command
    }

    /// Retries to the end; the exit code must be `code`.
    pub fn retry(&self, output: &str, arguments: &[&str], code: i32) -> Output {
        let done = self
            .retry_command(output, arguments)
            .output()
            .expect("affectmill starts");
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
        done
    }

    /// Runs to the end; the exit code must be `code`.
    pub fn run(&self, output: &str, sets: &[&str], code: i32) -> Output {
        let done = self.command(output, sets).output().expect("affectmill starts");
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
        done
    }

    /// Starts a run whose events can be watched.
    pub fn start(&self, output: &str, sets: &[&str]) -> Running {
        Running::start(self.command(output, sets))
    }
}

/// ffprobe's decimal seconds with six digits as whole microseconds: read from the text, not through floats.
pub fn micros(seconds: &Value) -> Option<i64> {
    let text = seconds.as_str()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = text.split_once('.')?;
    Some(sign * (whole.parse::<i64>().ok()? * 1_000_000 + fraction.parse::<i64>().ok()?))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A run under way.
pub struct Running {
    pub child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// Starts the program with its events to be watched.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("affectmill starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    /// The next event, or `None` when the run has ended.
    pub fn event(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("events are readable");
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}")))
    }

    /// Waits for an event of this name.
    pub fn until(&mut self, name: &str) -> Value {
        loop {
            let event = self
                .event()
                .unwrap_or_else(|| panic!("the run ended before `{name}`"));
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Sends a signal by name to the coordinator.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Drains the events and waits; returns how it ended and what it said.
    pub fn output(mut self) -> Output {
        while self.event().is_some() {}
        self.child.wait_with_output().expect("the run ends")
    }

    /// Drains the events and waits; returns the exit code (`None`: killed by a signal).
    pub fn wait(mut self) -> Option<i32> {
        while self.event().is_some() {}
        self.child.wait().expect("the run ends").code()
    }
}

/// Sends a signal; whether the process still exists does not matter.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Every file under a folder with its bytes, by relative path.
pub fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("readable folder");
        if entry.file_type().is_file() {
            let name = entry
                .path()
                .strip_prefix(root)
                .expect("inside")
                .to_str()
                .expect("UTF-8")
                .to_owned();
            files.insert(name, fs::read(entry.path()).expect("readable file"));
        }
    }
    files
}

/// Asserts that two label folders hold the same files with the same bytes.
pub fn assert_same_labels(a: &Path, b: &Path) {
    let (a, b) = (tree(&a.join("labels")), tree(&b.join("labels")));
    assert!(!a.is_empty(), "labels were written");
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs");
    }
}

/// One row, as far as most tests look.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub video: String,
    pub frame: i64,
    pub timestamp_us: Option<i64>,
    pub status: String,
    pub face: Option<i32>,
    pub track: Option<i32>,
    pub box_: Option<[f32; 4]>,
    pub score: Option<f32>,
    pub landmarks: Option<Vec<f32>>,
}

/// Every row of a label set, parts in name order.
pub fn rows(output: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in tree(&output.join("labels")).keys() {
        let file = File::open(output.join("labels").join(name)).expect("part");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .expect("parquet")
            .build()
            .expect("reader");
        for batch in reader {
            let batch = batch.expect("batch");
            let column = |name: &str| {
                batch
                    .column_by_name(name)
                    .unwrap_or_else(|| panic!("column {name}"))
                    .clone()
            };
            let text = |name: &str| cast(&column(name), &DataType::Utf8).expect("text");
            let (videos, statuses) = (text("video"), text("status"));
            let (frames, times) = (column("frame"), column("timestamp_us"));
            let times: &Int64Array = times.as_primitive::<Int64Type>();
            let boxes = ["box_x", "box_y", "box_w", "box_h"].map(column);
            let integers = ["face", "track"].map(column);
            let (scores, landmarks) = (column("face_score"), column("landmarks"));
            for n in 0..batch.num_rows() {
                let integer = |column: &dyn Array| {
                    let valid = column.is_valid(n);
                    valid.then(|| column.as_primitive::<arrow::datatypes::Int32Type>().value(n))
                };
                let float =
                    |column: &dyn Array| column.as_primitive::<arrow::datatypes::Float32Type>().value(n);
                rows.push(Row {
                    video: videos.as_string::<i32>().value(n).to_owned(),
                    frame: frames.as_primitive::<Int64Type>().value(n),
                    timestamp_us: times.is_valid(n).then(|| times.value(n)),
                    status: statuses.as_string::<i32>().value(n).to_owned(),
                    face: integer(&integers[0]),
                    track: integer(&integers[1]),
                    score: scores.is_valid(n).then(|| float(&scores)),
                    landmarks: landmarks.is_valid(n).then(|| {
                        let points = landmarks.as_fixed_size_list().value(n);
                        points
                            .as_primitive::<arrow::datatypes::Float32Type>()
                            .values()
                            .to_vec()
                    }),
                    box_: boxes[0]
                        .is_valid(n)
                        .then(|| [0, 1, 2, 3].map(|at| float(&boxes[at]))),
                });
            }
        }
    }
    rows
}

/// What the models say of each row: every float column after the landmarks, by video, frame and face. A row that is there
/// twice fails the test.
pub fn outputs(output: &Path) -> BTreeMap<(String, i64, Option<i32>), Vec<f32>> {
    let mut found = BTreeMap::new();
    let keys = rows(output);
    let mut keys = keys.iter();
    for name in tree(&output.join("labels")).keys() {
        let file = File::open(output.join("labels").join(name)).expect("part");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .expect("parquet")
            .build()
            .expect("reader");
        for batch in reader {
            let batch = batch.expect("batch");
            let after = batch.schema().index_of("landmarks").expect("landmarks") + 1;
            let columns = batch.columns()[after..]
                .iter()
                .filter(|column| *column.data_type() == DataType::Float32);
            let columns: Vec<_> = columns.collect();
            for (n, key) in (0..batch.num_rows()).zip(&mut keys) {
                let values = columns.iter().filter(|column| column.is_valid(n));
                let values =
                    values.map(|column| column.as_primitive::<arrow::datatypes::Float32Type>().value(n));
                let key = (key.video.clone(), key.frame, key.face);
                let earlier = found.insert(key.clone(), values.collect());
                assert!(earlier.is_none(), "{key:?} is there twice");
            }
        }
    }
    found
}

/// A row of `videos.parquet`, as far as most tests look.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    pub status: String,
    pub rows: i64,
    pub class: Option<String>,
    pub frame: Option<i64>,
    pub attempt: i64,
    pub error: Option<String>,
    pub fallback: Option<String>,
    pub lost: Option<i64>,
    pub transfer: Option<String>,
    pub tone_mapping: Option<String>,
}

/// `videos.parquet` by video.
pub fn videos(output: &Path) -> BTreeMap<String, Video> {
    let file = File::open(output.join("videos.parquet")).expect("videos.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("parquet")
        .build()
        .expect("reader");
    let mut videos = BTreeMap::new();
    for batch in reader {
        let batch = batch.expect("batch");
        let column = |name: &str, kind: DataType| {
            let column = batch
                .column_by_name(name)
                .unwrap_or_else(|| panic!("column {name}"));
            cast(column, &kind).expect("a plain type")
        };
        let texts = [
            "video",
            "status",
            "error_class",
            "error",
            "decode_fallback",
            "transfer",
            "tone_mapping",
        ];
        let texts = texts.map(|name| column(name, DataType::Utf8));
        let numbers = ["rows", "error_frame", "attempt", "lost"].map(|name| column(name, DataType::Int64));
        for n in 0..batch.num_rows() {
            let text = |at: usize| {
                texts[at]
                    .is_valid(n)
                    .then(|| texts[at].as_string::<i32>().value(n).to_owned())
            };
            let number = |at: usize| {
                let column: &Int64Array = numbers[at].as_primitive();
                column.is_valid(n).then(|| column.value(n))
            };
            let video = Video {
                status: text(1).expect("status"),
                rows: number(0).expect("rows"),
                class: text(2),
                frame: number(1),
                attempt: number(2).expect("attempt"),
                error: text(3),
                fallback: text(4),
                lost: number(3),
                transfer: text(5),
                tone_mapping: text(6),
            };
            videos.insert(text(0).expect("video"), video);
        }
    }
    videos
}

/// The names of the columns, in order.
pub fn columns(output: &Path) -> Vec<String> {
    let parts = tree(&output.join("labels"));
    let part = output.join("labels").join(parts.keys().next().expect("a part"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(part).expect("part")).expect("parquet");
    let fields = reader.schema().fields().iter();
    fields.map(|field| field.name().clone()).collect()
}

/// Reproducible randomness for moments of killing: the seed is printed, so that a failure can be repeated.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        let seed = std::env::var("AFFECTMILL_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(1, |now| now.as_nanos() as u64)
            });
        println!("AFFECTMILL_SEED={seed}");
        Self(seed | 1)
    }

    /// The same rolls always.
    #[allow(dead_code)] // not every test binary has a use for it
    pub fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number in `0..below` (xorshift64).
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Whether the long forms of tests are asked for (`make soak`).
pub fn soak() -> bool {
    std::env::var_os("AFFECTMILL_SOAK").is_some()
}

/// A float column of every row, parts in name order.
pub fn floats(output: &Path, name: &str) -> Vec<Option<f32>> {
    let mut floats = Vec::new();
    for part in tree(&output.join("labels")).keys() {
        let file = File::open(output.join("labels").join(part)).expect("part");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("parquet");
        for batch in reader.build().expect("reader") {
            let batch = batch.expect("batch");
            let column = batch
                .column_by_name(name)
                .unwrap_or_else(|| panic!("column {name}"));
            floats.extend(column.as_primitive::<arrow::datatypes::Float32Type>());
        }
    }
    floats
}
