//! What a job may ask of a GPU, on a machine without one: every GPU is hidden here, so that the tests mean the same anywhere.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};

fn without_gpus(mut command: Command) -> Output {
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .expect("affectmill starts")
}

#[test]
fn what_only_a_gpu_can_do_is_refused_with_the_remedy() {
    let project = Project::new().synthetic(1, 5);
    for (set, code, says) in [
        (
            "input.decode=nvdec",
            2,
            &["sees no GPU", "affectmill doctor", "decode = \"cpu\""],
        ),
        (
            "models.0.precision=fp16",
            4,
            &["`fp16` needs a GPU", "precision = \"fp32\"", "bf16"],
        ),
    ] {
        let done = without_gpus(project.command("out", &[set]));
        let err = stderr(&done);
        assert_eq!(done.status.code(), Some(code), "{err}");
        assert!(says.iter().all(|words| err.contains(words)), "{err}");
        let labels = project.output("out").join("labels");
        assert!(!labels.exists() || tree(&labels).is_empty(), "no label");
    }
}

#[test]
fn auto_is_settled_when_an_output_is_begun() {
    let project = Project::new().synthetic(1, 5);
    let auto = ["input.decode=auto"];
    let done = without_gpus(project.command("out", &auto));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let path = project.output("out").join("_affectmill/job.json");
    let record = || -> Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
    let begun = record();
    assert_eq!(begun["job"]["input"]["decode"], "cpu");
    let decoder = begun["identity"]["decode_backend"].as_str().unwrap();
    assert!(decoder.starts_with("cpu, libavcodec "), "{decoder}");

    // On the CPU it is the very job that says so, and one from before there was a choice.
    project.run("out", &["input.decode=cpu"], 0);
    let mut before = begun.clone();
    before["job"]["input"].as_object_mut().unwrap().remove("decode");
    fs::write(&path, before.to_string()).unwrap();
    project.run("out", &[], 0);

    // Begun on a machine with GPUs, it is no other job on one without: there is only no worker for it.
    let mut elsewhere = begun;
    elsewhere["job"]["input"]["decode"] = "nvdec".into();
    fs::write(&path, elsewhere.to_string()).unwrap();
    let done = without_gpus(project.command("out", &auto));
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("sees no GPU"), "{}", stderr(&done));
}

#[test]
fn videos_that_fell_back_to_the_cpu_are_told() {
    let project = Project::new().synthetic(2, 5);
    let done = project.run("out", &["output.shard_frames=1"], 0);
    assert!(!stderr(&done).contains("instead of the GPU"));
    // As a worker with a GPU leaves it of a video that is beyond the GPU's decoder.
    let commits = project.output("out").join("_affectmill/commits");
    for commit in fs::read_dir(&commits).unwrap() {
        let path = commit.unwrap().path();
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if record["videos"][0]["key"] == "clip01.mp4" {
            record["videos"][0]["decode_fallback"] = "no such profile".into();
            fs::write(&path, record.to_string()).unwrap();
        }
    }
    let done = project.run("out", &["output.shard_frames=1"], 0);
    let line = "decoded on the CPU instead of the GPU: 1 video; `decode_fallback` in videos.parquet says why";
    assert!(stderr(&done).contains(line), "{}", stderr(&done));
    let status = succeed(affectmill().arg("status").arg(project.output("out")));
    assert!(status.contains(line), "{status}");
    let videos = videos(&project.output("out"));
    assert_eq!(videos["clip00.mp4"].fallback, None);
    assert_eq!(videos["clip01.mp4"].fallback.as_deref(), Some("no such profile"));
}
