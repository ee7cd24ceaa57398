//! Plans again what left no row, and what is `partial` where its file has changed, so that the next dispatch labels it.
//!
//! A retry is a further plan: the shards of an earlier attempt, their parts and their commits stay as they are, and what
//! counts of a video is what became of it in its latest attempt. So a retry may be killed at any moment like a run, and
//! `affectmill run` goes on with it. A video that has rows is planned again only together with the retirement of the shard that
//! holds them ([`super::moving`]): they would be there twice.

use super::opened::{Opened, open};
use super::prepare::{Prepared, find, is_as_planned, stopped, warn_unseen};
use super::{RunError, Signal, Signals, Sink, blocking};
use affectmill_base::ErrorClass;
use affectmill_base::NameIndex;
use affectmill_base::VideoKey;
use affectmill_labelset::commit;
use affectmill_labelset::events::Event;
use affectmill_labelset::plan;
use affectmill_labelset::{LabelSet, PlannedVideo, ShardPlan, VideoOutcome, VideoStatus};
use affectmill_spec::Job;
use affectmill_store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// Which videos that are not `ok` are to be labelled again.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these classes; empty for all, those included of which an older affectmill told no class.
    pub classes: Vec<ErrorClass>,
    /// These videos; empty for all.
    pub videos: Vec<VideoKey>,
}

impl Wanted {
    fn includes(&self, video: &VideoOutcome) -> bool {
        let class = self.classes.is_empty()
            || video
                .error_class
                .is_some_and(|class| self.classes.contains(&class));
        class && (self.videos.is_empty() || self.videos.contains(&video.key))
    }
}

/// The job of an output as a retry carries it out: as it is recorded, with the input where its videos were found last.
///
/// # Errors
/// [`RunError`] when job or plans cannot be read.
pub fn recorded_job(store: &Store) -> Result<Job, RunError> {
    let set = LabelSet::open(store.clone())?;
    let last = set.plans()?.places.last().map(|place| place.uri.clone());
    let mut job = set.into_job().job;
    job.input.uri = last.unwrap_or(job.input.uri);
    Ok(job)
}

/// Prepares a run over what is planned already, with the wanted videos planned once more as they lie in the input now. New
/// videos stay unplanned.
///
/// # Errors
/// As [`prepare`](super::prepare); [`RunError::NoSuchVideo`] when a video is wanted by a name that no plan has.
pub async fn prepare_retry(
    job: Job,
    wanted: Wanted,
    moved: bool,
    signals: &mut Signals,
    sink: Sink<'_>,
) -> Result<Result<Prepared, Signal>, RunError> {
    let choosing = blocking(move || {
        let mut opened = open(job, moved)?;
        let chosen = choose(&mut opened, wanted)?;
        Ok::<_, RunError>((opened, chosen))
    });
    let (opened, Chosen { again, events }) = match signals.unless(choosing).await {
        Ok(chosen) => chosen??,
        Err(signal) => return Ok(Err(stopped(signal, 0, sink))),
    };
    warn_unseen(&opened.discovery, sink);
    events.iter().for_each(&mut *sink);
    let planned = opened.plan(again, signals, sink).await?;
    Ok(planned.map(|(prepared, _)| prepared))
}

/// What is to be planned again.
struct Chosen {
    /// The videos, each with the attempt that it is due for.
    again: Vec<(u32, PlannedVideo)>,
    /// What is to be said of them.
    events: Vec<Event>,
}

fn choose(opened: &mut Opened, wanted: Wanted) -> Result<Chosen, RunError> {
    let Opened {
        discovery,
        store,
        planner,
        ..
    } = &*opened;
    let commits = commit::read_all(store)?;
    let wanted = Wanted {
        videos: as_planned(&wanted.videos, planner.shards())?,
        ..wanted
    };

    let (mut again, mut events) = (Vec::new(), Vec::new());
    let mut classes: BTreeMap<ErrorClass, usize> = BTreeMap::new();
    let mut retired = BTreeSet::new();
    let mut partial = 0;
    for (latest, outcome) in plan::outcomes(planner.shards(), &commits)? {
        match outcome.status {
            VideoStatus::Ok => continue,
            _ if !wanted.includes(outcome) => continue,
            status => match find(discovery, &outcome.key) {
                Some(source) if status == VideoStatus::Partial && is_as_planned(source, latest.planned) => {
                    partial += 1;
                }
                Some(source) => {
                    if status == VideoStatus::Partial {
                        retired.insert(latest.shard.id.clone());
                    }
                    again.push((latest.shard.attempt + 1, source.unprobed()));
                    if let Some(class) = outcome.error_class {
                        *classes.entry(class).or_default() += 1;
                    }
                }
                None => events.push(Event::Warning {
                    message: format!("{} is gone from the input and stays as it is", outcome.key),
                }),
            },
        }
    }
    if partial > 0 {
        let message = format!(
            "{partial} partial: their files have not changed since, and the same file gives the same again"
        );
        events.push(Event::Warning { message });
    }
    if !again.is_empty()
        || planner
            .shards()
            .iter()
            .any(|shard| !commits.contains_key(&shard.id))
    {
        opened.begun_here()?;
    }
    events.push(Event::Retrying {
        videos: again.len(),
        classes: classes.into_iter().collect(),
    });
    opened.planner.retire(retired);
    Ok(Chosen { again, events })
}

/// The planned videos that are meant by these names.
fn as_planned(names: &[VideoKey], shards: &[ShardPlan]) -> Result<Vec<VideoKey>, RunError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let index: NameIndex<VideoKey, ()> = plan::covered(shards).into_iter().map(|key| (key, ())).collect();
    let named = |name: &VideoKey| match index.get(name.as_str())? {
        Some((key, ())) => Ok(key.clone()),
        None => Err(RunError::NoSuchVideo(name.clone())),
    };
    names.iter().map(named).collect()
}
