//! What the servers forbid. They say so beside the request, which then only goes unanswered: so it is kept here for a while, and
//! named when the request fails.

use super::NatsError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after a refusal a request that fails may have failed for it: longer than any is waited for.
const RECENT: Duration = Duration::from_secs(30);

/// Refusals that are kept.
const MOST: usize = 4;

/// Rights that were found missing a short while ago.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing(Arc<Mutex<VecDeque<(Instant, String)>>>);

impl Missing {
    /// Takes an error of the server's; the right that it says is missing, in words.
    pub fn note(&self, error: &str) -> Option<String> {
        let right = right(error)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, other)| *other != right);
        if known.len() == MOST {
            known.pop_front();
        }
        known.push_back((Instant::now(), right.clone()));
        Some(right)
    }

    /// Why a request failed, where a right was missing; else `otherwise`.
    pub fn or(&self, servers: &str, operation: &'static str, otherwise: NatsError) -> NatsError {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent: Vec<&str> = known
            .iter()
            .filter(|(since, _)| since.elapsed() < RECENT)
            .map(|(_, right)| right.as_str())
            .collect();
        if recent.is_empty() {
            return otherwise;
        }
        NatsError::Forbidden {
            servers: servers.into(),
            operation,
            rights: recent.join(" and "),
        }
    }
}

/// `Permissions Violation for Publish to "x"` and `… for Subscription to "x"`, with or without ` using queue "y"` behind.
fn right(error: &str) -> Option<String> {
    let (_, denied) = error.split_once("Permissions Violation for ")?;
    let (what, rest) = denied.split_once(" to \"")?;
    let (subject, _) = rest.split_once('"')?;
    let verb = match what {
        "Publish" => "publish to",
        "Subscription" => "subscribe to",
        _ => return None,
    };
    let remedy = match subject.split('.').next() {
        Some("_INBOX") => ", or to another prefix that [nats] inbox_prefix (--inbox-prefix) names",
        _ => "",
    };
    Some(format!("{verb} `{subject}`{remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let said = |text: &str| right(text).unwrap_or_default();
        assert_eq!(
            said("Permissions Violation for Publish to \"$JS.API.INFO\""),
            "publish to `$JS.API.INFO`"
        );
        assert_eq!(
            said("Permissions Violation for Subscription to \"a.*\" using queue \"q\""),
            "subscribe to `a.*`"
        );
        assert!(said("Permissions Violation for Subscription to \"_INBOX.x.*\"").contains("inbox_prefix"));
        assert_eq!(said("Stale Connection"), "");
    }
}
