//! Rows that go from one shard to another: of the videos beside one that is labelled again.
//!
//! A video that is `partial` has rows, in one part with those of other videos. To label it again, a retry plans it for a further
//! attempt, and the other videos of its shard for a copy of that shard ([`ShardPlan::copy_of`]). Before the next lease, whoever
//! prepares a run carries that out, each step safe to repeat and to be killed after:
//!
//! 1. The old shard's record says that it is retired: no rows, and what it held, to copy from. Own readers go by it.
//! 2. The copy is made of the old part, and committed create-only, as any shard.
//! 3. The old part becomes one without rows. It stays there, as its record does, so that no zombie worker puts rows in its place.
//!
//! `_SUCCESS` is gone meanwhile, and in between other tools see rows twice, or some not yet.

use super::RunError;
use super::finish::retract;
use affectmill_base::VideoKey;
use affectmill_labelset::commit;
use affectmill_labelset::commit::Files;
use affectmill_labelset::rows::{move_crops, move_rows, no_crops, no_rows};
use affectmill_labelset::{CommitRecord, JobRecord, LabelSchema, RECORD_VERSION, ShardPlan, paths};
use affectmill_spec::Crops;
use affectmill_store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// Carries out what plans say of copies, as far as it is not done.
///
/// # Errors
/// [`RunError`]: the store failed, or an old part is not what its record says.
pub fn settle(store: &Store, record: &JobRecord, shards: &[ShardPlan]) -> Result<(), RunError> {
    let old_of = |copy: &ShardPlan| {
        let id = copy.copy_of.as_ref()?;
        shards.iter().find(|shard| shard.id == *id)
    };
    let pairs = shards.iter().filter_map(|copy| Some((copy, old_of(copy)?)));
    let pairs: Vec<(&ShardPlan, &ShardPlan)> = pairs.collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let entries = [store.list(paths::LABELS)?, store.list(paths::CROPS)?].concat();
    let sizes: BTreeMap<String, u64> = entries
        .into_iter()
        .map(|entry| (entry.key, entry.bytes))
        .collect();
    let schema = LabelSchema::new(&record.models, record.job.output.values, &record.fingerprint);
    let (rows, crops) = (no_rows(&schema)?, no_crops());
    let keeps_crops = record.job.output.crops != Crops::None;
    let nothing = (rows.as_slice(), keeps_crops.then_some(crops.as_slice()));
    let mut begun = false;
    for (copy, old) in pairs {
        let standing = commit::read(store, &old.id)?;
        let copied = commit::read(store, &copy.id)?.is_some();
        if copied
            && standing
                .as_ref()
                .is_some_and(|standing| is_empty(standing, &sizes))
        {
            continue;
        }
        if !std::mem::replace(&mut begun, true) {
            retract(store)?;
        }
        let held = match &standing {
            Some(CommitRecord {
                retired: Some(retired),
                ..
            }) => retired.held.as_deref().cloned(),
            standing => standing.clone(),
        };
        let retired = commit::retire(store, old, &record.fingerprint, held.as_ref(), nothing)?;
        // Where the old record is lost there is nothing to copy from, and workers label the videos anew.
        if let Some(held) = held.filter(|_| !copied)
            && let Err(error) = make_copy(store, &schema, copy, &held)
        {
            // Another coordinator may have been faster, and the old part gone.
            commit::read(store, &copy.id)?.ok_or(error)?;
        }
        commit::empty(store, &retired, nothing)?;
    }
    Ok(())
}

/// Whether nothing is left of a shard.
fn is_empty(standing: &CommitRecord, sizes: &BTreeMap<String, u64>) -> bool {
    let crops = standing.crops.as_ref();
    standing.retired.is_some()
        && sizes.get(&paths::part(&standing.shard)) == Some(&standing.part.bytes)
        && crops.is_none_or(|crops| sizes.get(&paths::crops(&standing.shard)) == Some(&crops.bytes))
}

/// Commits the copy of a shard, of those of its videos that stay as they are.
fn make_copy(
    store: &Store,
    schema: &LabelSchema,
    copy: &ShardPlan,
    held: &CommitRecord,
) -> Result<(), RunError> {
    commit::verify(store, held)?;
    let keys: BTreeSet<&VideoKey> = copy.videos.iter().map(|video| &video.key).collect();
    let missing = |key: String| RunError::Record {
        path: store.path(&key).to_string(),
        cause: "it vanished while it was read".into(),
    };
    let key = paths::part(&held.shard);
    let old = store.file(&key)?.ok_or_else(|| missing(key))?;
    let part = store.scratch_file(copy.id.as_str())?;
    let info = move_rows(old, &keys, schema, part.path())?;
    let (mut crops, mut crops_info) = (None, None);
    if held.crops.is_some() {
        let key = paths::crops(&held.shard);
        let old = store.file(&key)?.ok_or_else(|| missing(key))?;
        let file = store.scratch_file(copy.id.as_str())?;
        crops_info = Some(move_crops(old, &keys, file.path())?);
        crops = Some(file);
    }
    let videos = held.videos.iter().filter(|video| keys.contains(&video.key));
    let record = CommitRecord {
        version: RECORD_VERSION,
        shard: copy.id.clone(),
        fingerprint: held.fingerprint.clone(),
        part: info,
        crops: crops_info,
        videos: videos.cloned().collect(),
        device: held.device.clone(),
        retired: None,
        seconds: held.seconds,
    };
    commit::commit(store, Files { part, crops }, record)?;
    Ok(())
}
