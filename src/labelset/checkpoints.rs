//! `spans/<shard>-NNNNN.json`: how far a long video has come.
//!
//! A checkpoint holds the rows of a stretch of one video, from where the checkpoint before it ended, in a file beside its record. Checkpoints
//! spare the next attempt what was done; they are no labels, nobody needs them, and they go when the shard is committed.

use crate::{DeviceClass, PartInfo};
use affectmill_base::Trouble;
use affectmill_base::{Fingerprint, FrameIndex, SeekAnchor, ShardId, TrackerState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One checkpoint, and what the next one must know to go on as if there were no resume point. Create-only; the first writer wins.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Format version.
    pub version: u32,
    /// Shard, of this one video.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{16}$"))]
    pub shard: ShardId,
    /// The fingerprint it was labelled under.
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
    pub fingerprint: Fingerprint,
    /// Counted from 0.
    pub number: u32,
    /// SHA-256 of the rows of the checkpoint before, hex: another attempt's checkpoints may have other resume points. Absent from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    /// The rows: `spans/<shard>-<16 digits of sha256>.parquet`, with logits whatever the job keeps.
    pub part: PartInfo,
    /// Their crops beside them (`.tar`), where they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crops: Option<PartInfo>,
    /// What it was labelled on: no shard is of two classes of device. Absent where an older affectmill wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceClass>,
    /// Where it ends.
    #[serde(rename = "seam")]
    pub resume_point: ResumePoint,
}

/// The state between two frames of a video.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The first frame that has no row yet.
    #[schemars(with = "u64")]
    pub frame: FrameIndex,
    /// Frames decoded before it.
    pub frames: u64,
    /// What was wrong with the video up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// Why the CPU decoded up to there though the job decodes on the GPU; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_fallback: Option<String>,
    /// Frames without a picture up to there.
    #[serde(default)]
    pub lost: u64,
    /// Transfer characteristics of the pictures up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<String>,
    /// How they were brought from HDR to SDR: what goes on otherwise is not gone on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tone_mapping: Option<String>,
    /// From where decoding is resumed.
    #[serde(rename = "foothold")]
    pub seek_anchor: SeekAnchor,
    /// Which face is which; absent where faces are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<TrackerState>,
}
