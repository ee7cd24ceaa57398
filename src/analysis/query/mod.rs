//! `affectmill query`: common questions to a label set, answered in one table.
//!
//! Flows in: the rows of a label set, piece by piece. Flows out: an [`Answer`]. In memory are the rows of one video, of few
//! columns, and the answer.

mod curve;
mod means;
mod segments;
mod smooth;
mod stretches;
mod top;

pub use smooth::Smooth;

use super::labels::{LabelError, Labels, Quantity, in_words, models_for};
use affectmill_base::Task;
use affectmill_spec::ModelRecord;
use polars::prelude::*;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// The mean of each quantity over the faces of each video; of every quantity when none is named.
    Means(Vec<Quantity>),
    /// When a quantity holds at or above a threshold.
    Segments {
        /// Of which quantity.
        quantity: Quantity,
        /// At least so much, all the time.
        threshold: f32,
        /// At least so long, from the first to the last frame where it holds.
        min_seconds: f64,
    },
    /// A quantity in every frame.
    Curve(Quantity),
    /// The frames where a quantity is largest.
    Top {
        /// Of which quantity.
        quantity: Quantity,
        /// How many.
        count: usize,
        /// Frames of one track are at least so far apart; 0 for any.
        apart_seconds: f64,
    },
}

/// The answer.
pub struct Answer {
    /// What the table shows, for people.
    pub caption: String,
    /// What was measured and how it was smoothed; none where the columns say it.
    pub of: Option<String>,
    /// The rows.
    pub table: DataFrame,
    /// Videos without times, where the answer needs some.
    pub without_times: Vec<String>,
    /// Models whose weights mean nothing.
    pub untrained: Vec<String>,
}

/// Answers a question from the models named, all of the label set's where none is; with `smooth`, from the smoothed
/// quantity.
///
/// # Errors
/// [`LabelError`]; among them that no model, or more than one, could answer.
pub fn ask(
    labels: &Labels,
    question: &Question,
    models: &[String],
    smooth: Option<Smooth>,
) -> Result<Answer, LabelError> {
    let models = |tasks: &[Task]| models_for(labels.job(), models, tasks);
    match question {
        Question::Means(quantities) if quantities.is_empty() => {
            let models = models(&Task::ALL)?;
            let every = models
                .iter()
                .flat_map(|&(task, model)| Quantity::of(task).map(move |quantity| (quantity, model)));
            means::answer(labels, &every.collect::<Vec<_>>())
        }
        Question::Means(quantities) => {
            let chosen = quantities.iter().map(|&quantity| {
                let model = only(models(&[quantity.task()])?, quantity)?;
                Ok((quantity, model))
            });
            means::answer(labels, &chosen.collect::<Result<Vec<_>, LabelError>>()?)
        }
        &Question::Curve(quantity) => {
            let asked = Asked::new(quantity, only(models(&[quantity.task()])?, quantity)?, smooth);
            curve::answer(labels, &asked)
        }
        &Question::Segments {
            quantity,
            threshold,
            min_seconds,
        } => {
            let asked = Asked::new(quantity, only(models(&[quantity.task()])?, quantity)?, smooth);
            segments::answer(labels, &asked, threshold, min_seconds)
        }
        &Question::Top {
            quantity,
            count,
            apart_seconds,
        } => {
            let asked = Asked::new(quantity, only(models(&[quantity.task()])?, quantity)?, smooth);
            top::answer(labels, &asked, count, apart_seconds)
        }
    }
}

/// The model that answers.
fn only(models: Vec<(Task, &ModelRecord)>, quantity: Quantity) -> Result<&ModelRecord, LabelError> {
    models.first().map(|(_, model)| *model).ok_or_else(|| {
        let what = in_words(quantity.task());
        LabelError::Unanswerable(format!(
            "no model in question has {what}; `means` shows what a model has"
        ))
    })
}

/// A quantity as one model has it, smoothed or not.
struct Asked<'a> {
    quantity: Quantity,
    model: &'a ModelRecord,
    smooth: Option<Smooth>,
}

impl<'a> Asked<'a> {
    fn new(quantity: Quantity, model: &'a ModelRecord, smooth: Option<Smooth>) -> Self {
        Self {
            quantity,
            model,
            smooth,
        }
    }

    /// The column, and what was done to it.
    fn of(&self) -> String {
        let column = self.quantity.column(&self.model.name);
        match self.smooth {
            Some(smooth) => format!("{column}, smoothed by {smooth}"),
            None => column,
        }
    }

    fn untrained(&self) -> Vec<String> {
        let untrained = self.model.untrained.then(|| self.model.name.clone());
        untrained.into_iter().collect()
    }
}

/// Seconds of a time in microseconds.
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// `0:01:23.480`, as players show it.
fn clock(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let millis = (micros.unsigned_abs() + 500) / 1_000;
    let (seconds, minutes, hours) = (millis / 1_000 % 60, millis / 60_000 % 60, millis / 3_600_000);
    format!("{sign}{hours}:{minutes:02}:{seconds:02}.{:03}", millis % 1_000)
}

/// The table with one more column, the same in every row.
///
/// # Errors
/// Polars' own.
pub fn with_constant(table: DataFrame, name: &str, value: &str) -> PolarsResult<DataFrame> {
    table.lazy().with_column(lit(value).alias(name)).collect()
}
