//! The faces of one video as an earlier run found them, read back from its part.
//!
//! Flows in: the bytes of a part and the key of a video. Flows out: its frames in order, each with its faces. Only one
//! batch of rows is decoded at a time.

use super::reader::{FixedColumns, FixedRow, ReadError, RowReader};
use crate::schema::column;
use affectmill_base::{Face, FrameIndex, Micros, RowStatus, VideoKey};
use bytes::Bytes;

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
    batches: RowReader,
    batch: Option<FixedColumns>,
    at: usize,
    begun: bool,
}

impl EarlierFaces {
    /// Opens a part; the error says why it is none of ours.
    ///
    /// # Errors
    /// The bytes are no Parquet file with the columns of labels.
    pub fn open(part: Bytes, video: &VideoKey) -> Result<Self, ReadError> {
        Ok(Self {
            video: video.as_str().to_owned(),
            batches: RowReader::open(part, column::FIXED)?,
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
    pub fn next(&mut self) -> Result<Option<EarlierFrame>, ReadError> {
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
            let FixedRow {
                frame,
                timestamp,
                status,
                face,
            } = batch.row(row)?;
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
    fn fill(&mut self) -> Result<(), ReadError> {
        while self.batch.as_ref().is_none_or(|batch| self.at == batch.rows()) {
            let Some(batch) = self.batches.next() else {
                self.batch = None;
                break;
            };
            self.batch = Some(batch?.fixed()?);
            self.at = 0;
        }
        Ok(())
    }
}
