//! The events of a run in the log, among what the libraries say.

use super::text;
use affectmill_base::visible;
use affectmill_labelset::events::Event;
use tracing::Level;

/// Trouble as warnings, progress and leases for whoever wants to know exactly, the rest as information.
pub fn event(event: &Event) {
    // The macros want levels that are constants.
    macro_rules! log {
        ($level:expr) => {
            if tracing::enabled!(target: "affectmill::run", $level) {
                let told = serde_json::to_string(event).unwrap_or_default();
                tracing::event!(target: "affectmill::run", $level, "{}", visible(&told));
            }
        };
    }
    match event {
        Event::Progress { .. } | Event::Probing { .. } | Event::Leased { .. } => log!(Level::DEBUG),
        _ if text::is_trouble(event) => log!(Level::WARN),
        _ => log!(Level::INFO),
    }
}
