//! Keeps the tally of a run's commits up to date beside the run, on a thread of its own: a store that is slow delays nothing.
//!
//! What fails here is passed over: the tally is disposable, and what is wrong with the store is told by whoever needs it.

use affectmill_labelset::commit::Tally;
use affectmill_store::Store;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the commits are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// The thread. Dropping it ends it without a last look.
pub struct Tallying {
    end: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Tallying {
    /// Starts with the tally as it is.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(store: Store, mut tally: Tally) -> io::Result<Self> {
        let (end, ended) = sync_channel(1);
        let thread = thread::Builder::new().name("tally".into()).spawn(move || {
            let _ = tally.keep(&store);
            loop {
                let over = match ended.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => false,
                    Ok(()) => true,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if tally.catch_up(&store).is_ok() {
                    let _ = tally.keep(&store);
                }
                if over {
                    return;
                }
            }
        })?;
        Ok(Self { end, thread })
    }

    /// Looks a last time, and waits for that.
    pub fn end(self) {
        let _ = self.end.send(());
        let _ = self.thread.join();
    }
}
