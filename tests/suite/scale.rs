//! A collection of very many short videos: what planning, the beginning and the end of a run, `status` and `summary` take. The
//! videos are links to a few real ones; the rows are written by this test, so that no model takes the time.

use super::common::*;
use affectmill_base::FrameIndex;
use affectmill_labelset::commit::{Files, commit};
use affectmill_labelset::plan;
use affectmill_labelset::rows::{Content, Row, RowWriter};
use affectmill_labelset::{
    CommitRecord, LabelSchema, LabelSet, RECORD_VERSION, ShardPlan, StageSeconds, VideoOutcome,
};
use affectmill_store::Store;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Frames of a video: 5 seconds.
const FRAMES: u64 = 125;

/// Links to one file, of which file systems allow some ten thousand.
const LINKS: usize = 50_000;

/// What a process took so far.
#[derive(Clone, Copy, Debug)]
struct Taken {
    time: Duration,
    /// The most memory it had, in MiB.
    peak: u64,
}

/// A process under watch.
struct Watched {
    child: Child,
    began: Instant,
}

impl Watched {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stderr(Stdio::null());
        Self {
            began: Instant::now(),
            child: child.spawn().unwrap(),
        }
    }

    fn taken(&self) -> Taken {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Taken {
            time: self.began.elapsed(),
            peak: kib.unwrap_or_default() / 1024,
        }
    }

    /// Waits for its end.
    fn whole(mut self) -> (Option<i32>, Taken) {
        let mut most = self.taken();
        loop {
            let now = self.taken();
            most.peak = most.peak.max(now.peak);
            if let Some(status) = self.child.try_wait().unwrap() {
                most.time = self.began.elapsed();
                return (status.code(), most);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Watched {
    /// Its workers end when their pipe does.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files and bytes below a folder.
fn size(folder: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            let (more, larger) = size(&entry.path());
            (files, bytes) = (files + more, bytes + larger);
        } else {
            (files, bytes) = (files + 1, bytes + entry.metadata().unwrap().len());
        }
    }
    (files, bytes)
}

/// A thousand videos to a folder.
fn collection(videos: usize) -> Project {
    let project = Project::with_models(&["mini_xception"]);
    let mut source = PathBuf::new();
    for n in 0..videos {
        let folder = project.videos().join(format!("camera-{:04}", n / 1000));
        let path = folder.join(format!("recording {n:07}.mp4"));
        if n % 1000 == 0 {
            fs::create_dir(&folder).unwrap();
        }
        if n % LINKS == 0 {
            synthetic(&path, FRAMES as u32, 0);
            source = path;
        } else {
            fs::hard_link(&source, &path).unwrap();
        }
    }
    project
}

/// Commits a shard whose every frame shows nobody.
fn label(store: &Store, schema: &LabelSchema, shard: &ShardPlan) {
    let part = store.scratch_file("part").unwrap();
    let mut writer = RowWriter::create(part.path(), schema).unwrap();
    let mut videos = Vec::new();
    for video in &shard.videos {
        for frame in 0..FRAMES {
            let row = Row {
                video: &video.key,
                frame: FrameIndex(frame),
                timestamp: None,
                content: Content::NoFace,
            };
            writer.push(&row).unwrap();
        }
        videos.push(VideoOutcome {
            frames: FRAMES,
            rows: FRAMES,
            seconds: 0.123_456,
            ..VideoOutcome::new(video.key.clone())
        });
    }
    let record = CommitRecord {
        device: None,
        retired: None,
        version: RECORD_VERSION,
        shard: shard.id.clone(),
        fingerprint: schema.fingerprint().clone(),
        part: writer.finish().unwrap(),
        crops: None,
        videos,
        seconds: StageSeconds::default(),
    };
    commit(store, Files { part, crops: None }, record).unwrap();
}

/// Starts a run and waits for its event of that name; what it took until then.
fn until(run: &mut Command, event: &str) -> (Watched, Taken) {
    let mut run = Watched::start(run.arg("--json").stdout(Stdio::piped()));
    let mut lines = BufReader::new(run.child.stdout.take().unwrap()).lines();
    let name = format!("\"event\":\"{event}\"");
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains(&name));
    assert!(found, "no {event}");
    let taken = run.taken();
    // Whoever reads no further holds it up.
    let reading = std::thread::Builder::new().name("reading".into());
    reading.spawn(move || lines.for_each(drop)).unwrap();
    (run, taken)
}

#[test]
fn a_collection_of_very_many_videos_is_planned_finished_and_told_in_bounded_memory() {
    let videos = match std::env::var("AFFECTMILL_VIDEOS") {
        Ok(count) => count.parse().unwrap(),
        Err(_) if soak() => 1_000_000,
        Err(_) => 2_000,
    };
    // One more than fills shards, so that the last one is short.
    let project = collection(videos + 1);
    let out = project.output("out");
    let tell = |what: &str, taken: Taken| {
        let (files, bytes) = size(&out.join("_affectmill"));
        println!(
            "{videos} videos: {what}: {:.2} s, {} MiB; {files} files and {} KiB in _affectmill",
            taken.time.as_secs_f64(),
            taken.peak,
            bytes >> 10,
        );
        taken.peak
    };
    let run = || {
        let mut run = project.command("out", &["run.workers=1", "output.shard_frames=5000"]);
        run.stdout(Stdio::null());
        run
    };
    let ask = |command: &str| {
        let mut ask = affectmill();
        ask.arg(command).stdout(Stdio::null());
        if !command.starts_with("--") {
            ask.arg(&out);
        }
        let (code, taken) = Watched::start(&mut ask).whole();
        assert_eq!(code, Some(0), "{command}");
        taken
    };
    // Most of it are libraries.
    let nothing = tell("--version", ask("--version"));

    // Killed as soon as it has planned everything.
    let (killed, planned) = until(&mut run(), "run_started");
    drop(killed);
    let mut peaks = vec![tell("discover and plan", planned)];

    let store = Store::open(&out).unwrap();
    let job = LabelSet::open(store.clone()).unwrap().into_job();
    let schema = LabelSchema::new(&job.models, job.job.output.values, &job.fingerprint);
    let shards = plan::read_all(&store).unwrap();
    assert_eq!(
        shards.iter().map(|shard| shard.videos.len()).sum::<usize>(),
        videos + 1
    );
    let (last, others) = shards.split_last().unwrap();
    assert_eq!(last.videos.len(), 1);
    let began = Instant::now();
    others.iter().for_each(|shard| label(&store, &schema, shard));
    let seconds = began.elapsed().as_secs_f64();
    println!("{} shards labelled by this test in {seconds:.1} s", others.len());
    drop(shards);
    tell("status, of no run's keeping", ask("status"));

    let (running, begun) = until(&mut run(), "worker_started");
    tell("run again: discover and read the plans", begun);
    let status = ask("status");
    tell("status, of a run that goes on", status);
    let (code, finished) = running.whole();
    assert_eq!(code, Some(0));
    peaks.push(tell("… label the last video, finish", finished));
    let (code, idle) = Watched::start(&mut run()).whole();
    assert_eq!(code, Some(0));
    peaks.push(tell("run again, nothing to do", idle));
    let told = ask("status");
    tell("status, finished", told);
    let summary = tell("summary", ask("summary"));

    let (files, bytes) = size(&out.join("_affectmill"));
    assert!(files < 20 + videos / 30, "{files} files");
    assert!(bytes < (1 << 20) + 300 * videos as u64, "{bytes} bytes");
    for peak in peaks {
        // 64 MiB, and 800 bytes a video.
        let most = nothing + 64 + ((800 * videos as u64) >> 20);
        assert!(
            peak <= most.max(1024),
            "{peak} MiB, of which {nothing} are libraries"
        );
    }
    // It reads every part, and 25,000 of them have much to say of themselves.
    assert!(
        summary <= (nothing + 128 + ((900 * videos as u64) >> 20)).max(1280),
        "{summary} MiB"
    );
    if soak() {
        for status in [status, told] {
            assert!(status.time < Duration::from_secs(1), "{status:?}");
        }
    }
}
