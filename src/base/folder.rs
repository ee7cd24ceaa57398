//! Folders: their identity, and flushing them to disk.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// The folders of an input that may go away each by itself: its root, and what is mounted below it. Empty for an input that lies
/// on no disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFolders(Vec<(PathBuf, FolderId)>);

impl InputFolders {
    /// Those of a root as they are now.
    pub fn of(root: &Path) -> Self {
        let real = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut paths = mounts_below(&mounts, &real);
        paths.push(real);
        let known = |path: PathBuf| Some((path.clone(), FolderId::of(&path).ok()?));
        Self(paths.into_iter().filter_map(known).collect())
    }

    /// One that is gone, and why; `None` while all are there.
    pub fn gone(&self) -> Option<(&Path, String)> {
        let gone = |(path, id): &'_ (PathBuf, FolderId)| id.gone(path);
        self.0
            .iter()
            .find_map(|known| Some((known.0.as_path(), gone(known)?)))
    }

    /// Takes the folder in which this file lies as it is now: what was read there is what was meant.
    pub fn accept(&mut self, file: &Path) {
        let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let around = self.0.iter_mut().filter(|(path, _)| real.starts_with(path));
        if let Some((path, id)) = around.max_by_key(|(path, _)| path.components().count())
            && let Ok(now) = FolderId::of(path)
        {
            *id = now;
        }
    }
}

/// Mount points below a folder, out of proc(5)'s `mountinfo`.
fn mounts_below(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    let points = crate::mounts::mounts(mountinfo).map(|mount| mount.point);
    let below = points.filter(|point| point != root && point.starts_with(root));
    below.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_below_a_folder_are_found_whatever_their_names() {
        let mounts = "36 35 98:0 / /data rw - ext4 /dev/a rw\n\
                      40 36 0:41 / /data/disk\\040one rw - nfs a:/b rw\n\
                      41 36 0:42 / /data-2 rw - tmpfs none rw\n\
                      42 40 0:43 / /data/disk\\040one/more rw - tmpfs none rw\n";
        let below = mounts_below(mounts, Path::new("/data"));
        assert_eq!(
            below,
            [Path::new("/data/disk one"), Path::new("/data/disk one/more")]
        );
    }

    #[test]
    fn an_input_is_gone_with_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("in");
        fs::create_dir(&root).unwrap();
        let mut folders = InputFolders::of(&root);
        assert_eq!(folders.gone(), None);
        fs::rename(&root, folder.path().join("away")).unwrap();
        assert_eq!(
            folders.gone().unwrap().0,
            fs::canonicalize(folder.path()).unwrap().join("in")
        );
        fs::create_dir(&root).unwrap();
        assert!(folders.gone().is_some(), "another one, and empty");
        folders.accept(&root.join("a.mp4"));
        assert_eq!(InputFolders::default().gone(), None);
    }
}
