//! The store on a local disk or a mounted share.
//!
//! A file is written under `_affectmill/tmp`, flushed, given its final name in one step (see `naming`), and the folder is
//! flushed. A crash at any moment leaves the final name absent or whole.

use super::naming::{is_beside, name_new};
use super::{Entry, Put, Scratch, StoreError};
use affectmill_base::sync_folder;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// What marks a folder as an output.
const MARKER: &str = "_affectmill";
/// Where unfinished files lie.
const SCRATCH: &str = "_affectmill/tmp";

/// A root folder and everything under it.
#[derive(Clone, Debug)]
pub(super) struct Local {
    root: PathBuf,
    scratch: Scratch,
}

impl Local {
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        match fs::metadata(root) {
            Ok(found) if !found.is_dir() => return Err(StoreError::NotAFolder(root.to_path_buf())),
            _ => {}
        }
        let scratch = root.join(SCRATCH);
        fs::create_dir_all(&scratch).map_err(StoreError::io("make the output folder", &scratch))?;
        let store = Self::at(root);
        // An allowed `mkdir` proves nothing about a folder that was there before.
        let mut probe = store.scratch.file("probe", "tmp")?;
        probe
            .write_all(b"probe")
            .and_then(|()| probe.as_file().sync_all())
            .map_err(StoreError::io("write in the output folder", &scratch))?;
        Ok(store)
    }

    pub(super) fn open_existing(root: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(root).map_err(StoreError::io("open the output", root))?;
        if !found.is_dir() {
            return Err(StoreError::NotAFolder(root.to_path_buf()));
        }
        if !root.join(MARKER).is_dir() {
            return Err(StoreError::NotAnOutput(root.into()));
        }
        Ok(Self::at(root))
    }

    fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            scratch: Scratch::of(root.join(SCRATCH)),
        }
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    pub(super) fn file(&self, key: &str) -> Result<Option<File>, StoreError> {
        let path = self.path(key);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
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

    pub(super) fn put_new(&self, key: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let file = self.filled(key, bytes)?;
        self.put_new_file(key, file)
    }

    pub(super) fn put_new_file(&self, key: &str, file: NamedTempFile) -> Result<Put, StoreError> {
        let path = self.path(key);
        let folder = self.folder_for(&path)?;
        file.as_file()
            .sync_all()
            .map_err(StoreError::io("flush", file.path()))?;
        let put = name_new(file.path(), &path)?;
        if put == Put::Created {
            sync(&folder)?;
        }
        Ok(put)
    }

    /// Removes files that processes which died left beside their final names, at least `older_than` old. Returns how many.
    pub(super) fn sweep_beside(&self, older_than: Duration) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut folders = folders_in(&self.root)?;
        folders.extend(folders_in(&self.root.join(MARKER))?);
        for folder in folders.iter().filter(|folder| *folder != self.scratch.folder()) {
            removed += self.scratch.sweep_folder(folder, older_than, is_beside)?;
        }
        Ok(removed)
    }

    pub(super) fn replace(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key);
        let folder = self.folder_for(&path)?;
        let file = self.filled(key, bytes)?;
        file.as_file()
            .sync_all()
            .map_err(StoreError::io("flush", file.path()))?;
        file.persist(&path)
            .map_err(|failed| StoreError::io("replace", &path)(failed.error))?;
        sync(&folder)
    }

    pub(super) fn delete(&self, key: &str) -> Result<bool, StoreError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => {
                sync(path.parent().unwrap_or(&self.root))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("delete", &path)(error)),
        }
    }

    /// Where unfinished files lie.
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn filled(&self, key: &str, bytes: &[u8]) -> Result<NamedTempFile, StoreError> {
        let name = key.rsplit('/').next().unwrap_or(key);
        let mut file = self.scratch.file(name, "tmp")?;
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
                sync(above)?;
            }
        }
        Ok(folder)
    }
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    sync_folder(folder).map_err(StoreError::io("flush the folder", folder))
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = fs::read_dir(folder).and_then(|entries| {
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        Ok(folders)
    });
    read.map_err(StoreError::io("list", folder))
}
