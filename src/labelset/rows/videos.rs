//! `videos.parquet`: one row per video.

use super::encoding::properties;
use super::{ROW_GROUP_ROWS, RowError};
use crate::schema::{META_FINGERPRINT, META_SCHEMA_VERSION, SCHEMA_VERSION, videos_schema};
use crate::{PlannedVideo, ShardDevice, VideoOutcome, paths};
use affectmill_base::ErrorClass;
use affectmill_base::{Fingerprint, ShardId};
use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use std::sync::Arc;

/// What is known of one video.
#[derive(Clone, Copy, Debug)]
pub struct VideoRow<'a> {
    /// The shard that holds its rows.
    pub shard: &'a ShardId,
    /// As it was planned.
    pub planned: &'a PlannedVideo,
    /// How often it was planned before.
    pub attempt: u32,
    /// What became of it.
    pub outcome: &'a VideoOutcome,
    /// What it was labelled on.
    pub device: Option<&'a ShardDevice>,
}

/// The bytes of `videos.parquet`; `rows` come sorted by key. What is made of them on the way is one row group at a time.
///
/// # Errors
/// [`RowError::Encode`] when the encoder refuses.
pub fn write_videos(rows: &[VideoRow<'_>], fingerprint: &Fingerprint) -> Result<Vec<u8>, RowError> {
    encode(rows, fingerprint).map_err(|source| RowError::Encode {
        path: paths::VIDEOS.into(),
        source,
    })
}

fn encode(rows: &[VideoRow<'_>], fingerprint: &Fingerprint) -> Result<Vec<u8>, ParquetError> {
    let schema = videos_schema();
    let metadata = [
        (META_SCHEMA_VERSION.to_string(), SCHEMA_VERSION.to_string()),
        (META_FINGERPRINT.to_string(), fingerprint.to_string()),
    ];
    let properties = properties(&schema, &metadata, ROW_GROUP_ROWS);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    for rows in rows.chunks(ROW_GROUP_ROWS) {
        writer.write(&RecordBatch::try_new(schema.clone(), columns(rows))?)?;
    }
    writer.into_inner()
}

fn columns(rows: &[VideoRow<'_>]) -> Vec<ArrayRef> {
    let count = |of: fn(&VideoRow<'_>) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|row| of(row) as i64),
        ))
    };
    let outcomes = || rows.iter().map(|row| row.outcome);
    let statuses: DictionaryArray<Int32Type> = outcomes().map(|video| video.status.as_str()).collect();
    let classes: DictionaryArray<Int32Type> = outcomes()
        .map(|video| video.error_class.map(ErrorClass::as_str))
        .collect();
    let text = |of: fn(&VideoOutcome) -> Option<&str>| -> ArrayRef {
        Arc::new(outcomes().map(of).collect::<StringArray>())
    };
    let devices: Vec<Option<String>> = rows
        .iter()
        .map(|row| row.device.map(ToString::to_string))
        .collect();
    let devices: DictionaryArray<Int32Type> = devices.iter().map(Option::as_deref).collect();
    let durations = rows.iter().map(|row| match row.planned.duration_us {
        0 => None,
        known => i64::try_from(known).ok(),
    });
    vec![
        Arc::new(StringArray::from_iter_values(
            outcomes().map(|video| video.key.as_str()),
        )),
        Arc::new(statuses),
        count(|row| row.outcome.frames),
        count(|row| row.outcome.rows),
        count(|row| row.outcome.faces),
        Arc::new(Float64Array::from_iter_values(
            outcomes().map(|video| video.seconds),
        )),
        text(|video| video.error.as_deref()),
        Arc::new(classes),
        Arc::new(Int64Array::from_iter(
            outcomes().map(|video| video.error_frame.map(|frame| frame.0 as i64)),
        )),
        Arc::new(Int32Array::from_iter_values(
            rows.iter().map(|row| row.attempt as i32),
        )),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| row.shard.as_str()),
        )),
        count(|row| row.planned.bytes),
        Arc::new(Int64Array::from_iter(durations)),
        text(|video| video.decode_fallback.as_deref()),
        Arc::new(Int64Array::from_iter(
            outcomes().map(|video| video.lost.map(|lost| lost as i64)),
        )),
        text(|video| video.transfer.as_deref()),
        text(|video| video.tone_mapping.as_deref()),
        Arc::new(devices),
        count(|row| row.outcome.not_finite),
    ]
}
