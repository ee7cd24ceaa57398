//! The rows of a part, a row group at a time, as plain columns.

use super::PageError;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, RowStatus, ShardId, Task, VALENCE_AROUSAL};
use affectmill_labelset::{JobRecord, paths};
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use affectmill_store::Store;
use polars::prelude::*;
use std::borrow::Cow;
use std::path::Path;

/// Rows in memory at a time: as many as a row group has.
const AT_ONCE: u64 = 65_536;

const BOX: [&str; 4] = ["box_x", "box_y", "box_w", "box_h"];

/// Some consecutive rows of a part. Numbers of rows without a face, and those that a model did not give for one, are NaN.
pub struct Rows {
    /// Video of each row.
    pub videos: StringChunked,
    /// Frame.
    pub frames: Vec<i64>,
    /// Presentation time.
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
    pub expressions: Vec<Classes>,
    /// Probabilities of the action units, of each model that has them.
    pub units: Vec<[Vec<f32>; ACTION_UNITS.len()]>,
}

/// Expressions of one model.
pub struct Classes {
    /// Index into [`EXPRESSIONS`].
    pub class: Vec<Option<u8>>,
    /// Probabilities of each.
    pub probabilities: [Vec<f32>; EXPRESSIONS.len()],
}

impl Rows {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.frames.len()
    }
}

/// Those of some rows for which a model gave numbers, by one of its columns.
pub fn with_numbers<'a>(rows: &'a [usize], column: &[f32]) -> Cow<'a, [usize]> {
    if !rows.iter().any(|&row| column[row].is_nan()) {
        rows.into()
    } else {
        rows.iter()
            .copied()
            .filter(|&row| !column[row].is_nan())
            .collect()
    }
}

/// The models of a job that have a task.
pub fn having(job: &JobRecord, task: Task) -> impl Iterator<Item = &ModelRecord> {
    let models = job.models.iter();
    models.filter(move |model| model.tasks().contains(&task))
}

/// Shows all rows of a shard's part, in order. A part that does not lie on a disk is brought to scratch space for as long.
pub fn each(
    store: &Store,
    job: &JobRecord,
    shard: &ShardId,
    rows: u64,
    see: &mut dyn FnMut(&Rows),
) -> Result<(), PageError> {
    let key = paths::part(shard);
    let (at_hand, _copy) = store.at_hand(std::slice::from_ref(&key))?;
    let failed = |source| PageError::Part {
        part: store.path(&key).to_string(),
        source,
    };
    for first in (0..rows).step_by(AT_ONCE as usize) {
        for path in &at_hand {
            see(&read(path, job, first).map_err(failed)?);
        }
    }
    Ok(())
}

/// The rows of a part from `first` on, as many as a row group has.
///
/// # Errors
/// Polars' own: the file is no part of this job.
pub fn read(path: &Path, job: &JobRecord, first: u64) -> PolarsResult<Rows> {
    let stored = job.job.output.values;
    let text = |name: &str| col(name).cast(DataType::String);
    let mut columns = vec![text("video"), text("status")];
    columns.extend(["frame", "timestamp_us", "face", "track"].map(col));
    columns.extend(BOX.map(col));
    for model in &job.models {
        let name = &model.name;
        for task in model.tasks() {
            match task {
                Task::Va => columns.extend(VALENCE_AROUSAL.map(|output| col(format!("{name}_{output}")))),
                Task::Expr => {
                    columns.push(text(&format!("{name}_expression")));
                    columns
                        .extend(EXPRESSIONS.map(|class| col(number(name, &format!("expr_{class}"), stored))));
                }
                Task::Au => columns.extend(ACTION_UNITS.map(|unit| col(number(name, unit, stored)))),
            }
        }
    }
    // By its name alone: `[` in a path is no pattern.
    let as_named = ScanArgsParquet {
        glob: false,
        ..Default::default()
    };
    let table = LazyFrame::scan_parquet(PlRefPath::new(path.to_string_lossy().as_ref()), as_named)?
        .slice(first as i64, AT_ONCE as IdxSize)
        .select(columns)
        .collect()?;
    let expressions = having(job, Task::Expr).map(|model| classes(&table, &model.name, stored));
    let units = having(job, Task::Au).map(|model| {
        let unit = |unit: &str| {
            Ok(activations(
                floats(&table, &number(&model.name, unit, stored))?,
                stored,
            ))
        };
        each_of(ACTION_UNITS, unit)
    });
    let planes = having(job, Task::Va).map(|model| {
        each_of(VALENCE_AROUSAL, |output| {
            floats(&table, &format!("{}_{output}", model.name))
        })
    });
    let statuses = table.column("status")?.str()?.iter();
    Ok(Rows {
        videos: table.column("video")?.str()?.clone(),
        frames: table
            .column("frame")?
            .i64()?
            .iter()
            .map(Option::unwrap_or_default)
            .collect(),
        timestamps: table.column("timestamp_us")?.i64()?.iter().collect(),
        statuses: statuses.map(status).collect::<PolarsResult<_>>()?,
        faces: table.column("face")?.i32()?.iter().collect(),
        tracks: table.column("track")?.i32()?.iter().collect(),
        boxes: each_of(BOX, |side| floats(&table, side))?,
        planes: planes.collect::<PolarsResult<_>>()?,
        expressions: expressions.collect::<PolarsResult<_>>()?,
        units: units.collect::<PolarsResult<_>>()?,
    })
}

/// The column of an output: probabilities where they are stored, else logits.
fn number(model: &str, output: &str, stored: Values) -> String {
    let suffix = if stored == Values::Logits { "" } else { "_p" };
    format!("{model}_{output}{suffix}")
}

fn floats(table: &DataFrame, column: &str) -> PolarsResult<Vec<f32>> {
    let column = table.column(column)?.f32()?;
    Ok(column.iter().map(|number| number.unwrap_or(f32::NAN)).collect())
}

fn each_of<const N: usize>(
    names: [&str; N],
    column: impl Fn(&str) -> PolarsResult<Vec<f32>>,
) -> PolarsResult<[Vec<f32>; N]> {
    let mut columns = [const { Vec::new() }; N];
    for (to, name) in columns.iter_mut().zip(names) {
        *to = column(name)?;
    }
    Ok(columns)
}

fn status(text: Option<&str>) -> PolarsResult<RowStatus> {
    let known = RowStatus::ALL
        .into_iter()
        .find(|status| Some(status.as_str()) == text);
    known.ok_or_else(|| polars_err!(ComputeError: "`status` holds {text:?}"))
}

fn classes(table: &DataFrame, model: &str, stored: Values) -> PolarsResult<Classes> {
    let index = |name: Option<&str>| -> PolarsResult<Option<u8>> {
        let Some(name) = name else { return Ok(None) };
        let known = EXPRESSIONS.iter().position(|class| *class == name);
        let known = known.ok_or_else(|| polars_err!(ComputeError: "`{model}_expression` holds {name:?}"))?;
        Ok(Some(known as u8))
    };
    let class = table
        .column(&format!("{model}_expression"))?
        .str()?
        .iter()
        .map(index);
    let class = class.collect::<PolarsResult<_>>()?;
    let mut probabilities = each_of(EXPRESSIONS, |class| {
        floats(table, &number(model, &format!("expr_{class}"), stored))
    })?;
    if stored == Values::Logits {
        softmax(&mut probabilities);
    }
    Ok(Classes { class, probabilities })
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

fn activations(mut numbers: Vec<f32>, stored: Values) -> Vec<f32> {
    if stored == Values::Logits {
        numbers
            .iter_mut()
            .for_each(|logit| *logit = 1.0 / (1.0 + (-*logit).exp()));
    }
    numbers
}
