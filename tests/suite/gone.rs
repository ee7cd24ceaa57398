//! An input that goes away under a run: it waits, no video suffers, and in the end it says so.

use super::common::*;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Where the videos are while they are away.
fn away(project: &Project) -> PathBuf {
    project.dir.path().join("away")
}

/// Runs until so many shards are done, then lets something befall the input.
fn run_until(project: &Project, shards: usize, sets: &[&str], befalls: impl FnOnce(&Running)) -> Running {
    let mut run = project.start("out", sets);
    for _ in 0..shards {
        run.until("shard_done");
    }
    befalls(&run);
    run
}

fn assert_unfinished(project: &Project, done: std::process::Output) {
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(4), "{told}");
    assert!(
        told.contains(project.videos().to_str().unwrap()) && told.contains("went away"),
        "{told}"
    );
    assert!(!project.output("out").join("_SUCCESS").exists());
}

#[test]
fn a_run_waits_for_an_input_that_comes_back() {
    let project = Project::new().synthetic(12, 10);
    let sets = ["output.shard_frames=1", "run.workers=1"];
    project.run("calm", &sets, 0);
    let rename = |_: &Running| fs::rename(project.videos(), away(&project)).unwrap();
    let mut run = run_until(&project, 3, &sets, rename);
    let waits = run.until("waiting");
    let reason = waits["reason"].as_str().unwrap();
    assert!(
        reason.contains("went away") && reason.contains("mount its disk"),
        "{reason}"
    );
    std::thread::sleep(Duration::from_millis(500));
    fs::rename(away(&project), project.videos()).unwrap();
    while let Some(event) = run.event() {
        assert_ne!(event["event"], "video_not_ok", "{event}");
        assert_ne!(event["event"], "strike", "{event}");
    }
    assert_eq!(run.wait(), Some(0));
    assert_same_labels(&project.output("calm"), &project.output("out"));
}

#[test]
fn an_input_that_stays_away_ends_the_run_and_no_video_has_failed() {
    let project = Project::new().synthetic(8, 10);
    let sets = ["output.shard_frames=1", "run.workers=2", "run.outage_timeout=1"];
    project.run("calm", &sets, 0);
    // A disk that was unmounted leaves an empty folder, another one.
    let run = run_until(&project, 2, &sets, |_| {
        fs::rename(project.videos(), away(&project)).unwrap();
        fs::create_dir(project.videos()).unwrap();
    });
    assert_unfinished(&project, run.output());
    fs::remove_dir(project.videos()).unwrap();
    fs::rename(away(&project), project.videos()).unwrap();
    project.run("out", &sets, 0);
    assert_same_labels(&project.output("calm"), &project.output("out"));
}

#[test]
fn a_disk_that_is_unmounted_under_a_run_ends_it_and_no_video_has_failed() {
    let project = Project::new().synthetic(8, 10);
    let sets = ["output.shard_frames=1", "run.workers=1", "run.outage_timeout=1"];
    project.run("calm", &sets, 0);
    fs::rename(project.videos(), away(&project)).unwrap();
    fs::create_dir(project.videos()).unwrap();
    let run = project.command("out", &sets);
    let mut mounted = Command::new("unshare");
    mounted.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    mounted.arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"");
    mounted.arg(away(&project)).arg(project.videos());
    mounted.arg(run.get_program()).args(run.get_args());
    let mut run = Running::start(mounted);
    run.until("shard_done");
    let pid = run.child.id().to_string();
    succeed(
        Command::new("nsenter")
            .args([
                "--user",
                "--mount",
                "--preserve-credentials",
                "-t",
                &pid,
                "umount",
                "-l",
            ])
            .arg(project.videos()),
    );
    assert_unfinished(&project, run.output());
    fs::remove_dir(project.videos()).unwrap();
    fs::rename(away(&project), project.videos()).unwrap();
    project.run("out", &sets, 0);
    assert_same_labels(&project.output("calm"), &project.output("out"));
}

#[test]
fn a_dozen_videos_in_a_row_that_are_gone_end_the_run_unless_they_were_gone_when_it_began() {
    let mut project = Project::new();
    for (folder, count) in [("a", 1), ("b", 14), ("c", 1)] {
        fs::create_dir(project.videos().join(folder)).unwrap();
        for n in 0..count {
            synthetic(&project.videos().join(format!("{folder}/{n:02}.mp4")), 5, n);
        }
    }
    let sets = [
        "output.shard_frames=1000",
        "run.workers=1",
        "run.outage_timeout=1",
    ];
    project.run("calm", &sets, 0);
    // Three seconds for each read of the first, in which the second disk of two goes away.
    project.faults = "slow:0:100000:a/00.mp4".into();
    let mut run = project.start("out", &sets);
    run.until("opened");
    fs::rename(project.videos().join("b"), away(&project)).unwrap();
    let done = run.output();
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(4), "{told}");
    assert!(
        told.contains("12 videos in a row") && told.contains("b/11.mp4"),
        "{told}"
    );
    assert!(!project.output("out").join("_SUCCESS").exists());

    // Somebody meant it.
    project.faults.clear();
    project.run("out", &sets, 3);
    let gone = videos(&project.output("out")).into_values();
    let gone = gone.filter(|video| video.class.as_deref() == Some("io"));
    assert_eq!(gone.count(), 14);
    assert_eq!(rows(&project.output("out")).len(), 10);
    // Or not.
    fs::rename(away(&project), project.videos().join("b")).unwrap();
    project.retry("out", &[], 0);
    assert_eq!(outputs(&project.output("out")), outputs(&project.output("calm")));
}

#[test]
fn an_input_that_goes_away_while_it_is_planned_is_not_planned_as_unreadable() {
    let mut project = Project::new().synthetic(5, 10);
    project.run("calm", &[], 0);
    project.faults = "slow:0:100:clip00.mp4".into();
    let mut run = project.start("out", &[]);
    run.until("probing");
    fs::rename(project.videos(), away(&project)).unwrap();
    assert_unfinished(&project, run.output());
    assert!(!project.output("out").join("_affectmill/plans").exists());
    fs::rename(away(&project), project.videos()).unwrap();
    project.faults.clear();
    project.run("out", &[], 0);
    assert_same_labels(&project.output("calm"), &project.output("out"));
}
