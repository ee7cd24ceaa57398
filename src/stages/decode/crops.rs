//! The faces of one video out of a shard of crops, `crops/part-<shard>.tar`, as `[output] crops = "webdataset"` writes it.
//!
//! A frame is what the shard has of it: its faces, each with its crop and, from the JSON beside it, its place and time in
//! the video it was cut from. Frames without a face are not in there.

use super::error::DecodeError;
use super::images::{self, BadImage};
use super::{DecodeOptions, DecodedFrame, Picture, native};
use crate::dataset::paths::SampleName;
use crate::dataset::{ErrorClass, Trouble};
use crate::domain::{Face, FrameIndex, Micros, Rect, VideoKey};
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
    frames: std::collections::btree_map::IntoIter<u64, BTreeMap<i32, Sample>>,
    max_pixels: u64,
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
}

impl CropReader {
    pub(super) fn open(path: &Path, video: &VideoKey, options: &DecodeOptions) -> Result<Self, DecodeError> {
        native::init();
        let unreadable = |cause| DecodeError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(unreadable)?;
        let frames = index(&file, video).map_err(|cause| DecodeError::Open {
            path: path.to_owned(),
            cause: format!("no whole tar file ({cause})"),
        })?;
        if frames.is_empty() {
            return Err(DecodeError::Open {
                path: path.to_owned(),
                cause: format!("it holds no crops of `{video}`"),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            video: video.clone(),
            frames: frames.into_iter(),
            max_pixels: options.max_pixels,
            damage: None,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        let Some((frame, samples)) = self.frames.next() else {
            return Ok(None);
        };
        let index = FrameIndex(frame);
        let (mut timestamp, mut faces) = (None, Vec::with_capacity(samples.len()));
        for (face, sample) in samples {
            match self.face(frame, face, &sample) {
                Ok((face, at, picture)) => {
                    timestamp = at;
                    faces.push((face, picture));
                }
                Err(BadImage::Unreadable(cause)) => {
                    return Err(DecodeError::BrokeOff {
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
            key: true,
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
    ) -> Result<(Face, Option<Micros>, Picture), BadImage> {
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
        let picture = images::decoded(&self.member(jpeg, images::MAX_BYTES)?, self.max_pixels)?;
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
        Ok((face, said.timestamp_us.map(Micros), picture))
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

/// The samples of a video by frame and face. Only headers are read.
fn index(file: &File, video: &VideoKey) -> io::Result<BTreeMap<u64, BTreeMap<i32, Sample>>> {
    let mut frames: BTreeMap<u64, BTreeMap<i32, Sample>> = BTreeMap::new();
    for member in tar::Archive::new(file).entries_with_seek()? {
        let member = member?;
        let name = member.path_bytes();
        let Some(name) = std::str::from_utf8(&name).ok().and_then(SampleName::parse) else {
            continue;
        };
        if name.video != video.as_str() {
            continue;
        }
        let sample = frames
            .entry(name.frame)
            .or_default()
            .entry(name.face)
            .or_default();
        let place = Some((member.raw_file_position(), member.size()));
        if name.ending == "jpg" {
            sample.jpeg = place;
        } else {
            sample.json = place;
        }
    }
    Ok(frames)
}
