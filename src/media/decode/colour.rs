//! Colour of a frame: family, matrix, range and tone mapping.

use crate::decode::native;
use crate::decode::native::Descriptor;
use affectmill_base::Tone;
use ffmpeg_next::ffi;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::util::color::Range;

/// Colour family of the components.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Colour {
    /// One component, grey.
    Grey {
        /// Full range (0 is black, the largest code white), else limited (16 and 235 in 8 bits).
        full: bool,
    },
    /// Three components Y′, Cb, Cr.
    Yuv {
        /// Weights of red and blue in luma (`Kr`, `Kb` of ITU-T H.273).
        matrix: (f32, f32),
        /// Full range, else limited.
        full: bool,
    },
    /// Three components R′, G′, B′, full range.
    Rgb,
}

/// Family, matrix and range, decided as ffmpeg's scale filter and swscale do when they convert to RGB: an
/// untagged or unusual matrix is BT.601 for any picture size; untagged range is limited, but full for grey
/// and the `yuvj` formats.
pub(super) fn colour_of(frame: &Video, descriptor: &Descriptor) -> Result<Colour, String> {
    if descriptor.flags & (ffi::AV_PIX_FMT_FLAG_RGB | ffi::AV_PIX_FMT_FLAG_PAL) as u64 != 0 {
        return Ok(Colour::Rgb);
    }
    let grey = descriptor.components.len() < 3;
    let full = match frame.color_range() {
        Range::JPEG => true,
        Range::MPEG => false,
        Range::Unspecified => grey || is_yuvj(frame.format()),
    };
    if grey {
        return Ok(Colour::Grey { full });
    }
    // Kr and Kb of ITU-T H.273, table 4.
    let matrix = match native::colour_space(frame) {
        14 => {
            return Err("its colours are ICtCp, which are not converted; convert the video to Y′CbCr".into());
        }
        1 => (0.2126, 0.0722),
        4 => (0.30, 0.11),
        7 => (0.212, 0.087),
        9 | 10 => (0.2627, 0.0593),
        _ => (0.299, 0.114),
    };
    Ok(Colour::Yuv { matrix, full })
}

fn is_yuvj(format: Pixel) -> bool {
    use Pixel::{YUVJ411P, YUVJ420P, YUVJ422P, YUVJ440P, YUVJ444P};
    matches!(format, YUVJ420P | YUVJ411P | YUVJ422P | YUVJ440P | YUVJ444P)
}

/// Tone mapping to SDR for PQ (SMPTE ST 2084) and HLG (ARIB STD-B67), as numbered by ITU-T H.273, table 3. Primaries are
/// BT.2020's unless the frame says BT.709.
pub(super) fn tone_of(frame: &Video) -> Option<&'static Tone> {
    let wide = native::primaries(frame) != 1;
    match native::transfer_number(frame) {
        16 => Some(Tone::pq(wide)),
        18 => Some(Tone::hlg(wide)),
        _ => None,
    }
}
