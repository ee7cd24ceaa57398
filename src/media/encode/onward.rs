//! Continuous times for recordings whose clock jumps, back or far ahead, as where two recordings were joined.

/// The clock of one output stream, in its ticks.
#[derive(Default)]
pub(super) struct Onward {
    /// What is added to the source's times.
    shift: i64,
    last: Option<i64>,
    /// Interval between the last two times.
    step: Option<i64>,
}

impl Onward {
    /// The output time of the next item: the source's while its clock advances. After a jump back, or ahead by more than `far`, it
    /// follows the last one by the last interval, or by `lasts`, and later items are shifted by the same amount. An item that is
    /// early by at most `disorder` is moved to just after the last one.
    pub(super) fn at(&mut self, time: i64, lasts: i64, (disorder, far): (i64, i64)) -> i64 {
        let mut at = time.saturating_add(self.shift);
        if let Some(last) = self.last {
            if last - at > disorder || at - last > far {
                let onward = last + self.step.unwrap_or(lasts).max(1);
                self.shift += onward - at;
                at = onward;
            } else if at <= last {
                at = last + 1;
            } else {
                self.step = Some(at - last);
            }
        }
        self.last = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_recordings_follow_one_another() {
        let mut clock = Onward::default();
        let joined = [5, 45, 85, 5, 45, 85, 80, 125];
        let written = joined.map(|time| clock.at(time, 40, (20, 3_600_000)));
        assert_eq!(written, [5, 45, 85, 125, 165, 205, 206, 245]);
        let mut clock = Onward::default();
        let wrapped = [5, 45, 94_443_740, 94_443_780].map(|time| clock.at(time, 40, (20, 3_600_000)));
        assert_eq!(wrapped, [5, 45, 85, 125]);
    }
}
