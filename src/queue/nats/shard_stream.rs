//! The queue as the coordinator sees it: shards go in, what workers tell comes out, and how many wait.

use super::{CONSUMER, Connection, HostEvent, NatsError, attempts};
use crate::EarlierVideo;
use affectmill_base::{RetryPolicy, VideoKey};
use affectmill_labelset::ShardPlan;
use async_nats::Subscriber;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::time::Duration;
use tokio::time::sleep;

/// Shards on their way to the server at a time.
const AT_ONCE: usize = 512;

/// How often a shard is sent before the server counts as lost.
const SEND: RetryPolicy = attempts(60);

/// Bytes of a shard's description before it is compressed: 512 videos with the longest names that a disk takes are a tenth of it.
const MOST_TEXT: u64 = 64 << 20;

/// Above every number that a host tells of one shard: bytes of its videos, most of all.
const MOST_TOLD: f64 = 1e12;

/// Leases and requests that one job may have open: more than there are workers.
const MOST_OPEN: i64 = 65_536;

/// One shard to be labelled, as it lies in the stream: JSON, zstd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardMessage {
    /// The label set's, as [`super::PostedJob::set`] names it.
    pub set: String,
    /// The shard.
    pub shard: ShardPlan,
    /// Where an earlier run's faces of each video are.
    pub earlier: BTreeMap<VideoKey, EarlierVideo>,
}

impl ShardMessage {
    /// Reads one; `None` when it is none, or too long for one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut text = Vec::new();
        let decoder = zstd::Decoder::new(bytes).ok()?;
        decoder.take(MOST_TEXT).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self) -> std::io::Result<Vec<u8>> {
        zstd::encode_all(serde_json::to_vec(self)?.as_slice(), 0)
    }
}

/// What became of shards that were to be put into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Shards that were not there before.
    pub new: usize,
    /// Further ones found no room, as long as these are there.
    pub full: bool,
}

/// What the stream says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// Shards that wait for a worker.
    pub waiting: u64,
    /// Shards in workers' hands.
    pub leased: u64,
}

/// The coordinator's side of the queue.
#[derive(Debug)]
pub struct ShardStream {
    connection: Connection,
    events: Subscriber,
}

impl ShardStream {
    /// Listens to the workers, and makes the stream unless it is there.
    ///
    /// # Errors
    /// [`NatsError::JetStream`].
    pub async fn open(connection: Connection) -> Result<Self, NatsError> {
        let listening = connection.client.subscribe(connection.events_subject()).await;
        let events = listening.map_err(connection.failed("listen to the workers"))?;
        let stream = Self { connection, events };
        stream.make_stream().await?;
        Ok(stream)
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
            max_bytes: connection.max_bytes(),
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
        let account = jetstream.query_account().await;
        let limits = account.map_err(connection.failed("make the queue"))?.limits;
        let most_open = match limits.max_ack_pending {
            ..=0 => MOST_OPEN,
            limit => limit.min(MOST_OPEN),
        };
        let consumer = pull::Config {
            durable_name: Some(CONSUMER.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs_f64(settings.lease_seconds),
            // Strikes end a bad shard; what befell a good one is no reason to drop it.
            max_deliver: -1,
            max_ack_pending: most_open,
            max_waiting: MOST_OPEN,
            num_replicas: settings.replicas,
            ..pull::Config::default()
        };
        let made = jetstream
            .create_consumer_on_stream(consumer, connection.name())
            .await;
        made.map(drop).map_err(connection.failed("make the queue"))
    }

    /// Puts shards into the queue until it is full; those that are there already stay as they are.
    ///
    /// # Errors
    /// [`NatsError`]; shards that were put in stay there. [`NatsError::NoRoom`] when a queue without a shard takes none.
    pub async fn publish(&self, orders: impl Iterator<Item = ShardMessage>) -> Result<Published, NatsError> {
        let mut under_way = FuturesUnordered::new();
        let mut new = 0;
        let mut full = None;
        for order in orders {
            if under_way.len() == AT_ONCE {
                count(under_way.next().await, &mut new, &mut full)?;
            }
            if full.is_some() {
                break;
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
            count(Some(put), &mut new, &mut full)?;
        }
        if let Some(cause) = &full {
            let standing = self.standing().await?;
            if standing.waiting + standing.leased == 0 {
                return Err(NatsError::NoRoom {
                    servers: self.connection.servers(),
                    cause: cause.clone(),
                });
            }
        }
        Ok(Published {
            new,
            full: full.is_some(),
        })
    }

    /// Puts one shard in.
    async fn put(&self, subject: String, text: bytes::Bytes) -> Result<Put, NatsError> {
        let jetstream = &self.connection.jetstream;
        let mut retry = SEND.start();
        loop {
            let put = async { jetstream.publish(subject.clone(), text.clone()).await?.await };
            let error = match put.await {
                Ok(_) => return Ok(Put::New),
                Err(error) if is_refused(&error, MAXIMUM_MESSAGES) => return Ok(Put::There),
                Err(error) if is_full(&error) => return Ok(Put::Full(error.to_string())),
                Err(error) => error,
            };
            let Some(pause) = retry.next_pause() else {
                return Err(self.connection.failed("take a shard")(error));
            };
            sleep(pause).await;
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
    pub async fn standing(&self) -> Result<QueueDepth, NatsError> {
        if let Ok(standing) = self.connection.standing().await {
            return Ok(standing);
        }
        self.make_stream().await?;
        self.connection.standing().await
    }

    /// What workers tell next.
    pub async fn told(&mut self) -> HostEvent {
        loop {
            match self.events.next().await {
                Some(message) => {
                    if let Some(told) = read_told(&message.payload) {
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
    pub async fn standing(&self) -> Result<QueueDepth, NatsError> {
        let consumer = self.consumer().await?;
        let info = consumer.cached_info();
        Ok(QueueDepth {
            waiting: info.num_pending,
            leased: info.num_ack_pending as u64,
        })
    }
}

/// What a host tells; `None` for what is none, or cannot be true: such numbers would only make sums overflow.
fn read_told(bytes: &[u8]) -> Option<HostEvent> {
    fn may_be_true(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_f64().is_none_or(|number| number.abs() < MOST_TOLD),
            Value::Array(items) => items.iter().all(may_be_true),
            Value::Object(entries) => entries.values().all(may_be_true),
            Value::Null | Value::Bool(_) | Value::String(_) => true,
        }
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    may_be_true(&value)
        .then(|| serde_json::from_value(value).ok())
        .flatten()
}

/// What became of one shard that was put in.
enum Put {
    New,
    There,
    /// The server has no room, and says why.
    Full(String),
}

fn count(
    put: Option<Result<Put, NatsError>>,
    new: &mut usize,
    full: &mut Option<String>,
) -> Result<(), NatsError> {
    match put.transpose()? {
        Some(Put::New) => *new += 1,
        Some(Put::Full(cause)) => *full = Some(cause),
        Some(Put::There) | None => {}
    }
    Ok(())
}

/// What a stream says of a message that it does not store.
const MAXIMUM_MESSAGES: &str = "maximum messages per subject";
const MAXIMUM_BYTES: &str = "maximum bytes";

fn jetstream_error(error: &PublishError) -> Option<&async_nats::jetstream::Error> {
    error.source()?.downcast_ref()
}

/// Whether the stream refused a message for this reason.
fn is_refused(error: &PublishError, reason: &str) -> bool {
    jetstream_error(error).is_some_and(|error| {
        error.error_code() == ErrorCode::STREAM_STORE_FAILED && error.to_string().contains(reason)
    })
}

/// Whether stream, account or server have no room.
fn is_full(error: &PublishError) -> bool {
    let limits = [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ];
    is_refused(error, MAXIMUM_BYTES)
        || jetstream_error(error).is_some_and(|error| limits.contains(&error.error_code()))
}
