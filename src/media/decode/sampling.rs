//! Selects the frames that get rows. Pure: it uses indices and times, never a picture.

use affectmill_base::{FrameIndex, Micros};
use affectmill_spec::{Sampling, SamplingMode};

/// Microseconds by which frames may be out of order on one clock.
const DISORDER: i64 = 200_000;

/// Decides frame by frame; one for each video, shown every decoded frame in order.
#[derive(Clone, Debug)]
pub struct Sampler(Rule);

#[derive(Clone, Debug)]
enum Rule {
    Every,
    Stride(u64),
    Fps {
        rate: Rate,
        /// Multiple of 1/fps that the last frame kept stands for.
        last: Option<i128>,
        /// Latest time since the clock last stepped back, in microseconds.
        latest: Option<i64>,
    },
    Keyframes,
}

impl Sampler {
    /// A sampler for one video. `sampling` must be validated: a missing or zero `stride` counts as 1, a
    /// missing `fps` as every frame.
    pub fn new(sampling: &Sampling) -> Self {
        Self(match (sampling.mode, sampling.fps) {
            (SamplingMode::Stride, _) => Rule::Stride(sampling.stride.unwrap_or(1).max(1)),
            (SamplingMode::Fps, Some(fps)) => Rule::Fps {
                rate: Rate::new(fps),
                last: None,
                latest: None,
            },
            (SamplingMode::Keyframes, _) => Rule::Keyframes,
            (SamplingMode::Every | SamplingMode::Fps, _) => Rule::Every,
        })
    }

    /// Whether the frame gets a row.
    ///
    /// * `every`: always.
    /// * `stride`: frames 0, stride, 2·stride, …
    /// * `fps`: the first frame at or after each multiple of 1/fps seconds, the multiple rounded to the
    ///   microsecond as timestamps are, so that a rate equal to the video's own keeps every frame. A frame without a
    ///   timestamp is not kept. When time jumps back, as where two recordings were joined, it starts again and keeps the first
    ///   frame; frames that are only slightly out of order ([`DISORDER`], or 1/fps when that is less) do not count as a jump.
    /// * `keyframes`: those the decoder marks as such.
    pub fn keep(&mut self, index: FrameIndex, timestamp: Option<Micros>, key: bool) -> bool {
        match &mut self.0 {
            Rule::Every => true,
            Rule::Stride(stride) => index.0.is_multiple_of(*stride),
            Rule::Keyframes => key,
            Rule::Fps { rate, last, latest } => {
                let Some(Micros(time)) = timestamp else {
                    return false;
                };
                let disorder = rate.period().min(DISORDER);
                if latest.is_some_and(|latest| time < latest.saturating_sub(disorder)) {
                    (*last, *latest) = (None, None);
                }
                *latest = (*latest).max(Some(time));
                let tick = rate.last_tick(time);
                let keep = last.is_none_or(|last| tick > last);
                if keep {
                    *last = Some(tick);
                }
                keep
            }
        }
    }
}

/// A rate in ticks a second as the exact fraction `num / den` that a float is.
#[derive(Clone, Copy, Debug)]
struct Rate {
    num: i128,
    den: i128,
}

impl Rate {
    /// Converts the float exactly; beyond 2^±60 ticks a second the fraction saturates, which no video reaches.
    fn new(fps: f64) -> Self {
        const LIMIT: f64 = (1u64 << 60) as f64;
        let (mut num, mut den) = (fps.clamp(0.0, LIMIT), 1u64);
        while num.fract() != 0.0 && den < 1 << 60 {
            num *= 2.0; // exact: only the exponent changes
            den *= 2;
        }
        Self {
            num: num as i128,
            den: den.into(),
        }
    }

    /// Microseconds from one tick to the next.
    fn period(self) -> i64 {
        let period = (1_000_000 * self.den).checked_div(self.num);
        period
            .and_then(|period| period.try_into().ok())
            .unwrap_or(i64::MAX)
    }

    /// The largest k whose time, k / rate rounded to the microsecond (halves up), is not after `time`:
    /// k·10⁶·den/num < time + ½.
    fn last_tick(self, time: i64) -> i128 {
        let numerator = (2 * i128::from(time) + 1) * self.num;
        let denominator = 2_000_000 * self.den;
        -(-numerator).div_euclid(denominator) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sampling: Sampling, frames: impl Iterator<Item = (Option<i64>, bool)>) -> Vec<u64> {
        let mut sampler = Sampler::new(&sampling);
        let kept = (0..)
            .zip(frames)
            .filter(|&(index, (time, key))| sampler.keep(FrameIndex(index), time.map(Micros), key));
        kept.map(|(index, _)| index).collect()
    }

    fn fps(fps: f64) -> Sampling {
        Sampling {
            mode: SamplingMode::Fps,
            stride: None,
            fps: Some(fps),
        }
    }

    /// Frame times of a constant rate, rounded to the microsecond.
    fn times(num: i64, den: i64, count: i64) -> impl Iterator<Item = (Option<i64>, bool)> {
        (0..count).map(move |k| (Some((2 * k * 1_000_000 * den + num).div_euclid(2 * num)), false))
    }

    #[test]
    fn every_and_stride_count_frames() {
        assert_eq!(kept(Sampling::default(), times(25, 1, 4)), [0, 1, 2, 3]);
        let stride = Sampling {
            mode: SamplingMode::Stride,
            stride: Some(5),
            fps: None,
        };
        assert_eq!(kept(stride, times(25, 1, 16)), [0, 5, 10, 15]);
    }

    #[test]
    fn keyframes_follow_the_flag() {
        let keys = Sampling {
            mode: SamplingMode::Keyframes,
            stride: None,
            fps: None,
        };
        assert_eq!(kept(keys, (0..9).map(|k| (None, k % 4 == 0))), [0, 4, 8]);
    }

    #[test]
    fn a_rate_that_divides_the_videos_is_a_stride() {
        assert_eq!(kept(fps(5.0), times(25, 1, 26)), [0, 5, 10, 15, 20, 25]);
        assert_eq!(kept(fps(10.0), times(30, 1, 13)), [0, 3, 6, 9, 12]);
        assert_eq!(kept(fps(0.5), times(25, 1, 101)), [0, 50, 100]);
    }

    #[test]
    fn the_videos_own_rate_or_more_keeps_all() {
        let all: Vec<u64> = (0..3000).collect();
        assert_eq!(kept(fps(30.0), times(30, 1, 3000)), all);
        assert_eq!(kept(fps(24.0), times(24, 1, 3000)), all);
        assert_eq!(kept(fps(30_000.0 / 1001.0), times(30_000, 1001, 3000)), all);
        assert_eq!(kept(fps(1e9), times(30, 1, 3000)), all);
    }

    #[test]
    fn two_a_second_of_25_takes_the_first_at_or_after_each_half() {
        // Multiples of 0.5 s lie at frames 0, 12.5, 25, 37.5, 50.
        assert_eq!(kept(fps(2.0), times(25, 1, 51)), [0, 13, 25, 38, 50]);
    }

    #[test]
    fn where_time_steps_back_it_begins_anew() {
        // Ten seconds twice, then from the middle on: 0, 12.5, … of the first 250 frames are multiples of half a second.
        let once: Vec<_> = times(25, 1, 250).collect();
        let joined = once.iter().chain(&once).chain(&once[100..]).copied();
        let first: Vec<u64> = (0..20).map(|k| (25 * k as u64).div_ceil(2)).collect();
        let wanted = [0, 250]
            .iter()
            .flat_map(|start| first.iter().map(move |k| start + k));
        let third = first.iter().filter(|k| **k >= 100).map(|k| 500 + k - 100);
        assert_eq!(
            kept(fps(2.0), joined.clone()),
            wanted.chain(third).collect::<Vec<_>>()
        );
        let slow = kept(fps(0.01), joined);
        assert_eq!(slow, [0, 250, 500]);
        // Pictures in the order in which they are decoded are no step back: 0, 3, 1, 2, 6, 4, 5, …
        let shuffled = (0..250)
            .map(|k| [k, k + 2, k - 1][k as usize % 3])
            .map(|k| once[k.min(249) as usize]);
        assert_eq!(kept(fps(1.0), shuffled).len(), 10);
        // At the video's own rate each frame out of order has a multiple of its own.
        let back = [0, 1, 2, 3, 1, 2, 3, 4].map(|k| once[k]);
        assert_eq!(kept(fps(25.0), back.into_iter()), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn gaps_negative_and_missing_times() {
        let frames = [
            Some(-100_000),
            None,
            Some(0),
            Some(10_000),
            Some(2_700_000),
            Some(2_900_000),
            Some(3_000_000),
        ];
        // The gap from 0.01 s to 2.7 s swallows 1 s and 2 s: one frame stands for both.
        assert_eq!(
            kept(fps(1.0), frames.into_iter().map(|t| (t, false))),
            [0, 2, 4, 6]
        );
        assert_eq!(kept(fps(1e-30), times(25, 1, 500)), [0]);
        assert_eq!(
            kept(
                fps(3.0),
                [Some(i64::MIN), Some(i64::MAX)].into_iter().map(|t| (t, false))
            ),
            [0, 1]
        );
    }
}
