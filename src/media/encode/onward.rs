//! Times that go on where a recording's clock steps back or far ahead, as where two recordings were joined.

/// The clock of one stream that is written, in its ticks.
#[derive(Default)]
pub(super) struct Onward {
    /// What is added to the source's times.
    shift: i64,
    last: Option<i64>,
    /// From one to the next before it.
    step: Option<i64>,
}

impl Onward {
    /// The time to write for what comes next: the source's while that goes on. After a step back it comes as long after what was
    /// written last as that came after the one before, or as it `lasts`, and all that follows likewise; so it does after a step
    /// ahead of more than `far`. What comes a little too early, by `disorder` at most, is moved to just behind what came before.
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
