//! The search through a bucket, from listings alone, by the same rules as on a disk.

use super::{
    BESIDE_FOLDERS, DiscoverError, Discovery, Others, Skipped, Source, THUMBNAILS, finished, is_hidden,
    is_numbered_image, is_wanted_extension, lower_extension,
};
use crate::dataset::SourceKind;
use crate::domain::{Location, VideoKey, hex};
use crate::spec::Input;
use crate::store::{Access, Bucket, Object, StoreError};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

/// Finds the videos below the input's prefix, or the one object that it names.
pub(super) fn discover(input: &Input, access: &Access) -> Result<Discovery, DiscoverError> {
    if let Some(found) = single(&input.uri, access)? {
        return Ok(found);
    }
    let bucket = Bucket::open(&input.uri, access)?;
    let mut search = Search {
        bucket: &bucket,
        extensions: &input.extensions,
        sources: Vec::new(),
        skipped: Vec::new(),
        images: BTreeMap::new(),
        with_videos: BTreeSet::new(),
        outputs: BTreeSet::new(),
        others: Others::default(),
    };
    bucket.walk(|object| search.object(object))?;
    search.finish(&input.uri)
}

/// The numbered images directly in a folder, as they are now, with the size and tag of them all, which
/// [`Source::bytes`] and [`Source::etag`] were.
///
/// # Errors
/// [`StoreError`].
pub fn images_in(bucket: &Bucket, folder: &VideoKey) -> Result<(Vec<Object>, u64, String), StoreError> {
    let (mut images, mut identity) = (Vec::new(), Images::default());
    bucket.walk_folder(folder.as_str(), |object| {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        if is_numbered_image(Path::new(name)) {
            identity.add(name, &object);
            images.push(object);
        }
    })?;
    Ok((images, identity.bytes, identity.etag()))
}

/// The input as one object; `None` when it is a prefix.
fn single(uri: &Location, access: &Access) -> Result<Option<Discovery>, DiscoverError> {
    let Location::S3 { bucket, key } = uri else {
        return Ok(None);
    };
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    if name.is_empty() {
        return Ok(None);
    }
    let root = Location::S3 {
        bucket: bucket.clone(),
        key: folder.into(),
    };
    let Some(object) = Bucket::open(&root, access)?.head(name)? else {
        return Ok(None);
    };
    let key = VideoKey::new(name).map_err(|error| DiscoverError::BadName {
        path: uri.clone(),
        cause: error.to_string(),
    })?;
    Ok(Some(Discovery {
        root,
        sources: vec![Source {
            key,
            kind: SourceKind::File,
            bytes: object.bytes,
            etag: object.etag,
            crops: None,
        }],
        skipped: Vec::new(),
    }))
}

/// The numbered images of one folder, as a sum that does not depend on the order in which they were listed.
#[derive(Default)]
struct Images {
    bytes: u64,
    sum: u128,
}

impl Images {
    fn add(&mut self, name: &str, object: &Object) {
        self.bytes += object.bytes;
        // `/` cannot be part of a name.
        let hash = Sha256::digest(format!("{name}/{}/{}\n", object.bytes, object.etag));
        let first = hash.first_chunk::<16>().copied().unwrap_or_default();
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(first));
    }

    fn etag(&self) -> String {
        hex(&Sha256::digest(self.sum.to_be_bytes())[..8])
    }
}

/// One search. Keys are relative to the prefix.
struct Search<'a> {
    bucket: &'a Bucket,
    extensions: &'a [String],
    sources: Vec<Source>,
    skipped: Vec<Skipped>,
    /// Numbered images by folder.
    images: BTreeMap<String, Images>,
    /// Folders that directly hold videos.
    with_videos: BTreeSet<String>,
    /// Folders that hold an `_affectmill` folder.
    outputs: BTreeSet<String>,
    others: Others,
}

impl Search<'_> {
    fn object(&mut self, object: Object) {
        let (folder, name) = object.key.rsplit_once('/').unwrap_or(("", &object.key));
        if let Some((output, _)) = object.key.split_once("/_affectmill/") {
            if !self.outputs.contains(output) {
                self.outputs.insert(output.into());
            }
            return;
        }
        // An object whose key ends in `/` stands for a folder.
        if name.is_empty() || object.key.split('/').any(|part| is_hidden(OsStr::new(part))) {
            // `.` and `..` begin with a dot as hidden names do, and yet are none.
            if object.key.split('/').any(|part| matches!(part, "." | "..")) && !name.is_empty() {
                self.source(&object.key.clone(), SourceKind::File, object.bytes, object.etag);
            }
            return;
        }
        let extension = lower_extension(Path::new(name));
        let is_video = is_wanted_extension(extension.as_deref(), self.extensions);
        if is_video {
            if !self.with_videos.contains(folder) {
                self.with_videos.insert(folder.into());
            }
            self.source(&object.key.clone(), SourceKind::File, object.bytes, object.etag);
        } else if is_numbered_image(Path::new(name)) {
            match self.images.get_mut(folder) {
                Some(images) => images.add(name, &object),
                None => {
                    let mut images = Images::default();
                    images.add(name, &object);
                    self.images.insert(folder.into(), images);
                }
            }
        } else {
            self.others.count(extension);
        }
    }

    fn source(&mut self, key: &str, kind: SourceKind, bytes: u64, etag: String) {
        match VideoKey::new(key) {
            Ok(key) => self.sources.push(Source {
                key,
                kind,
                bytes,
                etag,
                crops: None,
            }),
            Err(error) => self.skip(key, &error.to_string()),
        }
    }

    fn skip(&mut self, key: &str, reason: &str) {
        self.skipped.push(Skipped {
            path: self.bucket.place(key),
            reason: reason.into(),
        });
    }

    fn finish(mut self, uri: &Location) -> Result<Discovery, DiscoverError> {
        let mut root = uri.clone();
        let mut at_root = None;
        for (folder, images) in std::mem::take(&mut self.images) {
            if self.with_videos.contains(&folder) {
                self.skip(&folder, THUMBNAILS);
            } else if folder.is_empty() {
                at_root = Some(images);
            } else {
                self.source(&folder, SourceKind::Images, images.bytes, images.etag());
            }
        }
        let outputs = std::mem::take(&mut self.outputs);
        let in_output = |key: &str| {
            let mut above = key;
            while let Some((folder, _)) = above.rsplit_once('/') {
                if outputs.contains(folder) {
                    return true;
                }
                above = folder;
            }
            false
        };
        if !outputs.is_empty() {
            self.sources.retain(|source| !in_output(source.key.as_str()));
        }
        match (at_root, uri) {
            (Some(_), _) if !self.sources.is_empty() => self.skip("", BESIDE_FOLDERS),
            (Some(images), Location::S3 { bucket, key }) if !key.is_empty() => {
                let (parent, name) = key.rsplit_once('/').unwrap_or(("", key));
                root = Location::S3 {
                    bucket: bucket.clone(),
                    key: parent.into(),
                };
                self.source(name, SourceKind::Images, images.bytes, images.etag());
            }
            (Some(_), _) => self.skip(
                "",
                "numbered images of a whole bucket have no name; put them under a prefix",
            ),
            (None, _) => {}
        }
        self.sources.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        finished(root, uri.clone(), self.sources, self.skipped, &self.others)
    }
}
