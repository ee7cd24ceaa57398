//! Frames of a folder of numbered images, such as Aff-Wild2's `cropped_aligned/<video>/00001.jpg`.
//!
//! Files are read whole and given to FFmpeg's image decoders by their first bytes, so that no character of a path
//! can be taken for a pattern. Anything in the folder that is not a numbered image is passed over.

use super::error::DecodeError;
use super::{DecodeOptions, DecodedFrame, Picture, Probe, native};
use crate::domain::{FrameIndex, Micros, Orientation};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{Id, decoder::Check};
use ffmpeg_next::frame::Video;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// No sane image is larger, and FFmpeg's packets end at 2 GiB.
const MAX_BYTES: u64 = 1 << 30;

/// Reader of one folder.
pub(super) struct ImageReader {
    folder: PathBuf,
    images: std::vec::IntoIter<(FrameIndex, OsString)>,
    fps: Option<f64>,
    damage: Option<String>,
}

/// The numbered images of a folder in order of their frames.
fn list(folder: &Path, base: u64) -> Result<Vec<(FrameIndex, OsString)>, DecodeError> {
    let unlisted = |cause| DecodeError::Folder {
        path: folder.to_owned(),
        cause,
    };
    let mut images = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        if entry.file_type().map_err(unlisted)?.is_dir() {
            continue;
        }
        let name = entry.file_name();
        let Some((stem, extension)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        let numbered = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
        if !numbered
            || !EXTENSIONS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        {
            continue;
        }
        let path = || folder.join(&name);
        let number: u64 = stem
            .parse()
            .map_err(|_| DecodeError::HugeNumber { path: path() })?;
        let index = number.checked_sub(base).ok_or_else(|| DecodeError::BelowBase {
            path: path(),
            number,
            base,
        })?;
        if i64::try_from(index).is_err() {
            return Err(DecodeError::HugeNumber { path: path() });
        }
        images.push((FrameIndex(index), name));
    }
    images.sort();
    if images.is_empty() {
        return Err(DecodeError::NoImages {
            path: folder.to_owned(),
        });
    }
    if let Some(pair) = images.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(DecodeError::SameNumber {
            first: folder.join(&pair[0].1),
            second: folder.join(&pair[1].1),
            number: pair[0].0.0 + base,
        });
    }
    Ok(images)
}

impl ImageReader {
    pub(super) fn open(folder: &Path, options: &DecodeOptions) -> Result<Self, DecodeError> {
        native::init();
        let images = list(folder, options.image_base)?.into_iter();
        Ok(Self {
            folder: folder.to_owned(),
            images,
            fps: options.image_fps,
            damage: None,
        })
    }

    pub(super) fn next(&mut self) -> Option<DecodedFrame> {
        let (index, name) = self.images.next()?;
        let picture = decode(&self.folder.join(&name)).inspect_err(|cause| {
            let place = || format!("damaged at frame {index} ({}): {cause}", name.display());
            self.damage.get_or_insert_with(place);
        });
        let timestamp = self.fps.map(|fps| at(index, fps));
        Some(DecodedFrame {
            index,
            timestamp,
            key: true,
            picture: picture.ok(),
        })
    }

    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}

fn at(index: FrameIndex, fps: f64) -> Micros {
    Micros((index.0 as f64 * 1e6 / fps).round() as i64)
}

/// Decodes one image, whole or not at all.
fn decode(path: &Path) -> Result<Picture, String> {
    let said = |error: ffmpeg::Error| error.to_string();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("larger than 1 GiB".into());
    }
    let id = match bytes.as_slice() {
        [0xff, 0xd8, ..] => Id::MJPEG,
        [0x89, b'P', b'N', b'G', ..] => Id::PNG,
        [b'B', b'M', ..] => Id::BMP,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Id::WEBP,
        [] => return Err("the file is empty".into()),
        _ => return Err("no JPEG, PNG, BMP or WebP image".into()),
    };
    let codec = ffmpeg::decoder::find(id).ok_or_else(|| said(ffmpeg::Error::DecoderNotFound))?;
    let mut decoder = ffmpeg::codec::Context::new_with_codec(codec).decoder();
    // An image that breaks off is no image: without this, JPEG's lower part would be grey.
    decoder.check(Check::EXPLODE);
    let mut decoder = decoder.video().map_err(said)?;
    decoder.send_packet(&ffmpeg::Packet::copy(&bytes)).map_err(said)?;
    decoder.send_eof().map_err(said)?;
    let mut frame = Video::empty();
    decoder.receive_frame(&mut frame).map_err(said)?;
    if frame.is_corrupt() || frame.has_decode_errors() {
        return Err("the decoder could not restore the whole picture".into());
    }
    Picture::new(frame, Orientation::default(), ffmpeg::Rational(0, 1))
}

/// Counts the images of a folder.
pub(super) fn probe(folder: &Path, options: &DecodeOptions) -> Result<Probe, DecodeError> {
    let images = list(folder, options.image_base)?;
    let end = images.last().map(|(index, _)| FrameIndex(index.0 + 1));
    let duration = end.zip(options.image_fps).map_or(0, |(end, fps)| at(end, fps).0);
    Ok(Probe {
        frames: images.len() as u64,
        duration_us: duration.max(0) as u64,
    })
}
