//! After the last commit: manifest, `videos.parquet`, and `_SUCCESS` last of all.
//!
//! All three are functions of the plans and the commit records, so two coordinators that finish at the same time
//! write the same bytes, and a finished set is recognised by finding them there already.

use super::{Prepared, RunError, Sink};
use crate::commit;
use crate::dataset::{Manifest, ManifestPart, RECORD_VERSION, VideoStatus, paths};
use crate::domain::ShardId;
use crate::events::{Event, NotOk, Summary};
use crate::stages::rows;
use crate::store::Store;
use std::collections::BTreeMap;

/// Videos listed by name in the summary.
const MAX_LISTED: usize = 20;

/// Finishes the label set. Returns its summary and whether anything had to be written.
pub fn finish(prepared: &Prepared, sink: Sink<'_>) -> Result<(Summary, bool), RunError> {
    let store = &prepared.store;
    let commits = commit::read_all(store)?;
    let mut parts = Vec::with_capacity(commits.len());
    for (shard, record) in &commits {
        let path = paths::part(shard);
        commit::verify_part_size(store, record)?;
        parts.push(ManifestPart { path, shard: shard.clone(), info: record.part.clone() });
    }
    warn_strangers(store, &commits, sink)?;

    let manifest = Manifest {
        version: RECORD_VERSION,
        fingerprint: prepared.record.fingerprint.clone(),
        rows: parts.iter().map(|part| part.info.rows).sum(),
        parts,
    };
    let manifest_json = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| RunError::Record { path: paths::MANIFEST.into(), cause: error.to_string() })?;
    let videos = rows::write_videos(&prepared.shards, &commits)?;

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
    Ok((summarise(&commits), changed))
}

/// A file under `labels/` that no commit accounts for would be read as labels: say so.
fn warn_strangers<T>(store: &Store, commits: &BTreeMap<ShardId, T>, sink: Sink<'_>) -> Result<(), RunError> {
    let known: Vec<String> = commits.keys().map(paths::part).collect();
    for entry in store.list(paths::LABELS)? {
        if !known.contains(&entry.key) {
            sink(&Event::Warning {
                message: format!(
                    "{} belongs to no commit of this job, and readers would take it for labels: move it away",
                    store.path(&entry.key).display()
                ),
            });
        }
    }
    Ok(())
}

fn summarise(commits: &BTreeMap<ShardId, crate::dataset::CommitRecord>) -> Summary {
    let mut summary = Summary::default();
    for record in commits.values() {
        summary.rows += record.part.rows;
        for video in &record.videos {
            summary.frames += video.frames;
            summary.faces += video.faces;
            *match video.status {
                VideoStatus::Ok => &mut summary.ok,
                VideoStatus::Partial => &mut summary.partial,
                VideoStatus::Failed => &mut summary.failed,
                VideoStatus::Quarantined => &mut summary.quarantined,
            } += 1;
            if video.status != VideoStatus::Ok {
                let error = video.error.clone().unwrap_or_default();
                summary.not_ok.push(NotOk { video: video.key.clone(), status: video.status, error });
            }
        }
    }
    summary.not_ok.sort_by(|a, b| a.video.cmp(&b.video));
    summary.not_ok.truncate(MAX_LISTED);
    summary
}
