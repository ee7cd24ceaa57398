//! `spans/<shard>-NNNNN.json`: how far a long video has come.
//!
//! A span holds the rows of a stretch of one video, from where the span before it ended, in a file beside its record. Spans
//! spare the next attempt what was done; they are no labels, nobody needs them, and they go when the shard is committed.

use super::{DeviceClass, PartInfo, Trouble};
use crate::domain::{Fingerprint, FrameIndex, ShardId, checksum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One span, and what the next one must know to go on as if there were no seam. Create-only; the first writer wins.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct SpanRecord {
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
    /// SHA-256 of the rows of the span before, hex: another attempt's spans may have other seams. Absent from the first.
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
    pub seam: Seam,
}

/// The state between two frames of a video.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Seam {
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
    /// From where decoding goes on.
    pub foothold: Foothold,
    /// Which face is which; absent where faces are not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
}

/// A key frame from which the frames after it can be decoded again, and the proof that they are the same.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Foothold {
    /// The key frame.
    #[schemars(with = "u64")]
    pub frame: FrameIndex,
    /// Its time in ticks of the stream's time base; null in a folder of images.
    pub ticks: Option<i64>,
    /// The byte of the file at which it begins; null where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<i64>,
    /// The time of the key frame before it, which is sought; null when nothing can be sought exactly.
    pub seek: Option<i64>,
    /// SHA-256 over times and pictures from the key frame to the seam's frame, both included, hex.
    #[serde(deserialize_with = "checksum")]
    #[schemars(with = "String")]
    pub sha256: String,
}

/// The faces that are followed across a seam. Numbers are doubles, so that they come back to the bit.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Following {
    /// Id of the next new track.
    pub next: i32,
    /// Frame of the last look.
    pub last: u64,
    /// Tracks that may be found again.
    pub tracks: Vec<SeamTrack>,
    /// The faces of the seam's frame.
    pub faces: Vec<SeamFace>,
}

/// One track.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct SeamTrack {
    /// Id.
    pub id: i32,
    /// Box where it was seen last: x, y, width, height.
    pub rect: [f64; 4],
    /// Pixels a frame, across and down.
    pub velocity: [f64; 2],
    /// Frame in which it was seen last.
    pub frame: u64,
}

/// One face.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct SeamFace {
    /// Track.
    pub track: Option<i32>,
    /// Box: x, y, width, height.
    pub rect: [f64; 4],
    /// Score.
    pub score: Option<f64>,
    /// Five points x, y.
    pub landmarks: Option<[f64; 10]>,
}
