//! How well a model does on the held-out faces: the figures of the 2nd ABAW competition, computed over all faces at once.
//!
//! Against people's labels where there are any, else against what the teacher's come to: then it is agreement with the
//! teacher, and no more.

use affectmill_base::{EXPRESSIONS, ModelKind, Task};
use affectmill_evaluation::metrics::{Decision, Prediction, Profile, Tally, Truth};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the held-out faces say of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// The mean of the scores of the tasks that have labels; what epochs are compared by.
    pub score: f64,
    /// Figures by name, such as `expr_accuracy`; `expr_majority` is the accuracy of always saying the commonest class.
    pub figures: BTreeMap<String, f64>,
}

/// Gathers faces, one by one.
pub struct Scorer {
    kind: ModelKind,
    tally: Tally,
    classes: [u64; EXPRESSIONS.len()],
}

impl Scorer {
    /// Of no face yet.
    pub fn new(kind: ModelKind) -> Self {
        Self {
            kind,
            tally: Tally::default(),
            classes: [0; EXPRESSIONS.len()],
        }
    }

    /// Takes a face: what is true, and a row of the model's outputs.
    pub fn add(&mut self, truth: &Truth, row: &[f32]) {
        let mut said = Prediction::default();
        let mut rest = row.iter().copied().map(f64::from);
        for task in self.kind.tasks() {
            match task {
                Task::Va => said.va = Some(std::array::from_fn(|_| rest.next().unwrap_or(f64::NAN))),
                Task::Expr => {
                    said.expression = Some(std::array::from_fn(|_| rest.next().unwrap_or(f64::NAN)))
                }
                Task::Au => said.units = Some(std::array::from_fn(|_| rest.next().unwrap_or(f64::NAN))),
            }
        }
        self.tally.add(truth, &said, &Decision::default());
        if let Some(count) = truth
            .expression
            .and_then(|class| self.classes.get_mut(usize::from(class)))
        {
            *count += 1;
        }
    }

    /// The figures of all faces.
    pub fn score(&self) -> Score {
        let mut figures = BTreeMap::new();
        let mut scores = Vec::new();
        for figure in self.tally.figures(Profile::Abaw2, self.kind.tasks()) {
            let (Some(task), Some(value)) = (figure.task, figure.value.filter(|_| figure.count > 0)) else {
                continue;
            };
            let task = match task {
                Task::Va => "va",
                Task::Expr => "expr",
                Task::Au => "au",
            };
            match (figure.name, figure.of) {
                ("score", _) => {
                    scores.push(value);
                    figures.insert(format!("{task}_score"), value);
                }
                ("accuracy" | "macro_f1" | "mean_f1", None) => {
                    figures.insert(format!("{task}_{}", figure.name), value);
                }
                ("ccc", Some(of)) => {
                    figures.insert(format!("{of}_ccc"), value);
                }
                _ => {}
            }
        }
        let faces: u64 = self.classes.iter().sum();
        if faces > 0 && self.kind.tasks().contains(&Task::Expr) {
            let most = self.classes.iter().max().copied().unwrap_or(0);
            figures.insert("expr_majority".into(), most as f64 / faces as f64);
        }
        let score = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        Score { score, figures }
    }
}
