//! Rows to Parquet: one part of `labels/`, the crops beside it, and `videos.parquet`.
//!
//! Flows in: one [`Row`] per sampled frame and face, in strictly ascending order of (video, frame, face). Flows out:
//! a flushed file and its [`PartInfo`]. The same rows give the same bytes, always: no clock, host name or version
//! goes in, and row groups and batches have fixed sizes. Memory is bounded by one row group.
//!
//! Never writes a row that is out of order, repeated or of the wrong width: it refuses. Never writes a number that is none:
//! where a model gave one for a face, its columns are null and the row's status says so.

mod checkpoints;
mod columns;
mod crops;
mod earlier;
mod encoding;
mod labels;
mod moved;
mod numbers;
mod reader;
mod videos;

use crate::PartInfo;
use crate::schema::{LabelSchema, META_CROPPED_BY};
use affectmill_base::remedy;
use affectmill_base::{Face, FrameIndex, Micros, RowStatus, VideoKey};
use columns::Columns;
use encoding::{HashedFile, properties};
use numbers::Numbers;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

pub use checkpoints::{replay, span_schema};
pub use crops::CropWriter;
pub use earlier::{EarlierFaces, EarlierFrame};
pub use labels::{ExpressionColumns, LabelColumns, LabelReader, having};
pub use moved::{move_crops, move_rows, no_crops, no_rows};
pub use reader::{FixedColumns, FixedRow, ReadError, RowBatch, RowReader, Texts};
pub use videos::{VideoRow, write_videos};

/// Rows handed to the Parquet encoder at once.
const BATCH_ROWS: usize = 4_096;
/// Rows of a row group; a multiple of [`BATCH_ROWS`].
const ROW_GROUP_ROWS: usize = 16 * BATCH_ROWS;

/// One row.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The video.
    pub video: &'a VideoKey,
    /// The frame; at most 2⁶³ − 1.
    pub frame: FrameIndex,
    /// Its presentation time; `None` for images without a rate.
    pub timestamp: Option<Micros>,
    /// What there is to say about it.
    pub content: Content<'a>,
}

/// What a row says about its frame.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// A face and what the models say of it: `ok`, or `not_finite` where a model gave NaN or an infinity.
    Face {
        /// The face; its index is at least 0.
        face: &'a Face,
        /// Raw outputs (logits at T = 1) of each model in job order, each in the order of its kind's tasks.
        outputs: &'a [&'a [f32]],
    },
    /// The frame was decoded and holds no face; its only row.
    NoFace,
    /// The frame could not be decoded whole; its only row.
    DecodeError,
}

impl Content<'_> {
    /// The `status` column.
    pub fn status(&self) -> RowStatus {
        match self {
            Content::Face { outputs, .. } if outputs.iter().all(|model| is_finite(model)) => RowStatus::Ok,
            Content::Face { .. } => RowStatus::NotFinite,
            Content::NoFace => RowStatus::NoFace,
            Content::DecodeError => RowStatus::DecodeError,
        }
    }

    fn face_index(&self) -> Option<i32> {
        match self {
            Content::Face { face, .. } => Some(face.index),
            Content::NoFace | Content::DecodeError => None,
        }
    }
}

/// Why rows could not be written. Only [`Io`](Self::Io) may go away by itself; the others repeat.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The file could not be written.
    #[error("cannot write the part `{}`: {source}; {}", path.display(), remedy(source))]
    Io {
        /// The unfinished part.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The encoder refused.
    #[error("cannot encode Parquet `{}`: {source}; please report this", path.display())]
    Encode {
        /// The unfinished file.
        path: PathBuf,
        /// The cause.
        source: ParquetError,
    },
    /// A crop cannot be kept.
    #[error("a crop cannot be encoded as JPEG: {cause}; please report this")]
    Crop {
        /// What does not fit.
        cause: String,
    },
    /// A row does not come after the row before it.
    #[error(
        "the row of `{video}`, frame {frame}, {face} does not come after the row before it ({before}); \
         rows are written in order of (video, frame, face), each once; please report this"
    )]
    Order {
        /// Its video.
        video: VideoKey,
        /// Its frame.
        frame: FrameIndex,
        /// Its face.
        face: String,
        /// The row before.
        before: String,
    },
    /// A number of a row cannot be stored.
    #[error("the row of `{video}`, frame {frame}: {cause}; please report this")]
    Unfit {
        /// Its video.
        video: VideoKey,
        /// Its frame.
        frame: FrameIndex,
        /// What does not fit.
        cause: String,
    },
}

/// Whether a model gave numbers for a face; one that is none makes all of them worth nothing.
pub fn is_finite(outputs: &[f32]) -> bool {
    outputs.iter().all(|output| output.is_finite())
}

/// Position of the row that was pushed last.
struct Last {
    video: VideoKey,
    frame: FrameIndex,
    face: Option<i32>,
}

/// Writes one part.
pub struct RowWriter {
    path: PathBuf,
    schema: LabelSchema,
    writer: ArrowWriter<HashedFile>,
    columns: Columns,
    numbers: Numbers,
    last: Option<Last>,
    rows: u64,
    /// Recipes of faces that were cropped before.
    cropped_by: BTreeSet<String>,
}

impl RowWriter {
    /// Begins a part in a file that is there, most often a store's scratch file; what it held is lost.
    ///
    /// # Errors
    /// [`RowError::Io`] when the file cannot be opened or written.
    pub fn create(path: &Path, schema: &LabelSchema) -> Result<Self, RowError> {
        let file = HashedFile::open(path).map_err(|source| RowError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let properties = properties(schema.arrow(), schema.metadata(), ROW_GROUP_ROWS);
        let writer = ArrowWriter::try_new(file, schema.arrow().clone(), Some(properties));
        Ok(Self {
            path: path.to_path_buf(),
            schema: schema.clone(),
            writer: writer.map_err(|error| failed(path, error))?,
            columns: Columns::new(schema),
            numbers: Numbers::default(),
            last: None,
            rows: 0,
            cropped_by: BTreeSet::new(),
        })
    }

    /// Adds a row. After an error the part is to be thrown away.
    ///
    /// # Errors
    /// The row is out of order, repeated or of the wrong width; or the file cannot be written.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), RowError> {
        self.check_order(row)?;
        let frame = i64::try_from(row.frame.0).map_err(|_| unfit(row, "its number exceeds 2⁶³ − 1"))?;
        self.numbers.clear();
        let face = match &row.content {
            Content::Face { face, outputs } => {
                check_face(row, face)?;
                self.numbers.fill(&self.schema, row, outputs)?;
                Some(*face)
            }
            Content::NoFace | Content::DecodeError => None,
        };
        self.columns.push(row, frame, face, &self.numbers);
        self.rows += 1;
        self.last = Some(Last {
            video: row.video.clone(),
            frame: row.frame,
            face: row.content.face_index(),
        });
        if self.columns.len() == BATCH_ROWS {
            self.write_batch()?;
        }
        Ok(())
    }

    /// Notes the recipe by which a face was cropped before it came here, for the part's metadata.
    pub fn cropped_by(&mut self, recipe: &str) {
        if !self.cropped_by.contains(recipe) {
            self.cropped_by.insert(recipe.into());
        }
    }

    /// Ends the part: the file is whole and flushed to the disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<PartInfo, RowError> {
        if self.columns.len() > 0 {
            self.write_batch()?;
        }
        if !self.cropped_by.is_empty() {
            let recipes = serde_json::json!(self.cropped_by).to_string();
            self.writer
                .append_key_value_metadata(KeyValue::new(META_CROPPED_BY.into(), recipes));
        }
        let file = self
            .writer
            .into_inner()
            .map_err(|error| failed(&self.path, error))?;
        let (bytes, sha256) = file.finish().map_err(|source| RowError::Io {
            path: self.path,
            source,
        })?;
        Ok(PartInfo {
            rows: self.rows,
            bytes,
            sha256,
        })
    }

    fn write_batch(&mut self) -> Result<(), RowError> {
        let batch = self.columns.take(self.schema.arrow());
        batch
            .map_err(ParquetError::from)
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|error| failed(&self.path, error))
    }

    fn check_order(&self, row: &Row<'_>) -> Result<(), RowError> {
        let Some(last) = &self.last else { return Ok(()) };
        let face = row.content.face_index();
        let ascends = match (row.video, row.frame).cmp(&(&last.video, last.frame)) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            // A row without a face is the only one of its frame.
            std::cmp::Ordering::Equal => last.face.is_some() && face > last.face,
        };
        let name = |face: Option<i32>| face.map_or("no face".to_string(), |face| format!("face {face}"));
        if ascends {
            return Ok(());
        }
        Err(RowError::Order {
            video: row.video.clone(),
            frame: row.frame,
            face: name(face),
            before: format!("`{}`, frame {}, {}", last.video, last.frame, name(last.face)),
        })
    }
}

fn check_face(row: &Row<'_>, face: &Face) -> Result<(), RowError> {
    if face.index < 0 {
        return Err(unfit(row, "its face has a negative index"));
    }
    let rect = [face.rect.x, face.rect.y, face.rect.w, face.rect.h];
    let points = face.landmarks.iter().flatten();
    if rect
        .iter()
        .chain(&face.score)
        .chain(points)
        .all(|number| number.is_finite())
    {
        Ok(())
    } else {
        Err(unfit(
            row,
            "its face has a box, score or landmark that is not finite",
        ))
    }
}

fn unfit(row: &Row<'_>, cause: impl Into<String>) -> RowError {
    RowError::Unfit {
        video: row.video.clone(),
        frame: row.frame,
        cause: cause.into(),
    }
}

/// Tells the disk's errors from the encoder's.
fn failed(path: &Path, error: ParquetError) -> RowError {
    let path = path.to_path_buf();
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(source) => RowError::Io {
                path,
                source: *source,
            },
            Err(other) => RowError::Encode {
                path,
                source: ParquetError::External(other),
            },
        },
        source => RowError::Encode { path, source },
    }
}

#[cfg(test)]
mod tests;
