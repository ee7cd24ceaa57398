//! Bars on a terminal: one over all frames with rate and time left, one line a worker, trouble above them.

use super::progress::Progress;
use super::{Sink, text, to_stderr};
use affectmill_labelset::events::Event;
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Workers that get a line; a cluster has more than a screen.
const MOST_WORKERS: usize = 16;

/// Draws a second at most.
const REFRESH: u8 = 20;

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
        let terminal = Box::new(Screen(Term::buffered_stderr()));
        let screen =
            MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(terminal, REFRESH));
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

/// A terminal that may go away: the library panics where drawing fails.
#[derive(Debug)]
struct Screen(Term);

/// Nobody is left who could see it.
fn lost(_drawn: io::Result<()>) -> io::Result<()> {
    Ok(())
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        lost(self.0.move_cursor_up(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        lost(self.0.move_cursor_down(n))
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        lost(self.0.move_cursor_right(n))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        lost(self.0.move_cursor_left(n))
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        lost(self.0.write_line(text))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        lost(self.0.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        lost(self.0.clear_line())
    }

    fn flush(&self) -> io::Result<()> {
        lost(self.0.flush())
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
            self.overall.set_message(if self.bar_is_a_line {
                self.progress.line()
            } else {
                let left = self.progress.left().map_or_else(|| "?".into(), text::duration);
                format!("{:.1}/s, {left} left", self.progress.rate())
            });
            self.show_workers();
        }
        if let Some(line) = text::lines(event) {
            // Also when the bars are hidden or cleared.
            self.screen.suspend(|| to_stderr(line));
        }
    }
}
