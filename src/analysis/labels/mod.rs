//! The rows of a label set, read piece by piece, whatever their number.
//!
//! Flows in: the committed parts and what is wanted of each row, as Polars expressions. Flows out: data frames, each of rows of one
//! video, in order. In memory is one piece of a part at a time; what does not lie on a disk is brought there part by part.
//!
//! Never looks at a file that no commit record names.

mod quantity;

pub use quantity::{Quantity, in_words, models_for};

use affectmill_base::WriteError;
use affectmill_labelset::schema::column;
use affectmill_labelset::{CommitRecord, JobRecord, LabelSet, LabelSetError, VideoOutcome, paths};
use affectmill_store::{Store, StoreError};
use polars::prelude::*;
use std::path::Path;

/// Rows that are in memory at a time: a row group of a part.
const PIECE_ROWS: u64 = 65_536;

/// Why a label set cannot be read, asked or exported.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The label set cannot be opened.
    #[error(transparent)]
    Set(#[from] LabelSetError),
    /// A part cannot be read.
    #[error("cannot read `{part}`: {source}; delete it and its commit record `{record}`, and run again")]
    Part {
        /// The part.
        part: String,
        /// Its record.
        record: String,
        /// The cause.
        source: PolarsError,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A table cannot be made.
    #[error("cannot make the table: {0}; please report this")]
    Table(#[from] PolarsError),
    /// Files of the label set do not belong together.
    #[error("{0}")]
    Damaged(String),
    /// What is asked cannot be answered from this label set; says what can.
    #[error("{0}")]
    Unanswerable(String),
}

impl LabelError {
    /// Whether the command is to be changed, not the disk or the labels.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unanswerable(_) => true,
            Self::Set(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// The committed rows of a label set.
pub struct Labels<'a> {
    set: &'a LabelSet,
    commits: Vec<&'a CommitRecord>,
}

impl<'a> Labels<'a> {
    /// Those of a label set.
    ///
    /// # Errors
    /// [`LabelError::Set`]; among them that nothing is committed yet.
    pub fn of(set: &'a LabelSet) -> Result<Self, LabelError> {
        let mut commits: Vec<&CommitRecord> = set.labels()?.values().collect();
        // Videos in order, as far as shards have them in order.
        commits.sort_by_key(|commit| commit.videos.first().map(|video| &video.key));
        Ok(Self { set, commits })
    }

    /// The job they are labelled by.
    pub fn job(&self) -> &'a JobRecord {
        self.set.job()
    }

    /// Where they lie.
    pub fn store(&self) -> &'a Store {
        self.set.store()
    }

    /// The commit records, in order of their first videos.
    pub fn commits(&self) -> &[&'a CommitRecord] {
        &self.commits
    }

    /// The videos that have rows, in the order in which their rows come.
    pub fn videos(&self) -> impl Iterator<Item = &'a VideoOutcome> {
        let videos = self.commits.iter().flat_map(|commit| &commit.videos);
        videos.filter(|video| video.rows > 0)
    }

    /// Shows some columns of every row in pieces, videos and rows in order. All rows of a video lie in one part, so that
    /// its pieces follow one another.
    ///
    /// # Errors
    /// A part cannot be read, or what `show` says.
    pub fn each_piece(
        &self,
        columns: &[Expr],
        mut show: impl FnMut(DataFrame) -> Result<(), LabelError>,
    ) -> Result<(), LabelError> {
        for commit in self.commits.iter().filter(|commit| commit.part.rows > 0) {
            let key = paths::part(&commit.shard);
            let (files, _copy) = self.store().at_hand(std::slice::from_ref(&key))?;
            let failed = |source| LabelError::Part {
                part: self.store().path(&key).to_string(),
                record: self.store().path(&paths::commit(&commit.shard)).to_string(),
                source,
            };
            let rows = scan(&files[0]).map_err(failed)?;
            for from in (0..commit.part.rows).step_by(PIECE_ROWS as usize) {
                let piece = rows.clone().slice(from as i64, PIECE_ROWS as IdxSize);
                show(piece.select(columns).collect().map_err(failed)?)?;
            }
        }
        Ok(())
    }

    /// One row per video, sorted by `video`: `columns` of its rows brought together by `first` within each piece, and what came
    /// of that by `again` over the pieces, such as sums and sums of sums.
    ///
    /// # Errors
    /// As [`Self::each_piece`].
    pub fn per_video(
        &self,
        columns: &[Expr],
        first: &[Expr],
        again: &[Expr],
    ) -> Result<DataFrame, LabelError> {
        let video = col(column::VIDEO).cast(DataType::String);
        let columns = [&[video], columns].concat();
        let mut pieces = DataFrame::empty();
        self.each_piece(&columns, |piece| {
            let piece = piece.lazy().group_by_stable([col("video")]).agg(first);
            let mut piece = piece.collect()?;
            // As they are, the names of a few videos hold the texts of all the rows in memory.
            let names: StringChunked = piece.column("video")?.str()?.iter().collect();
            piece.replace("video", names.with_name("video".into()).into_column())?;
            match pieces.width() {
                0 => pieces = piece,
                _ => {
                    pieces.vstack_mut(&piece)?;
                }
            }
            Ok(())
        })?;
        if pieces.width() == 0 {
            let error = format!(
                "no video of {} has a row; `affectmill status` tells why",
                self.store().root()
            );
            return Err(LabelError::Unanswerable(error));
        }
        let whole = pieces.lazy().group_by([col("video")]).agg(again);
        Ok(whole.sort(["video"], SortMultipleOptions::default()).collect()?)
    }

    /// As [`Self::each_piece`], each piece of one video, named beside it.
    ///
    /// # Errors
    /// As [`Self::each_piece`].
    pub fn each_video_piece(
        &self,
        columns: &[Expr],
        mut show: impl FnMut(&str, DataFrame) -> Result<(), LabelError>,
    ) -> Result<(), LabelError> {
        let columns = [&[col(column::VIDEO).cast(DataType::String).alias(VIDEO)], columns].concat();
        self.each_piece(&columns, |piece| {
            let names = piece.column(VIDEO)?.str()?.clone();
            let mut from = 0;
            while from < piece.height() {
                let name = names.get(from).unwrap_or_default();
                let rest = (from..piece.height()).find(|&at| names.get(at) != Some(name));
                let end = rest.unwrap_or(piece.height());
                show(name, piece.slice(from as i64, end - from))?;
                from = end;
            }
            Ok(())
        })
    }
}

/// Name of the column that [`Labels::each_video_piece`] goes by, apart from what is asked for.
const VIDEO: &str = "\u{0}video";

fn scan(part: &Path) -> PolarsResult<LazyFrame> {
    // `[` in a path is no pattern.
    let as_named = ScanArgsParquet {
        glob: false,
        ..Default::default()
    };
    LazyFrame::scan_parquet(PlRefPath::new(part.to_string_lossy().as_ref()), as_named)
}

/// A column of whole numbers.
pub(super) fn integers(rows: &DataFrame, name: &str) -> PolarsResult<Vec<Option<i64>>> {
    let column = rows.column(name)?.cast(&DataType::Int64)?;
    Ok(column.i64()?.iter().collect())
}

/// A column of numbers.
pub(super) fn floats(rows: &DataFrame, name: &str) -> PolarsResult<Vec<Option<f32>>> {
    let column = rows.column(name)?.cast(&DataType::Float32)?;
    Ok(column.f32()?.iter().collect())
}
