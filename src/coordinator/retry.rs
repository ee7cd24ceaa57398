//! Plans again what left no row, so that the next dispatch labels it.
//!
//! A retry is a further plan: the shards of an earlier attempt, their parts and their commits stay as they are, and what
//! counts of a video is what became of it in its latest attempt. So a retry may be killed at any moment like a run, and
//! `affectmill run` goes on with it. A video that has rows is never planned again: they would be there twice.

use super::prepare::{Opened, Prepared, find, open, stopped, unprobed, warn_skipped};
use super::{RunError, Signal, Signals, Sink, blocking};
use crate::commit;
use crate::dataset::{ErrorClass, PlannedVideo, VideoOutcome, VideoStatus};
use crate::domain::VideoKey;
use crate::events::Event;
use crate::plan;
use crate::spec::Job;
use std::collections::BTreeMap;

/// Which videos without rows are to be labelled again.
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

/// Prepares a run over what is planned already, with the wanted videos planned once more as they lie in the input now. New
/// videos stay unplanned.
///
/// # Errors
/// As [`prepare`](super::prepare); [`RunError::NoSuchVideo`] when a video is wanted by a name that no plan has.
pub async fn prepare_retry(
    job: Job,
    wanted: Wanted,
    signals: &mut Signals,
    sink: Sink<'_>,
) -> Result<Result<Prepared, Signal>, RunError> {
    let choosing = blocking(move || {
        let opened = open(job)?;
        let chosen = choose(&opened, &wanted)?;
        Ok::<_, RunError>((opened, chosen))
    });
    let (opened, Chosen { again, events }) = match signals.unless(choosing).await {
        Ok(chosen) => chosen??,
        Err(signal) => return Ok(Err(stopped(signal, 0, sink))),
    };
    warn_skipped(&opened.discovery, sink);
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

fn choose(opened: &Opened, wanted: &Wanted) -> Result<Chosen, RunError> {
    let Opened {
        discovery,
        store,
        planner,
        ..
    } = opened;
    let commits = commit::read_all(store)?;
    if let Some(unknown) = wanted.videos.iter().find(|key| planner.times(key) == 0) {
        return Err(RunError::NoSuchVideo(unknown.clone()));
    }

    let (mut again, mut events) = (Vec::new(), Vec::new());
    let mut classes: BTreeMap<ErrorClass, usize> = BTreeMap::new();
    let mut partial = 0;
    for (latest, outcome) in plan::outcomes(planner.shards(), &commits)? {
        match outcome.status {
            VideoStatus::Ok => continue,
            _ if !wanted.includes(outcome) => continue,
            VideoStatus::Partial => partial += 1,
            VideoStatus::Failed | VideoStatus::Quarantined => match find(discovery, &outcome.key) {
                Some(source) => {
                    again.push((latest.shard.attempt + 1, unprobed(source)));
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
            "{partial} partial: their rows exist, and the same file gives the same again; to label a mended file, give it a \
             new name or the job a new output"
        );
        events.push(Event::Warning { message });
    }
    events.push(Event::Retrying {
        videos: again.len(),
        classes: classes.into_iter().collect(),
    });
    Ok(Chosen { again, events })
}
