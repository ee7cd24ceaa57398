//! A face of a frame.

use super::Rect;

/// One face of one frame, in pixels of the displayed picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Index within the frame, largest face first.
    pub index: i32,
    /// Track id; `None` without tracking.
    pub track: Option<i32>,
    /// Bounding box.
    pub rect: Rect,
    /// The detector's score in [0, 1]; `None` where no detector ran.
    pub score: Option<f32>,
    /// Five points `x, y`: image-left eye, image-right eye, nose, mouth-left, mouth-right.
    pub landmarks: Option<[f32; 10]>,
}
