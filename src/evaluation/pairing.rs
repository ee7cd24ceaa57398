//! Which row of the labels speaks of which annotated person in which frame.
//!
//! Flows in: labels, and annotations or the labels of another model. Flows out: [`Pair`]s, and an account of every annotated frame that
//! gave none. Nothing is matched by guess: where the person cannot be told, the frame is left out and counted.

mod faces;

use super::annotations::{Annotations, Person};
use super::labels::{LabelError, Labels, Part};
use super::metrics::{Prediction, Truth};
use super::names::{Names, split};
use affectmill_base::{ShardId, Task};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Which of several faces is the annotated person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The largest face of each frame.
    #[default]
    Largest,
    /// The faces of the video's longest track.
    LongestTrack,
}

/// What stands in for a frame whose face was not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Nothing: the frame is left out and counted.
    #[default]
    Skip,
    /// The person's last label before it, as ABAW submissions do; nothing before the first.
    Repeat,
}

/// How persons are told and gaps are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Which face.
    pub person: Who,
    /// Which label of a frame without a face.
    pub missing: Missing,
}

/// An annotated face and what was said of it.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Key of the video.
    pub video: &'a str,
    /// Name of the annotated person.
    pub person: &'a str,
    /// Track of the face.
    pub track: Option<i32>,
    /// What is true.
    pub truth: &'a Truth,
    /// What was said.
    pub prediction: &'a Prediction,
}

/// What became of the annotated frames of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Annotated, marks of invalid frames included; the sum of all below save `repeated` and `several_faces`.
    pub annotated: u64,
    /// Marked invalid by the annotators.
    pub invalid: u64,
    /// Compared.
    pub scored: u64,
    /// No row: the frame was not sampled, or the video ends before it.
    pub no_row: u64,
    /// A row without the person's face, or of a frame that could not be decoded.
    pub no_face: u64,
    /// Several persons are annotated and which one is seen cannot be told; of another label set: the boxes differ.
    pub ambiguous: u64,
    /// The label holds no number.
    pub no_value: u64,
    /// Of those scored: with the label of an earlier frame.
    pub repeated: u64,
    /// Of those scored: in frames with several faces, of which the rule chose one.
    pub several_faces: u64,
}

/// Everything about a comparison beside its pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// What became of annotated frames, by task in output order.
    pub accounts: [Account; Task::ALL.len()],
    /// Annotated persons whose video has no labels.
    pub without_labels: Vec<String>,
    /// Labelled videos that nobody annotated.
    pub without_annotations: Vec<String>,
}

/// Why labels and annotations cannot be brought together.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Labels cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// A name fits several videos.
    #[error(
        "annotations `{name}` fit several labelled videos: {}; put each video's annotations into a folder called as the video's own, \
         or evaluate a label set in which one video has that name",
        videos.join(", ")
    )]
    Several {
        /// Name of the annotations.
        name: String,
        /// Keys of the videos.
        videos: Vec<String>,
    },
    /// Several persons' annotations fit a video, and none by its folder.
    #[error("annotations `{}` and `{}` both fit the labelled video `{video}`; leave one of them out", names[0], names[1])]
    Both {
        /// Names of the annotations.
        names: [String; 2],
        /// Key of the video.
        video: String,
    },
    /// No name fits.
    #[error(
        "no annotation file matches a labelled video by name: annotated are {}; labelled are {}",
        few(annotated),
        few(labelled)
    )]
    NoName {
        /// Names of the annotations.
        annotated: Vec<String>,
        /// Keys of the videos.
        labelled: Vec<String>,
    },
}

fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len() {
        0 => "none".into(),
        n if n > MOST_NAMES => format!("{shown}, … ({n} in all)"),
        _ => shown,
    }
}

/// Names that an error shows.
const MOST_NAMES: usize = 3;

/// Which of the two largest faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The suffixes of annotations of one of several persons, and where that person is.
const SUFFIXES: [(&str, Option<Side>); 3] = [
    ("_left", Some(Side::Left)),
    ("_right", Some(Side::Right)),
    ("_main", None),
];

/// An annotated person and its video.
struct Match<'a> {
    name: &'a str,
    person: &'a Person,
    side: Option<Side>,
}

/// What labels are held against.
#[derive(Clone, Copy)]
pub enum Reference<'a> {
    /// What people annotated, and how persons are told and gaps are filled.
    Annotations(&'a Annotations, Rules),
    /// What a model said in another label set, or another one in the same: its expression, its action units above logit 0.
    Labels(&'a Labels<'a>),
}

impl Reference<'_> {
    /// Whether it speaks of a task.
    pub fn has(&self, task: Task) -> bool {
        match self {
            Self::Annotations(annotations, _) => annotations.persons.values().any(|person| person.has(task)),
            Self::Labels(labels) => labels.model().tasks().contains(&task),
        }
    }

    /// Brings labels and what they are held against together.
    ///
    /// # Errors
    /// [`PairError`].
    pub fn pair(
        &self,
        labels: &Labels<'_>,
        tasks: &[Task],
        take: &mut dyn FnMut(Pair<'_>),
    ) -> Result<Ledger, PairError> {
        match self {
            Self::Annotations(annotations, rules) => {
                with_annotations(labels, annotations, tasks, *rules, take)
            }
            Self::Labels(reference) => faces::with_labels(labels, reference, tasks, take),
        }
    }
}

fn with_annotations(
    labels: &Labels<'_>,
    annotations: &Annotations,
    tasks: &[Task],
    rules: Rules,
    take: &mut dyn FnMut(Pair<'_>),
) -> Result<Ledger, PairError> {
    let videos = labels.videos();
    let mut ledger = Ledger::default();
    let mut matches: BTreeMap<&str, Vec<Match<'_>>> = BTreeMap::new();
    let names = Names::of(videos.keys().copied());
    for (name, person) in &annotations.persons {
        match find(name, &names)? {
            Some((video, side)) => {
                let others = matches.entry(video).or_default();
                let same = |other: &&Match| {
                    let task = |task: &Task| person.has(*task) && other.person.has(*task);
                    split(other.name).1 == split(name).1 && Task::ALL.iter().any(task)
                };
                if let Some(other) = others.iter().find(same) {
                    return Err(PairError::Both {
                        names: [other.name.into(), name.into()],
                        video: video.into(),
                    });
                }
                others.push(Match { name, person, side });
            }
            None => ledger.without_labels.push(name.clone()),
        }
    }
    let bare = videos.keys().filter(|video| !matches.contains_key(*video));
    ledger.without_annotations = bare.map(|video| (*video).into()).collect();
    if matches.is_empty() {
        return Err(PairError::NoName {
            annotated: ledger.without_labels,
            labelled: ledger.without_annotations,
        });
    }
    let shards: BTreeSet<&ShardId> = matches.keys().map(|video| videos[video]).collect();
    for shard in shards {
        let part = labels.part(shard, tasks)?;
        for (video, rows) in &part.videos {
            for found in matches.get(video.as_str()).into_iter().flatten() {
                let walk = Walk {
                    part: &part,
                    rows: rows.clone(),
                    choice: Choice::of(found, rules.person, &part, rows.clone()),
                    last: None,
                };
                let mut take = |track, truth: &Truth, prediction: &Prediction| {
                    take(Pair {
                        video,
                        person: found.name,
                        track,
                        truth,
                        prediction,
                    });
                };
                follow(
                    walk,
                    found.person,
                    tasks,
                    rules.missing,
                    &mut ledger.accounts,
                    &mut take,
                );
            }
        }
    }
    Ok(ledger)
}

/// Takes what is said of one person in each annotated frame, and enters what became of the frame.
fn follow(
    mut walk: Walk<'_>,
    person: &Person,
    tasks: &[Task],
    missing: Missing,
    accounts: &mut [Account],
    take: &mut dyn FnMut(Option<i32>, &Truth, &Prediction),
) {
    for (account, invalid) in accounts.iter_mut().zip(person.invalid) {
        account.annotated += invalid;
        account.invalid += invalid;
    }
    for (frame, truth) in &person.frames {
        let seen = walk.at(*frame);
        let (row, repeated) = match (seen, missing) {
            (Seen::Row { row, .. }, _) => (Some(row), false),
            (Seen::NoRow | Seen::NoFace, Missing::Repeat) => (walk.last, walk.last.is_some()),
            _ => (None, false),
        };
        let prediction = row.map(|row| walk.part.prediction(row)).unwrap_or_default();
        for task in tasks.iter().filter(|task| truth.has(**task)) {
            let said = row.map(|_| prediction.has(*task));
            accounts[*task as usize].enter(seen, said, repeated);
        }
        if let Some(row) = row {
            take(walk.part.track(row), truth, &prediction);
        }
    }
}

/// The video of an annotated person: of that very name, or of the name without `_left`, `_right`, `_main`.
fn find<'a>(name: &str, names: &Names<'a>) -> Result<Option<(&'a str, Option<Side>)>, PairError> {
    let whole = std::iter::once((name, None));
    let stems = SUFFIXES
        .iter()
        .filter_map(|(suffix, side)| Some((name.strip_suffix(suffix)?, *side)));
    for (stem, side) in whole.chain(stems) {
        return match names.fit(stem)[..] {
            [] => continue,
            [video] => Ok(Some((video, side))),
            ref videos => Err(PairError::Several {
                name: name.into(),
                videos: videos.iter().map(|video| (*video).into()).collect(),
            }),
        };
    }
    Ok(None)
}

impl Account {
    /// Enters an annotated frame. `said`: whether the label that is taken for it holds numbers; none where none is taken.
    fn enter(&mut self, seen: Seen, said: Option<bool>, repeated: bool) {
        self.annotated += 1;
        *match (said, seen) {
            (Some(true), _) => &mut self.scored,
            (Some(false), _) => &mut self.no_value,
            (None, Seen::Ambiguous) => &mut self.ambiguous,
            (None, Seen::NoRow) => &mut self.no_row,
            (None, _) => &mut self.no_face,
        } += 1;
        if said == Some(true) {
            self.repeated += u64::from(repeated);
            self.several_faces += u64::from(matches!(seen, Seen::Row { several: true, .. }));
        }
    }
}

/// How a person is told among the faces of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Largest,
    Track(Option<i32>),
    Side(Side),
}

impl Choice {
    fn of(found: &Match<'_>, person: Who, part: &Part, rows: Range<usize>) -> Self {
        match (found.side, person) {
            (Some(side), _) => Self::Side(side),
            (None, Who::Largest) => Self::Largest,
            (None, Who::LongestTrack) => {
                let mut lengths: BTreeMap<Option<i32>, u64> = BTreeMap::new();
                for row in rows.filter(|row| part.face(*row).is_some()) {
                    *lengths.entry(part.track(row)).or_default() += 1;
                }
                // Of equally long ones the first.
                let longest = lengths.iter().rev().max_by_key(|(_, length)| **length);
                Self::Track(longest.and_then(|(track, _)| *track))
            }
        }
    }
}

/// What a frame shows of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Row { row: usize, several: bool },
    NoRow,
    NoFace,
    Ambiguous,
}

/// A walk over the rows of a video, frame by frame, with one person in view.
struct Walk<'a> {
    part: &'a Part,
    /// What is still ahead.
    rows: Range<usize>,
    choice: Choice,
    /// The last row of the person.
    last: Option<usize>,
}

impl Walk<'_> {
    /// Goes on to a frame; frames come in order.
    fn at(&mut self, frame: u64) -> Seen {
        let mut seen = Seen::NoRow;
        while !self.rows.is_empty() && self.part.frame(self.rows.start) <= frame {
            let here = self.part.frame(self.rows.start);
            let same = self.rows.clone().take_while(|row| self.part.frame(*row) == here);
            let group = self.rows.start..self.rows.start + same.count();
            self.rows.start = group.end;
            let shown = self.choose(group);
            if let Seen::Row { row, .. } = shown {
                self.last = Some(row);
            }
            if here == frame {
                seen = shown;
            }
        }
        seen
    }

    /// The person among the rows of one frame.
    fn choose(&self, group: Range<usize>) -> Seen {
        let mut faces: Vec<usize> = group.filter(|row| self.part.face(*row).is_some()).collect();
        let several = faces.len() > 1;
        // The largest first.
        faces.sort_by_key(|row| self.part.face(*row));
        let row = match (self.choice, &faces[..]) {
            (_, []) => None,
            (Choice::Largest, [largest, ..]) => Some(*largest),
            (Choice::Track(track), faces) => faces.iter().copied().find(|row| self.part.track(*row) == track),
            (Choice::Side(_), [_]) => return Seen::Ambiguous,
            (Choice::Side(side), [a, b, ..]) => {
                let [at_a, at_b] = [a, b].map(|row| self.middle(*row));
                match at_a.partial_cmp(&at_b) {
                    Some(order) if order.is_ne() => Some(if (side == Side::Left) == order.is_lt() {
                        *a
                    } else {
                        *b
                    }),
                    _ => return Seen::Ambiguous,
                }
            }
        };
        row.map_or(Seen::NoFace, |row| Seen::Row { row, several })
    }

    /// The horizontal middle of a face.
    fn middle(&self, row: usize) -> f32 {
        let [x, _, width, _] = self.part.face_box(row);
        x + width / 2.0
    }
}
