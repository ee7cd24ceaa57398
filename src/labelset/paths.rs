//! Where each file of a label set lies, as keys relative to the output root.
//!
//! Readers ignore names that begin with `_`, so a tool pointed at the root sees `labels/` and `videos.parquet`.

use affectmill_base::ShardId;

/// Written last of all: the label set is whole.
pub const SUCCESS: &str = "_SUCCESS";
/// One row per video.
pub const VIDEOS: &str = "videos.parquet";
/// Folder of everything but rows and crops.
pub const RECORDS: &str = "_affectmill";
/// The resolved job and its fingerprint.
pub const JOB: &str = "_affectmill/job.json";
/// What the last search of the input found beside videos.
pub const INPUT: &str = "_affectmill/input.json";
/// What the first shard was labelled on.
pub const DEVICE: &str = "_affectmill/device.json";
/// Every part with rows and checksum.
pub const MANIFEST: &str = "_affectmill/manifest.json";
/// Folder of plans.
pub const PLANS: &str = "_affectmill/plans";
/// Folder of commit records.
pub const COMMITS: &str = "_affectmill/commits";
/// What the commits add up to; disposable.
pub const TALLY: &str = "_affectmill/tally.json.zst";
/// What earlier runs held against videos.
pub const STRIKES: &str = "_affectmill/strikes.json";
/// Folder of event logs.
pub const EVENTS: &str = "_affectmill/events";
/// Folder of the checkpoints of long videos under way.
pub const SPANS: &str = "_affectmill/spans";
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

/// What the names of a shard's checkpoints begin with.
pub fn spans(shard: &ShardId) -> String {
    format!("{SPANS}/{shard}-")
}

/// The record of the `n`-th checkpoint of a shard, counted from 0.
pub fn span(shard: &ShardId, n: u32) -> String {
    format!("{}{n:05}.json", spans(shard))
}

/// The rows of a checkpoint, named by their SHA-256.
pub fn span_part(shard: &ShardId, sha256: &str) -> String {
    format!("{}{:.16}.parquet", spans(shard), sha256)
}

/// The crops of a checkpoint, named by their SHA-256.
pub fn span_crops(shard: &ShardId, sha256: &str) -> String {
    format!("{}{:.16}.tar", spans(shard), sha256)
}

/// The `n`-th plan, counted from 1.
pub fn plan(n: u32) -> String {
    format!("{PLANS}/{n:05}.json.zst")
}
