//! From a model's raw outputs to the numbers of its columns.

use super::{Row, RowError, is_finite, unfit};
use crate::schema::LabelSchema;
use affectmill_base::{Task, argmax};

/// The model columns of one row in the order of the schema, floats and classes apart.
#[derive(Default)]
pub(super) struct Numbers {
    /// Of every `float32` column.
    pub floats: Vec<Option<f32>>,
    /// Of every `expression` column: index of the class.
    pub classes: Vec<Option<i32>>,
}

impl Numbers {
    pub(super) fn clear(&mut self) {
        self.floats.clear();
        self.classes.clear();
    }

    /// Takes the raw outputs of every model: for each task its outputs, then, of an ensemble, their deviations. Of a model that
    /// gave NaN or an infinity nothing is taken.
    pub(super) fn fill(
        &mut self,
        schema: &LabelSchema,
        row: &Row<'_>,
        outputs: &[&[f32]],
    ) -> Result<(), RowError> {
        let models = schema.models();
        if outputs.len() != models.len() {
            return Err(unfit(
                row,
                format!("outputs of {} models, not {}", outputs.len(), models.len()),
            ));
        }
        for (model, outputs) in models.iter().zip(outputs) {
            let expected = model.output_count();
            if outputs.len() != expected {
                let (name, found) = (&model.name, outputs.len());
                return Err(unfit(
                    row,
                    format!("model `{name}` gave {found} outputs, not {expected}"),
                ));
            }
            let before = (self.floats.len(), self.classes.len());
            let mut rest = *outputs;
            for task in model.tasks() {
                let (head, after) = rest.split_at(task.outputs().len());
                rest = after;
                self.head(*task, head, schema);
                if model.is_ensemble() {
                    let (deviations, after) = rest.split_at(head.len());
                    rest = after;
                    self.floats.extend(deviations.iter().copied().map(Some));
                }
            }
            if !is_finite(outputs) {
                self.floats[before.0..].fill(None);
                self.classes[before.1..].fill(None);
            }
        }
        Ok(())
    }

    fn head(&mut self, task: Task, head: &[f32], schema: &LabelSchema) {
        if task == Task::Va || schema.has_logits() {
            self.floats.extend(head.iter().copied().map(Some));
        }
        match task {
            Task::Va => {}
            Task::Expr => {
                self.classes.push(Some(argmax(head) as i32));
                if schema.has_probabilities() {
                    softmax(head, &mut self.floats);
                }
            }
            Task::Au => {
                if schema.has_probabilities() {
                    self.floats.extend(head.iter().map(|&logit| Some(sigmoid(logit))));
                }
            }
        }
    }
}

/// Appends exp(xᵢ − max) ÷ Σ exp(xⱼ − max): the largest exponent is 0, so nothing overflows.
fn softmax(logits: &[f32], into: &mut Vec<Option<f32>>) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |logit: f32| (f64::from(logit) - f64::from(max)).exp();
    let sum: f64 = logits.iter().map(|&logit| exp(logit)).sum();
    into.extend(logits.iter().map(|&logit| Some((exp(logit) / sum) as f32)));
}

/// 1 ÷ (1 + exp(−x)); where exp overflows the quotient is 0, as it should be.
fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}
