//! Where a label set is kept, and where S3 is spoken to: files under a root, created whole or not at all.
//!
//! Flows in: keys (`/`-separated text relative to the root, as [`dataset::paths`](affectmill_labelset::paths) makes them)
//! and bytes. Flows out: the same bytes, or an error that says what to do about it. A file appears under its key
//! complete and durable, or not at all; two writers of one key never mix: [`Store::put_new`] has one winner.
//! [`Bucket`] reads inputs that lie in S3; [`Access`] says how S3 is reached.
//!
//! Never interprets what it stores, and never leaves an unfinished file where readers look.

mod access;
mod error;
mod local;
mod naming;
mod s3;
mod scratch;

pub use access::Access;
pub use error::{DISK_RETRY, StoreError, Trouble};
pub use s3::{Bucket, Object};
pub use scratch::{Scratch, ScratchFolder};

use affectmill_base::Location;
use local::Local;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// A root and everything under it.
#[derive(Clone, Debug)]
pub struct Store {
    root: Location,
    backend: Backend,
}

#[derive(Clone, Debug)]
enum Backend {
    Local(Local),
    S3(Box<Bucket>),
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
    /// Opens a root folder on a disk for writing, making it when it is missing.
    ///
    /// # Errors
    /// The root is no folder, cannot be made, or nothing can be written in it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            root: root.into(),
            backend: Backend::Local(Local::open(root)?),
        })
    }

    /// Opens the root folder of a label set that is there, for reading; changes nothing.
    ///
    /// # Errors
    /// The root is no folder, or holds no label set.
    pub fn open_existing(root: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            root: root.into(),
            backend: Backend::Local(Local::open_existing(root)?),
        })
    }

    /// As [`open`](Self::open), wherever the root lies. In S3 it is also tried whether the server honours create-only
    /// writes: on one that does not, exactly once cannot be had.
    ///
    /// # Errors
    /// As [`open`](Self::open); in S3 the bucket is missing, access is denied, or the server is unfit or out of reach.
    pub fn connect(root: &Location, access: &Access) -> Result<Self, StoreError> {
        match root {
            Location::Local(path) => Self::open(path),
            Location::S3 { .. } => Ok(Self {
                root: root.clone(),
                backend: Backend::S3(Box::new(Bucket::for_writing(root, access)?)),
            }),
        }
    }

    /// As [`open_existing`](Self::open_existing), wherever the root lies.
    ///
    /// # Errors
    /// As [`open_existing`](Self::open_existing); in S3 as [`connect`](Self::connect).
    pub fn connect_existing(root: &Location, access: &Access) -> Result<Self, StoreError> {
        match root {
            Location::Local(path) => Self::open_existing(path),
            Location::S3 { .. } => Ok(Self {
                root: root.clone(),
                backend: Backend::S3(Box::new(Bucket::of_label_set(root, access)?)),
            }),
        }
    }

    /// The root.
    pub fn root(&self) -> &Location {
        &self.root
    }

    /// Where a key lies.
    pub fn path(&self, key: &str) -> Location {
        self.root.join(key)
    }

    /// The bytes under a key; `None` when there are none.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.backend {
            Backend::Local(local) => local.get(key),
            Backend::S3(bucket) => bucket.get(key),
        }
    }

    /// The file under a key, open at its beginning; `None` when there is none. From S3 it is brought to scratch space
    /// first, where it goes with the handle.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn file(&self, key: &str) -> Result<Option<File>, StoreError> {
        match &self.backend {
            Backend::Local(local) => local.file(key),
            Backend::S3(bucket) => bucket.file(key),
        }
    }

    /// The bytes under each of some keys, in their order; `None` where there are none. Quicker than one after the other
    /// where each takes its time to arrive.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn get_each(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        match &self.backend {
            Backend::Local(local) => keys.iter().map(|key| local.get(key)).collect(),
            Backend::S3(bucket) => bucket.get_each(keys),
        }
    }

    /// Paths on this machine's disks where the files under some keys can be read, in their order; copies in scratch
    /// space, which go with the second value, where the store is not on a disk.
    ///
    /// # Errors
    /// A file cannot be read, or is missing.
    pub fn at_hand(&self, keys: &[String]) -> Result<(Vec<PathBuf>, Option<ScratchFolder>), StoreError> {
        match &self.backend {
            Backend::Local(local) => Ok((keys.iter().map(|key| local.path(key)).collect(), None)),
            Backend::S3(bucket) => {
                let folder = bucket.scratch().subfolder("copies")?;
                let paths = keys.iter().enumerate().map(|(n, key)| {
                    let path = folder.path().join(format!("{n:07}"));
                    bucket.copy(key, &path)?;
                    Ok(path)
                });
                Ok((paths.collect::<Result<_, StoreError>>()?, Some(folder)))
            }
        }
    }

    /// The files directly in a folder, sorted by key; none when the folder is missing. Unfinished files are never
    /// among them.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreError> {
        match &self.backend {
            Backend::Local(local) => local.list(folder),
            Backend::S3(bucket) => bucket.list(folder),
        }
    }

    /// Stores bytes under a key that must be free; durable once it returns.
    ///
    /// # Errors
    /// The bytes could not be written; the key is as it was, save that a server in S3 may have stored them all and
    /// its answer was lost.
    pub fn put_new(&self, key: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        match &self.backend {
            Backend::Local(local) => local.put_new(key, bytes),
            Backend::S3(bucket) => bucket.put_new(key, bytes),
        }
    }

    /// As [`put_new`](Self::put_new), with a finished file that [`scratch_file`](Self::scratch_file) made. The
    /// temporary name is gone afterwards, whoever won.
    ///
    /// # Errors
    /// As [`put_new`](Self::put_new).
    pub fn put_new_file(&self, key: &str, file: NamedTempFile) -> Result<Put, StoreError> {
        match &self.backend {
            Backend::Local(local) => local.put_new_file(key, file),
            Backend::S3(bucket) => bucket.put_new_file(key, file),
        }
    }

    /// Stores bytes under a key, whatever was there; a reader sees the old bytes or the new, never a mixture.
    ///
    /// # Errors
    /// As [`put_new`](Self::put_new).
    pub fn replace(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Local(local) => local.replace(key, bytes),
            Backend::S3(bucket) => bucket.replace(key, bytes),
        }
    }

    /// Removes a key; `false` when there was none.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn delete(&self, key: &str) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Local(local) => local.delete(key),
            Backend::S3(bucket) => bucket.delete(key),
        }
    }

    /// An empty file in scratch space, removed when it is dropped. It is locked for as long as it is open, so that no
    /// sweep takes it for an orphan.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn scratch_file(&self, name_hint: &str) -> Result<NamedTempFile, StoreError> {
        self.scratch().file(name_hint, "tmp")
    }

    /// Removes what processes that died left unfinished, at least `older_than` old: scratch files nobody holds a lock
    /// on (the age covers the moment between making a file and locking it), and uploads that were never completed.
    /// Returns how many.
    ///
    /// # Errors
    /// The scratch folder cannot be read, or an orphan cannot be removed.
    pub fn sweep_scratch(&self, older_than: Duration) -> Result<usize, StoreError> {
        let files = self.scratch().sweep(older_than)?;
        match &self.backend {
            Backend::Local(local) => Ok(files + local.sweep_beside(older_than)?),
            Backend::S3(bucket) => Ok(files + bucket.sweep_uploads(older_than)?),
        }
    }

    fn scratch(&self) -> &Scratch {
        match &self.backend {
            Backend::Local(local) => local.scratch(),
            Backend::S3(bucket) => bucket.scratch(),
        }
    }
}

/// Whether two locations are one place: the same text, or on a disk the same file or folder, by whatever links or mounts it
/// is reached.
pub fn same_place(one: &Location, other: &Location) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    match (one, other) {
        // Paths compare by their components.
        (Location::Local(one), Location::Local(other)) => {
            one == other || id(one).is_some_and(|one| Some(one) == id(other))
        }
        (one, other) => one.clone().without_slash() == other.clone().without_slash(),
    }
}

/// A path where a file can be read whose content others hold against a checksum: itself, or a copy of an object that is
/// kept in scratch space for the next who asks.
///
/// # Errors
/// [`StoreError`]; of [`Trouble::Missing`] when there is no such object.
pub fn kept_copy(location: &Location, access: &Access) -> Result<PathBuf, StoreError> {
    match location {
        Location::Local(path) => Ok(path.clone()),
        Location::S3 { bucket, key } => {
            let root = Location::S3 {
                bucket: bucket.clone(),
                key: String::new(),
            };
            Bucket::open(&root, access)?.kept_copy(key)
        }
    }
}

#[cfg(test)]
mod tests;
