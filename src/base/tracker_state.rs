//! The tracker's state at a resume point.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tracker's state at a resume point. Numbers are doubles, so that a round trip is exact.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct TrackerState {
    /// Id of the next new track.
    pub next: i32,
    /// Frame of the tracker's last step.
    pub last: u64,
    /// Tracks that may continue.
    pub tracks: Vec<ResumeTrack>,
    /// The faces of the resume point's frame.
    pub faces: Vec<ResumeFace>,
}

/// A track at a resume point.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ResumeTrack {
    /// Id.
    pub id: i32,
    /// Last box: x, y, width, height.
    pub rect: [f64; 4],
    /// Pixels per frame, across and down.
    pub velocity: [f64; 2],
    /// Frame of the last box.
    pub frame: u64,
}

/// A face of the resume point's frame.
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
