//! Access to a frame's pixels and their format.
//!
//! In: frames that `ffmpeg-next` owns. Out: plain numbers, and slices that borrow from them.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video;
use std::ffi::{CStr, c_char, c_int};

/// Width ÷ height of a pixel by the container, else by the decoder for this frame; 1 when neither is known. The container has
/// priority, as in FFmpeg's `av_guess_sample_aspect_ratio`.
pub(in crate::decode) fn pixel_aspect(container: ffmpeg::Rational, frame: &Video) -> f64 {
    let known = |ratio: &ffmpeg::Rational| ratio.numerator() > 0 && ratio.denominator() > 0;
    let ratio = [container, frame.aspect_ratio()].into_iter().find(known);
    ratio.map_or(1.0, |ratio| {
        f64::from(ratio.numerator()) / f64::from(ratio.denominator())
    })
}

/// The frame's colour matrix as numbered by ITU-T H.273, read as a number because a stream may have one that the
/// binding's enum lacks.
#[allow(unsafe_code)]
pub(in crate::decode) fn colour_space(frame: &Video) -> u32 {
    // SAFETY: the frame is valid; the field is a C enum of 4 bytes, read as an integer.
    unsafe { (&raw const (*frame.as_ptr()).colorspace).cast::<u32>().read() }
}

/// The frame's transfer characteristics, by FFmpeg's name; `None` where they are unspecified or unknown to it.
#[allow(unsafe_code)]
pub(in crate::decode) fn transfer(frame: &Video) -> Option<&'static str> {
    // The binding's enum may lack the number; FFmpeg accepts any.
    let number = transfer_number(frame);
    if number == ffi::AVColorTransferCharacteristic::AVCOL_TRC_UNSPECIFIED as u32 {
        return None;
    }
    // SAFETY: names are texts of a static table that end with NUL; null is checked.
    unsafe {
        let name = av_color_transfer_name(number as c_int);
        (!name.is_null())
            .then(|| CStr::from_ptr(name).to_str().ok())
            .flatten()
    }
}

#[allow(unsafe_code)]
unsafe extern "C" {
    /// libavutil's function, which accepts any number, unlike the binding's.
    fn av_color_transfer_name(number: c_int) -> *const c_char;
}

/// The same as numbered by ITU-T H.273.
#[allow(unsafe_code)]
pub(in crate::decode) fn transfer_number(frame: &Video) -> u32 {
    // SAFETY: the frame is valid; the field is a C enum of 4 bytes, read as an integer.
    unsafe { (&raw const (*frame.as_ptr()).color_trc).cast::<u32>().read() }
}

/// Its primaries, likewise.
#[allow(unsafe_code)]
pub(in crate::decode) fn primaries(frame: &Video) -> u32 {
    // SAFETY: the frame is valid; the field is a C enum of 4 bytes, read as an integer.
    unsafe {
        (&raw const (*frame.as_ptr()).color_primaries)
            .cast::<u32>()
            .read()
    }
}

/// Position of one component of a pixel, in the terms of `AVComponentDescriptor`.
#[derive(Clone, Copy)]
pub(in crate::decode) struct ComponentBytes {
    /// Plane.
    pub plane: usize,
    /// Bytes from one pixel to the next.
    pub step: usize,
    /// Bytes before the first.
    pub offset: usize,
    /// Low bits that are no part of the value.
    pub shift: u32,
    /// Bits of the value.
    pub depth: u32,
}

/// A pixel format, in the terms of `AVPixFmtDescriptor`.
pub(in crate::decode) struct Descriptor {
    /// Components, alpha last.
    pub components: Vec<ComponentBytes>,
    /// Powers of two by which chroma is subsampled, across and down.
    pub chroma_shift: (u32, u32),
    /// `AV_PIX_FMT_FLAG_…`.
    pub flags: u64,
}

/// Describes the frame's pixel format; `None` for a format FFmpeg has no description of.
pub(in crate::decode) fn descriptor(frame: &Video) -> Option<Descriptor> {
    descriptor_of(frame.format().into())
}

/// Describes a pixel format.
#[allow(unsafe_code)]
pub(in crate::decode) fn descriptor_of(format: ffi::AVPixelFormat) -> Option<Descriptor> {
    // SAFETY: descriptors are static tables of libavutil; null is checked.
    let raw = unsafe { ffi::av_pix_fmt_desc_get(format).as_ref() }?;
    let components = raw.comp.iter().take(raw.nb_components.into());
    let components = components.map(|c| ComponentBytes {
        plane: c.plane as usize,
        step: c.step as usize,
        offset: c.offset as usize,
        shift: c.shift as u32,
        depth: c.depth as u32,
    });
    Some(Descriptor {
        components: components.collect(),
        chroma_shift: (raw.log2_chroma_w.into(), raw.log2_chroma_h.into()),
        flags: raw.flags,
    })
}

/// Bytes from one row of a plane to the next; negative when the rows lie bottom up, 0 when there is no plane.
#[allow(unsafe_code)]
pub(in crate::decode) fn stride(frame: &Video, plane: usize) -> isize {
    // SAFETY: the frame is valid; an array of integers is copied.
    let strides = unsafe { (*frame.as_ptr()).linesize };
    strides.get(plane).map_or(0, |&bytes| bytes as isize)
}

/// The bytes of a plane from its first sample to its last: `rows − 1` strides and one row of `row_bytes`. Empty
/// when the plane is missing or its rows lie bottom up.
#[allow(unsafe_code)]
pub(in crate::decode) fn plane(frame: &Video, plane: usize, rows: usize, row_bytes: usize) -> &[u8] {
    let stride = usize::try_from(stride(frame, plane)).unwrap_or(0);
    // SAFETY: the frame is valid; an array of pointers is copied.
    let data = unsafe { (*frame.as_ptr()).data };
    let data = data.get(plane).copied().unwrap_or(std::ptr::null_mut());
    if data.is_null() || rows == 0 || stride < row_bytes {
        return &[];
    }
    let length = (rows - 1) * stride + row_bytes;
    // SAFETY: a frame of this size and format holds `rows` rows of at least `row_bytes` bytes, `stride` apart;
    // they live as long as the frame, which is borrowed and never written while it is a picture.
    unsafe { std::slice::from_raw_parts(data, length) }
}

/// Bytes of memory that the frame references.
#[allow(unsafe_code)]
pub(in crate::decode) fn buffer_bytes(frame: &Video) -> usize {
    // SAFETY: the frame is valid; an array of pointers is copied.
    let buffers = unsafe { (*frame.as_ptr()).buf };
    buffers
        .iter()
        // SAFETY: buffers are null or valid while the frame lives.
        .filter_map(|buffer| unsafe { buffer.as_ref() })
        .map(|buffer| buffer.size)
        .sum()
}
