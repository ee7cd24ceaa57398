//! How far a run is, kept up to date from its events; bars and plain lines both read it.

use super::text;
use crate::events::{Event, Totals};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The state of a run as its events tell it.
#[derive(Debug)]
pub struct Progress {
    /// Totals at the start.
    pub totals: Totals,
    /// Workers by number.
    pub workers: BTreeMap<usize, WorkerState>,
    frames_committed: u64,
    began: Instant,
}

/// One worker.
#[derive(Debug, Default)]
pub struct WorkerState {
    /// Device, with its host where that is another one and the kind of GPU where it is known.
    pub device: String,
    /// The video in hand, or what it does.
    pub doing: String,
    planned: u64,
    decoded: u64,
}

impl WorkerState {
    /// How much of the shard in hand is decoded, 0 to 1; `None` without a shard, or where nobody knows its length.
    pub fn share(&self) -> Option<f64> {
        (self.planned > 0).then(|| (self.decoded as f64 / self.planned as f64).min(1.0))
    }
}

impl Progress {
    /// Before the first event.
    pub fn new() -> Self {
        Self {
            totals: Totals::default(),
            workers: BTreeMap::new(),
            frames_committed: 0,
            began: Instant::now(),
        }
    }

    /// Takes an event into account.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { totals, .. } => {
                self.totals = *totals;
                self.frames_committed = totals.frames_done;
                self.began = Instant::now();
            }
            Event::WorkerStarted {
                worker,
                device,
                gpu,
                host,
                ..
            } => {
                let doing = "loading models".to_owned();
                let host = host.iter().map(|host| format!("{host} "));
                let gpu = gpu.iter().map(|gpu| format!(" ({gpu})"));
                let device = host.chain([device.clone()]).chain(gpu).collect();
                self.workers.insert(
                    *worker,
                    WorkerState {
                        device,
                        doing,
                        ..Default::default()
                    },
                );
            }
            Event::WorkerReady { worker } => self.worker(*worker, |state| state.doing = "ready".into()),
            Event::WorkerLost { worker, .. } => {
                self.workers.remove(worker);
            }
            Event::Leased { worker, frames, .. } => self.worker(*worker, |state| {
                (state.planned, state.decoded) = (*frames, 0);
            }),
            Event::GaveBack { worker } => self.worker(*worker, |state| {
                (state.planned, state.decoded) = (0, 0);
                state.doing = "idle".into();
            }),
            Event::Opened { worker, video } => self.worker(*worker, |state| state.doing = video.to_string()),
            Event::Waiting { worker, reason } => self.worker(*worker, |state| state.doing = reason.clone()),
            Event::Progress { worker, frames, .. } => self.worker(*worker, |state| state.decoded = *frames),
            Event::ShardDone {
                worker,
                planned_frames,
                ..
            } => {
                self.frames_committed += planned_frames;
                self.worker(*worker, |state| {
                    (state.planned, state.decoded) = (0, 0);
                    state.doing = "idle".into();
                });
            }
            Event::SoFar { frames, .. } => self.frames_committed = self.totals.frames_done + frames,
            _ => {}
        }
    }

    fn worker(&mut self, worker: usize, change: impl FnOnce(&mut WorkerState)) {
        if let Some(state) = self.workers.get_mut(&worker) {
            change(state);
        }
    }

    /// How far it is, in one line. A host that joined a run elsewhere knows what it did, and not what there is to do.
    pub fn line(&self) -> String {
        let (frames, rate) = (self.frames(), self.rate());
        if self.totals.shards == 0 {
            return format!("{} here, {rate:.1}/s", text::plural(frames, "frame"));
        }
        let left = self.left().map_or_else(|| "?".into(), text::duration);
        let all = text::plural(self.totals.frames, "frame");
        format!("{} of {all}, {rate:.1}/s, {left} left", text::count(frames))
    }

    /// Frames done, those of shards in hand included; never more than planned.
    pub fn frames(&self) -> u64 {
        let in_hand: u64 = self
            .workers
            .values()
            .map(|state| state.decoded.min(state.planned))
            .sum();
        let planned = match self.totals.shards {
            0 => u64::MAX,
            _ => self.totals.frames,
        };
        (self.frames_committed + in_hand).min(planned)
    }

    /// Frames a second since this run began.
    pub fn rate(&self) -> f64 {
        let frames = self.frames().saturating_sub(self.totals.frames_done) as f64;
        frames / self.began.elapsed().as_secs_f64().max(1e-3)
    }

    /// Time left at that rate.
    pub fn left(&self) -> Option<Duration> {
        let rate = self.rate();
        let frames = self.totals.frames.saturating_sub(self.frames()) as f64;
        (rate > 0.0)
            .then(|| Duration::try_from_secs_f64(frames / rate).ok())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::StageSeconds;
    use crate::domain::ShardId;

    #[test]
    fn a_worker_is_named_by_host_device_and_gpu() {
        let mut progress = Progress::new();
        for (worker, gpu, host) in [(0, Some("NVIDIA A100"), Some("node7")), (1, None, None)] {
            progress.event(&Event::WorkerStarted {
                worker,
                pid: 1,
                device: "cuda:1".into(),
                gpu: gpu.map(String::from),
                host: host.map(String::from),
            });
        }
        assert_eq!(progress.workers[&0].device, "node7 cuda:1 (NVIDIA A100)");
        assert_eq!(progress.workers[&1].device, "cuda:1");
    }

    #[test]
    fn frames_in_hand_count_once_and_never_past_the_plan() {
        let mut progress = Progress::new();
        progress.totals = Totals {
            shards: 3,
            frames: 100,
            frames_done: 10,
            ..Default::default()
        };
        progress.frames_committed = 10;
        let shard = ShardId::from_digest(&[1; 8]);
        progress.event(&Event::WorkerStarted {
            worker: 0,
            pid: 1,
            device: "cpu".into(),
            gpu: None,
            host: None,
        });
        progress.event(&Event::Leased {
            worker: 0,
            shard: shard.clone(),
            videos: 1,
            frames: 40,
            again: false,
            machine: None,
        });
        progress.event(&Event::Progress {
            worker: 0,
            frames: 25,
            rows: 0,
        });
        assert_eq!(progress.frames(), 35);
        progress.event(&Event::Progress {
            worker: 0,
            frames: 60,
            rows: 0,
        });
        assert_eq!(progress.frames(), 50, "a header that promised too few frames");
        progress.event(&Event::ShardDone {
            worker: 0,
            shard,
            planned_frames: 40,
            frames: 60,
            rows: 60,
            ok: 1,
            seconds: StageSeconds::default(),
            fetched_bytes: 0,
            adopted: false,
        });
        assert_eq!(progress.frames(), 50);
        progress.event(&Event::WorkerLost {
            worker: 0,
            reason: String::new(),
            video: None,
            last_frame: None,
            last_words: vec![],
        });
        assert_eq!(progress.frames(), 50);
    }
}
