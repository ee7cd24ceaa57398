//! The paper's losses: MSE for valence and arousal, cross-entropy for expressions, binary cross-entropy for action units; their
//! unweighted sum.
//!
//! Flows in: outputs `[N, outputs]` and the labels of the N faces. Flows out: one number with its graph. Of each task the
//! mean is taken over the faces that have a label of it; the others count nothing. A face with both a person's and a
//! teacher's label has the mean of both losses, weighted by `human_weight` and `1 − human_weight`.
//!
//! Soft labels (Hinton, Vinyals, Dean, *Distilling the knowledge in a neural network*, arXiv 1503.02531): of expressions the
//! Kullback–Leibler divergence of the softmaxes at temperature T, times T² so that gradients do not shrink with T; of action
//! units the binary cross-entropy against the teacher's probabilities; of valence and arousal the MSE.

use super::labels::{HARD_AU_LOGIT, HARD_VA_LIMIT, Labels};
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, ModelKind, Task, argmax};
use affectmill_spec::{Distill, Targets};
use tch::{Kind, TchError, Tensor};

/// How labels become a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    kind: ModelKind,
    distill: Distill,
}

/// Faces of a batch that have a label, for each of the kind's tasks.
pub type Counts = Vec<usize>;

/// The loss of a batch, or of a part of one.
pub struct Loss {
    /// The sum over the tasks; gradients flow from here.
    pub total: Tensor,
    /// Each task's part, in the order of the kind's tasks.
    pub parts: Vec<Tensor>,
}

impl Objective {
    /// The losses of a kind's tasks.
    pub fn new(kind: ModelKind, distill: Distill) -> Self {
        Self { kind, distill }
    }

    /// The faces that have a label, task by task.
    pub fn counts<'a>(&self, labels: impl Iterator<Item = &'a Labels> + Clone) -> Counts {
        let tasks = self.kind.tasks().iter();
        tasks
            .map(|&task| labels.clone().filter(|labels| labels.any(task)).count())
            .collect()
    }

    /// The loss of `outputs`. `counts` are those of the whole batch, of which these may be a part: the losses of the parts add
    /// up to the batch's.
    ///
    /// # Errors
    /// libtorch's.
    pub fn loss(&self, outputs: &Tensor, labels: &[Labels], counts: &Counts) -> Result<Loss, TchError> {
        let (mut parts, mut at) = (Vec::new(), 0);
        for (&task, &count) in self.kind.tasks().iter().zip(counts) {
            let width = task.outputs().len() as i64;
            let outputs = outputs.f_narrow(1, at, width)?;
            at += width;
            let share = |(human, teacher)| match (human, teacher) {
                (true, true) => (self.distill.human_weight, 1.0 - self.distill.human_weight),
                (true, false) => (1.0, 0.0),
                (false, true) => (0.0, 1.0),
                (false, false) => (0.0, 0.0),
            };
            let shares = labels.iter().map(|labels| share(labels.has(task)));
            let (human, teacher): (Vec<f64>, Vec<f64>) = shares.unzip();
            let weighed = |weights: &[f64], losses: Tensor| {
                let weights = placed(weights, &outputs)?.f_divide_scalar(count.max(1) as f64)?;
                losses.f_dot(&weights)
            };
            let by_human = weighed(&human, by_people(task, &outputs, labels)?)?;
            let by_teacher = weighed(&teacher, self.by_teacher(task, &outputs, labels)?)?;
            parts.push(by_human.f_add(&by_teacher)?);
        }
        let total = Tensor::f_stack(&parts, 0)?.f_sum(outputs.kind())?;
        Ok(Loss { total, parts })
    }

    /// The loss of each row against its teacher; anything where there is none.
    fn by_teacher(&self, task: Task, outputs: &Tensor, labels: &[Labels]) -> Result<Tensor, TchError> {
        let teachers = labels.iter().map(|labels| &labels.teacher);
        let soft = self.distill.targets == Targets::Soft;
        match task {
            Task::Va => {
                let limit = if soft { f32::INFINITY } else { HARD_VA_LIMIT };
                let clipped = |va: [f32; 2]| va.map(|value| value.clamp(-limit, limit));
                let rows = teachers.map(|teacher| teacher.va.map(clipped));
                squares(outputs, &table(rows, outputs)?)
            }
            Task::Au => {
                let logits = teachers.map(|teacher| teacher.au);
                let target = if soft {
                    table(logits, outputs)?.f_sigmoid()?
                } else {
                    let hard = |logits: [f32; ACTION_UNITS.len()]| {
                        logits.map(|logit| f32::from(u8::from(logit > HARD_AU_LOGIT)))
                    };
                    table(logits.map(|logits| logits.map(hard)), outputs)?
                };
                binary(outputs, &target)
            }
            Task::Expr if soft => {
                let temperature = self.distill.temperature;
                let logits = table(teachers.map(|teacher| teacher.expr), outputs)?;
                let p = logits.f_divide_scalar(temperature)?.f_log_softmax(1, None)?;
                let q = outputs.f_divide_scalar(temperature)?.f_log_softmax(1, None)?;
                let divergence = p.f_exp()?.f_mul(&p.f_sub(&q)?)?;
                let divergence = divergence.f_sum_dim_intlist([1_i64].as_slice(), false, None)?;
                divergence.f_mul_scalar(temperature * temperature)
            }
            Task::Expr => {
                let hard = teachers.map(|teacher| teacher.expr.map(|logits| one_hot(argmax(&logits))));
                entropy(outputs, &table(hard, outputs)?)
            }
        }
    }
}

/// The loss of each row against what people said; anything where they said nothing.
fn by_people(task: Task, outputs: &Tensor, labels: &[Labels]) -> Result<Tensor, TchError> {
    let people = labels.iter().map(|labels| &labels.human);
    match task {
        Task::Va => squares(outputs, &table(people.map(|human| human.va), outputs)?),
        Task::Au => {
            let active = |units: [bool; ACTION_UNITS.len()]| units.map(|unit| f32::from(u8::from(unit)));
            binary(
                outputs,
                &table(people.map(|human| human.au.map(active)), outputs)?,
            )
        }
        Task::Expr => {
            let class = people.map(|human| human.expr.map(|class| one_hot(usize::from(class))));
            entropy(outputs, &table(class, outputs)?)
        }
    }
}

fn one_hot(class: usize) -> [f32; EXPRESSIONS.len()] {
    std::array::from_fn(|index| if index == class { 1.0 } else { 0.0 })
}

/// The mean square of each row.
fn squares(outputs: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
    let error = outputs.f_sub(target)?;
    error.f_mul(&error)?.f_mean_dim([1_i64].as_slice(), false, None)
}

/// The mean binary cross-entropy of each row.
fn binary(outputs: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
    let none = None::<&Tensor>;
    let each = outputs.f_binary_cross_entropy_with_logits(target, none, none, tch::Reduction::None)?;
    each.f_mean_dim([1_i64].as_slice(), false, None)
}

/// The cross-entropy of each row.
fn entropy(outputs: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
    let each = outputs.f_log_softmax(1, None)?.f_mul(target)?;
    each.f_sum_dim_intlist([1_i64].as_slice(), false, None)?.f_neg()
}

/// Rows of labels `[N, W]` beside outputs; zeros where there are none, for which the row's weight is zero too.
fn table<const W: usize>(
    rows: impl Iterator<Item = Option<[f32; W]>>,
    outputs: &Tensor,
) -> Result<Tensor, TchError> {
    let flat: Vec<f32> = rows.flat_map(|row| row.unwrap_or([0.0; W])).collect();
    placed(&flat, outputs)?.f_view([-1, W as i64])
}

fn placed<T: tch::kind::Element>(values: &[T], outputs: &Tensor) -> Result<Tensor, TchError> {
    let kind: Kind = outputs.f_kind()?;
    Tensor::f_from_slice(values)?
        .f_to_device(outputs.device())?
        .f_to_kind(kind)
}
