//! What a search of the input found beside videos: what it passed over, by kind, and what it could not look at.

use super::RECORD_VERSION;
use affectmill_base::{Location, escaped};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Unseen places that are listed; of the others the number is told.
const LISTED: usize = 20;
/// Kinds that a sentence lists.
const IN_WORDS: usize = 10;

/// `input.json`: what the last run's search of the input found beside videos. Written anew by every run.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct InputRecord {
    /// Format version.
    pub version: u32,
    /// `[input] uri` of that run.
    #[schemars(with = "String")]
    pub uri: Location,
    /// What was passed over.
    pub passed_over: Vec<PassedOver>,
    /// What could not be looked at.
    pub unseen: Unseen,
}

impl InputRecord {
    /// The record of a search.
    pub fn new(uri: Location, passed_over: Vec<PassedOver>, unseen: Unseen) -> Self {
        Self {
            version: RECORD_VERSION,
            uri,
            passed_over,
            unseen,
        }
    }
}

/// Why something is no video of the job. The order is that in which kinds are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Passed {
    /// A file whose extension is one of videos, and is not in `[input] extensions`.
    Video,
    /// A file whose extension has two meanings and whose first bytes are no video's.
    NoVideo,
    /// A tar file of crops of a video that is there itself.
    Crops,
    /// A folder of numbered images that lie beside videos.
    Thumbnails,
    /// The numbered images of the input folder itself, beside folders with videos.
    Images,
    /// A pipe, a socket or a device.
    Special,
    /// A symbolic link to a folder above it, which is searched anyway.
    Loop,
    /// A folder of deleted files.
    Deleted,
    /// A folder of a NAS's thumbnails.
    Preview,
    /// A folder of earlier states of the files.
    Snapshot,
    /// Another folder that a system leaves behind.
    System,
    /// A label set of affectmill.
    Labels,
    /// A file or folder whose name begins with `.`.
    Hidden,
    /// A file of another extension.
    Extension,
}

/// Things of one kind that a search passed over. What lies in a folder that was passed over is not counted.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct PassedOver {
    /// The kind.
    pub kind: Passed,
    /// Of files the extension in lower case (empty for none, `*` for several rare ones), of folders that systems leave behind
    /// the name; else empty.
    pub name: String,
    /// How many.
    pub count: u64,
    /// The first one, relative to what was searched.
    pub first: String,
}

impl PassedOver {
    /// Those of a search as one sentence's list; `None` when there are none.
    pub fn list(all: &[Self]) -> Option<String> {
        let mut words: Vec<String> = all.iter().take(IN_WORDS).map(Self::to_string).collect();
        if all.len() > IN_WORDS {
            words.push(format!("{} other kinds", all.len() - IN_WORDS));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, name, first) = (self.count, &*escaped(&self.name), escaped(&self.first));
        let many = |one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {more}"),
        };
        let files = || match name {
            "" => many("file without extension", "files without extension"),
            "*" => many("file of another extension", "files of other extensions"),
            name => format!("{} of .{name}", many("file", "files")),
        };
        let folders = |what: &str| format!("{} of {what} ({name})", many("folder", "folders"));
        match self.kind {
            Passed::Video => write!(f, "{} (videos that [input] extensions does not name)", files()),
            Passed::NoVideo => write!(f, "{} without a video in it ({first})", files()),
            Passed::Crops => {
                let what = many("tar file", "tar files");
                write!(f, "{what} of crops of a video that is there itself ({first})")
            }
            Passed::Thumbnails => {
                let what = many("folder", "folders");
                write!(
                    f,
                    "{what} of numbered images beside videos, taken for thumbnails ({first})"
                )
            }
            Passed::Images => write!(f, "the numbered images beside the folders with videos ({first})"),
            Passed::Special => {
                let what = many("pipe, socket or device", "pipes, sockets or devices");
                write!(f, "{what} ({first})")
            }
            Passed::Loop => {
                let what = many("link to a folder above it", "links to a folder above them");
                write!(f, "{what} ({first})")
            }
            Passed::Deleted => f.write_str(&folders("deleted files")),
            Passed::Preview => f.write_str(&folders("a NAS's thumbnails")),
            Passed::Snapshot => f.write_str(&folders("snapshots")),
            Passed::System => f.write_str(&folders("the system")),
            Passed::Labels => write!(f, "{} of affectmill", many("label set", "label sets")),
            Passed::Hidden => f.write_str(&many("hidden name", "hidden names")),
            Passed::Extension => f.write_str(&files()),
        }
    }
}

/// What a search could not look at, though it may hold videos: a folder that may not be listed, a name that is not UTF-8, an
/// entry that cannot be read, a link to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Unseen {
    /// How many places.
    pub count: u64,
    /// The first of them, at most 20.
    pub first: Vec<UnseenPlace>,
}

/// A place that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct UnseenPlace {
    /// The file or folder; what is not UTF-8 in its name is replaced.
    pub path: String,
    /// Why, and what to do.
    pub reason: String,
}

impl Unseen {
    /// Adds a place.
    pub fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push(UnseenPlace {
                path: path.into(),
                reason: reason.into(),
            });
        }
    }

    /// Whether everything was seen.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Places that are not listed.
    pub fn more(&self) -> u64 {
        self.count - self.first.len() as u64
    }
}

impl fmt::Display for UnseenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", escaped(&self.path), escaped(&self.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(kind: Passed, name: &str, count: u64) -> PassedOver {
        PassedOver {
            kind,
            name: name.into(),
            count,
            first: "a/b".into(),
        }
    }

    #[test]
    fn what_was_passed_over_is_told_by_kind() {
        let all = [
            passed(Passed::Preview, "@eaDir", 3),
            passed(Passed::Extension, "txt", 12),
            passed(Passed::Extension, "", 1),
        ];
        let expected = "3 folders of a NAS's thumbnails (@eaDir), 12 files of .txt, 1 file without extension";
        assert_eq!(PassedOver::list(&all).unwrap(), expected);
        assert_eq!(PassedOver::list(&[]), None);
        let many: Vec<_> = (0..13)
            .map(|n| passed(Passed::Extension, &format!("x{n}"), 1))
            .collect();
        assert!(
            PassedOver::list(&many)
                .unwrap()
                .ends_with("1 file of .x9, 3 other kinds")
        );
    }

    #[test]
    fn of_many_unseen_places_the_first_are_listed() {
        let mut unseen = Unseen::default();
        (0..25).for_each(|n| unseen.add(n.to_string(), "why"));
        assert_eq!((unseen.count, unseen.first.len(), unseen.more()), (25, 20, 5));
    }
}
