//! `affectmill report`: a label set as one page of HTML that needs nothing else, and as the figures in it.
//!
//! Flows in: plans, commit records, and the rows of the committed parts, a row group at a time. Flows out: [`Figures`],
//! counted in one pass whose memory does not grow with the rows, and the page drawn from them. The same label set gives
//! the same page. What stands in a label set (names of videos, messages) is text here, never markup: the page runs no
//! script, and its content policy lets it load nothing.

mod agreement;
mod curves;
mod faces;
mod figures;
mod html;
mod parts;
mod plots;
mod tables;
mod tally;
mod timeline;

pub use figures::Figures;
pub use html::render;

use affectmill_base::{AmbiguousName, NameIndex};
use affectmill_base::{ShardId, VideoKey};
use affectmill_labelset::commit;
use affectmill_labelset::commit::CommitError;
use affectmill_labelset::events::NotOk;
use affectmill_labelset::plan;
use affectmill_labelset::rows::ReadError;
use affectmill_labelset::{
    CommitRecord, JobRecord, LabelSet, LabelSetError, StageSeconds, VideoOutcome, VideoStatus,
};
use affectmill_store::{Store, StoreError};
use figures::{Corpus, Failures, Model};
use std::collections::BTreeMap;
use tally::Tally;

/// Videos that the page lists by name, of each kind.
const LISTED: usize = 20;
/// Timelines of a page whose reader chose none.
const TIMELINES: usize = 6;

/// What the reader chose.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Videos to draw the timeline of; the ones with the most faces when there are none.
    pub videos: Vec<VideoKey>,
    /// Faces shown, of the most and of the least confident ones.
    pub faces: usize,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The output cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The label set cannot be opened, or is empty.
    #[error(transparent)]
    Set(#[from] LabelSetError),
    /// The record of the input cannot be read.
    #[error(transparent)]
    Input(#[from] CommitError),
    /// The reader's choice reads like several videos.
    #[error(transparent)]
    AmbiguousName(#[from] AmbiguousName),
    /// The reader chose a video that is not there.
    #[error(
        "{root} has no rows of a video `{video}`; videos are named as in videos.parquet, by their path relative to the input"
    )]
    NoVideo {
        /// The label set.
        root: String,
        /// What was asked for.
        video: VideoKey,
    },
    /// A part is not what its commit says.
    #[error(
        "{part}: cannot be read as labels: {source}; compare it with its checksum in _affectmill/commits"
    )]
    Part {
        /// The part.
        part: String,
        /// The cause.
        source: ReadError,
    },
}

impl PageError {
    /// Whether the command is to be changed, not the disk or the labels.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::AmbiguousName(_) | Self::NoVideo { .. } => true,
            Self::Set(error) => error.is_usage(),
            Self::Store(_) | Self::Input(_) | Self::Part { .. } => false,
        }
    }
}

/// Counts the figures of a label set, in one pass over its rows.
///
/// # Errors
/// [`PageError`]: there is nothing, something cannot be read, or a chosen video is not there.
pub fn read(set: &LabelSet, choice: &Choice) -> Result<Figures, PageError> {
    let (store, job, commits) = (set.store(), set.job(), set.labels()?);
    let outcomes = set.outcomes()?;
    let planned = plan::latest(&set.plans()?.shards).len();
    let outcomes: Vec<&VideoOutcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let shown = shown(store, choice, &outcomes)?;
    let mut tally = Tally::new(job, &shown, choice.faces);
    for (shard, record) in commits {
        parts::each(set, shard, record.part.rows, &mut |rows| tally.add(shard, rows))?;
    }
    let mut figures = tally.finish(job, &outcomes);
    faces::bring_crops(store, commits, &mut figures.faces)?;
    figures.output = store.root().to_string();
    figures.corpus = corpus(planned, commits, &outcomes, figures.corpus);
    figures.failures = failures(&outcomes);
    let input = commit::kept_input(store)?;
    (figures.passed_over, figures.unseen) = input
        .map(|input| (input.passed_over, input.unseen))
        .unwrap_or_default();
    figures.stages = stages(commits);
    Ok(figures)
}

/// The videos whose timelines are drawn.
fn shown<'a>(
    store: &Store,
    choice: &Choice,
    outcomes: &[&'a VideoOutcome],
) -> Result<Vec<&'a VideoOutcome>, PageError> {
    let with_rows = outcomes.iter().copied().filter(|video| video.rows > 0);
    if choice.videos.is_empty() {
        let mut longest: Vec<&VideoOutcome> = with_rows.filter(|video| video.faces > 0).collect();
        longest.sort_by(|a, b| b.faces.cmp(&a.faces).then_with(|| a.key.cmp(&b.key)));
        longest.truncate(TIMELINES);
        return Ok(longest);
    }
    let by_name: NameIndex<&str, &VideoOutcome> =
        with_rows.map(|video| (video.key.as_str(), video)).collect();
    let find = |video: &VideoKey| {
        let found = by_name.get(video.as_str())?.map(|(_, video)| *video);
        found.ok_or_else(|| PageError::NoVideo {
            root: store.root().to_string(),
            video: video.clone(),
        })
    };
    choice.videos.iter().map(find).collect()
}

fn corpus(
    planned: usize,
    commits: &BTreeMap<ShardId, CommitRecord>,
    outcomes: &[&VideoOutcome],
    counted: Corpus,
) -> Corpus {
    let of = |status| outcomes.iter().filter(|video| video.status == status).count();
    Corpus {
        videos_planned: planned,
        videos: outcomes.len(),
        ok: of(VideoStatus::Ok),
        partial: of(VideoStatus::Partial),
        failed: of(VideoStatus::Failed),
        quarantined: of(VideoStatus::Quarantined),
        frames_decoded: outcomes.iter().map(|video| video.frames).sum(),
        parts: commits.len(),
        bytes: commits.values().map(|record| record.part.bytes).sum(),
        ..counted
    }
}

fn failures(outcomes: &[&VideoOutcome]) -> Failures {
    let mut failures = Failures::default();
    for video in outcomes.iter().filter(|video| video.status != VideoStatus::Ok) {
        let class = video.error_class.map_or("unknown", |class| class.as_str());
        *failures.classes.entry(class).or_default() += 1;
        failures.videos += 1;
        if failures.listed.len() < LISTED {
            failures.listed.extend(NotOk::of(video));
        }
    }
    failures
}

fn stages(commits: &BTreeMap<ShardId, CommitRecord>) -> StageSeconds {
    let mut sum = StageSeconds::default();
    commits.values().for_each(|record| sum.add(&record.seconds));
    sum
}

impl Model {
    fn all(job: &JobRecord) -> Vec<Self> {
        let model = |model: &affectmill_spec::ModelRecord| Self {
            name: model.name.clone(),
            kind: model.kind.name(),
            architecture: model.architecture.clone(),
            precision: model.precision.name(),
            sha256: model.sha256.clone(),
            untrained: model.untrained,
        };
        job.models.iter().map(model).collect()
    }
}
