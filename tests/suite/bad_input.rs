//! Bad input: a clear error that names the cause and the remedy, the documented exit code, nothing half-written.

use super::common::*;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The run ends with this code and says all of these; `labels/` of the output holds nothing.
fn refused(project: &Project, sets: &[&str], code: i32, says: &[&str]) {
    let done = project.run("out", sets, code);
    let err = stderr(&done);
    for words in says {
        assert!(err.contains(words), "expected `{words}` in:\n{err}");
    }
    let labels = project.output("out").join("labels");
    assert!(
        !labels.exists() || tree(&labels).is_empty(),
        "nothing under labels/"
    );
}

#[test]
fn a_missing_or_empty_input_is_refused() {
    let project = Project::new();
    refused(&project, &["input.uri=/no/such/folder"], 2, &["/no/such/folder"]);
    refused(
        &project,
        &[],
        2,
        &[project.videos().to_str().unwrap(), "extensions"],
    );
    fs::write(project.videos().join("notes.txt"), "x").unwrap();
    refused(&project, &[], 2, &["txt"]);
    assert!(
        !project.output("out").exists(),
        "not even the output folder was made"
    );
}

#[test]
fn broken_videos_fail_alone_and_are_named() {
    let project = Project::new().synthetic(1, 20);
    fs::write(project.videos().join("empty.mp4"), b"").unwrap();
    fs::write(
        project.videos().join("text.mp4"),
        b"this is no video at all, just text\n".repeat(40),
    )
    .unwrap();
    let done = project.run("out", &[], 3);
    let err = stderr(&done);
    for words in [
        "failed (corrupt): empty.mp4",
        "failed (corrupt): text.mp4",
        "1 ok, 2 failed",
    ] {
        assert!(err.contains(words), "expected `{words}` in:\n{err}");
    }
    assert_eq!(rows(&project.output("out")).len(), 20);
    assert!(project.output("out").join("_SUCCESS").exists());
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let project = Project::with_models(&["teacher_va"]).synthetic(1, 20);
    refused(
        &project,
        &["models.0.weights=/no/such.safetensors"],
        2,
        &["/no/such.safetensors"],
    );
    refused(
        &project,
        &["models.0.kind=student"],
        2,
        &["teacher_va.safetensors", "`student` is expected"],
    );
    let text = project.dir.path().join("text.safetensors");
    fs::write(&text, "no weights").unwrap();
    let set = format!("models.0.weights={}", text.display());
    refused(&project, &[&set], 2, &["text.safetensors"]);

    let job = fs::read_to_string(project.job()).unwrap();
    let without: String = job
        .lines()
        .filter(|line| !line.starts_with("weights"))
        .map(|l| format!("{l}\n"))
        .collect();
    fs::write(project.job(), without).unwrap();
    refused(&project, &[], 2, &["job.toml:5", "weights"]);
}

#[test]
fn an_output_of_another_job_is_refused_with_what_differs() {
    let project = Project::new().synthetic(1, 20);
    project.run("out", &[], 0);
    let before = tree(&project.output("out").join("labels"));
    let done = project.run("out", &["sampling.mode=stride", "sampling.stride=2"], 2);
    let err = stderr(&done);
    for words in ["sampling.mode", "sampling.stride", "another"] {
        assert!(err.contains(words), "expected `{words}` in:\n{err}");
    }
    assert!(before == tree(&project.output("out").join("labels")));
    // What does not change a label may change.
    project.run(
        "out",
        &["run.workers=2", "run.batch=4", "output.shard_frames=9"],
        0,
    );
}

#[test]
fn an_output_without_a_commit_says_what_to_remove_for_another_job() {
    let project = Project::new().synthetic(1, 20);
    let mut run = project.start("out", &["run.workers=1"]);
    run.until("run_started");
    run.signal("KILL");
    run.wait();
    let records = project.output("out").join("_affectmill");
    assert!(fs::read_dir(records.join("commits")).map_or(0, Iterator::count) == 0);
    let other = ["sampling.mode=stride", "sampling.stride=2"];
    let refused = stderr(&project.run("out", &other, 2));
    assert!(
        refused.contains("was begun by another job")
            && refused.contains(&format!("removing {}", records.display())),
        "{refused}"
    );
    fs::remove_dir_all(records).unwrap();
    project.run("out", &other, 0);
    assert_eq!(rows(&project.output("out")).len(), 10);
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let project = Project::new().synthetic(1, 20);
    let done = project
        .command("out", &["output.uri=/sys/affectmill-out"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(4), "{}", stderr(&done));
    assert!(stderr(&done).contains("/sys/affectmill-out"), "{}", stderr(&done));

    let file = project.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let done = project
        .command("out", &[&format!("output.uri={}", file.display())])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(4), "{}", stderr(&done));
    assert!(stderr(&done).contains("not a folder"), "{}", stderr(&done));
}

/// Runs a shell script with a small file system of its own at `$1`, then the command line in `$2…`.
fn on_small_disk(at: &Path, size: &str, command: &Command) -> std::process::Output {
    fs::create_dir_all(at).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} none \"$0\" && \"$@\"; code=$?; find \"$0/labels\" -type f >&2; exit $code"
    );
    Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .arg(at)
        .arg(command.get_program())
        .args(command.get_args())
        .output()
        .expect("unshare")
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_nothing_half_written() {
    let project = Project::with_models(&["student"]).synthetic(1, 100);
    // Room for the records, not for the part.
    let done = on_small_disk(&project.output("out"), "32k", &project.command("out", &[]));
    let err = stderr(&done);
    assert_eq!(done.status.code(), Some(4), "{err}");
    assert!(err.contains("disk") && err.contains("full"), "{err}");
    assert!(!err.contains("labels/part-"), "nothing under labels/:\n{err}");
}

#[test]
fn a_stranger_under_labels_is_named_and_left_alone() {
    let project = Project::new().synthetic(1, 20);
    // A name that is a pattern to some libraries.
    project.run("out [1]*", &[], 0);
    let stranger = project.output("out [1]*").join("labels/stranger.parquet");
    fs::write(&stranger, "no Parquet").unwrap();
    let again = project.run("out [1]*", &[], 0);
    assert!(stderr(&again).contains("stranger.parquet belongs to no commit"));
    let tables = succeed(affectmill().arg("summary").arg(project.output("out [1]*")));
    assert!(tables.contains("clip00.mp4"), "{tables}");
    assert!(stranger.exists());
}
