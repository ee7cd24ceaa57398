//! The way to a server, as AWS tools take it from the environment: through a proxy, and with which authorities.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (small letters win, as with curl), `AWS_CA_BUNDLE`. `ALL_PROXY` is not asked,
//! as AWS tools do not ask it. Addresses of proxies may hold passwords: no message shows them.

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::sync::Arc;

const BUNDLE: &str = "AWS_CA_BUNDLE";

/// Why the way that the environment names cannot be taken; continues "cannot reach …: ".
#[derive(Clone, Debug, thiserror::Error)]
pub enum RouteError {
    #[error("{0} is not the address of a proxy, such as http://host:3128")]
    Proxy(&'static str),
    #[error("{BUNDLE} names {path}, which cannot be read: {cause}")]
    Unreadable { path: String, cause: Arc<io::Error> },
    #[error("{BUNDLE} names {0}, which holds no certificate (PEM) that can be used")]
    NoCertificate(String),
    #[error("{0}")]
    Tls(String),
}

/// A client that takes this way.
pub(super) fn http_client() -> Result<SharedHttpClient, RouteError> {
    let proxy = proxy()?;
    let trust = match variable(BUNDLE) {
        Some(path) => authorities(path)?,
        // The machine's, or what SSL_CERT_FILE and SSL_CERT_DIR name.
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| RouteError::Tls(error.to_string()))?;
    Ok(
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder().proxy_config(proxy.clone());
            connector.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                connector.set_sleep_impl(components.sleep_impl());
            }
            connector
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(context.clone())
                .build()
        }),
    )
}

/// Whether the environment names a proxy.
pub(super) fn names_proxy() -> bool {
    ["HTTPS_PROXY", "HTTP_PROXY"]
        .into_iter()
        .any(|name| either(name).is_some())
}

fn proxy() -> Result<ProxyConfig, RouteError> {
    let bad = |name: &'static str| move |_| RouteError::Proxy(name);
    let (https, http) = (address("HTTPS_PROXY"), address("HTTP_PROXY"));
    let config = match (https, http) {
        (None, None) => ProxyConfig::disabled(),
        (Some(https), None) => ProxyConfig::https(https).map_err(bad("HTTPS_PROXY"))?,
        (None, Some(http)) => ProxyConfig::http(http).map_err(bad("HTTP_PROXY"))?,
        (Some(https), Some(http)) if https == http => ProxyConfig::all(https).map_err(bad("HTTPS_PROXY"))?,
        (Some(https), Some(http)) => {
            ProxyConfig::https(https).map_err(bad("HTTPS_PROXY"))?;
            ProxyConfig::http(http).map_err(bad("HTTP_PROXY"))?;
            // Two different ones can only be read from the environment itself.
            return Ok(ProxyConfig::from_env());
        }
    };
    Ok(match either("NO_PROXY") {
        Some(rules) => config.no_proxy(rules),
        None => config,
    })
}

/// The address of a proxy; without a scheme it is spoken to in HTTP.
fn address(name: &str) -> Option<String> {
    let value = either(name)?;
    Some(if value.contains("://") {
        value
    } else {
        format!("http://{value}")
    })
}

fn either(name: &str) -> Option<String> {
    variable(&name.to_ascii_lowercase()).or_else(|| variable(name))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The certificates of a bundle, which stand in place of the machine's. Those that cannot be used are left out, as they are
/// of the machine's.
fn authorities(path: String) -> Result<TrustStore, RouteError> {
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            return Err(RouteError::Unreadable {
                path,
                cause: Arc::new(error),
            });
        }
    };
    let mut trust = TrustStore::empty();
    let mut usable = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text).flatten() {
        if usable.add(certificate.clone()).is_ok() {
            let pem = format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                STANDARD.encode(&certificate)
            );
            trust.add_pem_certificate(pem);
        }
    }
    if usable.is_empty() {
        Err(RouteError::NoCertificate(path))
    } else {
        Ok(trust)
    }
}
