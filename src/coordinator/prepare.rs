//! Before the first lease: check the models, bind the output to the job, discover, probe and plan what is new.

use super::device::gpus;
use super::opened::{Opened, open};
use super::suspects::SuspectVideos;
use super::{Earlier, HostConfig, RunError, Signal, Signals, Sink, blocking, earlier, gpu_names, moving};
use crate::planning;
use crate::planning::Planned;
use affectmill_base::InputFolders;
use affectmill_base::{Crop, Location, NamedOutputs, NetworkKind, ShardId, VideoKey};
use affectmill_discover::{Discovery, Source};
use affectmill_labelset::commit::Tally;
use affectmill_labelset::events::Event;
use affectmill_labelset::plan;
use affectmill_labelset::plan::Plans;
use affectmill_labelset::{JobRecord, PassedOver, PlannedVideo, RECORD_VERSION, ShardPlan, Unseen};
use affectmill_media::decode;
use affectmill_nn as model;
use affectmill_nn::{Device, WeightFile};
use affectmill_spec as spec;
use affectmill_spec::ModelRecord;
use affectmill_spec::{Decode, FaceMode, Job, ModelSpec};
use affectmill_store::{Access, Scratch, Store, kept_copy};
use std::collections::BTreeSet;
use std::thread::available_parallelism;
use std::time::Duration;

/// Videos in scratch space are locked by whoever fetched them; this covers the moment before.
const ABANDONED: Duration = Duration::from_secs(60);

/// A job that is ready to run: bound to its output, with every video planned.
#[derive(Debug)]
pub struct Prepared {
    /// The resolved job.
    pub record: JobRecord,
    /// The output.
    pub store: Store,
    /// What the video keys are relative to.
    pub input_root: Location,
    /// Which folder that was when its videos were looked for; of a bucket nothing.
    folders: InputFolders,
    /// Planned videos that the input had no more then.
    pub(super) missing: BTreeSet<VideoKey>,
    /// What earlier runs held against videos; where a queue past this machine keeps that, nothing.
    pub(super) suspects: SuspectVideos,
    /// The shards of all plans.
    pub shards: Vec<ShardPlan>,
    /// Shards whose commit record exists.
    pub committed: BTreeSet<ShardId>,
    /// What these commits add up to.
    pub tally: Tally,
    /// Bytes of scratch space that each worker may fill with videos from S3.
    pub fetch_bytes: u64,
    /// Where the faces are that the job takes over.
    pub earlier: Earlier,
    /// What the search of the input passed over.
    pub passed_over: Vec<PassedOver>,
    /// What it could not look at.
    pub unseen: Unseen,
    gpus: usize,
}

impl Prepared {
    pub(super) fn new(
        record: JobRecord,
        store: Store,
        (discovery, folders): (&Discovery, InputFolders),
        Plans { shards, count, .. }: Plans,
        access: &Access,
    ) -> Result<Self, RunError> {
        let tally = Tally::of_plans(&store, &shards, count as usize)?;
        let ids = shards.iter().map(|shard| &shard.id);
        let committed = ids.filter(|id| tally.is_committed(id)).cloned().collect();
        let suspects = match record.job.servers() {
            None => SuspectVideos::read(&store, &shards, &committed)?,
            Some(_) => SuspectVideos::default(),
        };
        let mut prepared = Self {
            gpus: gpus(&record.job),
            suspects,
            earlier: Earlier::read(&record, access)?,
            fetch_bytes: record.job.run.fetch_bytes,
            record,
            store,
            input_root: discovery.root.clone(),
            folders,
            missing: missing(discovery, &shards),
            passed_over: discovery.passed_over.clone(),
            unseen: discovery.unseen.clone(),
            shards,
            committed,
            tally,
        };
        if matches!(prepared.input_root, Location::S3 { .. }) {
            prepared.fetch_bytes = prepared.share_of(&access.scratch()?)?;
        }
        Ok(prepared)
    }

    /// Worker processes this run uses: as the job says, else one per GPU, else one; never more than shards to do.
    pub fn worker_count(&self) -> usize {
        let wanted = self.record.job.run.workers.unwrap_or(self.gpus.max(1));
        wanted.min(self.shards.len() - self.committed.len()).max(1)
    }

    /// Each worker's share of scratch space, which must hold the longest video.
    fn share_of(&self, scratch: &Scratch) -> Result<u64, RunError> {
        let wanted = self.record.job.run.fetch_bytes;
        let (free, share) = share_of_scratch(scratch, wanted, self.worker_count())?;
        let longest = self
            .without(&self.committed)
            .flat_map(|shard| &shard.videos)
            .max_by_key(|video| video.bytes);
        if let Some(video) = longest.filter(|video| video.bytes > free) {
            return Err(RunError::Scratch {
                scratch: scratch.folder().to_path_buf(),
                free,
                video: video.key.clone(),
                bytes: video.bytes,
            });
        }
        Ok(share)
    }

    /// The workers of this machine.
    pub(super) fn host_config(&self) -> HostConfig<'_> {
        let workers = self.worker_count();
        let devices = Device::in_turn(workers, self.gpus);
        HostConfig {
            record: &self.record,
            input_root: &self.input_root,
            folders: self.folders.clone(),
            earlier: &self.earlier,
            gpus: gpu_names(&devices),
            devices,
            threads: self
                .record
                .job
                .run
                .threads
                .unwrap_or_else(|| threads_each(workers)),
            fetch_bytes: self.fetch_bytes,
        }
    }
}

/// The processors divided among so many workers.
pub fn threads_each(workers: usize) -> usize {
    (available_parallelism().map_or(1, usize::from) / workers.max(1)).max(1)
}

/// Bytes free in scratch space, and each worker's share of it, at most what is wanted, with room left for parts and for
/// others.
pub(super) fn share_of_scratch(
    scratch: &Scratch,
    wanted: u64,
    workers: usize,
) -> Result<(u64, u64), RunError> {
    scratch.sweep(ABANDONED)?;
    let free = scratch.free_bytes()?;
    Ok((free, wanted.min(free / 10 * 9 / workers.max(1) as u64)))
}

/// Resolves a job: weight files are read and hashed, and everything that can change a label is named.
pub fn resolve(mut job: Job, access: &Access) -> Result<JobRecord, RunError> {
    let mut models = Vec::with_capacity(job.models.len());
    for spec in &job.models {
        let mut checksums = Vec::new();
        let mut untrained = false;
        for weights in spec.all_weights() {
            let file = WeightFile::read(&kept_copy(weights, access)?)?;
            let info = match spec.kind {
                NetworkKind::Own(kind) => model::describe(&file, kind)?,
                // It says nothing of crops, so the job does.
                NetworkKind::TorchScript => {
                    checksums.push(model::describe_script(&file)?);
                    continue;
                }
            };
            let crop = job.crop_of(spec).name();
            if job.faces.mode != FaceMode::FullFrame && info.crop.as_deref() != Some(crop) {
                return Err(RunError::Crop {
                    model: spec.name.clone(),
                    weights: weights.to_string(),
                    job: crop,
                    stated: info
                        .crop
                        .map_or("does not say how its faces were cropped".into(), |crop| {
                            format!("was trained on faces cropped by `{crop}`")
                        }),
                });
            }
            untrained |= info.untrained;
            checksums.push(info.sha256);
        }
        models.push(ModelRecord {
            name: spec.name.clone(),
            kind: spec.kind,
            outputs: NamedOutputs::spelled(&spec.outputs),
            sha256: checksums.remove(0),
            also: checksums,
            flip: spec.flip,
            architecture: match spec.kind {
                NetworkKind::Own(kind) => model::architecture(kind).into(),
                NetworkKind::TorchScript => spec.kind.name().into(),
            },
            preprocessing: preprocessing(&job, spec),
            precision: spec.precision,
            untrained,
        });
    }
    let faces_from = match (job.faces.mode, &job.faces.detector) {
        (FaceMode::Detect, Some(weights)) => {
            let file = WeightFile::read(&kept_copy(weights, access)?)?;
            Some(model::describe_detector(&file)?)
        }
        _ => earlier::fingerprint(&job, access)?,
    };
    // Whoever knows better, as what an output was begun with, has settled it before.
    if job.input.decode == Decode::Auto {
        let here = gpus(&job) > 0 && decode::nvdec_available().is_ok();
        job.input.decode = if here { Decode::Nvdec } else { Decode::Cpu };
    }
    let backend = decode::backend(job.input.decode == Decode::Nvdec);
    let identity = spec::identity(&job, &models, faces_from.as_deref(), &backend);
    Ok(JobRecord {
        version: RECORD_VERSION,
        affectmill: env!("CARGO_PKG_VERSION").into(),
        fingerprint: spec::fingerprint(&identity),
        identity,
        models,
        job,
    })
}

/// Id of how a face becomes the model's input: what is cut out, its size, how it is sampled (`bilinear_aa` is antialiased),
/// and what the model makes of its values.
fn preprocessing(job: &Job, spec: &ModelSpec) -> String {
    let input = match spec.kind {
        NetworkKind::Own(kind) => model::input_id(kind),
        NetworkKind::TorchScript => model::SCRIPT_INPUT_ID,
    };
    // The box goes through the same filter as a whole picture; the others take bilinear samples.
    match (job.faces.mode, job.crop_of(spec)) {
        (FaceMode::FullFrame, _) => format!("full_frame-128x128-bilinear_aa-{input}"),
        (_, Crop::Box) => format!("box-128x128-bilinear_aa-{input}"),
        (_, crop) => format!("{}-128x128-bilinear-{input}", crop.name()),
    }
}

/// Prepares a run. New videos are probed by worker processes and get plans of their own. `moved`: the user says that the
/// input is the collection that was planned, in another place. A signal ends it, and is told.
///
/// # Errors
/// [`RunError`]; nothing is written before models, output and input are known to fit.
pub async fn prepare(
    job: Job,
    moved: bool,
    signals: &mut Signals,
    sink: Sink<'_>,
) -> Result<Result<Prepared, Signal>, RunError> {
    let opening = blocking(move || {
        let opened = open(job, moved)?;
        if opened.has_work()? {
            opened.begun_here()?;
        }
        Ok::<_, RunError>(opened)
    });
    let opened = match signals.unless(opening).await {
        Ok(opened) => opened??,
        Err(signal) => return Ok(Err(stopped(signal, 0, sink))),
    };
    warn_unseen(&opened.discovery, sink);
    let fresh = opened.discovery.sources.iter();
    let fresh = fresh.filter(|source| opened.planner.times(&source.key) == 0);
    let fresh = fresh.map(|source| (0, source.unprobed())).collect();
    let (prepared, discovery) = match opened.plan(fresh, signals, sink).await? {
        Ok(planned) => planned,
        Err(signal) => return Ok(Err(signal)),
    };
    warn_changed(&discovery, &prepared.shards, sink);
    Ok(Ok(prepared))
}

/// Says which signal ended the planning, with so many videos planned.
pub(super) fn stopped(signal: Signal, planned: usize, sink: Sink<'_>) -> Signal {
    sink(&Event::Stopped {
        reason: signal.name().into(),
        shards_done: 0,
        shards: 0,
        planned: Some(planned),
        failed: false,
    });
    signal
}

impl Opened {
    /// Plans these videos, each for its attempt, and makes the run ready. A signal ends it, and is told.
    pub async fn plan(
        self,
        new: Vec<(u32, PlannedVideo)>,
        signals: &mut Signals,
        sink: Sink<'_>,
    ) -> Result<Result<(Prepared, Discovery), Signal>, RunError> {
        let Self {
            record,
            discovery,
            folders,
            store,
            access,
            planner,
        } = self;
        let root = (discovery.root.clone(), folders.clone());
        let planned = planning::plan(planner, new, root, &record.job, signals, sink).await?;
        let planner = match planned {
            Planned::Whole(planner) => planner,
            Planned::Stopped { signal, videos } => return Ok(Err(stopped(signal, videos, sink))),
        };
        let videos = planner.videos();
        let ready = blocking(move || {
            let plans = planner.into_plans();
            moving::settle(&store, &record, &plans.shards)?;
            let prepared = Prepared::new(record, store, (&discovery, folders), plans, &access)?;
            Ok::<_, RunError>((prepared, discovery))
        });
        match signals.unless(ready).await {
            Ok(ready) => Ok(Ok(ready??)),
            Err(signal) => Ok(Err(stopped(signal, videos, sink))),
        }
    }
}

/// The source of a key, if the input still has it.
pub(super) fn find<'a>(discovery: &'a Discovery, key: &VideoKey) -> Option<&'a Source> {
    let at = discovery.sources.binary_search_by(|source| source.key.cmp(key));
    at.ok().map(|at| &discovery.sources[at])
}

/// Whether a video lies in the input as it was planned.
pub(super) fn is_as_planned(source: &Source, video: &PlannedVideo) -> bool {
    (source.bytes, &source.etag) == (video.bytes, &video.etag)
}

pub(super) fn warn_unseen(discovery: &Discovery, sink: Sink<'_>) {
    let unseen = &discovery.unseen;
    for place in &unseen.first {
        let message = format!("could not be looked at: {place}");
        sink(&Event::Warning { message });
    }
    if unseen.more() > 0 {
        let message = format!("{} more places could not be looked at", unseen.more());
        sink(&Event::Warning { message });
    }
}

/// Planned videos that the input has no more.
fn missing(discovery: &Discovery, shards: &[ShardPlan]) -> BTreeSet<VideoKey> {
    let planned = plan::latest(shards).into_iter().map(|latest| &latest.planned.key);
    let missing = planned.filter(|key| find(discovery, key).is_none());
    missing.cloned().collect()
}

/// Says which planned videos are gone or have changed. Labels that exist stay; the rest is reported when its
/// shard runs.
fn warn_changed(discovery: &Discovery, shards: &[ShardPlan], sink: Sink<'_>) {
    for plan::Latest { planned: video, .. } in plan::latest(shards) {
        let what = match find(discovery, &video.key) {
            None => "is gone from the input, or passed over there,",
            Some(source) if !is_as_planned(source, video) => "changed in the input",
            Some(_) => continue,
        };
        let message = format!(
            "{} {what} since it was planned; labels of the earlier file are kept",
            video.key
        );
        sink(&Event::Warning { message });
    }
}
