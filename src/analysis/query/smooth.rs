//! Smoothing over time, within a stretch of frames that follow one another.

use affectmill_base::median;
use std::fmt;
use std::str::FromStr;

/// A centred window over presentation time, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smooth {
    /// Mean of the values weighted by exp(−t² ÷ 2σ²), t the distance in time, up to 4 σ.
    Gaussian {
        /// Standard deviation σ.
        sigma: i64,
    },
    /// Median of the values within half the width to either side; of an even number, the mean of the middle two.
    Median {
        /// Width of the window.
        width: i64,
    },
}

impl Smooth {
    /// The smoothed values of a stretch; `times` ascend.
    pub fn apply(self, times: &[i64], values: &[f32]) -> Vec<f32> {
        let reach = match self {
            Smooth::Gaussian { sigma } => sigma * 4,
            Smooth::Median { width } => width / 2,
        };
        let (mut from, mut to) = (0, 0);
        let smoothed = times.iter().map(|&time| {
            while times[from] < time.saturating_sub(reach) {
                from += 1;
            }
            while to < times.len() && times[to] <= time.saturating_add(reach) {
                to += 1;
            }
            match self {
                Smooth::Gaussian { sigma } => {
                    gaussian(time, sigma as f64, &times[from..to], &values[from..to])
                }
                Smooth::Median { .. } => {
                    let near = values[from..to].iter().copied().map(f64::from);
                    // Its own value is among them.
                    median(near).unwrap_or_default() as f32
                }
            }
        });
        smoothed.collect()
    }
}

fn gaussian(at: i64, sigma: f64, times: &[i64], values: &[f32]) -> f32 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (time, value) in times.iter().zip(values) {
        let distance = (time - at) as f64 / sigma;
        let weight = (-0.5 * distance * distance).exp();
        sum += weight * f64::from(*value);
        weights += weight;
    }
    (sum / weights) as f32
}

impl FromStr for Smooth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = "write gaussian:0.2s (the standard deviation) or median:0.2s (the width of the window), above 0 s and up to an hour";
        let (kind, time) = text.split_once(':').ok_or(how)?;
        let seconds: f64 = time.trim_end_matches('s').parse().map_err(|_| how)?;
        if !(1e-6..=3600.0).contains(&seconds) {
            return Err(how.into());
        }
        let micros = (seconds * 1e6).round() as i64;
        match kind {
            "gaussian" => Ok(Smooth::Gaussian { sigma: micros }),
            "median" => Ok(Smooth::Median { width: micros }),
            _ => Err(how.into()),
        }
    }
}

impl fmt::Display for Smooth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Smooth::Gaussian { sigma } => write!(f, "gaussian:{}s", super::seconds(*sigma)),
            Smooth::Median { width } => write!(f, "median:{}s", super::seconds(*width)),
        }
    }
}
