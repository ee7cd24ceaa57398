//! One worker process, bound to one device: lease → pipeline → commit → acknowledge.
//!
//! Orders come in on standard input, reports go out on standard output (see [`affectmill_queue`]). Native hangs and
//! crashes (FFmpeg, libtorch, the driver) stay inside this process; when the coordinator goes, so does the worker.

mod bench;
mod heartbeat;
pub mod infer;
mod pipeline;
mod probing;

use affectmill_base::outlive;
use affectmill_labelset::commit;
use affectmill_labelset::commit::{CommitError, Committed, Files};
use affectmill_labelset::{
    CheckpointRecord, CommitRecord, DeviceClass, JobRecord, RECORD_VERSION, ShardDevice, StageSeconds,
};
use affectmill_nn as model;
use affectmill_nn::{Device, Gpus};
use affectmill_queue::{Assignment, FromWorker, Lease, PROTOCOL, ToWorker, read_message};
use affectmill_store::{Access, Store};
pub use bench::{Bench, BenchError, Round};
use heartbeat::Reports;
use pipeline::{Checkpoints, Pipeline, PipelineError};
use probing::Prober;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// What a worker's environment should hold unless the user chose otherwise. Each is read at the start of a process, so it
/// cannot be set from within.
const ENVIRONMENT: [(&str, &str); 2] = [
    // glibc then asks for huge pages, which make the models about 1.05 times as fast (their activations are written and read
    // once each, so page faults and the TLB count).
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    // CUDA then numbers GPUs as NVML and nvidia-smi do, so that `cuda:1` is the GPU that goes by its name.
    ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
];

/// What this process lacks of the environment that workers get.
pub fn lacking() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENVIRONMENT
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none())
}

/// What a worker without a coordinator gets to clear up.
const FAREWELL: Duration = Duration::from_millis(200);

/// Why a worker ended before its orders did. Printed to standard error, which the coordinator keeps.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The orders are out of order or of another version.
    #[error("{0}; workers are started by `affectmill run`, not by hand")]
    Protocol(String),
    /// Standard input or output is unusable.
    #[error("the worker's pipes are unusable: {0}")]
    Pipe(#[from] io::Error),
}

/// Serves orders until standard input closes.
///
/// # Errors
/// [`WorkerError`] when the pipes or the orders are unusable. Trouble with a shard is reported, not returned.
pub fn serve() -> Result<(), WorkerError> {
    // A library that prints must not break the message stream: reports keep a private copy of standard output,
    // and descriptor 1 becomes standard error.
    let reports = Arc::new(Reports::new(
        rustix::io::dup(io::stdout()).map_err(io::Error::from)?.into(),
    )?);
    rustix::stdio::dup2_stdout(io::stderr()).map_err(io::Error::from)?;

    // Schedulers that preempt send it to every process. What it means is for the coordinator to decide, which ends this one by
    // closing its standard input: a shard in hand may be finished first.
    outlive(&[libc::SIGTERM])?;
    let orders = orders()?;
    let mut labeller = None;
    let mut prober = Prober::default();
    while let Ok(order) = orders.recv() {
        match order {
            ToWorker::Probe {
                video,
                root,
                reach,
                image_base,
                max_pixels,
            } => {
                let report = match prober.probe(video, &root, *reach, (image_base, max_pixels), &reports) {
                    Ok((video, forbidden)) => FromWorker::Probed { video, forbidden },
                    Err(error) => Failure::final_(error).into(),
                };
                reports.send(&report);
            }
            ToWorker::Job(assignment) => match Labeller::new(*assignment, &reports) {
                Ok(ready) => {
                    labeller = Some(ready);
                    reports.send(&FromWorker::Ready);
                }
                Err(failure) => reports.send(&failure.into()),
            },
            ToWorker::Lease(lease) => {
                let Some(labeller) = &mut labeller else {
                    return Err(WorkerError::Protocol("a lease came before a job".into()));
                };
                let report = labeller.label(&lease, &reports).unwrap_or_else(FromWorker::from);
                reports.send(&labeller.or_the_gpu(report));
            }
        }
    }
    Ok(())
}

/// Reads orders on a thread of its own, so that the end of the coordinator ends this process at once, even while
/// a native call hangs.
fn orders() -> Result<Receiver<ToWorker>, WorkerError> {
    let (sender, receiver) = sync_channel(1);
    thread::Builder::new().name("orders".into()).spawn(move || {
        let mut input = io::stdin().lock();
        let code = loop {
            match read_message(&mut input) {
                Ok(Some(order)) => {
                    if sender.send(order).is_err() {
                        break 0;
                    }
                }
                Ok(None) => break 0,
                Err(error) => {
                    report_to_stderr(&error.to_string());
                    break 1;
                }
            }
        };
        // An idle worker ends by itself and clears up behind it; one that is busy, or hangs, is ended.
        drop(sender);
        thread::sleep(FAREWELL);
        std::process::exit(code)
    })?;
    Ok(receiver)
}

/// Standard error of a worker is read by its coordinator, which shows the last lines when the worker is lost.
fn report_to_stderr(message: &str) {
    use io::Write;
    let _ = writeln!(io::stderr(), "{message}");
}

/// Trouble that is not a video's fault.
struct Failure {
    error: String,
    retry: bool,
}

impl Failure {
    fn of_commit(error: CommitError) -> Self {
        Self {
            retry: error.is_transient(),
            error: error.to_string(),
        }
    }

    fn final_(error: impl ToString) -> Self {
        Self {
            error: error.to_string(),
            retry: false,
        }
    }
}

impl From<Failure> for FromWorker {
    fn from(failure: Failure) -> Self {
        FromWorker::Failed {
            error: failure.error,
            retry: failure.retry,
        }
    }
}

/// The loaded models and the open store of one job.
struct Labeller {
    assignment: Assignment,
    device: Device,
    /// The device as records name it.
    made_on: ShardDevice,
    /// The output is known to be begun on such a device, or may change.
    held: bool,
    store: Store,
    pipeline: Pipeline,
}

impl Labeller {
    fn new(assignment: Assignment, reports: &Arc<Reports>) -> Result<Self, Failure> {
        if assignment.protocol != PROTOCOL {
            return Err(Failure::final_(format!(
                "this worker speaks protocol {PROTOCOL}, the coordinator {}: use one version of affectmill",
                assignment.protocol
            )));
        }
        model::set_threads(assignment.threads);
        let device = Device::parse(&assignment.device).map_err(Failure::final_)?;
        let access = Access::of(&assignment.job.job)
            .patient()
            .on_wait(reports.store_waits());
        let store = Store::connect(&assignment.job.job.output.uri, &access).map_err(Failure::final_)?;
        let pipeline = Pipeline::new(&assignment, device, &access).map_err(Failure::final_)?;
        Ok(Self {
            assignment,
            device,
            made_on: made_on(device),
            held: false,
            store,
            pipeline,
        })
    }

    /// What is behind a failure, where it is that the GPU does not answer any more.
    fn or_the_gpu(&self, report: FromWorker) -> FromWorker {
        let met = match &report {
            FromWorker::ReadInterrupted { trouble, .. } => &trouble.error,
            FromWorker::Failed { error, .. } => error,
            _ => return report,
        };
        match self.device.gpu().map(|_| self.device.is_responsive()) {
            Some(Err(cause)) => FromWorker::GpuFailed {
                error: format!(
                    "{} does not answer: {cause}; look at `nvidia-smi` and the kernel's log; it was met as: {met}",
                    self.device
                ),
            },
            _ => report,
        }
    }

    /// Labels and commits one shard.
    fn label(&mut self, lease: &Lease, reports: &Reports) -> Result<FromWorker, Failure> {
        // Handed out again after its acknowledgement was lost, or by two coordinators: what is done is not done again.
        let standing = commit::standing(&self.store, &lease.shard.id, &self.assignment.job.fingerprint);
        if let Some(standing) = standing.map_err(Failure::of_commit)? {
            let mut record = standing.record().clone();
            // Another one's time.
            record.seconds = StageSeconds::default();
            return Ok(done(record, 0, true));
        }
        let part = self
            .store
            .scratch_file(lease.shard.id.as_str())
            .map_err(Failure::final_)?;
        let crops = self
            .pipeline
            .keeps_crops()
            .then(|| self.store.scratch_file(lease.shard.id.as_str()))
            .transpose()
            .map_err(Failure::final_)?;
        let crops_path = crops.as_ref().map(|file| file.path());
        let mut spans = spans_of(&self.store, &self.assignment.job, lease, self.made_on.class)?;
        let mut labelled = self
            .pipeline
            .label(lease, part.path(), crops_path, spans.as_ref(), reports);
        if let (Err(PipelineError::ResumeMismatch(_)), Some(spans)) = (&labelled, &mut spans) {
            commit::forget_spans(&self.store, &lease.shard.id).map_err(Failure::final_)?;
            spans.kept.clear();
            labelled = self
                .pipeline
                .label(lease, part.path(), crops_path, Some(spans), reports);
        }
        let labelled = match labelled {
            Ok(labelled) => labelled,
            Err(PipelineError::ReadInterrupted { video, interruption }) => {
                return Ok(FromWorker::ReadInterrupted {
                    video,
                    trouble: interruption.trouble,
                    needs_restart: interruption.needs_restart,
                });
            }
            Err(PipelineError::InputGone(error)) => return Ok(FromWorker::InputGone { error }),
            Err(error) => return Err(Failure::final_(error)),
        };
        let record = CommitRecord {
            version: RECORD_VERSION,
            shard: lease.shard.id.clone(),
            fingerprint: self.assignment.job.fingerprint.clone(),
            part: labelled.part,
            crops: labelled.crops,
            videos: labelled.videos,
            device: Some(self.made_on.clone()),
            retired: None,
            seconds: labelled.seconds,
        };
        if !self.held {
            let allowed = self.assignment.job.job.run.allow_device_change;
            commit::hold_device(&self.store, &self.made_on, allowed).map_err(Failure::of_commit)?;
            self.held = true;
        }
        let keeps_spans = spans.is_some();
        let fetched = labelled.fetched_bytes;
        let committed = commit::commit(&self.store, Files { part, crops }, record);
        let committed = committed.map_err(Failure::of_commit)?;
        if keeps_spans {
            // What is left of them goes when the label set is finished.
            let _ = commit::forget_spans(&self.store, &lease.shard.id);
        }
        Ok(match committed {
            Committed::New(record) => done(record, fetched, false),
            Committed::Adopted(mut record) => {
                // The time is ours.
                record.seconds = labelled.seconds;
                done(record, fetched, true)
            }
        })
    }
}

/// A device as records name it.
fn made_on(device: Device) -> ShardDevice {
    match device.gpu() {
        None => ShardDevice {
            class: DeviceClass::Cpu,
            name: None,
        },
        Some(_) => ShardDevice {
            class: DeviceClass::Cuda,
            name: Gpus::open().name_of(device),
        },
    }
}

/// What is reported of a shard with this record.
fn done(record: CommitRecord, fetched_bytes: u64, adopted: bool) -> FromWorker {
    FromWorker::Done {
        shard: record.shard,
        rows: record.part.rows,
        videos: record.videos,
        seconds: record.seconds,
        fetched_bytes,
        adopted,
    }
}

/// The checkpoints of a shard that is one long video, or one of unknown length.
fn spans_of<'a>(
    store: &'a Store,
    record: &JobRecord,
    lease: &Lease,
    class: DeviceClass,
) -> Result<Option<Checkpoints<'a>>, Failure> {
    let long = match lease.shard.videos.as_slice() {
        [video] => video.frames == 0 || video.frames > record.job.run.span_frames,
        _ => false,
    };
    if !long || !lease.quarantined.is_empty() {
        return Ok(None);
    }
    let kept = commit::read_spans(store, &lease.shard.id, &record.fingerprint);
    let mut kept = kept.map_err(|error| Failure::of_commit(error.into()))?;
    let elsewhere = |span: &CheckpointRecord| span.device.is_some_and(|device| device != class);
    if kept.iter().any(elsewhere) {
        commit::forget_spans(store, &lease.shard.id).map_err(Failure::final_)?;
        kept.clear();
    }
    Ok(Some(Checkpoints { store, kept, class }))
}
