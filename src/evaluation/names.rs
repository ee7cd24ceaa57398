//! Videos by the names that people give them: in annotations, in a list of held-out videos.
//!
//! Names are compared in Unicode NFC. The same rule holds for `evaluate` and `train`.

use affectmill_base::nfc;
use std::collections::BTreeMap;

/// Videos by the last part of their key, with and without its ending.
pub struct Names<'a> {
    /// With each video whether what was left out is only perhaps an ending.
    named: BTreeMap<String, Vec<(bool, &'a str)>>,
}

impl<'a> Names<'a> {
    /// Of some keys, each there once.
    pub fn of(videos: impl Iterator<Item = &'a str>) -> Self {
        let mut named: BTreeMap<String, Vec<(bool, &str)>> = BTreeMap::new();
        for video in videos {
            let file = nfc(split(video).1);
            let stem = stem(&file);
            if let Some((perhaps, _)) = stem.rsplit_once('.') {
                named.entry(perhaps.into()).or_default().push((true, video));
            }
            if *stem != *file {
                named.entry(stem.into()).or_default().push((false, video));
            }
            named.entry(file.into_owned()).or_default().push((false, video));
        }
        Self { named }
    }

    /// The videos that a name fits best. A name with folders (`subject1/video`) fits a video that has at least the nearest one of
    /// them, or none at all.
    pub fn fit(&self, name: &str) -> Vec<&'a str> {
        let name = nfc(name);
        let (folder, last) = split(&name);
        let candidates = self.named.get(last).map_or(&[][..], Vec::as_slice);
        let likeness = |&(perhaps, video): &(bool, &str)| (!perhaps, shared(&nfc(split(video).0), folder));
        let most = candidates.iter().map(likeness).max().unwrap_or_default();
        let best = candidates.iter().filter(|candidate| likeness(candidate) == most);
        let best = best.map(|(_, video)| *video);
        let apart = most.1 == 0 && !folder.is_empty();
        best.filter(|video| !apart || split(video).0.is_empty()).collect()
    }
}

/// A key's folder, empty where it has none, and its last part.
pub fn split(video: &str) -> (&str, &str) {
    video.rsplit_once('/').unwrap_or(("", video))
}

/// The name of a video without folders and ending: what its annotations are called. An ending has a letter and is short:
/// `12-24-1920x1080` and `video.1` have none.
pub fn stem(video: &str) -> &str {
    let name = split(video).1;
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && is_ending(ending) => stem,
        _ => name,
    }
}

fn is_ending(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric());
    plain && text.len() <= MAX_ENDING && text.contains(|c: char| c.is_ascii_alphabetic())
}

/// Characters of the longest ending of a video's name (`mpegts`).
const MAX_ENDING: usize = 6;

/// How many folders two paths have in common at their ends.
fn shared(one: &str, other: &str) -> usize {
    let parts = one.rsplit('/').zip(other.rsplit('/'));
    parts.take_while(|(a, b)| a == b && !a.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_by_its_end_its_folders_and_its_composed_form() {
        let keys = [
            "s1/video.mp4",
            "s2/video.mp4",
            "a/s1/other.mp4",
            "cafe\u{301}.mp4",
            "x.1",
            "x",
            "raw.264",
        ];
        let names = Names::of(keys.into_iter());
        assert_eq!(names.fit("video"), ["s1/video.mp4", "s2/video.mp4"]);
        assert_eq!(names.fit("s2/video"), ["s2/video.mp4"]);
        assert_eq!(names.fit("VA_Set/s2/video.mp4"), ["s2/video.mp4"]);
        assert_eq!(names.fit("s3/video"), [""; 0]);
        assert_eq!(names.fit("s2/other"), [""; 0]);
        assert_eq!(names.fit("s2/x"), ["x"]);
        assert_eq!(names.fit("other"), ["a/s1/other.mp4"]);
        assert_eq!(names.fit("caf\u{e9}"), ["cafe\u{301}.mp4"]);
        assert_eq!(names.fit("x.1"), ["x.1"]);
        assert_eq!(names.fit("x"), ["x"]);
        assert_eq!(names.fit("raw"), ["raw.264"]);
    }
}
