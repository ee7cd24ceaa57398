//! The figures that Prometheus collects. Counters count this run; gauges tell how the label set stands now.

use super::gpus;
use crate::progress::Progress;
use affectmill_labelset::events::Event;
use affectmill_labelset::{StageSeconds, VideoStatus};
use affectmill_nn::Load;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

type Label = [(&'static str, &'static str); 1];
type StageLabels = [(&'static str, &'static str); 2];
type Real = Gauge<f64, AtomicU64>;

/// All figures of a run.
pub struct Figures {
    registry: Registry,
    frames: Counter,
    rows: Counter,
    videos: Family<Label, Counter>,
    shards: Counter,
    leases: Counter,
    strikes: Counter,
    lost: Counter,
    fetched: Counter,
    stages: Family<StageLabels, Counter<f64, AtomicU64>>,
    videos_to_probe: Gauge,
    videos_probed: Gauge,
    videos_planned: Gauge,
    frames_planned: Gauge,
    frames_done: Gauge,
    shards_planned: Gauge,
    shards_done: Gauge,
    workers: Gauge,
    left: Real,
}

impl Figures {
    /// Everything is there from the beginning, at nought.
    pub fn new() -> Self {
        let figures = Self {
            registry: Registry::with_prefix("affectmill"),
            frames: Counter::default(),
            rows: Counter::default(),
            videos: Family::default(),
            shards: Counter::default(),
            leases: Counter::default(),
            strikes: Counter::default(),
            lost: Counter::default(),
            fetched: Counter::default(),
            stages: Family::default(),
            videos_to_probe: Gauge::default(),
            videos_probed: Gauge::default(),
            videos_planned: Gauge::default(),
            frames_planned: Gauge::default(),
            frames_done: Gauge::default(),
            shards_planned: Gauge::default(),
            shards_done: Gauge::default(),
            workers: Gauge::default(),
            left: Real::default(),
        };
        for status in VideoStatus::ALL {
            figures.of_status(status);
        }
        figures.add_seconds(&StageSeconds::default());
        figures.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register(
            "build",
            "The program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let counters = [
            ("frames", "Frames decoded in committed shards", &self.frames),
            ("rows", "Rows committed", &self.rows),
            ("shards", "Shards committed", &self.shards),
            ("leases", "Shards handed to workers", &self.leases),
            ("strikes", "Losses that counted against a video", &self.strikes),
            ("workers_lost", "Worker processes that died or hung", &self.lost),
        ];
        for (name, help, counter) in counters {
            all.register(name, help, counter.clone());
        }
        all.register(
            "videos",
            "Videos in committed shards, by what became of them",
            self.videos.clone(),
        );
        all.register_with_unit(
            "fetched",
            "Videos brought from S3 to scratch space",
            Unit::Bytes,
            self.fetched.clone(),
        );
        all.register_with_unit(
            "stage",
            "Workers' time in committed shards, by stage and by whether it was at work or waited for its neighbour",
            Unit::Seconds,
            self.stages.clone(),
        );
        let gauges = [
            (
                "videos_to_probe",
                "New videos whose headers are read to plan them",
                &self.videos_to_probe,
            ),
            (
                "videos_probed",
                "Those of them that are read",
                &self.videos_probed,
            ),
            ("videos_planned", "Videos of all plans", &self.videos_planned),
            (
                "frames_planned",
                "Estimated frames of all plans",
                &self.frames_planned,
            ),
            (
                "frames_done",
                "Estimated frames of committed shards, and of those in hand as far as decoded",
                &self.frames_done,
            ),
            ("shards_planned", "Shards of all plans", &self.shards_planned),
            (
                "shards_done",
                "Shards committed, by earlier runs too",
                &self.shards_done,
            ),
            ("workers", "Worker processes alive", &self.workers),
        ];
        for (name, help, gauge) in gauges {
            all.register(name, help, gauge.clone());
        }
        all.register_with_unit(
            "left",
            "Time left at the rate of this run so far; NaN while nobody knows",
            Unit::Seconds,
            self.left.clone(),
        );
        self
    }

    /// Takes an event into account.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { totals, .. } => {
                self.videos_planned.set(totals.videos as i64);
                self.shards_planned.set(totals.shards as i64);
                self.shards_done.set(totals.shards_done as i64);
            }
            Event::Probing { done, of } => {
                self.videos_probed.set(*done as i64);
                self.videos_to_probe.set(*of as i64);
            }
            Event::Leased { .. } => drop(self.leases.inc()),
            Event::Strike { .. } => drop(self.strikes.inc()),
            Event::WorkerLost { .. } => drop(self.lost.inc()),
            Event::VideoNotOk { status, .. } => drop(self.of_status(*status).inc()),
            Event::ShardDone {
                frames,
                rows,
                ok,
                seconds,
                fetched_bytes,
                ..
            } => {
                self.frames.inc_by(*frames);
                self.rows.inc_by(*rows);
                self.shards.inc();
                self.shards_done.inc();
                self.of_status(VideoStatus::Ok).inc_by(*ok as u64);
                self.fetched.inc_by(*fetched_bytes);
                self.add_seconds(seconds);
            }
            _ => {}
        }
    }

    fn of_status(&self, status: VideoStatus) -> Counter {
        self.videos.get_or_create_owned(&[("status", status.as_str())])
    }

    fn add_seconds(&self, seconds: &StageSeconds) {
        let stages = [
            ("fetch", "busy", seconds.fetch),
            ("decode", "busy", seconds.decode),
            ("decode", "waits_for_fetch", seconds.fetch_blocked),
            ("decode", "waits_for_infer", seconds.decode_blocked),
            ("faces", "busy", seconds.faces),
            ("infer", "busy", seconds.infer),
            ("infer", "waits_for_decode", seconds.infer_blocked),
            ("rows", "busy", seconds.rows),
        ];
        for (stage, state, seconds) in stages {
            let labels = [("stage", stage), ("state", state)];
            self.stages.get_or_create(&labels).inc_by(seconds);
        }
    }

    /// As Prometheus reads it: OpenMetrics 1.0 text.
    pub fn text(&self, progress: &Progress, loads: &[Load]) -> Result<String, std::fmt::Error> {
        // Of videos of unknown length there are more frames planned once they are decoded.
        self.frames_planned.set(progress.totals.frames as i64);
        self.frames_done.set(progress.frames() as i64);
        self.workers.set(progress.workers.len() as i64);
        let left = progress.left().map_or(f64::NAN, |left| left.as_secs_f64());
        self.left.set(left);
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &gpus::figures(loads))?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}
