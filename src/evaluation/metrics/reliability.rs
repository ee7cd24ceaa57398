//! Whether probabilities are to be believed: expected calibration error (Guo et al. 2017) and negative log-likelihood.

/// Bins of equal width over [0, 1], each closed above, as Guo et al. have them.
const BINS: usize = 15;

/// Probabilities and what came true.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reliability {
    bins: [Bin; BINS],
    nll: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    count: u64,
    probability: f64,
    came_true: u64,
}

impl Reliability {
    /// Takes the probability of something, whether it came true, and −log of the probability that was given to the truth.
    pub fn add(&mut self, probability: f64, came_true: bool, nll: f64) {
        let at = (probability * BINS as f64).ceil() as usize;
        let bin = &mut self.bins[at.clamp(1, BINS) - 1];
        bin.count += 1;
        bin.probability += probability;
        bin.came_true += u64::from(came_true);
        self.nll += nll;
    }

    /// Takes everything of another.
    pub fn merge(&mut self, other: &Self) {
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.count += other.count;
            bin.probability += other.probability;
            bin.came_true += other.came_true;
        }
        self.nll += other.nll;
    }

    /// Probabilities taken.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|bin| bin.count).sum()
    }

    /// Σ over bins of |mean probability − share that came true|, weighted by the share of the bin; `None` without any.
    pub fn ece(&self) -> Option<f64> {
        let apart = |bin: &Bin| (bin.probability - bin.came_true as f64).abs();
        let count = self.count();
        (count > 0).then(|| self.bins.iter().map(apart).sum::<f64>() / count as f64)
    }

    /// Mean negative log-likelihood; `None` without any.
    pub fn nll(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.nll / count as f64)
    }
}

/// `ln Σ exp(xᵢ)` without overflow.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest
        + values
            .iter()
            .map(|value| (value - largest).exp())
            .sum::<f64>()
            .ln()
}

/// Probabilities of logits.
pub fn softmax<const N: usize>(logits: &[f64; N]) -> [f64; N] {
    let sum = log_sum_exp(logits);
    logits.map(|logit| (logit - sum).exp())
}

/// `ln(1 + exp(x))` without overflow: −log of the probability of the opposite of a logit.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
