//! Finds the videos of an input: one file, or everything a folder holds.
//!
//! Flows in: `[input]` of a job. Flows out: the sources sorted by key, and what was passed over with the reason.
//! Reads names and metadata only; never opens a video, never writes. Folders on disks are searched here, buckets in
//! `bucket`, by the same rules.
//!
//! Passed over in silence: names beginning with `.` or `_` and everything below them, folders that hold an
//! `_affectmill` folder (outputs), and files whose extension is not asked for.

mod crops;

use crate::dataset::{PlannedVideo, SourceKind};
use crate::domain::{Location, RelativePath, VideoKey, hex};
use crate::spec::Input;
use crate::store::{Access, StoreError, passes};
pub use bucket::images_in;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Extensions of the pictures that make a folder of numbered images one video.
pub const IMAGE_EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// What an input holds.
#[derive(Debug)]
pub struct Discovery {
    /// What keys are relative to.
    pub root: Location,
    /// The videos, sorted by the bytes of their keys; never empty.
    pub sources: Vec<Source>,
    /// What looked like input and could not be taken.
    pub skipped: Vec<Skipped>,
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

/// Something that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file or folder.
    pub path: Location,
    /// Why.
    pub reason: String,
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
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if passes(source))
    }
}

/// Finds the videos of an input.
///
/// A file is taken whatever its extension; its key is its name. A tar file of crops, in a folder that is searched, gives the
/// videos its crops were cut from, under their keys. A folder is searched through and through:
/// symbolic links are followed, loops and unreadable entries are skipped with a reason. A folder that directly
/// holds images with all-digit stems is one video of kind [`SourceKind::Images`], unless videos lie beside them
/// (then they are thumbnails); for the input folder itself that holds only when nothing else is found in it, since
/// its key is its own name, relative to the folder above.
///
/// # Errors
/// The input is missing or unreadable, or holds no video.
pub fn discover(input: &Input, access: &Access) -> Result<Discovery, DiscoverError> {
    let Location::Local(path) = &input.uri else {
        return bucket::discover(input, access);
    };
    let meta = metadata(path)?;
    if meta.is_dir() {
        Search::new(input, path).run()
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
                if is_numbered_image(Path::new(&entry.file_name())) {
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
    let sources = if lower_extension(path).as_deref() == Some("tar") {
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
        skipped: Vec::new(),
    })
}

/// Numbered images of one folder: name → (bytes, modification time in ns).
type Images = BTreeMap<String, (u64, i128)>;

/// One search through a folder.
struct Search<'a> {
    root: &'a Path,
    extensions: &'a [String],
    sources: Vec<Source>,
    skipped: Vec<Skipped>,
    /// Numbered images by folder.
    images: BTreeMap<PathBuf, Images>,
    /// Folders that directly hold videos.
    with_videos: BTreeSet<PathBuf>,
    others: Others,
}

/// Files of other extensions: how many of each.
#[derive(Default)]
struct Others(BTreeMap<String, usize>);

impl<'a> Search<'a> {
    fn new(input: &'a Input, root: &'a Path) -> Self {
        Self {
            root,
            extensions: &input.extensions,
            sources: Vec::new(),
            skipped: Vec::new(),
            images: BTreeMap::new(),
            with_videos: BTreeSet::new(),
            others: Others::default(),
        }
    }

    fn run(mut self) -> Result<Discovery, DiscoverError> {
        let root = self.root;
        let walk = WalkDir::new(root)
            .follow_links(true)
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || is_wanted(entry));
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_file() => self.file(&entry),
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry)
                    if is_wanted_extension(lower_extension(entry.path()).as_deref(), self.extensions) =>
                {
                    self.skip(entry.path(), "no regular file (a pipe, a socket or a device)");
                }
                Ok(_) => {}
                Err(error) if error.depth() == 0 => {
                    let path = root.to_path_buf();
                    let source = error
                        .into_io_error()
                        .unwrap_or_else(|| io::ErrorKind::Other.into());
                    return Err(DiscoverError::Unreadable { path, source });
                }
                Err(error) => self.unreadable(&error),
            }
        }
        let root = self.image_folders();
        self.sort();
        finished(
            root.into(),
            self.root.into(),
            self.sources,
            self.skipped,
            &self.others,
        )
    }

    fn file(&mut self, entry: &DirEntry) {
        let path = entry.path();
        let extension = lower_extension(path);
        let is_video = is_wanted_extension(extension.as_deref(), self.extensions);
        let is_image = !is_video && is_numbered_image(path);
        let is_tar = extension.as_deref() == Some("tar");
        if is_tar && self.crops(path) {
            return;
        }
        // FFmpeg would take the first pictures in any tar file for a video.
        if is_tar || !is_video && !is_image {
            return self.others.count(extension);
        }
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(error) => return self.unreadable(&error),
        };
        let folder = path.parent().unwrap_or(path);
        if is_image {
            // All digits and a known extension: the name is ASCII.
            let name = entry.file_name().to_string_lossy().into_owned();
            let images = self.images.entry(folder.to_path_buf()).or_default();
            images.insert(name, stamp(&meta));
        } else {
            self.with_videos.insert(folder.to_path_buf());
            self.source(self.root, path, SourceKind::File, meta.len(), file_etag(&meta));
        }
    }

    /// Turns folders of numbered images into sources; returns what keys are relative to.
    fn image_folders(&mut self) -> PathBuf {
        let root = self.root;
        let mut at_root = None;
        for (folder, images) in std::mem::take(&mut self.images) {
            if self.with_videos.contains(&folder) {
                self.skip(&folder, THUMBNAILS);
            } else if folder == root {
                at_root = Some(images);
            } else {
                let (bytes, etag) = images_identity(&images);
                self.source(root, &folder, SourceKind::Images, bytes, etag);
            }
        }
        let Some(images) = at_root else {
            return root.to_path_buf();
        };
        if !self.sources.is_empty() {
            self.skip(root, BESIDE_FOLDERS);
            return root.to_path_buf();
        }
        // `a/..` and `/` have no name; canonical paths do, save `/`.
        let whole = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        let Some(parent) = whole.parent() else {
            return root.to_path_buf();
        };
        let (bytes, etag) = images_identity(&images);
        self.source(parent, &whole, SourceKind::Images, bytes, etag);
        parent.to_path_buf()
    }

    fn source(&mut self, root: &Path, path: &Path, kind: SourceKind, bytes: u64, etag: String) {
        let relative = path.strip_prefix(root).unwrap_or(path);
        let Some(text) = relative.to_str() else {
            return self.skip(path, "its name is not UTF-8; rename it");
        };
        match VideoKey::new(text) {
            Ok(key) => self.sources.push(Source {
                key,
                kind,
                bytes,
                etag,
                crops: None,
            }),
            Err(error) => self.skip(path, &error.to_string()),
        }
    }

    fn skip(&mut self, path: &Path, reason: &str) {
        self.skipped.push(Skipped {
            path: path.into(),
            reason: reason.into(),
        });
    }

    fn unreadable(&mut self, error: &walkdir::Error) {
        let path = error.path().unwrap_or(self.root);
        if path.file_name().is_some_and(is_hidden) {
            return;
        }
        let reason = match (error.loop_ancestor(), error.io_error()) {
            (Some(above), _) => format!("a symbolic link back to `{}`, a folder above it", above.display()),
            (None, Some(cause)) => format!("cannot be read: {cause}"),
            (None, None) => error.to_string(),
        };
        self.skip(path, &reason);
    }
}

const THUMBNAILS: &str = "its numbered images lie beside videos and were taken for thumbnails; a folder of its own makes them a video";
const BESIDE_FOLDERS: &str =
    "its own numbered images lie beside folders with videos; a folder of their own makes them a video";

/// What was found, in order; an error when that is nothing.
fn finished(
    root: Location,
    searched: Location,
    sources: Vec<Source>,
    mut skipped: Vec<Skipped>,
    others: &Others,
) -> Result<Discovery, DiscoverError> {
    if sources.is_empty() {
        return Err(DiscoverError::Empty {
            path: searched,
            seen: others.seen(&skipped),
        });
    }
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Discovery {
        root,
        sources,
        skipped,
    })
}

impl Others {
    fn count(&mut self, extension: Option<String>) {
        *self.0.entry(extension.unwrap_or_default()).or_default() += 1;
    }

    fn seen(&self, skipped: &[Skipped]) -> String {
        let mut seen = match self.0.values().sum::<usize>() {
            0 => "there is no other file either".to_string(),
            count => {
                let mut kinds: Vec<_> = self.0.iter().collect();
                kinds.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
                let shown = kinds
                    .iter()
                    .take(8)
                    .map(|(extension, count)| match extension.as_str() {
                        "" => format!("{count} without extension"),
                        extension => format!("{count} .{extension}"),
                    });
                let shown = shown.collect::<Vec<_>>().join(", ");
                let more = if kinds.len() > 8 { ", …" } else { "" };
                format!("{count} other files ({shown}{more})")
            }
        };
        if let Some(first) = skipped.first() {
            let (count, path) = (skipped.len(), &first.path);
            seen += &format!("; {count} skipped, the first `{path}`: {}", first.reason);
        }
        seen
    }
}

fn is_wanted(entry: &DirEntry) -> bool {
    let is_output = entry.file_type().is_dir() && entry.path().join("_affectmill").is_dir();
    !is_hidden(entry.file_name()) && !is_output
}

fn is_wanted_extension(have: Option<&str>, wanted: &[String]) -> bool {
    have.is_some_and(|have| wanted.iter().any(|want| want.eq_ignore_ascii_case(have)))
}

fn is_hidden(name: &OsStr) -> bool {
    matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_'))
}

fn lower_extension(path: &Path) -> Option<String> {
    path.extension()
        .and_then(OsStr::to_str)
        .map(str::to_ascii_lowercase)
}

fn is_numbered_image(path: &Path) -> bool {
    let stem = path.file_stem().map(OsStr::as_encoded_bytes).unwrap_or_default();
    !stem.is_empty()
        && stem.iter().all(u8::is_ascii_digit)
        && lower_extension(path).is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

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

mod bucket;
#[cfg(test)]
mod tests;
