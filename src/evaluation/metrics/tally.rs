//! Sums over faces, and the figures that the challenges make of them.

use super::{
    Binary, CLASSES, Confusion, Decision, Moments, OTHER, Prediction, Reliability, Truth, UNITS, log_sum_exp,
    softmax, softplus,
};
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task, VALENCE_AROUSAL, argmax};
use serde::Serialize;

/// Bound of predicted valence and arousal.
const CLIP: f64 = 0.99;
/// Added to the concordance's denominator, so that constants have one.
const EPSILON: f64 = 1e-5;

/// Whose formulas the scores follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The 2nd ABAW competition (2021), 7 expressions: VA is the mean of the two concordances; EXPR is 0.67·macro-F1 +
    /// 0.33·accuracy, the mean taken over the classes that are true or said of some face; AU is half the mean F1 plus half the
    /// accuracy over all units of all faces.
    #[default]
    Abaw2,
    /// Multi-task challenges of later editions, 8 expressions: the same VA; EXPR is macro-F1 over all 8; AU is the mean
    /// F1; the total is their sum.
    AbawMtl,
}

impl Profile {
    /// True classes that count.
    fn classes(self) -> usize {
        match self {
            Self::Abaw2 => CLASSES,
            Self::AbawMtl => CLASSES + 1,
        }
    }
}

/// One number about a set of faces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its task; `None` of a total.
    pub task: Option<Task>,
    /// What it is: `ccc`, `f1`, `macro_f1`, `mean_f1`, `accuracy`, `score`, `ece`, `nll`, `total`.
    pub name: &'static str,
    /// Of which output or class, where it is of one.
    pub of: Option<&'static str>,
    /// The number; `None` where it is not defined.
    pub value: Option<f64>,
    /// Faces it rests on; of an accuracy, calibration error or likelihood of action units, faces times units.
    pub count: u64,
}

/// Everything that the figures need, as sums over faces.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    va: [Moments; 2],
    expression: Confusion,
    expression_reliability: Reliability,
    units: [Binary; UNITS],
    units_reliability: Reliability,
}

impl Tally {
    /// Takes one face: each task that is both annotated and predicted.
    pub fn add(&mut self, truth: &Truth, prediction: &Prediction, decision: &Decision) {
        if let (Some(truth), Some(said)) = (truth.va, prediction.va) {
            for (n, moments) in self.va.iter_mut().enumerate() {
                moments.add(said[n].clamp(-CLIP, CLIP), truth[n]);
            }
        }
        if let (Some(class), Some(logits)) = (truth.expression, prediction.expression) {
            self.add_expression(class, &logits, decision.temperature);
        }
        if let (Some(truth), Some(logits)) = (truth.units, prediction.units) {
            for (unit, logit) in logits.into_iter().enumerate() {
                if let Some(active) = truth.get(unit) {
                    self.units[unit].add(active, logit > decision.thresholds[unit]);
                    let nll = softplus(if active { -logit } else { logit });
                    self.units_reliability.add((-softplus(-logit)).exp(), active, nll);
                }
            }
        }
    }

    fn add_expression(&mut self, class: u8, logits: &[f64; CLASSES], temperature: f64) {
        let said = argmax(logits);
        self.expression.add(class, said);
        // A class that the model does not have is beyond what its probabilities speak of.
        if class != OTHER {
            let logits = logits.map(|logit| logit / temperature);
            let nll = log_sum_exp(&logits) - logits[usize::from(class)];
            let right = said == usize::from(class);
            self.expression_reliability
                .add(softmax(&logits)[said], right, nll);
        }
    }

    /// Takes all the faces of another.
    pub fn merge(&mut self, other: &Self) {
        for (moments, other) in self.va.iter_mut().zip(&other.va) {
            moments.merge(other);
        }
        self.expression.merge(&other.expression);
        self.expression_reliability.merge(&other.expression_reliability);
        for (unit, other) in self.units.iter_mut().zip(&other.units) {
            unit.merge(other);
        }
        self.units_reliability.merge(&other.units_reliability);
    }

    /// Faces whose expression is none of those that a model has.
    pub fn others(&self) -> u64 {
        self.expression.of_class(OTHER)
    }

    /// The figures of some tasks under a profile: the same names in the same order for every tally.
    pub fn figures(&self, profile: Profile, tasks: &[Task]) -> Vec<Figure> {
        let mut figures = Vec::new();
        for task in tasks {
            match task {
                Task::Va => self.va_figures(&mut figures),
                Task::Expr => self.expression_figures(profile, &mut figures),
                Task::Au => self.unit_figures(profile, &mut figures),
            }
        }
        if profile == Profile::AbawMtl && tasks.len() == Task::ALL.len() {
            let scores = || figures.iter().filter(|figure| figure.name == "score");
            figures.push(Figure {
                task: None,
                name: "total",
                of: None,
                value: scores().map(|figure| figure.value).sum(),
                count: scores().map(|figure| figure.count).min().unwrap_or(0),
            });
        }
        figures
    }

    fn va_figures(&self, figures: &mut Vec<Figure>) {
        let figure = figure(Task::Va, self.va[0].count());
        let cccs = self.va.map(|moments| moments.ccc(EPSILON));
        for (of, ccc) in VALENCE_AROUSAL.iter().zip(cccs) {
            figures.push(figure("ccc", Some(of), ccc));
        }
        figures.push(figure("score", None, mean(cccs.into_iter())));
    }

    fn expression_figures(&self, profile: Profile, figures: &mut Vec<Figure>) {
        let classes = profile.classes();
        let count = self.expression.count(classes);
        let figure = figure(Task::Expr, count);
        let f1s: Vec<Option<f64>> = (0..classes)
            .map(|class| self.expression.f1(class, classes))
            .collect();
        let names = EXPRESSIONS.iter().chain(&["Other"]);
        for (of, f1) in names.zip(&f1s) {
            figures.push(figure("f1", Some(of), *f1));
        }
        let macro_f1 = match profile {
            Profile::Abaw2 => mean(f1s.into_iter().filter(Option::is_some)),
            Profile::AbawMtl => mean(f1s.into_iter().map(|f1| Some(f1.unwrap_or(0.0)))).filter(|_| count > 0),
        };
        let accuracy = self.expression.accuracy(classes);
        figures.push(figure("macro_f1", None, macro_f1));
        figures.push(figure("accuracy", None, accuracy));
        let score = match profile {
            Profile::Abaw2 => macro_f1.zip(accuracy).map(|(f1, acc)| 0.67 * f1 + 0.33 * acc),
            Profile::AbawMtl => macro_f1,
        };
        figures.push(figure("score", None, score));
        reliability_figures(Task::Expr, &self.expression_reliability, figures);
    }

    fn unit_figures(&self, profile: Profile, figures: &mut Vec<Figure>) {
        for (of, unit) in ACTION_UNITS.iter().zip(&self.units) {
            figures.push(figure(Task::Au, unit.count())("f1", Some(of), unit.f1()));
        }
        let faces = self.units.iter().map(Binary::count).max().unwrap_or(0);
        let cells: u64 = self.units.iter().map(Binary::count).sum();
        let right: u64 = self.units.iter().map(Binary::right).sum();
        // A unit that is annotated and never active nor said to be counts 0, as the challenges' scripts have it.
        let annotated = self.units.iter().filter(|unit| unit.count() > 0);
        let mean_f1 = mean(annotated.map(|unit| Some(unit.f1().unwrap_or(0.0))));
        let accuracy = (cells > 0).then(|| right as f64 / cells as f64);
        let score = match profile {
            Profile::Abaw2 => mean(mean_f1.into_iter().chain(accuracy).map(Some)),
            Profile::AbawMtl => mean_f1,
        };
        figures.push(figure(Task::Au, faces)("mean_f1", None, mean_f1));
        figures.push(figure(Task::Au, cells)("accuracy", None, accuracy));
        figures.push(figure(Task::Au, faces)("score", None, score));
        reliability_figures(Task::Au, &self.units_reliability, figures);
    }
}

fn figure(task: Task, count: u64) -> impl Fn(&'static str, Option<&'static str>, Option<f64>) -> Figure {
    move |name, of, value| Figure {
        task: Some(task),
        name,
        of,
        value,
        count,
    }
}

fn reliability_figures(task: Task, reliability: &Reliability, figures: &mut Vec<Figure>) {
    let figure = figure(task, reliability.count());
    figures.push(figure("ece", None, reliability.ece()));
    figures.push(figure("nll", None, reliability.nll()));
}

/// The mean; `None` where a value is missing, or there is none.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
