//! When to try a failed operation again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

/// How often, and for how long, a failed operation is retried. Pauses double up to a longest one; each is shortened by up to
/// half at random, so that many processes that failed together do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    first: Duration,
    longest: Duration,
    limit: Limit,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Attempts(u32),
    Time(Duration),
}

impl RetryPolicy {
    /// So many attempts in all.
    pub const fn attempts(attempts: u32, first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            limit: Limit::Attempts(attempts),
        }
    }

    /// Attempts until this time has passed; the last one is made at its end.
    pub const fn within(time: Duration, first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            limit: Limit::Time(time),
        }
    }

    /// The count and the clock of one operation, which starts now.
    pub fn start(self) -> Retry {
        Retry {
            policy: self,
            began: Instant::now(),
            failures: 0,
        }
    }

    /// The pause after so many failures in a row, counted from 1.
    pub fn pause_after(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let pause = self.first.saturating_mul(doubled).min(self.longest);
        // The keys of each state are random, and so is the hash of nothing.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        pause.mul_f64(0.5 + 0.5 * random)
    }

    /// Calls `attempt` on this thread until it succeeds, fails with an error that `may_pass` rejects, or the limit is reached.
    ///
    /// # Errors
    /// That of the last attempt.
    pub fn run<T, E>(
        self,
        mut attempt: impl FnMut() -> Result<T, E>,
        may_pass: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut retry = self.start();
        loop {
            let result = attempt();
            let pause = match &result {
                Err(error) if may_pass(error) => retry.next_pause(),
                _ => None,
            };
            match pause {
                Some(pause) => thread::sleep(pause),
                None => return result,
            }
        }
    }
}

/// The retries of one operation. Async code sleeps for [`next_pause`](Self::next_pause) by itself.
#[derive(Debug)]
pub struct Retry {
    policy: RetryPolicy,
    began: Instant,
    failures: u32,
}

impl Retry {
    /// Counts a failure; returns the pause before the next attempt, `None` where the policy's limit is reached.
    pub fn next_pause(&mut self) -> Option<Duration> {
        match self.policy.limit {
            Limit::Time(limit) => self.next_pause_within(limit),
            Limit::Attempts(attempts) => {
                self.failures += 1;
                (self.failures < attempts).then(|| self.policy.pause_after(self.failures))
            }
        }
    }

    /// The same with this time limit instead of the policy's.
    pub fn next_pause_within(&mut self, limit: Duration) -> Option<Duration> {
        self.failures += 1;
        let left = limit.checked_sub(self.elapsed()).filter(|left| !left.is_zero())?;
        Some(self.policy.pause_after(self.failures).min(left))
    }

    /// Time since the first attempt began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_vary_by_half() {
        let policy = RetryPolicy::attempts(9, 100 * MS, 450 * MS);
        for (failures, longest) in [(1, 100), (2, 200), (3, 400), (4, 450), (99, 450)] {
            let pauses: Vec<Duration> = (0..64).map(|_| policy.pause_after(failures)).collect();
            let bounds = longest * MS / 2..=longest * MS;
            assert!(pauses.iter().all(|pause| bounds.contains(pause)), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }

    #[test]
    fn attempts_are_counted() {
        let attempts_with = |policy: RetryPolicy, may_pass: bool| {
            let mut attempts = 0;
            let failed: Result<(), u32> = policy.run(
                || {
                    attempts += 1;
                    Err(attempts)
                },
                |_| may_pass,
            );
            assert_eq!(failed, Err(attempts));
            attempts
        };
        assert_eq!(attempts_with(RetryPolicy::attempts(4, MS, MS), true), 4);
        assert_eq!(attempts_with(RetryPolicy::attempts(1, MS, MS), true), 1);
        assert_eq!(attempts_with(RetryPolicy::attempts(4, MS, MS), false), 1);
        assert_eq!(
            attempts_with(RetryPolicy::within(Duration::ZERO, MS, MS), true),
            1
        );
    }

    #[test]
    fn the_last_attempt_is_made_at_the_end_of_the_time() {
        let mut retry = RetryPolicy::within(50 * MS, 10_000 * MS, 10_000 * MS).start();
        assert!(retry.next_pause().is_some_and(|pause| pause <= 50 * MS));
        assert!(retry.next_pause_within(Duration::ZERO).is_none());
        thread::sleep(50 * MS);
        assert!(retry.next_pause().is_none());
    }
}
