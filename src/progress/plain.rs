//! Plain lines on standard error, for pipes and logs: what happened, and now and then how far the run is.

use super::progress::Progress;
use super::{Sink, text, to_stderr};
use affectmill_labelset::events::{Event, Summary};
use std::time::{Duration, Instant};

/// Time between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes lines.
pub struct Plain {
    progress: Progress,
    said: Instant,
    quiet: bool,
}

impl Plain {
    /// Every line.
    pub fn new() -> Self {
        Self {
            progress: Progress::new(),
            said: Instant::now(),
            quiet: false,
        }
    }

    /// Failures and warnings only.
    pub fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::new()
        }
    }

    fn wanted(&self, event: &Event) -> bool {
        let is_whole = |summary: &Summary| summary.not_ok.is_empty() && summary.unseen.is_empty();
        let listed = matches!(event, Event::Finished { summary, .. } if !is_whole(summary));
        text::is_trouble(event) || listed || !self.quiet
    }
}

impl Sink for Plain {
    fn event(&mut self, event: &Event) {
        self.progress.event(event);
        if let Some(line) = text::lines(event).filter(|_| self.wanted(event)) {
            to_stderr(line);
        }
        let ticks = matches!(event, Event::Progress { .. } | Event::ShardDone { .. });
        if ticks && !self.quiet && self.said.elapsed() >= INTERVAL {
            self.said = Instant::now();
            to_stderr(self.progress.line());
        }
    }
}
