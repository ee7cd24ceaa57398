//! Tar shards of crops in an input: the videos that the crops were cut from. Only headers are read.

use super::{CropsOf, Search, Source};
use crate::dataset::SourceKind;
use crate::dataset::paths::SampleName;
use crate::domain::{RelativePath, VideoKey};
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

/// A tar file of crops as an input: what keys and archives are relative to, and the videos of the crops. No video when it is
/// none.
pub(super) fn single(root: &Path, path: &Path) -> io::Result<Vec<Source>> {
    let archive = path.strip_prefix(root).unwrap_or(path).to_str();
    let archive = archive.ok_or_else(|| io::Error::other("its name is not UTF-8; rename it"))?;
    let archive = RelativePath::try_from(archive.to_owned()).map_err(io::Error::other)?;
    let (videos, etag) = look(path)?;
    let source = |(key, crops): (VideoKey, Crops)| Source {
        key,
        kind: SourceKind::File,
        bytes: crops.bytes,
        etag: etag.clone(),
        crops: Some(CropsOf {
            archive: archive.clone(),
            frames: crops.frames.len() as u64,
        }),
    };
    Ok(videos.into_iter().map(source).collect())
}

impl Search<'_> {
    /// Takes the videos of a tar file of crops; `false` when it is none.
    pub(super) fn crops(&mut self, path: &Path) -> bool {
        match single(self.root, path) {
            Ok(videos) if videos.is_empty() => return false,
            Ok(videos) => self.sources.extend(videos),
            Err(error) => self.skip(path, &format!("cannot be read: {error}")),
        }
        true
    }

    /// Sorts the sources by key. Crops of a video that is there itself are left out; so are crops of a video that lie in
    /// several tar files, because neither holds the whole of it.
    pub(super) fn sort(&mut self) {
        self.sources
            .sort_by(|a, b| (&a.key, &a.crops).cmp(&(&b.key, &b.crops)));
        let sources = std::mem::take(&mut self.sources);
        for alike in sources.chunk_by(|a, b| a.key == b.key) {
            let archives = alike.iter().filter_map(|source| source.crops.as_ref());
            let (first, rest) = (&alike[0], &alike[1..]);
            if rest.is_empty() || first.crops.is_none() {
                self.sources.push(first.clone());
            }
            let reason = match (rest, &first.crops) {
                ([], _) => continue,
                (_, None) => format!(
                    "it has crops of `{}`, which is there itself; label one of them",
                    first.key
                ),
                _ => format!(
                    "crops of `{}` lie in several tar files, which makes none of them whole; bring the crops of a video together \
                     in one",
                    first.key
                ),
            };
            for crops in archives {
                self.skip(&self.root.join(&*crops.archive), &reason);
            }
        }
    }
}

/// The videos of a tar file, and its identity. No video when its first file is no crop. One that is cut off gives what is
/// there: whoever reads it says so.
fn look(path: &Path) -> io::Result<(BTreeMap<VideoKey, Crops>, String)> {
    let file = File::open(path)?;
    let etag = etag(&file.metadata()?);
    let mut videos: BTreeMap<VideoKey, Crops> = BTreeMap::new();
    for member in tar::Archive::new(file).entries_with_seek()? {
        let Ok(member) = member else { break };
        if !member.header().entry_type().is_file() {
            continue;
        }
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
        crops.bytes = crops.bytes.saturating_add(member.size());
    }
    Ok((videos, etag))
}
