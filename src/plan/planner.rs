//! Plans a collection piece by piece, as its videos become known in order: what was planned before a kill stays planned.

use super::{PlanError, Plans, cut, encode, read};
use crate::dataset::{Plan, PlannedVideo, RECORD_VERSION, ShardPlan, paths};
use crate::domain::VideoKey;
use crate::store::{Put, Store};

/// Appends plans to those of a store.
pub struct Planner {
    store: Store,
    plans: Plans,
    target_frames: u64,
}

impl Planner {
    /// Reads the plans that are there.
    ///
    /// # Errors
    /// As [`read_all`](super::read_all).
    pub fn open(store: &Store, target_frames: u64) -> Result<Self, PlanError> {
        Ok(Self {
            plans: read(store)?,
            store: store.clone(),
            target_frames,
        })
    }

    /// Every shard of every plan, in the order they were planned.
    pub fn shards(&self) -> &[ShardPlan] {
        &self.plans.shards
    }

    /// The same, for good.
    pub fn into_shards(self) -> Vec<ShardPlan> {
        self.plans.shards
    }

    /// How many videos are planned.
    pub fn videos(&self) -> usize {
        self.plans.seen.len()
    }

    /// How often a video was planned.
    pub fn times(&self, key: &VideoKey) -> u32 {
        self.plans.seen.get(key).copied().unwrap_or(0)
    }

    /// Plans videos, each for its attempt (how often it was planned before: 0 for a new one), and returns those that wait for
    /// what follows them.
    ///
    /// Pieces come in the order of attempt and key. A piece ends where a shard does, so that the shards are the same however
    /// the videos are cut into pieces; with the last piece (`whole`) nothing is left. When another coordinator appends at the
    /// same moment, its plan stands and only what it leaves is planned.
    ///
    /// The caller knows that no earlier attempt left a row.
    ///
    /// # Errors
    /// A plan cannot be read or written.
    pub fn append(
        &mut self,
        mut videos: Vec<(u32, PlannedVideo)>,
        whole: bool,
    ) -> Result<Vec<(u32, PlannedVideo)>, PlanError> {
        loop {
            videos.retain(|(attempt, video)| self.times(&video.key) == *attempt);
            let mut shards = cut(videos, self.target_frames);
            let open = if whole { None } else { shards.pop() };
            let left = open.map_or_else(Vec::new, |shard| videos_of(vec![shard]));
            if shards.is_empty() {
                return Ok(left);
            }
            let plan = Plan {
                version: RECORD_VERSION,
                shards,
            };
            let key = paths::plan(self.plans.count + 1);
            match self.store.put_new(&key, &encode(&plan)?)? {
                Put::Created => {
                    self.add(plan.shards);
                    return Ok(left);
                }
                Put::Exists => {
                    self.plans = read(&self.store)?;
                    videos = videos_of(plan.shards);
                    videos.extend(left);
                }
            }
        }
    }

    fn add(&mut self, shards: Vec<ShardPlan>) {
        for video in shards.iter().flat_map(|shard| &shard.videos) {
            *self.plans.seen.entry(video.key.clone()).or_default() += 1;
        }
        self.plans.shards.extend(shards);
        self.plans.count += 1;
    }
}

fn videos_of(shards: Vec<ShardPlan>) -> Vec<(u32, PlannedVideo)> {
    let with_attempt = |shard: ShardPlan| {
        let attempt = shard.attempt;
        shard.videos.into_iter().map(move |video| (attempt, video))
    };
    shards.into_iter().flat_map(with_attempt).collect()
}
