//! The run's heartbeat.

use super::Sink;
use affectmill_labelset::events::{ALIVE, Event};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often to check whether a heartbeat is due.
const LOOK: Duration = Duration::from_secs(1);

/// How often a warning is repeated while its cause lasts.
pub const REMINDER: Duration = Duration::from_secs(60);

/// The run's heartbeat: an event every [`ALIVE`].
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

/// Limits how often a warning is repeated.
#[derive(Debug, Default)]
pub struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether to warn now.
    pub fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|warned| warned.elapsed() >= REMINDER);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Waits for `work`, and sends the run's heartbeat meanwhile.
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
