//! What tests of every room share: test media, and real servers started on free ports.
#![expect(clippy::print_stderr, reason = "a server that does not start says why")]

pub mod media;
pub mod nats;
pub mod s3;

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository")
}
