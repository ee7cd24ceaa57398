//! Job files that are right, and what is made of them.

mod identities;
mod refusals;
mod scripts;

use super::*;
use affectmill_base::{ACTION_UNITS, Crop, EXPRESSIONS, Location, ModelKind, Task, VALENCE_AROUSAL};
use serde_json::json;
use std::path::PathBuf;

fn at(path: &str) -> Location {
    Location::Local(path.into())
}

const GOOD: &str = r#"[input]
uri = "videos"
[[models]]
name = "student"
kind = "student"
weights = "w/student.safetensors"
[output]
uri = "out"
"#;

/// A job file in a folder of its own, whose real path is the second field.
fn job_file(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    std::fs::write(path.join("job.toml"), text).unwrap();
    (folder, path)
}

/// Footage that is cropped already needs no detector, which keeps the texts short.
const CROPPED: &str = "faces.mode=full_frame";

fn load_text(text: &str, overrides: &[&str]) -> Result<Job, String> {
    let (_keep, folder) = job_file(text);
    let overrides: Vec<String> = [CROPPED]
        .iter()
        .chain(overrides)
        .map(|text| text.to_string())
        .collect();
    load(&folder.join("job.toml"), &overrides)
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.display()), ""))
}

/// [`GOOD`] with lines put in its `[input]` section, from line 3 on.
fn with_input(lines: &str) -> String {
    GOOD.replace("[[models]]", &format!("{lines}\n[[models]]"))
}

/// [`GOOD`] with more text, from line 9 on.
fn with(text: &str) -> String {
    format!("{GOOD}{text}\n")
}

#[test]
fn a_minimal_job_has_the_documented_defaults() {
    let (_keep, folder) = job_file(GOOD);
    let job = load(
        &folder.join("job.toml"),
        &["faces.detector=/w/d.safetensors".into()],
    )
    .unwrap();
    let extensions = "mp4 m4v mov mkv webm avi mpg mpeg ts m2ts flv wmv 3gp ogv gif mts m2t tp trp mod tod vob vro evo mpe m2p \
                      m1v m2v dat dv mxf gxf asf dvr-ms wtv f4v qt mk3d mj2 ismv insv 360 3g2 3gpp divx xvid ogm ogg rm rmvb \
                      amv dav h261 h263 h264 264 avc hevc h265 265 obu ivf mjpg mjpeg y4m nut nuv";
    let expected = Job {
        input: Input {
            uri: folder.join("videos").into(),
            extensions: extensions.split(' ').map(String::from).collect(),
            image_base: 1,
            image_fps: None,
            max_pixels: 100_000_000,
            max_frames: 10_000_000,
            decode: Decode::Cpu,
        },
        sampling: Sampling {
            mode: SamplingMode::Every,
            stride: None,
            fps: None,
        },
        faces: Faces {
            mode: FaceMode::Detect,
            detector: Some(at("/w/d.safetensors")),
            labels: None,
            crop: Crop::Arcface112,
            min_score: 0.5,
            min_face: 20,
            max_faces: None,
            detect_size: 640,
            detect_every: 8,
        },
        models: vec![ModelSpec {
            name: "student".into(),
            kind: ModelKind::Student.into(),
            outputs: Vec::new(),
            weights: folder.join("w/student.safetensors").into(),
            also: Vec::new(),
            flip: false,
            precision: Default::default(),
            crop: None,
        }],
        output: Output {
            uri: folder.join("out").into(),
            values: Values::Both,
            shard_frames: 5_000,
            crops: Crops::None,
            crop_quality: 95,
        },
        run: Run {
            workers: None,
            device: DeviceChoice::Auto,
            allow_device_change: false,
            queue: "local".into(),
            name: None,
            batch: 32,
            threads: None,
            stall_timeout: 120.0,
            video_timeout: 86_400.0,
            drain_seconds: 25.0,
            max_strikes: 3,
            span_frames: 5_000,
            scratch: None,
            fetch_bytes: 4_294_967_296,
            outage_timeout: 1800.0,
            metrics: None,
            metrics_hosts: Vec::new(),
        },
        s3: S3Settings::default(),
        nats: NatsSettings {
            credentials: None,
            ca: None,
            inbox_prefix: None,
            max_bytes: None,
            replicas: 1,
            lease_seconds: 60.0,
        },
    };
    assert_eq!(job, expected);
}

/// `Default: …` in the explanation of each key, which people read, against the default that the code has.
#[test]
fn every_documented_default_is_the_codes() {
    let schemas = [json_schema(), train_schema()];
    let mut compared = 0;
    let definitions = schemas.iter().map(|schema| schema["$defs"].as_object().unwrap());
    for (section, definition) in definitions.flatten() {
        let properties = definition["properties"].as_object().into_iter().flatten();
        for (key, property) in properties {
            let text = property["description"]
                .as_str()
                .unwrap_or_else(|| panic!("{section}.{key}: no text"));
            let Some(default) = property.get("default") else {
                assert!(text.ends_with("Required."), "{section}.{key}: {text}");
                continue;
            };
            let (_, documented) = text
                .split_once("Default: ")
                .unwrap_or_else(|| panic!("{section}.{key}: {text}"));
            if default.is_null() {
                assert!(documented.starts_with("none"), "{section}.{key}: {documented}");
            } else {
                let toml = documented
                    .trim_start_matches('`')
                    .split('`')
                    .next()
                    .unwrap()
                    .replace('\n', "");
                let table: toml::Table = toml::from_str(&format!("x = {toml}")).unwrap();
                assert_eq!(json!(table["x"]), *default, "{section}.{key}");
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 55 + 36, "keys with a default");
}

#[test]
fn every_key_is_read() {
    let text = r#"
run = { workers = 2, device = "cuda", allow_device_change = true, queue = "nats://a:4222, tls://b:4222", name = "a_b-1", batch = 8, threads = 3, stall_timeout = 1, video_timeout = 3, drain_seconds = 0, max_strikes = 1, span_frames = 9, scratch = "/scratch", fetch_bytes = 1048576, outage_timeout = 60, metrics = "[::1]:9100", metrics_hosts = ["watch.example"] }
nats = { credentials = "me.creds", ca = "/ca.pem", inbox_prefix = "site.mine", max_bytes = 65536, replicas = 3, lease_seconds = 2 }
[input]
uri = "/data/in"
extensions = ["MP4"]
image_base = 0
image_fps = 30
[sampling]
mode = "fps"
fps = 2
[faces]
mode = "detect"
detector = "d.safetensors"
crop = "square"
min_score = 0.25
min_face = 40
max_faces = 3
detect_size = 320
detect_every = 1
[[models]]
name = "b"
kind = "teacher_au"
weights = "../b.safetensors"
[[models]]
name = "a"
kind = "teacher_va"
weights = "file:///w/a%20b.safetensors"
[output]
uri = "/data/out/../x"
values = "logits"
shard_frames = 1
"#;
    let (_keep, folder) = job_file(text);
    let job = load(&folder.join("job.toml"), &[]).unwrap();
    let run = Run {
        workers: Some(2),
        device: DeviceChoice::Cuda,
        allow_device_change: true,
        queue: "nats://a:4222, tls://b:4222".into(),
        name: Some("a_b-1".into()),
        batch: 8,
        threads: Some(3),
        stall_timeout: 1.0,
        video_timeout: 3.0,
        drain_seconds: 0.0,
        max_strikes: 1,
        span_frames: 9,
        scratch: Some("/scratch".into()),
        fetch_bytes: 1_048_576,
        outage_timeout: 60.0,
        metrics: Some("[::1]:9100".parse().unwrap()),
        metrics_hosts: vec!["watch.example".into()],
    };
    assert_eq!(job.run, run);
    assert_eq!(
        job.servers().unwrap(),
        ["nats://a:4222", "tls://b:4222"],
        "several servers"
    );
    let nats = NatsSettings {
        credentials: Some(folder.join("me.creds")),
        ca: Some("/ca.pem".into()),
        inbox_prefix: Some("site.mine".into()),
        max_bytes: Some(65_536),
        replicas: 3,
        lease_seconds: 2.0,
    };
    assert_eq!(job.nats, nats);
    assert_eq!(job.input.uri, at("/data/in"));
    assert_eq!((job.input.image_base, job.input.image_fps), (0, Some(30.0)));
    assert_eq!(
        job.sampling,
        Sampling {
            mode: SamplingMode::Fps,
            stride: None,
            fps: Some(2.0)
        }
    );
    assert_eq!(
        job.models[0].weights,
        folder.parent().unwrap().join("b.safetensors").into()
    );
    assert_eq!(job.models[1].weights, at("/w/a b.safetensors"));
    assert_eq!(
        job.faces,
        Faces {
            mode: FaceMode::Detect,
            detector: Some(folder.join("d.safetensors").into()),
            labels: None,
            crop: Crop::Square,
            min_score: 0.25,
            min_face: 40,
            max_faces: Some(3),
            detect_size: 320,
            detect_every: 1,
        }
    );
    // `..` after a named folder stays: that folder may be a symbolic link.
    assert_eq!(job.output.uri, at("/data/out/../x"));
    assert_eq!((job.output.values, job.output.shard_frames), (Values::Logits, 1));
}

#[test]
fn overrides_change_any_value() {
    let cwd = std::env::current_dir().unwrap().canonicalize().unwrap();
    let (_keep, folder) = job_file(GOOD);
    let overrides = [
        CROPPED,
        "run.workers=2",
        "run.queue=local",
        "sampling.mode=stride",
        "sampling.stride = 0x10",
        "input.extensions=['mov', \"mp4\"]",
        "models.student.weights=new/w.safetensors",
        "models.0.name=s",
        "output.uri=/o=ut",
        "run.workers=3",
    ];
    let job = load(&folder.join("job.toml"), &overrides.map(String::from)).unwrap();
    assert_eq!(job.run.workers, Some(3), "the last one wins");
    assert_eq!(
        job.sampling,
        Sampling {
            mode: SamplingMode::Stride,
            stride: Some(16),
            fps: None
        }
    );
    assert_eq!(job.input.extensions, ["mov", "mp4"]);
    assert_eq!(
        job.input.uri,
        folder.join("videos").into(),
        "relative to the file"
    );
    assert_eq!(
        job.models[0].weights,
        cwd.join("new/w.safetensors").into(),
        "relative to the current directory"
    );
    assert_eq!(job.models[0].name, "s");
    assert_eq!(job.output.uri, at("/o=ut"));
}

#[test]
fn places_in_s3_are_taken_as_they_are_written() {
    let text = GOOD
        .replace("\"videos\"", "\"s3://in/a b/../%20+#é/\"")
        .replace("\"out\"", "\"s3://in/labels\"")
        .replace("\"w/student", "\"s3://weights/student");
    let settings = "[s3]\nendpoint = \"http://127.0.0.1:9000\"\nregion = \"eu\"\nprofile = \"p\"\npath_style = false\nunsigned = [\"in\"]\n";
    let job = load_text(&(text + settings), &[]).unwrap();
    let s3 = |bucket: &str, key: &str| Location::S3 {
        bucket: bucket.into(),
        key: key.into(),
    };
    assert_eq!(job.input.uri, s3("in", "a b/../%20+#é/"));
    assert_eq!(job.output.uri, s3("in", "labels"));
    assert_eq!(job.models[0].weights, s3("weights", "student.safetensors"));
    let expected = S3Settings {
        endpoint: Some("http://127.0.0.1:9000".into()),
        region: Some("eu".into()),
        profile: Some("p".into()),
        path_style: Some(false),
        unsigned: vec!["in".into()],
    };
    assert_eq!(job.s3, expected);
    let overridden = load_text(GOOD, &["input.uri=s3://b/x"]).unwrap();
    assert_eq!(overridden.input.uri, s3("b", "x"));
}

#[test]
fn the_output_may_lie_inside_the_input_but_not_be_it() {
    let job = load_text(&GOOD.replace("\"out\"", "\"videos/out\""), &[]).unwrap();
    let path = |location: &Location| location.as_local().unwrap().to_path_buf();
    assert!(path(&job.output.uri).starts_with(path(&job.input.uri)));

    let (_keep, folder) = job_file(GOOD.replace("\"out\"", "\"link\""));
    std::fs::create_dir(folder.join("videos")).unwrap();
    std::os::unix::fs::symlink("videos", folder.join("link")).unwrap();
    let message = load(&folder.join("job.toml"), &[]).unwrap_err().to_string();
    assert!(message.contains("`output.uri` is the input itself"), "{message}");
}

/// `rules::models` relies on it: with names that differ, two columns are equal only if the ending of one is some text, `_`
/// and the ending of the other; and a fixed column is none of a model's.
#[test]
fn different_model_names_give_different_columns() {
    let scores = EXPRESSIONS.iter().map(|class| format!("expr_{class}"));
    let scores: Vec<String> = scores.chain(ACTION_UNITS.map(String::from)).collect();
    let probabilities = scores.iter().map(|score| format!("{score}_p"));
    let plain = VALENCE_AROUSAL
        .iter()
        .chain(&["expression"])
        .map(|ending| ending.to_string());
    let endings: Vec<String> = plain.chain(scores.iter().cloned()).chain(probabilities).collect();
    assert_eq!(endings.len(), 3 + 2 * 19);
    let fixed = "video frame timestamp_us status face track box_x box_y box_w box_h face_score landmarks";
    for ending in &endings {
        let behind = format!("_{ending}").to_lowercase();
        for other in endings.iter().map(String::as_str).chain(fixed.split(' ')) {
            assert!(
                !other.to_lowercase().ends_with(&behind),
                "{other} ends in {behind}"
            );
        }
    }
}

#[test]
fn the_jobs_of_the_repository_load() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("jobs");
    let mut loaded = 0;
    for entry in std::fs::read_dir(&folder).expect("the repository has a folder jobs/") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let trains = std::fs::read_to_string(&path).unwrap().contains("\n[train]");
            let problem = if trains {
                load_train(&path, &[]).err()
            } else {
                load(&path, &[]).err()
            };
            assert!(problem.is_none(), "{}", problem.unwrap());
            loaded += 1;
        }
    }
    assert!(loaded > 0, "no *.toml in {}", folder.display());
}
