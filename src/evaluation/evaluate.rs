//! How well a model's labels agree with annotations: over everything, by video, and by track.
//!
//! Flows in: labels, what they are held against, a profile. Flows out: figures with the faces and videos they rest on and how far the choice
//! of videos moves them, and an account of what was not compared.

use super::calibration::Samples;
use super::labels::Labels;
use super::metrics::{Bootstrap, Decision, Figure, Interval, Profile, Tally};
use super::pairing::{Ledger, PairError, Reference};
use affectmill_base::Task;
use serde::Serialize;
use std::collections::BTreeMap;

/// What to compute.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Formulas.
    pub profile: Profile,
    /// Thresholds and temperature.
    pub decision: Decision,
    /// Intervals.
    pub bootstrap: Bootstrap,
    /// What [`Evaluation::groups`] are.
    pub by: Option<By>,
}

/// What figures are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The annotated persons of each video.
    Video,
    /// Their tracks.
    Track,
}

/// A figure over everything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overall {
    /// The figure.
    #[serde(flatten)]
    pub figure: Figure,
    /// Videos it rests on.
    pub videos: usize,
    /// 95 % bootstrap interval over videos.
    pub interval: Interval,
}

/// Figures of a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Key of the video.
    pub video: String,
    /// Name of the annotations.
    pub person: String,
    /// The track, when by track.
    pub track: Option<i32>,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Tasks that are both annotated and predicted.
    pub tasks: Vec<Task>,
    /// Over everything.
    pub figures: Vec<Overall>,
    /// By video or track, in their order.
    pub groups: Vec<Group>,
    /// Faces compared whose annotated expression no model has.
    pub others: u64,
    /// What was not compared.
    pub ledger: Ledger,
}

/// Why nothing can be computed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Labels and annotations cannot be brought together.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// No task is both annotated and predicted.
    #[error(
        "nothing that model `{model}` predicts is annotated there; it predicts {}",
        names(tasks)
    )]
    NoTask {
        /// The model.
        model: String,
        /// Its tasks.
        tasks: Vec<Task>,
    },
}

fn names(tasks: &[Task]) -> String {
    let names: Vec<String> = tasks.iter().map(|task| task.outputs().join(", ")).collect();
    names.join("; ")
}

/// Compares; `samples` takes the logits along where they are to be tuned.
///
/// # Errors
/// [`EvaluateError`].
pub fn evaluate(
    labels: &Labels<'_>,
    reference: Reference<'_>,
    plan: &Plan,
    mut samples: Option<&mut Samples>,
) -> Result<Evaluation, EvaluateError> {
    let model = labels.model();
    let own = model.tasks().iter().copied();
    let tasks: Vec<Task> = own.filter(|task| reference.has(*task)).collect();
    if tasks.is_empty() {
        return Err(EvaluateError::NoTask {
            model: model.name.clone(),
            tasks: model.tasks().to_vec(),
        });
    }
    let mut videos: BTreeMap<String, Tally> = BTreeMap::new();
    let mut groups: BTreeMap<(String, String, Option<i32>), Tally> = BTreeMap::new();
    let ledger = reference.pair(labels, &tasks, &mut |pair| {
        let mut add = |tally: &mut Tally| tally.add(pair.truth, pair.prediction, &plan.decision);
        if !videos.contains_key(pair.video) {
            videos.insert(pair.video.into(), Tally::default());
        }
        videos.get_mut(pair.video).into_iter().for_each(&mut add);
        if let Some(by) = plan.by {
            let track = pair.track.filter(|_| by == By::Track);
            let key = (pair.video.into(), pair.person.into(), track);
            add(groups.entry(key).or_default());
        }
        if let Some(samples) = samples.as_deref_mut() {
            samples.add(pair.truth, pair.prediction);
        }
    })?;
    let videos: Vec<Tally> = videos.into_values().collect();
    Ok(Evaluation {
        figures: overall(&videos, plan.profile, plan.bootstrap, &tasks),
        groups: groups
            .into_iter()
            .map(|((video, person, track), tally)| Group {
                video,
                person,
                track,
                figures: tally.figures(plan.profile, &tasks),
            })
            .collect(),
        others: videos.iter().map(Tally::others).sum(),
        ledger,
        tasks,
    })
}

/// The figures over all of some videos.
pub fn overall(videos: &[Tally], profile: Profile, bootstrap: Bootstrap, tasks: &[Task]) -> Vec<Overall> {
    let mut whole = Tally::default();
    videos.iter().for_each(|video| whole.merge(video));
    let each: Vec<Vec<Figure>> = videos.iter().map(|video| video.figures(profile, tasks)).collect();
    let intervals = bootstrap.intervals(videos, profile, tasks);
    let figures = whole.figures(profile, tasks).into_iter().zip(intervals);
    figures
        .enumerate()
        .map(|(n, (figure, interval))| Overall {
            figure,
            videos: each.iter().filter(|video| video[n].count > 0).count(),
            interval,
        })
        .collect()
}
