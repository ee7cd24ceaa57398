//! What a run would do, without doing it: nothing is written and no device is taken.

use super::opened::{begun_with, fits, origin};
use super::prepare::resolve;
use super::probe::Probing;
use super::{RunError, planning};
use affectmill_base::{Fingerprint, VideoKey};
use affectmill_discover::{self as discover, Source};
use affectmill_labelset::commit;
use affectmill_labelset::plan;
use affectmill_labelset::{JobRecord, PassedOver, Unseen};
use affectmill_spec::ModelRecord;
use affectmill_spec::{Crops, Job, SamplingMode, Values};
use affectmill_store::{Access, Store};
use serde::Serialize;

/// The outlook of a job.
#[derive(Debug, Serialize)]
pub struct RunEstimate {
    /// Videos of all plans, those of this job's new videos included.
    pub videos: usize,
    /// Estimated frames.
    pub frames: u64,
    /// Videos of unknown length, which frames, times, rows and size leave out.
    pub unknown: usize,
    /// Estimated playing time in microseconds.
    pub duration_us: u64,
    /// Bytes of the videos.
    pub input_bytes: u64,
    /// Estimated rows after sampling; a face each.
    pub rows: u64,
    /// Upper estimate of the output's size: every stored number uncompressed, and 16 KiB a crop where crops are kept (seen at
    /// quality 95: 10 KiB).
    pub output_bytes: u64,
    /// Shards.
    pub shards: usize,
    /// Shards that are committed.
    pub shards_done: usize,
    /// Models as `name (kind)`, untrained ones marked.
    pub models: Vec<String>,
    /// Fingerprint the labels would carry.
    pub fingerprint: Fingerprint,
    /// What is no video of the job, by kind.
    pub passed_over: Vec<PassedOver>,
    /// What could not be looked at.
    pub unseen: Unseen,
    /// Videos whose header could not be read, with the reason.
    pub unreadable: Vec<(VideoKey, String)>,
}

/// Looks at the input and, if it exists, at the output. `moved` as in [`prepare`](super::prepare).
///
/// # Errors
/// [`RunError`] as a run would end with before its first lease.
pub async fn estimate(job: Job, moved: bool) -> Result<RunEstimate, RunError> {
    let access = Access::of(&job);
    let (job, plans) = begun_with(job, &access)?;
    let record = resolve(job, &access)?;
    let covered = plan::covered(&plans.shards);
    let discovery = discover::discover(&record.job.input, &|key| covered.contains(key), &access)?;
    fits(&record.job, &discovery)?;
    let output = &record.job.output.uri;
    plans.admit(&origin(&record.job, &discovery, moved), output)?;
    let mut shards = plans.shards;
    let commits = match Store::connect_existing(output, &access) {
        Ok(store) => commit::read_all(&store)?,
        // Nothing there yet, or what is there is no output: the run will say what is wrong.
        Err(error) if error.trouble().is_none() => Default::default(),
        Err(error) => return Err(error.into()),
    };
    let fresh = discovery
        .sources
        .iter()
        .filter(|source| !covered.contains(&source.key));
    let fresh = fresh.map(Source::unprobed).collect();
    let mut probing = Probing::start(fresh, discovery.root.clone(), &record.job).await?;
    let mut probed = Vec::new();
    while !probing.is_done() {
        probed.extend(probing.piece(&mut |_| {}).await?);
    }
    if shards.is_empty() && probing.is_forbidden() {
        return Err(planning::forbidden(&discovery.root, probed));
    }
    shards.extend(plan::make(probed, &covered, record.job.output.shard_frames));

    let latest = plan::latest(&shards);
    let videos = || latest.iter().map(|video| video.planned);
    let frames: u64 = videos().map(|video| video.frames).sum();
    let duration_us: u64 = videos().map(|video| video.duration_us).sum();
    let sampling = &record.job.sampling;
    let rows = match sampling.mode {
        SamplingMode::Every => frames,
        SamplingMode::Stride => frames.div_ceil(sampling.stride.unwrap_or(1).max(1)),
        SamplingMode::Fps => ((duration_us as f64 / 1e6 * sampling.fps.unwrap_or(0.0)) as u64).min(frames),
        // Encoders set key frames a few seconds apart at most by default (x264: 250 frames).
        SamplingMode::Keyframes => frames / 100,
    };
    Ok(RunEstimate {
        videos: videos().count(),
        frames,
        unknown: videos().filter(|video| video.has_unknown_length()).count(),
        duration_us,
        input_bytes: videos().map(|video| video.bytes).sum(),
        rows,
        output_bytes: rows * (bytes_per_row(&record) + bytes_per_crop(&record)),
        shards: shards.len(),
        shards_done: shards
            .iter()
            .filter(|shard| commits.contains_key(&shard.id))
            .count(),
        models: record
            .models
            .iter()
            .map(|model| {
                let untrained = if model.untrained { ", UNTRAINED" } else { "" };
                format!("{} ({}{untrained})", model.name, model.kind.name())
            })
            .collect(),
        fingerprint: record.fingerprint.clone(),
        passed_over: discovery.passed_over,
        unseen: discovery.unseen,
        unreadable: videos()
            .filter_map(|video| Some((video.key.clone(), video.unreadable.clone()?)))
            .collect(),
    })
}

/// Bytes of a row's numbers: position, box and landmarks, and four for every stored output.
fn bytes_per_row(record: &JobRecord) -> u64 {
    let outputs: usize = record.models.iter().map(ModelRecord::output_count).sum();
    let stored = match record.job.output.values {
        Values::Both => 2 * outputs,
        _ => outputs,
    };
    (8 + 8 + 4 * 5 + 4 * 10 + 4 * stored) as u64
}

fn bytes_per_crop(record: &JobRecord) -> u64 {
    match record.job.output.crops {
        Crops::None => 0,
        Crops::Webdataset => 16 << 10,
    }
}
