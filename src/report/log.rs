//! The event log: `_affectmill/events/<start>-<pid>.jsonl`, each event with its time.

use super::Sink;
use crate::dataset::paths;
use crate::events::Event;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// Appends events to a file of this run's own.
pub struct Log {
    file: Option<File>,
}

impl Log {
    /// Opens the log of this run.
    pub fn create(store: &Store) -> Self {
        let name = format!("{}/{:013}-{}.jsonl", paths::EVENTS, now_ms(), std::process::id());
        let path = store.path(&name);
        let folder = path.parent().map(std::fs::create_dir_all);
        let file = match folder {
            Some(Ok(())) => OpenOptions::new().append(true).create(true).open(path).ok(),
            _ => None,
        };
        Self { file }
    }
}

impl Sink for Log {
    fn event(&mut self, event: &Event) {
        let Some(file) = &mut self.file else { return };
        let Ok(mut line) = serde_json::to_vec(&Line {
            at_ms: now_ms(),
            event: event.clone(),
        }) else {
            return;
        };
        line.push(b'\n');
        // One write per line, so that a reader never sees half of one in the middle. A full disk stops the
        // log, not the run: the run will say so itself when it cannot commit.
        if file.write_all(&line).is_err() {
            self.file = None;
        }
    }
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
