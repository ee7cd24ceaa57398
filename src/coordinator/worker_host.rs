//! The run past one machine, as a host with workers sees it: find the job, see that this machine would label as the
//! coordinator means it, then label whatever the queue hands out.

use super::device::{as_begun, device_warning, gpus, has_device};
use super::dispatch::Dispatcher;
use super::opened::has_nvdec;
use super::prepare::{resolve, share_of_scratch, threads_each};
use super::{Earlier, HostConfig, Permits, RunError, Signal, Signals, Sink, blocking, gpu_names};
use affectmill_base::{InputFolders, Location, RetryPolicy, hostname, sha256_file};
use affectmill_labelset::events::Event;
use affectmill_labelset::{JobRecord, LabelSet};
use affectmill_nn::Device;
use affectmill_queue::Leases;
use affectmill_queue::nats::{Address, Connection, NatsError, NatsLeases, PATIENCE, PostedJob, State};
use affectmill_spec as spec;
use affectmill_spec::Job;
use affectmill_store::{Access, Store};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long to wait for weights that the coordinator may still be uploading.
const WEIGHTS: RetryPolicy = RetryPolicy::within(
    Duration::from_secs(120),
    Duration::from_secs(1),
    Duration::from_secs(1),
);

/// How often a worker's progress is sent to the coordinator.
const PROGRESS: Duration = Duration::from_secs(1);

/// How a host takes part in a run.
#[derive(Clone, Debug)]
pub struct WorkerHost {
    /// Where the job is.
    pub address: Address,
    /// Worker processes: on the GPUs in turn, else on the CPU.
    pub workers: usize,
    /// Threads of each; the processors divided among them when not given.
    pub threads: Option<usize>,
    /// Folder for what is on its way from or to S3, and for weights; the job's own when not given.
    pub scratch: Option<PathBuf>,
    /// How long to wait for the job.
    pub wait: Duration,
    /// What the job may do here.
    pub permits: Permits,
}

/// How a host's part ended.
#[derive(Debug)]
pub enum Part {
    /// The job is finished.
    Finished,
    /// A signal drained it.
    Stopped(Signal),
}

/// Labels shards of a posted job until it is finished or a signal comes.
///
/// # Errors
/// [`RunError`] when the queue cannot be reached or holds no such job, and when this machine would label differently.
pub async fn join(joining: WorkerHost, signals: &mut Signals, sink: Sink<'_>) -> Result<Part, RunError> {
    let (told, words) = mpsc::channel(16);
    let ready = match signals.unless(make_ready(&joining, told)).await {
        Ok(ready) => ready?,
        Err(signal) => return Ok(Part::Stopped(signal)),
    };
    let Some(Ready {
        connection,
        posting,
        record,
        access,
    }) = ready
    else {
        return Ok(Part::Finished);
    };
    let input_root = &posting.input_root;
    let folders = input_root.as_local().map(InputFolders::of).unwrap_or_default();

    let mut fetch_bytes = record.job.run.fetch_bytes;
    if matches!(input_root, Location::S3 { .. }) {
        fetch_bytes = share_of_scratch(&access.scratch()?, fetch_bytes, joining.workers)?.1;
    }
    let nothing = Earlier::default();
    if let Some(message) = device_warning(&record.job) {
        sink(&Event::Warning { message });
    }
    let devices = Device::in_turn(joining.workers, gpus(&record.job));
    let host_config = HostConfig {
        record: &record,
        input_root,
        folders,
        earlier: &nothing,
        gpus: gpu_names(&devices),
        devices,
        threads: joining.threads.unwrap_or_else(|| threads_each(joining.workers)),
        fetch_bytes,
    };
    sink(&Event::Joined {
        job: joining.address.job.clone(),
        fingerprint: record.fingerprint.clone(),
        output: record.job.output.uri.clone(),
        workers: joining.workers,
        devices: host_config.devices_in_words(),
    });
    let leases = NatsLeases::new(connection.clone(), &posting, words);
    let coordinator = connection.telling(hostname());
    let mut told = HashMap::new();
    let mut everybody = |event: &Event| {
        let due = match event {
            Event::Progress { worker, .. } => told
                .get(worker)
                .is_none_or(|last: &Instant| last.elapsed() >= PROGRESS),
            _ => true,
        };
        if due {
            if let Event::Progress { worker, .. } = event {
                told.insert(*worker, Instant::now());
            }
            let _ = coordinator.try_send(event.clone());
        }
        sink(event);
    };
    let (signal, _) = Dispatcher::new(&host_config, Leases::Nats(leases), &mut everybody)
        .run(signals)
        .await?;
    Ok(signal.map_or(Part::Finished, Part::Stopped))
}

/// What a host has found out before its first lease.
struct Ready {
    connection: Connection,
    posting: PostedJob,
    /// The posted job, with its weights where they are here.
    record: JobRecord,
    access: Access,
}

/// Finds the job, and sees that it would be labelled here as it is meant; `None` for one that is finished.
async fn make_ready(joining: &WorkerHost, told: mpsc::Sender<String>) -> Result<Option<Ready>, RunError> {
    let address = joining.address.clone();
    let connection = Connection::open(address, joining.wait.max(PATIENCE), told).await?;
    let posting = connection.await_posting(joining.wait).await?;
    if posting.state == State::Finished {
        return Ok(None);
    }
    let mut record = posting.record.clone();
    // This host's own folder needs no permit.
    if joining.scratch.is_some() {
        record.job.run.scratch = None;
    }
    joining.permits.places(&record.job, &posting.input_root)?;
    if joining.scratch.is_some() {
        record.job.run.scratch = joining.scratch.clone();
    }
    let access = Access::of(&record.job);
    fetch_weights(&mut record, &access, &connection).await?;
    let record = agreed(record, access.clone()).await?;
    has_device(&record.job)?;
    joining.permits.models(&record)?;
    has_nvdec(&record.job)?;
    sees(&record, &posting.input_root, &access)?;
    Ok(Some(Ready {
        connection,
        posting,
        record,
        access,
    }))
}

/// Weights that are not on this machine's disks as the job means them come from the queue's servers.
async fn fetch_weights(
    record: &mut JobRecord,
    access: &Access,
    connection: &Connection,
) -> Result<(), RunError> {
    let mut places = Vec::new();
    for (location, sha256) in record.weights() {
        let here = match location {
            Location::S3 { .. } => location.clone(),
            Location::Local(path) if is(path, sha256) => location.clone(),
            Location::Local(_) => {
                let scratch = access.scratch()?;
                let kept = scratch.kept(&format!("{sha256}.safetensors"))?;
                if !is(&kept, sha256) {
                    let file = scratch.file(sha256, "safetensors")?;
                    // They follow the job, so they may be on their way.
                    let mut retry = WEIGHTS.start();
                    while let Err(error) = connection.fetch_weights(sha256, file.path()).await {
                        let pause = match error {
                            NatsError::Forbidden { .. } => None,
                            _ => retry.next_pause(),
                        };
                        sleep(pause.ok_or(error)?).await;
                    }
                    scratch.keep(file, &kept)?;
                }
                Location::Local(kept)
            }
        };
        places.push(here);
    }
    record.set_weights(places);
    Ok(())
}

fn is(path: &Path, sha256: &str) -> bool {
    sha256_file(path).is_ok_and(|found| found.sha256 == sha256)
}

/// Refuses a host that does not see the coordinator's folders: it would write its labels where nobody looks, and take every
/// video for missing.
fn sees(record: &JobRecord, input_root: &Location, access: &Access) -> Result<(), RunError> {
    let amiss = |place: &Location, cause: String| RunError::NotShared {
        place: place.to_string(),
        cause,
    };
    let output = &record.job.output.uri;
    let store = Store::connect_existing(output, access).map_err(|error| amiss(output, error.to_string()))?;
    let found = LabelSet::open(store.clone())?;
    if found.job().fingerprint != record.fingerprint {
        return Err(amiss(output, "it holds the labels of another job".into()));
    }
    as_begun(&store, &record.job)?;
    match input_root {
        Location::Local(path)
            if std::fs::read_dir(path).map_or(path.is_file(), |mut all| all.next().is_some()) =>
        {
            Ok(())
        }
        Location::Local(_) => Err(amiss(
            input_root,
            "it is missing, empty, or cannot be read".into(),
        )),
        Location::S3 { .. } => Ok(()),
    }
}

/// The job as this machine would label it, which must be as it was posted: weights, decoder and program.
async fn agreed(posted: JobRecord, access: Access) -> Result<JobRecord, RunError> {
    let job: Job = posted.job.clone();
    let own = blocking(move || resolve(job, &access)).await??;
    if own.fingerprint != posted.fingerprint {
        return Err(RunError::OtherMachine {
            differences: spec::differences(&posted.identity, &own.identity),
        });
    }
    Ok(own)
}
