//! Where a label set is kept: files under a root, created whole or not at all.
//!
//! Flows in: keys (`/`-separated text relative to the root, as [`dataset::paths`](crate::dataset::paths) makes them)
//! and bytes. Flows out: the same bytes, or an error that says what to do about it. A file appears under its key
//! complete and flushed to the disk, or not at all; two writers of one key never mix: [`Store::put_new`] has
//! one winner.
//!
//! Never interprets what it stores, and never leaves an unfinished file outside `_affectmill/tmp`.

mod error;
mod local;

pub use error::{StoreError, remedy};
pub use local::{Entry, Put, Store};

#[cfg(test)]
mod tests;
