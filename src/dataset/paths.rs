//! Where each file of a label set lies, as keys relative to the output root.
//!
//! Readers ignore names that begin with `_`, so a tool pointed at the root sees `labels/` and `videos.parquet`.

use crate::domain::ShardId;

/// Written last of all: the label set is whole.
pub const SUCCESS: &str = "_SUCCESS";
/// One row per video.
pub const VIDEOS: &str = "videos.parquet";
/// The resolved job and its fingerprint.
pub const JOB: &str = "_affectmill/job.json";
/// Every part with rows and checksum.
pub const MANIFEST: &str = "_affectmill/manifest.json";
/// Folder of plans.
pub const PLANS: &str = "_affectmill/plans";
/// Folder of commit records.
pub const COMMITS: &str = "_affectmill/commits";
/// Folder of event logs.
pub const EVENTS: &str = "_affectmill/events";
/// Folder of the rows.
pub const LABELS: &str = "labels";

/// Folder of the crops.
pub const CROPS: &str = "crops";

/// The tar shard of a shard's crops.
pub fn crops(shard: &ShardId) -> String {
    format!("{CROPS}/part-{shard}.tar")
}

/// The Parquet part of a shard.
pub fn part(shard: &ShardId) -> String {
    format!("{LABELS}/part-{shard}.parquet")
}

/// The commit record of a shard; the shard is done when this exists.
pub fn commit(shard: &ShardId) -> String {
    format!("{COMMITS}/{shard}.json")
}

/// The `n`-th plan, counted from 1.
pub fn plan(n: u32) -> String {
    format!("{PLANS}/{n:05}.json.zst")
}
