//! The commit: a shard is done when its record exists.
//!
//! Flows in: a finished part and the record that describes it. Flows out: the record that stands, ours or the one
//! somebody made before. Part first, then record, both create-only, so that a crash between the two, a second
//! delivery or a zombie worker can do no harm: the next attempt adopts what is there after reading it.
//!
//! Never overwrites or deletes a part or a record, and never records a part it has not verified.

mod survey;

use crate::dataset::{CommitRecord, PartInfo, RECORD_VERSION, paths};
use crate::domain::{Fingerprint, ShardId};
use crate::store::{Put, Store, StoreError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::NamedTempFile;

/// The record that stands after a commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// Ours: part and record were created.
    New(CommitRecord),
    /// The part, or part and record, were there: somebody's record, or ours rewritten to describe that part.
    Adopted(CommitRecord),
}

impl Committed {
    /// The record.
    pub fn record(&self) -> &CommitRecord {
        match self {
            Self::New(record) | Self::Adopted(record) => record,
        }
    }
}

/// Why a shard cannot be committed, or its record not be read.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what was written.
    #[error("the commit record `{}` is damaged: {cause}; delete it and run again: its shard is labelled anew or its part adopted", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Another affectmill wrote the record.
    #[error("the commit record `{}` has version {found}, this affectmill reads {RECORD_VERSION}; use the version that began this label set", path.display())]
    Version {
        /// The record.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A part is missing or is not what its record says.
    #[error("the part `{}` {cause}; delete it and its commit record `{}`, and run again", path.display(), record.display())]
    Part {
        /// The part.
        path: PathBuf,
        /// The record.
        record: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A part without a record cannot be adopted.
    #[error("the part `{}` lies where this shard's rows belong and cannot be adopted: {cause}; delete it and run again", path.display())]
    Stranger {
        /// The part.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The shard is done under other settings.
    #[error(
        "shard {shard} is committed under fingerprint {found}, this run has {ours}; \
         label into another output folder, or run the job that began this one"
    )]
    Fingerprint {
        /// The shard.
        shard: ShardId,
        /// Of the record.
        found: Fingerprint,
        /// Of this run.
        ours: Fingerprint,
    },
}

impl CommitError {
    /// Whether trying the same again shortly may succeed without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

/// Commits a shard: gives the part its name, then writes the record. Safe to repeat, and safe against anybody doing
/// the same at the same time: one record wins, and everybody gets that one.
///
/// `part` is a finished scratch file of `store` that `record.part` describes; it is gone afterwards. Where another
/// part is there already, it is adopted when it is whole, of the same fingerprint and of the same videos: the
/// record then carries its size, checksum and rows. A video whose rows differ from this attempt's becomes
/// `partial`, or `failed` where it has none.
///
/// # Errors
/// The store failed, or what is there can be neither verified nor adopted.
pub fn commit(store: &Store, part: NamedTempFile, record: CommitRecord) -> Result<Committed, CommitError> {
    if let Some(standing) = read(store, &record.shard)? {
        return adopt(store, standing, &record.fingerprint);
    }
    let (put, record) = match store.put_new_file(&paths::part(&record.shard), part)? {
        Put::Created => (Put::Created, record),
        Put::Exists => (Put::Exists, survey::describe(store, record)?),
    };
    match (
        store.put_new(&paths::commit(&record.shard), &encode(&record))?,
        put,
    ) {
        (Put::Created, Put::Created) => Ok(Committed::New(record)),
        (Put::Created, Put::Exists) => Ok(Committed::Adopted(record)),
        (Put::Exists, _) => match read(store, &record.shard)? {
            Some(standing) => adopt(store, standing, &record.fingerprint),
            None => Err(CommitError::Record {
                path: store.path(&paths::commit(&record.shard)),
                cause: "it vanished while it was read".into(),
            }),
        },
    }
}

/// Every commit record by shard.
///
/// # Errors
/// The store failed; a record is damaged or of another version.
pub fn read_all(store: &Store) -> Result<BTreeMap<ShardId, CommitRecord>, CommitError> {
    let mut records = BTreeMap::new();
    for entry in store.list(paths::COMMITS)? {
        let Some(bytes) = store.get(&entry.key)? else {
            continue;
        };
        let record = decode(store, &entry.key, &bytes)?;
        if paths::commit(&record.shard) != entry.key {
            return Err(CommitError::Record {
                path: store.path(&entry.key),
                cause: format!("it speaks of shard {}", record.shard),
            });
        }
        records.insert(record.shard.clone(), record);
    }
    Ok(records)
}

/// Holds the part against its record: size and SHA-256.
///
/// # Errors
/// The part is missing, differs, or cannot be read.
pub fn verify_part(store: &Store, record: &CommitRecord) -> Result<(), CommitError> {
    let wrong = |cause: String| CommitError::Part {
        path: store.path(&paths::part(&record.shard)),
        record: store.path(&paths::commit(&record.shard)),
        cause,
    };
    let Some((bytes, sha256)) = survey::checksum(store, &record.shard)? else {
        return Err(wrong("is missing although its shard is committed".into()));
    };
    let PartInfo {
        bytes: said,
        sha256: sum,
        ..
    } = &record.part;
    if bytes != *said {
        return Err(wrong(format!("has {bytes} bytes, its record says {said}")));
    }
    if sha256 != *sum {
        return Err(wrong(format!("has SHA-256 {sha256}, its record says {sum}")));
    }
    Ok(())
}

fn adopt(store: &Store, standing: CommitRecord, ours: &Fingerprint) -> Result<Committed, CommitError> {
    if standing.fingerprint != *ours {
        return Err(CommitError::Fingerprint {
            shard: standing.shard,
            found: standing.fingerprint,
            ours: ours.clone(),
        });
    }
    verify_part(store, &standing)?;
    Ok(Committed::Adopted(standing))
}

fn read(store: &Store, shard: &ShardId) -> Result<Option<CommitRecord>, CommitError> {
    let key = paths::commit(shard);
    let bytes = store.get(&key)?;
    bytes.map(|bytes| decode(store, &key, &bytes)).transpose()
}

fn encode(record: &CommitRecord) -> Vec<u8> {
    let mut json =
        serde_json::to_vec_pretty(record).expect("a record of plain text and numbers becomes JSON");
    json.push(b'\n');
    json
}

fn decode(store: &Store, key: &str, bytes: &[u8]) -> Result<CommitRecord, CommitError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let damaged = |error: serde_json::Error| CommitError::Record {
        path: store.path(key),
        cause: error.to_string(),
    };
    let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
    if head.version != RECORD_VERSION {
        return Err(CommitError::Version {
            path: store.path(key),
            found: head.version,
        });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

#[cfg(test)]
mod tests;
