//! What can go wrong with a store, and what to do about it.

use affectmill_base::Location;
use affectmill_base::RetryPolicy;
use affectmill_base::remedy;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// S3 refused, or could not be reached.
    #[error("cannot {operation} `{place}`: {cause}; {remedy}")]
    S3 {
        /// What was tried, in words that follow "cannot".
        operation: &'static str,
        /// The object, prefix or bucket.
        place: String,
        /// The cause, as the server or the network gave it.
        cause: String,
        /// What to do.
        remedy: String,
        /// What kind of trouble it is.
        trouble: Trouble,
    },
    /// The scratch folder belongs to another user.
    #[error("the scratch folder `{}` belongs to somebody else; name another place as [run] scratch", .0.display())]
    ForeignScratch(PathBuf),
    /// Scratch space stays too small.
    #[error("the scratch folder `{}` has {free} bytes free, and {needed} are needed; free space there, or name a larger disk \
             as [run] scratch", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The root is something else than a folder.
    #[error("the output `{}` is not a folder; name another [output] uri, or move what is there away", .0.display())]
    NotAFolder(PathBuf),
    /// The file system has no way to create a file that does not overwrite another one.
    #[error(
        "cannot create `{}` so that it never overwrites another one: this file system has neither renameat2 with RENAME_NOREPLACE \
         ({renamed}) nor link ({linked}), and two workers could then write one shard twice; name an [output] uri in S3, or on a local \
         disk, NFS, or another POSIX file system",
        path.display()
    )]
    NoCreateOnly {
        /// The file.
        path: PathBuf,
        /// What was said to the first way.
        renamed: io::Error,
        /// What was said to the other.
        linked: io::Error,
    },
    /// There is no label set.
    #[error(
        "`{0}` is no affectmill output (it has no `_affectmill` folder); name the [output] uri of a job that was run"
    )]
    NotAnOutput(Location),
}

/// Kinds of trouble with S3, by what they mean for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It passes by itself: 5xx, throttling, timeouts, broken connections, DNS. It was tried again until patience ended.
    Transient,
    /// The object is not there (404), or cannot be read until somebody restores it from an archive.
    Missing,
    /// The object is not the one that was meant: it was written anew since (412).
    Changed,
    /// These credentials may not do that there (403); elsewhere they may.
    Forbidden,
    /// Nothing will work until somebody mends it: credentials, the bucket's name, the region.
    Setup,
}

impl StoreError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }

    /// What kind of trouble with S3 this is.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::S3 { trouble, .. } => Some(*trouble),
            _ => None,
        }
    }

    /// Whether it is the trouble of one object and not of the store: others may be read all the same.
    pub fn is_of_one_object(&self) -> bool {
        matches!(
            self.trouble(),
            Some(Trouble::Missing | Trouble::Changed | Trouble::Forbidden)
        )
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
            // What passes by itself was waited for already.
            Self::S3 { .. }
            | Self::ForeignScratch(_)
            | Self::NoRoom { .. }
            | Self::NotAFolder(_)
            | Self::NoCreateOnly { .. }
            | Self::NotAnOutput(_) => false,
        }
    }
}

/// For a disk or a network share that fails: 250 ms, 500 ms and 1 s between four attempts.
pub const DISK_RETRY: RetryPolicy =
    RetryPolicy::attempts(4, Duration::from_millis(250), Duration::from_secs(1));
