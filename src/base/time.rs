//! Time and position inside a video.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Position of a frame in presentation order, counted from 0 over every decoded frame of the stream.
///
/// In a folder of numbered images it is the number in the file name minus the folder's first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameIndex(pub u64);

impl fmt::Display for FrameIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time in microseconds; for frames, after the container's start time, as players count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// Length of one tick of a stream's timestamps: `num / den` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBase {
    /// Numerator in seconds.
    pub num: i32,
    /// Denominator; never zero.
    pub den: i32,
}

impl TimeBase {
    /// `ticks` of this time base in microseconds, rounded as ffprobe prints seconds: the product in double
    /// precision, then six decimals. A time midway between two microseconds thus falls where ffprobe's does. `None`
    /// when the result does not fit 64 bits or the base is unusable.
    pub fn micros(self, ticks: i64) -> Option<Micros> {
        if self.den <= 0 || self.num <= 0 {
            return None;
        }
        let seconds = ticks as f64 * (f64::from(self.num) / f64::from(self.den));
        format!("{seconds:.6}").replace('.', "").parse().ok().map(Micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_the_nearest_microsecond() {
        let at = |num, den, ticks| TimeBase { num, den }.micros(ticks).map(|t| t.0);
        assert_eq!(at(1, 90_000, 3003), Some(33_367)); // 33 366.67
        assert_eq!(at(1, 90_000, -3003), Some(-33_367));
        assert_eq!(at(1, 12_800, 512), Some(40_000));
        assert_eq!(at(1001, 30_000, 1), Some(33_367));
        assert_eq!(at(1, 15_360, 60_600), Some(3_945_312)); // 3 945 312.5: ffprobe prints 3.945312
        assert_eq!(at(1, 90_000, -9), Some(-100));
        assert_eq!(at(1, 3, 1), Some(333_333));
        assert_eq!(at(1, 1, i64::MAX), None);
        assert_eq!(at(0, 1, 5), None);
        assert_eq!(at(1, 0, 5), None);
    }
}
