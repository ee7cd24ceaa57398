//! The stages of the pipeline: plain synchronous functions; threads and channels belong to `worker/`.

pub mod rows;
