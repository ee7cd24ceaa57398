//! `affectmill worker`.

use super::run::{Shown, failure};
use super::{Failure, block_on, exit};
use crate::coordinator::{self, Joining, Part, Signals};
use crate::queue::nats::Address;
use crate::report::Reporter;
use crate::spec::{NatsSettings, is_job_name};
use crate::worker;
use std::path::PathBuf;
use std::time::Duration;

/// Join a run that is posted on NATS servers: label its shards until all are done.
///
/// The job, and weights that are not on this machine's disks, come from the servers; input and output must be in S3, or on a
/// file system that every host mounts under the same path. SIGTERM finishes the shard in hand (for up to [run]
/// drain_seconds), gives back what is not done, and exits 75: run again.
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
    #[command(flatten)]
    shown: Shown,
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
}

impl Queue {
    /// As the queue takes it.
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
        Ok(Address {
            servers: self.queue.clone(),
            job,
            settings: NatsSettings {
                credentials: self.credentials.clone(),
                ca: self.ca.clone(),
                ..NatsSettings::default()
            },
        })
    }
}

pub fn run(args: Args) -> Result<u8, Failure> {
    if args.queue.job.is_none() {
        // As `run` starts them: orders on standard input.
        worker::serve().map_err(Failure::usage)?;
        return Ok(exit::OK);
    }
    let workers = match args.workers {
        Some(workers) => workers.into(),
        None if args.all_gpus => gpus()?,
        None => 1,
    };
    let joining = Joining {
        address: args.queue.address()?,
        workers,
        threads: args.threads.map(usize::from),
        scratch: args.scratch,
        wait: Duration::from_secs(args.wait),
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
    match crate::model::Device::cuda_count() {
        0 => Err(Failure::usage(
            "--all-gpus, but libtorch sees no GPU here; `affectmill doctor` says what there is",
        )),
        gpus => Ok(gpus),
    }
}
