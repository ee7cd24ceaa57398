//! Which face is which between two frames.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The faces that are followed across a resume point. Numbers are doubles, so that they come back to the bit.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct TrackerState {
    /// Id of the next new track.
    pub next: i32,
    /// Frame of the last look.
    pub last: u64,
    /// Tracks that may be found again.
    pub tracks: Vec<ResumeTrack>,
    /// The faces of the resume point's frame.
    pub faces: Vec<ResumeFace>,
}

/// One track.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ResumeTrack {
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
pub struct ResumeFace {
    /// Track.
    pub track: Option<i32>,
    /// Box: x, y, width, height.
    pub rect: [f64; 4],
    /// Score.
    pub score: Option<f64>,
    /// Five points x, y.
    pub landmarks: Option<[f64; 10]>,
}
