//! Which videos are held out: whole videos with all their recordings, never frames.

use super::error::TrainError;
use crate::spec::{SplitBy, TrainJob};
use crate::train::annotations::{self, AnnotationError, Split};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Several annotated people of one video, in ABAW's names.
const PEOPLE: [&str; 3] = ["_left", "_right", "_main"];

/// The name of a video without folders and ending: what its annotations are called.
pub fn stem(video: &str) -> &str {
    let name = video.rsplit('/').next().unwrap_or(video);
    match name.rsplit_once('.') {
        // An ending is short; `12-24-1920x1080` and `video.1` have none.
        Some((stem, ending)) if !stem.is_empty() && ending.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            stem
        }
        _ => name,
    }
}

/// The footage that recordings have in common: `a_left` and `a_right`, `a.mp4` and `a.webm`.
fn footage(video: &str) -> &str {
    let stem = stem(video);
    PEOPLE
        .iter()
        .find_map(|person| stem.strip_suffix(person))
        .unwrap_or(stem)
}

/// For each video, whether it is held out.
///
/// # Errors
/// [`TrainError::Leak`] when recordings of the same footage would stand on both sides; [`TrainError::Corpus`] when one side
/// would be empty.
pub fn held_out(videos: &[String], job: &TrainJob) -> Result<Vec<bool>, TrainError> {
    let held_out = match job.validation.by {
        SplitBy::Share => by_share(videos, job.validation.share),
        SplitBy::Videos => listed(videos, &job.validation.videos)?,
        SplitBy::Annotations => match &job.data.annotations {
            Some(folder) => annotated(videos, folder)?,
            None => vec![false; videos.len()],
        },
    };
    let mut sides: BTreeMap<&str, [Option<&str>; 2]> = BTreeMap::new();
    for (video, held_out) in videos.iter().zip(&held_out) {
        let sides = sides.entry(footage(video)).or_default();
        sides[usize::from(*held_out)] = Some(video);
        if let [Some(trained), Some(held_out)] = sides {
            return Err(TrainError::Leak(format!(
                "`{held_out}` is held out and `{trained}` is trained on, and both are recordings of `{}`; put them on one side",
                footage(video)
            )));
        }
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
    Ok(held_out)
}

/// Those of the smallest hashes, at least one and not all.
fn by_share(videos: &[String], share: f64) -> Vec<bool> {
    let footages: BTreeSet<&str> = videos.iter().map(|video| footage(video)).collect();
    let mut order: Vec<(Vec<u8>, &str)> = footages
        .into_iter()
        .map(|footage| (Sha256::digest(footage).to_vec(), footage))
        .collect();
    order.sort();
    let most = order.len().saturating_sub(1);
    let count = ((order.len() as f64 * share).round() as usize).clamp(1.min(most), most);
    let chosen: BTreeSet<&str> = order.iter().take(count).map(|(_, footage)| *footage).collect();
    videos
        .iter()
        .map(|video| chosen.contains(footage(video)))
        .collect()
}

fn listed(videos: &[String], names: &[String]) -> Result<Vec<bool>, TrainError> {
    let is = |video: &str, name: &str| video == name || stem(video) == name;
    for name in names {
        if !videos.iter().any(|video| is(video, name)) {
            let known: Vec<&str> = videos.iter().take(10).map(String::as_str).collect();
            return Err(TrainError::Corpus(format!(
                "`validation.videos` names `{name}`, of which there is no face with a label; the videos are {}{}",
                known.join(", "),
                if videos.len() > known.len() { ", …" } else { "" }
            )));
        }
    }
    Ok(videos
        .iter()
        .map(|video| names.iter().any(|name| is(video, name)))
        .collect())
}

/// As the folders of the annotations say. What they do not name is trained on.
fn annotated(videos: &[String], folder: &Path) -> Result<Vec<bool>, TrainError> {
    // `a_left` in a folder for validation holds out the faces of `a`.
    let footages = |split| -> Result<BTreeSet<String>, TrainError> {
        let people = match annotations::read(folder, split) {
            Err(AnnotationError::None { .. }) => return Ok(BTreeSet::new()),
            other => other?.persons,
        };
        Ok(people.keys().map(|name| footage(name).to_owned()).collect())
    };
    let (train, validation) = (footages(Split::Train)?, footages(Split::Validation)?);
    if let Some(both) = train.intersection(&validation).next() {
        return Err(TrainError::Leak(format!(
            "`{both}` is annotated in folders for training and for validation below {}; train on the tasks one by one, or split by \
             another rule of [validation]",
            folder.display()
        )));
    }
    let held_out = videos.iter().map(|video| validation.contains(footage(video)));
    Ok(held_out.collect())
}
