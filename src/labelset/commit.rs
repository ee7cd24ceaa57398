//! The commit: a shard is done when its record exists.
//!
//! Flows in: a finished part, the crops beside it where they are kept, and the record that describes them. Flows out: the
//! record that stands, ours or the one somebody made before. Part first, then crops, then record, all create-only, so that
//! a crash between them, a second delivery or a zombie worker can do no harm: the next attempt adopts what is there after
//! reading it.
//!
//! Never records a part it has not verified. Never overwrites or deletes a part or a record, but for a shard that is retired
//! ([`retire`]): its files then hold nothing, and stay in the way of whoever would commit it again.

mod checkpoints;
mod crops;
mod device;
mod input;
mod progress;
mod retired;
mod survey;

pub use checkpoints::{forget_all_spans, forget_spans, open_span, put_span, read_spans, spans_kept};
pub use device::{check_device, hold_device};
pub use input::{keep_input, kept_input};
pub use progress::Tally;
pub use retired::{empty, retire};

use crate::{CommitRecord, DeviceClass, PartInfo, RECORD_VERSION, ShardDevice, paths};
use affectmill_base::{Fingerprint, ShardId};
use affectmill_store::{Put, Store, StoreError};
use serde::Deserialize;
use std::collections::BTreeMap;
use tempfile::NamedTempFile;

/// Records whose text is in memory at a time.
const AT_ONCE: usize = 256;

/// Finished scratch files of a store.
pub struct Files {
    /// The part.
    pub part: NamedTempFile,
    /// The crops, where they are kept.
    pub crops: Option<NamedTempFile>,
}

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
    #[error(
        "the commit record `{path}` is damaged: {cause}; delete it and run again: its shard is labelled anew or its part adopted"
    )]
    Record {
        /// The record.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// Another affectmill wrote the record.
    #[error(
        "the commit record `{path}` has version {found}, this affectmill reads {RECORD_VERSION}; use the version that began this label set"
    )]
    Version {
        /// The record.
        path: String,
        /// Its version.
        found: u32,
    },
    /// The record of a search is not what was written.
    #[error(
        "{path}: {cause}; it was written by another version of affectmill or damaged: run again, which writes it anew"
    )]
    Input {
        /// The record.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// A part, or its crops, are missing or are not what their record says.
    #[error("`{path}` {cause}; delete it and its commit record `{record}`, and run again")]
    Part {
        /// The file.
        path: String,
        /// The record.
        record: String,
        /// What is wrong.
        cause: String,
    },
    /// A part, or crops, without a record cannot be adopted.
    #[error(
        "`{path}` lies where this shard's rows or crops belong and cannot be adopted: {cause}; delete it and run again"
    )]
    Stranger {
        /// The part.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// The label set was begun on another class of device.
    #[error(
        "{output} was begun on {was}, and this run would go on on {is}: rows would differ in their last bits, and the speed by \
         far; bring that device back (`affectmill doctor` says what there is), or say --allow-device-change, and each shard's \
         commit record says what it was labelled on"
    )]
    OtherDevice {
        /// The output root.
        output: String,
        /// What its first shard was labelled on.
        was: ShardDevice,
        /// What there is now.
        is: DeviceClass,
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
/// The files are those that `record.part` and `record.crops` describe; they are gone afterwards. Where another
/// part is there already, it is adopted when it is whole, of the same fingerprint and of the same videos: the
/// record then carries its size, checksum and rows. A video whose rows differ from this attempt's becomes
/// `partial`, or `failed` where it has none. Crops that are there already are adopted when they are of the same
/// fingerprint, one for each row with a face.
///
/// # Errors
/// The store failed, or what is there can be neither verified nor adopted.
pub fn commit(store: &Store, files: Files, mut record: CommitRecord) -> Result<Committed, CommitError> {
    if let Some(standing) = standing(store, &record.shard, &record.fingerprint)? {
        return Ok(standing);
    }
    let made = record.part.clone();
    let mut adopted = false;
    if store.put_new_file(&paths::part(&record.shard), files.part)? == Put::Exists {
        record = survey::describe(store, record)?;
        adopted = true;
    }
    if let Some(crops) = files.crops {
        if record.part != made {
            survey::hold_crops_against_part(store, &record, crops.reopen())?;
        }
        if store.put_new_file(&paths::crops(&record.shard), crops)? == Put::Exists {
            record = survey::describe_crops(store, record)?;
            adopted = true;
        }
    }
    match store.put_new(&paths::commit(&record.shard), &encode(&record))? {
        Put::Created if adopted => Ok(Committed::Adopted(record)),
        Put::Created => Ok(Committed::New(record)),
        Put::Exists => match read(store, &record.shard)? {
            Some(standing) => adopt(store, standing, &record.fingerprint),
            None => Err(CommitError::Record {
                path: store.path(&paths::commit(&record.shard)).to_string(),
                cause: "it vanished while it was read".into(),
            }),
        },
    }
}

/// What a shard that is committed was committed with, its files held against the record.
///
/// # Errors
/// As [`commit`].
pub fn standing(
    store: &Store,
    shard: &ShardId,
    fingerprint: &Fingerprint,
) -> Result<Option<Committed>, CommitError> {
    let record = read(store, shard)?;
    record.map(|record| adopt(store, record, fingerprint)).transpose()
}

/// Every commit record by shard.
///
/// # Errors
/// The store failed; a record is damaged or of another version.
pub fn read_all(store: &Store) -> Result<BTreeMap<ShardId, CommitRecord>, CommitError> {
    let mut records = BTreeMap::new();
    let keys: Vec<String> = store
        .list(paths::COMMITS)?
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    for keys in keys.chunks(AT_ONCE) {
        for (key, bytes) in keys.iter().zip(store.get_each(keys)?) {
            let Some(bytes) = bytes else { continue };
            let record = decode(store, key, &bytes)?;
            if paths::commit(&record.shard) != *key {
                return Err(CommitError::Record {
                    path: store.path(key).to_string(),
                    cause: format!("it speaks of shard {}", record.shard),
                });
            }
            records.insert(record.shard.clone(), record);
        }
    }
    Ok(records)
}

/// Holds the part, and the crops, against their record: size and SHA-256.
///
/// # Errors
/// A file is missing, differs, or cannot be read.
pub fn verify(store: &Store, record: &CommitRecord) -> Result<(), CommitError> {
    if let Some(crops) = &record.crops {
        verify_file(store, record, &paths::crops(&record.shard), crops)?;
    }
    verify_file(store, record, &paths::part(&record.shard), &record.part)
}

fn verify_file(store: &Store, record: &CommitRecord, key: &str, said: &PartInfo) -> Result<(), CommitError> {
    let wrong = |cause: String| CommitError::Part {
        path: store.path(key).to_string(),
        record: store.path(&paths::commit(&record.shard)).to_string(),
        cause,
    };
    let Some((bytes, sha256)) = survey::checksum(store, key)? else {
        return Err(wrong("is missing although its shard is committed".into()));
    };
    let PartInfo {
        bytes: said,
        sha256: sum,
        ..
    } = said;
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
    verify(store, &standing)?;
    Ok(Committed::Adopted(standing))
}

/// The record of a shard, if it is committed.
///
/// # Errors
/// The store failed; the record is damaged or of another version.
pub fn read(store: &Store, shard: &ShardId) -> Result<Option<CommitRecord>, CommitError> {
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
        path: store.path(key).to_string(),
        cause: error.to_string(),
    };
    let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
    if head.version != RECORD_VERSION {
        return Err(CommitError::Version {
            path: store.path(key).to_string(),
            found: head.version,
        });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

#[cfg(test)]
mod tests;
