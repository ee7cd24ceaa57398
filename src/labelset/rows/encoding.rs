//! How Parquet is written: fixed properties, and a file that is hashed as it is written.

use crate::schema::CREATED_BY;
use affectmill_base::hex;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writer properties: zstd; floats split into byte streams, which compresses them best; 64-bit integers as
/// differences; a dictionary for text and small integers only.
pub(super) fn properties(
    schema: &SchemaRef,
    metadata: &[(String, String)],
    row_group_rows: usize,
) -> WriterProperties {
    let pairs = metadata
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.into())
        .set_key_value_metadata(Some(pairs.collect()))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for field in schema.fields() {
        let name = field.name().clone();
        let (path, encoding) = match field.data_type() {
            DataType::Float32 | DataType::Float64 => (vec![name], Encoding::BYTE_STREAM_SPLIT),
            DataType::FixedSizeList(item, _) => (
                vec![name, "list".into(), item.name().clone()],
                Encoding::BYTE_STREAM_SPLIT,
            ),
            DataType::Int64 => (vec![name], Encoding::DELTA_BINARY_PACKED),
            _ => continue,
        };
        let path = ColumnPath::new(path);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, encoding);
    }
    properties.build()
}

/// A file whose size and SHA-256 are known when it ends.
pub(super) struct HashedFile {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl HashedFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).truncate(true).open(path)?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Flushes to the disk; returns size and SHA-256 in hex.
    pub(super) fn finish(self) -> io::Result<(u64, String)> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok((self.bytes, hex(&self.hash.finalize())))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
