//! Finds the videos of an input: one file, or a folder with its subfolders.
//!
//! Flows in: `[input]` of a job. Flows out: the sources sorted by key, what was skipped, counted by kind, and what could
//! not be read: every file and folder of the input is one of these. Reads names and metadata, and the first bytes of
//! files whose extension has two meanings; never opens a video with FFmpeg, never writes into the input. Folders on disks are
//! searched in `disk`, buckets in `bucket`; the rules, in `names` and `search`, are the same.

mod bucket;
mod crops;
mod disk;
mod names;
mod search;
#[cfg(test)]
mod tests;

use affectmill_base::SourceKind;
use affectmill_base::is_transient;
use affectmill_base::{Location, RelativePath, VideoKey, hex};
use affectmill_labelset::{PassedOver, PlannedVideo, Unseen};
use affectmill_spec::Input;
use affectmill_store::{Access, DISK_RETRY, StoreError};
pub use bucket::images_in;
pub use names::IMAGE_EXTENSIONS;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The contents of an input.
#[derive(Debug)]
pub struct Discovery {
    /// What keys are relative to.
    pub root: Location,
    /// The videos, sorted by the bytes of their keys; never empty.
    pub sources: Vec<Source>,
    /// What is no video of the job, by kind: other extensions, hidden names, what systems leave behind, label sets.
    pub passed_over: Vec<PassedOver>,
    /// Places that may contain videos but could not be read. A run with such places does not end with exit code 0.
    pub unseen: Unseen,
}

/// One video as it lies in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Key.
    pub key: VideoKey,
    /// File or folder of images.
    pub kind: SourceKind,
    /// Size in bytes; of all numbered images for a folder.
    pub bytes: u64,
    /// A file's modification time in ns since 1970, an object's entity tag; for a folder of images 16 hex digits, a
    /// hash over names, sizes and those.
    pub etag: String,
    /// Of a video of which there are crops: where they are.
    pub crops: Option<CropsOf>,
}

impl Source {
    /// What a plan says of the video before anyone opened it.
    pub fn unprobed(&self) -> PlannedVideo {
        PlannedVideo {
            key: self.key.clone(),
            kind: self.kind,
            bytes: self.bytes,
            etag: self.etag.clone(),
            frames: self.crops.as_ref().map_or(0, |crops| crops.frames),
            duration_us: 0,
            archive: self.crops.as_ref().map(|crops| crops.archive.clone()),
            unreadable: None,
        }
    }
}

/// Why an input gives no videos.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The input is missing, or a video that was planned cannot be looked at.
    #[error("cannot read `{}`: {source}; check the path ([input] uri in the job file), its permissions, and that its disk is mounted", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The input is one file that cannot have a key.
    #[error("`{path}` cannot be used as input: {cause}; rename it, or name another [input] uri")]
    BadName {
        /// The file.
        path: Location,
        /// The cause.
        cause: String,
    },
    /// There is no video in the folder.
    #[error(
        "no video in `{path}`: {seen}; name another [input] uri, or add the extension to [input] extensions"
    )]
    Empty {
        /// The folder.
        path: Location,
        /// What is there instead.
        seen: String,
    },
    /// S3 refused, or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DiscoverError {
    /// The disk or the network share failed, and may work again in a moment.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if is_transient(source))
    }
}

/// Whether a video is planned already.
pub type IsPlanned<'a> = &'a dyn Fn(&VideoKey) -> bool;

/// Finds the videos of an input. Files that are `planned` are videos with any extension.
///
/// A single file may have any extension; its key is its name. A tar file of crops, in a folder that is searched, gives the
/// videos its crops were cut from, under their keys. A folder is searched through and through:
/// symbolic links are followed, and a link to a folder above it ends there. A folder that directly
/// has images with all-digit stems is one video of kind [`SourceKind::Images`], unless videos lie beside them
/// (then they are thumbnails); for the input folder itself that applies only when nothing else is found in it, since
/// its key is its own name, relative to the folder above.
///
/// # Errors
/// The input is missing or unreadable, or has no video.
pub fn discover(input: &Input, planned: IsPlanned<'_>, access: &Access) -> Result<Discovery, DiscoverError> {
    let Location::Local(path) = &input.uri else {
        return bucket::discover(input, planned, access);
    };
    let meta = DISK_RETRY.run(|| metadata(path), DiscoverError::is_transient)?;
    if meta.is_dir() {
        disk::discover(input, path, planned)
    } else {
        single(path, &meta)
    }
}

/// Where the crops of a video are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CropsOf {
    /// The tar file, relative to the root.
    pub archive: RelativePath,
    /// Frames of which it has faces.
    pub frames: u64,
}

/// Where the video of a key lies.
pub fn source_path(root: &Location, key: &VideoKey) -> Location {
    root.join(key.as_str())
}

/// Whether a video on a disk still is what was planned: same size, same [`Source::etag`].
///
/// # Errors
/// It is gone or cannot be read.
pub fn same(path: &Path, planned: &PlannedVideo) -> Result<bool, DiscoverError> {
    if planned.archive.is_some() {
        return Ok(crops::etag(&metadata(path)?) == planned.etag);
    }
    let (bytes, etag) = match planned.kind {
        SourceKind::File => {
            let meta = metadata(path)?;
            (meta.len(), file_etag(&meta))
        }
        SourceKind::Images => {
            let failed = |source| unreadable(path, source);
            let mut images = Images::new();
            for entry in fs::read_dir(path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if names::is_numbered_image(&entry.file_name().to_string_lossy()) {
                    let meta = metadata(&entry.path())?;
                    if meta.is_file() {
                        images.insert(entry.file_name().to_string_lossy().into_owned(), stamp(&meta));
                    }
                }
            }
            images_identity(&images)
        }
    };
    Ok(bytes == planned.bytes && etag == planned.etag)
}

fn unreadable(path: &Path, source: io::Error) -> DiscoverError {
    DiscoverError::Unreadable {
        path: path.to_path_buf(),
        source,
    }
}

fn metadata(path: &Path) -> Result<Metadata, DiscoverError> {
    fs::metadata(path).map_err(|source| unreadable(path, source))
}

fn single(path: &Path, meta: &Metadata) -> Result<Discovery, DiscoverError> {
    let bad = |cause: &str| DiscoverError::BadName {
        path: path.into(),
        cause: cause.into(),
    };
    let name = path.file_name().ok_or_else(|| bad("it has no name"))?;
    let name = name.to_str().ok_or_else(|| bad("its name is not UTF-8"))?;
    let key = VideoKey::new(name).map_err(|error| bad(&error.to_string()))?;
    let root = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let sources = if names::extension(name).as_deref() == Some("tar") {
        let found = crops::single(&root, path).map_err(|error| unreadable(path, error))?;
        if found.is_empty() {
            return Err(bad(
                "it is a tar file, but not one of crops as [output] crops writes them",
            ));
        }
        found
    } else {
        vec![Source {
            key,
            kind: SourceKind::File,
            bytes: meta.len(),
            etag: file_etag(meta),
            crops: None,
        }]
    };
    Ok(Discovery {
        root: root.into(),
        sources,
        passed_over: Vec::new(),
        unseen: Unseen::default(),
    })
}

/// Numbered images of one folder: name → (bytes, modification time in ns).
type Images = BTreeMap<String, (u64, i128)>;

/// Size, and modification time in ns since 1970.
fn stamp(meta: &Metadata) -> (u64, i128) {
    let ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    (meta.len(), ns)
}

fn file_etag(meta: &Metadata) -> String {
    stamp(meta).1.to_string()
}

fn images_identity(images: &Images) -> (u64, String) {
    let mut hash = Sha256::new();
    for (name, (bytes, ns)) in images {
        // `/` cannot be part of a name.
        hash.update(format!("{name}/{bytes}/{ns}\n"));
    }
    let etag = hex(&hash.finalize()[..8]);
    (images.values().map(|(bytes, _)| bytes).sum(), etag)
}
