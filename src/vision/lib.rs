//! Detects and tracks faces, and makes the models' inputs from them.
//!
//! In: a decoded picture. Out: [`Face`]s in pixels of the displayed picture, and normalised tensors. It must never convert or copy
//! a whole frame.

mod align;
mod colour;
mod filter;
mod find;
mod gpu;
mod input;
mod patch_similarity;
mod prepare;
#[cfg(test)]
mod tests;
mod track;

pub use align::Cropper;
pub use find::{Finder, FrameFaces, OnDetect, SampledFrame};
pub use gpu::CropError;
pub use input::InputMaker;
pub use patch_similarity::Cuts;
pub use prepare::{PrepareError, Preparer};

use affectmill_base::{Face, Rect};
use affectmill_media::decode::Picture;

/// The one face of footage that was cropped before: the whole displayed picture.
pub fn full_frame(picture: &Picture) -> Face {
    Face {
        index: 0,
        track: None,
        rect: Rect::whole(picture.size()),
        score: None,
        landmarks: None,
    }
}
