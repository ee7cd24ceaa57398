//! The run's sign of life.

use super::Sink;
use affectmill_labelset::events::{ALIVE, Event};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often it is looked whether a sign is due.
const LOOK: Duration = Duration::from_secs(1);

/// How often people are told that something is still out of order.
pub const REMINDER: Duration = Duration::from_secs(60);

/// Says that the run goes on, as often as [`ALIVE`] asks for.
#[derive(Debug)]
pub struct Pulse(Instant);

impl Default for Pulse {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Pulse {
    /// To be called more often than that.
    pub fn beat(&mut self, sink: Sink<'_>) {
        if self.0.elapsed() >= ALIVE {
            self.0 = Instant::now();
            sink(&Event::Alive);
        }
    }
}

/// Tells that something is still out of order, now and then.
#[derive(Debug, Default)]
pub struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether it is time to tell it, or tell it again.
    pub fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|told| told.elapsed() >= REMINDER);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Waits for what may take long, and says meanwhile that the run goes on.
pub async fn alive<T>(work: impl Future<Output = T>, sink: Sink<'_>) -> T {
    let (mut pulse, mut clock) = (Pulse::default(), interval(LOOK));
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = clock.tick() => pulse.beat(sink),
        }
    }
}
