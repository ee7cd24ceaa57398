//! The queue as the coordinator sees it: shards go in, what workers tell comes out, and how many wait.

use super::{CONSUMER, Connection, NatsError, PAUSE, Told};
use crate::dataset::ShardPlan;
use crate::domain::VideoKey;
use crate::queue::EarlierVideo;
use async_nats::Subscriber;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;
use tokio::time::sleep;

/// Shards on their way to the server at a time.
const AT_ONCE: usize = 512;

/// How often a shard is sent before the server counts as lost.
const TRIES: usize = 60;

/// Leases and requests that one job may have open: more than there are workers.
const MOST_OPEN: i64 = 65_536;

/// One shard to be labelled, as it lies in the stream: JSON, zstd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The label set's, as [`super::Posting::set`] names it.
    pub set: String,
    /// The shard.
    pub shard: ShardPlan,
    /// Where an earlier run's faces of each video are.
    pub earlier: BTreeMap<VideoKey, EarlierVideo>,
}

impl Order {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let text = zstd::decode_all(bytes).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self) -> std::io::Result<Vec<u8>> {
        zstd::encode_all(serde_json::to_vec(self)?.as_slice(), 0)
    }
}

/// What the stream says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Shards that wait for a worker.
    pub waiting: u64,
    /// Shards in workers' hands.
    pub leased: u64,
}

/// The coordinator's side of the queue.
#[derive(Debug)]
pub struct Board {
    connection: Connection,
    events: Subscriber,
}

impl Board {
    /// Listens to the workers, and makes the stream unless it is there.
    ///
    /// # Errors
    /// [`NatsError::JetStream`].
    pub async fn open(connection: Connection) -> Result<Self, NatsError> {
        let listening = connection.client.subscribe(connection.events_subject()).await;
        let events = listening.map_err(connection.failed("listen to the workers"))?;
        let board = Self { connection, events };
        board.make_stream().await?;
        Ok(board)
    }

    async fn make_stream(&self) -> Result<(), NatsError> {
        let Self { connection, .. } = self;
        let settings = &connection.address.settings;
        let config = stream::Config {
            name: connection.name(),
            description: Some("affectmill: shards to be labelled".into()),
            subjects: vec![connection.shard_subject("*")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            // A shard that is there already is not taken again.
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            ..stream::Config::default()
        };
        let jetstream = &connection.jetstream;
        let made = jetstream.create_or_update_stream(config).await;
        made.map_err(connection.failed("make the queue"))?;
        let consumer = pull::Config {
            durable_name: Some(CONSUMER.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs_f64(settings.lease_seconds),
            // Strikes end a bad shard; what befell a good one is no reason to drop it.
            max_deliver: -1,
            max_ack_pending: MOST_OPEN,
            max_waiting: MOST_OPEN,
            num_replicas: settings.replicas,
            ..pull::Config::default()
        };
        let made = jetstream
            .create_consumer_on_stream(consumer, connection.name())
            .await;
        made.map(drop).map_err(connection.failed("make the queue"))
    }

    /// Puts shards into the queue; those that are there already stay as they are. Returns how many are new.
    ///
    /// # Errors
    /// [`NatsError`]; shards that were put in stay there.
    pub async fn publish(&self, orders: impl Iterator<Item = Order>) -> Result<usize, NatsError> {
        let mut under_way = FuturesUnordered::new();
        let mut new = 0;
        for order in orders {
            if under_way.len() == AT_ONCE {
                new += usize::from(under_way.next().await.unwrap_or(Ok(false))?);
            }
            let text = order.write().map_err(self.connection.failed("take a shard"))?;
            let most = self.connection.client.server_info().max_payload;
            if text.len() > most {
                return Err(NatsError::TooLong {
                    shard: order.shard.id,
                    bytes: text.len(),
                    most,
                });
            }
            under_way.push(self.put(
                self.connection.shard_subject(order.shard.id.as_str()),
                text.into(),
            ));
        }
        while let Some(put) = under_way.next().await {
            new += usize::from(put?);
        }
        Ok(new)
    }

    /// Puts one shard in; whether it is new.
    async fn put(&self, subject: String, text: bytes::Bytes) -> Result<bool, NatsError> {
        let jetstream = &self.connection.jetstream;
        let mut tries = 0;
        loop {
            let put = async { jetstream.publish(subject.clone(), text.clone()).await?.await };
            let error = match put.await {
                Ok(_) => return Ok(true),
                Err(error) if is_there(&error) => return Ok(false),
                Err(error) => error,
            };
            tries += 1;
            if tries == TRIES {
                return Err(self.connection.failed("take a shard")(error));
            }
            sleep(PAUSE).await;
            if matches!(
                error.kind(),
                async_nats::jetstream::context::PublishErrorKind::StreamNotFound
            ) {
                self.make_stream().await?;
            }
        }
    }

    /// What waits and what is in hand. A stream that the server has lost is made anew, empty.
    ///
    /// # Errors
    /// [`NatsError::JetStream`]: the server does not answer.
    pub async fn standing(&self) -> Result<Standing, NatsError> {
        if let Ok(standing) = self.connection.standing().await {
            return Ok(standing);
        }
        self.make_stream().await?;
        self.connection.standing().await
    }

    /// What workers tell next.
    pub async fn told(&mut self) -> Told {
        loop {
            match self.events.next().await {
                Some(message) => {
                    if let Ok(told) = serde_json::from_slice(&message.payload) {
                        return told;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

impl Connection {
    /// What waits and what is in hand.
    ///
    /// # Errors
    /// [`NatsError::JetStream`]: the server does not answer, or has no such queue.
    pub async fn standing(&self) -> Result<Standing, NatsError> {
        let consumer = self.consumer().await?;
        let info = consumer.cached_info();
        Ok(Standing {
            waiting: info.num_pending,
            leased: info.num_ack_pending as u64,
        })
    }
}

/// Whether the server refused a shard because it has it.
fn is_there(error: &PublishError) -> bool {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    source.is_some_and(|error| {
        error.error_code() == ErrorCode::STREAM_STORE_FAILED
            && error.to_string().contains("maximum messages per subject")
    })
}
