//! Clients: the standard chain of credentials, region and endpoint, and what the job says instead.

use super::retry::on_runtime;
use super::route::{self, RouteError};
use affectmill_spec::S3Settings;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where nothing says anything; servers other than AWS seldom care.
const REGION: &str = "us-east-1";
/// A connection takes no longer.
const CONNECT: Duration = Duration::from_secs(5);
/// No answer begins later than this after its question.
const ANSWER: Duration = Duration::from_secs(30);
/// A body that does not move for so long is broken off.
const STALLED: Duration = Duration::from_secs(20);

/// Clients made when first needed. They are kept: credentials, once found, are shared and refreshed in them.
#[derive(Debug, Default)]
pub struct Clients {
    signing: OnceLock<Result<Client, RouteError>>,
    unsigned: OnceLock<Result<Client, RouteError>>,
    reached: AtomicBool,
}

impl Clients {
    /// A server has answered.
    pub fn reached(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Whether one has.
    pub fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// The client to speak to a bucket with.
    ///
    /// # Errors
    /// The environment names a proxy or certificates that cannot be used.
    pub fn client(&self, settings: &S3Settings, bucket: &str) -> Result<Client, RouteError> {
        let unsigned = settings.unsigned.iter().any(|name| name == bucket);
        let kept = if unsigned { &self.unsigned } else { &self.signing };
        let make = || {
            Ok(on_runtime(make(
                settings.clone(),
                route::http_client()?,
                unsigned,
            )))
        };
        kept.get_or_init(make).clone()
    }
}

async fn make(settings: S3Settings, http: SharedHttpClient, unsigned: bool) -> Client {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = settings
        .endpoint
        .or_else(|| env("AWS_ENDPOINT_URL_S3"))
        .or_else(|| env("AWS_ENDPOINT_URL"));
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(ANSWER)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .grace_period(STALLED)
                .build(),
        );
    if let Some(profile) = settings.profile {
        loader = loader.profile_name(profile);
    }
    let region = settings.region.map(Region::new);
    loader = match (&endpoint, region) {
        (_, Some(region)) => loader.region(region),
        // A server of one's own has no region worth asking the machine's metadata service for, which takes seconds.
        (Some(_), None) => loader.region(
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .or_else(Region::new(REGION)),
        ),
        (None, None) => loader.region(RegionProviderChain::default_provider().or_else(Region::new(REGION))),
    };
    if let Some(endpoint) = &endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if unsigned {
        loader = loader.no_credentials();
    }
    let shared = loader.load().await;
    let path_style = settings
        .path_style
        .unwrap_or(endpoint.is_some() || shared.endpoint_url().is_some());
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(path_style)
        .build();
    Client::from_conf(config)
}
