//! Crops for training: the faces that the models saw, with their labels, as a WebDataset shard.
//!
//! Flows in: the rows of a part that carry a face, in their order, each with its crop. Flows out: a tar file with two
//! members a row, `<video>/<frame>-<face>.jpg` and the same with `.json`, whose keys are the columns of the row. The frame
//! has at least nine digits, the face three, and neither they nor the ending hold another dot, as WebDataset's keys want
//! it. The same rows give the same bytes: members have no time, owner or attempt.

use super::encoding::HashedFile;
use super::numbers::Numbers;
use super::{Content, Row, RowError, unfit};
use crate::PartInfo;
use crate::schema::LabelSchema;
use affectmill_base::SampleName;
use affectmill_base::{EXPRESSIONS, Face};
use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD, INPUT_LEN, INPUT_SIZE};
use arrow::datatypes::DataType;
use jpeg_encoder::{ColorType, Encoder};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::io;
use std::path::{Path, PathBuf};
use tar::{Builder, Header};

/// Writes one shard of crops.
pub struct CropWriter {
    path: PathBuf,
    schema: LabelSchema,
    crop: &'static str,
    quality: u8,
    tar: Builder<HashedFile>,
    numbers: Numbers,
    json: Vec<u8>,
    samples: u64,
}

impl CropWriter {
    /// Begins a shard in a file that is there, of faces cropped by the recipe `crop`, where a face states no other, and kept as JPEG of
    /// `quality` 1 to 100; what the file held is lost.
    ///
    /// # Errors
    /// [`RowError::Io`] when the file cannot be opened.
    pub fn create(
        path: &Path,
        schema: &LabelSchema,
        crop: &'static str,
        quality: u8,
    ) -> Result<Self, RowError> {
        let failed = |source| io_error(path, source);
        Ok(Self {
            path: path.to_path_buf(),
            schema: schema.clone(),
            crop,
            quality,
            tar: Builder::new(HashedFile::open(path).map_err(failed)?),
            numbers: Numbers::default(),
            json: Vec::new(),
            samples: 0,
        })
    }

    /// The crop that a model saw, `[3, 128, 128]` f32, RGB planes, ImageNet-normalised, as JPEG.
    ///
    /// # Errors
    /// [`RowError::Crop`] when the input has another length, or the encoder refuses.
    pub fn jpeg(&self, input: &[f32]) -> Result<Vec<u8>, RowError> {
        let failed = |cause: String| RowError::Crop { cause };
        if input.len() != INPUT_LEN {
            return Err(failed(format!("it has {} numbers, not {INPUT_LEN}", input.len())));
        }
        let pixels = INPUT_SIZE * INPUT_SIZE;
        let code = |i: usize| {
            let (pixel, channel) = (i / 3, i % 3);
            let value = input[channel * pixels + pixel] * IMAGENET_STD[channel] + IMAGENET_MEAN[channel];
            (value * 255.0).round() as u8
        };
        let rgb: Vec<u8> = (0..INPUT_LEN).map(code).collect();
        let (mut bytes, side) = (Vec::new(), INPUT_SIZE as u16);
        let encoded = Encoder::new(&mut bytes, self.quality).encode(&rgb, side, side, ColorType::Rgb);
        encoded.map_err(|error| failed(error.to_string()))?;
        Ok(bytes)
    }

    /// Adds a row with a face, its crop, and the recipe of the crop if it is not the shard's. After an error the shard is to be
    /// thrown away.
    ///
    /// # Errors
    /// The row has no face or its outputs do not fit the models; or the file cannot be written.
    pub fn push(&mut self, row: &Row<'_>, jpeg: &[u8], recipe: Option<&str>) -> Result<(), RowError> {
        let Content::Face { face, outputs } = &row.content else {
            return Err(unfit(row, "a crop of a frame without a face"));
        };
        self.numbers.clear();
        self.numbers.fill(&self.schema, row, outputs)?;
        let sample = Sample {
            row,
            face,
            crop: recipe.unwrap_or(self.crop),
            schema: &self.schema,
            numbers: &self.numbers,
        };
        self.json.clear();
        serde_json::to_writer(&mut self.json, &sample).map_err(|error| unfit(row, error.to_string()))?;
        let member = |ending| SampleName {
            video: row.video.as_str(),
            frame: row.frame.0,
            face: face.index,
            ending,
        };
        append(&mut self.tar, member("jpg"), jpeg)
            .and_then(|()| append(&mut self.tar, member("json"), &self.json))
            .map_err(|source| io_error(&self.path, source))?;
        self.samples += 1;
        Ok(())
    }

    /// Ends the shard: the file is whole and flushed to the disk. `rows` of what is returned are its samples.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<PartInfo, RowError> {
        let ended = self.tar.into_inner().and_then(HashedFile::finish);
        let (bytes, sha256) = ended.map_err(|source| io_error(&self.path, source))?;
        Ok(PartInfo {
            rows: self.samples,
            bytes,
            sha256,
        })
    }
}

pub(super) fn append(tar: &mut Builder<HashedFile>, name: SampleName<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name.to_string(), bytes)
}

pub(super) fn io_error(path: &Path, source: io::Error) -> RowError {
    RowError::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// A row as JSON: its columns by name, then how the face was cropped and under which fingerprint it was labelled.
struct Sample<'a> {
    row: &'a Row<'a>,
    face: &'a Face,
    crop: &'a str,
    schema: &'a LabelSchema,
    numbers: &'a Numbers,
}

impl Serialize for Sample<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Face {
            index,
            track,
            rect,
            score,
            landmarks,
        } = self.face;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("video", self.row.video.as_str())?;
        map.serialize_entry("frame", &self.row.frame)?;
        map.serialize_entry("timestamp_us", &self.row.timestamp)?;
        map.serialize_entry("face", index)?;
        map.serialize_entry("track", track)?;
        let sides = [
            ("box_x", rect.x),
            ("box_y", rect.y),
            ("box_w", rect.w),
            ("box_h", rect.h),
        ];
        for (name, side) in sides {
            map.serialize_entry(name, &side)?;
        }
        map.serialize_entry("face_score", score)?;
        map.serialize_entry("landmarks", landmarks)?;
        let (mut floats, mut classes) = (self.numbers.floats.iter(), self.numbers.classes.iter());
        for field in self.schema.of_models() {
            if *field.data_type() == DataType::Float32 {
                map.serialize_entry(field.name(), &floats.next().copied().flatten())?;
            } else {
                let class = classes.next().copied().flatten();
                let class = class.map(|class| EXPRESSIONS[class as usize]);
                map.serialize_entry(field.name(), &class)?;
            }
        }
        map.serialize_entry("crop", self.crop)?;
        map.serialize_entry("fingerprint", self.schema.fingerprint())?;
        map.end()
    }
}
