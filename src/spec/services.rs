//! The sections of a job file that say how servers are reached: `[s3]` and `[nats]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[s3]`: how `s3://` locations are reached. Credentials never stand here: they come from the environment, the profiles
/// in `~/.aws`, single sign-on, a web identity, or the machine's role, as with other AWS tools, and are refreshed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Settings {
    /// Server, such as `http://127.0.0.1:9000`, of reads and writes alike. Default: none; `AWS_ENDPOINT_URL_S3`,
    /// `AWS_ENDPOINT_URL` or the profile's, else AWS.
    pub endpoint: Option<String>,
    /// Region. Default: none; `AWS_REGION`, the profile's or the machine's, else `us-east-1`.
    pub region: Option<String>,
    /// Profile in `~/.aws`. Default: none; `AWS_PROFILE`, else the default profile.
    pub profile: Option<String>,
    /// Whether the bucket goes into the path of a request instead of the host name. Default: none; yes where a server
    /// is named, no for AWS.
    pub path_style: Option<bool>,
    /// Public buckets, read without signature. Default: `[]`.
    pub unsigned: Vec<String>,
}

/// `[nats]`: how the servers of `run.queue` are reached, and limits for them. A user's name and password come from the
/// environment, `NATS_USER` and `NATS_PASSWORD`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsSettings {
    /// Credentials file of the user (`.creds`). A path like `input.uri`. Default: none; `NATS_CREDS`, else none.
    pub credentials: Option<PathBuf>,
    /// File with the certificates (PEM) that the servers' are signed by. A path like `input.uri`. Default: none; those of the
    /// system.
    pub ca: Option<PathBuf>,
    /// First part of the subjects on which answers come, for users who may not subscribe to `_INBOX.>`. Letters, digits, `-`, `_`
    /// and dots between them. Default: none; `_INBOX`.
    pub inbox_prefix: Option<String>,
    /// Bytes that the servers keep of this job at most, for accounts that must state a limit: of the shards that wait, and as many
    /// of the job with notes on its videos; at least 64 KiB. Shards that find no room wait until others are done. Weights take what
    /// they need. Default: none, no limit.
    #[schemars(range(min = 65_536, max = 1_125_899_906_842_624_i64))]
    pub max_bytes: Option<i64>,
    /// Servers of the cluster that keep a copy of the queue, 1 to 5: three survive the loss of one. Default: `1`.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: usize,
    /// Seconds after which a shard goes to another worker when its host sends no heartbeat; 2 to 3600.
    /// Default: `60.0`.
    #[schemars(range(min = 2, max = 3600))]
    pub lease_seconds: f64,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            credentials: None,
            ca: None,
            inbox_prefix: None,
            max_bytes: None,
            replicas: 1,
            lease_seconds: 60.0,
        }
    }
}
