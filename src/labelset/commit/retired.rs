//! Shards of which nothing counts any more, because their videos were planned again.

use super::{CommitError, encode};
use crate::{CommitRecord, PartInfo, RECORD_VERSION, Retired, ShardPlan, StageSeconds, VideoOutcome, paths};
use affectmill_base::Fingerprint;
use affectmill_base::sha256_hex;
use affectmill_store::Store;

/// Retires a shard: from now on its record says that it holds nothing, and what it held. `rows`, and where crops are kept `crops`,
/// are the files without any that [`empty`] puts in the place of its own.
///
/// # Errors
/// The store failed.
pub fn retire(
    store: &Store,
    shard: &ShardPlan,
    fingerprint: &Fingerprint,
    held: Option<&CommitRecord>,
    (rows, crops): (&[u8], Option<&[u8]>),
) -> Result<CommitRecord, CommitError> {
    let nothing = |bytes: &[u8]| PartInfo {
        rows: 0,
        bytes: bytes.len() as u64,
        sha256: sha256_hex(bytes),
    };
    let of_none = |video: &VideoOutcome| VideoOutcome {
        rows: 0,
        faces: 0,
        not_finite: 0,
        ..video.clone()
    };
    let unknown = || {
        shard
            .videos
            .iter()
            .map(|video| VideoOutcome::new(video.key.clone()))
    };
    let record = CommitRecord {
        version: RECORD_VERSION,
        shard: shard.id.clone(),
        fingerprint: fingerprint.clone(),
        part: nothing(rows),
        crops: crops.map(nothing),
        videos: match held {
            Some(held) => held.videos.iter().map(of_none).collect(),
            None => unknown().collect(),
        },
        device: None,
        retired: Some(Retired {
            held: held.cloned().map(Box::new),
        }),
        seconds: StageSeconds::default(),
    };
    store.replace(&paths::commit(&shard.id), &encode(&record))?;
    Ok(record)
}

/// Puts files without rows and crops in the place of a retired shard's.
///
/// # Errors
/// The store failed.
pub fn empty(
    store: &Store,
    retired: &CommitRecord,
    (rows, crops): (&[u8], Option<&[u8]>),
) -> Result<(), CommitError> {
    store.replace(&paths::part(&retired.shard), rows)?;
    if let Some(crops) = crops {
        store.replace(&paths::crops(&retired.shard), crops)?;
    }
    Ok(())
}
