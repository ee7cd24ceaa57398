//! The faces of one video as an earlier run found them, read back from its part.
//!
//! Flows in: the bytes of a part and the key of a video. Flows out: its frames in order, each with its faces. Only one
//! batch of rows is decoded at a time.

use affectmill_base::{Face, FrameIndex, Micros, Rect, RowStatus, VideoKey};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

/// Columns that say where the faces are.
const COLUMNS: [&str; 12] = [
    "video",
    "frame",
    "timestamp_us",
    "status",
    "face",
    "track",
    "box_x",
    "box_y",
    "box_w",
    "box_h",
    "face_score",
    "landmarks",
];

/// One frame of an earlier run.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierFrame {
    /// Frame.
    pub frame: FrameIndex,
    /// Its time.
    pub timestamp: Option<Micros>,
    /// Of its first row.
    pub status: RowStatus,
    /// Its faces in the order of their index.
    pub faces: Vec<Face>,
}

/// Reads the frames of one video.
pub struct EarlierFaces {
    video: String,
    batches: ParquetRecordBatchReader,
    batch: Option<Batch>,
    at: usize,
    begun: bool,
}

impl EarlierFaces {
    /// Opens a part; the error says why it is none of ours.
    ///
    /// # Errors
    /// The bytes are no Parquet file with the columns of labels.
    pub fn open(part: Bytes, video: &VideoKey) -> Result<Self, String> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(part).map_err(|error| error.to_string())?;
        let columns = ProjectionMask::columns(reader.parquet_schema(), COLUMNS);
        let batches = reader.with_projection(columns).build();
        Ok(Self {
            video: video.as_str().to_owned(),
            batches: batches.map_err(|error| error.to_string())?,
            batch: None,
            at: 0,
            begun: false,
        })
    }

    /// The next frame, `None` after the last.
    ///
    /// # Errors
    /// The part cannot be read on, or a row is not as this version writes it.
    // Not an `Iterator`: an error ends it.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<EarlierFrame>, String> {
        let mut found: Option<EarlierFrame> = None;
        self.fill()?;
        while let Some(batch) = &self.batch {
            let row = self.at;
            if batch.video(row)? != self.video {
                if self.begun {
                    break;
                }
                self.at += 1;
                self.fill()?;
                continue;
            }
            let (frame, timestamp, status, face) = batch.row(row)?;
            match &mut found {
                Some(found) if found.frame != frame => break,
                Some(found) => found.faces.extend(face),
                None => {
                    found = Some(EarlierFrame {
                        frame,
                        timestamp,
                        status,
                        faces: face.into_iter().collect(),
                    });
                }
            }
            self.begun = true;
            self.at += 1;
            self.fill()?;
        }
        Ok(found)
    }

    /// Makes `batch` the one that holds the next row, `None` after the last.
    fn fill(&mut self) -> Result<(), String> {
        while self.batch.as_ref().is_none_or(|batch| self.at == batch.rows) {
            let Some(batch) = self.batches.next() else {
                self.batch = None;
                break;
            };
            self.batch = Some(Batch::new(&batch.map_err(|error| error.to_string())?)?);
            self.at = 0;
        }
        Ok(())
    }
}

/// The columns of some rows, in the order of [`COLUMNS`].
pub(super) struct Batch {
    columns: Vec<ArrayRef>,
    rows: usize,
}

impl Batch {
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, String> {
        let column = |name: &str| {
            let column = batch.column_by_name(name).cloned();
            column.ok_or_else(|| format!("it has no column `{name}`"))
        };
        Ok(Self {
            columns: COLUMNS
                .iter()
                .map(|name| column(name))
                .collect::<Result<_, _>>()?,
            rows: batch.num_rows(),
        })
    }

    fn video(&self, row: usize) -> Result<&str, String> {
        self.text(0, row)
    }

    pub(super) fn row(
        &self,
        row: usize,
    ) -> Result<(FrameIndex, Option<Micros>, RowStatus, Option<Face>), String> {
        let frame = self.long(1, row)?.and_then(|frame| u64::try_from(frame).ok());
        let frame = frame.ok_or_else(|| format!("row {row} has no frame"))?;
        let status = RowStatus::ALL
            .into_iter()
            .find(|status| self.text(3, row) == Ok(status.as_str()))
            .ok_or_else(|| format!("row {row} has an unknown status"))?;
        let face = self.face(row)?;
        if face.is_some() != status.has_face() {
            return Err(format!(
                "row {row} is `{}` and {}",
                status.as_str(),
                match face {
                    Some(_) => "has a face",
                    None => "has no face",
                }
            ));
        }
        Ok((FrameIndex(frame), self.long(2, row)?.map(Micros), status, face))
    }

    fn face(&self, row: usize) -> Result<Option<Face>, String> {
        let Some(index) = self.int(4, row)? else {
            return Ok(None);
        };
        let side = |at: usize| {
            let side = self.float(at, row)?;
            side.ok_or_else(|| format!("row {row} has a face without `{}`", COLUMNS[at]))
        };
        let rect = Rect {
            x: side(6)?,
            y: side(7)?,
            w: side(8)?,
            h: side(9)?,
        };
        Ok(Some(Face {
            index,
            track: self.int(5, row)?,
            rect,
            score: self.float(10, row)?,
            landmarks: self.landmarks(row)?,
        }))
    }

    fn landmarks(&self, row: usize) -> Result<Option<[f32; 10]>, String> {
        let lists = self.columns[11].as_fixed_size_list_opt().ok_or_else(|| odd(11))?;
        if lists.is_null(row) {
            return Ok(None);
        }
        let list = lists.value(row);
        let points = list.as_primitive_opt::<Float32Type>().ok_or_else(|| odd(11))?;
        let points: Option<[f32; 10]> = points.values().as_ref().try_into().ok();
        points.map(Some).ok_or_else(|| odd(11))
    }

    fn text(&self, column: usize, row: usize) -> Result<&str, String> {
        let keys = self.columns[column].as_dictionary_opt::<Int32Type>();
        let keys = keys.ok_or_else(|| odd(column))?;
        let values = keys.values().as_string_opt::<i32>().ok_or_else(|| odd(column))?;
        let key = keys.key(row).ok_or_else(|| odd(column))?;
        Ok(values.value(key))
    }

    fn long(&self, column: usize, row: usize) -> Result<Option<i64>, String> {
        let numbers = self.columns[column].as_primitive_opt::<Int64Type>();
        let numbers = numbers.ok_or_else(|| odd(column))?;
        Ok(numbers.is_valid(row).then(|| numbers.value(row)))
    }

    fn int(&self, column: usize, row: usize) -> Result<Option<i32>, String> {
        let numbers = self.columns[column].as_primitive_opt::<Int32Type>();
        let numbers = numbers.ok_or_else(|| odd(column))?;
        Ok(numbers.is_valid(row).then(|| numbers.value(row)))
    }

    fn float(&self, column: usize, row: usize) -> Result<Option<f32>, String> {
        let numbers = self.columns[column].as_primitive_opt::<Float32Type>();
        let numbers = numbers.ok_or_else(|| odd(column))?;
        Ok(numbers.is_valid(row).then(|| numbers.value(row)))
    }
}

fn odd(column: usize) -> String {
    format!(
        "its column `{}` is not as this version writes it",
        COLUMNS[column]
    )
}
