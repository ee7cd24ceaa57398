//! The optimisers of the paper, equal to PyTorch's `SGD` and `Adam` step for step.
//!
//! Flows in: the trained weights and their gradients. Flows out: the same weights, changed in place, and the moments that the
//! next step needs.

use affectmill_spec::{Optimiser, OptimiserKind};
use std::collections::BTreeMap;
use tch::{TchError, Tensor};

/// Moments of a weight, by the names they have in a checkpoint.
const MOMENTUM: &str = "momentum";
const FIRST: &str = "first";
const SECOND: &str = "second";

/// An optimiser and what it remembers.
pub struct Optimise {
    settings: Optimiser,
    /// Steps that were made.
    steps: u64,
    moments: BTreeMap<String, Tensor>,
}

impl Optimise {
    /// One that goes on after so many steps, with the moments it had then; none at first.
    pub fn new(settings: Optimiser, steps: u64, moments: BTreeMap<String, Tensor>) -> Self {
        Self {
            settings,
            steps,
            moments,
        }
    }

    /// Steps that were made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments by name: which one, a dot, the weight's name.
    pub fn moments(&self) -> &BTreeMap<String, Tensor> {
        &self.moments
    }

    /// The weight that a moment's name ends in.
    pub fn weight_of(moment: &str) -> Option<&str> {
        let (which, weight) = moment.split_once('.')?;
        [MOMENTUM, FIRST, SECOND].contains(&which).then_some(weight)
    }

    /// Makes a step. `gradients` are in the order of the weights.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step(&mut self, weights: &BTreeMap<String, Tensor>, gradients: &[Tensor]) -> Result<(), TchError> {
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        for ((name, weight), gradient) in weights.iter().zip(gradients) {
            let mut weight = weight.shallow_clone();
            let decay = self.settings.weight_decay;
            let gradient = if decay == 0.0 {
                gradient.shallow_clone()
            } else {
                weight.f_mul_scalar(decay)?.f_add_(gradient)?
            };
            match self.settings.name {
                OptimiserKind::Sgd => self.sgd(name, &mut weight, gradient)?,
                OptimiserKind::Adam => self.adam(name, &mut weight, gradient)?,
            }
        }
        Ok(())
    }

    fn moment(&mut self, which: &str, name: &str, weight: &Tensor) -> Result<Tensor, TchError> {
        let key = format!("{which}.{name}");
        if let Some(moment) = self.moments.get(&key) {
            return Ok(moment.shallow_clone());
        }
        let moment = weight.f_zeros_like()?;
        self.moments.insert(key, moment.shallow_clone());
        Ok(moment)
    }

    /// `b ← μb + g; w ← w − ηb`.
    fn sgd(&mut self, name: &str, weight: &mut Tensor, gradient: Tensor) -> Result<(), TchError> {
        let Optimiser { lr, momentum, .. } = self.settings;
        let step = if momentum == 0.0 {
            gradient
        } else {
            let mut velocity = self.moment(MOMENTUM, name, weight)?;
            velocity.f_mul_scalar_(momentum)?.f_add_(&gradient)?
        };
        let _ = weight.f_sub_(&step.f_mul_scalar(lr)?)?;
        Ok(())
    }

    /// Kingma, Ba, *Adam: A method for stochastic optimization*, arXiv 1412.6980, algorithm 1.
    fn adam(&mut self, name: &str, weight: &mut Tensor, gradient: Tensor) -> Result<(), TchError> {
        const EPSILON: f64 = 1e-8;
        let Optimiser { lr, beta1, beta2, .. } = self.settings;
        let mut first = self.moment(FIRST, name, weight)?;
        let mut second = self.moment(SECOND, name, weight)?;
        let _ = first.f_lerp_(&gradient, 1.0 - beta1)?;
        let square = gradient.f_mul(&gradient)?.f_mul_scalar_(1.0 - beta2)?;
        let _ = second.f_mul_scalar_(beta2)?.f_add_(&square)?;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let mut root = second.f_sqrt()?.f_divide_scalar_(bias2.sqrt())?;
        let root = root.f_add_scalar_(EPSILON)?;
        let _ = weight.f_sub_(&first.f_divide(&root)?.f_mul_scalar_(lr / bias1)?)?;
        Ok(())
    }
}
