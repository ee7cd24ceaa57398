//! What counts of each video: its latest attempt.
//!
//! A video is planned again when it left no row, or with a copy for which the shard of its rows is retired: so an earlier attempt
//! has nothing in `labels/` that the latest could double.

use super::PlanError;
use crate::{CommitRecord, PlannedVideo, ShardPlan, VideoOutcome};
use affectmill_base::ShardId;
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
    let mut latest: Vec<Latest<'_>> = in_shards(shards).map(|(_, video)| video).collect();
    latest.sort_unstable_by(|a, b| {
        let attempts = b.shard.attempt.cmp(&a.shard.attempt);
        a.planned.key.cmp(&b.planned.key).then(attempts)
    });
    latest.dedup_by(|earlier, latest| earlier.planned.key == latest.planned.key);
    latest
}

/// Each attempt at each video, with its place in its shard.
fn in_shards(shards: &[ShardPlan]) -> impl Iterator<Item = (usize, Latest<'_>)> {
    let of = |shard| move |(at, planned)| (at, Latest { shard, planned });
    shards
        .iter()
        .flat_map(move |shard: &ShardPlan| shard.videos.iter().enumerate().map(of(shard)))
}

/// What became of each video in its latest attempt, in key order; of those whose shard is committed.
///
/// # Errors
/// [`PlanError::Doubled`] when an earlier attempt left rows.
pub fn outcomes<'a>(
    shards: &'a [ShardPlan],
    commits: &'a BTreeMap<ShardId, CommitRecord>,
) -> Result<Vec<(Latest<'a>, &'a VideoOutcome)>, PlanError> {
    // Millions of them: as little of each as can be.
    let mut attempts: Vec<(Latest<'_>, Option<&VideoOutcome>)> = in_shards(shards)
        .map(|(at, video)| {
            let outcome = commits
                .get(&video.shard.id)
                .and_then(|record| record.videos.get(at));
            (video, outcome.filter(|outcome| outcome.key == video.planned.key))
        })
        .collect();
    attempts.sort_unstable_by(|(a, _), (b, _)| {
        let attempts = b.shard.attempt.cmp(&a.shard.attempt);
        a.planned.key.cmp(&b.planned.key).then(attempts)
    });
    let mut doubled = None;
    attempts.dedup_by(|(earlier, outcome), (latest, _)| {
        let same = earlier.planned.key == latest.planned.key;
        if same && outcome.is_some_and(|outcome| outcome.rows > 0) {
            doubled.get_or_insert_with(|| earlier.planned.key.clone());
        }
        same
    });
    match doubled {
        Some(key) => Err(PlanError::Doubled(key)),
        None => Ok(attempts
            .into_iter()
            .filter_map(|(video, outcome)| Some((video, outcome?)))
            .collect()),
    }
}
