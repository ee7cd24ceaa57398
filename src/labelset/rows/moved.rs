//! Rows, and crops, of some videos of a part written anew as they are: into the part of another shard.
//!
//! The same rows give the same bytes as when they were labelled: batches and row groups are cut alike.

use super::crops::{append, io_error};
use super::encoding::{HashedFile, properties};
use super::reader::{ReadError, RowBatch, RowReader};
use super::{BATCH_ROWS, ROW_GROUP_ROWS, RowError, failed};
use crate::PartInfo;
use crate::schema::{LabelSchema, column};
use affectmill_base::SampleName;
use affectmill_base::VideoKey;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use tar::Builder;

/// A part without rows.
///
/// # Errors
/// [`RowError::Encode`] when the encoder refuses.
pub fn no_rows(schema: &LabelSchema) -> Result<Vec<u8>, RowError> {
    let properties = properties(schema.arrow(), schema.metadata(), ROW_GROUP_ROWS);
    ArrowWriter::try_new(Vec::new(), schema.arrow().clone(), Some(properties))
        .and_then(ArrowWriter::into_inner)
        .map_err(|source| RowError::Encode {
            path: "labels".into(),
            source,
        })
}

/// A shard of crops without crops: the end mark of a tar file.
pub fn no_crops() -> Vec<u8> {
    vec![0; 1024]
}

/// Writes those rows of a part that are of `videos` into a file that is there.
///
/// # Errors
/// [`RowError`] when the part is none of this schema, or the file cannot be written.
pub fn move_rows(
    part: File,
    videos: &BTreeSet<&VideoKey>,
    schema: &LabelSchema,
    to: &Path,
) -> Result<PartInfo, RowError> {
    let failed = |error| failed(to, error);
    let file = HashedFile::open(to).map_err(|error| failed(error.into()))?;
    let properties = properties(schema.arrow(), schema.metadata(), ROW_GROUP_ROWS);
    let mut writer = ArrowWriter::try_new(file, schema.arrow().clone(), Some(properties)).map_err(failed)?;
    let unreadable = |error: ReadError| {
        failed(match error {
            ReadError::Open(error) => error,
            ReadError::File(error) => error.into(),
            ReadError::Broken(error) => error.into(),
            unlike => ParquetError::General(unlike.to_string()),
        })
    };
    let reader = RowReader::open_whole(part).map_err(unreadable)?;
    let mut held: Vec<RecordBatch> = Vec::new();
    let mut rows = 0;
    let mut write = |held: &mut Vec<RecordBatch>, least: usize| -> Result<(), ParquetError> {
        let mut waiting: usize = held.iter().map(RecordBatch::num_rows).sum();
        if waiting == 0 || waiting < least {
            return Ok(());
        }
        let all = concat_batches(schema.arrow(), held.iter())?;
        held.clear();
        let mut at = 0;
        while waiting >= least.max(1) {
            let count = waiting.min(BATCH_ROWS);
            writer.write(&all.slice(at, count))?;
            (at, waiting) = (at + count, waiting - count);
        }
        if waiting > 0 {
            held.push(all.slice(at, waiting));
        }
        Ok(())
    };
    for batch in reader {
        let batch = batch.map_err(unreadable)?;
        let mask = wanted(&batch, videos).map_err(unreadable)?;
        let batch = filter_record_batch(batch.arrow(), &mask).map_err(|error| failed(error.into()))?;
        rows += batch.num_rows() as u64;
        held.push(batch);
        write(&mut held, BATCH_ROWS).map_err(failed)?;
    }
    write(&mut held, 1).map_err(failed)?;
    let file = writer.into_inner().map_err(failed)?;
    let (bytes, sha256) = file.finish().map_err(|error| failed(error.into()))?;
    Ok(PartInfo { rows, bytes, sha256 })
}

/// Which rows are of those videos.
fn wanted(batch: &RowBatch, videos: &BTreeSet<&VideoKey>) -> Result<BooleanArray, ReadError> {
    let names = batch.texts(column::VIDEO)?;
    let wanted: BTreeSet<i32> = names
        .dictionary()
        .filter(|(_, name)| videos.iter().any(|video| video.as_str() == *name))
        .map(|(key, _)| key)
        .collect();
    Ok(names
        .keys()
        .map(|key| key.is_some_and(|key| wanted.contains(&key)))
        .map(Some)
        .collect())
}

/// Writes those crops of a shard that are of `videos` into a file that is there. `rows` of what is returned are its samples.
///
/// # Errors
/// [`RowError::Io`].
pub fn move_crops(crops: File, videos: &BTreeSet<&VideoKey>, to: &Path) -> Result<PartInfo, RowError> {
    let failed = |source| io_error(to, source);
    let mut tar = Builder::new(HashedFile::open(to).map_err(failed)?);
    let mut archive = tar::Archive::new(BufReader::new(crops));
    let mut rows = 0;
    for member in archive.entries().map_err(failed)? {
        let mut member = member.map_err(failed)?;
        let path = member.path_bytes().into_owned();
        let name = std::str::from_utf8(&path).ok().and_then(SampleName::parse);
        let of_these = |name: &SampleName<'_>| videos.iter().any(|video| video.as_str() == name.video);
        let Some(name) = name.filter(of_these) else {
            continue;
        };
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(failed)?;
        append(&mut tar, name, &bytes).map_err(failed)?;
        rows += u64::from(name.ending == "jpg");
    }
    let (bytes, sha256) = tar.into_inner().and_then(HashedFile::finish).map_err(failed)?;
    Ok(PartInfo { rows, bytes, sha256 })
}
