//! The event log as text: `<start>-<pid>.<n>.jsonl`, pieces of which each says on its own how the run stands.
//!
//! A further piece begins with a recap: the run's start, what it has done so far, and of each worker the lines that still hold.
//! So whoever wants to know how a run stands, or stood when it died, reads its last piece and nothing else.

use super::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// It stands in an earlier piece, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recap: bool,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl Line {
    /// An event that happens now.
    pub fn now(event: Event) -> Self {
        Self {
            at_ms: now_ms(),
            recap: false,
            event,
        }
    }

    /// Its text, with the line's end.
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// The lines of a text. One that was cut off by a crash is left out.
    pub fn read(text: &[u8]) -> impl Iterator<Item = Self> {
        let lines = text.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok())
    }
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// The name of a run's log without its pieces' numbers, of the name of a piece.
pub fn run_of(piece: &str) -> &str {
    let name = piece.rsplit('/').next().unwrap_or(piece);
    name.split('.').next().unwrap_or(name)
}

/// The last piece of each run among the keys of a folder of logs, in the order in which the runs began.
pub fn last_pieces<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for key in keys {
        let known = last.entry(run_of(key)).or_insert(key);
        *known = key.max(*known);
    }
    last.into_values().collect()
}

/// What a further piece of a log begins with.
#[derive(Default)]
pub struct Recap {
    started: Option<Line>,
    /// The last commit.
    done: Option<Line>,
    shards: usize,
    frames: u64,
    draining: Option<Line>,
    strikes: Vec<Line>,
    workers: BTreeMap<usize, Worker>,
}

#[derive(Default)]
struct Worker {
    started: Option<Line>,
    ready: Option<Line>,
    leased: Option<Line>,
    /// The video, and where it was gone on with.
    opened: Option<Line>,
    resumed: Option<Line>,
    /// How far it is, or what it waits for.
    stands: Option<Line>,
}

impl Recap {
    /// Takes a line into account.
    pub fn add(&mut self, line: &Line) {
        let kept = || Some(line.clone());
        match &line.event {
            Event::RunStarted { .. } => self.started = kept(),
            Event::Draining { .. } => self.draining = kept(),
            Event::Strike { .. } => self.strikes.extend(kept()),
            Event::WorkerStarted { worker, .. } => {
                let started = Worker {
                    started: kept(),
                    ..Worker::default()
                };
                self.workers.insert(*worker, started);
            }
            Event::WorkerLost { worker, .. } | Event::WorkerEnded { worker } => {
                drop(self.workers.remove(worker));
            }
            Event::WorkerReady { worker } => self.of(*worker, |state| state.ready = kept()),
            Event::Leased { worker, .. } => self.of(*worker, |state| {
                state.let_go();
                state.leased = kept();
            }),
            Event::Opened { worker, .. } => self.of(*worker, |state| {
                (state.opened, state.resumed) = (kept(), None);
            }),
            Event::Resumed { worker, .. } => self.of(*worker, |state| state.resumed = kept()),
            Event::GaveBack { worker } => self.of(*worker, Worker::let_go),
            Event::Progress { worker, .. } | Event::Waiting { worker, .. } => {
                self.of(*worker, |state| state.stands = kept());
            }
            Event::ShardDone {
                worker,
                shard,
                planned_frames,
                ..
            } => {
                self.done = kept();
                self.shards += 1;
                self.frames += planned_frames;
                self.of(*worker, Worker::let_go);
                let of_it =
                    |line: &Line| matches!(&line.event, Event::Strike { shard: Some(of), .. } if of == shard);
                self.strikes.retain(|line| !of_it(line));
            }
            _ => {}
        }
    }

    fn of(&mut self, worker: usize, change: impl FnOnce(&mut Worker)) {
        if let Some(state) = self.workers.get_mut(&worker) {
            change(state);
        }
    }

    /// Whether a death of which nobody could tell is held against the videos that this worker has in hand.
    pub fn holds_suspect(&self, worker: usize) -> bool {
        let leased = self
            .workers
            .get(&worker)
            .and_then(|worker| worker.leased.as_ref());
        leased.is_some_and(|line| matches!(line.event, Event::Leased { again: true, .. }))
    }

    /// Its lines.
    pub fn lines(&self) -> Vec<Line> {
        let so_far = Line::now(Event::SoFar {
            shards: self.shards,
            frames: self.frames,
        });
        let run = self
            .started
            .iter()
            .chain(&self.done)
            .chain([&so_far])
            .chain(&self.draining);
        let workers = self.workers.values().flat_map(|worker| {
            let Worker {
                started,
                ready,
                leased,
                opened,
                resumed,
                stands,
            } = worker;
            [started, ready, leased, opened, resumed, stands]
        });
        let lines = run.chain(&self.strikes).chain(workers.flatten());
        let again = |line: &Line| Line {
            recap: true,
            ..line.clone()
        };
        lines.map(again).collect()
    }
}

impl Worker {
    fn let_go(&mut self) {
        *self = Self {
            started: self.started.take(),
            ready: self.ready.take(),
            ..Self::default()
        };
    }
}
