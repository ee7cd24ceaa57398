//! The lease contract, whoever keeps the queue: ask for a lease, say what became of it.

use super::local::LocalQueue;
use super::nats::{NatsError, NatsLeases};
use super::{Lease, WorkerId};
use affectmill_base::Trouble;
use affectmill_base::{FrameIndex, ShardId, VideoKey};
use affectmill_labelset::ShardPlan;
use std::time::Duration;

/// The queue as the dispatcher of one host sees it.
#[derive(Debug)]
pub enum Leases {
    /// In the coordinator's memory.
    Local(LocalQueue),
    /// On NATS servers.
    Nats(NatsLeases),
}

/// What a worker that asks for a lease is told.
#[derive(Debug)]
pub enum Answer {
    /// Here it is.
    Lease(Box<Lease>),
    /// It will arrive.
    Later,
    /// Nothing is left that is not in somebody's hands.
    Nothing,
}

/// What comes from the queue by itself.
#[derive(Debug)]
pub enum Arrival {
    /// The lease that this worker asked for.
    Lease(WorkerId, Box<Lease>),
    /// Every shard is done.
    Finished,
    /// The queue is out of order for the time being.
    Trouble(NatsError),
    /// The way to it was lost, or is there again.
    Word(String),
    /// It has been out of order for too long.
    Lost(NatsError),
}

impl Leases {
    /// Asks for this worker's next lease. A worker holds one at a time.
    pub fn ask(&mut self, worker: WorkerId) -> Answer {
        match self {
            Self::Local(queue) => match queue.lease(worker) {
                Some(lease) => Answer::Lease(Box::new(lease)),
                None if queue.waiting() > 0 => {
                    queue.remember(worker);
                    Answer::Later
                }
                None => Answer::Nothing,
            },
            Self::Nats(queue) => {
                queue.ask(worker);
                Answer::Later
            }
        }
    }

    /// What comes next from the queue; waits for ever where nothing does.
    pub async fn arrival(&mut self) -> Arrival {
        match self {
            // What is done with or comes back wakes the loop that asks.
            Self::Local(queue) => match queue.next_asked() {
                Some((worker, lease)) => Arrival::Lease(worker, Box::new(lease)),
                None => std::future::pending().await,
            },
            Self::Nats(queue) => queue.arrival().await,
        }
    }

    /// The worker opened a video of its shard.
    pub fn opened(&mut self, worker: WorkerId, video: &VideoKey) {
        match self {
            Self::Local(_) => {}
            Self::Nats(queue) => queue.opened(worker, video),
        }
    }

    /// The worker goes on with a video at this frame.
    pub fn resumed(&mut self, worker: WorkerId, video: &VideoKey, frame: FrameIndex) {
        match self {
            Self::Local(queue) => queue.resumed(worker, video, frame),
            Self::Nats(queue) => queue.resumed(worker, video, frame),
        }
    }

    /// The shard in this worker's hands, and whether a death of which nobody could tell is held against its videos.
    pub fn held(&self, worker: WorkerId) -> Option<(&ShardId, bool)> {
        match self {
            Self::Local(queue) => {
                let shard = queue.held(worker)?;
                Some((shard, queue.is_suspect(shard)))
            }
            Self::Nats(queue) => queue.held(worker),
        }
    }

    /// The worker's shard is committed. Returns its plan, or `None` when the worker held no such lease.
    pub fn done(&mut self, worker: WorkerId, shard: &ShardId) -> Option<ShardPlan> {
        match self {
            Self::Local(queue) => queue.done(worker, shard),
            Self::Nats(queue) => queue.done(worker, shard),
        }
    }

    /// The worker lost or gave back its lease: the shard waits again, and a strike counts against its video. Returns how many
    /// strikes that has now.
    pub fn give_back(&mut self, worker: WorkerId, strike: Option<(VideoKey, Trouble)>) -> Option<usize> {
        match self {
            Self::Local(queue) => queue.give_back(worker, strike),
            Self::Nats(queue) => queue.give_back(worker, strike),
        }
    }

    /// Leases in the hands of this host's workers.
    pub fn leased(&self) -> usize {
        match self {
            Self::Local(queue) => queue.leased(),
            Self::Nats(queue) => queue.leased(),
        }
    }

    /// Whether there may be leases to come.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Local(queue) => queue.waiting() > 0,
            Self::Nats(queue) => queue.is_open(),
        }
    }

    /// Asks for no more; gives back what is still held, for others after `pause`, and waits a moment for what is on its way to the
    /// queue.
    pub async fn close(self, pause: Option<Duration>) {
        match self {
            Self::Local(_) => {}
            Self::Nats(queue) => queue.close(pause).await,
        }
    }
}
