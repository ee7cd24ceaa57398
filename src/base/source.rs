//! Sources of videos, and the points at which decoding can resume.

use crate::{FrameIndex, checksum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of a video's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// One file in a container format.
    File,
    /// A folder of images named by number.
    Images,
}

/// A key frame from which the frames after it can be decoded again, and the proof that they are the same.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct SeekAnchor {
    /// The key frame.
    #[schemars(with = "u64")]
    pub frame: FrameIndex,
    /// Its time in ticks of the stream's time base; null in a folder of images.
    pub ticks: Option<i64>,
    /// Its byte offset in the file; null when it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<i64>,
    /// The time of the key frame before it, to which decoding seeks; null when no exact seek is possible.
    pub seek: Option<i64>,
    /// SHA-256 over times and pictures from the key frame to the resume point's frame, both included, hex.
    #[serde(deserialize_with = "checksum")]
    #[schemars(with = "String")]
    pub sha256: String,
}
