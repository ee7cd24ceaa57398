//! What a label set says of its state while a run is on, after, and to those on another machine.

use super::common::*;
use super::watch::{ask, samples};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MARKS: [&str; 3] = ["_SUCCESS", "videos.parquet", "_affectmill/manifest.json"];

fn there(output: &Path) -> [bool; 3] {
    MARKS.map(|mark| output.join(mark).exists())
}

fn status(output: &Path) -> (Value, String) {
    let ask = |arguments: &[&str]| succeed(affectmill().arg("status").arg(output).args(arguments));
    (serde_json::from_str(&ask(&["--json"])).unwrap(), ask(&[]))
}

#[test]
fn a_finished_set_is_not_called_finished_while_it_grows() {
    let project = Project::new().synthetic(2, 20);
    let sets = ["run.workers=1"];
    project.run("out", &sets, 0);
    let out = project.output("out");
    assert_eq!(there(&out), [true; 3]);
    let written = || fs::metadata(out.join("_SUCCESS")).unwrap().modified().unwrap();
    let before = written();
    project.run("out", &sets, 0);
    assert_eq!(written(), before, "with nothing to do nothing is taken back");
    let marks = MARKS.map(|mark| fs::read(out.join(mark)).unwrap());

    synthetic(&project.videos().join("new.mp4"), 20, 7);
    let mut run = project.start("out", &sets);
    let worker = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    assert_eq!(there(&out), [false; 3], "gone before the first lease");
    signal(worker, "STOP");
    run.signal("KILL");
    run.wait();
    signal(worker, "KILL");
    assert_eq!(there(&out), [false; 3]);
    assert_eq!(status(&out).0["state"], "stopped");

    // Whoever builds upon it is told so: also where a run was killed between its plan and its first lease.
    for left in [false, true] {
        if left {
            let write = |(mark, bytes): (&str, &Vec<u8>)| fs::write(out.join(mark), bytes).unwrap();
            MARKS.into_iter().zip(&marks).for_each(write);
        }
        let faces = [&format!("faces.labels={out:?}"), "faces.mode=from_labels"];
        let refused = project.run("later", &faces, 2);
        assert!(
            stderr(&refused).contains("it is not finished"),
            "{}",
            stderr(&refused)
        );
        let mut evaluate = affectmill();
        evaluate.arg("evaluate").arg(&out).arg("--annotations").arg(&out);
        let told = succeed(evaluate.args(["--samples", "0"]));
        assert!(told.contains("not finished"), "{told}");
        assert_eq!(status(&out).0["state"], "stopped");
    }
    project.run("out", &sets, 0);
    assert_eq!(there(&out), [true; 3]);
    assert_eq!(status(&out).0["state"], "finished");
    assert_eq!(rows(&out).len(), 60);

    // The same of a retry.
    fs::write(project.videos().join("bad.mp4"), "no video").unwrap();
    project.run("out", &sets, 3);
    synthetic(&project.videos().join("bad.mp4"), 20, 8);
    let mut retry = Running::start(project.retry_command("out", &[]));
    retry.until("leased");
    assert_eq!(there(&out), [false; 3]);
    assert_eq!(retry.wait(), Some(0));
    assert_eq!(there(&out), [true; 3]);
}

#[test]
fn status_tells_what_is_committed_and_what_is_under_way() {
    let project = Project::with_models(&["student"]).synthetic(1, 1500);
    let mut run = project.start("out", &["run.workers=1", "run.batch=8"]);
    // The event log has progress every few seconds.
    let (decoded, labelled) = loop {
        run.until("progress");
        let under_way = &status(&project.output("out")).0["under_way"];
        if under_way["rows"].as_u64() > Some(0) {
            break (
                under_way["frames"].as_u64().unwrap(),
                under_way["rows"].as_u64().unwrap(),
            );
        }
    };
    // The event log has progress every few seconds.
    let began = Instant::now();
    while status(&project.output("out")).0["under_way"]["rows"]
        .as_u64()
        .unwrap()
        < labelled
    {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "status knows of no progress"
        );
        sleep(Duration::from_millis(100));
    }
    let pid = run.child.id();
    signal(pid, "STOP");
    let (told, text) = status(&project.output("out"));
    signal(pid, "CONT");
    assert_eq!(
        (&told["state"], &told["rows"]),
        (&"running".into(), &0.into()),
        "{told}"
    );
    let under_way = |what: &str| told["under_way"][what].as_u64().unwrap();
    assert_eq!(under_way("shards"), 1);
    assert!(
        under_way("frames") >= decoded && under_way("rows") >= labelled,
        "{told}"
    );
    let lines = [
        "committed: 0 of 1 shard, 0 of about 1,500 frames, 0 rows",
        "under way: 1 shard, ",
    ];
    assert!(lines.iter().all(|line| text.contains(line)), "{text}");
    assert_eq!(run.wait(), Some(0));
    let (told, text) = status(&project.output("out"));
    assert_eq!(
        (&told["rows"], &told["under_way"]["rows"]),
        (&1500.into(), &0.into())
    );
    assert!(!text.contains("under way"), "{text}");
}

/// The label set as another machine, or a container of its own, sees it: its last sign so many seconds ago.
fn elsewhere(output: &Path, name: &str, seconds: u64) -> PathBuf {
    let copy = output.with_file_name(name);
    succeed(Command::new("cp").arg("-r").arg(output).arg(&copy));
    for log in fs::read_dir(copy.join("_affectmill/events")).unwrap() {
        let path = log.unwrap().path();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let changed = lines.map(|mut line| {
            line["at_ms"] = json!(now.as_millis() as u64 - 1000 * seconds);
            if line["event"] == "run_started" {
                assert!(line["process"]["boot_id"].is_string(), "{line}");
                line["process"]["boot_id"] = "another".into();
                line["host"] = "node7".into();
            }
            format!("{line}\n")
        });
        fs::write(&path, changed.collect::<String>()).unwrap();
    }
    copy
}

#[test]
fn a_run_is_known_by_its_process_here_and_by_its_last_sign_elsewhere() {
    let project = Project::with_models(&["student"]).synthetic(1, 1500);
    let out = project.output("out");
    let mut run = project.start("out", &["run.workers=1"]);
    run.until("progress");
    let pid = run.child.id();
    signal(pid, "STOP");
    let (told, _) = status(&out);
    assert_eq!(
        (&told["state"], &told["last_run"]["known"]),
        (&"running".into(), &true.into())
    );
    for (seconds, state, words) in [
        (5, "running", "running as of "),
        (
            90,
            "stopped",
            "stopped, it seems: nothing was heard from node7 for 1 min",
        ),
    ] {
        let (told, text) = status(&elsewhere(&out, &format!("after-{seconds}"), seconds));
        assert_eq!(
            (&told["state"], &told["last_run"]["known"]),
            (&state.into(), &false.into()),
            "{told}"
        );
        assert!(text.contains(words) && text.contains("node7"), "{text}");
    }
    // Killed, it is stopped at once, also when process 1 of a container asks, and when its number is another one's by now.
    run.signal("KILL");
    run.wait();
    assert_eq!(status(&out).0["state"], "stopped");
    let mut other = affectmill().arg("worker").stdin(Stdio::piped()).spawn().unwrap();
    for log in fs::read_dir(out.join("_affectmill/events")).unwrap() {
        let path = log.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace(&format!("\"pid\":{pid},"), &format!("\"pid\":{},", other.id()));
        fs::write(&path, text).unwrap();
    }
    let (told, _) = status(&out);
    assert_eq!(
        (&told["state"], &told["last_run"]["pid"]),
        (&"stopped".into(), &other.id().into())
    );
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_run_says_that_it_goes_on_while_nothing_happens() {
    let project = Project::new().synthetic(1, 20);
    let mut run = project.start("out", &["run.workers=1"]);
    let pid = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    signal(pid, "STOP");
    run.until("alive");
    signal(pid, "CONT");
    assert_eq!(run.wait(), Some(0));
}

#[test]
fn videos_of_unknown_length_are_counted_and_never_called_empty() {
    let project = Project::new();
    // As a browser records it: written to a pipe, it has no length.
    let live = project.videos().join("live.webm");
    let source = "testsrc2=size=96x64:rate=25";
    let encode = format!(
        "ffmpeg -v error -f lavfi -i {source} -frames:v 250 -c:v libvpx -deadline realtime -f webm - >{live:?}"
    );
    succeed(Command::new("sh").args(["-c", &encode]));
    let ask = |arguments: &[&str]| succeed(affectmill().args(arguments).arg(project.job()));
    let plan: Value = serde_json::from_str(&ask(&["plan", "--json"])).unwrap();
    assert_eq!(
        (&plan["videos"], &plan["unknown"], &plan["frames"]),
        (&1.into(), &1.into(), &0.into())
    );
    let text = ask(&["plan"]);
    assert!(text.contains("and 1 video of unknown length"), "{text}");

    let done = project.run("out", &[], 0);
    assert!(
        stderr(&done).contains("labelling 1 video of unknown length into"),
        "{}",
        stderr(&done)
    );
    assert_eq!(rows(&project.output("out")).len(), 250);
    let (told, text) = status(&project.output("out"));
    let totals = &told["totals"];
    assert_eq!(
        (&totals["frames"], &totals["frames_done"], &totals["unknown"]),
        (&250.into(), &250.into(), &0.into())
    );
    assert!(text.contains("250 of about 250 frames"), "{text}");

    // Beside another one, while it is labelled.
    synthetic(&project.videos().join("a.mp4"), 30, 1);
    let mut run = project.start("both", &["run.workers=1", "output.shard_frames=1"]);
    let started = run.until("run_started");
    let totals = (&started["totals"]["frames"], &started["totals"]["unknown"]);
    assert_eq!(totals, (&30.into(), &1.into()));
    assert_eq!(run.wait(), Some(0));
}

#[test]
fn workers_that_are_not_needed_any_more_leave_the_page_and_the_figures() {
    let project = Project::new().synthetic(1, 15);
    synthetic(&project.videos().join("long.mp4"), 600, 3);
    let sets = [
        "run.metrics=\"127.0.0.1:0\"",
        "run.workers=2",
        "output.shard_frames=20",
    ];
    let mut run = project.start("out", &sets);
    let address = run.until("shown")["address"].as_str().unwrap().to_owned();
    let mut pids = [0; 2];
    let mut held = None;
    let ended = loop {
        let event = run.event().expect("the run goes on");
        let worker = event["worker"].as_u64().unwrap_or_default() as usize;
        match event["event"].as_str() {
            Some("worker_started") => pids[worker] = event["pid"].as_u64().unwrap() as u32,
            Some("opened") if event["video"] == "long.mp4" => {
                signal(pids[worker], "STOP");
                held = Some(worker);
            }
            Some("worker_ended") => break worker,
            _ => {}
        }
    };
    let held = held.expect("the other one has the long video");
    assert_eq!(ended, 1 - held);
    // An event is printed a moment before it is counted.
    let deadline = Instant::now() + Duration::from_secs(10);
    let page = loop {
        let page = ask(&address, "GET", "/").1;
        if page.contains("1 worker<") || Instant::now() > deadline {
            break page;
        }
    };
    assert!(page.contains("1 worker<"), "{page}");
    let figures = samples(&ask(&address, "GET", "/metrics").1);
    assert_eq!(
        (
            figures["affectmill_workers"],
            figures["affectmill_workers_lost_total"]
        ),
        (1.0, 0.0)
    );
    signal(pids[held], "CONT");
    let mut ends = Vec::new();
    while let Some(event) = run.event() {
        if event["event"] == "worker_ended" {
            ends.push(event["worker"].as_u64().unwrap() as usize);
        }
    }
    assert_eq!(ends, [held]);
    assert_eq!(run.wait(), Some(0));
}
