//! Small services that every room may need: files that appear whole or not at all, checksums, processes, signals, kills for want
//! of memory, the machine's name, and text from outside.
//!
//! Knows nothing of videos, jobs or label sets.

mod atomic;
mod folder;
mod oom;
mod process;
mod program;
mod sha256;
mod signals;
mod text;

pub use atomic::{AtomicFile, WriteError, write_atomic};
pub use folder::{FolderId, is_lacking, sync_folder};
pub use oom::{OomCounter, OomRecord};
pub use process::ProcessIdentity;
pub use program::{name_this_process, this_program};
pub use sha256::{Sha256File, sha256_file, sha256_hex};
pub use signals::outlive;
pub use text::{Alike, ByName, nfc};

/// The name of this machine; empty where nobody says.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
