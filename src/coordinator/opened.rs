//! A job that was found to fit its models, its input and its output, before anything is planned.

use super::device::{as_begun, gpus, has_device};
use super::prepare::resolve;
use super::{RunError, moving};
use affectmill_base::InputFolders;
use affectmill_base::SourceKind;
use affectmill_discover as discover;
use affectmill_discover::{Discovery, Source};
use affectmill_labelset::commit;
use affectmill_labelset::plan;
use affectmill_labelset::plan::{Origin, Planner, Plans};
use affectmill_labelset::{InputPlace, InputRecord, JobRecord, LabelSet, ShardPlan, paths};
use affectmill_media::decode;
use affectmill_spec as spec;
use affectmill_spec::{Decode, DeviceChoice, FaceMode, Job, SamplingMode};
use affectmill_store::{Access, Put, Store};
use std::collections::BTreeSet;
use std::time::Duration;

/// Scratch files older than this belong to nobody that lives.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// A job whose models, input and output were found to fit.
pub(super) struct Opened {
    pub record: JobRecord,
    pub discovery: Discovery,
    pub folders: InputFolders,
    pub store: Store,
    pub access: Access,
    pub planner: Planner,
}

/// Resolves a job, finds its videos and binds the output to it, with the plans it has; writes nothing before all that is known
/// to fit.
pub(super) fn open(job: Job, moved: bool) -> Result<Opened, RunError> {
    let access = Access::of(&job);
    let (job, plans) = begun_with(job, &access)?;
    let record = resolve(job, &access)?;
    // Past one machine it is for the workers' hosts to have it.
    if record.job.servers().is_none() {
        has_device(&record.job)?;
        has_nvdec(&record.job)?;
    }
    let discovery = discover::discover(&record.job.input, &|key| plans.times(key) > 0, &access)?;
    fits(&record.job, &discovery)?;
    let root = discovery.root.as_local();
    let folders = root.map(InputFolders::of).unwrap_or_default();
    let store = Store::connect(&record.job.output.uri, &access)?;
    bind(&store, &record)?;
    let origin = origin(&record.job, &discovery, moved);
    let planner = Planner::new(store.clone(), plans, origin, record.job.output.shard_frames)?;
    let (passed_over, unseen) = (discovery.passed_over.clone(), discovery.unseen.clone());
    commit::keep_input(
        &store,
        &InputRecord::new(record.job.input.uri.clone(), passed_over, unseen),
    )?;
    store.sweep_scratch(ORPHAN_AGE)?;
    // What a retry began that was killed: until then some videos seem to have rows twice.
    moving::settle(&store, &record, planner.shards())?;
    Ok(Opened {
        access,
        record,
        discovery,
        folders,
        store,
        planner,
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

impl Opened {
    /// Whether a run would label anything: new videos, or shards without a commit.
    pub fn has_work(&self) -> Result<bool, RunError> {
        let listed = self.store.list(paths::COMMITS)?.into_iter();
        let listed: BTreeSet<String> = listed.map(|entry| entry.key).collect();
        let is_open = |shard: &ShardPlan| !listed.contains(&paths::commit(&shard.id));
        let is_new = |source: &Source| self.planner.times(&source.key) == 0;
        Ok(self.planner.shards().iter().any(is_open) || self.discovery.sources.iter().any(is_new))
    }

    /// Refuses to go on in an output that was begun on another class of device, where this machine labels. Past one machine,
    /// each worker's host sees to it.
    pub fn begun_here(&self) -> Result<(), RunError> {
        match self.record.job.servers() {
            None => as_begun(&self.store, &self.record.job),
            Some(_) => Ok(()),
        }
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
        job.input.decode = LabelSet::open(store.clone())?.job().job.input.decode;
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
    let found = LabelSet::open(store.clone())?.into_job();
    if found.fingerprint == record.fingerprint {
        return Ok(());
    }
    Err(RunError::OtherFingerprint {
        output: store.root().to_string(),
        committed: !store.list(paths::COMMITS)?.is_empty(),
        differences: spec::differences(&found.identity, &record.identity),
    })
}
