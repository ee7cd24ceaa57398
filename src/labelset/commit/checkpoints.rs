//! How far the long video of a shard has come: checkpoints, kept beside the commits until the shard has its own.
//!
//! Checkpoints are no truth. Whatever is wrong with one, it and those after it count for nothing and the video is labelled again from
//! where the good ones end; when they cannot be gone on from, all are forgotten.

use super::survey;
use crate::{CheckpointRecord, PartInfo, RECORD_VERSION, paths};
use affectmill_base::{Fingerprint, ShardId};
use affectmill_store::{Put, Store, StoreError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek;
use tempfile::NamedTempFile;

/// The checkpoints of a shard that follow one another from the beginning of its video, as far as they are whole.
///
/// # Errors
/// The store failed.
pub fn read_spans(
    store: &Store,
    shard: &ShardId,
    fingerprint: &Fingerprint,
) -> Result<Vec<CheckpointRecord>, StoreError> {
    let mut spans: Vec<CheckpointRecord> = Vec::new();
    while let Some(bytes) = store.get(&paths::span(shard, spans.len() as u32))? {
        let Ok(span) = serde_json::from_slice::<CheckpointRecord>(&bytes) else {
            break;
        };
        let follows = spans.last().map(|last| &last.part.sha256);
        let fits = span.version == RECORD_VERSION
            && span.shard == *shard
            && span.fingerprint == *fingerprint
            && span.number == spans.len() as u32
            && span.follows.as_ref() == follows;
        if !fits {
            break;
        }
        spans.push(span);
    }
    Ok(spans)
}

/// Keeps a checkpoint; `false` when another attempt has kept one of this number.
///
/// # Errors
/// The store failed.
pub fn put_span(
    store: &Store,
    span: &CheckpointRecord,
    part: NamedTempFile,
    crops: Option<NamedTempFile>,
) -> Result<bool, StoreError> {
    // Named by their content: what is there already is the same.
    let _ = store.put_new_file(&paths::span_part(&span.shard, &span.part.sha256), part)?;
    if let (Some(file), Some(info)) = (crops, &span.crops) {
        let _ = store.put_new_file(&paths::span_crops(&span.shard, &info.sha256), file)?;
    }
    let record = serde_json::to_vec_pretty(span).expect("a record of plain text and numbers becomes JSON");
    let put = store.put_new(&paths::span(&span.shard, span.number), &record)?;
    Ok(put == Put::Created)
}

/// The rows of a checkpoint, and its crops; `None` when they are not what its record says.
///
/// # Errors
/// The store failed.
pub fn open_span(store: &Store, span: &CheckpointRecord) -> Result<Option<(File, Option<File>)>, StoreError> {
    let part = open(
        store,
        &paths::span_part(&span.shard, &span.part.sha256),
        &span.part,
    )?;
    let crops = match &span.crops {
        Some(info) => Some(open(store, &paths::span_crops(&span.shard, &info.sha256), info)?),
        None => None,
    };
    Ok(match (part, crops) {
        (Some(part), None) => Some((part, None)),
        (Some(part), Some(Some(crops))) => Some((part, Some(crops))),
        _ => None,
    })
}

fn open(store: &Store, key: &str, info: &PartInfo) -> Result<Option<File>, StoreError> {
    let Some(mut file) = store.file(key)? else {
        return Ok(None);
    };
    let summed = survey::sum(&mut file).and_then(|sum| file.rewind().map(|()| sum));
    let (bytes, sha256) = summed.map_err(|source| StoreError::Io {
        operation: "read",
        path: store.path(key).to_string().into(),
        source,
    })?;
    Ok(((bytes, &sha256) == (info.bytes, &info.sha256)).then_some(file))
}

/// Removes the checkpoints of a shard.
///
/// # Errors
/// The store failed.
pub fn forget_spans(store: &Store, shard: &ShardId) -> Result<(), StoreError> {
    forget(store, &paths::spans(shard))
}

/// Removes the checkpoints of every shard.
///
/// # Errors
/// The store failed.
pub fn forget_all_spans(store: &Store) -> Result<(), StoreError> {
    forget(store, paths::SPANS)
}

fn forget(store: &Store, beginning: &str) -> Result<(), StoreError> {
    let mut keys: Vec<String> = store
        .list(paths::SPANS)?
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    keys.retain(|key| key.starts_with(beginning));
    // Records go first, the last one foremost: what is left makes sense at any moment.
    keys.sort_by_key(|key| (!key.ends_with(".json"), std::cmp::Reverse(key.clone())));
    keys.iter().try_for_each(|key| store.delete(key).map(|_| ()))
}

/// Frames decoded and rows labelled in the checkpoints of shards, of each shard that has any.
///
/// # Errors
/// The store failed.
pub fn spans_kept(store: &Store) -> Result<BTreeMap<ShardId, (u64, u64)>, StoreError> {
    let keys: Vec<String> = store
        .list(paths::SPANS)?
        .into_iter()
        .map(|entry| entry.key)
        .filter(|key| key.ends_with(".json"))
        .collect();
    let mut kept: BTreeMap<ShardId, (u64, u64)> = BTreeMap::new();
    for bytes in store.get_each(&keys)?.into_iter().flatten() {
        if let Ok(span) = serde_json::from_slice::<CheckpointRecord>(&bytes) {
            let (frames, rows) = kept.entry(span.shard).or_default();
            *frames = span.resume_point.frames.max(*frames);
            *rows += span.part.rows;
        }
    }
    Ok(kept)
}
