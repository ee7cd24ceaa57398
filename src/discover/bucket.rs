//! Searches a bucket by listings; reads only the first bytes of files whose extension is ambiguous.

use super::search::Search;
use super::{DiscoverError, Discovery, IsPlanned, Source};
use crate::names;
use crate::names::{HeadCheck, Named};
use affectmill_base::SourceKind;
use affectmill_base::{Location, VideoKey, hex};
use affectmill_labelset::{Passed, Unseen};
use affectmill_spec::Input;
use affectmill_store::{Access, Bucket, Object, StoreError, Trouble};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Files whose first bytes are in memory at a time.
const HEADS: usize = 1_000;

/// Finds the videos below the input's prefix, or the one object that it names.
pub(super) fn discover(
    input: &Input,
    planned: IsPlanned<'_>,
    access: &Access,
) -> Result<Discovery, DiscoverError> {
    let bucket = Bucket::open(&input.uri, access)?;
    if let Some(found) = single(&input.uri, &bucket, access)? {
        return Ok(found);
    }
    let mut walk = Walk {
        bucket: &bucket,
        search: Search::new(&input.extensions, planned),
        images: BTreeMap::new(),
        doubtful: Vec::new(),
        folders: BTreeSet::new(),
        outputs: BTreeSet::new(),
        successes: BTreeSet::new(),
    };
    bucket.walk(|object| walk.object(object))?;
    walk.finish(&input.uri)
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
        if names::is_numbered_image(name) {
            identity.add(name, &object);
            images.push(object);
        }
    })?;
    Ok((images, identity.bytes, identity.etag()))
}

/// The input as one object; `None` when it is a prefix: `/` ends it, or keys lie below it and no object with content has
/// the name. Credentials that may only list the prefix, or only read the object, are denied the other request.
fn single(uri: &Location, below: &Bucket, access: &Access) -> Result<Option<Discovery>, DiscoverError> {
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
    let above = Bucket::open(&root, access)?;
    let is_forbidden = |error: &StoreError| error.trouble() == Some(Trouble::Forbidden);
    let object = match below.is_empty() {
        Ok(true) => above.head(name)?,
        Ok(false) => match above.head(name) {
            Err(error) if is_forbidden(&error) => None,
            object => object?.filter(|object| object.bytes > 0),
        },
        Err(listing) if is_forbidden(&listing) => match above.head(name) {
            Ok(Some(object)) => Some(object),
            _ => return Err(listing.into()),
        },
        Err(error) => return Err(error.into()),
    };
    let Some(object) = object else { return Ok(None) };
    let bad = |cause: String| DiscoverError::BadName {
        path: uri.clone(),
        cause,
    };
    if names::extension(name).as_deref() == Some("tar") {
        return Err(bad("crops are read from a disk; bring the tar file to one".into()));
    }
    let key = VideoKey::new(name).map_err(|error| bad(error.to_string()))?;
    Ok(Some(Discovery {
        root,
        sources: vec![Source {
            key,
            kind: SourceKind::File,
            bytes: object.bytes,
            etag: object.etag,
            crops: None,
        }],
        passed_over: Vec::new(),
        unseen: Unseen::default(),
    }))
}

/// The numbered images of one folder, as a sum independent of the order of the listing.
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
struct Walk<'a> {
    bucket: &'a Bucket,
    search: Search<'a>,
    /// Numbered images by folder.
    images: BTreeMap<String, Images>,
    /// Files whose first bytes decide.
    doubtful: Vec<(HeadCheck, Source)>,
    /// Skipped folders that are counted already.
    folders: BTreeSet<String>,
    /// Folders of label sets.
    outputs: BTreeSet<String>,
    /// Folders whose `_SUCCESS` was counted before they were recognised as outputs: it precedes `_affectmill/` in listings.
    successes: BTreeSet<String>,
}

impl Walk<'_> {
    fn object(&mut self, object: Object) {
        let key = object.key.as_str();
        // An object whose key ends in `/` stands for a folder.
        if key.is_empty() || key.ends_with('/') || self.is_passed_over(key) {
            return;
        }
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let look = match self.search.named(key) {
            Named::Tar => return self.search.pass_file(Passed::Extension, key),
            Named::Other(kind) => {
                if name == "_SUCCESS" {
                    self.successes.insert(folder.into());
                }
                return self.search.pass_file(kind, key);
            }
            Named::Image => {
                match self.images.get_mut(folder) {
                    Some(images) => images.add(name, &object),
                    None => {
                        let mut images = Images::default();
                        images.add(name, &object);
                        self.images.insert(folder.into(), images);
                    }
                }
                return;
            }
            Named::Video => None,
            Named::Doubtful(look) => Some(look),
        };
        let place = self.bucket.place(key);
        let identity = (object.bytes, object.etag);
        let source = self
            .search
            .source(&object.key, SourceKind::File, identity, &place);
        match (source, look) {
            (None, _) => {}
            (Some(source), None) => self.search.video(source),
            (Some(source), Some(look)) => self.doubtful.push((look, source)),
        }
    }

    /// Whether a folder of the key, or the name of the object, is skipped. A folder is counted once.
    fn is_passed_over(&mut self, key: &str) -> bool {
        let mut start = 0;
        for part in key.split('/') {
            let end = start + part.len();
            // `.` and `..` are no names; a video there is reported as having no usable key.
            let kind = names::passed_over(part).filter(|_| !matches!(part, "." | ".."));
            if let Some(kind) = kind {
                let path = match kind {
                    Passed::Labels if start > 0 => &key[..start - 1],
                    _ => &key[..end],
                };
                if kind == Passed::Labels && start > 0 && end < key.len() && !self.outputs.contains(path) {
                    self.outputs.insert(path.into());
                }
                let is_new = end == key.len() || !self.folders.contains(path);
                if is_new {
                    let name = if matches!(kind, Passed::Hidden | Passed::Labels) {
                        ""
                    } else {
                        part
                    };
                    self.search.pass(kind, name, path);
                    self.folders.insert(path.into());
                }
                return true;
            }
            start = end + 1;
        }
        false
    }

    fn finish(mut self, uri: &Location) -> Result<Discovery, DiscoverError> {
        for (folder, images) in std::mem::take(&mut self.images) {
            self.search.images(&folder, (images.bytes, images.etag()));
        }
        let outputs = std::mem::take(&mut self.outputs);
        let in_output = |key: &str| {
            key.match_indices('/')
                .any(|(end, _)| outputs.contains(&key[..end]))
        };
        if !outputs.is_empty() {
            self.search.forget(|key| in_output(key) || outputs.contains(key));
            self.doubtful
                .retain(|(_, source)| !in_output(source.key.as_str()));
            for folder in outputs.intersection(&self.successes) {
                self.search
                    .unpass_file(Passed::Extension, &format!("{folder}/_SUCCESS"));
            }
        }
        while !self.doubtful.is_empty() {
            let rest = self.doubtful.split_off(self.doubtful.len().min(HEADS));
            let some = std::mem::replace(&mut self.doubtful, rest);
            let object = |(_, source): &(HeadCheck, Source)| Object {
                key: source.key.as_str().into(),
                bytes: source.bytes,
                etag: source.etag.clone(),
                sha256: None,
            };
            let heads = self
                .bucket
                .beginnings(some.iter().map(object).collect(), names::HEAD as u64)?;
            for ((look, source), head) in some.into_iter().zip(heads) {
                self.search.doubtful(look, source, head.as_deref());
            }
        }
        let own = match uri {
            Location::S3 { bucket, key } if !key.is_empty() => {
                let key = key.trim_end_matches('/');
                let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
                let above = Location::S3 {
                    bucket: bucket.clone(),
                    key: above.into(),
                };
                Some((above, name.to_owned()))
            }
            _ => None,
        };
        self.search.finish(uri, own)
    }
}
