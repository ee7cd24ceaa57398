//! Probes a file's header without decoding.

use super::decoder::{no_decoder, refuse_too_large};
use super::{DecodeError, DecodeOptions, Probe, native};
use crate::decode::container;
use crate::decode::container::{Container, time_base};
use ffmpeg_next as ffmpeg;
use std::path::Path;

/// Estimates a file's length from its header.
pub(super) fn probe(path: &Path, options: &DecodeOptions) -> Result<Probe, DecodeError> {
    let Container { input, stream, .. } = container::open(path, options.max_pixels)?;
    let stream = input.stream(stream).ok_or_else(|| DecodeError::NoVideo {
        path: path.to_owned(),
    })?;
    let codec = stream.parameters().id();
    if ffmpeg::decoder::find(codec).is_none() {
        return Err(no_decoder(path, codec, ffmpeg::Error::DecoderNotFound));
    }
    let (width, height) = native::declared_size(&stream);
    refuse_too_large(path, width, height, options.max_pixels)?;
    let own = Some(stream.duration()).filter(|&ticks| ticks > 0);
    let own = own
        .and_then(|ticks| time_base(&stream).micros(ticks))
        .map(|time| time.0);
    let duration = own.unwrap_or_else(|| input.duration()).max(0) as u64;
    let rate = stream.avg_frame_rate();
    let by_rate = || {
        let rate = f64::from(rate.numerator()) / f64::from(rate.denominator().max(1));
        (duration as f64 / 1e6 * rate.max(0.0)).round() as u64
    };
    let frames = u64::try_from(stream.frames())
        .ok()
        .filter(|&frames| frames > 0)
        .unwrap_or_else(by_rate);
    Ok(Probe {
        frames,
        duration_us: duration,
    })
}
