//! The store on a local disk or a mounted share.
//!
//! A file is written under `_affectmill/tmp`, flushed, given its final name in one step (`renameat2` with
//! `RENAME_NOREPLACE`; a hard link where the file system lacks that), and the folder is flushed. A crash at any
//! moment leaves the final name absent or whole.

use super::StoreError;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::{Builder, NamedTempFile};

/// What marks a folder as an output.
const MARKER: &str = "_affectmill";
/// Where unfinished files lie.
const SCRATCH: &str = "_affectmill/tmp";

/// A root folder and everything under it.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub key: String,
    /// Size.
    pub bytes: u64,
}

/// What a create-only write found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// Nothing was there; now it is.
    Created,
    /// Something was there and was left as it is, be it equal or not.
    Exists,
}

impl Store {
    /// Opens a root for writing, making it when it is missing.
    ///
    /// # Errors
    /// The root is no folder, cannot be made, or nothing can be written in it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        match fs::metadata(root) {
            Ok(found) if !found.is_dir() => return Err(StoreError::NotAFolder(root.to_path_buf())),
            _ => {}
        }
        let scratch = root.join(SCRATCH);
        fs::create_dir_all(&scratch).map_err(StoreError::io("make the output folder", &scratch))?;
        let store = Self {
            root: root.to_path_buf(),
        };
        // An allowed `mkdir` proves nothing about a folder that was there before.
        let mut probe = store.scratch_file("probe")?;
        probe
            .write_all(b"probe")
            .and_then(|()| probe.as_file().sync_all())
            .map_err(StoreError::io("write in the output folder", &scratch))?;
        Ok(store)
    }

    /// Opens the root of a label set that is there, for reading; changes nothing.
    ///
    /// # Errors
    /// The root is no folder, or holds no label set.
    pub fn open_existing(root: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(root).map_err(StoreError::io("open the output", root))?;
        if !found.is_dir() {
            return Err(StoreError::NotAFolder(root.to_path_buf()));
        }
        if !root.join(MARKER).is_dir() {
            return Err(StoreError::NotAnOutput(root.to_path_buf()));
        }
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a key lies.
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// The bytes under a key; `None` when there are none.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// The files directly in a folder, sorted by key; none when the folder is missing. Unfinished files are never
    /// among them.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        let path = self.path(folder);
        let failed = |error| StoreError::io("list", &path)(error);
        if folder == SCRATCH {
            return Ok(Vec::new());
        }
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // We write no such names; file managers and network shares do.
            let name = match entry.file_name().into_string() {
                Ok(name) if !name.starts_with('.') => name,
                _ => continue,
            };
            match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_file() => found.push(Entry {
                    key: format!("{folder}/{name}"),
                    bytes: meta.len(),
                }),
                Ok(_) => {}
                // Deleted since the folder was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Stores bytes under a key that must be free; durable once it returns.
    ///
    /// # Errors
    /// The bytes could not be written; the key is as it was.
    pub fn put_new(&self, key: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let file = self.filled(key, bytes)?;
        self.put_new_file(key, file)
    }

    /// As [`put_new`](Self::put_new), with a finished file that [`scratch_file`](Self::scratch_file) made. The
    /// temporary name is gone afterwards, whoever won.
    ///
    /// # Errors
    /// The file could not be given its name; the key is as it was.
    pub fn put_new_file(&self, key: &str, file: NamedTempFile) -> Result<Put, StoreError> {
        let path = self.path(key);
        let folder = self.folder_for(&path)?;
        file.as_file()
            .sync_all()
            .map_err(StoreError::io("flush", file.path()))?;
        match file.persist_noclobber(&path) {
            Ok(_) => {
                sync_folder(&folder)?;
                Ok(Put::Created)
            }
            Err(lost) if lost.error.kind() == ErrorKind::AlreadyExists => Ok(Put::Exists),
            Err(failed) => Err(StoreError::io("create", &path)(failed.error)),
        }
    }

    /// Stores bytes under a key, whatever was there; a reader sees the old bytes or the new, never a mixture.
    ///
    /// # Errors
    /// The bytes could not be written; the key is as it was.
    pub fn replace(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key);
        let folder = self.folder_for(&path)?;
        let file = self.filled(key, bytes)?;
        file.as_file()
            .sync_all()
            .map_err(StoreError::io("flush", file.path()))?;
        file.persist(&path)
            .map_err(|failed| StoreError::io("replace", &path)(failed.error))?;
        sync_folder(&folder)
    }

    /// Removes a key; `false` when there was none.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn delete(&self, key: &str) -> Result<bool, StoreError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => {
                sync_folder(path.parent().unwrap_or(&self.root))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("delete", &path)(error)),
        }
    }

    /// An empty file in the scratch folder, removed when it is dropped. It is locked for as long as it is open, so
    /// that no sweep takes it for an orphan.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn scratch_file(&self, name_hint: &str) -> Result<NamedTempFile, StoreError> {
        let folder = self.path(SCRATCH);
        let file = Builder::new()
            .prefix(&format!("{name_hint}-"))
            .suffix(".tmp")
            // The file is published under its final name: as readable as the umask allows, not private.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&folder)
            .map_err(StoreError::io("make a temporary file in", &folder))?;
        match file.as_file().lock() {
            // Shares without locks work too: there a sweep removes nothing.
            Err(error) if error.kind() != ErrorKind::Unsupported => {
                Err(StoreError::io("lock", file.path())(error))
            }
            _ => Ok(file),
        }
    }

    /// Removes scratch files of processes that died: those nobody holds a lock on, not written to for at least
    /// `older_than` (which covers the moment between making a file and locking it). Returns how many.
    ///
    /// # Errors
    /// The scratch folder cannot be read, or an orphan cannot be removed.
    pub fn sweep_scratch(&self, older_than: Duration) -> Result<usize, StoreError> {
        let folder = self.path(SCRATCH);
        let failed = |error| StoreError::io("sweep", &folder)(error);
        let now = SystemTime::now();
        let mut removed = 0;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let orphan = match is_orphan(&path, now, older_than) {
                // Finished and renamed since the folder was read.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                other => other.map_err(StoreError::io("look at", &path))?,
            };
            // The lock is held until the name is gone.
            if let Some(_lock) = orphan {
                fs::remove_file(&path).map_err(StoreError::io("remove the orphan", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn filled(&self, key: &str, bytes: &[u8]) -> Result<NamedTempFile, StoreError> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let mut file = self.scratch_file(name)?;
        file.write_all(bytes)
            .map_err(StoreError::io("write", file.path()))?;
        Ok(file)
    }

    /// Makes the folder a file is to lie in, flushing the folders above, so that the file's name cannot be lost
    /// with them.
    fn folder_for(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let folder = path.parent().unwrap_or(&self.root).to_path_buf();
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(StoreError::io("make the folder", &folder))?;
            for above in folder
                .ancestors()
                .skip(1)
                .take_while(|above| above.starts_with(&self.root))
            {
                sync_folder(above)?;
            }
        }
        Ok(folder)
    }
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|open| open.sync_all())
        .map_err(StoreError::io("flush the folder", folder))
}

/// The locked file when it is an orphan.
fn is_orphan(path: &Path, now: SystemTime, older_than: Duration) -> std::io::Result<Option<File>> {
    let file = File::options().read(true).write(true).open(path)?;
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
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
