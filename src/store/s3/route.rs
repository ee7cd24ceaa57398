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

const BUNDLE: &str = "AWS_CA_BUNDLE";

/// A client that takes this way. The error continues "cannot reach …: ".
pub(super) fn http_client() -> Result<SharedHttpClient, String> {
    let proxy = proxy()?;
    let trust = match variable(BUNDLE) {
        Some(path) => authorities(&path).map_err(|cause| format!("{BUNDLE} names {path}, {cause}"))?,
        // The machine's, or what SSL_CERT_FILE and SSL_CERT_DIR name.
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| error.to_string())?;
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

fn proxy() -> Result<ProxyConfig, String> {
    let bad = |name: &'static str| {
        move |_| format!("{name} is not the address of a proxy, such as http://host:3128")
    };
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
/// of the machine's. The error continues "… names a file, ".
fn authorities(path: &str) -> Result<TrustStore, String> {
    let text = std::fs::read(path).map_err(|error| format!("which cannot be read: {error}"))?;
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
        Err("which holds no certificate (PEM) that can be used".into())
    } else {
        Ok(trust)
    }
}
