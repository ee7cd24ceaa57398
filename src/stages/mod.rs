//! The stages of the pipeline: decode, faces, infer, rows.
//!
//! Plain synchronous functions and values: no threads, no channels, no printing. Who calls them in which order,
//! and on which thread, is the worker's business alone.

pub mod decode;
pub mod encode;
pub mod faces;
pub mod infer;
pub mod rows;
