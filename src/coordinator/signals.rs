//! The signals that drain a run. They are heard from the start of the program to its end, and none is lost between two of its
//! parts: the first process of a container has no default action that would end it.

use super::RunError;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// Preemption by a scheduler.
    Terminate,
}

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        }
    }
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    interrupts: Stream,
    terminates: Stream,
}

impl Signals {
    /// Hears them from now on. Needs a runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn hear() -> Result<Self, RunError> {
        Ok(Self {
            interrupts: signal(SignalKind::interrupt()).map_err(RunError::Spawn)?,
            terminates: signal(SignalKind::terminate()).map_err(RunError::Spawn)?,
        })
    }

    /// The next one, which may have come already. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupts.recv() => Signal::Interrupt,
            _ = self.terminates.recv() => Signal::Terminate,
        }
    }

    /// What work gives, or the signal that comes before it is done; the work is dropped then.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            done = work => Ok(done),
            signal = self.next() => Err(signal),
        }
    }
}
