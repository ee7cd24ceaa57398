//! Reads the faces of one video from a shard of crops, `crops/part-<shard>.tar`, as `[output] crops = "webdataset"` writes it.
//!
//! A frame has the shard's faces of it, each with its crop and, from the JSON beside it, its box and time in the original video.
//! Frames without a face are missing.

use super::error::DecodeError;
use super::{CroppedFace, DecodeOptions, DecodedFrame, native};
use crate::decode::images;
use crate::decode::images::BadImage;
use affectmill_base::SampleName;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{Face, FrameIndex, Micros, Rect, VideoKey};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Maximum length of a sample's JSON.
const MAX_JSON: u64 = 1 << 20;

/// Reader of the samples of one video.
pub(super) struct CropReader {
    path: PathBuf,
    file: File,
    video: VideoKey,
    frames: BTreeMap<u64, BTreeMap<i32, Sample>>,
    max_pixels: u64,
    recipe: Option<String>,
    damage: Option<Trouble>,
}

/// The members of one sample: first byte and length.
#[derive(Default)]
struct Sample {
    jpeg: Option<(u64, u64)>,
    json: Option<(u64, u64)>,
}

/// What the JSON says of a face; the labels beside it are not looked at.
#[derive(Deserialize)]
struct SampleJson {
    video: String,
    frame: u64,
    timestamp_us: Option<i64>,
    face: i32,
    track: Option<i32>,
    box_x: f32,
    box_y: f32,
    box_w: f32,
    box_h: f32,
    face_score: Option<f32>,
    landmarks: Option<[f32; 10]>,
    crop: Option<String>,
}

/// First bytes of a JPEG file.
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];

impl CropReader {
    pub(super) fn open(path: &Path, video: &VideoKey, options: &DecodeOptions) -> Result<Self, DecodeError> {
        native::init();
        let unreadable = |cause| DecodeError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(unreadable)?;
        let Index { frames, damage } = Index::read(&file, video);
        if frames.is_empty() {
            return Err(DecodeError::Open {
                path: path.to_owned(),
                cause: format!("it holds no crops of `{video}`"),
            });
        }
        let mut reader = Self {
            path: path.to_owned(),
            file,
            video: video.clone(),
            frames,
            max_pixels: options.max_pixels,
            damage: damage.map(|cause| Trouble {
                error: format!("{}: {cause}", path.display()),
                class: ErrorClass::Corrupt,
                frame: None,
            }),
            recipe: None,
        };
        reader.recipe = reader.first_recipe();
        Ok(reader)
    }

    /// The crop recipe of the first sample.
    pub(super) fn recipe(&self) -> Option<&str> {
        self.recipe.as_deref()
    }

    fn first_recipe(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Recipe {
            crop: String,
        }
        let mut samples = self.frames.values().flat_map(BTreeMap::values);
        let json = samples.find_map(|sample| sample.json)?;
        let json: Recipe = serde_json::from_slice(&self.member(json, MAX_JSON).ok()?).ok()?;
        Some(json.crop)
    }

    pub(super) fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        let Some((frame, samples)) = self.frames.pop_first() else {
            return Ok(None);
        };
        let index = FrameIndex(frame);
        let (mut timestamp, mut faces) = (None, Vec::with_capacity(samples.len()));
        for (face, sample) in samples {
            match self.face(frame, face, &sample) {
                Ok((face, at)) => {
                    timestamp = at;
                    faces.push(face);
                }
                Err(BadImage::Unreadable(cause)) => {
                    return Err(DecodeError::ReadInterrupted {
                        path: self.path.clone(),
                        frame: index,
                        cause,
                    });
                }
                Err(BadImage::Unfit(class, cause)) => {
                    self.damage.get_or_insert_with(|| Trouble {
                        error: format!(
                            "damaged at frame {frame} (face {face} of `{}`): {cause}",
                            self.video
                        ),
                        class,
                        frame: Some(index),
                    });
                }
            }
        }
        Ok(Some(DecodedFrame {
            index,
            timestamp,
            ticks: None,
            key: true,
            place: None,
            picture: None,
            faces,
        }))
    }

    pub(super) fn damage(&self) -> Option<&Trouble> {
        self.damage.as_ref()
    }

    /// Reads one face: its box, its time and its crop.
    fn face(
        &self,
        frame: u64,
        face: i32,
        sample: &Sample,
    ) -> Result<(CroppedFace, Option<Micros>), BadImage> {
        let corrupt = |cause: String| BadImage::Unfit(ErrorClass::Corrupt, cause);
        let (Some(jpeg), Some(json)) = (sample.jpeg, sample.json) else {
            return Err(corrupt("the sample has not both a .jpg and a .json".into()));
        };
        let json = self.member(json, MAX_JSON)?;
        let json: SampleJson = serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
        if (json.video.as_str(), json.frame, json.face) != (self.video.as_str(), frame, face) {
            let cause = format!(
                "its .json speaks of face {} in frame {} of `{}`",
                json.face, json.frame, json.video
            );
            return Err(corrupt(cause));
        }
        if json.crop != self.recipe {
            let name =
                |recipe: Option<&String>| recipe.map_or("no recipe".into(), |recipe| format!("`{recipe}`"));
            return Err(corrupt(format!(
                "its .json states the crop {}, and that of the video's first face {}",
                name(json.crop.as_ref()),
                name(self.recipe.as_ref())
            )));
        }
        let sides = [json.box_x, json.box_y, json.box_w, json.box_h];
        let numbers = sides
            .iter()
            .chain(&json.face_score)
            .chain(json.landmarks.iter().flatten());
        if !numbers.copied().all(f32::is_finite) || json.box_w <= 0.0 || json.box_h <= 0.0 {
            return Err(corrupt(
                "its .json has an empty box, or a number beyond 32-bit floats".into(),
            ));
        }
        let bytes = self.member(jpeg, images::MAX_BYTES)?;
        let picture = images::decoded(&bytes, self.max_pixels)?;
        let face = Face {
            index: face,
            track: json.track,
            rect: Rect {
                x: json.box_x,
                y: json.box_y,
                w: json.box_w,
                h: json.box_h,
            },
            score: json.face_score,
            landmarks: json.landmarks,
        };
        let cropped = CroppedFace {
            face,
            picture,
            jpeg: bytes.starts_with(&JPEG).then_some(bytes),
        };
        Ok((cropped, json.timestamp_us.map(Micros)))
    }

    fn member(&self, (start, length): (u64, u64), most: u64) -> Result<Vec<u8>, BadImage> {
        if length > most {
            let cause = format!("a member of {length} bytes");
            return Err(BadImage::Unfit(ErrorClass::Unsupported, cause));
        }
        let mut bytes = vec![0; length as usize];
        match self.file.read_exact_at(&mut bytes, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BadImage::Unfit(
                ErrorClass::Corrupt,
                "the tar file is cut off".into(),
            )),
            other => other.map(|()| bytes).map_err(BadImage::Unreadable),
        }
    }
}

/// The samples of a video by frame and face, and the archive's damage. Only headers are read.
struct Index {
    frames: BTreeMap<u64, BTreeMap<i32, Sample>>,
    damage: Option<String>,
}

impl Index {
    fn read(file: &File, video: &VideoKey) -> Self {
        let mut frames: BTreeMap<u64, BTreeMap<i32, Sample>> = BTreeMap::new();
        let mut damage = None;
        let whole = members(file, |name, place| {
            if name.video != video.as_str() {
                return;
            }
            let sample = frames
                .entry(name.frame)
                .or_default()
                .entry(name.face)
                .or_default();
            let slot = if name.ending == "jpg" {
                &mut sample.jpeg
            } else {
                &mut sample.json
            };
            if slot.replace(place).is_some() {
                damage.get_or_insert(format!("`{name}` is there twice; the last one counts"));
            }
        });
        if !whole {
            damage.get_or_insert(
                "the tar file is cut off, and crops may be missing; make or fetch it again".into(),
            );
        }
        Self { frames, damage }
    }
}

/// Calls `show` with every member of a sample, its first byte and its length; `false` when the archive lacks its end mark, a
/// kilobyte of zeros.
fn members(file: &File, mut show: impl FnMut(SampleName<'_>, (u64, u64))) -> bool {
    let mut end = 0;
    let mut archive = tar::Archive::new(file);
    let Ok(entries) = archive.entries_with_seek() else {
        return false;
    };
    for member in entries {
        let Ok(member) = member else { return false };
        let (start, length) = (member.raw_file_position(), member.size());
        let after = start.checked_add(length);
        let Some(after) = after.and_then(|after| after.checked_next_multiple_of(512)) else {
            return false;
        };
        end = after;
        let name = member.path_bytes();
        if let Some(name) = std::str::from_utf8(&name).ok().and_then(SampleName::parse) {
            show(name, (start, length));
        }
    }
    file.metadata()
        .is_ok_and(|meta| meta.len().saturating_sub(1024) >= end)
}
