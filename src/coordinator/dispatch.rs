//! The dispatch loop: worker reports, ends of workers, signals and the clock meet in one `select!`, which alone
//! changes the state of the run.

use super::heartbeat::{Pulse, Reminder};
use super::process::{Exit, Process, Signal as FromProcess};
use super::supervised::{KillCause, Killed, Worker, strike};
use super::{HostConfig, Labelled, RunError, Signal, Signals, Sink};
use affectmill_base::OomRecord;
use affectmill_base::VideoKey;
use affectmill_base::{ErrorClass, Trouble};
use affectmill_labelset::VideoStatus;
use affectmill_labelset::events::{Event, NotOk};
use affectmill_queue::nats::NatsError;
use affectmill_queue::{Answer, Arrival, FromWorker, Lease, Leases, ToWorker, WaitsFor, WorkerId};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};

/// Workers lost in a row, without a shard committed between, after which the run stops instead of going on to
/// strike out one video after the other.
const MAX_LOSSES: usize = 24;

/// The same for a GPU that fails: not all of so many videos, lost with each of its workers, are likely to be at fault.
const MAX_GPU_FAILURES: usize = 3;

/// How often workers are looked after.
const TICK: Duration = Duration::from_millis(500);

/// Pause before an input that went away is looked for again.
const INPUT_GONE: Duration = Duration::from_secs(5);

/// Pause before another host gets the shards of one that failed.
const FAILED: Duration = Duration::from_secs(5);

/// Pause before a worker is started again that was lost before its models were loaded.
const START_BACKOFF: Duration = Duration::from_millis(500);

/// The state of a run.
pub struct Dispatcher<'a> {
    host_config: &'a HostConfig<'a>,
    sink: Sink<'a>,
    queue: Leases,
    workers: HashMap<WorkerId, Worker>,
    started: usize,
    /// Workers lost since the last commit.
    losses: usize,
    /// Videos that were being labelled when a GPU failed, with that GPU; cleared when one of its workers commits.
    gpu_failures: BTreeSet<(String, VideoKey)>,
    draining: Option<Signal>,
    /// Why the queue was lost.
    lost_queue: Option<NatsError>,
    /// When unfinished shards are given back.
    stop_at: Option<Instant>,
    /// When the clock last ticked.
    ticked: Instant,
    /// When the last warning about a failing store was sent.
    outage: Reminder,
    pulse: Pulse,
    /// Since when the input is gone.
    input_gone: Option<Instant>,
    signals: mpsc::Sender<FromProcess>,
    inbox: mpsc::Receiver<FromProcess>,
    labelled: Labelled,
}

impl<'a> Dispatcher<'a> {
    /// A dispatcher of this host_config, over the shards of this queue.
    pub fn new(host_config: &'a HostConfig<'a>, queue: Leases, sink: Sink<'a>) -> Self {
        let (signals, inbox) = mpsc::channel(256);
        Self {
            host_config,
            sink,
            queue,
            workers: HashMap::new(),
            started: 0,
            losses: 0,
            gpu_failures: BTreeSet::new(),
            draining: None,
            lost_queue: None,
            stop_at: None,
            ticked: Instant::now(),
            outage: Reminder::default(),
            pulse: Pulse::default(),
            input_gone: None,
            signals,
            inbox,
            labelled: Labelled::default(),
        }
    }

    /// Runs until every shard is committed (`None`) or a signal has drained the run; also, what was labelled.
    pub async fn run(mut self, signals: &mut Signals) -> Result<(Option<Signal>, Labelled), RunError> {
        let ended = self.until_done(signals).await;
        let mut workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        workers.sort_unstable();
        workers.into_iter().for_each(|worker| self.end(worker));
        let left = self.queue.leased() > 0 || self.queue.is_open();
        // What this host could not do, another one should not have at once.
        self.queue.close(ended.is_err().then_some(FAILED)).await;
        ended?;
        Ok((self.draining.filter(|_| left), self.labelled))
    }

    async fn until_done(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        let mut clock = interval(TICK);
        for device in &self.host_config.devices {
            self.start(device.clone()).await?;
        }
        while self.queue.leased() > 0 || self.wants_more() {
            tokio::select! {
                Some(message) = self.inbox.recv() => match message {
                    FromProcess::Report(worker, report) => self.reported(worker, report).await?,
                    FromProcess::Ended(worker, exit) => self.lost(worker, exit).await?,
                },
                arrival = self.queue.arrival() => match arrival {
                    Arrival::Lease(worker, lease) => self.hand(worker, *lease).await,
                    Arrival::Finished => {}
                    Arrival::Trouble(error) => {
                        let message = format!("{error}; trying again");
                        self.emit(Event::Warning { message });
                    }
                    Arrival::Word(message) => self.emit(Event::Warning { message }),
                    // Leased shards can still be committed.
                    Arrival::Lost(error) => self.lost_queue = Some(error),
                },
                signal = signals.next() => if self.drain(signal) { break },
                _ = clock.tick() => {
                    self.pulse.beat(&mut *self.sink);
                    self.kill_hung();
                    self.wake().await;
                    if self.stop_at.is_some_and(|end| Instant::now() >= end) {
                        break;
                    }
                }
            }
        }
        self.lost_queue.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Whether there may be shards to come for this host.
    fn wants_more(&self) -> bool {
        self.queue.is_open() && self.draining.is_none() && self.lost_queue.is_none()
    }

    /// First signal: hand out nothing more. Returns whether to stop at once, which the second one means.
    fn drain(&mut self, signal: Signal) -> bool {
        let again = self.draining.is_some();
        self.draining = Some(signal);
        if signal == Signal::Terminate {
            let given = Duration::from_secs_f64(self.host_config.record.job.run.drain_seconds);
            self.stop_at.get_or_insert(Instant::now() + given);
        }
        self.emit(Event::Draining {
            signal: signal.name().into(),
            shards: if again { 0 } else { self.queue.leased() },
        });
        again
    }

    async fn start(&mut self, device: String) -> Result<(), RunError> {
        let id = self.started;
        self.started += 1;
        let mut process = Process::start(id, self.signals.clone())?;
        self.emit(Event::WorkerStarted {
            worker: id,
            pid: process.pid,
            gpu: self.host_config.gpus.get(&device).cloned(),
            device: device.clone(),
            host: None,
        });
        let assignment = self.host_config.assignment(&device);
        process.send(&ToWorker::Job(Box::new(assignment))).await;
        self.workers.insert(id, Worker::new(process, device));
        Ok(())
    }

    /// Lets a worker go. Dropping it closes its standard input, which ends it, even while it is busy.
    fn end(&mut self, worker: WorkerId) {
        if self.workers.remove(&worker).is_some() {
            self.emit(Event::WorkerEnded { worker });
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each report")]
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
                worker.video_opened(&video);
                self.queue.opened(id, &video);
                self.emit(Event::Opened { worker: id, video });
            }
            FromWorker::Resumed { video, frame, again } => {
                self.queue.resumed(id, &video, frame);
                self.emit(Event::Resumed {
                    worker: id,
                    video,
                    frame,
                    again,
                });
            }
            FromWorker::Progress {
                frame,
                frames,
                rows,
                at_work,
            } => {
                worker.last_frame = frame;
                worker.at_work = at_work;
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
                fetched_bytes,
                adopted,
            } => {
                worker.release_shard();
                // Where nothing was decoded, workers may still be lost one after the other.
                if adopted || videos.iter().any(|video| video.frames > 0) {
                    self.losses = 0;
                    self.input_gone = None;
                    self.gpu_failures.retain(|(gpu, _)| *gpu != worker.device);
                }
                let planned = self.queue.done(id, &shard);
                for event in videos.iter().filter_map(NotOk::of).map(Event::from) {
                    self.emit(event);
                }
                let done = Event::ShardDone {
                    worker: id,
                    shard,
                    planned_frames: planned.map_or(0, |plan| plan.frames()),
                    frames: videos.iter().map(|video| video.frames).sum(),
                    rows,
                    ok: videos
                        .iter()
                        .filter(|video| video.status == VideoStatus::Ok)
                        .count(),
                    seconds,
                    fetched_bytes,
                    adopted,
                };
                self.emit(done);
                self.lease(id).await;
            }
            FromWorker::ReadInterrupted {
                video,
                trouble,
                needs_restart,
            } => {
                worker.release_shard();
                self.emit(Event::Warning {
                    message: format!("worker {id}: {}; its shard starts again", trouble.error),
                });
                self.give_back(id, Some((video, trouble)));
                sleep(START_BACKOFF).await;
                match self.workers.get(&id).map(|worker| worker.device.clone()) {
                    Some(device) if needs_restart => {
                        self.end(id);
                        if self.wants_more() {
                            self.start(device).await?;
                        }
                    }
                    _ => self.lease(id).await,
                }
            }
            FromWorker::InputGone { error } => {
                worker.release_shard();
                worker.idle_until = Some(Instant::now() + INPUT_GONE);
                self.give_back(id, None);
                let since = *self.input_gone.get_or_insert_with(Instant::now);
                if since.elapsed().as_secs_f64() >= self.host_config.record.job.run.outage_timeout {
                    return Err(RunError::InputGone { error });
                }
                self.waiting(id, WaitsFor::Recovery, format!("{error}; trying again"));
            }
            FromWorker::GpuFailed { error } => {
                worker.killed = Some(Killed {
                    why: KillCause::GpuFailed(error),
                    video: worker.video.clone(),
                });
                worker.process.kill();
            }
            FromWorker::Failed { error, retry: false } => {
                // For the coordinator; this host prints the error itself.
                if matches!(self.queue, Leases::Nats(_)) {
                    let message = format!("worker {id} stops: {error}");
                    self.emit(Event::Warning { message });
                }
                return Err(RunError::Worker { worker: id, error });
            }
            FromWorker::Failed { error, retry: true } => {
                worker.release_shard();
                self.give_back(id, None);
                self.count_loss(&error, Vec::new())?;
                self.emit(Event::Warning {
                    message: format!("worker {id}: {error}; trying again"),
                });
                sleep(START_BACKOFF).await;
                self.lease(id).await;
            }
            FromWorker::Waiting { on, reason } => self.waiting(id, on, reason),
            FromWorker::Warning { message } => {
                let message = format!("worker {id}: {message}");
                self.emit(Event::Warning { message });
            }
            FromWorker::Probed { .. } => {}
        }
        Ok(())
    }

    /// Gives workers another shard that waited for the input to come back.
    async fn wake(&mut self) {
        let now = Instant::now();
        let mut woken = Vec::new();
        for (id, worker) in &mut self.workers {
            if worker.idle_until.is_some_and(|end| now >= end) {
                worker.idle_until = None;
                woken.push(*id);
            }
        }
        for id in woken {
            self.lease(id).await;
        }
    }

    /// Asks for the next shard of an idle worker; with nothing left, the worker ends.
    async fn lease(&mut self, id: WorkerId) {
        let answer = if self.draining.is_some() || self.lost_queue.is_some() {
            Answer::Nothing
        } else {
            self.queue.ask(id)
        };
        match answer {
            Answer::Lease(lease) => self.hand(id, *lease).await,
            Answer::Later => {}
            // Another worker may still lose its shard: one idle worker per such shard is cheap to restart then.
            Answer::Nothing => self.end(id),
        }
    }

    /// Hands a shard to the worker that it was asked for.
    async fn hand(&mut self, id: WorkerId, mut lease: Lease) {
        let Some(worker) = self.workers.get_mut(&id).filter(|_| self.draining.is_none()) else {
            self.give_back(id, None);
            return;
        };
        lease.earlier.extend(self.host_config.earlier.of(&lease.shard));
        worker.shard = Some(lease.shard.id.clone());
        worker.last_sign = Instant::now();
        let event = Event::Leased {
            worker: id,
            shard: lease.shard.id.clone(),
            videos: lease.shard.videos.len(),
            frames: lease.shard.frames(),
            unknown: lease.shard.unknown(),
            again: self.queue.held(id).is_some_and(|(_, suspect)| suspect),
            machine: Some(OomRecord::now()),
        };
        worker.process.send(&ToWorker::Lease(Box::new(lease))).await;
        self.emit(event);
    }

    /// The worker's shard goes back; a strike counts against its video.
    fn give_back(&mut self, id: WorkerId, strike: Option<(VideoKey, Trouble)>) {
        let shard = self.queue.held(id).map(|(shard, _)| shard.clone());
        let struck = strike.clone();
        let strikes = self.queue.give_back(id, strike);
        if let (Some((video, trouble)), Some(strikes)) = (struck, strikes) {
            self.emit(Event::Strike {
                video,
                strikes,
                of: self.host_config.record.job.run.max_strikes,
                shard,
                trouble: Some(trouble),
            });
        }
        if self.workers.contains_key(&id) {
            self.emit(Event::GaveBack { worker: id });
        }
    }

    /// A worker process ended. When it was still needed its lease goes back, and its video may be struck.
    async fn lost(&mut self, id: WorkerId, exit: Exit) -> Result<(), RunError> {
        let Some(worker) = self.workers.remove(&id) else {
            return Ok(());
        };
        let outside = self.killed_from_outside(&worker, &exit);
        let suspect = worker.suspect();
        let why = worker.killed.map(|killed| killed.why);
        let gpu_failed = matches!(why, Some(KillCause::GpuFailed(_)));
        let (class, reason) = match why {
            Some(why) => (why.class(), why.to_string()),
            None if exit.signal() == Some(libc::SIGKILL) && !outside => {
                (ErrorClass::Crash, "killed by the kernel: out of memory".into())
            }
            None => (ErrorClass::Crash, exit.describe()),
        };
        self.emit(Event::WorkerLost {
            worker: id,
            reason: reason.clone(),
            video: suspect.as_ref().map(|(video, _)| video.clone()),
            last_frame: suspect.as_ref().and_then(|(_, frame)| *frame),
            last_words: exit.last_words.clone(),
        });
        if gpu_failed && let Some((video, _)) = &suspect {
            self.gpu_failures.insert((worker.device.clone(), video.clone()));
        }
        let strike = strike(suspect.filter(|_| !outside), class, &reason);
        self.give_back(id, strike);
        let failures = self.gpu_failures.iter().filter(|(gpu, _)| *gpu == worker.device);
        let sharing = self
            .host_config
            .devices
            .iter()
            .filter(|gpu| **gpu == worker.device);
        if gpu_failed && failures.count() >= MAX_GPU_FAILURES * sharing.count() {
            return Err(RunError::Worker {
                worker: id,
                error: reason,
            });
        }
        self.count_loss(&reason, exit.last_words)?;
        if !worker.ready {
            sleep(START_BACKOFF).await;
        }
        if self.wants_more() {
            self.start(worker.device).await?;
        }
        Ok(())
    }

    /// The video of a worker that an operator or a scheduler killed is not suspect; that of one that the kernel killed when out
    /// of memory is.
    fn killed_from_outside(&mut self, worker: &Worker, exit: &Exit) -> bool {
        if worker.killed.is_some() || !exit.is_from_outside() {
            return false;
        }
        let out_of_memory = exit.signal() == Some(libc::SIGKILL) && worker.out_of_memory();
        if out_of_memory {
            for other in self.workers.values_mut() {
                other.oom_was_another(&worker.oom.0);
            }
        }
        !out_of_memory
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

    /// A store keeps a worker waiting. If the store fails, a warning says so now and then.
    fn waiting(&mut self, id: WorkerId, on: WaitsFor, reason: String) {
        if let Some(worker) = self.workers.get_mut(&id) {
            // Time that a store takes is not the video's.
            worker.opened = Instant::now();
        }
        if on == WaitsFor::Recovery && self.outage.is_due() {
            let message = format!("worker {id} waits: {reason}");
            self.emit(Event::Warning { message });
        }
        self.emit(Event::Waiting { worker: id, reason });
    }

    fn kill_hung(&mut self) {
        let asleep = self.ticked.elapsed().saturating_sub(TICK);
        self.ticked = Instant::now();
        if asleep > 4 * TICK {
            let workers = self.workers.values_mut();
            workers.for_each(|worker| worker.extend_deadlines(asleep));
        }
        for worker in self.workers.values_mut() {
            if let Some(killed) = worker.overdue(&self.host_config.record.job.run) {
                worker.killed = Some(killed);
                worker.process.kill();
            }
        }
    }

    fn emit(&mut self, event: Event) {
        self.labelled.add(&event);
        (self.sink)(&event);
    }
}
