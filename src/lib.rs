//! Labels faces in very large video collections: one trustworthy row per frame and face, in Parquet.

pub mod commit;
pub mod dataset;
pub mod discover;
pub mod domain;
pub mod plan;
pub mod spec;
pub mod stages;
pub mod store;
