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
    /// The whole of a picture.
    pub fn whole(size: Size) -> Self {
        Self {
            x: 0.0,
            y: 0.0,
            w: size.width as f32,
            h: size.height as f32,
        }
    }
}

/// How a stored picture must be turned to be displayed: first flipped left-right when `mirrored`, then turned
/// clockwise by `quarter_turns` × 90°.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Clockwise quarter turns, 0 to 3.
    pub quarter_turns: u8,
    /// Flipped left-right before it is turned.
    pub mirrored: bool,
}

impl Orientation {
    /// The size of a stored picture once displayed.
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
