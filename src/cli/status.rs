//! `affectmill status`.

use super::run::failure;
use super::worker::Queue;
use super::{Failure, block_on, existing, exit, print, print_json};
use affectmill_progress::{status, text};
use affectmill_queue::nats::{Connection, NatsError, PATIENCE, QueueDepth, State};
use affectmill_store::{Access, Store};
use serde::Serialize;
use std::ffi::OsString;
use tokio::sync::mpsc;

/// Show the progress of a label set, during or after a run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix. S3 is reached by the settings in the environment: AWS_PROFILE, AWS_REGION,
    /// AWS_ENDPOINT_URL and the other variables of AWS tools.
    #[arg(required_unless_present = "queue", conflicts_with = "queue")]
    output: Option<OsString>,
    #[command(flatten)]
    queue: Queue,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A label set whose job is posted on NATS servers.
#[derive(Serialize)]
struct Posted {
    #[serde(flatten)]
    status: status::Status,
    /// `running` or `finished`, by the servers.
    job: State,
    /// Depth of the queue; absent when the queue no longer exists, as after the end.
    queue: Option<QueueDepth>,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    if args.queue.job.is_some() {
        return posted(&args);
    }
    let store = existing(args.output.as_deref().unwrap_or_default())?;
    let status = status::read(&store).map_err(Failure::stopped)?;
    if args.json {
        print_json(&status)?;
    } else {
        print(status::render(&status))?;
    }
    Ok(exit::OK)
}

fn posted(args: &Args) -> Result<u8, Failure> {
    let address = args.queue.address()?;
    let (job, queue) = block_on(async {
        let (notices, _) = mpsc::channel(1);
        let connection = Connection::open(address, PATIENCE, notices).await?;
        let posting = connection.await_posting(std::time::Duration::ZERO).await?;
        Ok((posting, connection.standing().await.ok()))
    })?
    .map_err(|error: NatsError| failure(error.into()))?;
    let job_spec = &job.record.job;
    let store =
        Store::connect_existing(&job_spec.output.uri, &Access::of(job_spec)).map_err(Failure::usage)?;
    let status = status::read(&store).map_err(Failure::stopped)?;
    let posted = Posted {
        status,
        job: job.state,
        queue,
    };
    if args.json {
        print_json(&posted)?;
        return Ok(exit::OK);
    }
    print(status::render(&posted.status))?;
    if let Some(queue) = posted.queue {
        print(format!(
            "queue: {} in workers' hands, {} waiting",
            text::plural(queue.leased, "shard"),
            queue.waiting
        ))?;
    }
    Ok(exit::OK)
}
