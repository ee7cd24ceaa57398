//! The run's sign of life.

use super::Sink;
use crate::events::{ALIVE, Event};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often it is looked whether a sign is due.
const LOOK: Duration = Duration::from_secs(1);

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
