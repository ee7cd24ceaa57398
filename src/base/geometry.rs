//! Sizes, boxes and orientation in pixels.

use serde::{Deserialize, Serialize};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// An axis-aligned box in pixels of the displayed picture (rotation applied); origin top left, `x`, `y` the
/// corner, half-open: it covers `[x, x + w) × [y, y + h)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

impl Rect {
    /// The box that covers a whole picture.
    pub fn whole(size: Size) -> Self {
        Self {
            x: 0.0,
            y: 0.0,
            w: size.width as f32,
            h: size.height as f32,
        }
    }

    /// The box clipped to a picture; an empty box at the border when it lies outside.
    pub fn within(self, size: Size) -> Self {
        let (x, w) = clipped(self.x, self.w, size.width);
        let (y, h) = clipped(self.y, self.h, size.height);
        Self { x, y, w, h }
    }

    /// Intersection over union (IoU) of two boxes, 0 to 1; 0 when both are empty.
    pub fn overlap(self, other: Self) -> f32 {
        let shared = |a: f32, al: f32, b: f32, bl: f32| ((a + al).min(b + bl) - a.max(b)).max(0.0);
        let both = shared(self.x, self.w, other.x, other.w) * shared(self.y, self.h, other.y, other.h);
        let union = self.w * self.h + other.w * other.h - both;
        if union > 0.0 { both / union } else { 0.0 }
    }
}

/// Start and length clipped to `[0, limit]`; their exact sum is within the limit, too.
fn clipped(start: f32, length: f32, limit: u32) -> (f32, f32) {
    let limit = limit as f32;
    let first = start.clamp(0.0, limit);
    let mut rest = (start + length).clamp(first, limit) - first;
    if f64::from(first) + f64::from(rest) > f64::from(limit) {
        rest = rest.next_down();
    }
    (first, rest)
}

/// The transform from a stored picture to the displayed one: first flipped left-right when `mirrored`, then rotated
/// clockwise by `quarter_turns` × 90°.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Clockwise quarter turns, 0 to 3.
    pub quarter_turns: u8,
    /// Flipped left-right before the rotation.
    pub mirrored: bool,
}

impl Orientation {
    /// The displayed size of a stored picture.
    pub fn displayed(self, stored: Size) -> Size {
        if self.quarter_turns % 2 == 1 {
            Size {
                width: stored.height,
                height: stored.width,
            }
        } else {
            stored
        }
    }
}
