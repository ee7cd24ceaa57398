//! Classes of operating-system errors and their remedies.

use std::io;

/// Whether an I/O error is transient: the disk or network share may work again after a retry.
pub fn is_transient(error: &io::Error) -> bool {
    const TRANSIENT: [i32; 6] = [
        libc::EIO,
        libc::ESTALE,
        libc::ETIMEDOUT,
        libc::EAGAIN,
        libc::EHOSTDOWN,
        libc::EREMOTEIO,
    ];
    error.raw_os_error().is_some_and(|code| TRANSIENT.contains(&code))
}

/// The remedy for an I/O error, as the end of a sentence.
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
