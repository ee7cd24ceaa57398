//! A label set opened for reading.
//!
//! Flows in: the store of an output. Flows out: its job, its plans, its commit records and what became of each video. `job.json` is
//! read at once; plans and commits when they are first asked for, and then kept: a `LabelSet` is one view of the output, so that a
//! reader's figures fit together while a run goes on. To see what was added since, open it again.
//!
//! Never writes.

use crate::commit::CommitError;
use crate::plan::{Latest, PlanError, Plans};
use crate::{CommitRecord, JobRecord, RECORD_VERSION, VideoOutcome, commit, paths, plan};
use affectmill_base::ShardId;
use affectmill_spec::ModelRecord;
use affectmill_store::{Store, StoreError};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Why a label set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelSetError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `job.json` is missing, damaged, or of another version.
    #[error("{path}: {cause}; it was written by another version of affectmill or damaged")]
    Job {
        /// Its path.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// A plan cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A commit record cannot be read.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// No shard is committed.
    #[error("{0} holds no labels yet; `affectmill status` says how far its run is")]
    Empty(String),
}

impl LabelSetError {
    /// Whether another command is the remedy: nothing failed.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Empty(_))
    }
}

/// A label set.
#[derive(Debug)]
pub struct LabelSet {
    store: Store,
    job: JobRecord,
    plans: OnceLock<Plans>,
    commits: OnceLock<BTreeMap<ShardId, CommitRecord>>,
}

impl LabelSet {
    /// Opens an output.
    ///
    /// # Errors
    /// [`LabelSetError::Store`], [`LabelSetError::Job`].
    pub fn open(store: Store) -> Result<Self, LabelSetError> {
        let bad = |cause: String| LabelSetError::Job {
            path: store.path(paths::JOB).to_string(),
            cause,
        };
        let bytes = store.get(paths::JOB)?.ok_or_else(|| bad("is missing".into()))?;
        let job: JobRecord = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if job.version != RECORD_VERSION {
            return Err(bad(format!(
                "has version {}, this program reads {RECORD_VERSION}",
                job.version
            )));
        }
        Ok(Self {
            store,
            job,
            plans: OnceLock::new(),
            commits: OnceLock::new(),
        })
    }

    /// Where its files lie.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The job it is labelled by.
    pub fn job(&self) -> &JobRecord {
        &self.job
    }

    /// The job alone.
    pub fn into_job(self) -> JobRecord {
        self.job
    }

    /// The model of a name.
    pub fn model(&self, name: &str) -> Option<&ModelRecord> {
        self.job.models.iter().find(|model| model.name == name)
    }

    /// Every plan.
    ///
    /// # Errors
    /// As [`plan::read`].
    pub fn plans(&self) -> Result<&Plans, LabelSetError> {
        if let Some(plans) = self.plans.get() {
            return Ok(plans);
        }
        let plans = plan::read(&self.store)?;
        Ok(self.plans.get_or_init(|| plans))
    }

    /// Every commit record, by shard.
    ///
    /// # Errors
    /// As [`commit::read_all`].
    pub fn commits(&self) -> Result<&BTreeMap<ShardId, CommitRecord>, LabelSetError> {
        if let Some(commits) = self.commits.get() {
            return Ok(commits);
        }
        let commits = commit::read_all(&self.store)?;
        Ok(self.commits.get_or_init(|| commits))
    }

    /// Every commit record, by shard; at least one.
    ///
    /// # Errors
    /// As [`Self::commits`], and [`LabelSetError::Empty`].
    pub fn labels(&self) -> Result<&BTreeMap<ShardId, CommitRecord>, LabelSetError> {
        let commits = self.commits()?;
        if commits.is_empty() {
            return Err(LabelSetError::Empty(self.store.root().to_string()));
        }
        Ok(commits)
    }

    /// What became of each video in its latest attempt, in key order; of those whose shard is committed.
    ///
    /// # Errors
    /// As [`plan::outcomes`].
    pub fn outcomes(&self) -> Result<Vec<(Latest<'_>, &VideoOutcome)>, LabelSetError> {
        // Commits first: a shard that is committed meanwhile counts as open.
        let commits = self.commits()?;
        Ok(plan::outcomes(&self.plans()?.shards, commits)?)
    }

    /// Whether it is whole: marked so, with every shard of every plan committed.
    ///
    /// # Errors
    /// Plans or commits cannot be read.
    pub fn is_finished(&self) -> Result<bool, LabelSetError> {
        if self.store.get(paths::SUCCESS)?.is_none() {
            return Ok(false);
        }
        // A run that was killed between its plan and its first lease has left the mark.
        let commits = self.commits()?;
        let shards = &self.plans()?.shards;
        Ok(shards.iter().all(|shard| commits.contains_key(&shard.id)))
    }
}
