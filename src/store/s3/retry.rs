//! Waiting: the runtime that operations run on, and repeating what failed for a passing reason.

use super::Bucket;
use super::failure::Failure;
use super::route;
use crate::{StoreError, Trouble};
use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// First pause; each further one is twice as long, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
/// An outage that ends is noticed within about this time.
const LONGEST: Duration = Duration::from_secs(5);
/// How often a waiting thread says that it lives.
const TICK: Duration = Duration::from_secs(1);

/// Why the last attempt failed, for the thread that waits; none where it did not.
#[derive(Clone, Default)]
pub(super) struct Notice(Arc<Mutex<Option<String>>>);

impl Notice {
    fn set(&self, trouble: Option<String>) {
        if let Ok(mut notice) = self.0.lock() {
            *notice = trouble;
        }
    }

    fn get(&self) -> Option<String> {
        self.0.lock().ok()?.clone()
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .expect("threads can be started")
    })
}

/// Runs a future on the store's runtime and waits for it. Also within another runtime's thread, which is blocked.
pub(super) fn on_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    ticking(future, || {})
}

fn ticking<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static, tick: impl Fn()) -> T {
    let (sender, receiver) = sync_channel(1);
    runtime().spawn(async move {
        let _ = sender.send(future.await);
    });
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) => tick(),
            Err(RecvTimeoutError::Disconnected) => panic!("an operation on the store broke off"),
        }
    }
}

impl Bucket {
    /// Runs an operation and waits for it; calls [`Access::on_wait`](crate::Access::on_wait) meanwhile.
    pub(super) fn wait<T, F>(&self, operation: impl FnOnce(Self, Notice) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let notice = Notice::default();
        ticking(operation(self.clone(), notice.clone()), || {
            if let Some(on_wait) = &self.access.on_wait {
                on_wait(notice.get().as_deref());
            }
        })
    }

    /// Attempts something until it succeeds, fails for good, or patience ends.
    pub(super) async fn again<T, F>(
        &self,
        operation: &'static str,
        key: &str,
        notice: &Notice,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let began = Instant::now();
        let mut pause = FIRST;
        loop {
            let failure = match attempt().await {
                Ok(done) => {
                    notice.set(None);
                    self.access.clients.reached();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            let waited = began.elapsed();
            if failure.trouble != Trouble::Transient || waited + pause > self.access.patience() {
                return Err(self.error(operation, key, failure, waited));
            }
            notice.set(Some(format!(
                "cannot {operation} {}: {}; trying again",
                self.place(key),
                failure.cause
            )));
            sleep(jittered(pause)).await;
            pause = (2 * pause).min(LONGEST);
        }
    }

    pub(super) fn error(
        &self,
        operation: &'static str,
        key: &str,
        failure: Failure,
        waited: Duration,
    ) -> StoreError {
        let remedy = match failure.trouble {
            Trouble::Transient => {
                let proxy = if route::names_proxy() {
                    ", the proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)"
                } else {
                    ""
                };
                format!(
                    "tried for {:.0} s: check the network{proxy} and the server ([s3] endpoint), and run again",
                    waited.as_secs_f64()
                )
            }
            _ => failure.remedy,
        };
        StoreError::S3 {
            operation,
            place: self.place(key).to_string(),
            cause: failure.cause,
            remedy,
            trouble: failure.trouble,
        }
    }
}

/// Half of the pause to all of it, so that many workers do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    // Good enough for spreading: the clock's nanoseconds.
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    pause.mul_f64(0.5 + 0.5 * f64::from(nanos % 1000) / 1000.0)
}
