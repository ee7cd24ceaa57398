//! Folders: their identity, and flushing them to disk.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Identity of a folder. It differs from that of another folder at the same path, as after a disk was unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// Why the folder at this path is no longer this one; `None` when it is. It is gone when it cannot be read, lies on another
    /// device, or has another inode and is empty, like a bare mount point. (FUSE may assign new inode numbers to the same folder.)
    pub fn gone(self, path: &Path) -> Option<String> {
        let another = "another folder lies there than when the run began";
        match Self::of(path) {
            Err(error) => Some(error.to_string()),
            Ok(found) if found == self => None,
            Ok(found) if found.device != self.device => Some(another.to_owned()),
            Ok(_) => match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
                Ok(false) => None,
                Ok(true) => Some(another.to_owned()),
                Err(error) => Some(error.to_string()),
            },
        }
    }

    /// The identity of the folder at this path now.
    ///
    /// # Errors
    /// Its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

/// Flushes a folder, so that the names in it survive a crash. File systems that do not support this are ignored.
///
/// # Errors
/// The folder cannot be opened, or its disk fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if is_lacking(&error) => Ok(()),
        synced => synced,
    }
}

/// Whether this error means that the file system does not support the operation. FUSE and network shares report that with
/// different codes.
pub fn is_lacking(error: &io::Error) -> bool {
    use libc::{EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP};
    // Some return EBADF when a folder is flushed.
    let lacking = [EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP, libc::EBADF];
    error.raw_os_error().is_some_and(|code| lacking.contains(&code))
}
