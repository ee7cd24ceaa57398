//! Every row is from what the record names: the very weights, the very program, the device that is said.

use super::common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A job whose weights lie beside it under these names, each with one of the same kind to replace it by.
struct Swapped {
    project: Project,
    file: PathBuf,
    other: PathBuf,
}

fn init(kind: &str, seed: &str, to: &Path) {
    let args = ["--kind", kind, "--seed", seed, "--crop", "arcface112", "-o"];
    succeed(affectmill().arg("init-weights").args(args).arg(to));
}

/// A member of an ensemble, a TorchScript module, the face detector.
fn swapped() -> [(&'static str, Swapped); 3] {
    let golden = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name)
    };
    let begin = |project: Project, from: &str, more: &str| {
        let project = project.synthetic(3, 12);
        let file = project.dir.path().join("own.weights");
        let other = project.dir.path().join("other.weights");
        let job = fs::read_to_string(project.job()).unwrap();
        assert!(job.contains(from), "{job}");
        fs::write(project.job(), job.replace(from, more)).unwrap();
        Swapped { project, file, other }
    };
    let member = begin(Project::new(), "[output]", "also = [\"own.weights\"]\n[output]");
    init("mini_xception", "1", &member.file);
    init("mini_xception", "2", &member.other);

    let script = "[[models]]\nname = \"own\"\nkind = \"torchscript\"\nweights = \"own.weights\"\n\
                  outputs = [\"arousal\", \"Happiness\", \"_\", \"Surprise\", \"Neutral\", \"valence\", \"Sadness\", \"Fear\", \
                  \"Anger\", \"Disgust\"]\n[output]";
    let script = begin(Project::new(), "[output]", script);
    fs::copy(golden("scores_a.pt"), &script.file).unwrap();
    fs::copy(golden("scores_b.pt"), &script.other).unwrap();

    let found = detector();
    let detecting = Project::new().detecting();
    let detecting = begin(detecting, &format!("{found:?}"), "\"own.weights\"");
    fs::copy(&found, &detecting.file).unwrap();
    // The same numbers with another mark: no model tells them apart, and no record may name them alike.
    let bytes = fs::read(&found).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let head = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let head = head.replacen("\"__metadata__\":{", "\"__metadata__\":{\"mark\":\"other\",", 1);
    let head = format!(
        "{:1$}",
        head.trim_end(),
        head.trim_end().len().next_multiple_of(8)
    );
    let whole = [
        &(head.len() as u64).to_le_bytes(),
        head.as_bytes(),
        &bytes[8 + length..],
    ]
    .concat();
    fs::write(&detecting.other, whole).unwrap();
    [
        ("model `mini_xception`", member),
        ("model `own`", script),
        ("the face detector", detecting),
    ]
}

#[test]
fn weights_that_are_replaced_in_mid_run_end_it_with_a_clear_error() {
    for (whose, Swapped { project, file, other }) in swapped() {
        let sets = ["output.shard_frames=1", "run.workers=1"];
        project.run("calm", &sets, 0);
        let former = fs::read(&file).unwrap();

        let mut run = project.start("out", &sets);
        let pid = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
        run.until("leased");
        fs::rename(&other, &file).unwrap();
        signal(pid, "KILL");
        while run.event().is_some() {}
        let done = run.child.wait_with_output().unwrap();
        let err = stderr(&done);
        assert_eq!(done.status.code(), Some(4), "{whose}: {err}");
        let said = [
            "were replaced since the run began",
            "own.weights",
            "put the former ones back",
            whose,
        ];
        assert!(said.iter().all(|words| err.contains(words)), "{whose}: {err}");

        // A new run sees that the job is another one; with the former weights it ends as if nothing had been.
        let refused = project.run("out", &sets, 2);
        assert!(
            stderr(&refused).contains("by another job"),
            "{}",
            stderr(&refused)
        );
        fs::write(&file, former).unwrap();
        project.run("out", &sets, 0);
        assert_same_labels(&project.output("calm"), &project.output("out"));
    }
}

#[test]
fn a_program_that_is_replaced_in_mid_run_goes_on_as_it_began() {
    let project = Project::new().synthetic(3, 12);
    let own = project.dir.path().join("own-affectmill");
    if fs::hard_link(env!("CARGO_BIN_EXE_affectmill"), &own).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_affectmill"), &own).unwrap();
    }
    let mut command = Command::new(&own);
    command.arg("run").arg(project.job());
    command.args(["--set", "output.shard_frames=1", "--set", "run.workers=1"]);
    let mut run = Running::start(command);
    let pid = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    run.until("leased");
    // As an upgrade does it.
    let upgrade = project.dir.path().join("upgrade");
    fs::write(&upgrade, "#!/bin/sh\nexit 1\n").unwrap();
    succeed(Command::new("chmod").arg("+x").arg(&upgrade));
    fs::rename(&upgrade, &own).unwrap();
    signal(pid, "KILL");
    let again = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    run.until("worker_ready");
    let name = fs::read_to_string(format!("/proc/{again}/comm")).unwrap();
    assert_eq!(run.wait(), Some(0));
    assert_eq!(rows(&project.output("out")).len(), 36);
    assert_eq!(name.trim(), "affectmill", "as `top` shows it");
}

/// As a machine without a GPU has it, wherever the test runs.
fn on_the_cpu(mut command: Command) -> std::process::Output {
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .expect("affectmill starts")
}

/// What a run with a GPU leaves behind of its first shard.
const CUDA: &str = r#"{"version": 1, "device": {"class": "cuda", "name": "NVIDIA H100"}}"#;

#[test]
fn an_output_goes_on_on_the_class_of_device_that_it_was_begun_on() {
    let project = Project::new().synthetic(2, 10);
    let out = project.output("out");
    let done = on_the_cpu(project.command("out", &["run.workers=1", "run.threads=3"]));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(
        stderr(&done).contains("with 1 worker: cpu, 3 threads"),
        "{}",
        stderr(&done)
    );
    let record = out.join("_affectmill/device.json");
    let json =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let cpu = serde_json::json!({"class": "cpu"});
    assert_eq!(json(&record)["device"], cpu);
    let commits = || -> Vec<_> {
        let folder = fs::read_dir(out.join("_affectmill/commits")).unwrap();
        folder
            .map(|commit| json(&commit.unwrap().path())["device"].clone())
            .collect()
    };
    assert_eq!(commits(), std::slice::from_ref(&cpu));

    // Begun on a GPU that is gone: nothing is planned, and with nothing to do nothing is refused.
    fs::write(&record, CUDA).unwrap();
    let done = on_the_cpu(project.command("out", &[]));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    synthetic(&project.videos().join("new.mp4"), 10, 5);
    fs::write(project.videos().join("bad.mp4"), "no video").unwrap();
    let plans = || tree(&out.join("_affectmill/plans"));
    let before = plans();
    let refused = on_the_cpu(project.command("out", &[]));
    let err = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{err}");
    let said = [
        "was begun on cuda (NVIDIA H100)",
        "would go on on cpu",
        "--allow-device-change",
        "affectmill doctor",
    ];
    assert!(said.iter().all(|words| err.contains(words)), "{err}");
    assert!(
        plans() == before && out.join("_SUCCESS").exists(),
        "nothing was begun"
    );

    let mut allowed = project.command("out", &[]);
    allowed.arg("--allow-device-change");
    let done = on_the_cpu(allowed);
    assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
    assert_eq!(
        (commits(), json(&record)),
        (vec![cpu.clone(); 2], serde_json::from_str(CUDA).unwrap())
    );
    let job = json(&out.join("_affectmill/job.json"));
    assert_eq!(
        job["job"]["run"]["allow_device_change"], false,
        "said for one run"
    );
    synthetic(&project.videos().join("bad.mp4"), 10, 6);
    let refused = on_the_cpu(project.retry_command("out", &[]));
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let done = on_the_cpu(project.retry_command("out", &["--allow-device-change"]));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));

    // An older affectmill has left no record: from now on there is one.
    fs::remove_file(&record).unwrap();
    synthetic(&project.videos().join("more.mp4"), 10, 7);
    assert_eq!(on_the_cpu(project.command("out", &[])).status.code(), Some(0));
    assert_eq!(json(&record)["device"], cpu);

    // What is said of a set that was labelled on two.
    let folder = fs::read_dir(out.join("_affectmill/commits")).unwrap();
    let commit = folder.map(|commit| commit.unwrap().path()).next().unwrap();
    let mut changed = json(&commit);
    changed["device"] = serde_json::from_str::<serde_json::Value>(CUDA).unwrap()["device"].clone();
    fs::write(&commit, changed.to_string()).unwrap();
    let line = "labelled on more than one kind of device: 3 shards on cpu, 1 shard on cuda (NVIDIA H100)";
    let done = on_the_cpu(project.command("out", &[]));
    assert!(stderr(&done).contains(line), "{}", stderr(&done));
    let status = succeed(affectmill().arg("status").arg(&out));
    assert!(status.contains(line), "{status}");
}

#[test]
fn whoever_commits_first_fixes_the_class_of_device() {
    let project = Project::new().synthetic(1, 10);
    let mut run = project.start("out", &["run.workers=1"]);
    let pid = run.until("worker_started")["pid"].as_u64().unwrap() as u32;
    run.until("leased");
    signal(pid, "STOP");
    fs::write(project.output("out").join("_affectmill/device.json"), CUDA).unwrap();
    signal(pid, "CONT");
    while run.event().is_some() {}
    let done = run.child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(4), "{}", stderr(&done));
    assert!(
        stderr(&done).contains("was begun on cuda (NVIDIA H100)"),
        "{}",
        stderr(&done)
    );
    assert!(
        !project.output("out").join("labels").exists(),
        "nothing of another device is there"
    );
}

#[test]
fn a_job_that_wants_a_gpu_is_refused_without_one() {
    let project = Project::new().synthetic(1, 5);
    let refused = on_the_cpu(project.command("out", &["run.device=cuda"]));
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("[run] device = \"cuda\" cannot be had here"),
        "{}",
        stderr(&refused)
    );
    assert!(!project.output("out").exists());
    let refused = on_the_cpu(project.command("out", &["run.device=cpu", "input.decode=nvdec"]));
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    project.run("out", &["run.device=cpu"], 0);
}
