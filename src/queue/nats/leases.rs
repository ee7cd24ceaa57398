//! The queue as one host sees it: leases pulled from JetStream, kept alive while the host lives, and acknowledged.
//!
//! Nothing here waits for a server on the dispatcher's time: each pull, note and acknowledgement is a task of its own.

use super::posted_job::{PostedJob, State};
use super::shard_stream::ShardMessage;
use super::troubles::ShardTroubles;
use super::{Connection, NatsError, PATIENCE, attempts, within};
use crate::{Arrival, Lease, WorkerId};
use affectmill_base::Trouble;
use affectmill_base::{FrameIndex, ShardId, VideoKey};
use affectmill_base::{OomRecord, Retry, RetryPolicy};
use affectmill_labelset::ShardPlan;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::{AckKind, Acker};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout};

/// What is asked of the servers, as errors say it.
const WHAT: &str = "give a shard";

/// How long one request for a shard waits at the server; then the state of the job is looked at.
const WAIT: Duration = Duration::from_secs(5);

/// Pause before a shard with a strike comes again, so that its trouble may pass.
const STRUCK: Duration = Duration::from_millis(500);

/// How long a host that ends waits for its last notifications to be taken.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often a notification of the queue is sent. If it is lost all the same, the lease expires.
const NOTIFY: RetryPolicy = attempts(20);

/// How often the warning that the queue fails is repeated.
const REMINDER: Duration = Duration::from_secs(60);

/// Leases of one host.
#[derive(Debug)]
pub struct NatsLeases {
    shared: Arc<Shared>,
    arrivals: mpsc::Receiver<Pull>,
    connection_words: mpsc::Receiver<String>,
    asking: HashMap<WorkerId, AbortHandle>,
    held: HashMap<WorkerId, Box<HeldLease>>,
    words: JoinSet<()>,
    finished: bool,
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    set: String,
    max_strikes: u32,
    lease_seconds: f64,
    /// How long the servers may be out of reach.
    patience: Duration,
    /// Found once for all workers of the host; looked for again after trouble.
    consumer: Mutex<Option<PullConsumer>>,
    arrivals: mpsc::Sender<Pull>,
    /// The right to hold a shard that may take the whole host down.
    suspects: Arc<Semaphore>,
}

/// What a pull ended with.
#[derive(Debug)]
enum Pull {
    Shard(WorkerId, Box<Lease>, Box<HeldLease>),
    Finished,
    Trouble(NatsError),
    Lost(NatsError),
}

/// A lease in a worker's hands.
struct HeldLease {
    shard: ShardPlan,
    delivery: u64,
    troubles: ShardTroubles,
    acker: Arc<Acker>,
    beat: Heartbeat,
    /// The last note on what it opened.
    note: Option<JoinHandle<()>>,
    /// Of a suspect.
    turn: Option<OwnedSemaphorePermit>,
}

impl HeldLease {
    /// Notes what happens to it, after what was noted before.
    fn note(&mut self, shared: &Arc<Shared>, change: impl Fn(&mut ShardTroubles) + Send + Sync + 'static) {
        let (shared, shard, earlier) = (shared.clone(), self.shard.id.clone(), self.note.take());
        self.note = Some(tokio::spawn(async move {
            settled(earlier).await;
            let _ = shared.connection.change_troubles(shard.as_str(), change).await;
        }));
    }
}

impl fmt::Debug for HeldLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, delivery, .. } = self;
        write!(f, "Held({}, delivery {delivery})", shard.id)
    }
}

impl NatsLeases {
    /// Leases of a posted job; `words` is what the connection tells of itself.
    pub fn new(connection: Connection, posting: &PostedJob, words: mpsc::Receiver<String>) -> Self {
        let job = &posting.record.job;
        let (sender, arrivals) = mpsc::channel(64);
        Self {
            shared: Arc::new(Shared {
                connection,
                set: posting.set(),
                max_strikes: job.run.max_strikes,
                patience: Duration::from_secs_f64(job.run.outage_timeout),
                lease_seconds: job.nats.lease_seconds,
                consumer: Mutex::default(),
                arrivals: sender,
                suspects: Arc::new(Semaphore::new(1)),
            }),
            arrivals,
            connection_words: words,
            asking: HashMap::new(),
            held: HashMap::new(),
            words: JoinSet::new(),
            finished: false,
        }
    }

    /// Asks for a lease for this worker; it will arrive.
    pub fn ask(&mut self, worker: WorkerId) {
        while self.words.try_join_next().is_some() {}
        let pull = tokio::spawn(self.shared.clone().pull(worker));
        if let Some(before) = self.asking.insert(worker, pull.abort_handle()) {
            before.abort();
        }
    }

    /// What comes next; waits for ever when nothing was asked for.
    pub async fn arrival(&mut self) -> Arrival {
        loop {
            let arrived = tokio::select! {
                arrived = self.arrivals.recv() => arrived,
                Some(word) = self.connection_words.recv() => return Arrival::Word(word),
            };
            match arrived {
                Some(Pull::Shard(worker, lease, held)) => {
                    self.asking.remove(&worker);
                    self.held.insert(worker, held);
                    return Arrival::Lease(worker, lease);
                }
                Some(Pull::Trouble(error)) => return Arrival::Trouble(error),
                Some(Pull::Lost(error)) => return Arrival::Lost(error),
                Some(Pull::Finished) if self.finished => {}
                Some(Pull::Finished) => {
                    self.finished = true;
                    return Arrival::Finished;
                }
                None => std::future::pending().await,
            }
        }
    }

    /// The worker opened a video. Worth a note once the shard has come back before.
    pub fn opened(&mut self, worker: WorkerId, video: &VideoKey) {
        let Some(held) = self.held.get_mut(&worker).filter(|held| held.delivery > 1) else {
            return;
        };
        let (video, delivery, here) = (video.clone(), held.delivery, OomRecord::now());
        held.note(&self.shared, move |troubles| {
            troubles.opened(&video, delivery, &here)
        });
    }

    /// The worker goes on with a video at this frame.
    pub fn resumed(&mut self, worker: WorkerId, video: &VideoKey, frame: FrameIndex) {
        if let Some(held) = self.held.get_mut(&worker).filter(|held| held.delivery > 1) {
            let video = video.clone();
            held.note(&self.shared, move |troubles| troubles.resumed(&video, frame));
        }
    }

    /// The shard in this worker's hands, and whether a silent loss is held against its videos.
    pub fn held(&self, worker: WorkerId) -> Option<(&ShardId, bool)> {
        let held = self.held.get(&worker)?;
        Some((&held.shard.id, held.troubles.strikes.is_suspect()))
    }

    /// The worker's shard is committed: it is acknowledged.
    pub fn done(&mut self, worker: WorkerId, shard: &ShardId) -> Option<ShardPlan> {
        let held = self.held.remove(&worker)?;
        if held.shard.id != *shard {
            self.held.insert(worker, held);
            self.give_back(worker, None);
            return None;
        }
        let HeldLease {
            shard,
            acker,
            beat,
            note,
            ..
        } = *held;
        self.words.spawn(async move {
            settled(note).await;
            notify(|| acker.double_ack()).await;
            drop(beat);
        });
        Some(shard)
    }

    /// The worker lost or gave back its lease; what is held against a video is noted before the shard may come again.
    pub fn give_back(&mut self, worker: WorkerId, strike: Option<(VideoKey, Trouble)>) -> Option<usize> {
        let pause = strike.is_some().then_some(STRUCK);
        self.give_back_after(worker, strike, pause)
    }

    fn give_back_after(
        &mut self,
        worker: WorkerId,
        strike: Option<(VideoKey, Trouble)>,
        pause: Option<Duration>,
    ) -> Option<usize> {
        if let Some(asking) = self.asking.remove(&worker) {
            asking.abort();
        }
        let mut held = self.held.remove(&worker)?;
        let strikes = strike
            .as_ref()
            .map(|(video, trouble)| held.troubles.strikes.add(video, trouble.clone()));
        let shared = self.shared.clone();
        self.words.spawn(async move {
            settled(held.note.take()).await;
            shared.note(&held.shard.id, held.delivery, strike.clone()).await;
            notify(|| held.acker.ack_with(AckKind::Nak(pause))).await;
            drop(held.beat);
        });
        strikes
    }

    /// Leases in the hands of this host's workers.
    pub fn leased(&self) -> usize {
        self.held.len()
    }

    /// Whether the job has work.
    pub fn is_open(&self) -> bool {
        !self.finished
    }

    /// Gives back what is held, and what arrived and was not handed out, to be handed out again after `pause`; waits a moment for
    /// what is on its way.
    pub async fn close(mut self, pause: Option<Duration>) {
        for (_, asking) in self.asking.drain() {
            asking.abort();
        }
        self.arrivals.close();
        while let Ok(arrived) = self.arrivals.try_recv() {
            if let Pull::Shard(worker, _, held) = arrived {
                self.held.insert(worker, held);
            }
        }
        let workers: Vec<WorkerId> = self.held.keys().copied().collect();
        for worker in workers {
            self.give_back_after(worker, None, pause);
        }
        let last = async {
            while self.words.join_next().await.is_some() {}
            let _ = self.shared.connection.client.flush().await;
        };
        let _ = timeout(FAREWELL, last).await;
    }
}

/// Notifies the queue; retries while the servers do not take it.
async fn notify<T, E, F: Future<Output = Result<T, E>>>(send: impl Fn() -> F) {
    let mut retry = NOTIFY.start();
    while send().await.is_err()
        && let Some(pause) = retry.next_pause()
    {
        sleep(pause).await;
    }
}

async fn settled(note: Option<JoinHandle<()>>) {
    if let Some(note) = note {
        let _ = note.await;
    }
}

impl Shared {
    /// Waits for a shard, retrying while the servers fail, until the job is finished.
    async fn pull(self: Arc<Self>, worker: WorkerId) {
        let (mut outage, mut warned) = (None::<Retry>, None::<Instant>);
        let pull = loop {
            // A client without a connection takes every request, and only does not answer.
            let next = timeout(WAIT + PATIENCE, self.next()).await;
            let next = next.unwrap_or_else(|late| Err(self.connection.failed(WHAT)(late)));
            if let Ok(Some((lease, mut held))) = next {
                // Of the suspects one at a time, so that it shows which of them takes the host down.
                if held.troubles.strikes.is_suspect() {
                    held.turn = self.suspects.clone().acquire_owned().await.ok();
                }
                break Pull::Shard(worker, Box::new(lease), Box::new(held));
            }
            let posting = timeout(PATIENCE, self.connection.posting()).await;
            let posting = posting.unwrap_or_else(|late| Err(self.connection.failed(WHAT)(late)));
            let error = match (next, posting) {
                // Also when the name belongs to another job by now.
                (_, Ok(Some(posting))) if posting.state == State::Finished || posting.set() != self.set => {
                    break Pull::Finished;
                }
                (Err(error), _) | (_, Err(error)) => error,
                // A server that lost everything; a coordinator will post it again.
                (_, Ok(None)) => self.connection.no_job(),
                (_, Ok(Some(_))) => {
                    outage = None;
                    continue;
                }
            };
            let retry = outage.get_or_insert_with(|| within(self.patience).start());
            let Some(pause) = retry.next_pause() else {
                break Pull::Lost(error);
            };
            if warned.is_none_or(|warned| warned.elapsed() >= REMINDER) {
                warned = Some(Instant::now());
                let _ = self.arrivals.try_send(Pull::Trouble(error));
            }
            *self.consumer.lock().await = None;
            sleep(pause).await;
        };
        let _ = self.arrivals.send(pull).await;
    }

    /// The next shard, if one comes in time.
    async fn next(&self) -> Result<Option<(Lease, HeldLease)>, NatsError> {
        let connection = &self.connection;
        let consumer = self.consumer().await?;
        let pull = consumer.batch().max_messages(1).expires(WAIT).messages().await;
        let mut messages = pull.map_err(connection.failed(WHAT))?;
        let message = match messages.next().await {
            None => return Ok(None),
            Some(message) => message.map_err(connection.failed(WHAT))?,
        };
        let delivery = message.info().map_err(connection.failed(WHAT))?.delivered;
        let delivery = u64::try_from(delivery).unwrap_or(1);
        let (message, acker) = message.split();
        let Some(order) = ShardMessage::read(&message.payload) else {
            // No order at all: nobody can do anything with it.
            let _ = acker.ack_with(AckKind::Term).await;
            return Ok(None);
        };
        if order.set != self.set {
            // The name was given to another job. This host will find out; others there want the shard.
            let _ = acker.ack_with(AckKind::Nak(Some(STRUCK))).await;
            return Ok(None);
        }
        let ShardMessage { shard, earlier, .. } = order;
        let troubles = match delivery {
            ..=1 => ShardTroubles::default(),
            _ => {
                let (id, here) = (shard.id.as_str(), OomRecord::now());
                let only = match shard.videos.as_slice() {
                    [video] => Some(&video.key),
                    _ => None,
                };
                connection
                    .change_troubles(id, |troubles| troubles.delivered(delivery, only, &here))
                    .await?
            }
        };
        let videos = shard.videos.iter().map(|video| &video.key);
        let lease = Lease {
            quarantined: troubles.strikes.quarantined(videos, self.max_strikes),
            shard: shard.clone(),
            next: None,
            earlier,
        };
        let acker = Arc::new(acker);
        let held = HeldLease {
            shard,
            delivery,
            troubles,
            beat: beat(acker.clone(), self.lease_seconds),
            acker,
            note: None,
            turn: None,
        };
        Ok(Some((lease, held)))
    }

    async fn consumer(&self) -> Result<PullConsumer, NatsError> {
        let mut known = self.consumer.lock().await;
        if let Some(consumer) = &*known {
            return Ok(consumer.clone());
        }
        let consumer = self.connection.consumer().await?;
        *known = Some(consumer.clone());
        Ok(consumer)
    }

    async fn note(&self, shard: &ShardId, delivery: u64, strike: Option<(VideoKey, Trouble)>) {
        let ended = |troubles: &mut ShardTroubles| troubles.ended(delivery, strike.clone());
        notify(|| self.connection.change_troubles(shard.as_str(), ended)).await;
    }
}

/// Says that a lease is held, several times before it would end, until it is dropped.
#[derive(Debug)]
struct Heartbeat(AbortHandle);

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn beat(acker: Arc<Acker>, lease_seconds: f64) -> Heartbeat {
    let beat = tokio::spawn(async move {
        let mut clock = interval(Duration::from_secs_f64(lease_seconds / 3.0));
        clock.tick().await;
        loop {
            clock.tick().await;
            let _ = acker.ack_with(AckKind::Progress).await;
        }
    });
    Heartbeat(beat.abort_handle())
}
