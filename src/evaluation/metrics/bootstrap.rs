//! How far a figure moves with the choice of videos: the percentile bootstrap (Efron 1979) over whole videos, since frames
//! of one video say the same again.

use super::{Profile, Tally};
use affectmill_base::Task;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

/// The middle 95 % of a figure's resampled values; none where fewer than two videos, or no resample, have the figure.
pub type Interval = Option<[f64; 2]>;

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// Resamples; 0 gives no interval.
    pub samples: usize,
    /// Seed of ChaCha8: the same seed gives the same intervals.
    pub seed: u64,
}

impl Bootstrap {
    /// An interval for each figure of [`Tally::figures`] over all `videos`.
    ///
    /// Each resample draws as many videos as there are, with replacement: the n-th draw is `(w·videos) >> 32` of the n-th
    /// 32-bit word `w` of ChaCha8 under a key of the seed (little-endian) and zeros. Quantiles 0.025 and 0.975 are interpolated linearly, as NumPy's are.
    pub fn intervals(&self, videos: &[Tally], profile: Profile, tasks: &[Task]) -> Vec<Interval> {
        let mut having = vec![0; Tally::default().figures(profile, tasks).len()];
        for video in videos {
            for (having, figure) in having.iter_mut().zip(video.figures(profile, tasks)) {
                *having += usize::from(figure.count > 0);
            }
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut dice = ChaCha8Rng::from_seed(key);
        let mut resampled = vec![Vec::with_capacity(self.samples); having.len()];
        for _ in 0..self.samples {
            let mut tally = Tally::default();
            for _ in videos {
                let draw = (u64::from(dice.next_u32()) * videos.len() as u64) >> 32;
                tally.merge(&videos[draw as usize]);
            }
            for (values, figure) in resampled.iter_mut().zip(tally.figures(profile, tasks)) {
                values.extend(figure.value);
            }
        }
        let intervals = resampled.into_iter().map(middle).zip(having);
        intervals
            .map(|(interval, having)| interval.filter(|_| having > 1))
            .collect()
    }
}

fn middle(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (values.len() - 1) as f64;
        let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
        low + (high - low) * at.fract()
    };
    (!values.is_empty()).then(|| [quantile(0.025), quantile(0.975)])
}
