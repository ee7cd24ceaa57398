//! Small services that every room may need: files that appear whole or not at all, checksums, signals, kills for want of
//! memory.
//!
//! Knows nothing of videos, jobs or label sets.

mod atomic;
mod folder;
mod oom;
mod sha256;
mod signals;

pub use atomic::{AtomicFile, WriteError, write_atomic};
pub use folder::{FolderId, is_lacking, sync_folder};
pub use oom::{OomCounter, OomRecord};
pub use sha256::{Sha256File, sha256_file, sha256_hex};
pub use signals::outlive;
