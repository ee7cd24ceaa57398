//! Reads a part that somebody else left, to describe it in a record.

use super::CommitError;
use crate::commit::crops;
use crate::commit::crops::Key;
use crate::rows::{ReadError, RowBatch, RowReader};
use crate::schema::{META_FINGERPRINT, column};
use crate::{CommitRecord, PartInfo, VideoOutcome, VideoStatus, paths};
use affectmill_base::ErrorClass;
use affectmill_base::{Fingerprint, RowStatus, hex};
use affectmill_store::{Store, StoreError};
use arrow::array::Array;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};

/// Size and SHA-256 (hex) of a file; `None` when there is none.
pub(super) fn checksum(store: &Store, key: &str) -> Result<Option<(u64, String)>, StoreError> {
    let path = store.path(key).to_string();
    match store.file(key)? {
        Some(mut file) => sum(&mut file).map(Some).map_err(|source| StoreError::Io {
            operation: "read",
            path: path.clone().into(),
            source,
        }),
        None => Ok(None),
    }
}

/// Size and SHA-256 (hex) of a file, from where it stands.
pub(super) fn sum(file: &mut File) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, hex(&hash.finalize())))
}

/// Why what lies under a key cannot be adopted.
fn stranger(store: &Store, key: &str) -> impl Fn(String) -> CommitError {
    let path = store.path(key).to_string();
    move |cause| CommitError::Stranger {
        path: path.clone(),
        cause,
    }
}

/// A file that was there a moment ago.
fn there(store: &Store, key: &str) -> Result<File, CommitError> {
    let file = store.file(key)?;
    file.ok_or_else(|| stranger(store, key)("it vanished while it was read".into()))
}

/// The same, at its beginning, with its size and SHA-256 (hex).
fn summed(store: &Store, key: &str) -> Result<(File, u64, String), CommitError> {
    let mut file = there(store, key)?;
    let read = sum(&mut file).and_then(|sum| file.rewind().map(|()| sum));
    let (bytes, sha256) = read.map_err(|source| StoreError::Io {
        operation: "read",
        path: store.path(key).to_string().into(),
        source,
    })?;
    Ok((file, bytes, sha256))
}

/// Rewrites `record` to describe the part that is there.
pub(super) fn describe(store: &Store, record: CommitRecord) -> Result<CommitRecord, CommitError> {
    let key = paths::part(&record.shard);
    let stranger = stranger(store, &key);
    let (file, bytes, sha256) = summed(store, &key)?;
    if (bytes, &sha256) == (record.part.bytes, &record.part.sha256) {
        return Ok(record);
    }
    let mut counts = count(file, &record.fingerprint).map_err(&stranger)?;
    let mut rows = 0;
    let videos = record.videos.into_iter().map(|video| {
        let counted = counts.remove(video.key.as_str()).unwrap_or_default();
        rows += counted.rows;
        recounted(video, counted)
    });
    let videos = videos.collect();
    if let Some(key) = counts.keys().next() {
        return Err(stranger(format!(
            "it holds rows of `{key}`, which is not in this shard"
        )));
    }
    Ok(CommitRecord {
        part: PartInfo { rows, bytes, sha256 },
        videos,
        // Whoever left it.
        device: None,
        ..record
    })
}

/// Rewrites `record` to describe the crops that are there: those of the part's rows.
pub(super) fn describe_crops(store: &Store, record: CommitRecord) -> Result<CommitRecord, CommitError> {
    let key = paths::crops(&record.shard);
    let stranger = stranger(store, &key);
    let (file, bytes, sha256) = summed(store, &key)?;
    let ours = record.crops.as_ref();
    if ours.is_some_and(|ours| (ours.bytes, &ours.sha256) == (bytes, &sha256)) {
        return Ok(record);
    }
    let rows = rows_with_faces(store, &record)?;
    let samples = crops::samples(file, &record.fingerprint).map_err(&stranger)?;
    if samples != rows {
        return Err(stranger(differing(&samples, &rows)));
    }
    let rows = samples.len() as u64;
    Ok(CommitRecord {
        crops: Some(PartInfo { rows, bytes, sha256 }),
        ..record
    })
}

/// Holds this attempt's crops against a part that somebody else left.
pub(super) fn hold_crops_against_part(
    store: &Store,
    record: &CommitRecord,
    crops: io::Result<File>,
) -> Result<(), CommitError> {
    let key = paths::part(&record.shard);
    let stranger = stranger(store, &key);
    let rows = rows_with_faces(store, record)?;
    let crops = crops.map_err(|source| StoreError::Io {
        operation: "read the crops for",
        path: store.path(&key).to_string().into(),
        source,
    })?;
    let samples = crops::samples(crops, &record.fingerprint).map_err(&stranger)?;
    if samples == rows {
        return Ok(());
    }
    Err(stranger(differing(&samples, &rows)))
}

fn differing(samples: &BTreeSet<Key>, rows: &BTreeSet<Key>) -> String {
    let (extra, missing) = (samples.difference(rows).count(), rows.difference(samples).count());
    format!("of the rows with a face in the part {missing} have no crop, and {extra} crops have no row")
}

/// Video, frame and face of every row with a face in the part that is there.
fn rows_with_faces(store: &Store, record: &CommitRecord) -> Result<BTreeSet<Key>, CommitError> {
    let key = paths::part(&record.shard);
    let stranger = stranger(store, &key);
    let file = there(store, &key)?;
    let mut keys = BTreeSet::new();
    let batches = batches(
        file,
        &record.fingerprint,
        &[column::VIDEO, column::FRAME, column::FACE],
    )
    .map_err(&stranger)?;
    for batch in batches {
        batch
            .and_then(|batch| gather(&batch, &mut keys))
            .map_err(|error| stranger(error.to_string()))?;
    }
    Ok(keys)
}

fn gather(batch: &RowBatch, keys: &mut BTreeSet<Key>) -> Result<(), ReadError> {
    let videos = batch.texts(column::VIDEO)?;
    let (frames, faces) = (batch.longs(column::FRAME)?, batch.integers(column::FACE)?);
    for row in (0..batch.rows()).filter(|&row| faces.is_valid(row)) {
        let frame = u64::try_from(frames.value(row)).map_err(|_| ReadError::Unlike(column::FRAME.into()))?;
        keys.insert((videos.text(row)?.to_owned(), frame, faces.value(row)));
    }
    Ok(())
}

/// An outcome with the rows that are really there. Frames, seconds and the error stay this attempt's.
fn recounted(video: VideoOutcome, counted: Counted) -> VideoOutcome {
    let Counted {
        rows,
        faces,
        not_finite,
    } = counted;
    if (rows, faces, not_finite) == (video.rows, video.faces, video.not_finite) {
        return video;
    }
    let status = if rows == 0 {
        VideoStatus::Failed
    } else {
        VideoStatus::Partial
    };
    let note = format!(
        "an earlier attempt's part was adopted: {rows} rows, {faces} with a face; this attempt had {} and {}",
        video.rows, video.faces
    );
    let error = match video.error {
        Some(error) => format!("{error}; {note}"),
        None => note,
    };
    VideoOutcome {
        status,
        rows,
        faces,
        not_finite,
        error: Some(error),
        // That attempt saw another file, or another state of it.
        error_class: video.error_class.or(Some(ErrorClass::Changed)),
        ..video
    }
}

/// The rows of some columns; an error says why the file is none of our parts.
fn batches(file: File, fingerprint: &Fingerprint, columns: &[&str]) -> Result<RowReader, String> {
    let reader = RowReader::open(file, columns).map_err(|error| error.to_string())?;
    match reader.fingerprint() {
        Some(found) if found == fingerprint.as_str() => Ok(reader),
        Some(found) => Err(format!(
            "it was labelled under fingerprint {found}, this run has {fingerprint}"
        )),
        None => Err(format!("its metadata has no `{META_FINGERPRINT}`")),
    }
}

/// What a part holds of a video.
#[derive(Clone, Copy, Default)]
struct Counted {
    rows: u64,
    /// Rows with a face.
    faces: u64,
    /// Of these, those for which a model gave no numbers.
    not_finite: u64,
}

/// What a part holds of each video.
fn count(file: File, fingerprint: &Fingerprint) -> Result<BTreeMap<String, Counted>, String> {
    let batches = batches(file, fingerprint, &[column::VIDEO, column::FACE, column::STATUS])?;
    let mut counts = BTreeMap::new();
    for batch in batches {
        batch
            .and_then(|batch| add(&batch, &mut counts))
            .map_err(|error| error.to_string())?;
    }
    Ok(counts)
}

fn add(batch: &RowBatch, counts: &mut BTreeMap<String, Counted>) -> Result<(), ReadError> {
    let (videos, statuses) = (batch.texts(column::VIDEO)?, batch.texts(column::STATUS)?);
    let faces = batch.integers(column::FACE)?;
    for row in 0..batch.rows() {
        let name = videos.text(row)?;
        let counted = match counts.get_mut(name) {
            Some(counted) => counted,
            None => counts.entry(name.to_string()).or_default(),
        };
        counted.rows += 1;
        counted.faces += u64::from(faces.is_valid(row));
        counted.not_finite += u64::from(statuses.text(row)? == RowStatus::NotFinite.as_str());
    }
    Ok(())
}
