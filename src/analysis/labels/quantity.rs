//! What can be asked of a face: valence, arousal, the probability of an expression or of an action unit; and which model answers.

use super::LabelError;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task, VALENCE_AROUSAL};
use affectmill_labelset::JobRecord;
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use polars::prelude::*;
use std::str::FromStr;

/// One output of a task, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    task: Task,
    index: usize,
}

impl Quantity {
    /// Every quantity of a task, in the order of its head.
    pub fn of(task: Task) -> impl Iterator<Item = Self> {
        (0..task.outputs().len()).map(move |index| Self { task, index })
    }

    /// Its task.
    pub fn task(self) -> Task {
        self.task
    }

    /// Its name: `valence`, `Happiness`, `AU12`.
    pub fn name(self) -> &'static str {
        self.task.outputs()[self.index]
    }

    /// The column that holds it, as label sets name it: `student_valence`, `student_expr_Happiness_p`, `student_AU12_p`.
    pub fn column(self, model: &str) -> String {
        column::probability(model, self.task, self.name())
    }

    /// Its value in a row: raw valence and arousal; else the probability, worked out where only logits are stored.
    pub fn value(self, model: &str, values: Values) -> Expr {
        let own_column = self.column(model);
        let logit = |output: &str| col(column::raw(model, self.task, output)).cast(DataType::Float64);
        let own = logit(self.name());
        let odds = match self.task {
            Task::Expr if values == Values::Logits => {
                // 1 ÷ Σ exp(other − own): what overflows is a probability of 0.
                let ratios = EXPRESSIONS.map(|other| exp(logit(other) - own.clone()));
                ratios.into_iter().reduce(|a, b| a + b)
            }
            Task::Au if values == Values::Logits => Some(lit(1.0) + exp(lit(0.0) - own)),
            _ => None,
        };
        match odds {
            Some(odds) => (lit(1.0) / odds).cast(DataType::Float32).alias(own_column),
            None => col(own_column),
        }
    }
}

fn exp(power: Expr) -> Expr {
    lit(std::f64::consts::E).pow(power)
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // AU01 is how other tools write AU1.
        let number = |unit: &str| {
            let digits = unit.get(..2).filter(|au| au.eq_ignore_ascii_case("au"));
            digits.and_then(|_| unit[2..].parse::<u32>().ok())
        };
        let is = |name: &str| {
            name.eq_ignore_ascii_case(text) || number(name).is_some_and(|unit| number(text) == Some(unit))
        };
        let mut every = Task::ALL.into_iter().flat_map(Quantity::of);
        every.find(|quantity| is(quantity.name())).ok_or_else(|| {
            let names = [&VALENCE_AROUSAL[..], &EXPRESSIONS, &ACTION_UNITS].concat();
            format!("there are {}", names.join(", "))
        })
    }
}

/// For each task the model that answers it: the only one that has it, among those named where any are.
///
/// # Errors
/// A name is none of this label set's; or several models have a task of `tasks`, and which one is meant is not said.
pub fn models_for<'a>(
    job: &'a JobRecord,
    named: &[String],
    tasks: &[Task],
) -> Result<Vec<(Task, &'a ModelRecord)>, LabelError> {
    let say = |error: String| Err(LabelError::Unanswerable(error));
    if let Some(stranger) = named
        .iter()
        .find(|name| job.models.iter().all(|model| model.name != **name))
    {
        let models = list(job.models.iter());
        return say(format!(
            "this label set has no model `{stranger}`; it has {models}"
        ));
    }
    let mut chosen = Vec::new();
    for &task in tasks {
        let has = |model: &&ModelRecord| model.tasks().contains(&task);
        let named = |model: &&ModelRecord| named.is_empty() || named.contains(&model.name);
        let models: Vec<&ModelRecord> = job.models.iter().filter(has).filter(named).collect();
        match models[..] {
            [] => {}
            [model] => chosen.push((task, model)),
            _ => {
                let what = in_words(task);
                let models = list(models.into_iter());
                return say(format!(
                    "several models have {what}: {models}; choose with --model NAME"
                ));
            }
        }
    }
    Ok(chosen)
}

/// A task as people call it.
pub fn in_words(task: Task) -> &'static str {
    match task {
        Task::Va => "valence and arousal",
        Task::Expr => "expressions",
        Task::Au => "action units",
    }
}

fn list<'a>(models: impl Iterator<Item = &'a ModelRecord>) -> String {
    let name = |model: &ModelRecord| {
        if model.untrained {
            format!("{} (untrained)", model.name)
        } else {
            model.name.clone()
        }
    };
    models.map(name).collect::<Vec<_>>().join(", ")
}
