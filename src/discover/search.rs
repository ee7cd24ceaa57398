//! The result of a search, for disks and buckets alike.
//!
//! In: names, sizes and tags of a folder or a listing, with keys relative to the searched location. They are classified here and in
//! `names`, so that a folder and its copy in a bucket give the same result.

use super::{DiscoverError, Discovery, IsPlanned, Source};
use crate::names;
use crate::names::{HeadCheck, Named};
use affectmill_base::SourceKind;
use affectmill_base::{Location, VideoKey};
use affectmill_labelset::{Passed, PassedOver, Unseen};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum kinds counted one by one; a collection may have as many "extensions" as files.
const KINDS: usize = 500;

/// Name of the input folder itself in reports.
const ITSELF: &str = ".";

/// One search.
pub(super) struct Search<'a> {
    extensions: &'a [String],
    /// Videos that are planned already; they stay videos under any rule of names.
    planned: IsPlanned<'a>,
    pub sources: Vec<Source>,
    pub unseen: Unseen,
    /// Size and tag of the numbered images of each folder.
    images: BTreeMap<String, (u64, String)>,
    /// Folders with videos directly in them.
    with_videos: BTreeSet<String>,
    /// Count and first path of each kind and name.
    passed: BTreeMap<(Passed, String), (u64, String)>,
}

impl<'a> Search<'a> {
    pub fn new(extensions: &'a [String], planned: IsPlanned<'a>) -> Self {
        Self {
            extensions,
            planned,
            sources: Vec::new(),
            unseen: Unseen::default(),
            images: BTreeMap::new(),
            with_videos: BTreeSet::new(),
            passed: BTreeMap::new(),
        }
    }

    /// Class of the file of this key.
    pub fn named(&self, key: &str) -> Named {
        let is_planned = || VideoKey::new(key).is_ok_and(|key| (self.planned)(&key));
        match names::named(name_of(key), self.extensions) {
            Named::Doubtful(_) | Named::Other(_) if is_planned() => Named::Video,
            named => named,
        }
    }

    /// Counts a skipped entry by kind and `name`.
    pub fn pass(&mut self, kind: Passed, name: &str, path: &str) {
        let mut entry = (kind, name.to_owned());
        if self.passed.len() >= KINDS && !self.passed.contains_key(&entry) {
            entry.1 = "*".into();
        }
        self.passed.entry(entry).or_insert_with(|| (0, path.into())).0 += 1;
    }

    /// Counts a skipped file by its extension.
    pub fn pass_file(&mut self, kind: Passed, key: &str) {
        self.pass(kind, &names::reported_extension(name_of(key)), key);
    }

    /// Reverts [`pass_file`](Self::pass_file).
    pub fn unpass_file(&mut self, kind: Passed, key: &str) {
        let entry = (kind, names::reported_extension(name_of(key)));
        if let Some((count, _)) = self.passed.get_mut(&entry) {
            *count -= 1;
        }
    }

    /// A source of this key; `None`, with a report, when the key is invalid.
    pub fn source(
        &mut self,
        key: &str,
        kind: SourceKind,
        (bytes, etag): (u64, String),
        place: &Location,
    ) -> Option<Source> {
        match VideoKey::new(key) {
            Ok(key) => Some(Source {
                key,
                kind,
                bytes,
                etag,
                crops: None,
            }),
            Err(error) => {
                self.unseen.add(place.to_string(), format!("{error}; rename it"));
                None
            }
        }
    }

    /// Adds a video file.
    pub fn video(&mut self, source: Source) {
        let folder = source
            .key
            .as_str()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        if !self.with_videos.contains(folder) {
            self.with_videos.insert(folder.into());
        }
        self.sources.push(source);
    }

    /// Adds or counts a file whose extension is ambiguous, by its first bytes; `None` when they cannot be read, which is reported when
    /// the file is labelled.
    pub fn doubtful(&mut self, look: HeadCheck, source: Source, head: Option<&[u8]>) {
        if head.is_none_or(|head| look.is_video(head)) {
            self.video(source)
        } else {
            self.pass_file(Passed::NoVideo, source.key.as_str())
        }
    }

    /// Adds the numbered images of a folder, with their total size and tag.
    pub fn images(&mut self, folder: &str, identity: (u64, String)) {
        self.images.insert(folder.into(), identity);
    }

    /// Removes the entries selected by `is_in`.
    pub fn forget(&mut self, is_in: impl Fn(&str) -> bool) {
        self.sources.retain(|source| !is_in(source.key.as_str()));
        self.images.retain(|folder, _| !is_in(folder));
    }

    /// The result for `searched`. The numbered images of `searched` itself are a video when there is no other: `own` is its parent and
    /// key, if it has a name.
    ///
    /// # Errors
    /// There is no video.
    pub fn finish(
        mut self,
        searched: &Location,
        own: Option<(Location, String)>,
    ) -> Result<Discovery, DiscoverError> {
        let mut root = searched.clone().without_slash();
        let mut at_root = None;
        for (folder, identity) in std::mem::take(&mut self.images) {
            if self.with_videos.contains(&folder) {
                let shown = if folder.is_empty() { ITSELF } else { &folder };
                self.pass(Passed::Thumbnails, "", shown);
            } else if folder.is_empty() {
                at_root = Some(identity);
            } else {
                let source = self.source(&folder, SourceKind::Images, identity, &root.join(&folder));
                self.sources.extend(source);
            }
        }
        match (at_root, own) {
            (None, _) => {}
            (Some(_), _) if !self.sources.is_empty() => self.pass(Passed::Images, "", ITSELF),
            (Some(identity), Some((above, key))) => {
                let source = self.source(&key, SourceKind::Images, identity, searched);
                self.sources.extend(source);
                root = above;
            }
            (Some(_), None) => {
                let reason = "its numbered images make no video, because it has no name; put them into a folder of their own";
                self.unseen.add(searched.to_string(), reason);
            }
        }
        self.sort(searched);
        let passed_over = self.passed_over();
        if self.sources.is_empty() {
            return Err(DiscoverError::Empty {
                path: searched.clone(),
                seen: seen(&passed_over, &self.unseen),
            });
        }
        Ok(Discovery {
            root,
            sources: self.sources,
            passed_over,
            unseen: self.unseen,
        })
    }

    /// Sorts the sources by key and drops duplicates: crops and numbered images of a video that is present itself, and crops of a
    /// video in several tar files, because none of them is complete.
    fn sort(&mut self, searched: &Location) {
        let order = |source: &Source| (source.kind == SourceKind::Images, source.crops.clone());
        self.sources
            .sort_by(|a, b| a.key.cmp(&b.key).then_with(|| order(a).cmp(&order(b))));
        let sources = std::mem::take(&mut self.sources);
        for alike in sources.chunk_by(|a, b| a.key == b.key) {
            let (first, rest) = (&alike[0], &alike[1..]);
            if rest.is_empty() || first.crops.is_none() {
                self.sources.push(first.clone());
            }
            let others = if first.crops.is_none() { rest } else { alike };
            for other in others.iter().filter(|_| !rest.is_empty()) {
                match &other.crops {
                    None => self.pass(Passed::Thumbnails, "", other.key.as_str()),
                    Some(crops) if first.crops.is_none() => self.pass(Passed::Crops, "", &crops.archive),
                    Some(crops) => {
                        let reason = format!(
                            "crops of `{}` lie in several tar files, which makes none of them whole; bring the crops of a \
                             video together in one",
                            other.key
                        );
                        self.unseen.add(searched.join(&crops.archive).to_string(), reason);
                    }
                }
            }
        }
    }

    /// The skipped entries by kind, the most frequent first.
    fn passed_over(&mut self) -> Vec<PassedOver> {
        let passed = std::mem::take(&mut self.passed).into_iter();
        let mut passed: Vec<PassedOver> = passed
            .filter(|(_, (count, _))| *count > 0)
            .map(|((kind, name), (count, first))| PassedOver {
                kind,
                name,
                count,
                first,
            })
            .collect();
        passed.sort_by(|a, b| a.kind.cmp(&b.kind).then(b.count.cmp(&a.count)));
        passed
    }
}

fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Describes an input without videos.
fn seen(passed_over: &[PassedOver], unseen: &Unseen) -> String {
    let passed = PassedOver::list(passed_over).map(|list| format!("what is there was passed over: {list}"));
    let first = unseen.first.first();
    let unseen = first.map(|first| match unseen.count {
        1 => format!("could not be looked at: {first}"),
        count => format!("{count} places could not be looked at, the first: {first}"),
    });
    let seen: Vec<String> = passed.into_iter().chain(unseen).collect();
    if seen.is_empty() {
        "there is no other file either".into()
    } else {
        seen.join("; ")
    }
}
