//! How far a run is, kept up to date from its events; bars and plain lines both read it.

use super::text;
use affectmill_base::escaped;
use affectmill_labelset::events::{Event, Totals};
use serde::Serialize;
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
    /// The shard in hand, if there is one.
    shard: Option<InHand>,
}

/// A shard in a worker's hands.
#[derive(Clone, Copy, Debug, Default)]
struct InHand {
    planned: u64,
    /// Its videos of unknown length.
    unknown: usize,
    decoded: u64,
    rows: u64,
}

impl InHand {
    /// Frames decoded, at most those planned where all lengths are known.
    fn frames(&self) -> u64 {
        match self.unknown {
            0 => self.decoded.min(self.planned),
            _ => self.decoded,
        }
    }
}

/// What is done of shards that are not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnderWay {
    /// Shards in workers' hands.
    pub shards: usize,
    /// Frames of them that are decoded.
    pub frames: u64,
    /// Rows of them that are labelled.
    pub rows: u64,
}

impl WorkerState {
    /// How much of the shard in hand is decoded, 0 to 1; `None` without a shard, or where nobody knows its length.
    pub fn share(&self) -> Option<f64> {
        let shard = self
            .shard
            .filter(|shard| shard.planned > 0 && shard.unknown == 0)?;
        Some((shard.decoded as f64 / shard.planned as f64).min(1.0))
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
                let device: String = host.chain([device.clone()]).chain(gpu).collect();
                let device = escaped(&device).into_owned();
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
            Event::WorkerLost { worker, .. } | Event::WorkerEnded { worker } => {
                self.workers.remove(worker);
            }
            Event::Leased {
                worker,
                frames,
                unknown,
                ..
            } => self.worker(*worker, |state| {
                state.shard = Some(InHand {
                    planned: *frames,
                    unknown: *unknown,
                    ..InHand::default()
                });
            }),
            Event::GaveBack { worker } => self.worker(*worker, |state| {
                state.shard = None;
                state.doing = "idle".into();
            }),
            Event::Opened { worker, video } => self.worker(*worker, |state| state.doing = video.to_string()),
            Event::Waiting { worker, reason } => {
                self.worker(*worker, |state| state.doing = escaped(reason).into_owned())
            }
            Event::Progress { worker, frames, rows } => self.worker(*worker, |state| {
                // Heard of a worker whose lease was not: another coordinator's, before this one began.
                let shard = state.shard.get_or_insert_default();
                (shard.decoded, shard.rows) = (*frames, *rows);
            }),
            Event::ShardDone {
                worker,
                planned_frames,
                frames,
                ..
            } => {
                let mut unknown = 0;
                self.worker(*worker, |state| {
                    unknown = state.shard.take().map_or(0, |shard| shard.unknown);
                    state.doing = "idle".into();
                });
                // By now their length is known.
                let more = match unknown {
                    0 => 0,
                    _ => frames.saturating_sub(*planned_frames),
                };
                self.totals.unknown = self.totals.unknown.saturating_sub(unknown);
                self.totals.frames += more;
                self.frames_committed += planned_frames + more;
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
        match (self.totals.frames, self.totals.unknown) {
            (_, 0) => format!("{} of {all}, {rate:.1}/s, {left} left", text::count(frames)),
            (known, unknown) => {
                let videos = text::plural(unknown as u64, "video");
                let known = if known > 0 {
                    format!("{all} and ")
                } else {
                    String::new()
                };
                let frames = text::plural(frames, "frame");
                format!("{frames} of {known}{videos} of unknown length, {rate:.1}/s")
            }
        }
    }

    /// Frames done, those of shards in hand included; never more than planned where all lengths are known.
    pub fn frames(&self) -> u64 {
        let planned = match (self.totals.shards, self.totals.unknown) {
            (0, _) | (_, 1..) => u64::MAX,
            _ => self.totals.frames,
        };
        (self.frames_committed + self.under_way().frames).min(planned)
    }

    /// What is done of the shards in workers' hands.
    pub fn under_way(&self) -> UnderWay {
        let mut sum = UnderWay::default();
        for shard in self.workers.values().filter_map(|state| state.shard) {
            sum.shards += 1;
            sum.frames += shard.frames();
            sum.rows += shard.rows;
        }
        sum
    }

    /// Frames a second since this run began.
    pub fn rate(&self) -> f64 {
        let frames = self.frames().saturating_sub(self.totals.frames_done) as f64;
        frames / self.began.elapsed().as_secs_f64().max(1e-3)
    }

    /// Time left at that rate; `None` where nobody knows how much is left.
    pub fn left(&self) -> Option<Duration> {
        if self.totals.unknown > 0 {
            return None;
        }
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
    use affectmill_base::ShardId;
    use affectmill_labelset::StageSeconds;

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
            unknown: 0,
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

    #[test]
    fn frames_of_unknown_length_are_counted_as_they_come() {
        let mut progress = Progress::new();
        progress.totals = Totals {
            videos: 1,
            shards: 1,
            unknown: 1,
            ..Default::default()
        };
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
            frames: 0,
            unknown: 1,
            again: false,
            machine: None,
        });
        progress.event(&Event::Progress {
            worker: 0,
            frames: 1200,
            rows: 1100,
        });
        let line = progress.line();
        assert!(
            line.starts_with("1,200 frames of 1 video of unknown length, "),
            "{line}"
        );
        assert_eq!((progress.left(), progress.workers[&0].share()), (None, None));
        let under_way = UnderWay {
            shards: 1,
            frames: 1200,
            rows: 1100,
        };
        assert_eq!(progress.under_way(), under_way);
        progress.event(&Event::ShardDone {
            worker: 0,
            shard,
            planned_frames: 0,
            frames: 1500,
            rows: 1500,
            ok: 1,
            seconds: StageSeconds::default(),
            fetched_bytes: 0,
            adopted: false,
        });
        let line = progress.line();
        assert!(line.starts_with("1,500 of 1,500 frames, "), "{line}");
        assert_eq!(progress.under_way(), UnderWay::default());
        progress.event(&Event::WorkerEnded { worker: 0 });
        assert!(progress.workers.is_empty(), "told to end, it is gone");
    }
}
