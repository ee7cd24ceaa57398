//! The job as it is posted on the servers: what workers must know before their first lease, and the weights.

use super::{Connection, NatsError, PATIENCE, within};
use crate::PROTOCOL;
use affectmill_base::Location;
use affectmill_base::sha256_hex;
use affectmill_labelset::JobRecord;
use affectmill_spec as spec;
use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use async_nats::jetstream::object_store;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, copy};
use tokio::time::sleep;

/// Key of the job in its bucket.
const JOB: &str = "job";

/// Keys of what is held against the videos of a shard begin so.
const SHARD: &str = "shard.";

/// A posted job. Reading one checks it as a job file is checked, since anybody may have written it who may write to the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct PostedJob {
    /// [`PROTOCOL`] of the coordinator.
    pub protocol: u32,
    /// Its version.
    pub affectmill: String,
    /// The job, with the models' checksums.
    pub record: JobRecord,
    /// What the video keys are relative to.
    pub input_root: Location,
    /// Whether there is work.
    pub state: State,
}

/// A posted job as it was written.
#[derive(Deserialize)]
struct Unchecked {
    protocol: u32,
    affectmill: String,
    record: JobRecord,
    input_root: Location,
    state: State,
}

/// What is wrong with a posted job.
#[derive(Debug, thiserror::Error)]
enum BadPosting {
    #[error("the posted job is wrong: {0}")]
    Job(String),
    #[error("the posted models are not those of the posted job")]
    Models,
    #[error("the posted input {0:?} is no absolute path")]
    Input(Location),
}

impl TryFrom<Unchecked> for PostedJob {
    type Error = BadPosting;
    fn try_from(read: Unchecked) -> Result<Self, BadPosting> {
        let Unchecked {
            protocol,
            affectmill,
            record,
            input_root,
            state,
        } = read;
        spec::check_posted(&record.job).map_err(BadPosting::Job)?;
        let found = record
            .models
            .iter()
            .map(|model| (&model.name, model.kind, model.also.len()));
        let named = record
            .job
            .models
            .iter()
            .map(|model| (&model.name, model.kind, model.also.len()));
        if !found.eq(named) {
            return Err(BadPosting::Models);
        }
        let is_place = match &input_root {
            Location::Local(path) => path.is_absolute() && !input_root.to_string().contains('\0'),
            Location::S3 { .. } => true,
        };
        if !is_place {
            return Err(BadPosting::Input(input_root));
        }
        Ok(Self {
            protocol,
            affectmill,
            record,
            input_root,
            state,
        })
    }
}

/// Whether a posted job has work for workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not every shard is committed.
    Running,
    /// Every shard is committed.
    Finished,
}

impl PostedJob {
    /// A job to be worked on.
    pub fn new(record: JobRecord, input_root: Location) -> Self {
        Self {
            protocol: PROTOCOL,
            affectmill: env!("CARGO_PKG_VERSION").into(),
            record,
            input_root,
            state: State::Running,
        }
    }

    /// Names the label set: what is labelled how, from where to where. A job's name may be used again for another one, and hosts
    /// and coordinators of the old one may still be about.
    pub fn set(&self) -> String {
        let (record, root) = (&self.record, &self.input_root);
        let named = format!("{}\n{}\n{root}", record.fingerprint, record.job.output.uri);
        sha256_hex(named.as_bytes())[..32].to_owned()
    }
}

impl Connection {
    /// Posts a job; returns the revision by which whoever posted it last may say that it is finished. One that is there already is
    /// the same label set's, or finished; several coordinators may post one job.
    ///
    /// # Errors
    /// [`NatsError::Taken`]; [`NatsError::JetStream`].
    pub async fn post(&self, posting: &PostedJob) -> Result<u64, NatsError> {
        let bucket = self.make_bucket().await?;
        let text = serde_json::to_vec(posting).map_err(self.failed("post the job"))?;
        let mut retry = within(PATIENCE).start();
        loop {
            let (revision, before) = self.posted(&bucket).await?;
            if let Some(before) = &before {
                match (posting.set() == before.set(), before.state) {
                    (false, State::Running) => return Err(self.taken(before)),
                    (_, State::Finished) => self.forgive(&bucket).await?,
                    (true, State::Running) => {}
                }
            }
            let error = match bucket.update(JOB, text.clone().into(), revision).await {
                Ok(revision) => return Ok(revision),
                Err(error) => error,
            };
            // Another coordinator may have been faster.
            let pause = match error.kind() {
                UpdateErrorKind::WrongLastRevision => retry.next_pause(),
                _ => None,
            };
            match pause {
                Some(pause) => sleep(pause).await,
                None => return Err(self.failed("post the job")(error)),
            }
        }
    }

    /// The job's bucket, made where there is none.
    async fn make_bucket(&self) -> Result<kv::Store, NatsError> {
        let config = kv::Config {
            bucket: self.name(),
            description: "affectmill: a job, and what is held against its videos".into(),
            max_bytes: self.max_bytes(),
            num_replicas: self.address.settings.replicas,
            ..kv::Config::default()
        };
        let made = self.jetstream.create_or_update_key_value(config).await;
        made.map_err(self.failed("make the job's bucket (is JetStream enabled?)"))
    }

    /// Nobody has posted the job.
    pub(super) fn no_job(&self) -> NatsError {
        NatsError::NoJob {
            servers: self.servers(),
            job: self.address.job.clone(),
        }
    }

    /// The name belongs to that job.
    pub fn taken(&self, by: &PostedJob) -> NatsError {
        NatsError::Taken {
            servers: self.servers(),
            job: self.address.job.clone(),
            other: format!("which labels into {}", by.record.job.output.uri),
        }
    }

    /// Forgets what an earlier run held against videos.
    async fn forgive(&self, bucket: &kv::Store) -> Result<(), NatsError> {
        let purged = bucket
            .stream
            .purge()
            .filter(format!("$KV.{}.{SHARD}>", self.name()))
            .await;
        purged.map(drop).map_err(self.failed("clear the job's bucket"))
    }

    /// Every shard is committed: workers may go. Nothing happens where the word is somebody else's: whoever has posted since
    /// `revision` (of none, since this was tried first), or another label set. A server that has lost the job is told as well, since
    /// workers may wait for it to come back.
    ///
    /// # Errors
    /// [`NatsError::JetStream`]; [`NatsError::Version`].
    pub async fn finished(&self, posting: &PostedJob, revision: &mut Option<u64>) -> Result<(), NatsError> {
        let posting = PostedJob {
            state: State::Finished,
            ..posting.clone()
        };
        let text = serde_json::to_vec(&posting).map_err(self.failed("post the job"))?;
        let bucket = self.make_bucket().await?;
        let (latest, posted) = self.posted(&bucket).await?;
        let said = match posted {
            // Revisions begin anew on a server that was emptied.
            Some(posted) if posted.set() != posting.set() => return Ok(()),
            Some(posted) => posted.state == State::Finished,
            None => {
                *revision = None;
                false
            }
        };
        // Whoever posts while this is tried again has the word.
        let replaced = *revision.get_or_insert(latest);
        if !said {
            match bucket.update(JOB, text.into(), replaced).await {
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => return Ok(()),
                other => other.map_err(self.failed("post the job"))?,
            };
        }
        // Both are of no more use, and another coordinator may have removed them.
        let _ = self.jetstream.delete_stream(self.name()).await;
        let _ = self.jetstream.delete_object_store(self.name()).await;
        Ok(())
    }

    /// The posted job, or that there is none.
    ///
    /// # Errors
    /// [`NatsError::JetStream`] when the server does not answer; [`NatsError::Version`].
    pub async fn posting(&self) -> Result<Option<PostedJob>, NatsError> {
        Ok(self.posting_and_revision().await?.map(|(posting, _)| posting))
    }

    /// The same, with its revision.
    async fn posting_and_revision(&self) -> Result<Option<(PostedJob, u64)>, NatsError> {
        use async_nats::jetstream::context::KeyValueErrorKind::GetBucket;
        let bucket = match self.jetstream.get_key_value(self.name()).await {
            // The client does not tell a bucket that is missing from a server that is.
            Err(error) if error.kind() == GetBucket && self.answers().await => return Ok(None),
            other => other.map_err(self.failed("open the job's bucket"))?,
        };
        let (revision, posting) = self.posted(&bucket).await?;
        Ok(posting.map(|posting| (posting, revision)))
    }

    /// The posted job once it is there and has work, waiting for it as long as `patience`. A finished one is given back
    /// when that time is over.
    ///
    /// # Errors
    /// [`NatsError::NoJob`] when none came; [`NatsError`] otherwise.
    pub async fn await_posting(&self, patience: Duration) -> Result<PostedJob, NatsError> {
        let mut retry = within(patience).start();
        let mut before = None;
        loop {
            let found = self.posting_and_revision().await;
            // One that was finished when we came may be begun again; one that is said to be finished since is.
            let revision = found
                .as_ref()
                .ok()
                .map(|found| found.as_ref().map(|(_, revision)| *revision));
            let news = revision.is_some_and(|now| *before.get_or_insert(now) != now);
            let found = found.map(|found| found.map(|(posting, _)| posting));
            match found {
                Ok(Some(posting)) if posting.state == State::Running || news => return Ok(posting),
                // Waiting does not mend it.
                Err(error @ (NatsError::Version { .. } | NatsError::Forbidden { .. })) => return Err(error),
                found => match retry.next_pause() {
                    Some(pause) => sleep(pause).await,
                    None => return found?.ok_or_else(|| self.no_job()),
                },
            }
        }
    }

    async fn answers(&self) -> bool {
        self.jetstream.query_account().await.is_ok()
    }

    /// The job and the revision that the next one must replace.
    async fn posted(&self, bucket: &kv::Store) -> Result<(u64, Option<PostedJob>), NatsError> {
        #[derive(Deserialize)]
        struct Writer {
            protocol: u32,
            affectmill: String,
            state: State,
        }
        let entry = bucket.entry(JOB).await.map_err(self.failed("read the job"))?;
        let Some(entry) = entry else { return Ok((0, None)) };
        if entry.operation != Operation::Put {
            return Ok((entry.revision, None));
        }
        let own = env!("CARGO_PKG_VERSION");
        let writer: Writer = serde_json::from_slice(&entry.value).map_err(self.failed("read the job"))?;
        if writer.protocol != PROTOCOL || writer.affectmill != own {
            if writer.state == State::Finished {
                return Ok((entry.revision, None));
            }
            return Err(NatsError::Version {
                job: self.address.job.clone(),
                posted: format!("{} (protocol {})", writer.affectmill, writer.protocol),
                own: format!("{own} (protocol {PROTOCOL})"),
            });
        }
        let posting = serde_json::from_slice(&entry.value).map_err(self.failed("read the job"))?;
        Ok((entry.revision, Some(posting)))
    }

    /// Brings weight files to the servers under their checksums, unless they are there.
    ///
    /// # Errors
    /// [`NatsError::JetStream`].
    pub async fn post_weights(&self, files: &[(&str, &Path)]) -> Result<(), NatsError> {
        const WHAT: &str = "take the weights";
        if files.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        for (_, path) in files {
            bytes += tokio::fs::metadata(path).await.map_err(self.failed(WHAT))?.len();
        }
        let config = object_store::Config {
            bucket: self.name(),
            description: Some("affectmill: weights".into()),
            // As much as they take, with what the server adds.
            max_bytes: match self.max_bytes() {
                0 => 0,
                _ => i64::try_from(bytes + bytes / 8 + (1 << 20)).unwrap_or(i64::MAX),
            },
            num_replicas: self.address.settings.replicas,
            ..object_store::Config::default()
        };
        let objects = match self.jetstream.get_object_store(self.name()).await {
            Ok(found) => found,
            Err(_) => {
                let made = self.jetstream.create_object_store(config).await;
                made.map_err(self.failed("make room for the weights"))?
            }
        };
        for (sha256, path) in files {
            if objects.info(*sha256).await.is_err() {
                let bytes = tokio::fs::read(path).await.map_err(self.failed(WHAT))?;
                if sha256_hex(&bytes) != **sha256 {
                    let cause = format!(
                        "{} was replaced since the run began; put the former file back",
                        path.display()
                    );
                    return Err(self.failed(WHAT)(cause));
                }
                let put = objects.put(*sha256, &mut bytes.as_slice()).await;
                put.map_err(self.failed(WHAT))?;
            }
        }
        Ok(())
    }

    /// Fetches weights by their checksum into a file; whether they are what they should be is for the reader to check.
    ///
    /// # Errors
    /// [`NatsError::JetStream`].
    pub async fn fetch_weights(&self, sha256: &str, path: &Path) -> Result<(), NatsError> {
        let objects = self.objects().await?;
        let mut object = objects
            .get(sha256)
            .await
            .map_err(self.failed("give the weights"))?;
        let mut file = File::create(path)
            .await
            .map_err(self.failed("give the weights"))?;
        let copied = copy(&mut object, &mut file).await;
        copied.map_err(self.failed("give the weights"))?;
        file.flush().await.map_err(self.failed("give the weights"))
    }
}

/// Key of what is held against the videos of a shard.
pub(super) fn shard_key(shard: &str) -> String {
    format!("{SHARD}{shard}")
}
