//! Reads a part that somebody else left, to describe it in a record.

use super::CommitError;
use crate::dataset::schema::META_FINGERPRINT;
use crate::dataset::{CommitRecord, ErrorClass, PartInfo, VideoOutcome, VideoStatus, paths};
use crate::domain::{Fingerprint, hex};
use crate::store::{Store, StoreError};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};

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
fn sum(file: &mut File) -> io::Result<(u64, String)> {
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

/// Rewrites `record` to describe the part that is there.
pub(super) fn describe(store: &Store, record: CommitRecord) -> Result<CommitRecord, CommitError> {
    let path = store.path(&paths::part(&record.shard)).to_string();
    let stranger = |cause: String| CommitError::Stranger {
        path: path.clone(),
        cause,
    };
    let Some(mut file) = store.file(&paths::part(&record.shard))? else {
        return Err(stranger("it vanished while it was read".into()));
    };
    let failed = |source| StoreError::Io {
        operation: "read",
        path: path.clone().into(),
        source,
    };
    let (bytes, sha256) = sum(&mut file).map_err(failed)?;
    if (bytes, &sha256) == (record.part.bytes, &record.part.sha256) {
        return Ok(record);
    }
    file.rewind().map_err(failed)?;
    let mut counts = count(file, &record.fingerprint).map_err(stranger)?;
    let mut rows = 0;
    let videos = record.videos.into_iter().map(|video| {
        let (video_rows, faces) = counts.remove(video.key.as_str()).unwrap_or_default();
        rows += video_rows;
        recounted(video, video_rows, faces)
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
        ..record
    })
}

/// Rewrites `record` to describe the crops that are there: a whole tar, of as many samples as this attempt found.
pub(super) fn describe_crops(store: &Store, record: CommitRecord) -> Result<CommitRecord, CommitError> {
    let key = paths::crops(&record.shard);
    let path = store.path(&key).to_string();
    let stranger = |cause: String| CommitError::Stranger {
        path: path.clone(),
        cause,
    };
    let Some(mut file) = store.file(&key)? else {
        return Err(stranger("it vanished while it was read".into()));
    };
    let failed = |source| StoreError::Io {
        operation: "read",
        path: path.clone().into(),
        source,
    };
    let (bytes, sha256) = sum(&mut file).map_err(failed)?;
    let found = PartInfo {
        rows: record.crops.as_ref().map_or(0, |crops| crops.rows),
        bytes,
        sha256,
    };
    if record.crops.as_ref() != Some(&found) {
        file.rewind().map_err(failed)?;
        let members =
            members(file).map_err(|error| stranger(format!("it is no whole tar file ({error})")))?;
        if members != 2 * found.rows {
            return Err(stranger(format!(
                "it has {members} members, this attempt found {} samples of two",
                found.rows
            )));
        }
    }
    Ok(CommitRecord {
        crops: Some(found),
        ..record
    })
}

/// Members of a tar file, each read to its end.
fn members(file: File) -> io::Result<u64> {
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut count = 0;
    for member in archive.entries()? {
        std::io::copy(&mut member?, &mut std::io::sink())?;
        count += 1;
    }
    Ok(count)
}

/// An outcome with the rows that are really there. Frames, seconds and the error stay this attempt's.
fn recounted(video: VideoOutcome, rows: u64, faces: u64) -> VideoOutcome {
    if (rows, faces) == (video.rows, video.faces) {
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
        error: Some(error),
        // That attempt saw another file, or another state of it.
        error_class: video.error_class.or(Some(ErrorClass::Changed)),
        ..video
    }
}

/// Rows, and rows with a face, of each video; an error says why the file is none of our parts.
fn count(file: File, fingerprint: &Fingerprint) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| format!("it is no whole Parquet file ({error})"))?;
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    let found = pairs
        .into_iter()
        .flatten()
        .find(|pair| pair.key == META_FINGERPRINT)
        .and_then(|pair| pair.value.as_deref());
    match found {
        Some(found) if found == fingerprint.as_str() => {}
        Some(found) => {
            return Err(format!(
                "it was labelled under fingerprint {found}, this run has {fingerprint}"
            ));
        }
        None => return Err(format!("its metadata has no `{META_FINGERPRINT}`")),
    }
    let columns = ProjectionMask::columns(reader.parquet_schema(), ["video", "face"]);
    let batches = reader
        .with_projection(columns)
        .build()
        .map_err(|error| error.to_string())?;
    let mut counts = BTreeMap::new();
    for batch in batches {
        let batch = batch.map_err(|error| format!("it cannot be read to its end ({error})"))?;
        add(&batch, &mut counts).ok_or("its `video` or `face` column is not as this schema has it")?;
    }
    Ok(counts)
}

fn add(batch: &RecordBatch, counts: &mut BTreeMap<String, (u64, u64)>) -> Option<()> {
    let video = batch.column_by_name("video")?.as_dictionary_opt::<Int32Type>()?;
    let names = video.values().as_string_opt::<i32>()?;
    let face = batch.column_by_name("face")?;
    for row in 0..batch.num_rows() {
        let name = names.value(video.key(row)?);
        let has_face = u64::from(face.is_valid(row));
        match counts.get_mut(name) {
            Some((rows, faces)) => {
                *rows += 1;
                *faces += has_face;
            }
            None => {
                counts.insert(name.to_string(), (1, has_face));
            }
        }
    }
    Some(())
}
