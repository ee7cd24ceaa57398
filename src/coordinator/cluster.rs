//! The run past one machine, as its coordinator sees it: shards go onto the NATS servers, workers on other hosts label them,
//! and this loop watches until every commit record is there. It may die and come back, or run twice: nobody waits for it
//! but the dataset's last files.

use super::heartbeat::{Pulse, REMINDER, Reminder};
use super::{Labelled, Prepared, RunError, Signal, Signals, Sink, blocking};
use affectmill_base::{RetryPolicy, ShardId};
use affectmill_labelset::events::Event;
use affectmill_labelset::{ShardPlan, paths};
use affectmill_queue::WorkerId;
use affectmill_queue::nats::NatsError;
use affectmill_queue::nats::{
    Address, Connection, HostEvent, PATIENCE, PostedJob, ShardMessage, ShardStream, State,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};

/// How often the queue is asked what waits.
const LOOK: Duration = Duration::from_secs(1);

/// How often posting the job is tried while the servers do not answer.
const POST: RetryPolicy = RetryPolicy::attempts(3, LOOK, LOOK);

/// Where a job's queue is; `None` for one without a server.
pub fn address(prepared: &Prepared) -> Option<Address> {
    let job = &prepared.record.job;
    Some(Address {
        servers: job.servers()?,
        job: job.run.name.clone()?,
        settings: job.nats.clone(),
    })
}

/// Posts the job and its shards, and watches until all are committed (`None`) or a signal ends the watching.
pub async fn run_cluster(
    prepared: &Prepared,
    address: Address,
    signals: &mut Signals,
    sink: Sink<'_>,
) -> Result<(Option<Signal>, Labelled), RunError> {
    let mut labelled = Labelled::default();
    let watched = signals.unless(watch(prepared, address, &mut labelled, sink));
    match watched.await {
        Ok(watched) => watched.map(|()| (None, labelled)),
        Err(signal) => Ok((Some(signal), labelled)),
    }
}

async fn watch(
    prepared: &Prepared,
    address: Address,
    labelled: &mut Labelled,
    sink: Sink<'_>,
) -> Result<(), RunError> {
    let (told, mut words) = mpsc::channel(16);
    let (job, servers) = (address.job.clone(), address.servers.join(","));
    let lease = Duration::from_secs_f64(address.settings.lease_seconds);
    let connection = Connection::open(address, PATIENCE, told).await?;
    let posting = PostedJob::new(prepared.record.clone(), prepared.input_root.clone());
    let set = posting.set();
    let (posted, mut stream) = begin(prepared, &connection, &posting).await?;
    let mut revision = Some(posted);
    let mut done = prepared.committed.clone();
    let mut full = stream.publish(orders(prepared, &set, &done)).await?.full;
    let shards = prepared.shards.len() - done.len();
    sink(&Event::Queued {
        job,
        queue: servers,
        shards,
    });

    let mut remote_workers = RemoteWorkers::new(lease);
    let mut clock = interval(LOOK);
    let mut pulse = Pulse::default();
    let mut outage = Reminder::default();
    loop {
        tokio::select! {
            told = stream.told() => {
                if let Event::ShardDone { shard, .. } = &told.event {
                    // A worker that lost its connection may report twice.
                    if !done.insert(shard.clone()) { continue }
                }
                labelled.add(&told.event);
                remote_workers.told(told, sink);
            }
            Some(message) = words.recv() => sink(&Event::Warning { message }),
            _ = clock.tick() => {
                pulse.beat(sink);
                remote_workers.forget_silent(sink);
                let posted = repost(prepared, &connection, &posting, &mut revision);
                let settled = async {
                    posted.await?;
                    settle(prepared, &set, &stream, &mut done, &mut full).await
                };
                match settled.await {
                    Ok(false) => {}
                    Ok(true) => break,
                    Err(
                        error @ RunError::Nats(
                            NatsError::Taken { .. } | NatsError::Version { .. } | NatsError::NoRoom { .. },
                        ),
                    ) => return Err(error),
                    // Workers continue without this process, and the server may come back.
                    Err(RunError::Nats(error)) => {
                        if outage.is_due() {
                            sink(&Event::Warning { message: format!("{error}; trying again") });
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    notify_finished(&connection, &posting, revision, REMINDER, sink).await;
    Ok(())
}

/// Posts the job with its weights, and makes its queue. An answer that a breaking connection lost is asked for again.
async fn begin(
    prepared: &Prepared,
    connection: &Connection,
    posting: &PostedJob,
) -> Result<(u64, ShardStream), NatsError> {
    let mut retry = POST.start();
    loop {
        let begun = async {
            let revision = connection.post(posting).await?;
            post_weights(prepared, connection).await?;
            Ok((revision, ShardStream::open(connection.clone()).await?))
        };
        let result = begun.await;
        let pause = match &result {
            Err(NatsError::JetStream { .. }) => retry.next_pause(),
            _ => None,
        };
        match pause {
            Some(pause) => sleep(pause).await,
            None => return result,
        }
    }
}

/// Notifies workers that the job is finished. If that fails in time, the next coordinator does it.
async fn notify_finished(
    connection: &Connection,
    posting: &PostedJob,
    mut revision: Option<u64>,
    patience: Duration,
    sink: Sink<'_>,
) {
    let mut retry = RetryPolicy::within(patience, LOOK, LOOK).start();
    while let Err(error) = connection.finished(posting, &mut revision).await {
        if matches!(error, NatsError::Version { .. }) {
            let message = format!("waiting workers were not notified that this job is finished: {error}");
            return sink(&Event::Warning { message });
        }
        let Some(pause) = retry.next_pause() else {
            let message = format!("{error}; the next `affectmill run` notifies waiting workers");
            return sink(&Event::Warning { message });
        };
        sleep(pause).await;
    }
}

/// Nothing is left to do. Workers that an earlier coordinator, which was killed, left waiting are told so; one that posts the
/// job again meanwhile has the last word.
pub async fn release(prepared: &Prepared, address: Address, sink: Sink<'_>) {
    let (told, _) = mpsc::channel(1);
    let posting = PostedJob::new(prepared.record.clone(), prepared.input_root.clone());
    match Connection::open(address, PATIENCE, told).await {
        Ok(connection) => notify_finished(&connection, &posting, None, PATIENCE, sink).await,
        Err(error) => sink(&Event::Warning {
            message: format!(
                "nothing is left to do, but waiting workers were not notified that this job is finished: {error}"
            ),
        }),
    }
}

/// Posts the job again where a server has lost it, somebody took it for finished, or it is not known whose word it is.
async fn repost(
    prepared: &Prepared,
    connection: &Connection,
    posting: &PostedJob,
    revision: &mut Option<u64>,
) -> Result<(), RunError> {
    match connection.posting().await? {
        Some(posted) if posted.state == State::Running && posted.set() != posting.set() => {
            Err(connection.taken(&posted).into())
        }
        Some(posted) if posted.state == State::Running && revision.is_some() => Ok(()),
        _ => {
            // Until the answer is here, the word may be ours or not, and the weights there or not.
            *revision = None;
            let posted = connection.post(posting).await?;
            post_weights(prepared, connection).await?;
            *revision = Some(posted);
            Ok(())
        }
    }
}

/// Whether all is committed. Shards that neither the queue nor a commit knows are put into the queue: it was full, or a server
/// lost them, or the commit.
async fn settle(
    prepared: &Prepared,
    set: &str,
    stream: &ShardStream,
    done: &mut BTreeSet<ShardId>,
    full: &mut bool,
) -> Result<bool, RunError> {
    let depth = stream.standing().await?;
    // Leased shards stay in the queue until they are done; published again, they are not queued twice.
    if depth.waiting > 0 || (depth.leased > 0 && !*full) {
        return Ok(false);
    }
    let store = prepared.store.clone();
    let listed = blocking(move || store.list(paths::COMMITS)).await??;
    let listed: HashSet<String> = listed.into_iter().map(|entry| entry.key).collect();
    let ids = prepared.shards.iter().map(|shard| &shard.id);
    *done = ids
        .filter(|id| listed.contains(&paths::commit(id)))
        .cloned()
        .collect();
    let mut left = orders(prepared, set, done).peekable();
    if left.peek().is_none() {
        return Ok(depth.leased == 0);
    }
    *full = stream.publish(left).await?.full;
    Ok(false)
}

/// The shards of the label set `set` that have no commit.
fn orders<'a>(
    prepared: &'a Prepared,
    set: &'a str,
    done: &BTreeSet<ShardId>,
) -> impl Iterator<Item = ShardMessage> + use<'a> {
    let mut open: Vec<&ShardPlan> = prepared.without(done).collect();
    open.sort_by(|a, b| a.longest_first(b));
    open.into_iter().map(move |shard| ShardMessage {
        set: set.to_owned(),
        earlier: prepared.earlier.of(shard),
        shard: prepared.handed_out(shard),
    })
}

/// Weights on this machine's disks go along with the job; those in S3 are fetched from there.
async fn post_weights(prepared: &Prepared, connection: &Connection) -> Result<(), NatsError> {
    let weights = prepared.record.weights();
    let here = weights.filter_map(|(location, sha256)| Some((sha256, location.as_local()?)));
    connection.post_weights(&here.collect::<Vec<_>>()).await
}

/// Workers on other hosts, under the numbers that this run's events give them.
struct RemoteWorkers {
    workers: BTreeMap<(String, u32, WorkerId), Remote>,
    next: WorkerId,
    lease: Duration,
}

struct Remote {
    number: WorkerId,
    busy: bool,
    heard: Instant,
}

impl RemoteWorkers {
    fn new(lease: Duration) -> Self {
        Self {
            workers: BTreeMap::new(),
            next: 0,
            lease,
        }
    }

    /// Passes on what a host tells.
    fn told(&mut self, told: HostEvent, sink: Sink<'_>) {
        let HostEvent { host, pid, mut event } = told;
        let Some(theirs) = event.worker_mut() else {
            match event {
                Event::Warning { message } => sink(&Event::Warning {
                    message: format!("{host}: {message}"),
                }),
                Event::VideoNotOk { .. } | Event::Strike { .. } => sink(&event),
                _ => {}
            }
            return;
        };
        let worker = (host.clone(), pid, *theirs);
        let is_new = !self.workers.contains_key(&worker);
        let next = &mut self.next;
        let remote = self.workers.entry(worker.clone()).or_insert_with(|| {
            *next += 1;
            Remote {
                number: *next - 1,
                busy: false,
                heard: Instant::now(),
            }
        });
        *theirs = remote.number;
        // One that began before this coordinator did.
        if is_new && !matches!(event, Event::WorkerStarted { .. } | Event::WorkerEnded { .. }) {
            sink(&Event::WorkerStarted {
                worker: remote.number,
                pid,
                device: String::new(),
                gpu: None,
                host: Some(host.clone()),
            });
        }
        remote.heard = Instant::now();
        match &mut event {
            Event::Leased { .. } => remote.busy = true,
            Event::ShardDone { .. } | Event::GaveBack { .. } => remote.busy = false,
            Event::WorkerStarted { host: from, .. } => *from = Some(host),
            Event::WorkerLost { .. } | Event::WorkerEnded { .. } => drop(self.workers.remove(&worker)),
            _ => {}
        }
        sink(&event);
    }

    /// Says of workers that have a shard, and of which nothing was heard for longer than a lease lasts, that they are lost.
    fn forget_silent(&mut self, sink: Sink<'_>) {
        let lease = self.lease;
        self.workers.retain(|(host, ..), remote| {
            let lost = remote.busy && remote.heard.elapsed() > lease;
            if lost {
                let seconds = lease.as_secs_f64();
                sink(&Event::WorkerLost {
                    worker: remote.number,
                    reason: format!(
                        "nothing was heard from {host} for {seconds} s; another worker gets its shard"
                    ),
                    video: None,
                    last_frame: None,
                    last_words: Vec::new(),
                });
            }
            !lost
        });
    }
}
