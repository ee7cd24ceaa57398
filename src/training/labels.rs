//! What is known of one face: by people, and by teachers.

use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task, VALENCE_AROUSAL, argmax};
use affectmill_evaluation::metrics::{Truth, Units};
use affectmill_spec::TrainJob;
use serde_json::{Map, Value};

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

impl Teacher {
    /// What a job's teachers said, out of the JSON beside a crop.
    ///
    /// # Errors
    /// One of them said nothing there.
    pub fn read(text: &Map<String, Value>, job: &TrainJob) -> Result<Self, String> {
        let mut said = Self::default();
        for &task in job.kind().tasks() {
            let Some(model) = job.teacher(task) else { continue };
            match task {
                Task::Va => said.va = outputs(text, model, "", VALENCE_AROUSAL, |_| f64::NAN)?,
                Task::Expr => said.expr = outputs(text, model, "expr_", EXPRESSIONS, f64::ln)?,
                Task::Au => said.au = outputs(text, model, "", ACTION_UNITS, |p| (p / (1.0 - p)).ln())?,
            }
        }
        Ok(said)
    }
}

/// A head's outputs: logits, or where only probabilities were kept, `logit` of them. `None` where the teacher gave no finite
/// numbers for the face.
fn outputs<const N: usize>(
    text: &Map<String, Value>,
    model: &str,
    prefix: &str,
    names: [&str; N],
    logit: impl Fn(f64) -> f64,
) -> Result<Option<[f32; N]>, String> {
    // A probability that was rounded to 0 or 1 has no finite logit.
    const TINY: f64 = 1e-7;
    let mut outputs = [0.0; N];
    for (output, name) in outputs.iter_mut().zip(names) {
        let key = format!("{model}_{prefix}{name}");
        let number = |key: &str| text.get(key).and_then(Value::as_f64);
        if [&key, &format!("{key}_p")]
            .iter()
            .any(|key| text.get(*key) == Some(&Value::Null))
        {
            return Ok(None);
        }
        let probability = || number(&format!("{key}_p")).map(|p| logit(p.clamp(TINY, 1.0 - TINY)));
        let value = number(&key)
            .or_else(probability)
            .filter(|value| value.is_finite());
        *output = value.ok_or_else(|| {
            let known = text
                .keys()
                .filter_map(|key| key.strip_suffix("_expr_Neutral").or(key.strip_suffix("_valence")));
            let known: Vec<&str> = known.collect();
            format!(
                "has no number `{key}`; is `{model}` a model of that run? It has {}",
                known.join(", ")
            )
        })? as f32;
    }
    Ok(Some(outputs))
}

impl Human {
    /// Takes what another one says of tasks that this one says nothing of.
    pub fn add(&mut self, other: &Self) {
        self.va = self.va.or(other.va);
        self.expr = self.expr.or(other.expr);
        self.au = self.au.or(other.au);
    }
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
