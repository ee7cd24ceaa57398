//! `affectmill bench`.

use super::run::failure;
use super::{Failure, exit, print, print_json};
use affectmill_base::{Precision, median, this_program};
use affectmill_coordinator as coordinator;
use affectmill_discover as discover;
use affectmill_labelset::plan;
use affectmill_labelset::{PlannedVideo, ShardPlan};
use affectmill_nn::{Device, Gpus};
use affectmill_queue::{Assignment, Lease, PROTOCOL};
use affectmill_spec as spec;
use affectmill_spec::FaceMode;
use affectmill_store::Access;
use affectmill_worker as worker;
use affectmill_worker::{Bench, Round};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::available_parallelism;

/// A plain PyAV and PyTorch program for comparison.
const PEER: &str = include_str!("bench_peer.py");

/// Measure how fast a job runs on this machine, and how close that is to decoding alone and to its models alone.
///
/// Labels the job's videos repeatedly and keeps nothing. Meant for one or two short videos. All parts are measured in turn, so
/// that ratios are valid on a busy machine too; times are medians.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job file; its output is neither read nor written.
    job: PathBuf,
    /// Override a value of the job file; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Number of rounds, after one warm-up round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// A Python with torch, torchvision and av: measures the same work done by a plain PyAV and PyTorch program. A job
    /// that detects faces also needs facenet-pytorch, whose MTCNN then runs on every frame.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    video: String,
    device: String,
    /// Name of the GPU.
    gpu: Option<String>,
    threads: usize,
    rounds: Vec<Round>,
    /// Medians over the rounds, faces per second.
    median: Round,
    /// Whole pipeline ÷ the slower of decoding alone and the models alone; median of the rounds' ratios.
    of_limit: f64,
    /// Whole pipeline ÷ the best that the cores can do; median of the rounds' ratios. On the CPU only.
    of_shared: Option<f64>,
    /// Whether the GPU ran out of memory and batches were split in two.
    halves: bool,
    /// Faces per second of each peer program, median.
    peers: BTreeMap<String, f64>,
    /// Whole pipeline ÷ peer; median of the rounds' ratios.
    over_peers: BTreeMap<String, f64>,
}

#[expect(clippy::too_many_lines, reason = "one measurement after the other")]
pub fn run(args: Args) -> Result<u8, Failure> {
    if worker::lacking().next().is_some() {
        return Err(Failure::stopped(exec_as_worker()));
    }
    let job = spec::load(&args.job, &args.set).map_err(Failure::usage)?;
    let access = Access::of(&job);
    let record = coordinator::resolve(job, &access).map_err(failure)?;
    let found = discover::discover(&record.job.input, &|_| false, &access).map_err(Failure::usage)?;
    // The length does not matter here, but 0 would mean unreadable.
    let videos = found
        .sources
        .iter()
        .map(|source| PlannedVideo {
            frames: 1,
            ..source.unprobed()
        })
        .collect();
    let shard: ShardPlan = plan::make(videos, &Default::default(), u64::MAX)
        .into_iter()
        .next()
        .ok_or_else(|| Failure::usage("no video"))?;
    let earlier = coordinator::Earlier::read(&record, &access)
        .map_err(failure)?
        .of(&shard);
    let first = found.root.join(shard.videos[0].file());
    let Some(first) = first.as_local() else {
        return Err(Failure::usage(format!(
            "{first}: bench measures videos on this machine's disks; bring a video or two here"
        )));
    };
    let device = if coordinator::gpus(&record.job) > 0 {
        Device::cuda(0)
    } else {
        Device::cpu()
    };
    let threads = record
        .job
        .run
        .threads
        .unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    // The fastest precision that any model requests.
    let precisions = [Precision::Fp16, Precision::Bf16, Precision::Fp32];
    let requested = |precision: &Precision| {
        record
            .job
            .models
            .iter()
            .any(|model| model.precision == *precision)
    };
    let precision = precisions.into_iter().find(requested).unwrap_or_default();
    let detects = record.job.faces.mode == FaceMode::Detect;
    let assignment = Assignment {
        protocol: PROTOCOL,
        job: record,
        folders: Default::default(),
        input_root: found.root,
        device: device.to_string(),
        threads,
        fetch_bytes: 0,
    };
    let lease = Lease {
        shard,
        quarantined: Vec::new(),
        next: None,
        earlier,
    };

    let mut peer = args
        .python
        .as_deref()
        .map(|python| Peer::start(python, first, threads))
        .transpose()?;
    let mut bench = Bench::new(assignment, lease, device).map_err(Failure::stopped)?;
    let variants: &[&str] = match (&peer, detects, precision) {
        (None, ..) => &[],
        (_, true, _) => &["default fp32 mtcnn", "channels_last fp32 mtcnn"],
        (_, _, Precision::Fp32) => &["default fp32", "channels_last fp32", "compiled fp32"],
        (_, _, Precision::Bf16) => &["channels_last bf16", "compiled bf16"],
        (_, _, Precision::Fp16) => &["channels_last fp16", "compiled fp16"],
    };
    let mut rounds = Vec::new();
    let mut peers: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..=args.rounds {
        let rates = bench.round().map_err(Failure::stopped)?;
        let counts = round > 0;
        if counts {
            rounds.push(rates);
        }
        for variant in variants {
            let rate = peer.as_mut().map_or(Ok(0.0), |peer| peer.rate(variant))?;
            if counts {
                peers.entry((*variant).into()).or_default().push(rate);
            }
        }
    }

    let each = |rate: fn(&Round) -> f64| middle(rounds.iter().map(rate));
    let over = |rates: &Vec<f64>| middle(rounds.iter().zip(rates).map(|(round, peer)| round.whole / peer));
    let report = Report {
        video: first.display().to_string(),
        device: device.to_string(),
        gpu: Gpus::open().name_of(device),
        threads,
        median: Round {
            decode: each(|round| round.decode),
            prepare: each(|round| round.prepare),
            model: each(|round| round.model),
            whole: each(|round| round.whole),
            shared: each(|round| round.shared),
        },
        of_shared: (device == Device::cpu()).then(|| each(|round| round.whole / round.shared)),
        of_limit: middle(
            rounds
                .iter()
                .map(|round| round.whole / round.decode.min(round.model)),
        ),
        over_peers: peers
            .iter()
            .map(|(name, rates)| (name.clone(), over(rates)))
            .collect(),
        peers: peers
            .iter()
            .map(|(name, rates)| (name.clone(), middle(rates.iter().copied())))
            .collect(),
        rounds,
        halves: bench.halves(),
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(render(&report))?;
    }
    Ok(exit::OK)
}

/// Re-executes this process in the environment of a worker. Returns only on failure.
fn exec_as_worker() -> io::Error {
    let mut again = this_program();
    again.args(std::env::args_os().skip(1)).envs(worker::lacking());
    again.exec()
}

fn render(report: &Report) -> String {
    let Round {
        decode,
        prepare,
        model,
        whole,
        shared,
    } = report.median;
    let gpu: String = report.gpu.iter().map(|gpu| format!(" ({gpu})")).collect();
    let mut lines = vec![
        format!(
            "{} on {}{gpu} with {} threads, faces a second:",
            report.video, report.device, report.threads
        ),
        format!("  decode alone    {decode:>9.1}"),
        format!("  prepare alone   {prepare:>9.1}"),
        format!("  models alone    {model:>9.1}"),
        format!(
            "  whole pipeline  {whole:>9.1}   {:.3} of the slower of decode and models",
            report.of_limit
        ),
    ];
    if let Some(of_shared) = report.of_shared {
        lines.push(format!(
            "  work of all three shared by the cores, at best {shared:.1}; the whole is {of_shared:.3} of it"
        ));
    }
    if report.halves {
        lines.push(
            "  the GPU had no memory for whole batches, which were read in halves: set a smaller run.batch"
                .into(),
        );
    }
    for (name, rate) in &report.peers {
        lines.push(format!(
            "  PyAV + PyTorch, {name}: {rate:.1}; this is {:.2} times as fast",
            report.over_peers[name]
        ));
    }
    lines.join("\n")
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(values).unwrap_or(f64::NAN)
}

/// The Python program, kept running so that it stays warm between rounds.
struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path, video: &Path, threads: usize) -> Result<Self, Failure> {
        let failed = |cause: String| Failure::usage(format!("{}: {cause}", python.display()));
        let mut child = Command::new(python)
            .args(["-c", PEER])
            .arg(video)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                failed(format!(
                    "{error}; give --python a Python with torch, torchvision and av"
                ))
            })?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("has no pipes".into()));
        };
        Ok(Self {
            child,
            requests,
            answers: BufReader::new(answers),
        })
    }

    fn rate(&mut self, variant: &str) -> Result<f64, Failure> {
        let mut answer = String::new();
        writeln!(self.requests, "{variant}")
            .and_then(|()| self.answers.read_line(&mut answer))
            .map_err(|error| {
                let remedy = "its own words stand above; give one with torch, torchvision and av";
                Failure::stopped(format!("the Python of --python ended ({error}); {remedy}"))
            })?;
        serde_json::from_str::<Value>(&answer)
            .ok()
            .and_then(|answer| answer["rate"].as_f64())
            .ok_or_else(|| Failure::stopped("the Python program failed; it needs torch, torchvision and av"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
