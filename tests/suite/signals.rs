//! The first signal drains, the second stops at once; both leave a run that can be completed.

use super::common::*;

fn drained(signal: &str, code: i32) {
    // A model that takes its time: the signal comes while the first shard is in hand.
    let project = Project::with_models(&["teacher_va"]).synthetic(3, 40);
    project.run("calm", &[], 0);
    let mut run = project.start("out", &["run.workers=1"]);
    run.until("progress");
    run.signal(signal);
    let stopped = run.until("stopped");
    assert_eq!(
        stopped["shards_done"], 1,
        "the shard in hand is finished, and no other: {stopped}"
    );
    assert_eq!(run.wait(), Some(code));
    assert!(!project.output("out").join("_SUCCESS").exists());
    project.run("out", &[], 0);
    assert_same_labels(&project.output("calm"), &project.output("out"));
}

#[test]
fn ctrl_c_drains_and_exits_130() {
    drained("INT", 130);
}

#[test]
fn sigterm_drains_and_exits_75() {
    drained("TERM", 75);
}

#[test]
fn a_second_signal_stops_at_once() {
    let project = Project::with_models(&["teacher_va"]).synthetic(2, 60);
    let mut run = project.start("out", &["run.workers=1", "output.shard_frames=1000"]);
    run.until("progress");
    run.signal("INT");
    run.until("draining");
    run.signal("INT");
    let stopped = run.until("stopped");
    assert_eq!(stopped["shards_done"], 0, "{stopped}");
    assert_eq!(run.wait(), Some(130));
    assert!(
        !project.output("out").join("labels").exists(),
        "nothing half-written under labels/"
    );
    project.run("out", &["output.shard_frames=1000"], 0);
    assert_eq!(rows(&project.output("out")).len(), 120);
}
