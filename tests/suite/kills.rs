//! Whatever is killed whenever, running again ends in the same bytes.

use super::common::*;
use std::time::{Duration, Instant};

fn times() -> u64 {
    if soak() { 60 } else { 10 }
}

/// A corpus with its undisturbed output, and how many milliseconds that took: a kill may hit any moment of it.
fn undisturbed() -> (Project, u64) {
    let project = Project::new().synthetic(8, 60);
    let began = Instant::now();
    project.run("calm", &["run.workers=2"], 0);
    (project, began.elapsed().as_millis() as u64)
}

#[test]
fn killing_the_coordinator_at_random_moments_changes_no_byte() {
    let (project, longest) = undisturbed();
    let mut dice = Dice::new();
    let (mut kills, mut round) = (0, 0);
    while kills < times() {
        // A killed output is carried on with until it is whole; then a fresh one is begun.
        let output = format!("stormy{round}");
        let mut run = project.start(&output, &["run.workers=2"]);
        let moment = Duration::from_millis(dice.roll(longest));
        std::thread::sleep(moment);
        if run.child.try_wait().unwrap().is_none() {
            run.signal("KILL");
            kills += 1;
        }
        if run.wait() == Some(0) {
            assert_same_labels(&project.output("calm"), &project.output(&output));
            round += 1;
        }
    }
    let output = format!("stormy{round}");
    project.run(&output, &[], 0);
    assert_same_labels(&project.output("calm"), &project.output(&output));
    project.run(&output, &[], 0);
}

#[test]
fn killing_workers_at_random_moments_changes_no_byte_and_strikes_no_video() {
    let (project, longest) = undisturbed();
    let mut dice = Dice::new();
    let (mut kills, mut round) = (0, 0);
    while kills < times() {
        let output = format!("stormy{round}");
        let mut run = project.start(&output, &["run.workers=2"]);
        let mut pids = Vec::new();
        let mut next = Instant::now() + Duration::from_millis(dice.roll(longest));
        while let Some(event) = run.event() {
            match event["event"].as_str() {
                Some("worker_started") => pids.push(event["pid"].as_u64().unwrap() as u32),
                Some("strike") => panic!("a kill from outside is not the video's fault: {event}"),
                _ => {}
            }
            if Instant::now() >= next && kills < times() && !pids.is_empty() {
                let at = dice.roll(pids.len() as u64) as usize;
                signal(pids.swap_remove(at), "KILL");
                kills += 1;
                next = Instant::now() + Duration::from_millis(dice.roll(longest));
            }
        }
        assert_eq!(run.wait(), Some(0));
        assert_same_labels(&project.output("calm"), &project.output(&output));
        round += 1;
    }
}

#[test]
fn two_coordinators_on_one_output_end_with_one_dataset() {
    let project = Project::new().synthetic(6, 30);
    project.run("calm", &[], 0);
    let (one, two) = (project.start("both", &[]), project.start("both", &[]));
    assert_eq!((one.wait(), two.wait()), (Some(0), Some(0)));
    assert_same_labels(&project.output("calm"), &project.output("both"));
    assert!(project.output("both").join("_SUCCESS").exists());
}
