//! Plans a collection piece by piece, as its videos become known in order: what was planned before a kill stays planned.

use super::{Origin, PlanError, Plans, close, cut, encode, read};
use crate::{Plan, PlannedVideo, RECORD_VERSION, ShardPlan, paths};
use affectmill_base::{ShardId, VideoKey};
use affectmill_store::{Put, Store};
use std::collections::BTreeSet;

/// Appends plans to those of a store.
pub struct Planner {
    store: Store,
    plans: Plans,
    origin: Origin,
    /// The user says of this place that what is planned lies there too, and no plan says so yet.
    is_new_place: bool,
    /// Shards with rows of videos that are planned again.
    retired: BTreeSet<ShardId>,
    target_frames: u64,
}

impl Planner {
    /// Goes on from the plans that the store has, with videos that were found there.
    ///
    /// # Errors
    /// [`PlanError::OtherInput`]: the videos lie elsewhere than those that are planned.
    pub fn new(store: Store, plans: Plans, origin: Origin, target_frames: u64) -> Result<Self, PlanError> {
        Ok(Self {
            is_new_place: plans.admit(&origin, store.root())?,
            store,
            plans,
            origin,
            retired: BTreeSet::new(),
            target_frames,
        })
    }

    /// Takes shards for retired: of each in which a video is that is planned again, a copy is planned that holds its other
    /// videos.
    pub fn retire(&mut self, shards: BTreeSet<ShardId>) {
        self.retired = shards;
    }

    /// Every shard of every plan, in the order they were planned.
    pub fn shards(&self) -> &[ShardPlan] {
        &self.plans.shards
    }

    /// All plans.
    pub fn into_plans(self) -> Plans {
        self.plans
    }

    /// How many videos are planned.
    pub fn videos(&self) -> usize {
        self.plans.times.len()
    }

    /// How often a video was planned.
    pub fn times(&self, key: &VideoKey) -> u32 {
        self.plans.times(key)
    }

    /// Plans videos, each for its attempt (how often it was planned before: 0 for a new one), and returns those that wait for
    /// what follows them.
    ///
    /// Pieces come in the order of attempt and key. A piece ends where a shard does, so that the shards are the same however
    /// the videos are cut into pieces; with the last piece (`whole`) nothing is left. Where shards are retired all is one piece:
    /// a copy without the video it was made for would cost that video its rows. When another coordinator appends at the same
    /// moment, its plan stands and only what it leaves is planned.
    ///
    /// The caller knows that no earlier attempt left a row, save in the shards that are retired.
    ///
    /// # Errors
    /// A plan cannot be read or written; or the videos lie elsewhere than those that another coordinator planned.
    pub fn append(
        &mut self,
        mut videos: Vec<(u32, PlannedVideo)>,
        whole: bool,
    ) -> Result<Vec<(u32, PlannedVideo)>, PlanError> {
        if !whole && !self.retired.is_empty() {
            return Ok(videos);
        }
        loop {
            videos.retain(|(attempt, video)| self.times(&video.key) == *attempt);
            let mut shards = self.copies(&videos);
            shards.extend(cut(videos, self.target_frames));
            let open = if whole { None } else { shards.pop() };
            let left = open.map_or_else(Vec::new, |shard| videos_of(vec![shard]));
            if shards.is_empty() && !(whole && self.is_new_place) {
                return Ok(left);
            }
            let plan = Plan {
                version: RECORD_VERSION,
                input: Some(self.origin.place.clone()),
                shards,
            };
            let key = paths::plan(self.plans.count + 1);
            match self.store.put_new(&key, &encode(&plan)?)? {
                Put::Created => {
                    self.add(plan)?;
                    return Ok(left);
                }
                Put::Exists => {
                    self.plans = read(&self.store)?;
                    self.is_new_place = self.plans.admit(&self.origin, self.store.root())?;
                    videos = videos_of(plan.shards);
                    videos.extend(left);
                }
            }
        }
    }

    /// Copies of the retired shards that these videos lie in, for the other videos there.
    fn copies(&self, again: &[(u32, PlannedVideo)]) -> Vec<ShardPlan> {
        if self.retired.is_empty() {
            return Vec::new();
        }
        let again: BTreeSet<&VideoKey> = again.iter().map(|(_, video)| &video.key).collect();
        let shards = &self.plans.shards;
        let is_copied = |old: &ShardPlan| shards.iter().any(|copy| copy.copy_of.as_ref() == Some(&old.id));
        let old = shards
            .iter()
            .filter(|shard| self.retired.contains(&shard.id) && !is_copied(shard))
            .filter(|shard| shard.videos.iter().any(|video| again.contains(&video.key)));
        old.map(|shard| {
            let attempt = shard.attempt + 1;
            let rest = shard
                .videos
                .iter()
                .filter(|video| self.times(&video.key) == attempt && !again.contains(&video.key));
            close(rest.cloned().collect(), attempt, Some(shard.id.clone()))
        })
        .collect()
    }

    fn add(&mut self, plan: Plan) -> Result<(), PlanError> {
        self.plans.add_places(&plan, &self.store)?;
        self.is_new_place = false;
        for video in plan.shards.iter().flat_map(|shard| &shard.videos) {
            *self.plans.times.entry(video.key.clone()).or_default() += 1;
        }
        self.plans.shards.extend(plan.shards);
        self.plans.count += 1;
        Ok(())
    }
}

/// The videos of shards that are cut anew, each with its attempt.
fn videos_of(shards: Vec<ShardPlan>) -> Vec<(u32, PlannedVideo)> {
    let with_attempt = |shard: ShardPlan| {
        let attempt = shard.attempt;
        shard.videos.into_iter().map(move |video| (attempt, video))
    };
    let cut = shards.into_iter().filter(|shard| shard.copy_of.is_none());
    cut.flat_map(with_attempt).collect()
}
