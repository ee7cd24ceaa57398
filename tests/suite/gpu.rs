//! What a job may ask of a GPU, and what is told of GPUs, on a machine without one: every real GPU is hidden here, so that the
//! tests mean the same anywhere.

use super::common::*;
use super::watch::{ask, samples};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
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

/// Makes a process find the GPUs of `nvml.c` in the place of the driver's. CUDA knows none of them.
fn with_driver(command: &mut Command) -> &mut Command {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nvml-{}", std::process::id()));
    let library = folder.join("libnvidia-ml.so.1");
    fs::create_dir_all(&folder).unwrap();
    if !library.exists() {
        // Tests run beside one another: each makes its own, and the last one stays.
        let own = tempfile::Builder::new()
            .suffix(".so")
            .tempfile_in(&folder)
            .unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/nvml.c");
        let mut cc = Command::new("cc");
        succeed(cc.args(["-shared", "-fPIC", "-o"]).arg(own.path()).arg(source));
        own.persist(&library).unwrap();
    }
    let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command.env("LD_LIBRARY_PATH", format!("{}:{others}", folder.display()))
}

#[test]
fn doctor_lists_gpus_as_cuda_would_number_them() {
    let (h100, t4) = ("NVIDIA H100 80GB HBM3, 80.0 GiB", "NVIDIA T4, 16.0 GiB");
    let instance = "NVIDIA H100 80GB HBM3 MIG 1g.10gb, 10.0 GiB";
    for (set, expected) in [
        (vec![], vec![h100, t4]),
        (vec![("CUDA_VISIBLE_DEVICES", "1,0")], vec![t4, h100]),
        (vec![("CUDA_VISIBLE_DEVICES", "GPU-bb")], vec![t4]),
        (vec![("CUDA_VISIBLE_DEVICES", "")], vec![]),
        (vec![("AFFECTMILL_MIG", "1")], vec![instance]),
        // Nobody can say which one CUDA takes for the faster.
        (vec![("CUDA_DEVICE_ORDER", "FASTEST_FIRST")], vec![]),
    ] {
        let mut doctor = affectmill();
        with_driver(&mut doctor)
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env_remove("CUDA_DEVICE_ORDER")
            .envs(set.clone());
        let told = doctor.arg("doctor").output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("gpu ")).collect();
        assert_eq!(lines.len(), expected.len(), "{set:?}\n{told}");
        for (index, (line, gpu)) in lines.iter().zip(expected).enumerate() {
            let begin = format!("gpu {index}       {gpu}, driver 580.95.05, ");
            assert!(
                line.starts_with(&begin) && line.ends_with("NVDEC"),
                "{set:?}\n{told}"
            );
        }
    }
}

#[test]
fn the_metrics_tell_what_gpus_are_at_and_workers_count_as_they_do() {
    let project = Project::new().synthetic(1, 5);
    let mut command = project.command("out", &["run.metrics=\"127.0.0.1:0\""]);
    // Of CUDA's real GPUs none is called so.
    with_driver(&mut command)
        .env("CUDA_VISIBLE_DEVICES", "GPU-aaaa0000,GPU-bbbb0000")
        .env_remove("CUDA_DEVICE_ORDER");
    let mut run = Running::start(command);
    let address = run.until("shown")["address"].as_str().unwrap().to_owned();
    let worker = run.until("worker_started");
    assert_eq!((&worker["device"], &worker["gpu"]), (&json!("cpu"), &Value::Null));
    let worker = worker["pid"].as_u64().unwrap() as u32;
    // It must not be done before it was asked about.
    signal(worker, "STOP");
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    let metrics = ask(&address, "GET", "/metrics").1;
    let page = ask(&address, "GET", "/").1;
    signal(worker, "CONT");
    let environment = String::from_utf8_lossy(&environment);
    let mut variables = environment.split('\0');
    assert!(variables.any(|variable| variable == "CUDA_DEVICE_ORDER=PCI_BUS_ID"));
    let samples = samples(&metrics);
    let h100 = "{gpu=0}{name=NVIDIA H100 80GB HBM3}{uuid=GPU-aaaa0000-0000-0000-0000-000000000000}";
    let t4 = "{gpu=1}{name=NVIDIA T4}{uuid=GPU-bbbb0000-0000-0000-0000-000000000000}";
    for (name, of, value) in [
        ("busy_ratio", h100, 0.75),
        ("decoding_ratio", h100, 0.5),
        ("memory_used_bytes", h100, 1_073_741_824.0),
        ("memory_bytes", h100, 85_899_345_920.0),
        ("busy_ratio", t4, 0.0),
        ("decoding_ratio", t4, 1.0),
    ] {
        let name = format!("affectmill_gpu_{name}{of}");
        assert_eq!(json!(samples.get(&name)), json!(value), "{name}\n{samples:?}");
    }
    assert!(
        page.contains("2 GPUs of this machine") && page.contains("75 %"),
        "{page}"
    );
    assert_eq!(run.wait(), Some(0));
}
