//! Waiting: the runtime that operations run on, and repeating what failed for a passing reason.

use super::Bucket;
use super::failure::Failure;
use super::route;
use crate::{StoreError, Trouble};
use affectmill_base::RetryPolicy;
use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// First pause.
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
        let mut retry = RetryPolicy::within(self.access.patience(), FIRST, LONGEST).start();
        loop {
            let failure = match attempt().await {
                Ok(done) => {
                    notice.set(None);
                    self.access.clients.reached();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            // Patience grows once a server has answered, to any request of this process.
            let pause = match failure.trouble {
                Trouble::Transient => retry.next_pause_within(self.access.patience()),
                _ => None,
            };
            let Some(pause) = pause else {
                return Err(self.error(operation, key, failure, retry.elapsed()));
            };
            notice.set(Some(format!(
                "cannot {operation} {}: {}; trying again",
                self.place(key),
                failure.cause
            )));
            sleep(pause).await;
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
