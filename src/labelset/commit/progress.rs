//! What the commits of a label set add up to, without holding their records: for `status`, and for the beginning of a run.
//!
//! Flows in: the shards of all plans, and each commit record once. Flows out: totals, rows, and the videos that are not ok. A
//! coordinator keeps the tally in `_affectmill/tally.json.zst` now and then, so that a million videos' records are not read anew
//! each time somebody asks. The file is no truth: what it says of a shard counts only while the store lists that shard's record
//! at the same size, and where its plans are not those of the store it is not used.

use super::{AT_ONCE, CommitError, decode};
use crate::events::{NotOk, Totals};
use crate::{CommitRecord, LabelSetError, ShardPlan, paths, plan};
use affectmill_base::{ShardId, VideoKey};
use affectmill_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the kept file; one of another version is not used.
const VERSION: u32 = 1;

/// A tally is kept once there are so many commits more than in the one kept before, or a sixteenth more: so that all that is
/// written over a run is a small multiple of the last one, and readers have few records to add.
const WORTH_KEEPING: usize = 256;

/// Sums over the commits of a label set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tally {
    version: u32,
    /// Plans that the shards are of.
    plans: usize,
    shards: BTreeMap<ShardId, Share>,
    /// Latest attempt at each video that was planned more than once.
    again: BTreeMap<VideoKey, u32>,
    rows: u64,
    fell_back: usize,
    not_ok: BTreeMap<VideoKey, NotOk>,
    /// Committed shards by what they were labelled on, as far as that is known.
    devices: BTreeMap<String, usize>,
    /// Commits in the file that was kept last.
    #[serde(skip)]
    kept: usize,
}

/// What is known of a shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Share {
    attempt: u32,
    /// Videos whose latest attempt it is.
    videos: usize,
    /// Their estimated frames, where they are known.
    frames: u64,
    /// Places in the shard of those whose length is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<u32>,
    /// Frames that these turned out to have.
    #[serde(default, skip_serializing_if = "is_zero")]
    found: u64,
    /// Bytes of its commit record, once that was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Tally {
    /// The tally of the commits that are there now, over the store's plans as another one kept it; `None` where none fits.
    ///
    /// # Errors
    /// [`CommitError`] when the commits cannot be read.
    pub fn of_kept(store: &Store) -> Result<Option<Self>, CommitError> {
        let plans = store.list(paths::PLANS)?.len();
        let Some(mut kept) = Self::kept(store)?.filter(|kept| kept.plans == plans) else {
            return Ok(None);
        };
        kept.catch_up(store)?;
        Ok(Some(kept))
    }

    /// The tally of the commits that are there now, as it was kept or over the plans.
    ///
    /// # Errors
    /// [`LabelSetError`] when plans or commits cannot be read.
    pub fn read(store: &Store) -> Result<Self, LabelSetError> {
        if let Some(tally) = Self::of_kept(store)? {
            return Ok(tally);
        }
        let plans = plan::read(store)?;
        Ok(Self::of_plans(store, &plans.shards, plans.count as usize)?)
    }

    /// The same over these shards, which so many plans hold.
    ///
    /// # Errors
    /// As [`Self::of_kept`].
    pub fn of_plans(store: &Store, shards: &[ShardPlan], plans: usize) -> Result<Self, CommitError> {
        let kept = Self::kept(store)?.filter(|kept| kept.plans == plans);
        let mut tally = kept.unwrap_or_else(|| Self::of(shards, plans));
        tally.catch_up(store)?;
        Ok(tally)
    }

    /// Of shards without a commit.
    fn of(shards: &[ShardPlan], plans: usize) -> Self {
        let mut again: BTreeMap<VideoKey, u32> = BTreeMap::new();
        for shard in shards.iter().filter(|shard| shard.attempt > 0) {
            for video in &shard.videos {
                let latest = again.entry(video.key.clone()).or_default();
                *latest = shard.attempt.max(*latest);
            }
        }
        let share = |shard: &ShardPlan| {
            let is_latest = |key: &VideoKey| again.get(key).copied().unwrap_or(0) == shard.attempt;
            let all = || shard.videos.iter().zip(0..);
            let latest = || all().filter(|(video, _)| is_latest(&video.key));
            let unknown = latest().filter(|(video, _)| video.has_unknown_length());
            let share = Share {
                attempt: shard.attempt,
                videos: latest().count(),
                frames: latest()
                    .map(|(video, _)| video.frames)
                    .fold(0, u64::saturating_add),
                unknown: unknown.map(|(_, at)| at).collect(),
                found: 0,
                record: None,
            };
            (shard.id.clone(), share)
        };
        let shards = shards.iter().map(share).collect();
        Self {
            version: VERSION,
            plans,
            shards,
            again,
            rows: 0,
            fell_back: 0,
            not_ok: BTreeMap::new(),
            devices: BTreeMap::new(),
            kept: 0,
        }
    }

    /// The one that was kept; `None` where there is none, or none that this version reads.
    fn kept(store: &Store) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = store.get(paths::TALLY)? else {
            return Ok(None);
        };
        let read =
            || -> Option<Self> { serde_json::from_slice(&zstd::decode_all(bytes.as_slice()).ok()?).ok() };
        let mut kept = read().filter(|kept| kept.version == VERSION);
        if let Some(kept) = &mut kept {
            kept.kept = kept.done();
        }
        Ok(kept)
    }

    /// Adds what was committed since; where a record is gone or another one, all are added anew.
    ///
    /// # Errors
    /// [`CommitError`]: the store failed, or a record is damaged.
    pub fn catch_up(&mut self, store: &Store) -> Result<(), CommitError> {
        let listed: BTreeMap<String, u64> = store
            .list(paths::COMMITS)?
            .into_iter()
            .map(|entry| (entry.key, entry.bytes))
            .collect();
        let is_stale = |(id, share): (&ShardId, &Share)| {
            share.record.is_some() && share.record != listed.get(&paths::commit(id)).copied()
        };
        if self.shards.iter().any(is_stale) {
            self.shards
                .values_mut()
                .for_each(|share| (share.record, share.found) = (None, 0));
            (self.rows, self.fell_back, self.kept) = (0, 0, 0);
            self.not_ok.clear();
            self.devices.clear();
        }
        let new = self.shards.iter().filter(|(_, share)| share.record.is_none());
        let new: Vec<String> = new
            .map(|(id, _)| paths::commit(id))
            .filter(|key| listed.contains_key(key))
            .collect();
        for keys in new.chunks(AT_ONCE) {
            for (key, bytes) in keys.iter().zip(store.get_each(keys)?) {
                let Some(bytes) = bytes else { continue };
                let record = decode(store, key, &bytes)?;
                self.add(&record, listed[key]);
            }
        }
        Ok(())
    }

    fn add(&mut self, record: &CommitRecord, bytes: u64) {
        let Some(share) = self.shards.get_mut(&record.shard) else {
            return;
        };
        share.record = Some(bytes);
        let unknown = share
            .unknown
            .iter()
            .filter_map(|at| record.videos.get(*at as usize));
        share.found = unknown.map(|video| video.frames).sum();
        self.rows += record.part.rows;
        let attempt = share.attempt;
        let latest = |key: &VideoKey| self.again.get(key).copied().unwrap_or(0) == attempt;
        if let Some(device) = &record.device {
            *self.devices.entry(device.to_string()).or_default() += 1;
        }
        for video in record.videos.iter().filter(|video| latest(&video.key)) {
            self.fell_back += usize::from(video.decode_fallback.is_some());
            self.not_ok
                .extend(NotOk::of(video).map(|not_ok| (video.key.clone(), not_ok)));
        }
    }

    /// Keeps it for the next who asks, where it is worth it.
    ///
    /// # Errors
    /// The store failed.
    pub fn keep(&mut self, store: &Store) -> Result<(), StoreError> {
        let done = self.done();
        if done < self.kept + WORTH_KEEPING.max(self.kept / 16) {
            return Ok(());
        }
        let text = serde_json::to_vec(self).expect("plain text and numbers become JSON");
        let packed = zstd::encode_all(text.as_slice(), 3).expect("memory takes what is written to it");
        store.replace(paths::TALLY, &packed)?;
        self.kept = done;
        Ok(())
    }

    /// Whether the shard is committed.
    pub fn is_committed(&self, shard: &ShardId) -> bool {
        self.shards.get(shard).is_some_and(|share| share.record.is_some())
    }

    fn done(&self) -> usize {
        self.shards
            .values()
            .filter(|share| share.record.is_some())
            .count()
    }

    /// Totals over all plans. A video that was tried again counts once, in its latest attempt.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for share in self.shards.values() {
            totals.videos += share.videos;
            let frames = share.frames.saturating_add(share.found);
            totals.frames = totals.frames.saturating_add(frames);
            totals.shards += 1;
            match share.record {
                None => totals.unknown += share.unknown.len(),
                Some(_) => {
                    totals.shards_done += 1;
                    totals.frames_done = totals.frames_done.saturating_add(frames);
                }
            }
        }
        totals
    }

    /// Rows of the committed parts.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Videos that were decoded on the CPU though the job decodes on GPUs.
    pub fn fell_back(&self) -> usize {
        self.fell_back
    }

    /// Committed shards by what they were labelled on, as far as that is known.
    pub fn devices(&self) -> &BTreeMap<String, usize> {
        &self.devices
    }

    /// Videos that did not end `ok` in their latest attempt, by key.
    pub fn into_not_ok(self) -> Vec<NotOk> {
        self.not_ok.into_values().collect()
    }
}
