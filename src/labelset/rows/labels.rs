//! The labels of a job's models as plain columns, some rows at a time.

use super::ROW_GROUP_ROWS;
use super::reader::{ReadError, RowBatch, RowReader, Texts};
use crate::JobRecord;
use crate::schema::column;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, RowStatus, Task};
use affectmill_spec::{ModelRecord, Values};
use arrow::array::Array;
use parquet::file::reader::ChunkReader;
use std::ops::Range;

/// Some consecutive rows of a part. Numbers of rows without a face, and those that a model did not give for one, are NaN.
pub struct LabelColumns {
    /// Video of each row.
    pub videos: Texts,
    /// Frame.
    pub frames: Vec<i64>,
    /// Presentation time in microseconds.
    pub timestamps: Vec<Option<i64>>,
    /// Status.
    pub statuses: Vec<RowStatus>,
    /// Face within the frame.
    pub faces: Vec<Option<i32>>,
    /// Track.
    pub tracks: Vec<Option<i32>>,
    /// Box: x, y, width, height.
    pub boxes: [Vec<f32>; 4],
    /// Valence and arousal, of each model that has them.
    pub planes: Vec<[Vec<f32>; 2]>,
    /// Class and probabilities of the expressions, of each model that has them.
    pub expressions: Vec<ExpressionColumns>,
    /// Probabilities of the action units, of each model that has them.
    pub units: Vec<[Vec<f32>; ACTION_UNITS.len()]>,
}

/// Expressions of one model.
pub struct ExpressionColumns {
    /// Index into [`EXPRESSIONS`].
    pub class: Vec<Option<u8>>,
    /// Probabilities of each.
    pub probabilities: [Vec<f32>; EXPRESSIONS.len()],
}

impl LabelColumns {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    fn of(batch: &RowBatch, job: &JobRecord) -> Result<Self, ReadError> {
        let stored = job.job.output.values;
        let frames = batch.longs(column::FRAME)?.iter();
        let [x, y, w, h] = column::BOX.map(|side| floats(batch, side));
        Ok(Self {
            videos: batch.texts(column::VIDEO)?,
            frames: frames.map(Option::unwrap_or_default).collect(),
            timestamps: batch.longs(column::TIMESTAMP)?.iter().collect(),
            statuses: statuses(&batch.texts(column::STATUS)?)?,
            faces: batch.integers(column::FACE)?.iter().collect(),
            tracks: batch.integers(column::TRACK)?.iter().collect(),
            boxes: [x?, y?, w?, h?],
            planes: having(job, Task::Va)
                .map(|model| outputs(batch, model, Task::Va, stored))
                .collect::<Result<_, _>>()?,
            expressions: having(job, Task::Expr)
                .map(|model| expressions(batch, model, stored))
                .collect::<Result<_, _>>()?,
            units: having(job, Task::Au)
                .map(|model| {
                    let mut units = outputs(batch, model, Task::Au, stored)?;
                    if stored == Values::Logits {
                        units
                            .iter_mut()
                            .flatten()
                            .for_each(|logit| *logit = sigmoid(*logit));
                    }
                    Ok(units)
                })
                .collect::<Result<_, ReadError>>()?,
        })
    }
}

/// Reads [`LabelColumns`], as many rows at a time as a row group has.
pub struct LabelReader<'a> {
    job: &'a JobRecord,
    rows: RowReader,
}

impl<'a> LabelReader<'a> {
    /// Those of a range of a part's rows.
    ///
    /// # Errors
    /// It is no whole Parquet file.
    pub fn open(
        part: impl ChunkReader + 'static,
        job: &'a JobRecord,
        rows: Range<u64>,
    ) -> Result<Self, ReadError> {
        let mut columns = column::FIXED.map(String::from).to_vec();
        columns.retain(|name| name != column::FACE_SCORE && name != column::LANDMARKS);
        for model in &job.models {
            for &task in model.tasks() {
                let outputs = task.outputs().iter();
                let stored = job.job.output.values;
                columns.extend(outputs.map(|output| number(model, task, output, stored)));
                columns.extend((task == Task::Expr).then(|| column::expression(&model.name)));
            }
        }
        let rows = RowReader::open_range(part, &columns, rows, ROW_GROUP_ROWS)?;
        Ok(Self { job, rows })
    }
}

impl Iterator for LabelReader<'_> {
    type Item = Result<LabelColumns, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.rows.next()?;
        Some(batch.and_then(|batch| LabelColumns::of(&batch, self.job)))
    }
}

/// The models of a job that have a task.
pub fn having(job: &JobRecord, task: Task) -> impl Iterator<Item = &ModelRecord> {
    let models = job.models.iter();
    models.filter(move |model| model.tasks().contains(&task))
}

/// The column of an output: the probability where it is stored, else what the network gave.
fn number(model: &ModelRecord, task: Task, output: &str, stored: Values) -> String {
    match stored {
        Values::Logits => column::raw(&model.name, task, output),
        Values::Probabilities | Values::Both => column::probability(&model.name, task, output),
    }
}

fn floats(batch: &RowBatch, name: &str) -> Result<Vec<f32>, ReadError> {
    let column = batch.floats(name)?;
    if column.null_count() == 0 {
        return Ok(column.values().to_vec());
    }
    Ok(column.iter().map(|number| number.unwrap_or(f32::NAN)).collect())
}

fn outputs<const N: usize>(
    batch: &RowBatch,
    model: &ModelRecord,
    task: Task,
    stored: Values,
) -> Result<[Vec<f32>; N], ReadError> {
    let mut columns = [const { Vec::new() }; N];
    for (to, output) in columns.iter_mut().zip(task.outputs()) {
        *to = floats(batch, &number(model, task, output, stored))?;
    }
    Ok(columns)
}

fn statuses(texts: &Texts) -> Result<Vec<RowStatus>, ReadError> {
    let status = |(row, text): (usize, Option<&str>)| {
        let mut known = RowStatus::ALL.into_iter();
        known
            .find(|status| text == Some(status.as_str()))
            .ok_or_else(|| ReadError::Row {
                row,
                cause: format!("has an unknown status {text:?}"),
            })
    };
    texts.iter().enumerate().map(status).collect()
}

fn expressions(
    batch: &RowBatch,
    model: &ModelRecord,
    stored: Values,
) -> Result<ExpressionColumns, ReadError> {
    let texts = batch.texts(&column::expression(&model.name))?;
    let index = |(row, name): (usize, Option<&str>)| {
        let Some(name) = name else { return Ok(None) };
        let known = EXPRESSIONS.iter().position(|class| *class == name);
        let known = known.ok_or_else(|| ReadError::Row {
            row,
            cause: format!("has an unknown expression {name:?}"),
        })?;
        Ok(Some(known as u8))
    };
    let class = texts
        .iter()
        .enumerate()
        .map(index)
        .collect::<Result<_, ReadError>>()?;
    let mut probabilities = outputs(batch, model, Task::Expr, stored)?;
    if stored == Values::Logits {
        softmax(&mut probabilities);
    }
    Ok(ExpressionColumns { class, probabilities })
}

fn softmax(logits: &mut [Vec<f32>; EXPRESSIONS.len()]) {
    for row in 0..logits[0].len() {
        let largest = logits
            .iter()
            .map(|logits| logits[row])
            .fold(f32::NEG_INFINITY, f32::max);
        let powers = logits.each_ref().map(|logits| (logits[row] - largest).exp());
        let sum: f32 = powers.iter().sum();
        for (logits, power) in logits.iter_mut().zip(powers) {
            logits[row] = power / sum;
        }
    }
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
