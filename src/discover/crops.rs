//! Tar shards of crops in an input: the videos that the crops were cut from. Only headers are read.

use super::{CropsOf, Search, Source};
use crate::dataset::SourceKind;
use crate::dataset::paths::SampleName;
use crate::domain::VideoKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// What there is of one video.
#[derive(Default)]
struct Crops {
    frames: BTreeSet<u64>,
    bytes: u64,
}

/// Identity of a tar file: its modification time in ns since 1970, and its size.
pub(super) fn etag(meta: &Metadata) -> String {
    let (bytes, ns) = super::stamp(meta);
    format!("{ns}-{bytes}")
}

impl Search<'_> {
    /// Takes the videos of a tar file of crops; `false` when it is none.
    pub(super) fn crops(&mut self, path: &Path) -> bool {
        let found = match look(path) {
            Ok((videos, _)) if videos.is_empty() => return false,
            Ok(found) => found,
            Err(error) => {
                self.skip(path, &format!("cannot be read as a tar file of crops: {error}"));
                return true;
            }
        };
        let (videos, etag) = found;
        let relative = path.strip_prefix(self.root).unwrap_or(path);
        let Some(archive) = relative.to_str().map(str::to_owned) else {
            self.skip(path, "its name is not UTF-8; rename it");
            return true;
        };
        for (key, crops) in videos {
            self.sources.push(Source {
                key,
                kind: SourceKind::File,
                bytes: crops.bytes,
                etag: etag.clone(),
                crops: Some(CropsOf {
                    archive: archive.clone(),
                    frames: crops.frames.len() as u64,
                }),
            });
        }
        true
    }

    /// Sorts the sources by key, and leaves out crops of a video that is there itself or in another tar file.
    pub(super) fn sort(&mut self) {
        self.sources
            .sort_by(|a, b| (&a.key, &a.crops).cmp(&(&b.key, &b.crops)));
        let mut sources: Vec<Source> = Vec::with_capacity(self.sources.len());
        for source in std::mem::take(&mut self.sources) {
            match (sources.last(), &source.crops) {
                (Some(last), Some(crops)) if last.key == source.key => {
                    let path = self.root.join(&crops.archive);
                    let reason = format!(
                        "`{}`, of which it has crops, is there already; label one of them",
                        source.key
                    );
                    self.skip(&path, &reason);
                }
                _ => sources.push(source),
            }
        }
        self.sources = sources;
    }
}

/// The videos of a tar file, and its identity. No video when its first member is no crop.
fn look(path: &Path) -> io::Result<(BTreeMap<VideoKey, Crops>, String)> {
    let file = File::open(path)?;
    let etag = etag(&file.metadata()?);
    let mut videos: BTreeMap<VideoKey, Crops> = BTreeMap::new();
    for member in tar::Archive::new(file).entries_with_seek()? {
        let member = member?;
        let name = member.path_bytes();
        let name = std::str::from_utf8(&name).ok().and_then(SampleName::parse);
        let key = name.and_then(|name| Some((name, VideoKey::new(name.video).ok()?)));
        let Some((name, key)) = key else {
            if videos.is_empty() {
                break;
            }
            continue;
        };
        let crops = videos.entry(key).or_default();
        crops.frames.insert(name.frame);
        crops.bytes += member.size();
    }
    Ok((videos, etag))
}
