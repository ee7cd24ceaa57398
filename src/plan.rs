//! Cuts a collection into shards, and keeps the plans.
//!
//! Flows in: videos with estimated frames, and the keys that earlier plans cover. Flows out: shards of consecutive
//! videos, stored as immutable plans `_affectmill/plans/00001.json.zst`, `00002…`. [`make`] is pure: the same
//! videos give the same shards. A video belongs to one shard for good, unless it is planned again as a
//! further attempt ([`append_again`]); nothing here opens a video or changes a plan that was written.

mod latest;
mod places;

pub use latest::{Latest, latest, outcomes};
pub use places::Origin;

use crate::dataset::{InputPlace, Plan, PlannedVideo, RECORD_VERSION, ShardPlan, SourceKind, paths};
use crate::domain::{ShardId, VideoKey};
use crate::store::{Put, Store, StoreError};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Most videos of one shard, however short they are.
pub const MAX_VIDEOS: usize = 512;
/// Most videos of unknown length (0 frames) in one shard: they count as nothing towards the target.
pub const MAX_UNKNOWN: usize = 64;

/// Why plans cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan is not what was written.
    #[error(
        "the plan `{path}` is damaged: {cause}; restore it from a backup, or label into a new output folder"
    )]
    Damaged {
        /// The plan.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// A newer affectmill wrote it.
    #[error(
        "the plan `{path}` has version {found}, this affectmill reads {RECORD_VERSION}; use the version that began this label set"
    )]
    Version {
        /// The plan.
        path: String,
        /// Its version.
        found: u32,
    },
    /// A video was planned again although it has rows.
    #[error(
        "`{0}` was planned again although an earlier attempt left rows of it: they would be there twice; restore the \
             plans from a backup, or label into a new output folder"
    )]
    Doubled(VideoKey),
    /// The videos lie elsewhere than those that are planned.
    #[error(
        "`{output}` labels the videos in `{known}`, and the input is now in `{found}`, where videos of the same names may be \
         others; name another [output] uri, or, if it is the same collection in another place, run once with --input-moved"
    )]
    OtherInput {
        /// The output root.
        output: String,
        /// What the keys of the planned videos are relative to.
        known: String,
        /// What those of the new ones are relative to.
        found: String,
    },
    /// A plan cannot be put into words.
    #[error("cannot encode a plan: {0}; please report this")]
    Encode(String),
}

/// Cuts the videos that are not `covered`, in any order, into shards of consecutive videos in key order.
///
/// A shard closes before the video that would take it over `target_frames`; a longer video is a shard of its own.
/// Videos of unknown length (0 frames) count as 0 frames, at most [`MAX_UNKNOWN`] to a shard; no shard has more than
/// [`MAX_VIDEOS`].
pub fn make(
    mut videos: Vec<PlannedVideo>,
    covered: &BTreeSet<VideoKey>,
    target_frames: u64,
) -> Vec<ShardPlan> {
    videos.retain(|video| !covered.contains(&video.key));
    cut(videos, target_frames, 0)
}

fn cut(mut videos: Vec<PlannedVideo>, target_frames: u64, attempt: u32) -> Vec<ShardPlan> {
    videos.sort_by(|a, b| a.key.cmp(&b.key));
    let mut shards = Vec::new();
    let mut shard: Vec<PlannedVideo> = Vec::new();
    let (mut frames, mut unknown) = (0_u64, 0);
    for video in videos {
        let is_unknown = usize::from(video.frames == 0);
        let full = frames.saturating_add(video.frames) > target_frames
            || shard.len() == MAX_VIDEOS
            || unknown + is_unknown > MAX_UNKNOWN;
        if full && !shard.is_empty() {
            shards.push(close(std::mem::take(&mut shard), attempt, None));
            (frames, unknown) = (0, 0);
        }
        frames = frames.saturating_add(video.frames);
        unknown += is_unknown;
        shard.push(video);
    }
    if !shard.is_empty() {
        shards.push(close(shard, attempt, None));
    }
    shards
}

/// The keys some shards hold.
pub fn covered(shards: &[ShardPlan]) -> BTreeSet<VideoKey> {
    let videos = shards.iter().flat_map(|shard| &shard.videos);
    videos.map(|video| video.key.clone()).collect()
}

/// All plans of an output.
#[derive(Clone, Debug, Default)]
pub struct Plans {
    /// Every shard of every plan, in the order they were planned.
    pub shards: Vec<ShardPlan>,
    /// Where the videos lie: each place once, the one that was planned from last at the end. Empty when nothing is planned.
    pub places: Vec<InputPlace>,
    /// How many plans there are.
    pub count: u32,
}

/// The shards of [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_all(store: &Store) -> Result<Vec<ShardPlan>, PlanError> {
    read(store).map(|plans| plans.shards)
}

/// Plans the videos that no plan covers yet, and returns every plan. When another coordinator
/// appends at the same moment, its plan stands and only what it leaves uncovered is planned.
///
/// # Errors
/// As [`read`]; the videos lie elsewhere than those that are planned; or the plan cannot be written.
pub fn append(
    store: &Store,
    origin: &Origin,
    videos: &[PlannedVideo],
    target_frames: u64,
) -> Result<Plans, PlanError> {
    append_made(store, origin, |planned| {
        make(videos.to_vec(), &covered(planned), target_frames)
    })
}

/// Plans videos again, each for the attempt it comes with, and returns every plan. What another coordinator
/// planned for that attempt at the same moment stands.
///
/// The caller knows that no earlier attempt left a row of them, save in the shards to be `retired`: of each of these a copy is
/// planned that holds its other videos.
///
/// # Errors
/// As [`append`].
pub fn append_again(
    store: &Store,
    origin: &Origin,
    videos: &[(u32, PlannedVideo)],
    retired: &BTreeSet<ShardId>,
    target_frames: u64,
) -> Result<Plans, PlanError> {
    append_made(store, origin, |planned| {
        let attempts = attempts(planned);
        let mut due: BTreeMap<u32, Vec<PlannedVideo>> = BTreeMap::new();
        for (attempt, video) in videos {
            if attempts.get(&video.key) == Some(attempt) {
                due.entry(*attempt).or_default().push(video.clone());
            }
        }
        let again: BTreeSet<&VideoKey> = due.values().flatten().map(|video| &video.key).collect();
        let is_copied = |shard: &ShardPlan| {
            planned
                .iter()
                .any(|copy| copy.copy_of.as_ref() == Some(&shard.id))
        };
        let old = planned
            .iter()
            .filter(|shard| retired.contains(&shard.id) && !is_copied(shard))
            .filter(|shard| shard.videos.iter().any(|video| again.contains(&video.key)));
        let copies: Vec<ShardPlan> = old
            .map(|shard| {
                let latest = |video: &&PlannedVideo| attempts.get(&video.key) == Some(&(shard.attempt + 1));
                let rest = shard.videos.iter().filter(latest);
                let rest = rest.filter(|video| !again.contains(&video.key)).cloned();
                close(rest.collect(), shard.attempt + 1, Some(shard.id.clone()))
            })
            .collect();
        let fresh = due
            .into_iter()
            .flat_map(|(attempt, videos)| cut(videos, target_frames, attempt));
        copies.into_iter().chain(fresh).collect()
    })
}

/// How often each video was planned.
fn attempts(shards: &[ShardPlan]) -> BTreeMap<&VideoKey, u32> {
    let mut attempts = BTreeMap::new();
    for video in shards.iter().flat_map(|shard| &shard.videos) {
        *attempts.entry(&video.key).or_default() += 1;
    }
    attempts
}

fn append_made(
    store: &Store,
    origin: &Origin,
    make: impl Fn(&[ShardPlan]) -> Vec<ShardPlan>,
) -> Result<Plans, PlanError> {
    loop {
        let mut plans = read(store)?;
        let is_new = plans.admit(origin, store.root())?;
        let shards = make(&plans.shards);
        if shards.is_empty() && !is_new {
            return Ok(plans);
        }
        let plan = Plan {
            version: RECORD_VERSION,
            input: Some(origin.place.clone()),
            shards,
        };
        match store.put_new(&paths::plan(plans.count + 1), &encode(&plan)?)? {
            Put::Created => {
                plans.add_places(&plan, store)?;
                plans.shards.extend(plan.shards);
                plans.count += 1;
                return Ok(plans);
            }
            Put::Exists => {}
        }
    }
}

/// Gives a shard its id: a hash over key, kind and size of each video, over the attempt where it is not the first, and over the
/// shard that it is a copy of. Not
/// over modification times, which a copy of the collection changes, nor over estimates, which another prober may see
/// differently: neither changes a label, and the id is the name of the part.
fn close(videos: Vec<PlannedVideo>, attempt: u32, copy_of: Option<ShardId>) -> ShardPlan {
    ShardPlan {
        id: shard_id(&videos, attempt, copy_of.as_ref()),
        attempt,
        copy_of,
        videos,
    }
}

fn shard_id(videos: &[PlannedVideo], attempt: u32, copy_of: Option<&ShardId>) -> ShardId {
    let mut hash = Sha256::new();
    hash.update(b"affectmill shard 1");
    for video in videos {
        let kind = match video.kind {
            SourceKind::File => 0_u8,
            SourceKind::Images => 1,
        };
        hash.update((video.key.as_str().len() as u64).to_le_bytes());
        hash.update(video.key.as_str());
        hash.update([kind]);
        hash.update(video.bytes.to_le_bytes());
    }
    if attempt > 0 {
        hash.update(b"attempt");
        hash.update(attempt.to_le_bytes());
    }
    if let Some(old) = copy_of {
        hash.update(b"copy of");
        hash.update(old.as_str());
    }
    ShardId::from_digest(&hash.finalize())
}

/// Reads every plan.
///
/// # Errors
/// The store cannot be read; a plan is damaged, missing among its followers, or of another version.
pub fn read(store: &Store) -> Result<Plans, PlanError> {
    let mut plans = Plans::default();
    let mut seen: BTreeMap<VideoKey, u32> = BTreeMap::new();
    for entry in store.list(paths::PLANS)? {
        let damaged = |cause: String| PlanError::Damaged {
            path: store.path(&entry.key).to_string(),
            cause,
        };
        plans.count += 1;
        let expected = paths::plan(plans.count);
        if entry.key != expected {
            return Err(damaged(format!(
                "`{expected}` should come before it and is missing"
            )));
        }
        let bytes = store
            .get(&entry.key)?
            .ok_or_else(|| damaged("it vanished while it was read".into()))?;
        let plan = decode(&bytes, damaged, |found| PlanError::Version {
            path: store.path(&entry.key).to_string(),
            found,
        })?;
        plans.add_places(&plan, store)?;
        for shard in plan.shards {
            if shard.id != shard_id(&shard.videos, shard.attempt, shard.copy_of.as_ref()) {
                return Err(damaged(format!(
                    "shard {} does not hold the videos of its id",
                    shard.id
                )));
            }
            for video in &shard.videos {
                let planned = seen.entry(video.key.clone()).or_default();
                if *planned != shard.attempt {
                    return Err(damaged(format!(
                        "`{}` is planned twice for one attempt, or before an earlier one",
                        video.key
                    )));
                }
                *planned += 1;
            }
            plans.shards.push(shard);
        }
    }
    Ok(plans)
}

fn encode(plan: &Plan) -> Result<Vec<u8>, PlanError> {
    let json = serde_json::to_vec(plan).map_err(|error| PlanError::Encode(error.to_string()))?;
    zstd::encode_all(json.as_slice(), 3).map_err(|error| PlanError::Encode(error.to_string()))
}

fn decode(
    bytes: &[u8],
    damaged: impl Fn(String) -> PlanError,
    version: impl Fn(u32) -> PlanError,
) -> Result<Plan, PlanError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let json = zstd::decode_all(bytes).map_err(|error| damaged(error.to_string()))?;
    let head: Head = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    if head.version != RECORD_VERSION {
        return Err(version(head.version));
    }
    serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
