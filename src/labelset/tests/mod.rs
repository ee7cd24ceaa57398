//! Tests of the room as a whole.

mod commit;
mod parquet_readers;
