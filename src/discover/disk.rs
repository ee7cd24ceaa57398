//! Searches a folder on a disk or a share.
//!
//! Symbolic links are followed. Transient I/O errors are retried; what stays unreadable is reported as unseen, and the search
//! continues.

use super::search::Search;
use super::{
    DiscoverError, Discovery, Images, IsPlanned, crops, file_etag, images_identity, stamp, unreadable,
};
use crate::names;
use crate::names::Named;
use affectmill_base::Location;
use affectmill_base::SourceKind;
use affectmill_base::is_transient;
use affectmill_labelset::Passed;
use affectmill_spec::Input;
use affectmill_store::DISK_RETRY;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Total time that one search spends on retries; after that every error is final.
const RETRY_BUDGET: Duration = Duration::from_secs(60);

const NOT_UTF8: &str = "its name is not UTF-8; rename it";

/// One search through a folder.
struct Walk<'a> {
    search: Search<'a>,
    root: &'a Path,
    /// Device and inode of every folder from the root to the current one.
    trail: Vec<(u64, u64)>,
    waited: Duration,
}

/// A name in a folder, and its file type.
type Entry = (OsString, io::Result<FileType>);

/// Finds the videos in a folder.
pub(super) fn discover(
    input: &Input,
    root: &Path,
    planned: IsPlanned<'_>,
) -> Result<Discovery, DiscoverError> {
    let mut walk = Walk {
        search: Search::new(&input.extensions, planned),
        root,
        trail: Vec::new(),
        waited: Duration::ZERO,
    };
    let meta = walk
        .retrying(|| fs::metadata(root), is_transient)
        .map_err(|error| unreadable(root, error))?;
    walk.folder(Path::new(""), &meta)?;
    // `a/..` and `/` have no name; canonical paths do, except `/`.
    let whole = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    let own = whole.parent().zip(whole.file_name().and_then(OsStr::to_str));
    let own = own.map(|(above, name)| (Location::from(above), name.to_owned()));
    walk.search.finish(&root.into(), own)
}

impl Walk<'_> {
    fn retrying<T, E>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, E>,
        is_transient: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        if self.waited >= RETRY_BUDGET {
            return attempt();
        }
        let began = Instant::now();
        let done = DISK_RETRY.run(attempt, is_transient);
        if done.is_err() {
            self.waited += began.elapsed();
        }
        done
    }

    /// The path of an entry; `relative` is empty for the root.
    fn path(&self, relative: &Path) -> PathBuf {
        if relative.as_os_str().is_empty() {
            self.root.to_path_buf()
        } else {
            self.root.join(relative)
        }
    }

    fn unseen(&mut self, relative: &Path, reason: impl Into<String>) {
        let path = self.path(relative).display().to_string();
        self.search.unseen.add(path, reason);
    }

    /// Searches a folder. Fails only when the root cannot be read at all.
    fn folder(&mut self, relative: &Path, meta: &Metadata) -> Result<(), DiscoverError> {
        let shown = relative.to_string_lossy();
        let id = (meta.dev(), meta.ino());
        if self.trail.contains(&id) {
            self.search.pass(Passed::Loop, "", &shown);
            return Ok(());
        }
        let path = self.path(relative);
        let entries = match self.retrying(|| list(&path), |(_, error)| is_transient(error)) {
            Ok(entries) => entries,
            Err((listed, error)) if relative.as_os_str().is_empty() && listed.is_empty() => {
                return Err(unreadable(&path, error));
            }
            Err((listed, error)) => {
                self.unseen(relative, format!("cannot be listed: {error}"));
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
                None => self.unseen(relative, NOT_UTF8),
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
            let name = if kind == Passed::Hidden || kind == Passed::Labels {
                ""
            } else {
                &*name
            };
            self.search.pass(kind, name, &shown);
            return Ok(());
        }
        let kind = match kind {
            Ok(kind) if kind.is_file() => kind,
            // A link's target, or a folder's identity.
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

    /// The metadata of an entry; `None`, with a report, when they cannot be read.
    fn meta(&mut self, relative: &Path) -> Option<Metadata> {
        let path = self.path(relative);
        match self.retrying(|| fs::metadata(&path), is_transient) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // An entry deleted since the listing is not reported.
                if fs::symlink_metadata(&path).is_ok() {
                    self.unseen(
                        relative,
                        "a symbolic link to what is not there; remove it, or mount its disk",
                    );
                }
                None
            }
            Err(error) => {
                self.unseen(relative, format!("cannot be looked at: {error}"));
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
            return self.unseen(relative, NOT_UTF8);
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
                let head = self.retrying(|| head(&path), is_transient).ok();
                self.search.doubtful(look, source, head.as_deref());
            }
        }
    }

    /// Adds the videos of a tar file of crops. FFmpeg would read the first pictures of any tar file as a video.
    fn tar(&mut self, relative: &Path) {
        let path = self.path(relative);
        let root = self.root;
        match self.retrying(|| crops::single(root, &path), is_transient) {
            Ok(videos) if videos.is_empty() => {
                self.search
                    .pass_file(Passed::Extension, &relative.to_string_lossy());
            }
            Ok(videos) => self.search.sources.extend(videos),
            Err(error) => self.unseen(relative, format!("cannot be read: {error}")),
        }
    }
}

/// The entries of a folder, sorted by name; on an error, with those listed before it.
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
