//! Times that go on where a recording's clock steps back, as where two recordings were joined.

/// The clock of one stream that is written, in its ticks.
#[derive(Default)]
pub(super) struct Onward {
    /// What is added to the source's times.
    shift: i64,
    last: Option<i64>,
    /// When what was written last ends.
    end: i64,
}

impl Onward {
    /// The time to write for something that lasts so long: the source's while that goes on, and after a step back as long
    /// after the step as the source says. What comes a little too early, by `disorder` at most, is moved to just behind what
    /// came before.
    pub(super) fn at(&mut self, time: i64, lasts: i64, disorder: i64) -> i64 {
        let mut at = time.saturating_add(self.shift);
        if let Some(last) = self.last
            && at <= last
        {
            let onward = if last - at > disorder {
                self.end.max(last + 1)
            } else {
                last + 1
            };
            if last - at > disorder {
                self.shift += onward - at;
            }
            at = onward;
        }
        (self.last, self.end) = (Some(at), at.saturating_add(lasts));
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
        let written = joined.map(|time| clock.at(time, 40, 20));
        assert_eq!(written, [5, 45, 85, 125, 165, 205, 206, 245]);
    }
}
