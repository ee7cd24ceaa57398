//! Folders: which one it is, and that what was put in it stays.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Tells a folder from another one at the same path, as when a disk was unmounted from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// Why the folder at this path is not the one any more, if it is not: it cannot be looked at, lies on another device, or is
    /// another one and empty, as what a disk was mounted on. (File systems of FUSE number a folder anew now and then.)
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

    /// That of the folder at this path now.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

/// Flushes a folder, so that the names in it stay. Shares that cannot do that keep names by themselves, or not at all: it is
/// done where it can be.
///
/// # Errors
/// The folder cannot be opened, or its disk fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if is_lacking(&error) => Ok(()),
        synced => synced,
    }
}

/// Whether a file system gave this error because it does not have what was asked of it: FUSE and network shares lack now one
/// operation, now another, and none tells in the same way.
pub fn is_lacking(error: &io::Error) -> bool {
    use libc::{EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP};
    // EBADF is what some say of a folder that is flushed.
    let lacking = [EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP, libc::EBADF];
    error.raw_os_error().is_some_and(|code| lacking.contains(&code))
}
