//! The search through a folder on a disk or a share.
//!
//! Symbolic links are followed. What a disk or a share refuses in passing is tried again; what stays refused is told as
//! unseen, and the search goes on beside it.

use super::search::Search;
use super::{DiscoverError, Discovery, Images, crops, file_etag, images_identity, stamp, unreadable};
use crate::names;
use crate::names::Named;
use affectmill_base::SourceKind;
use affectmill_base::passes;
use affectmill_base::{Location, VideoKey};
use affectmill_labelset::Passed;
use affectmill_spec::Input;
use affectmill_store::DISK_RETRY;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one search waits in all for a disk to come back; after that every error is taken at its word.
const PATIENCE: Duration = Duration::from_secs(60);

const NOT_UTF8: &str = "its name is not UTF-8; rename it";

/// One search through a folder.
struct Walk<'a> {
    search: Search<'a>,
    root: &'a Path,
    /// Device and number of every folder from the root to the one in hand.
    trail: Vec<(u64, u64)>,
    waited: Duration,
}

/// A name in a folder, and what the folder says of it.
type Entry = (OsString, io::Result<FileType>);

/// Finds the videos in a folder.
pub(super) fn discover(
    input: &Input,
    root: &Path,
    planned: &BTreeSet<VideoKey>,
) -> Result<Discovery, DiscoverError> {
    let mut walk = Walk {
        search: Search::new(&input.extensions, planned),
        root,
        trail: Vec::new(),
        waited: Duration::ZERO,
    };
    let meta = walk
        .patiently(|| fs::metadata(root), passes)
        .map_err(|error| unreadable(root, error))?;
    walk.folder(Path::new(""), &meta)?;
    // `a/..` and `/` have no name; canonical paths do, save `/`.
    let whole = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    let own = whole.parent().zip(whole.file_name().and_then(OsStr::to_str));
    let own = own.map(|(above, name)| (Location::from(above), name.to_owned()));
    walk.search.finish(&root.into(), own)
}

impl Walk<'_> {
    fn patiently<T, E>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, E>,
        may_pass: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        if self.waited >= PATIENCE {
            return attempt();
        }
        let began = Instant::now();
        let done = DISK_RETRY.run(attempt, may_pass);
        if done.is_err() {
            self.waited += began.elapsed();
        }
        done
    }

    /// Where something lies; `relative` is empty for the root.
    fn path(&self, relative: &Path) -> PathBuf {
        if relative.as_os_str().is_empty() {
            self.root.to_path_buf()
        } else {
            self.root.join(relative)
        }
    }

    fn miss(&mut self, relative: &Path, reason: impl Into<String>) {
        let path = self.path(relative).display().to_string();
        self.search.unseen.add(path, reason);
    }

    /// Searches a folder. The error is that of the root, of which nothing can be seen.
    fn folder(&mut self, relative: &Path, meta: &Metadata) -> Result<(), DiscoverError> {
        let shown = relative.to_string_lossy();
        let id = (meta.dev(), meta.ino());
        if self.trail.contains(&id) {
            self.search.pass(Passed::Loop, "", &shown);
            return Ok(());
        }
        let path = self.path(relative);
        let entries = match self.patiently(|| list(&path), |(_, error)| passes(error)) {
            Ok(entries) => entries,
            Err((listed, error)) if relative.as_os_str().is_empty() && listed.is_empty() => {
                return Err(unreadable(&path, error));
            }
            Err((listed, error)) => {
                self.miss(relative, format!("cannot be listed: {error}"));
                listed
            }
        };
        let is_output = entries.iter().any(|(name, _)| name == names::LABEL_SET);
        if is_output && !self.trail.is_empty() && path.join(names::LABEL_SET).is_dir() {
            self.search.pass(Passed::Labels, "", &shown);
            return Ok(());
        }
        self.trail.push(id);
        let mut images = Images::new();
        for (name, kind) in entries {
            self.entry(&relative.join(&name), &name, kind, &mut images)?;
        }
        self.trail.pop();
        if !images.is_empty() {
            match relative.to_str() {
                Some(folder) => self.search.images(folder, images_identity(&images)),
                None => self.miss(relative, NOT_UTF8),
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        relative: &Path,
        name: &OsStr,
        kind: io::Result<FileType>,
        images: &mut Images,
    ) -> Result<(), DiscoverError> {
        let (shown, name) = (relative.to_string_lossy(), name.to_string_lossy());
        if let Some(kind) = names::passed_over(&name) {
            let told = if kind == Passed::Hidden || kind == Passed::Labels {
                ""
            } else {
                &*name
            };
            self.search.pass(kind, told, &shown);
            return Ok(());
        }
        let kind = match kind {
            Ok(kind) if kind.is_file() => kind,
            // What a link leads to, and which folder this is.
            _ => match self.meta(relative) {
                Some(meta) if meta.is_dir() => return self.folder(relative, &meta),
                Some(meta) => meta.file_type(),
                None => return Ok(()),
            },
        };
        if kind.is_file() {
            self.file(relative, &name, images)
        } else {
            self.search.pass(Passed::Special, "", &shown)
        }
        Ok(())
    }

    /// What the system says of something; `None`, and told, where it says nothing.
    fn meta(&mut self, relative: &Path) -> Option<Metadata> {
        let path = self.path(relative);
        match self.patiently(|| fs::metadata(&path), passes) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Something that was deleted since the folder was listed is not missed.
                if fs::symlink_metadata(&path).is_ok() {
                    self.miss(
                        relative,
                        "a symbolic link to what is not there; remove it, or mount its disk",
                    );
                }
                None
            }
            Err(error) => {
                self.miss(relative, format!("cannot be looked at: {error}"));
                None
            }
        }
    }

    fn file(&mut self, relative: &Path, name: &str, images: &mut Images) {
        let shown = relative.to_string_lossy();
        let look = match self.search.named(&shown) {
            Named::Other(kind) => return self.search.pass_file(kind, &shown),
            Named::Tar => return self.tar(relative),
            Named::Image => {
                let meta = self.meta(relative);
                images.extend(meta.map(|meta| (name.to_owned(), stamp(&meta))));
                return;
            }
            Named::Video => None,
            Named::Doubtful(look) => Some(look),
        };
        let Some(meta) = self.meta(relative) else { return };
        let Some(key) = relative.to_str() else {
            return self.miss(relative, NOT_UTF8);
        };
        let path = self.path(relative);
        let identity = (meta.len(), file_etag(&meta));
        let source = self
            .search
            .source(key, SourceKind::File, identity, &path.as_path().into());
        match (source, look) {
            (None, _) => {}
            (Some(source), None) => self.search.video(source),
            (Some(source), Some(look)) => {
                let head = self.patiently(|| head(&path), passes).ok();
                self.search.doubtful(look, source, head.as_deref());
            }
        }
    }

    /// Takes the videos of a tar file of crops. FFmpeg would take the first pictures in any tar file for a video.
    fn tar(&mut self, relative: &Path) {
        let path = self.path(relative);
        let root = self.root;
        match self.patiently(|| crops::single(root, &path), passes) {
            Ok(videos) if videos.is_empty() => {
                self.search
                    .pass_file(Passed::Extension, &relative.to_string_lossy());
            }
            Ok(videos) => self.search.sources.extend(videos),
            Err(error) => self.miss(relative, format!("cannot be read: {error}")),
        }
    }
}

/// What a folder holds, by name; what was listed before an error comes with it.
fn list(folder: &Path) -> Result<Vec<Entry>, (Vec<Entry>, io::Error)> {
    let mut entries = Vec::new();
    let mut failed = None;
    match fs::read_dir(folder) {
        Err(error) => failed = Some(error),
        Ok(listing) => {
            for entry in listing {
                match entry {
                    Ok(entry) => entries.push((entry.file_name(), entry.file_type())),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    match failed {
        None => Ok(entries),
        Some(error) => Err((entries, error)),
    }
}

/// The first bytes of a file.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?
        .take(names::HEAD as u64)
        .read_to_end(&mut head)?;
    Ok(head)
}
