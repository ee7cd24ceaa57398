//! How S3 is reached: settings, scratch space, patience, and what is called while an operation waits.

use super::s3::Clients;
use super::{Scratch, StoreError};
use affectmill_spec::{Job, S3Settings};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Patience where a person waits for the first answer.
const SOON: Duration = Duration::from_secs(15);

/// Shared by everything of one process that speaks to S3; nothing is looked up before it is needed.
#[derive(Clone)]
pub struct Access {
    pub(super) settings: S3Settings,
    pub(super) scratch: Option<PathBuf>,
    pub(super) patience: Duration,
    pub(super) on_wait: Option<OnWait>,
    pub(super) clients: Arc<Clients>,
}

type OnWait = Arc<dyn Fn(Option<&str>) + Send + Sync>;

impl Access {
    /// As a job says.
    pub fn of(job: &Job) -> Self {
        Self::new(
            job.s3.clone(),
            job.run.scratch.clone(),
            Duration::from_secs_f64(job.run.outage_timeout),
        )
    }

    /// As these settings say.
    pub fn new(settings: S3Settings, scratch: Option<PathBuf>, patience: Duration) -> Self {
        Self {
            settings,
            scratch,
            patience,
            on_wait: None,
            clients: Arc::default(),
        }
    }

    /// As the environment says, for commands that have no job.
    pub fn of_environment() -> Self {
        Self::new(S3Settings::default(), None, SOON)
    }

    /// The same, patient from the beginning: somebody has reached the server, so it is no wrong address.
    #[must_use]
    pub fn patient(self) -> Self {
        self.clients.reached();
        self
    }

    /// How long to wait for a server. Until it has answered once, it may as well be a wrong address.
    pub(super) fn patience(&self) -> Duration {
        if self.clients.was_reached() {
            self.patience
        } else {
            self.patience.min(SOON)
        }
    }

    /// Scratch space for what is brought from S3.
    ///
    /// # Errors
    /// Its folder cannot be made, or belongs to somebody else.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::below(self.scratch.as_deref())
    }

    /// The same; `on_wait` is called every second, on the thread that waits, while an operation takes longer, with the last
    /// trouble if a request is being retried.
    #[must_use]
    pub fn on_wait(&self, on_wait: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        Self {
            on_wait: Some(Arc::new(on_wait)),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("settings", &self.settings)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
