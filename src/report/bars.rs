//! Bars on a terminal: one over all frames with rate and time left, one line a worker, trouble above them.

use super::progress::Progress;
use super::{Sink, text};
use crate::events::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;

/// Workers that get a line; a cluster has more than a screen.
const MOST_WORKERS: usize = 16;

/// Draws bars on standard error.
pub struct Bars {
    screen: MultiProgress,
    overall: ProgressBar,
    workers: BTreeMap<usize, ProgressBar>,
    progress: Progress,
    /// Nobody knows how many frames there are: no bar can show how far the run is.
    bar_is_a_line: bool,
}

impl Bars {
    /// Nothing is drawn before the first event.
    pub fn new() -> Self {
        let screen = MultiProgress::new();
        let overall = screen.add(ProgressBar::new(0));
        Self {
            screen,
            overall,
            workers: BTreeMap::new(),
            progress: Progress::new(),
            bar_is_a_line: false,
        }
    }

    fn show_workers(&mut self) {
        let gone: Vec<usize> = self
            .workers
            .keys()
            .filter(|worker| {
                !self
                    .progress
                    .workers
                    .keys()
                    .take(MOST_WORKERS)
                    .any(|shown| shown == *worker)
            })
            .copied()
            .collect();
        for worker in gone {
            if let Some(bar) = self.workers.remove(&worker) {
                self.screen.remove(&bar);
            }
        }
        for (number, state) in self.progress.workers.iter().take(MOST_WORKERS) {
            let bar = self.workers.entry(*number).or_insert_with(|| {
                let bar = self.screen.add(ProgressBar::new_spinner());
                bar.set_style(style("  {spinner} {prefix:.dim} {wide_msg}"));
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            });
            bar.set_prefix(format!("worker {number} {}", state.device));
            bar.set_message(state.doing.clone());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Sink for Bars {
    fn event(&mut self, event: &Event) {
        self.progress.event(event);
        match event {
            Event::Probing { done, of } => {
                self.overall
                    .set_style(style("reading headers {wide_bar} {pos}/{len} videos"));
                self.overall.set_length(*of as u64);
                self.overall.set_position(*done as u64);
            }
            Event::RunStarted { totals, .. } if totals.shards > totals.shards_done => {
                self.overall.set_style(style(match totals.unknown {
                    0 => "{percent:>3} % {wide_bar} {human_pos}/{human_len} frames  {msg}",
                    _ => "{spinner} {msg}",
                }));
                self.bar_is_a_line = totals.unknown > 0;
                self.overall.set_length(totals.frames);
                self.overall.enable_steady_tick(Duration::from_millis(500));
            }
            Event::Finished { .. } | Event::Stopped { .. } => {
                for bar in self.workers.values() {
                    bar.finish_and_clear();
                }
                self.overall.finish_and_clear();
            }
            _ => {}
        }
        if let Event::Joined { .. } = event {
            self.overall.set_style(style("{spinner} {msg}"));
            self.overall.enable_steady_tick(Duration::from_millis(500));
        }
        if self.progress.totals.shards == 0 && !self.progress.workers.is_empty() {
            self.overall.set_message(self.progress.line());
            self.show_workers();
        }
        if !self.overall.is_finished() && self.progress.totals.shards > 0 {
            self.overall.set_position(self.progress.frames());
            self.overall.set_message(match self.bar_is_a_line {
                true => self.progress.line(),
                false => {
                    let left = self.progress.left().map_or_else(|| "?".into(), text::duration);
                    format!("{:.1}/s, {left} left", self.progress.rate())
                }
            });
            self.show_workers();
        }
        if let Some(line) = text::lines(event) {
            // Also when the bars are hidden or cleared.
            self.screen.suspend(|| eprintln!("{line}"));
        }
    }
}
