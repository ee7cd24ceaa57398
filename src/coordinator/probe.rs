//! Reads the headers of new videos in worker processes: untrusted bytes meet FFmpeg nowhere else.
//!
//! A video that crashes or hangs its prober is planned as unreadable; it gets its fair trial when its shard runs.

use super::process::{Process, Signal};
use super::{RunError, Sink};
use crate::dataset::PlannedVideo;
use crate::domain::Location;
use crate::events::Event;
use crate::queue::{FromWorker, Reach, ToWorker};
use crate::spec::Job;
use std::collections::HashMap;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

/// A header that takes longer is not read to plan with.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Fills in frames and duration of each video, or why it could not be read. The order is kept. Also tells how many of them
/// the credentials may not read.
pub async fn probe(
    videos: Vec<PlannedVideo>,
    root: Location,
    job: &Job,
    sink: Sink<'_>,
) -> Result<(Vec<PlannedVideo>, usize), RunError> {
    let (signals, mut inbox) = mpsc::channel(64);
    let mut pool = Pool {
        probed: videos,
        at_once: at_once(&root),
        root,
        reach: Reach {
            s3: job.s3.clone(),
            scratch: job.run.scratch.clone(),
            outage_timeout: job.run.outage_timeout,
        },
        image_base: job.input.image_base,
        max_pixels: job.input.max_pixels,
        next: 0,
        done: 0,
        forbidden: 0,
        started: 0,
        probers: HashMap::new(),
        signals,
    };
    for _ in 0..pool.at_once.min(pool.probed.len()) {
        pool.start().await?;
    }
    let mut clock = interval(Duration::from_secs(1));
    while pool.done < pool.probed.len() {
        tokio::select! {
            Some(signal) = inbox.recv() => pool.take(signal).await?,
            _ = clock.tick() => {
                pool.kill_hung();
                sink(&Event::Probing { done: pool.done, of: pool.probed.len() });
            }
        }
    }
    Ok((pool.probed, pool.forbidden))
}

/// Probers at work at a time: where each waits for answers of a server most of the time, more than there are processors.
fn at_once(root: &Location) -> usize {
    let processors = available_parallelism().map_or(1, usize::from);
    match root {
        Location::Local(_) => processors,
        Location::S3 { .. } => (4 * processors).min(32),
    }
}

struct Pool {
    probed: Vec<PlannedVideo>,
    root: Location,
    reach: Reach,
    image_base: u64,
    at_once: usize,
    max_pixels: u64,
    next: usize,
    done: usize,
    forbidden: usize,
    started: usize,
    probers: HashMap<usize, Prober>,
    signals: mpsc::Sender<Signal>,
}

struct Prober {
    process: Process,
    /// The video in hand, and since when.
    holds: Option<(usize, Instant)>,
}

impl Pool {
    async fn start(&mut self) -> Result<(), RunError> {
        let id = self.started;
        self.started += 1;
        let process = Process::start(id, self.signals.clone())?;
        self.probers.insert(id, Prober { process, holds: None });
        self.order(id).await;
        Ok(())
    }

    /// Hands the next video to a prober; one without a video ends.
    async fn order(&mut self, id: usize) {
        // Of crops everything is known that a header would tell.
        while self
            .probed
            .get(self.next)
            .is_some_and(|video| video.archive.is_some())
        {
            self.next += 1;
            self.done += 1;
        }
        if self.next == self.probed.len() {
            self.probers.remove(&id);
            return;
        }
        let Some(prober) = self.probers.get_mut(&id) else {
            return;
        };
        let video = self.probed[self.next].clone();
        prober.holds = Some((self.next, Instant::now()));
        self.next += 1;
        prober
            .process
            .send(&ToWorker::Probe {
                video,
                root: self.root.clone(),
                reach: Box::new(self.reach.clone()),
                image_base: self.image_base,
                max_pixels: self.max_pixels,
            })
            .await;
    }

    async fn take(&mut self, signal: Signal) -> Result<(), RunError> {
        match signal {
            Signal::Report(id, FromWorker::Probed { video, forbidden }) => {
                self.forbidden += usize::from(forbidden);
                let held = self.probers.get_mut(&id).and_then(|prober| prober.holds.take());
                if let Some((at, _)) = held {
                    self.probed[at] = video;
                    self.done += 1;
                    self.order(id).await;
                }
            }
            // Time that a store takes is not the video's.
            Signal::Report(id, FromWorker::Waiting { .. }) => {
                if let Some((_, since)) = self.probers.get_mut(&id).and_then(|prober| prober.holds.as_mut()) {
                    *since = Instant::now();
                }
            }
            Signal::Report(worker, FromWorker::Failed { error, .. }) => {
                return Err(RunError::Worker { worker, error });
            }
            Signal::Report(..) => {}
            Signal::Ended(id, exit) => {
                let Some(prober) = self.probers.remove(&id) else {
                    return Ok(());
                };
                if let Some((at, since)) = prober.holds {
                    let how = if since.elapsed() >= TIMEOUT {
                        format!("took longer than {} s", TIMEOUT.as_secs())
                    } else {
                        exit.describe()
                    };
                    self.probed[at].unreadable = Some(format!("reading its header: {how}"));
                    self.done += 1;
                }
                if self.next < self.probed.len() {
                    self.start().await?;
                }
            }
        }
        Ok(())
    }

    fn kill_hung(&mut self) {
        for prober in self.probers.values_mut() {
            if prober.holds.is_some_and(|(_, since)| since.elapsed() >= TIMEOUT) {
                prober.process.kill();
            }
        }
    }
}
