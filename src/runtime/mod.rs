//! Small services that every room may need: files that appear whole or not at all, checksums, and the machine's name.
//!
//! Knows nothing of videos, jobs or label sets.

mod atomic;
mod sha256;

pub use atomic::{AtomicFile, WriteError, write_atomic};
pub use sha256::{Sha256File, sha256_file, sha256_hex};

/// The name of this machine; empty where nobody says.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
