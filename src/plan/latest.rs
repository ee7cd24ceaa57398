//! What counts of each video: its latest attempt.
//!
//! A video is planned again when it left no row, or with a copy for which the shard of its rows is retired: so an earlier attempt
//! has nothing in `labels/` that the latest could double.

use super::PlanError;
use crate::dataset::{CommitRecord, PlannedVideo, ShardPlan, VideoOutcome};
use crate::domain::{ShardId, VideoKey};
use std::collections::BTreeMap;

/// One video in its latest attempt.
#[derive(Clone, Copy, Debug)]
pub struct Latest<'a> {
    /// The shard of that attempt.
    pub shard: &'a ShardPlan,
    /// The video as it was planned for it.
    pub planned: &'a PlannedVideo,
}

/// The latest attempt at each video, in key order.
pub fn latest(shards: &[ShardPlan]) -> Vec<Latest<'_>> {
    let mut latest: BTreeMap<&VideoKey, Latest<'_>> = BTreeMap::new();
    for shard in shards {
        for planned in &shard.videos {
            let here = Latest { shard, planned };
            let known = latest.entry(&planned.key).or_insert(here);
            if known.shard.attempt < shard.attempt {
                *known = here;
            }
        }
    }
    latest.into_values().collect()
}

/// What became of each video in its latest attempt, in key order; of those whose shard is committed.
///
/// # Errors
/// [`PlanError::Doubled`] when an earlier attempt left rows.
pub fn outcomes<'a>(
    shards: &'a [ShardPlan],
    commits: &'a BTreeMap<ShardId, CommitRecord>,
) -> Result<Vec<(Latest<'a>, &'a VideoOutcome)>, PlanError> {
    let mut known: BTreeMap<&VideoKey, &VideoOutcome> = BTreeMap::new();
    let mut attempts: Vec<&ShardPlan> = shards.iter().collect();
    attempts.sort_by_key(|shard| shard.attempt);
    for shard in attempts {
        let videos = commits.get(&shard.id).map_or(&[][..], |record| &record.videos);
        for (at, planned) in shard.videos.iter().enumerate() {
            let outcome = videos.get(at).filter(|video| video.key == planned.key);
            let earlier = match outcome {
                Some(outcome) => known.insert(&planned.key, outcome),
                None => known.remove(&planned.key),
            };
            if let Some(earlier) = earlier.filter(|earlier| earlier.rows > 0) {
                return Err(PlanError::Doubled(earlier.key.clone()));
            }
        }
    }
    let with_outcome = |video: Latest<'a>| Some((video, *known.get(&video.planned.key)?));
    Ok(latest(shards).into_iter().filter_map(with_outcome).collect())
}
