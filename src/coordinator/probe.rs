//! Reads the headers of new videos in worker processes: untrusted bytes meet FFmpeg nowhere else.
//!
//! A video that crashes or hangs its prober is planned as unreadable; it gets its fair trial when its shard runs.

use super::process::{Process, Signal};
use super::{RunError, Sink};
use affectmill_base::Location;
use affectmill_labelset::PlannedVideo;
use affectmill_labelset::events::Event;
use affectmill_queue::{FromWorker, Reach, ToWorker};
use affectmill_spec::Job;
use std::collections::{HashMap, VecDeque};
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval};

/// A header that takes longer is not read to plan with.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A kill from outside says nothing of a video, unless it is met again and again.
const MAX_KILLS: usize = 3;

/// Time between two pieces of a probing that lasts.
const PIECE: Duration = Duration::from_secs(60);

/// A probing under way: frames and duration of each video are filled in, or why it could not be read. The order is kept.
pub struct Probing {
    pool: Pool,
    inbox: mpsc::Receiver<Signal>,
    clock: Interval,
    /// When a piece was given last.
    given: Instant,
}

impl Probing {
    /// Starts the probers.
    ///
    /// # Errors
    /// [`RunError::Spawn`].
    pub async fn start(videos: Vec<PlannedVideo>, root: Location, job: &Job) -> Result<Self, RunError> {
        let (signals, inbox) = mpsc::channel(64);
        let mut pool = Pool {
            of: videos.len(),
            waiting: videos.into(),
            probed: VecDeque::new(),
            given: 0,
            again: Vec::new(),
            done: 0,
            forbidden: 0,
            root: root.clone(),
            reach: Reach {
                s3: job.s3.clone(),
                scratch: job.run.scratch.clone(),
                outage_timeout: job.run.outage_timeout,
            },
            image_base: job.input.image_base,
            max_pixels: job.input.max_pixels,
            started: 0,
            probers: HashMap::new(),
            signals,
        };
        for _ in 0..at_once(&root).min(pool.of) {
            pool.start().await?;
        }
        Ok(Self {
            pool,
            inbox,
            clock: interval(Duration::from_secs(1)),
            given: Instant::now(),
        })
    }

    /// The next videos, in order, once all are probed, or when it took so long that those are worth keeping that were.
    ///
    /// # Errors
    /// [`RunError`] when no prober can be started, or one fails for good.
    pub async fn piece(&mut self, sink: Sink<'_>) -> Result<Vec<PlannedVideo>, RunError> {
        while !self.is_done() && self.given.elapsed() < PIECE {
            tokio::select! {
                Some(signal) = self.inbox.recv() => self.pool.take(signal).await?,
                _ = self.clock.tick() => {
                    self.pool.kill_hung();
                    self.report(sink);
                }
            }
        }
        self.given = Instant::now();
        self.report(sink);
        Ok(self.ready())
    }

    fn report(&self, sink: Sink<'_>) {
        sink(&Event::Probing {
            done: self.pool.done,
            of: self.pool.of,
        });
    }

    /// The next videos, in order, as far as they are probed.
    pub fn ready(&mut self) -> Vec<PlannedVideo> {
        self.pool.ready()
    }

    /// Whether the credentials may read none of the videos that were probed.
    pub fn is_forbidden(&self) -> bool {
        self.pool.done > 0 && self.pool.forbidden == self.pool.done
    }

    /// Whether every video is probed.
    pub fn is_done(&self) -> bool {
        self.pool.done == self.pool.of
    }
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
    /// Videos in all.
    of: usize,
    /// Those that no prober was given yet.
    waiting: VecDeque<PlannedVideo>,
    /// Those that were taken from there and not given yet, in order; `None` for one in a prober's hands.
    probed: VecDeque<Option<PlannedVideo>>,
    /// Those that were given: the number of the first in `probed`.
    given: usize,
    /// Those whose prober was killed from outside.
    again: Vec<Attempt>,
    done: usize,
    root: Location,
    reach: Reach,
    image_base: u64,
    max_pixels: u64,
    forbidden: usize,
    started: usize,
    probers: HashMap<usize, Prober>,
    signals: mpsc::Sender<Signal>,
}

struct Prober {
    process: Process,
    attempt: Option<Attempt>,
}

/// A video that a prober reads.
struct Attempt {
    number: usize,
    video: PlannedVideo,
    since: Instant,
    /// Probers that were killed from outside with it.
    kills: usize,
}

impl Pool {
    async fn start(&mut self) -> Result<(), RunError> {
        let id = self.started;
        self.started += 1;
        let process = Process::start(id, self.signals.clone())?;
        self.probers.insert(
            id,
            Prober {
                process,
                attempt: None,
            },
        );
        self.order(id).await;
        Ok(())
    }

    fn ready(&mut self) -> Vec<PlannedVideo> {
        let known = self.probed.iter().take_while(|video| video.is_some()).count();
        self.given += known;
        self.probed.drain(..known).flatten().collect()
    }

    /// Hands the next video to a prober; one without a video ends.
    async fn order(&mut self, id: usize) {
        let attempt = self.again.pop().or_else(|| self.next());
        let (Some(attempt), Some(prober)) = (attempt, self.probers.get_mut(&id)) else {
            self.probers.remove(&id);
            return;
        };
        let video = attempt.video.clone();
        prober.attempt = Some(Attempt {
            since: Instant::now(),
            ..attempt
        });
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

    fn next(&mut self) -> Option<Attempt> {
        loop {
            let video = self.waiting.pop_front()?;
            // The archive's listing says of crops what a header would.
            if video.archive.is_some() {
                self.probed.push_back(Some(video));
                self.done += 1;
                continue;
            }
            self.probed.push_back(None);
            return Some(Attempt {
                number: self.given + self.probed.len() - 1,
                video,
                since: Instant::now(),
                kills: 0,
            });
        }
    }

    fn finish(&mut self, number: usize, video: PlannedVideo) {
        self.probed[number - self.given] = Some(video);
        self.done += 1;
    }

    async fn take(&mut self, signal: Signal) -> Result<(), RunError> {
        match signal {
            Signal::Report(id, FromWorker::Probed { video, forbidden }) => {
                self.forbidden += usize::from(forbidden);
                let attempt = self.probers.get_mut(&id).and_then(|prober| prober.attempt.take());
                if let Some(Attempt { number, .. }) = attempt {
                    self.finish(number, video);
                    self.order(id).await;
                }
            }
            // Time that a store takes is not the video's.
            Signal::Report(id, FromWorker::Waiting { .. }) => {
                if let Some(attempt) = self
                    .probers
                    .get_mut(&id)
                    .and_then(|prober| prober.attempt.as_mut())
                {
                    attempt.since = Instant::now();
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
                if let Some(mut attempt) = prober.attempt {
                    let slow = attempt.since.elapsed() >= TIMEOUT;
                    if exit.is_from_outside() && !slow && attempt.kills < MAX_KILLS {
                        attempt.kills += 1;
                        self.again.push(attempt);
                    } else {
                        let how = if slow {
                            format!("took longer than {} s", TIMEOUT.as_secs())
                        } else {
                            exit.describe()
                        };
                        attempt.video.unreadable = Some(format!("reading its header: {how}"));
                        self.finish(attempt.number, attempt.video);
                    }
                }
                if !(self.waiting.is_empty() && self.again.is_empty()) {
                    self.start().await?;
                }
            }
        }
        Ok(())
    }

    fn kill_hung(&mut self) {
        for prober in self.probers.values_mut() {
            if prober
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.since.elapsed() >= TIMEOUT)
            {
                prober.process.kill();
            }
        }
    }
}
