//! Lists the videos of tar shards of crops in an input. Only headers are read.

use super::{CropsOf, Source};
use affectmill_base::SampleName;
use affectmill_base::SourceKind;
use affectmill_base::{RelativePath, VideoKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// The crops of one video.
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

/// The videos of a tar file of crops that is the input; empty when it has no crops.
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

/// The videos of a tar file, and its identity. No video when its first file is no crop. A truncated file gives what it
/// has; the reader reports the truncation.
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
