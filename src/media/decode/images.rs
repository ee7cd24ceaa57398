//! Frames of a folder of numbered images, such as Aff-Wild2's `cropped_aligned/<video>/00001.jpg`.
//!
//! Files are read whole and given to FFmpeg's image decoders by their first bytes, so that no character of a path
//! is interpreted as a pattern. Anything in the folder that is not a numbered image is skipped.

use super::error::DecodeError;
use super::picture::NoPicture;
use super::{DecodeOptions, DecodedFrame, Picture, Probe, native, too_large};
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{FrameIndex, Micros, Orientation};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::{Id, decoder::Check};
use ffmpeg_next::frame::Video;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// Maximum size of an image; FFmpeg's packets end at 2 GiB.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// Reader of one folder.
pub(super) struct ImageReader {
    folder: PathBuf,
    images: std::vec::IntoIter<(FrameIndex, OsString)>,
    options: DecodeOptions,
    damage: Option<Trouble>,
}

/// Why an image cannot be decoded.
pub(super) enum BadImage {
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// It is incomplete or unsupported.
    Unfit(ErrorClass, String),
}

fn corrupt(cause: impl ToString) -> BadImage {
    BadImage::Unfit(ErrorClass::Corrupt, cause.to_string())
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
            options: *options,
            damage: None,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        let Some((index, name)) = self.images.next() else {
            return Ok(None);
        };
        let path = self.folder.join(&name);
        let picture = match decode(&path, self.options.max_pixels) {
            Ok(picture) => Some(picture),
            // The image may be intact, so this is not damage to record in labels.
            Err(BadImage::Unreadable(cause)) => {
                return Err(DecodeError::ReadInterrupted {
                    path,
                    frame: index,
                    cause,
                });
            }
            Err(BadImage::Unfit(class, cause)) => {
                self.damage.get_or_insert_with(|| Trouble {
                    error: format!("damaged at frame {index} ({}): {cause}", name.display()),
                    class,
                    frame: Some(index),
                });
                None
            }
        };
        let timestamp = self.options.image_fps.map(|fps| at(index, fps));
        Ok(Some(DecodedFrame {
            index,
            timestamp,
            ticks: None,
            key: true,
            place: None,
            picture,
            faces: Vec::new(),
        }))
    }

    /// Skips the images before a frame.
    pub(super) fn seek(&mut self, frame: FrameIndex) {
        let images = self.images.as_slice();
        let before = images.partition_point(|(index, _)| *index < frame);
        if let Some(last) = before.checked_sub(1) {
            self.images.nth(last);
        }
    }

    pub(super) fn damage(&self) -> Option<&Trouble> {
        self.damage.as_ref()
    }
}

fn at(index: FrameIndex, fps: f64) -> Micros {
    Micros((index.0 as f64 * 1e6 / fps).round() as i64)
}

fn unsupported(cause: String) -> BadImage {
    BadImage::Unfit(ErrorClass::Unsupported, cause)
}

fn decode(path: &Path, max_pixels: u64) -> Result<Picture, BadImage> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(BadImage::Unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(BadImage::Unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unsupported("larger than 1 GiB".into()));
    }
    decoded(&bytes, max_pixels)
}

/// Decodes one image, whole or not at all.
pub(super) fn decoded(bytes: &[u8], max_pixels: u64) -> Result<Picture, BadImage> {
    let id = match bytes {
        [0xff, 0xd8, ..] => Id::MJPEG,
        [0x89, b'P', b'N', b'G', ..] => Id::PNG,
        [b'B', b'M', ..] => Id::BMP,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Id::WEBP,
        [] => return Err(corrupt("the file is empty")),
        _ => return Err(corrupt("no JPEG, PNG, BMP or WebP image")),
    };
    let codec = ffmpeg::decoder::find(id);
    let codec = codec.ok_or_else(|| unsupported(ffmpeg::Error::DecoderNotFound.to_string()))?;
    let mut context = ffmpeg::codec::Context::new_with_codec(codec);
    native::limit_pixels(&mut context, max_pixels);
    let mut decoder = context.decoder();
    // A truncated image, or one with wrong checksums, is an error; otherwise the lower part of a JPEG would be grey.
    decoder.check(Check::CRC | Check::EXPLODE);
    let mut decoder = decoder.video().map_err(corrupt)?;
    decoder
        .send_packet(&ffmpeg::Packet::copy(bytes))
        .map_err(corrupt)?;
    decoder.send_eof().map_err(corrupt)?;
    let mut frame = Video::empty();
    decoder.receive_frame(&mut frame).map_err(corrupt)?;
    if let Some(cause) = too_large(frame.width(), frame.height(), max_pixels) {
        return Err(unsupported(cause));
    }
    if frame.is_corrupt() || frame.has_decode_errors() {
        return Err(corrupt("the decoder could not restore the whole picture"));
    }
    Picture::new(frame, Orientation::default(), ffmpeg::Rational(0, 1), None).map_err(|error| match error {
        NoPicture::Unfit(cause) | NoPicture::Gpu(cause) => unsupported(cause),
    })
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
