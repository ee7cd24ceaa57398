//! The reader of rows: those columns of a part that are asked for, batch by batch.
//!
//! Flows in: a part, or a range of its rows. Flows out: [`RowBatch`]es, whose columns are typed once for all their rows. In memory
//! is one batch; row groups outside the range are not read.

use super::BATCH_ROWS;
use crate::schema::{META_FINGERPRINT, column};
use affectmill_base::{Face, FrameIndex, Micros, Rect, RowStatus};
use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Int32Array, RecordBatch, StringArray};
use arrow::array::{Float32Array, Int64Array};
use arrow::datatypes::{ArrowPrimitiveType, Float32Type, Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use std::ops::Range;

/// Why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no part.
    #[error("it is no whole Parquet file ({0})")]
    Open(#[from] ParquetError),
    /// The file cannot be opened.
    #[error("it cannot be opened ({0})")]
    File(#[from] std::io::Error),
    /// A batch cannot be decoded.
    #[error("it cannot be read to its end ({0})")]
    Broken(#[from] ArrowError),
    /// A column is not there.
    #[error("it has no column `{0}`")]
    Missing(String),
    /// A column is of another type.
    #[error("its column `{0}` is not as this version writes it")]
    Unlike(String),
    /// A row contradicts itself.
    #[error("row {row} {cause}")]
    Row {
        /// Its place in its batch.
        row: usize,
        /// What is wrong.
        cause: String,
    },
}

/// Reads rows in order.
pub struct RowReader {
    fingerprint: Option<String>,
    schema: SchemaRef,
    batches: ParquetRecordBatchReader,
}

impl RowReader {
    /// Some columns of every row.
    ///
    /// # Errors
    /// [`ReadError::Open`]. A column that is not there is an error of the batch that is asked for it.
    pub fn open(
        part: impl ChunkReader + 'static,
        columns: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ReadError> {
        let columns: Vec<_> = columns.into_iter().collect();
        Self::build(
            part,
            Some(columns.iter().map(AsRef::as_ref).collect()),
            BATCH_ROWS,
            None,
        )
    }

    /// The same of a range of rows, `batch` at a time.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_range(
        part: impl ChunkReader + 'static,
        columns: impl IntoIterator<Item = impl AsRef<str>>,
        rows: Range<u64>,
        batch: usize,
    ) -> Result<Self, ReadError> {
        let columns: Vec<_> = columns.into_iter().collect();
        Self::build(
            part,
            Some(columns.iter().map(AsRef::as_ref).collect()),
            batch,
            Some(rows),
        )
    }

    /// Every column of every row.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_whole(part: impl ChunkReader + 'static) -> Result<Self, ReadError> {
        Self::build(part, None, BATCH_ROWS, None)
    }

    fn build(
        part: impl ChunkReader + 'static,
        columns: Option<Vec<&str>>,
        batch: usize,
        rows: Option<Range<u64>>,
    ) -> Result<Self, ReadError> {
        let mut builder = ParquetRecordBatchReaderBuilder::try_new(part)?.with_batch_size(batch);
        let pairs = builder.metadata().file_metadata().key_value_metadata();
        let fingerprint = pairs
            .into_iter()
            .flatten()
            .find(|pair| pair.key == META_FINGERPRINT)
            .and_then(|pair| pair.value.clone());
        let schema = builder.schema().clone();
        if let Some(columns) = columns {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
            builder = builder.with_projection(mask);
        }
        if let Some(rows) = rows {
            let (mut before, mut skipped, mut groups) = (0, 0, Vec::new());
            for (at, group) in builder.metadata().row_groups().iter().enumerate() {
                let after = before + group.num_rows() as u64;
                if after <= rows.start {
                    skipped = after;
                } else if before < rows.end {
                    groups.push(at);
                }
                before = after;
            }
            builder = builder
                .with_row_groups(groups)
                .with_offset((rows.start - skipped) as usize)
                .with_limit((rows.end - rows.start) as usize);
        }
        Ok(Self {
            fingerprint,
            schema,
            batches: builder.build()?,
        })
    }

    /// The fingerprint that the rows were labelled under, by the part's metadata.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// Every column of the part, read or not.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for RowReader {
    type Item = Result<RowBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.map(RowBatch).map_err(ReadError::Broken))
    }
}

/// Consecutive rows.
pub struct RowBatch(RecordBatch);

impl RowBatch {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.0.num_rows()
    }

    /// The columns as Arrow has them.
    pub fn arrow(&self) -> &RecordBatch {
        &self.0
    }

    fn column(&self, name: &str) -> Result<&ArrayRef, ReadError> {
        self.0
            .column_by_name(name)
            .ok_or_else(|| ReadError::Missing(name.into()))
    }

    /// A column of text: `video`, `status` or `<model>_expression`.
    ///
    /// # Errors
    /// It is not there, or of another type.
    pub fn texts(&self, name: &str) -> Result<Texts, ReadError> {
        let column = self.column(name)?.as_dictionary_opt::<Int32Type>();
        let texts = column.and_then(|column| {
            let values = column.values().as_string_opt::<i32>()?.clone();
            Some(Texts {
                keys: column.keys().clone(),
                values,
            })
        });
        texts.ok_or_else(|| ReadError::Unlike(name.into()))
    }

    fn primitives<T: ArrowPrimitiveType>(
        &self,
        name: &str,
    ) -> Result<&arrow::array::PrimitiveArray<T>, ReadError> {
        let column = self.column(name)?.as_primitive_opt::<T>();
        column.ok_or_else(|| ReadError::Unlike(name.into()))
    }

    /// `frame` or `timestamp_us`.
    ///
    /// # Errors
    /// It is not there, or of another type.
    pub fn longs(&self, name: &str) -> Result<&Int64Array, ReadError> {
        self.primitives::<Int64Type>(name)
    }

    /// `face` or `track`.
    ///
    /// # Errors
    /// It is not there, or of another type.
    pub fn integers(&self, name: &str) -> Result<&Int32Array, ReadError> {
        self.primitives::<Int32Type>(name)
    }

    /// A column of numbers.
    ///
    /// # Errors
    /// It is not there, or of another type.
    pub fn floats(&self, name: &str) -> Result<&Float32Array, ReadError> {
        self.primitives::<Float32Type>(name)
    }

    /// The columns that every label set has, for which all of [`column::FIXED`] must have been asked.
    ///
    /// # Errors
    /// One of them is not there, or of another type.
    pub fn fixed(&self) -> Result<FixedColumns, ReadError> {
        let unlike = || ReadError::Unlike(column::LANDMARKS.into());
        let landmarks = self.column(column::LANDMARKS)?;
        let landmarks = landmarks.as_fixed_size_list_opt().ok_or_else(unlike)?;
        let points = landmarks.values().as_primitive_opt::<Float32Type>().is_some();
        if !points || landmarks.value_length() != 10 {
            return Err(unlike());
        }
        let [x, y, w, h] = column::BOX.map(|side| self.floats(side).cloned());
        Ok(FixedColumns {
            video: self.texts(column::VIDEO)?,
            frame: self.longs(column::FRAME)?.clone(),
            timestamp: self.longs(column::TIMESTAMP)?.clone(),
            status: self.texts(column::STATUS)?,
            face: self.integers(column::FACE)?.clone(),
            track: self.integers(column::TRACK)?.clone(),
            sides: [x?, y?, w?, h?],
            score: self.floats(column::FACE_SCORE)?.clone(),
            landmarks: landmarks.clone(),
        })
    }
}

/// A column of text.
#[derive(Clone)]
pub struct Texts {
    keys: Int32Array,
    values: StringArray,
}

impl Texts {
    /// The text of a row.
    pub fn get(&self, row: usize) -> Option<&str> {
        let key = self.keys.is_valid(row).then(|| self.keys.value(row))?;
        Some(self.values.value(usize::try_from(key).ok()?))
    }

    /// The text of a row that must have one.
    pub(crate) fn text(&self, row: usize) -> Result<&str, ReadError> {
        self.get(row).ok_or_else(|| wrong(row, "lacks a text"))
    }

    /// The different texts, each with its key.
    pub(crate) fn dictionary(&self) -> impl Iterator<Item = (i32, &str)> {
        (0..).zip(self.values.iter().flatten())
    }

    /// The key of every row's text.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Option<i32>> {
        self.keys.iter()
    }

    /// The text of every row.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.keys.len()).map(|row| self.get(row))
    }
}

/// The columns that every label set has, of some rows.
pub struct FixedColumns {
    video: Texts,
    frame: Int64Array,
    timestamp: Int64Array,
    status: Texts,
    face: Int32Array,
    track: Int32Array,
    sides: [Float32Array; 4],
    score: Float32Array,
    landmarks: FixedSizeListArray,
}

/// What a row says, whatever the models do.
pub struct FixedRow {
    /// Frame.
    pub frame: FrameIndex,
    /// Its time.
    pub timestamp: Option<Micros>,
    /// Status.
    pub status: RowStatus,
    /// Its face, where the status has one.
    pub face: Option<Face>,
}

impl FixedColumns {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.frame.len()
    }

    /// The video of a row.
    ///
    /// # Errors
    /// It has none.
    pub fn video(&self, row: usize) -> Result<&str, ReadError> {
        self.video.get(row).ok_or_else(|| wrong(row, "has no video"))
    }

    /// The rest of a row.
    ///
    /// # Errors
    /// The row has no frame, an unknown status, or contradicts its status.
    pub fn row(&self, row: usize) -> Result<FixedRow, ReadError> {
        let frame = at(&self.frame, row).and_then(|frame| u64::try_from(frame).ok());
        let frame = frame.ok_or_else(|| wrong(row, "has no frame"))?;
        let text = self.status.get(row);
        let mut known = RowStatus::ALL.into_iter();
        let status = known.find(|status| text == Some(status.as_str()));
        let status = status.ok_or_else(|| wrong(row, "has an unknown status"))?;
        let face = self.face(row)?;
        if face.is_some() != status.has_face() {
            let has = if face.is_some() {
                "has a face"
            } else {
                "has no face"
            };
            return Err(wrong(row, format!("is `{}` and {has}", status.as_str())));
        }
        Ok(FixedRow {
            frame: FrameIndex(frame),
            timestamp: at(&self.timestamp, row).map(Micros),
            status,
            face,
        })
    }

    fn face(&self, row: usize) -> Result<Option<Face>, ReadError> {
        let Some(index) = at(&self.face, row) else {
            return Ok(None);
        };
        let side = |n: usize| {
            let side = at(&self.sides[n], row);
            side.ok_or_else(|| wrong(row, format!("has a face without `{}`", column::BOX[n])))
        };
        let rect = Rect {
            x: side(0)?,
            y: side(1)?,
            w: side(2)?,
            h: side(3)?,
        };
        Ok(Some(Face {
            index,
            track: at(&self.track, row),
            rect,
            score: at(&self.score, row),
            landmarks: self.points(row),
        }))
    }

    fn points(&self, row: usize) -> Option<[f32; 10]> {
        if self.landmarks.is_null(row) {
            return None;
        }
        let list = self.landmarks.value(row);
        let points = list.as_primitive_opt::<Float32Type>()?;
        points.values().as_ref().try_into().ok()
    }
}

fn at<T: ArrowPrimitiveType>(column: &arrow::array::PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

fn wrong(row: usize, cause: impl Into<String>) -> ReadError {
    ReadError::Row {
        row,
        cause: cause.into(),
    }
}
