//! Labels faces in very large video collections: one trustworthy row per frame and face, in Parquet.

pub mod dataset;
pub mod domain;
pub mod spec;
pub mod stages;
