//! Which videos are held out: whole videos with all their recordings, never frames.

use super::error::TrainError;
use affectmill_base::nfc;
use affectmill_evaluation::annotations::{Annotations, Set};
use affectmill_evaluation::names::{Names, split, stem};
use affectmill_spec::{SplitBy, TrainJob};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Several annotated people of one video, in ABAW's names.
const PEOPLE: [&str; 3] = ["_left", "_right", "_main"];

/// A name without the mark of one of several people.
fn crowd(name: &str) -> &str {
    PEOPLE
        .iter()
        .find_map(|person| name.strip_suffix(person))
        .unwrap_or(name)
}

/// For each video the footage that it is a recording of: `a_left` and `a_right`, `a.mp4` and `a.webm` are of `a`. Where one
/// folder is the end of the other, they are the same: images `a` and crops of `videos/a.mp4`; `s1/a` and `s2/a` are two.
fn footages(videos: &[String]) -> Vec<String> {
    let named = |video: &String| {
        let video = nfc(video);
        (crowd(stem(&video)).to_owned(), split(&video).0.to_owned())
    };
    let named: Vec<(String, String)> = videos.iter().map(named).collect();
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, folder) in &named {
        folders.entry(name).or_default().insert(folder);
    }
    let footage = |(name, folder): &(String, String)| {
        let ends = |end: &&&str| end.is_empty() || folder == *end || folder.ends_with(&format!("/{end}"));
        let shortest = folders[&**name].iter().filter(ends).min_by_key(|end| end.len());
        format!("{}/{name}", shortest.unwrap_or(&""))
            .trim_start_matches('/')
            .to_owned()
    };
    named.iter().map(footage).collect()
}

/// Which videos are held out.
pub struct Sides {
    /// For each video, whether it is.
    pub held_out: Vec<bool>,
    /// Videos of one name on both sides, which are taken for different footage.
    pub namesakes: Option<[String; 2]>,
}

/// Chooses the videos that are held out.
///
/// # Errors
/// [`TrainError::Leak`] when recordings of the same footage would stand on both sides; [`TrainError::Corpus`] when one side
/// would be empty.
pub fn held_out(videos: &[String], people: &Annotations, job: &TrainJob) -> Result<Sides, TrainError> {
    let footages = footages(videos);
    let held_out = match job.validation.by {
        SplitBy::Share => by_share(&footages, job.validation.share),
        SplitBy::Videos => listed(videos, &job.validation.videos)?,
        SplitBy::Annotations => annotated(&footages, people)?,
    };
    let mut sides: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    let mut names: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    for ((video, footage), held_out) in videos.iter().zip(&footages).zip(&held_out) {
        let sides = sides.entry(footage).or_default();
        sides[usize::from(*held_out)] = Some(video);
        if let [Some(trained), Some(held_out)] = sides {
            return Err(TrainError::Leak(format!(
                "`{held_out}` is held out and `{trained}` is trained on, and both are recordings of `{footage}`; put them on one side",
            )));
        }
        names.entry(split(footage).1).or_default()[usize::from(*held_out)] = Some(video);
    }
    for (side, what) in [(true, "held out"), (false, "trained on")] {
        if !held_out.contains(&side) {
            return Err(TrainError::Corpus(format!(
                "no video is {what}: {} of {} {} there; change [validation], or add videos of other people",
                held_out.iter().filter(|held_out| **held_out != side).count(),
                videos.len(),
                if side { "are for training" } else { "are held out" }
            )));
        }
    }
    let namesakes = names
        .into_values()
        .find_map(|[trained, held_out]| Some([trained?.into(), held_out?.into()]));
    Ok(Sides { held_out, namesakes })
}

/// Those of the smallest hashes, at least one and not all.
fn by_share(footages: &[String], share: f64) -> Vec<bool> {
    let all: BTreeSet<&String> = footages.iter().collect();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for footage in &all {
        *named.entry(split(footage).1).or_default() += 1;
    }
    // Where the folders lie does not matter, unless they alone tell footage apart.
    let hashed = |footage: &String| match split(footage).1 {
        name if named[name] == 1 => Sha256::digest(name).to_vec(),
        _ => Sha256::digest(footage).to_vec(),
    };
    let mut order: Vec<(Vec<u8>, &String)> = all.iter().map(|footage| (hashed(footage), *footage)).collect();
    order.sort();
    let most = order.len().saturating_sub(1);
    let count = ((order.len() as f64 * share).round() as usize).clamp(1.min(most), most);
    let chosen: BTreeSet<&String> = order.iter().take(count).map(|(_, footage)| *footage).collect();
    footages.iter().map(|footage| chosen.contains(footage)).collect()
}

fn listed(videos: &[String], names: &[String]) -> Result<Vec<bool>, TrainError> {
    let known = Names::of(videos.iter().map(String::as_str));
    let mut held_out: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        let fit = known.fit(name);
        held_out.extend(&fit);
        if fit.is_empty() {
            let known: Vec<&str> = videos.iter().take(10).map(String::as_str).collect();
            return Err(TrainError::Corpus(format!(
                "`validation.videos` names `{name}`, of which there is no face with a label; the videos are {}{}",
                known.join(", "),
                if videos.len() > known.len() { ", …" } else { "" }
            )));
        }
    }
    Ok(videos.iter().map(|video| held_out.contains(&**video)).collect())
}

/// As the sets of the annotations say: those of the validation set. What no set has is trained on.
fn annotated(footages: &[String], people: &Annotations) -> Result<Vec<bool>, TrainError> {
    let all: BTreeSet<&str> = footages.iter().map(String::as_str).collect();
    let names = Names::of(all.into_iter());
    // `a_left` in a folder for validation holds out the faces of `a`.
    let mut sets: BTreeMap<&str, BTreeSet<Set>> = BTreeMap::new();
    for (name, person) in &people.persons {
        for footage in names.fit(crowd(name)) {
            let sets = sets.entry(footage).or_default();
            sets.extend(&person.sets);
            if sets.len() > 1 {
                return Err(TrainError::Leak(format!(
                    "`{footage}` is annotated in the train set and in the validation set; train on the tasks one by one, or split by \
                     another rule of [validation]",
                )));
            }
        }
    }
    let validation = |footage: &String| {
        sets.get(&**footage)
            .is_some_and(|sets| sets.contains(&Set::Validation))
    };
    Ok(footages.iter().map(validation).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footage_is_told_by_name_and_by_folders_where_they_differ() {
        let of = |videos: &[&str]| footages(&videos.iter().map(|video| (*video).into()).collect::<Vec<_>>());
        assert_eq!(of(&["a_left", "a_right", "a.webm", "videos/a.mp4"]), ["a"; 4]);
        assert_eq!(
            of(&["s1/video.mp4", "s2/video.mov", "s1/video_main"]),
            ["s1/video", "s2/video", "s1/video"]
        );
        // Either may be a copy of the one without a folder.
        assert_eq!(of(&["s1/video", "s2/video", "video"]), ["video"; 3]);
        assert_eq!(
            of(&["x/s1/video", "s1/video", "xs1/video"]),
            ["s1/video", "s1/video", "xs1/video"]
        );
        assert_eq!(of(&["cafe\u{301}.mp4", "caf\u{e9}_left"]), ["caf\u{e9}"; 2]);
    }
}
