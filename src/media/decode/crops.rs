//! The faces of one video out of a shard of crops, `crops/part-<shard>.tar`, as `[output] crops = "webdataset"` writes it.
//!
//! A frame is what the shard has of it: its faces, each with its crop and, from the JSON beside it, its place and time in
//! the video it was cut from. Frames without a face are not in there.

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

/// No sample's JSON is longer.
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

/// Where the members of one sample lie: first byte and length.
#[derive(Default)]
struct Sample {
    jpeg: Option<(u64, u64)>,
    json: Option<(u64, u64)>,
}

/// What the JSON says of a face; the labels beside it are not looked at.
#[derive(Deserialize)]
struct Said {
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

/// What a file of JPEG begins with.
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

    /// By which recipe the faces were cropped, as the first sample says.
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
        let said: Recipe = serde_json::from_slice(&self.member(json, MAX_JSON).ok()?).ok()?;
        Some(said.crop)
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

    /// One face: where it was found, when, and its crop.
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
        let said: Said = serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
        if (said.video.as_str(), said.frame, said.face) != (self.video.as_str(), frame, face) {
            let cause = format!(
                "its .json speaks of face {} in frame {} of `{}`",
                said.face, said.frame, said.video
            );
            return Err(corrupt(cause));
        }
        if said.crop != self.recipe {
            let name =
                |recipe: Option<&String>| recipe.map_or("no recipe".into(), |recipe| format!("`{recipe}`"));
            return Err(corrupt(format!(
                "its .json states the crop {}, and that of the video's first face {}",
                name(said.crop.as_ref()),
                name(self.recipe.as_ref())
            )));
        }
        let sides = [said.box_x, said.box_y, said.box_w, said.box_h];
        let numbers = sides
            .iter()
            .chain(&said.face_score)
            .chain(said.landmarks.iter().flatten());
        if !numbers.copied().all(f32::is_finite) || said.box_w <= 0.0 || said.box_h <= 0.0 {
            return Err(corrupt(
                "its .json has an empty box, or a number beyond 32-bit floats".into(),
            ));
        }
        let bytes = self.member(jpeg, images::MAX_BYTES)?;
        let picture = images::decoded(&bytes, self.max_pixels)?;
        let face = Face {
            index: face,
            track: said.track,
            rect: Rect {
                x: said.box_x,
                y: said.box_y,
                w: said.box_w,
                h: said.box_h,
            },
            score: said.face_score,
            landmarks: said.landmarks,
        };
        let cropped = CroppedFace {
            face,
            picture,
            jpeg: bytes.starts_with(&JPEG).then_some(bytes),
        };
        Ok((cropped, said.timestamp_us.map(Micros)))
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

/// The samples of a video by frame and face, and what is wrong with the archive. Only headers are read.
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

/// Shows every crop's member with its first byte and length; `false` when the archive does not come to its end mark, a
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
