//! `[run] metrics`: a run shows itself over HTTP while it is on, `/metrics` to Prometheus and `/` to people.
//!
//! Flows in: [`Event`]s. Flows out: answers to whoever asks, on a thread of its own, so that a slow reader holds up
//! nothing. Nothing can be changed through it.

mod figures;
mod gpus;
mod page;
mod server;

use super::progress::Progress;
use super::{Sink, text};
use affectmill_base::hostname;
use affectmill_labelset::StageSeconds;
use affectmill_labelset::events::{Event, Summary};
use affectmill_nn::Gpus;
use figures::Figures;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Lines of trouble that the page shows.
const MOST_TROUBLES: usize = 20;

/// Takes the events of a run in, for those who ask.
pub struct Watch {
    shared: Shared,
    /// Where it is served.
    pub address: SocketAddr,
}

impl Watch {
    /// Serves at that address until the process ends, to whoever asks by a number, by this machine's name or by one of `names`.
    ///
    /// # Errors
    /// The address is taken, not this machine's, or not this user's to take.
    pub fn start(address: SocketAddr, names: &[String]) -> io::Result<Self> {
        let shared = Shared(Arc::new(Mutex::new(Watched::new())));
        let answers = server::Answers {
            shared: shared.clone(),
            gpus: Gpus::open(),
            names: names.iter().cloned().chain([hostname()]).collect(),
        };
        let address = server::start(address, answers)?;
        Ok(Self { shared, address })
    }
}

impl Sink for Watch {
    fn event(&mut self, event: &Event) {
        self.shared.lock().event(event);
    }
}

/// What is known of the run, between the run and those who ask.
#[derive(Clone)]
struct Shared(Arc<Mutex<Watched>>);

impl Shared {
    /// Counting breaks off nowhere halfway.
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a run is.
enum Phase {
    /// With how many headers are read, of how many.
    Planning(usize, usize),
    Labelling,
    Draining(String),
    Finished(Summary),
    Stopped(String),
}

/// The run as its events tell it.
struct Watched {
    phase: Phase,
    output: String,
    progress: Progress,
    figures: Figures,
    seconds: StageSeconds,
    /// The last ones, oldest first, with when they came.
    troubles: VecDeque<(Instant, String)>,
}

impl Watched {
    fn new() -> Self {
        Self {
            phase: Phase::Planning(0, 0),
            output: String::new(),
            progress: Progress::new(),
            figures: Figures::new(),
            seconds: StageSeconds::default(),
            troubles: VecDeque::new(),
        }
    }

    fn event(&mut self, event: &Event) {
        self.progress.event(event);
        self.figures.event(event);
        match event {
            Event::RunStarted { output, .. } => {
                self.phase = Phase::Labelling;
                self.output = output.to_string();
            }
            Event::Probing { done, of } => self.phase = Phase::Planning(*done, *of),
            Event::ShardDone { seconds, .. } => self.seconds.add(seconds),
            Event::Draining { signal, .. } => self.phase = Phase::Draining(signal.clone()),
            Event::Finished { summary, .. } => self.phase = Phase::Finished(summary.clone()),
            Event::Stopped { reason, .. } => self.phase = Phase::Stopped(reason.clone()),
            _ => {}
        }
        if let Some(line) = text::lines(event).filter(|_| text::is_trouble(event)) {
            if self.troubles.len() == MOST_TROUBLES {
                self.troubles.pop_front();
            }
            let plain = console::strip_ansi_codes(&line).into_owned();
            self.troubles.push_back((Instant::now(), plain));
        }
    }
}
