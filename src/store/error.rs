//! What can go wrong with a store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A store operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {operation} `{}`: {source}; {}", path.display(), remedy(source))]
    Io {
        /// What was tried, in words that follow "cannot".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The root is something else than a folder.
    #[error("the output `{}` is not a folder; name another [output] uri, or move what is there away", .0.display())]
    NotAFolder(PathBuf),
    /// There is no label set.
    #[error("`{}` is no affectmill output (it has no `_affectmill` folder); name the [output] uri of a job that was run", .0.display())]
    NotAnOutput(PathBuf),
}

impl StoreError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether trying the same again shortly may succeed without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        use io::ErrorKind::{
            ConnectionReset, Interrupted, ResourceBusy, StaleNetworkFileHandle, TimedOut, WouldBlock,
        };
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                Interrupted | WouldBlock | TimedOut | ResourceBusy | StaleNetworkFileHandle | ConnectionReset
            ),
            Self::NotAFolder(_) | Self::NotAnOutput(_) => false,
        }
    }
}

/// What a person can do about an I/O error, as the end of a sentence.
pub fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    match error.kind() {
        StorageFull => "the disk is full: free space and run again",
        QuotaExceeded => "the disk quota is used up: free space or raise the quota and run again",
        FileTooLarge => "the file size limit is reached (`ulimit -f`): raise it and run again",
        PermissionDenied => {
            "check the owner and the permissions of it and of the folders above, and run again"
        }
        ReadOnlyFilesystem => "the file system is read-only: name another folder or mount it writable",
        NotFound => "was it moved or deleted, or its disk unmounted? Put it back and run again",
        NotADirectory => "a folder above it is a file: name another folder",
        _ => "check the disk or the network share, and run again",
    }
}
