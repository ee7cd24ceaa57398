//! The measures of the field: concordance, F1, accuracy, calibration error, and how far chance moves them.
//!
//! Flows in: what is true of a face and what a model said of it. Flows out: figures. Everything is kept as sums that add
//! up ([`Tally`]), so that the figures of a corpus, of a video and of a resampled corpus come from the same code, in memory
//! that does not grow with the number of frames. Pure: no I/O.

mod bootstrap;
mod classes;
mod concordance;
mod reliability;
mod tally;

pub use bootstrap::{Bootstrap, Interval};
pub use classes::{Binary, Confusion};
pub use concordance::Moments;
pub use reliability::{Reliability, log_sum_exp, softmax, softplus};
pub use tally::{Figure, Profile, Tally};

use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task};

/// Number of action units.
pub const UNITS: usize = ACTION_UNITS.len();
/// Number of expressions that a model tells apart.
pub const CLASSES: usize = EXPRESSIONS.len();
/// The annotated class that no model here has: `Other` of later ABAW editions.
pub const OTHER: u8 = CLASSES as u8;

/// What is true of one face; a task that is `None` is not annotated, or its annotation is marked invalid.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Truth {
    /// Valence and arousal in [−1, 1].
    pub va: Option<[f64; 2]>,
    /// Index into [`EXPRESSIONS`], or [`OTHER`].
    pub expression: Option<u8>,
    /// Action units.
    pub units: Option<Units>,
}

impl Truth {
    /// Whether a task is annotated.
    pub fn has(&self, task: Task) -> bool {
        match task {
            Task::Va => self.va.is_some(),
            Task::Expr => self.expression.is_some(),
            Task::Au => self.units.is_some(),
        }
    }
}

/// Annotated action units, one bit each in the order of [`ACTION_UNITS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Which are annotated.
    pub annotated: u16,
    /// Which of them are active.
    pub active: u16,
}

impl Units {
    /// Whether a unit is active; `None` when it is not annotated.
    pub fn get(self, unit: usize) -> Option<bool> {
        (self.annotated >> unit & 1 == 1).then_some(self.active >> unit & 1 == 1)
    }
}

/// What a model said of one face; a task that is `None` is not the model's, or holds a number that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Valence and arousal, raw.
    pub va: Option<[f64; 2]>,
    /// Logits of the expressions.
    pub expression: Option<[f64; CLASSES]>,
    /// Logits of the action units.
    pub units: Option<[f64; UNITS]>,
}

impl Prediction {
    /// Whether a task is predicted.
    pub fn has(&self, task: Task) -> bool {
        match task {
            Task::Va => self.va.is_some(),
            Task::Expr => self.expression.is_some(),
            Task::Au => self.units.is_some(),
        }
    }
}

/// How logits become probabilities and decisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The expression's logits are divided by it before the softmax. It moves no argmax.
    pub temperature: f64,
    /// An action unit is taken for active where its logit is above.
    pub thresholds: [f64; UNITS],
}

impl Decision {
    /// Which action units are taken for active.
    pub fn units(&self, logits: &[f64; UNITS]) -> Units {
        let active = logits.iter().zip(&self.thresholds).enumerate();
        let active = active.filter(|(_, (logit, threshold))| logit > threshold);
        Units {
            annotated: (1 << UNITS) - 1,
            active: active.fold(0, |bits, (unit, _)| bits | 1 << unit),
        }
    }
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            thresholds: [0.0; UNITS],
        }
    }
}
