//! Gives a finished file a name that must be free, on whatever file system: by the first of three ways that it has.
//!
//! 1. `renameat2` with `RENAME_NOREPLACE`: local disks, SMB.
//! 2. A hard link, then the old name goes: NFS, Lustre, GPFS.
//! 3. The same beside the final name, for file systems that link within one folder only (BeeGFS): the file is renamed there
//!    first, under a name that begins with a dot and ends in `.tmp`, which readers ignore. What a crash leaves there is swept.
//!
//! A rename that overwrites is none of them: of two writers the later one would win, after the first was told that it had. Nor
//! is a file that is made with `O_EXCL` and filled: readers would see half of it.

use super::{Put, StoreError};
use affectmill_base::is_lacking;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What names beside a final one begin and end with.
const BESIDE: (&str, &str) = (".affectmill-", ".tmp");

/// Whether a file bears a name that it has for a moment beside its final one.
pub(super) fn is_beside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(BESIDE.0) && name.ends_with(BESIDE.1))
}

/// Gives the file `from` the name `to`, unless there is one. `from` may be left, with the content, or be gone.
pub(super) fn name_new(from: &Path, to: &Path) -> Result<Put, StoreError> {
    let failed = |error| StoreError::io("create", to)(error);
    let renamed = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(Put::Created),
        Err(error) => io::Error::from(error),
    };
    match renamed.kind() {
        ErrorKind::AlreadyExists => return Ok(Put::Exists),
        _ if is_lacking(&renamed) => {}
        _ => return Err(failed(renamed)),
    }
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Put::Exists),
        Err(error) if is_no_link(&error) => {}
        linked => return linked.map(|()| Put::Created).map_err(failed),
    }
    let beside = beside(from, to);
    fs::rename(from, &beside).map_err(failed)?;
    let linked = fs::hard_link(&beside, to);
    // Also what could not be linked: whoever made the file makes it again.
    let removed = fs::remove_file(&beside);
    match linked {
        Ok(()) => removed
            .map(|()| Put::Created)
            .map_err(StoreError::io("remove", &beside)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Put::Exists),
        Err(linked) if is_no_link(&linked) => Err(StoreError::NoCreateOnly {
            path: to.into(),
            renamed,
            linked,
        }),
        Err(error) => Err(failed(error)),
    }
}

/// Whether there are no hard links here, or none between these folders.
fn is_no_link(error: &io::Error) -> bool {
    use libc::{EMLINK, EPERM, EXDEV};
    let refused = [EMLINK, EPERM, EXDEV];
    is_lacking(error) || error.raw_os_error().is_some_and(|code| refused.contains(&code))
}

fn beside(from: &Path, to: &Path) -> PathBuf {
    // The scratch file's name is nobody else's.
    let name = from.file_stem().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!("{}{name}{}", BESIDE.0, BESIDE.1))
}
