//! The event log: `_affectmill/events/<start>-<pid>.jsonl`, each event with its time.
//!
//! In S3, where nothing can be appended to, it is a row of objects `<start>-<pid>.<n>.jsonl`, of which the last one is
//! written anew every few seconds, on a thread of its own: a store that is out of reach delays no run.

use super::Sink;
use crate::dataset::paths;
use crate::events::Event;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Pause between two uploads, and between two progress lines of one worker in an uploaded log.
const INTERVAL: Duration = Duration::from_secs(5);
/// An object of the log that has grown to this is followed by another one.
const PIECE: usize = 256 << 10;
/// Lines that wait for a store that is out of reach; what comes then is lost.
const MOST: usize = 4 << 20;
/// How long the end of a run waits for the last lines to be stored.
const FAREWELL: Duration = Duration::from_secs(10);

/// One line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// Keeps events in a log of this run's own. A log that cannot be written is no reason to stop.
pub enum Log {
    /// Lines are appended to a file.
    File(File),
    /// Lines are uploaded now and then.
    Uploaded(Uploads),
    /// It could not be opened, or not be written to.
    Lost,
}

impl Log {
    /// Opens the log of this run.
    pub fn create(store: &Store) -> Self {
        let name = format!("{}/{:013}-{}", paths::EVENTS, now_ms(), std::process::id());
        let log = match store.path(&format!("{name}.jsonl")).as_local() {
            Some(path) => open(path).map(Self::File),
            None => Uploads::start(store.clone(), name).map(Self::Uploaded),
        };
        log.unwrap_or(Self::Lost)
    }
}

fn open(path: &Path) -> io::Result<File> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    OpenOptions::new().append(true).create(true).open(path)
}

impl Sink for Log {
    fn event(&mut self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(&Line {
            at_ms: now_ms(),
            event: event.clone(),
        }) else {
            return;
        };
        line.push(b'\n');
        match self {
            // One write per line, so that a reader never sees half of one in the middle. A full disk stops the
            // log, not the run: the run will say so itself when it cannot commit.
            Self::File(file) => {
                if file.write_all(&line).is_err() {
                    *self = Self::Lost;
                }
            }
            Self::Uploaded(uploads) => uploads.line(event, &line),
            Self::Lost => {}
        }
    }
}

/// Lines on their way to a store.
pub struct Uploads {
    shared: Arc<(Mutex<Lines>, Condvar)>,
    /// When a progress line of each worker was last taken.
    progress: HashMap<usize, Instant>,
}

#[derive(Default)]
struct Lines {
    waiting: Vec<u8>,
    closing: bool,
    closed: bool,
}

impl Uploads {
    fn start(store: Store, name: String) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Lines::default()), Condvar::new()));
        let theirs = shared.clone();
        thread::Builder::new()
            .name("event log".into())
            .spawn(move || upload(&store, &name, &theirs))?;
        Ok(Self {
            shared,
            progress: HashMap::new(),
        })
    }

    fn line(&mut self, event: &Event, line: &[u8]) {
        if let Event::Progress { worker, .. } | Event::Waiting { worker, .. } = event {
            let now = Instant::now();
            match self.progress.get(worker) {
                Some(last) if now - *last < INTERVAL => return,
                _ => self.progress.insert(*worker, now),
            };
        }
        if let Ok(mut lines) = self.shared.0.lock()
            && lines.waiting.len() < MOST
        {
            lines.waiting.extend_from_slice(line);
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let (lines, changed) = &*self.shared;
        let Ok(mut guard) = lines.lock() else { return };
        guard.closing = true;
        changed.notify_all();
        // Whether the last lines arrive in time or not.
        let _ = changed.wait_timeout_while(guard, FAREWELL, |lines| !lines.closed);
    }
}

fn upload(store: &Store, name: &str, shared: &(Mutex<Lines>, Condvar)) {
    let (lines, changed) = shared;
    let (mut piece, mut number) = (Vec::new(), 1);
    loop {
        let Ok(guard) = lines.lock() else { return };
        let Ok((mut guard, _)) = changed.wait_timeout_while(guard, INTERVAL, |lines| !lines.closing) else {
            return;
        };
        let (fresh, closing) = (std::mem::take(&mut guard.waiting), guard.closing);
        drop(guard);
        if !fresh.is_empty() {
            piece.extend(fresh);
            // A failure was waited out already; the next round takes these lines along.
            let stored = store
                .replace(&format!("{name}.{number:05}.jsonl"), &piece)
                .is_ok();
            if stored && piece.len() >= PIECE {
                (piece, number) = (Vec::new(), number + 1);
            }
        }
        if closing {
            if let Ok(mut guard) = lines.lock() {
                guard.closed = true;
                changed.notify_all();
            }
            return;
        }
    }
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
