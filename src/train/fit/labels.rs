//! What is known of one face: by people, and by teachers.

use crate::domain::{ACTION_UNITS, EXPRESSIONS, Task};
use crate::train::metrics::{Truth, Units};

/// Labels of one face. A task may have both kinds, one, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Labels {
    /// What people said.
    pub human: Human,
    /// What models said.
    pub teacher: Teacher,
}

/// Labels that people gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Human {
    /// Valence and arousal, −1…1.
    pub va: Option<[f32; 2]>,
    /// Index among [`EXPRESSIONS`].
    pub expr: Option<u8>,
    /// Which action units are active.
    pub au: Option<[bool; ACTION_UNITS.len()]>,
}

/// Raw outputs of teachers: valence and arousal, logits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Teacher {
    /// Valence and arousal.
    pub va: Option<[f32; 2]>,
    /// Logits of the expressions at temperature 1.
    pub expr: Option<[f32; EXPRESSIONS.len()]>,
    /// Logits of the action units.
    pub au: Option<[f32; ACTION_UNITS.len()]>,
}

impl Labels {
    /// Whether people labelled a task, and whether a teacher did.
    pub fn has(&self, task: Task) -> (bool, bool) {
        let Self { human, teacher } = self;
        match task {
            Task::Va => (human.va.is_some(), teacher.va.is_some()),
            Task::Expr => (human.expr.is_some(), teacher.expr.is_some()),
            Task::Au => (human.au.is_some(), teacher.au.is_some()),
        }
    }

    /// Whether there is any label of a task.
    pub fn any(&self, task: Task) -> bool {
        let (human, teacher) = self.has(task);
        human || teacher
    }
}

/// Teacher labels made hard as the paper's released code does: an action unit is active where its logit, not its
/// probability, is above one half.
pub const HARD_AU_LOGIT: f32 = 0.5;

/// Valence and arousal of a teacher are clipped to this where its labels are made hard.
pub const HARD_VA_LIMIT: f32 = 0.99;

/// The index of the largest number; the first one of equals.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

impl From<&Truth> for Human {
    /// Expressions that no model here has count as none, and so do action units of which one is unknown.
    fn from(truth: &Truth) -> Self {
        let units = |units: Units| {
            let all: Option<Vec<bool>> = (0..ACTION_UNITS.len()).map(|unit| units.get(unit)).collect();
            all.and_then(|all| all.try_into().ok())
        };
        Self {
            va: truth.va.map(|va| va.map(|value| value as f32)),
            expr: truth
                .expression
                .filter(|class| usize::from(*class) < EXPRESSIONS.len()),
            au: truth.units.and_then(units),
        }
    }
}

impl Labels {
    /// What counts for true when the model is scored: people's label, else what the teacher's comes to.
    pub fn truth(&self) -> Truth {
        let Self { human, teacher } = self;
        let va = human.va.or(teacher.va);
        let class = teacher.expr.map(|logits| argmax(&logits) as u8);
        let active = teacher.au.map(|logits| logits.map(|logit| logit > 0.0));
        let units = human.au.or(active).map(|units| Units {
            annotated: (1 << units.len()) - 1,
            active: units
                .iter()
                .rev()
                .fold(0, |bits, unit| bits << 1 | u16::from(*unit)),
        });
        Truth {
            va: va.map(|va| va.map(f64::from)),
            expression: human.expr.or(class),
            units,
        }
    }
}
