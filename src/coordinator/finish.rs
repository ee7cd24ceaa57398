//! After the last commit: manifest, `videos.parquet`, and `_SUCCESS` last of all.
//!
//! All three are functions of the plans and the commit records, so two coordinators that finish at the same time
//! write the same bytes, and a finished set is recognised by finding them there already.

use super::{Prepared, RunError, Sink};
use affectmill_base::ShardId;
use affectmill_labelset::commit;
use affectmill_labelset::events::{Event, NotOk, Summary, by_device};
use affectmill_labelset::plan;
use affectmill_labelset::rows;
use affectmill_labelset::rows::VideoRow;
use affectmill_labelset::{
    Manifest, ManifestPart, RECORD_VERSION, ShardPlan, VideoOutcome, VideoStatus, paths,
};
use affectmill_store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// Videos listed by name in the summary.
const MAX_LISTED: usize = 20;

/// Takes back what says that the label set is whole, before it grows: people and schedulers wait for these files. `_SUCCESS`
/// goes first.
pub fn retract(store: &Store) -> Result<(), RunError> {
    for key in [paths::SUCCESS, paths::MANIFEST, paths::VIDEOS] {
        store.delete(key)?;
    }
    Ok(())
}

/// Finishes the label set. Returns its summary and whether anything had to be written.
pub fn finish(prepared: &Prepared, sink: Sink<'_>) -> Result<(Summary, bool), RunError> {
    let store = &prepared.store;
    loop {
        let shards = plan::read_all(store)?;
        let done = finish_planned(prepared, &shards, sink)?;
        // Another run plans first and retracts then: either it took the mark back, or its plan is seen here.
        if plan::read_all(store)?.len() == shards.len() {
            return Ok(done);
        }
        store.delete(paths::SUCCESS)?;
    }
}

#[expect(clippy::too_many_lines, reason = "the steps of finishing, in order")]
fn finish_planned(
    prepared: &Prepared,
    shards: &[ShardPlan],
    sink: Sink<'_>,
) -> Result<(Summary, bool), RunError> {
    let store = &prepared.store;
    let commits = commit::read_all(store)?;
    let ours: BTreeSet<&ShardId> = prepared.shards.iter().map(|shard| &shard.id).collect();
    let mut open = shards
        .iter()
        .map(|shard| &shard.id)
        .filter(|id| !commits.contains_key(id));
    match open.clone().find(|id| ours.contains(id)) {
        // A store that says less than was stored must not make a set look whole.
        Some(shard) => {
            return Err(RunError::Uncommitted {
                commit: store.path(&paths::commit(shard)).to_string(),
            });
        }
        None if open.next().is_some() => {
            return Err(RunError::PlannedMeanwhile {
                output: store.root().to_string(),
                shards: 1 + open.count(),
            });
        }
        None => {}
    }
    let files = |folder| -> Result<BTreeMap<String, u64>, RunError> {
        let entries = store.list(folder)?.into_iter();
        Ok(entries.map(|entry| (entry.key, entry.bytes)).collect())
    };
    let (mut found, mut kept) = (files(paths::LABELS)?, files(paths::CROPS)?);
    let mut parts = Vec::with_capacity(commits.len());
    let mut crops = Vec::new();
    for (shard, record) in &commits {
        let path = paths::part(shard);
        // Checksums were taken when it was committed; reading terabytes again here would cost more than it tells. But where the
        // listing says otherwise, which may lag behind what others put there, the files themselves are asked.
        let mut as_said = found.remove(&path) == Some(record.part.bytes);
        parts.push(ManifestPart {
            path,
            shard: shard.clone(),
            info: record.part.clone(),
        });
        if let Some(info) = &record.crops {
            let path = paths::crops(shard);
            as_said &= kept.remove(&path) == Some(info.bytes);
            crops.push(ManifestPart {
                path,
                shard: shard.clone(),
                info: info.clone(),
            });
        }
        if !as_said {
            commit::verify(store, record)?;
        }
    }
    for stranger in found.keys().chain(kept.keys()) {
        let message = format!(
            "{} belongs to no commit of this job, and readers would take it for labels: move it away",
            store.path(stranger)
        );
        sink(&Event::Warning { message });
    }

    let manifest = Manifest {
        version: RECORD_VERSION,
        fingerprint: prepared.record.fingerprint.clone(),
        rows: parts.iter().map(|part| part.info.rows).sum(),
        parts,
        crops,
    };
    let manifest_json = serde_json::to_vec_pretty(&manifest).map_err(|error| RunError::Record {
        path: paths::MANIFEST.into(),
        cause: error.to_string(),
    })?;
    let outcomes = plan::outcomes(shards, &commits)?;
    let videos: Vec<VideoRow<'_>> = outcomes
        .iter()
        .map(|(latest, outcome)| VideoRow {
            shard: &latest.shard.id,
            attempt: latest.shard.attempt,
            planned: latest.planned,
            outcome,
            device: commits[&latest.shard.id].device.as_ref(),
        })
        .collect();
    let videos = rows::write_videos(&videos, &prepared.record.fingerprint)?;

    let same = |key: &str, bytes: &[u8]| Ok::<_, RunError>(store.get(key)?.as_deref() == Some(bytes));
    let changed = !(same(paths::SUCCESS, b"")?
        && same(paths::MANIFEST, &manifest_json)?
        && same(paths::VIDEOS, &videos)?);
    if changed {
        // Not whole while the files below change.
        store.delete(paths::SUCCESS)?;
        store.replace(paths::VIDEOS, &videos)?;
        store.replace(paths::MANIFEST, &manifest_json)?;
        store.replace(paths::SUCCESS, b"")?;
    }
    // Left over, they are in nobody's way.
    if let Err(error) = commit::forget_all_spans(store) {
        let message = error.to_string();
        sink(&Event::Warning { message });
    }
    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
    let summary = Summary {
        passed_over: prepared.passed_over.clone(),
        unseen: prepared.unseen.clone(),
        devices: by_device(commits.values()),
        ..summarise(manifest.rows, outcomes)
    };
    Ok((summary, changed))
}

/// `outcomes` come in key order.
fn summarise<'a>(rows: u64, outcomes: impl Iterator<Item = &'a VideoOutcome>) -> Summary {
    let mut summary = Summary {
        rows,
        ..Summary::default()
    };
    for video in outcomes {
        summary.frames += video.frames;
        summary.faces += video.faces;
        summary.not_finite += video.not_finite;
        summary.fell_back += usize::from(video.decode_fallback.is_some());
        *match video.status {
            VideoStatus::Ok => &mut summary.ok,
            VideoStatus::Partial => &mut summary.partial,
            VideoStatus::Failed => &mut summary.failed,
            VideoStatus::Quarantined => &mut summary.quarantined,
        } += 1;
        if summary.not_ok.len() < MAX_LISTED {
            summary.not_ok.extend(NotOk::of(video));
        }
    }
    summary
}
