//! File names for videos: safe in any folder, and no two the same.

use affectmill_base::sha256_hex;
use std::collections::{BTreeMap, HashMap};

/// Bytes of a name before its ending; file systems take 255 in all.
const LONGEST: usize = 160;

/// A name for each key: its path without the last ending, `/` and what is odd replaced by `_`. Names that several videos would
/// have, be it in another case, carry a part of the hash of the key; all of it where that is not enough.
pub(super) fn of_videos<'a>(keys: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    let mut names: BTreeMap<&str, String> = keys.map(|key| (key, plain(key))).collect();
    for digits in [8, 64] {
        let mut claims: HashMap<String, u32> = HashMap::new();
        for name in names.values() {
            *claims.entry(name.to_lowercase()).or_default() += 1;
        }
        for (key, name) in &mut names {
            if claims[&name.to_lowercase()] > 1 {
                *name = format!("{}-{:.digits$}", plain(key), sha256_hex(key.as_bytes()));
            }
        }
    }
    names
}

fn plain(key: &str) -> String {
    let (folder, file) = key
        .rsplit_once('/')
        .map_or(("", key), |(folder, file)| (folder, file));
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let stem = if stem.is_empty() { file } else { stem };
    let path = if folder.is_empty() {
        stem.to_owned()
    } else {
        format!("{folder}/{stem}")
    };
    let is_safe = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let mut name: String = path.chars().map(|c| if is_safe(c) { c } else { '_' }).collect();
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    let mut end = name.len().min(LONGEST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_no_two_the_same() {
        let long = "x".repeat(400);
        let keys = [
            "clip.mp4",
            "a/b.mp4",
            "a_b.mp4",
            "A_B.mov",
            "a/b.avi",
            "日本/ü – 1.mp4",
            "..hidden/x",
            ".mp4",
            "-rf.mp4",
            "folder.d/00 1",
            "new\nline,\"quoted\".mp4",
            &long,
        ];
        let names = of_videos(keys.into_iter());
        assert_eq!(names["clip.mp4"], "clip");
        assert_eq!(names["日本/ü – 1.mp4"], "日本_ü___1");
        assert_eq!(names["-rf.mp4"], "_rf");
        let mut seen = std::collections::BTreeSet::new();
        for name in names.values() {
            assert!(seen.insert(name.to_lowercase()), "{name} twice");
            assert!(
                name.len() <= 180 && !name.contains(['/', '\n', ',', '"', ' ']),
                "{name}"
            );
            assert!(!name.is_empty() && !name.starts_with(['.', '-']), "{name}");
        }
        // The same whatever else is exported, where there is no other claim.
        assert_eq!(of_videos(["a/b.mp4"].into_iter())["a/b.mp4"], "a_b");
    }

    #[test]
    fn a_name_that_looks_like_a_distinguished_one_is_told_apart_too() {
        let taken = format!("a_b-{:.8}.mp4", sha256_hex(b"a/b.mp4"));
        let names = of_videos(["a/b.mp4", "a_b.mp4", taken.as_str()].into_iter());
        let set: std::collections::BTreeSet<&String> = names.values().collect();
        assert_eq!(set.len(), 3, "{names:?}");
    }
}
