//! Scratch space: a folder of files that are locked while their maker lives and swept when it does not.

use super::StoreError;
use affectmill_base::is_lacking;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::{Builder, NamedTempFile, TempDir};

/// What a folder in scratch space is locked by. A folder without one is kept.
const LOCK: &str = ".lock";

/// A folder for unfinished files.
#[derive(Clone, Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Scratch space in a folder that is there.
    pub(super) fn of(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// This user's own scratch space below `base`, else below the system's folder for temporary files.
    ///
    /// # Errors
    /// The folder cannot be made, or belongs to somebody else.
    pub(super) fn below(base: Option<&Path>) -> Result<Self, StoreError> {
        let base = base.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let own = Path::new("/proc/self");
        let user = fs::metadata(own).map_err(StoreError::io("look at", own))?.uid();
        let folder = base.join(format!("affectmill-scratch-{user}"));
        let made = fs::create_dir_all(&base).and_then(|()| DirBuilder::new().mode(0o700).create(&folder));
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(StoreError::io("make the scratch folder", &folder)(error));
            }
            _ => {}
        }
        // In a folder that all may write to, somebody else may have taken the name.
        let meta = fs::symlink_metadata(&folder).map_err(StoreError::io("look at", &folder))?;
        if !meta.is_dir() || meta.uid() != user {
            return Err(StoreError::ForeignScratch(folder));
        }
        Ok(Self { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that this user may still write there.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|error| StoreError::io("ask for the free space of", &self.folder)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// An empty file, removed when it is dropped, and locked for as long as it is open, so that no sweep takes it for an
    /// orphan. Its name ends in `.` and the extension.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn file(&self, name_hint: &str, extension: &str) -> Result<NamedTempFile, StoreError> {
        let folder = &self.folder;
        let file = Builder::new()
            .prefix(&format!("{name_hint}-"))
            .suffix(&format!(".{extension}"))
            // A store on disk publishes the file under its final name: as readable as the umask allows, not private.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(StoreError::io("make a temporary file in", folder))?;
        match file.as_file().lock() {
            // Shares without locks work too: there a sweep removes nothing.
            Err(error) if !is_lacking(&error) => Err(StoreError::io("lock", file.path())(error)),
            _ => Ok(file),
        }
    }

    /// The place of a copy that is kept under this name, for processes to come.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn kept(&self, name: &str) -> Result<PathBuf, StoreError> {
        let folder = self.folder.join("kept");
        fs::create_dir_all(&folder).map_err(StoreError::io("keep a copy in", &folder))?;
        Ok(folder.join(name))
    }

    /// Keeps a file of this scratch space under that place.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn keep(&self, file: NamedTempFile, kept: &Path) -> Result<(), StoreError> {
        let renamed = file.persist(kept);
        renamed
            .map(drop)
            .map_err(|lost| StoreError::io("keep a copy as", kept)(lost.error))
    }

    /// An empty folder, removed with all it holds when it is dropped, and safe from sweeps until then.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn subfolder(&self, name_hint: &str) -> Result<ScratchFolder, StoreError> {
        let failed = |error| StoreError::io("make a temporary folder in", &self.folder)(error);
        let folder = Builder::new()
            .prefix(&format!("{name_hint}-"))
            .tempdir_in(&self.folder)
            .map_err(failed)?;
        let lock = File::create(folder.path().join(LOCK)).map_err(failed)?;
        match lock.lock() {
            Err(error) if !is_lacking(&error) => Err(failed(error)),
            _ => Ok(ScratchFolder { folder, _lock: lock }),
        }
    }

    /// Removes files and folders of processes that died: those nobody holds a lock on, not written to for at least `older_than`.
    /// Returns how many.
    ///
    /// # Errors
    /// The folder cannot be read, or an orphan cannot be removed.
    pub fn sweep(&self, older_than: Duration) -> Result<usize, StoreError> {
        self.sweep_folder(&self.folder, older_than, |_| true)
    }

    /// The same in another folder, of what came from here and bears such a name.
    pub(super) fn sweep_folder(
        &self,
        folder: &Path,
        older_than: Duration,
        is_ours: impl Fn(&Path) -> bool,
    ) -> Result<usize, StoreError> {
        let failed = |error| StoreError::io("sweep", folder)(error);
        let now = SystemTime::now();
        let mut removed = 0;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !is_ours(&path) {
                continue;
            }
            let orphan = match is_orphan(&path, now, older_than) {
                // Finished and renamed since the folder was read.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                other => other.map_err(StoreError::io("look at", &path))?,
            };
            // The lock is held until the name is gone.
            if let Some(_lock) = orphan {
                if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                }
                .map_err(StoreError::io("remove the orphan", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A folder in scratch space.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: TempDir,
    _lock: File,
}

impl ScratchFolder {
    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The locked file when it is an orphan; of a folder, its lock.
fn is_orphan(path: &Path, now: SystemTime, older_than: Duration) -> std::io::Result<Option<File>> {
    let lock = if path.is_dir() {
        path.join(LOCK)
    } else {
        path.to_path_buf()
    };
    let file = File::options().read(true).write(true).open(lock)?;
    let meta = file.metadata()?;
    let age = now.duration_since(meta.modified()?).unwrap_or_default();
    if !meta.is_file() || age < older_than {
        return Ok(None);
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        // Its writer lives.
        Err(TryLockError::WouldBlock) => Ok(None),
        // Without locks nobody can tell.
        Err(TryLockError::Error(error)) if is_lacking(&error) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
