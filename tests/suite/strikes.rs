//! Videos that take their workers down: struck, quarantined after three, and no other video suffers.

use super::common::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs to the end; returns the events.
fn run_all(project: &Project, sets: &[&str]) -> (Vec<Value>, Option<i32>) {
    let mut run = project.start("out", sets);
    let mut events = Vec::new();
    while let Some(event) = run.event() {
        events.push(event);
    }
    (events, run.wait())
}

/// Four videos in one shard, of which this befalls every worker that reads far into the second.
fn bad_second(fault: &str) -> Project {
    let mut project = Project::new();
    for n in 0..4 {
        noisy(&project.videos().join(format!("clip{n:02}.mp4")), 40, n);
    }
    project.faults = format!("{fault}:60000:61000:clip01.mp4");
    project
}

fn assert_quarantined(project: &Project, events: &[Value], code: Option<i32>, reason: &str, class: &str) {
    let strikes = events.iter().filter(|event| event["event"] == "strike").count();
    assert_eq!(strikes, 3);
    assert_eq!(code, Some(3), "finished, but a video failed");
    let labelled: BTreeMap<String, usize> =
        rows(&project.output("out"))
            .into_iter()
            .fold(BTreeMap::new(), |mut counts, row| {
                *counts.entry(row.video).or_default() += 1;
                counts
            });
    let expected = ["clip00.mp4", "clip02.mp4", "clip03.mp4"].map(|name| (name, 40));
    let expected: BTreeMap<String, usize> = expected.map(|(name, rows)| (name.to_owned(), rows)).into();
    assert_eq!(labelled, expected, "every other video has all its rows");
    let listed = &events.last().unwrap()["summary"]["not_ok"][0];
    assert_eq!(listed["video"], "clip01.mp4");
    assert_eq!(listed["status"], "quarantined");
    let error = listed["error"].as_str().unwrap();
    assert!(error.contains(reason) && error.contains("3 attempts"), "{listed}");
    assert_eq!(listed["class"], class);

    // The quarantine lasts, and is told again.
    let again = project.run("out", &["output.shard_frames=1000"], 3);
    assert!(
        stderr(&again).contains(&format!("quarantined ({class}): clip01.mp4")),
        "{}",
        stderr(&again)
    );
}

#[test]
fn a_video_that_crashes_its_worker_three_times_is_quarantined() {
    let project = bad_second("crash");
    let (events, code) = run_all(&project, &["output.shard_frames=1000", "run.batch=4"]);
    assert_quarantined(&project, &events, code, "SIGSEGV", "crash");
}

#[test]
fn a_worker_that_its_session_s_limit_of_processor_time_ends_strikes_no_video() {
    let project = Project::new().synthetic(2, 15);
    let mut run = project.start("out", &["run.workers=1"]);
    let worker = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    run.until("opened");
    signal(worker, "XCPU");
    let lost = run.until("worker_lost");
    assert!(lost["reason"].as_str().unwrap().contains("SIGXCPU"), "{lost}");
    while let Some(event) = run.event() {
        assert_ne!(event["event"], "strike", "{event}");
    }
    assert_eq!(run.wait(), Some(0));
}

#[test]
fn a_video_that_hangs_its_worker_three_times_is_quarantined() {
    let project = bad_second("hang");
    let sets = ["output.shard_frames=1000", "run.batch=4", "run.stall_timeout=6.0"];
    let (events, code) = run_all(&project, &sets);
    assert_quarantined(&project, &events, code, "no progress for 6 s", "timeout");
}

#[test]
fn a_batch_that_takes_longer_than_the_stall_timeout_is_no_hang() {
    // One thread looks at 32 faces in about a second, and sees each of the 128 twice.
    let project = Project::with_models(&["student"]).synthetic(2, 70);
    let sets = [
        "run.batch=128",
        "models.0.flip=true",
        "run.threads=1",
        "run.stall_timeout=4.0",
        "output.shard_frames=1000",
    ];
    let done = project.run("out", &sets, 0);
    assert!(!stderr(&done).contains("lost"), "{}", stderr(&done));
    assert_eq!(rows(&project.output("out")).len(), 140);
}

#[test]
fn a_hang_in_the_midst_of_a_batch_strikes_the_video_of_its_oldest_row() {
    let project =
        Project::with_models(&["student", "teacher_va", "teacher_expr", "teacher_au"]).synthetic(2, 20);
    let sets = [
        "run.batch=128",
        "models.0.flip=true",
        "models.1.flip=true",
        "run.threads=1",
        "run.stall_timeout=4.0",
        "run.max_strikes=1",
        "output.shard_frames=1000",
    ];
    let mut run = project.start("out", &sets);
    let worker = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    while run.until("progress")["frames"] != 40 {}
    // Both are decoded; the models have seconds to go.
    std::thread::sleep(Duration::from_millis(500));
    signal(worker, "STOP");
    let lost = run.until("worker_lost");
    assert_eq!(
        (&lost["video"], &lost["last_frame"]),
        (&"clip00.mp4".into(), &0.into()),
        "{lost}"
    );
    assert_eq!(run.until("strike")["video"], "clip00.mp4");
    assert_eq!(run.wait(), Some(3));
    assert_eq!(rows(&project.output("out")).len(), 20, "the other one's");
}

/// The command on a machine of another boot.
pub fn rebooted(folder: &Path, boot: usize, command: &Command) -> Command {
    let id = folder.join(format!("boot{boot}"));
    fs::write(&id, format!("{boot:08}-0000-4000-8000-000000000000\n")).unwrap();
    let mut rebooted = Command::new("unshare");
    rebooted.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    rebooted.arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"");
    rebooted
        .arg(id)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        rebooted.env(name, value.expect("a value"));
    }
    rebooted
}

/// Three videos in one shard, of which the second takes the whole run down: it is in hand whenever that dies.
pub fn deadly() -> Project {
    let mut project = Project::new();
    for n in 0..3 {
        noisy(&project.videos().join(format!("clip{n:02}.mp4")), 40, n);
    }
    project.faults = "hang:60000:61000:clip01.mp4".into();
    project
}

/// Starts a run, and kills it with all its workers when the second video is in hand.
pub fn die(command: Command) {
    let mut run = Running::start(command);
    while run.until("opened")["video"] != "clip01.mp4" {}
    // Its last frame before the hang.
    std::thread::sleep(Duration::from_millis(300));
    run.signal("KILL");
    assert_eq!(run.wait(), None);
}

#[test]
fn a_video_that_takes_the_whole_run_down_is_quarantined_by_the_runs_that_follow() {
    let project = deadly();
    let sets = ["output.shard_frames=1000", "run.batch=4"];
    let folder = project.dir.path();
    for boot in 0..3 {
        die(rebooted(folder, boot, &project.command("out", &sets)));
    }
    let done = rebooted(folder, 3, &project.command("out", &sets))
        .output()
        .unwrap();
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(3), "{told}");
    assert!(told.contains("an earlier run died without a word"), "{told}");
    let videos = videos(&project.output("out"));
    let deadly = &videos["clip01.mp4"];
    assert_eq!(
        (deadly.status.as_str(), deadly.class.as_deref()),
        ("quarantined", Some("crash"))
    );
    assert!(
        deadly.error.as_deref().unwrap().contains("3 attempts"),
        "{deadly:?}"
    );
    for name in ["clip00.mp4", "clip02.mp4"] {
        assert_eq!(
            (videos[name].status.as_str(), videos[name].rows),
            ("ok", 40),
            "{name}"
        );
    }
}

#[test]
fn a_run_that_is_killed_and_not_for_want_of_memory_strikes_no_video() {
    let mut project = deadly();
    let sets = ["output.shard_frames=1000", "run.batch=4"];
    for _ in 0..4 {
        die(project.command("out", &sets));
    }
    project.faults.clear();
    let done = project.run("out", &sets, 0);
    assert!(!stderr(&done).contains("without a word"), "{}", stderr(&done));
    assert_eq!(rows(&project.output("out")).len(), 120);
}

#[test]
fn strikes_outlive_the_run_that_told_them() {
    let project = deadly();
    let sets = ["output.shard_frames=1000", "run.batch=4"];
    for (run, strikes) in [(1, 2), (2, 1)] {
        let mut running = project.start("out", &sets);
        let mut pids = BTreeMap::new();
        let mut told = 0;
        while told < strikes {
            let event = running.event().expect("it goes on");
            match event["event"].as_str() {
                Some("worker_started") => {
                    pids.insert(event["worker"].as_u64(), event["pid"].as_u64().unwrap() as u32);
                }
                Some("opened") if event["video"] == "clip01.mp4" => {
                    // Then it hangs, and the models have nothing to do.
                    std::thread::sleep(Duration::from_secs(1));
                    signal(pids[&event["worker"].as_u64()], "ABRT");
                }
                Some("strike") => {
                    assert_eq!(event["video"], "clip01.mp4");
                    told += 1;
                }
                _ => {}
            }
        }
        if run == 1 {
            running.signal("INT");
            running.signal("INT");
            assert_eq!(running.wait(), Some(130));
        } else {
            assert_eq!(running.wait(), Some(3), "the third in all");
        }
    }
    let videos = videos(&project.output("out"));
    assert!(
        videos["clip01.mp4"]
            .error
            .as_deref()
            .unwrap()
            .contains("3 attempts")
    );
}
