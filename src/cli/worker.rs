//! `affectmill worker`.

use super::run::{Shown, failure};
use super::{Failure, block_on, exit};
use affectmill_base::Location;
use affectmill_coordinator as coordinator;
use affectmill_coordinator::{Part, Permits, Scripts, Signals, WorkerHost};
use affectmill_progress::Reporter;
use affectmill_queue::nats::Address;
use affectmill_spec::{NatsSettings, is_inbox_prefix, is_job_name};
use affectmill_worker as worker;
use std::path::PathBuf;
use std::time::Duration;

/// Join a run that is posted on NATS servers: label its shards until all are done.
///
/// The job, and weights that are not on this machine's disks, come from the servers; input and output must be in S3, or on a
/// file system that every host mounts under the same path. SIGTERM finishes the current shard (for up to [run]
/// drain_seconds), returns unfinished work, and exits with 75: run again.
///
/// A user's name and password come from NATS_USER and NATS_PASSWORD.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  affectmill worker --queue nats://head:4222 --job faces             the first GPU, else the CPU
  affectmill worker --queue nats://head:4222 --job faces --all-gpus  one worker for each GPU")]
pub struct Args {
    #[command(flatten)]
    queue: Queue,
    /// One worker process for each GPU.
    #[arg(long, requires = "queue")]
    all_gpus: bool,
    /// Worker processes: on the GPUs in turn, else on the CPU.
    #[arg(long, value_name = "N", requires = "queue", conflicts_with = "all_gpus", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Threads of each worker process; default: the processors divided by the workers.
    #[arg(long, value_name = "N", requires = "queue", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Folder on a local disk for videos from S3 and for weights; default: the job's [run] scratch.
    #[arg(long, value_name = "FOLDER", requires = "queue")]
    scratch: Option<PathBuf>,
    /// Seconds to wait for the servers, and for the job to be posted.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "queue")]
    wait: u64,
    /// Run models of the kind torchscript, whose files are programs: those with these SHA-256, or any.
    #[arg(long, value_name = "SHA256", requires = "queue", num_args = 0..=1, require_equals = true, value_delimiter = ',', value_parser = sha256)]
    allow_torchscript: Option<Vec<String>>,
    /// Refuse a job whose input, output, taken-over labels or scratch folder lies elsewhere than in this folder or
    /// s3://bucket/prefix; may be repeated.
    #[arg(long, value_name = "PLACE", requires = "queue", value_parser = Location::parse)]
    within: Vec<Location>,
    #[command(flatten)]
    shown: Shown,
}

fn sha256(text: &str) -> Result<String, String> {
    let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "a SHA-256 is 64 hex digits, as `sha256sum` prints them".into())
}

/// Where a posted job is.
#[derive(Debug, clap::Args)]
pub struct Queue {
    /// The NATS servers, with commas between them; as the job's [run] queue.
    #[arg(long, value_name = "URL", requires = "job", value_delimiter = ',')]
    pub queue: Vec<String>,
    /// The job's [run] name.
    #[arg(long, value_name = "NAME", requires = "queue")]
    pub job: Option<String>,
    /// Credentials file of the NATS user (.creds); default: NATS_CREDS.
    #[arg(long, value_name = "FILE", requires = "queue")]
    pub credentials: Option<PathBuf>,
    /// File with the certificates (PEM) that the servers' are signed by.
    #[arg(long, value_name = "FILE", requires = "queue")]
    pub ca: Option<PathBuf>,
    /// First part of the subjects on which answers come; as the job's [nats] inbox_prefix.
    #[arg(long, value_name = "PREFIX", requires = "queue")]
    pub inbox_prefix: Option<String>,
}

impl Queue {
    /// The queue's address.
    pub fn address(&self) -> Result<Address, Failure> {
        let job = self.job.clone().unwrap_or_default();
        if !is_job_name(&job) {
            return Err(Failure::usage(format!(
                "--job cannot be {job:?}; letters, digits, `-` and `_`, at most 64"
            )));
        }
        if self.queue.iter().any(|server| server.contains('@')) {
            return Err(Failure::usage(
                "--queue cannot hold credentials; name a file by --credentials, or set NATS_USER and NATS_PASSWORD",
            ));
        }
        if let Some(prefix) = self
            .inbox_prefix
            .as_ref()
            .filter(|prefix| !is_inbox_prefix(prefix))
        {
            return Err(Failure::usage(format!(
                "--inbox-prefix cannot be {prefix:?}; letters, digits, `-`, `_` and dots between them"
            )));
        }
        Ok(Address {
            servers: self.queue.clone(),
            job,
            settings: NatsSettings {
                credentials: self.credentials.clone(),
                ca: self.ca.clone(),
                inbox_prefix: self.inbox_prefix.clone(),
                ..NatsSettings::default()
            },
        })
    }
}

pub fn run(args: Args) -> Result<u8, Failure> {
    if args.queue.job.is_none() {
        // Started by `run`: assignments come on standard input.
        worker::serve().map_err(Failure::usage)?;
        return Ok(exit::OK);
    }
    let workers = match args.workers {
        Some(workers) => workers.into(),
        None if args.all_gpus => gpus()?,
        None => 1,
    };
    let joining = WorkerHost {
        address: args.queue.address()?,
        workers,
        threads: args.threads.map(usize::from),
        scratch: args.scratch,
        wait: Duration::from_secs(args.wait),
        permits: Permits {
            scripts: match args.allow_torchscript {
                None => Scripts::None,
                Some(these) if these.is_empty() => Scripts::Any,
                Some(these) => Scripts::These(these),
            },
            within: args.within,
        },
    };
    let mut reporter = Reporter::new(args.shown.style());
    let part = block_on(async {
        let mut signals = Signals::hear()?;
        coordinator::join(joining, &mut signals, &mut |event| reporter.event(event)).await
    })?;
    Ok(match part.map_err(failure)? {
        Part::Finished => exit::OK,
        Part::Stopped(signal) => exit::stopped(signal),
    })
}

fn gpus() -> Result<usize, Failure> {
    match affectmill_nn::Device::cuda_count() {
        0 => Err(Failure::usage(
            "--all-gpus, but libtorch sees no GPU here; `affectmill doctor` says what there is",
        )),
        gpus => Ok(gpus),
    }
}
