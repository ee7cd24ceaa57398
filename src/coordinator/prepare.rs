//! Before the first lease: check the models, bind the output to the job, discover, probe and plan what is new.

use super::device::{as_begun, gpus, has_device};
use super::{Crew, Earlier, RunError, Sink, earlier, gpu_names, moving, probe};
use crate::commit::Tally;
use crate::dataset::{
    InputPlace, JobRecord, ModelRecord, PassedOver, PlannedVideo, RECORD_VERSION, ShardPlan, SourceKind,
    Unseen, paths,
};
use crate::discover::{self, Discovery, Source};
use crate::domain::{Crop, Location, NamedOutputs, NetworkKind, ShardId, VideoKey};
use crate::events::Event;
use crate::model::{self, Device, WeightFile};
use crate::plan::{self, Origin, Plans};
use crate::spec::{self, Decode, DeviceChoice, FaceMode, Job, ModelSpec, SamplingMode};
use crate::stages::decode;
use crate::store::{Access, Put, Scratch, Store, kept_copy};
use std::collections::BTreeSet;
use std::thread::available_parallelism;
use std::time::Duration;

/// Scratch files older than this belong to nobody that lives.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

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
        discovery: Discovery,
        Plans { shards, count, .. }: Plans,
        access: &Access,
    ) -> Result<Self, RunError> {
        let tally = Tally::of_plans(&store, &shards, count as usize)?;
        let ids = shards.iter().map(|shard| &shard.id);
        let committed = ids.filter(|id| tally.is_committed(id)).cloned().collect();
        let mut prepared = Self {
            gpus: gpus(&record.job),
            earlier: Earlier::read(&record, access)?,
            fetch_bytes: record.job.run.fetch_bytes,
            record,
            store,
            input_root: discovery.root,
            passed_over: discovery.passed_over,
            unseen: discovery.unseen,
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
    pub(super) fn crew(&self) -> Crew<'_> {
        let workers = self.worker_count();
        let devices = Device::in_turn(workers, self.gpus);
        Crew {
            record: &self.record,
            input_root: &self.input_root,
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

/// Prepares a run. New videos are probed by worker processes and get a plan of their own. `moved`: the user says that the
/// input is the collection that was planned, in another place.
///
/// # Errors
/// [`RunError`]; nothing is written before models, output and input are known to fit.
pub async fn prepare(job: Job, moved: bool, sink: Sink<'_>) -> Result<Prepared, RunError> {
    let Opened {
        record,
        discovery,
        store,
        access,
        origin,
        is_new_place,
        mut plans,
    } = open(job, moved, sink)?;
    if has_work(&store, &discovery, &plans.shards)? {
        begun_here(&store, &record.job)?;
    }
    let fresh = probe_fresh(&record.job, &discovery, &plans.shards, sink).await?;
    if !fresh.is_empty() || is_new_place {
        plans = plan::append(&store, &origin, &fresh, record.job.output.shard_frames)?;
    }
    moving::settle(&store, &record, &plans.shards)?;
    warn_changed(&discovery, &plans.shards, sink);
    Prepared::new(record, store, discovery, plans, &access)
}

/// Whether a run would label anything: new videos, or shards without a commit.
fn has_work(store: &Store, discovery: &Discovery, shards: &[ShardPlan]) -> Result<bool, RunError> {
    let listed = store.list(paths::COMMITS)?.into_iter();
    let listed: BTreeSet<String> = listed.map(|entry| entry.key).collect();
    let covered = plan::covered(shards);
    let is_open = |shard: &ShardPlan| !listed.contains(&paths::commit(&shard.id));
    let is_new = |source: &Source| !covered.contains(&source.key);
    Ok(shards.iter().any(is_open) || discovery.sources.iter().any(is_new))
}

/// Refuses to go on in an output that was begun on another class of device, where this machine labels. Past one machine, each
/// worker's host sees to it.
pub(super) fn begun_here(store: &Store, job: &Job) -> Result<(), RunError> {
    match job.servers() {
        None => as_begun(store, job),
        Some(_) => Ok(()),
    }
}

/// A job whose models, input and output were found to fit.
pub(super) struct Opened {
    pub record: JobRecord,
    pub discovery: Discovery,
    pub store: Store,
    pub access: Access,
    pub origin: Origin,
    /// The user has said of this place that what is planned lies there too, and no plan says so yet.
    pub is_new_place: bool,
    /// What is planned already.
    pub plans: Plans,
}

/// Resolves a job, finds its videos and binds the output to it; writes nothing before all that is known to fit.
pub(super) fn open(job: Job, moved: bool, sink: Sink<'_>) -> Result<Opened, RunError> {
    let access = Access::of(&job);
    let (job, plans) = begun_with(job, &access)?;
    let record = resolve(job, &access)?;
    // Past one machine it is for the workers' hosts to have it.
    if record.job.servers().is_none() {
        has_device(&record.job)?;
        has_nvdec(&record.job)?;
    }
    let discovery = discover::discover(&record.job.input, &plan::covered(&plans.shards), &access)?;
    fits(&record.job, &discovery)?;
    let store = Store::connect(&record.job.output.uri, &access)?;
    bind(&store, &record)?;
    let origin = origin(&record.job, &discovery, moved);
    let is_new_place = plans.admit(&origin, store.root())?;
    discover::keep(&store, &record.job.input.uri, &discovery)?;
    store.sweep_scratch(ORPHAN_AGE)?;
    warn_unseen(&discovery, sink);
    Ok(Opened {
        access,
        record,
        discovery,
        store,
        origin,
        is_new_place,
        plans,
    })
}

/// Where the videos of a job were found.
pub(super) fn origin(job: &Job, discovery: &Discovery, moved: bool) -> Origin {
    Origin {
        place: InputPlace {
            uri: job.input.uri.clone(),
            root: discovery.root.clone(),
        },
        moved,
    }
}

/// The job with what it leaves open as the output was begun with, and what is planned there, where that exists: a run may go
/// on on another machine.
pub(super) fn begun_with(mut job: Job, access: &Access) -> Result<(Job, Plans), RunError> {
    let store = match Store::connect_existing(&job.output.uri, access) {
        Ok(store) => store,
        // Nothing there yet, or what is there is no output.
        Err(error) if error.trouble().is_none() => return Ok((job, Plans::default())),
        Err(error) => return Err(error.into()),
    };
    if job.input.decode == Decode::Auto && store.get(paths::JOB)?.is_some() {
        job.input.decode = read_job(&store)?.job.input.decode;
    }
    Ok((job, plan::read(&store)?))
}

/// Refuses a machine on which no worker could decode as the job says.
pub(super) fn has_nvdec(job: &Job) -> Result<(), RunError> {
    if job.input.decode != Decode::Nvdec {
        return Ok(());
    }
    if job.run.device == DeviceChoice::Cpu {
        return Err(RunError::NoNvdec("[run] device is \"cpu\"".into()));
    }
    if gpus(job) == 0 {
        return Err(RunError::NoNvdec("libtorch sees no GPU".into()));
    }
    decode::nvdec_available().map_err(RunError::NoNvdec)
}

/// Refuses to look for faces in crops, and to go by the time of images that have none.
pub(super) fn fits(job: &Job, discovery: &Discovery) -> Result<(), RunError> {
    let mut sources = discovery.sources.iter();
    if job.sampling.mode == SamplingMode::Fps
        && job.input.image_fps.is_none()
        && let Some(images) = sources.find(|source| source.kind == SourceKind::Images)
    {
        return Err(RunError::Timeless(
            discovery.root.join(images.key.as_str()).to_string(),
        ));
    }
    let crops = discovery.sources.iter().find_map(|source| source.crops.as_ref());
    match crops.filter(|_| job.faces.mode != FaceMode::FullFrame) {
        None => Ok(()),
        Some(crops) => Err(RunError::Crops(discovery.root.join(&crops.archive).to_string())),
    }
}

/// Probes the videos that no plan covers; writes nothing.
pub async fn probe_fresh(
    job: &Job,
    discovery: &Discovery,
    planned: &[ShardPlan],
    sink: Sink<'_>,
) -> Result<Vec<PlannedVideo>, RunError> {
    let covered = plan::covered(planned);
    let fresh: Vec<PlannedVideo> = discovery
        .sources
        .iter()
        .filter(|source| !covered.contains(&source.key))
        .map(unprobed)
        .collect();
    if fresh.is_empty() {
        return Ok(fresh);
    }
    let (probed, forbidden) = probe::probe(fresh, discovery.root.clone(), job, sink).await?;
    // One forbidden video is that video's failure; where all are, the run would only fail them one by one.
    if forbidden == discovery.sources.len() {
        return Err(RunError::Forbidden {
            input: discovery.root.to_string(),
            cause: probed
                .into_iter()
                .find_map(|video| video.unreadable)
                .unwrap_or_default(),
        });
    }
    Ok(probed)
}

/// A video before anyone looked into it.
pub fn unprobed(source: &Source) -> PlannedVideo {
    PlannedVideo {
        key: source.key.clone(),
        kind: source.kind,
        bytes: source.bytes,
        etag: source.etag.clone(),
        frames: source.crops.as_ref().map_or(0, |crops| crops.frames),
        duration_us: 0,
        archive: source.crops.as_ref().map(|crops| crops.archive.clone()),
        unreadable: None,
    }
}

/// Binds the output to the job: the first run writes `job.json`, later ones must have the same fingerprint.
fn bind(store: &Store, record: &JobRecord) -> Result<(), RunError> {
    let mut kept = record.clone();
    // Said for one run.
    kept.job.run.allow_device_change = false;
    let text = serde_json::to_vec_pretty(&kept).map_err(|error| RunError::Record {
        path: store.path(paths::JOB).to_string(),
        cause: error.to_string(),
    })?;
    if store.put_new(paths::JOB, &text)? == Put::Created {
        return Ok(());
    }
    let found = read_job(store)?;
    if found.fingerprint == record.fingerprint {
        return Ok(());
    }
    Err(RunError::OtherFingerprint {
        output: store.root().to_string(),
        differences: spec::differences(&found.identity, &record.identity),
    })
}

/// Reads `job.json`.
pub fn read_job(store: &Store) -> Result<JobRecord, RunError> {
    let bad = |cause: String| RunError::Record {
        path: store.path(paths::JOB).to_string(),
        cause,
    };
    let bytes = store.get(paths::JOB)?.ok_or_else(|| bad("is missing".into()))?;
    let record: JobRecord = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if record.version != RECORD_VERSION {
        return Err(bad(format!(
            "has version {}, this program reads {RECORD_VERSION}",
            record.version
        )));
    }
    Ok(record)
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

fn warn_unseen(discovery: &Discovery, sink: Sink<'_>) {
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
