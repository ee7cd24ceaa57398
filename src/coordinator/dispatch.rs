//! The dispatch loop: worker reports, ends of workers, signals and the clock meet in one `select!`, which alone
//! changes the state of the run.

use super::process::{Exit, Process, Signal as FromProcess};
use super::{Prepared, RunError, Signal, Sink, oom};
use crate::dataset::{ErrorClass, Trouble, VideoOutcome};
use crate::domain::{FrameIndex, Location, ShardId, VideoKey};
use crate::events::{Event, NotOk};
use crate::queue::local::{LocalQueue, WorkerId};
use crate::queue::{Assignment, FromWorker, PROTOCOL, ToWorker};
use std::collections::HashMap;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};

/// Workers lost in a row, without a shard committed between, after which the run stops instead of going on to
/// strike out one video after the other.
const MAX_LOSSES: usize = 24;

/// How often people are told that a store is still out of order.
const OUTAGE_REMINDER: Duration = Duration::from_secs(60);

/// Loading models shows no progress, and on a machine that is busy it may take far longer than a frame does.
const LEAST_START_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause before a worker is started again that was lost before its models were loaded.
const START_BACKOFF: Duration = Duration::from_millis(500);

/// The state of a run.
pub struct Dispatcher<'a> {
    prepared: &'a Prepared,
    sink: Sink<'a>,
    queue: LocalQueue,
    workers: HashMap<WorkerId, Worker>,
    started: usize,
    /// Workers lost since the last commit.
    losses: usize,
    /// The kernel's counter of memory kills when it was last looked at.
    oom_kills: u64,
    draining: Option<Signal>,
    /// When it was last said that a store is out of order.
    outage_told: Option<Instant>,
    signals: mpsc::Sender<FromProcess>,
    inbox: mpsc::Receiver<FromProcess>,
    labelled: Labelled,
}

struct Worker {
    process: Process,
    device: String,
    ready: bool,
    holds: Option<ShardId>,
    video: Option<VideoKey>,
    /// When it was opened.
    opened: Instant,
    last_frame: Option<FrameIndex>,
    last_sign: Instant,
    /// Why we killed it.
    killed: Option<String>,
}

impl Worker {
    /// Number of its GPU; 0 on the CPU.
    fn device_number(&self) -> usize {
        let number = self.device.rsplit(':').next();
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

/// What this run labelled, over all its shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labelled {
    /// Shards committed.
    pub shards: usize,
    /// Frames decoded.
    pub frames: u64,
    seconds: crate::dataset::StageSeconds,
}

impl Labelled {
    /// One sentence on which side of the pipeline was the busier one.
    pub fn bottleneck(&self) -> Option<String> {
        let s = &self.seconds;
        (s.total > 0.0).then(|| {
            let share = |seconds: f64| 100.0 * seconds / s.total;
            let who = if s.fetch_blocked > s.infer + s.faces && s.fetch_blocked > s.decode {
                "fetching videos"
            } else if s.decode > s.infer + s.faces {
                "decoding"
            } else if s.faces > s.infer {
                "finding faces"
            } else {
                "the models"
            };
            let faces = if s.faces > 0.0 {
                format!(", finding faces took {:.0} %", share(s.faces))
            } else {
                String::new()
            };
            let fetching = if s.fetch > 0.0 {
                format!(
                    ", fetching took {:.0} % beside it and was waited for {:.0} %",
                    share(s.fetch),
                    share(s.fetch_blocked)
                )
            } else {
                String::new()
            };
            format!(
                "{who} set the pace: of the workers' time the models were busy {:.0} % and waited for frames {:.0} %{faces}, \
                 the decoder was busy {:.0} % and waited for the models {:.0} %{fetching}",
                share(s.infer),
                share(s.infer_blocked),
                share(s.decode),
                share(s.decode_blocked)
            )
        })
    }
}

impl<'a> Dispatcher<'a> {
    /// A dispatcher over the shards without a commit.
    pub fn new(prepared: &'a Prepared, sink: Sink<'a>) -> Result<Self, RunError> {
        let todo = prepared
            .shards
            .iter()
            .filter(|shard| !prepared.committed.contains(&shard.id))
            .cloned();
        let (signals, inbox) = mpsc::channel(256);
        let queue = LocalQueue::new(todo.collect(), prepared.record.job.run.max_strikes);
        Ok(Self {
            prepared,
            sink,
            queue: match prepared.input_root {
                Location::Local(_) => queue,
                Location::S3 { .. } => queue.foretelling(),
            },
            workers: HashMap::new(),
            started: 0,
            losses: 0,
            oom_kills: oom::kills(),
            draining: None,
            outage_told: None,
            signals,
            inbox,
            labelled: Labelled::default(),
        })
    }

    /// What was labelled so far.
    pub fn labelled(&self) -> Labelled {
        self.labelled
    }

    /// Runs until every shard is committed (`None`) or a signal has drained the run.
    pub async fn run(&mut self) -> Result<Option<Signal>, RunError> {
        let mut interrupts = signal(SignalKind::interrupt()).map_err(RunError::Spawn)?;
        let mut terminates = signal(SignalKind::terminate()).map_err(RunError::Spawn)?;
        let mut clock = interval(Duration::from_millis(500));
        for n in 0..self.prepared.worker_count() {
            self.start(n).await?;
        }
        while self.queue.leased() > 0 || (self.queue.waiting() > 0 && self.draining.is_none()) {
            tokio::select! {
                Some(message) = self.inbox.recv() => match message {
                    FromProcess::Report(worker, report) => self.reported(worker, report).await?,
                    FromProcess::Ended(worker, exit) => self.lost(worker, exit).await?,
                },
                _ = interrupts.recv() => if self.drain(Signal::Interrupt) { break },
                _ = terminates.recv() => if self.drain(Signal::Terminate) { break },
                _ = clock.tick() => self.kill_hung(),
            }
        }
        // Dropping a worker closes its standard input, which ends it, even while it is busy.
        self.workers.clear();
        Ok(self
            .draining
            .filter(|_| self.queue.leased() > 0 || self.queue.waiting() > 0))
    }

    /// First signal: hand out nothing more. Returns whether to stop at once, which the second one means.
    fn drain(&mut self, signal: Signal) -> bool {
        let again = self.draining.is_some();
        self.draining = Some(signal);
        self.emit(Event::Draining {
            signal: signal.name().into(),
            shards: if again { 0 } else { self.queue.leased() },
        });
        again
    }

    async fn start(&mut self, device: usize) -> Result<(), RunError> {
        let id = self.started;
        self.started += 1;
        let device = self.prepared.device(device);
        let mut process = Process::start(id, self.signals.clone())?;
        self.emit(Event::WorkerStarted {
            worker: id,
            pid: process.pid,
            device: device.clone(),
        });
        let assignment = Assignment {
            protocol: PROTOCOL,
            job: self.prepared.record.clone(),
            input_root: self.prepared.input_root.clone(),
            device: device.clone(),
            threads: self.prepared.threads(),
            fetch_bytes: self.prepared.fetch_bytes,
        };
        process.send(&ToWorker::Job(Box::new(assignment))).await;
        self.workers.insert(
            id,
            Worker {
                process,
                device,
                ready: false,
                holds: None,
                video: None,
                opened: Instant::now(),
                last_frame: None,
                last_sign: Instant::now(),
                killed: None,
            },
        );
        Ok(())
    }

    async fn reported(&mut self, id: WorkerId, report: FromWorker) -> Result<(), RunError> {
        let Some(worker) = self.workers.get_mut(&id) else {
            return Ok(());
        };
        worker.last_sign = Instant::now();
        match report {
            FromWorker::Ready => {
                worker.ready = true;
                self.emit(Event::WorkerReady { worker: id });
                self.lease(id).await;
            }
            FromWorker::Opened { video } => {
                worker.video = Some(video.clone());
                worker.opened = Instant::now();
                worker.last_frame = None;
                self.emit(Event::Opened { worker: id, video });
            }
            FromWorker::Resumed { video, frame, again } => self.emit(Event::Resumed {
                worker: id,
                video,
                frame,
                again,
            }),
            FromWorker::Progress { frame, frames, rows } => {
                worker.last_frame = frame;
                self.emit(Event::Progress {
                    worker: id,
                    frames,
                    rows,
                });
            }
            FromWorker::Done {
                shard,
                rows,
                videos,
                seconds,
                adopted,
            } => {
                (worker.holds, worker.video, worker.last_frame) = (None, None, None);
                self.losses = 0;
                self.done(id, shard, rows, &videos, adopted);
                self.labelled.seconds.add(&seconds);
                self.lease(id).await;
            }
            FromWorker::BrokeOff { video, trouble } => {
                (worker.holds, worker.video, worker.last_frame) = (None, None, None);
                self.queue.give_back(id);
                self.emit(Event::Warning {
                    message: format!("worker {id}: {}; its shard is begun again", trouble.error),
                });
                let starved = trouble.class == ErrorClass::Crash;
                self.strike(video, trouble);
                sleep(START_BACKOFF).await;
                if starved {
                    // Its memory is gone; a fresh one has what there is.
                    let device = self
                        .workers
                        .remove(&id)
                        .map_or(0, |worker| worker.device_number());
                    self.start(device).await?;
                } else {
                    self.lease(id).await;
                }
            }
            FromWorker::Failed { error, retry: false } => return Err(RunError::Worker { worker: id, error }),
            FromWorker::Failed { error, retry: true } => {
                worker.holds = None;
                self.queue.give_back(id);
                self.count_loss(&error, Vec::new())?;
                self.emit(Event::Warning {
                    message: format!("worker {id}: {error}; trying again"),
                });
                sleep(START_BACKOFF).await;
                self.lease(id).await;
            }
            FromWorker::Waiting { reason } => self.waiting(id, reason),
            FromWorker::Probed { .. } => {}
        }
        Ok(())
    }

    /// Hands the next shard to an idle worker; with nothing left, the worker ends.
    async fn lease(&mut self, id: WorkerId) {
        let lease = if self.draining.is_some() {
            None
        } else {
            self.queue.lease(id)
        };
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(mut lease) = lease else {
            // Another worker may still lose its shard: one idle worker per such shard is cheap to restart then.
            self.workers.remove(&id);
            return;
        };
        lease.earlier = self.prepared.earlier.of(&lease.shard);
        worker.holds = Some(lease.shard.id.clone());
        worker.last_sign = Instant::now();
        let event = Event::Leased {
            worker: id,
            shard: lease.shard.id.clone(),
            videos: lease.shard.videos.len(),
            frames: lease.shard.frames(),
        };
        worker.process.send(&ToWorker::Lease(Box::new(lease))).await;
        self.emit(event);
    }

    fn done(&mut self, id: WorkerId, shard: ShardId, rows: u64, videos: &[VideoOutcome], adopted: bool) {
        let planned_frames = self.queue.done(id, &shard).map_or(0, |plan| plan.frames());
        let frames = videos.iter().map(|video| video.frames).sum();
        self.labelled.shards += 1;
        self.labelled.frames += frames;
        for NotOk {
            video,
            status,
            class,
            error,
        } in videos.iter().filter_map(NotOk::of)
        {
            self.emit(Event::VideoNotOk {
                video,
                status,
                class,
                error,
            });
        }
        self.emit(Event::ShardDone {
            worker: id,
            shard,
            planned_frames,
            frames,
            rows,
            adopted,
        });
    }

    /// A worker process ended. When it was still needed its lease goes back, and its video may be struck.
    async fn lost(&mut self, id: WorkerId, exit: Exit) -> Result<(), RunError> {
        let Some(worker) = self.workers.remove(&id) else {
            return Ok(());
        };
        let outside = self.killed_from_outside(&worker, &exit);
        let reason = worker.killed.clone().unwrap_or_else(|| match exit.signal() {
            Some(9) if !outside => "killed by the kernel: out of memory".into(),
            _ => exit.describe(),
        });
        self.emit(Event::WorkerLost {
            worker: id,
            reason: reason.clone(),
            video: worker.video.clone(),
            last_frame: worker.last_frame,
            last_words: exit.last_words.clone(),
        });
        self.queue.give_back(id);
        if let (Some(video), false) = (worker.video.clone(), outside) {
            let trouble = Trouble {
                error: reason.clone(),
                class: match worker.killed {
                    Some(_) => ErrorClass::Timeout,
                    None => ErrorClass::Crash,
                },
                frame: worker.last_frame,
            };
            self.strike(video, trouble);
        }
        self.count_loss(&reason, exit.last_words)?;
        if !worker.ready {
            sleep(START_BACKOFF).await;
        }
        if self.draining.is_none() && self.queue.waiting() > 0 {
            self.start(worker.device_number()).await?;
        }
        Ok(())
    }

    fn strike(&mut self, video: VideoKey, trouble: Trouble) {
        let strikes = self.queue.strike(&video, trouble);
        let of = self.prepared.record.job.run.max_strikes;
        self.emit(Event::Strike { video, strikes, of });
    }

    /// A worker killed by an operator or a scheduler says nothing about the video it held.
    fn killed_from_outside(&mut self, worker: &Worker, exit: &Exit) -> bool {
        const OUTSIDE: [i32; 4] = [1, 2, 9, 15];
        let kills = oom::kills();
        let starved = kills > self.oom_kills;
        self.oom_kills = kills;
        worker.killed.is_none() && !starved && exit.signal().is_some_and(|signal| OUTSIDE.contains(&signal))
    }

    fn count_loss(&mut self, reason: &str, last_words: Vec<String>) -> Result<(), RunError> {
        self.losses += 1;
        if self.losses < MAX_LOSSES {
            return Ok(());
        }
        Err(RunError::WorkersKeepDying {
            losses: self.losses,
            reason: reason.into(),
            last_words,
        })
    }

    /// A store keeps a worker waiting. Where it is out of order, that is worth a line now and then.
    fn waiting(&mut self, id: WorkerId, reason: String) {
        if let Some(worker) = self.workers.get_mut(&id) {
            // Time that a store takes is not the video's.
            worker.opened = Instant::now();
        }
        let due = self
            .outage_told
            .is_none_or(|told| told.elapsed() >= OUTAGE_REMINDER);
        if reason.contains("trying again") && due {
            self.outage_told = Some(Instant::now());
            self.emit(Event::Warning {
                message: format!("worker {id} waits: {reason}"),
            });
        }
        self.emit(Event::Waiting { worker: id, reason });
    }

    fn kill_hung(&mut self) {
        let run = &self.prepared.record.job.run;
        let stall = Duration::from_secs_f64(run.stall_timeout);
        let whole = Duration::from_secs_f64(run.video_timeout);
        for worker in self.workers.values_mut() {
            let waits = worker.ready && worker.holds.is_none();
            if waits || worker.killed.is_some() {
                continue;
            }
            let silent = worker.last_sign.elapsed();
            let why = if !worker.ready && silent < LEAST_START_TIMEOUT {
                continue;
            } else if silent >= stall {
                format!("no progress for {} s (run.stall_timeout)", run.stall_timeout)
            } else if worker.video.is_some() && worker.opened.elapsed() >= whole {
                format!("not done after {} s (run.video_timeout)", run.video_timeout)
            } else {
                continue;
            };
            worker.killed = Some(why);
            worker.process.kill();
        }
    }

    fn emit(&mut self, event: Event) {
        (self.sink)(&event);
    }
}
