//! Plans again what left no row, so that the next dispatch labels it.
//!
//! A retry is a further plan: the shards of an earlier attempt, their parts and their commits stay as they are, and what
//! counts of a video is what became of it in its latest attempt. So a retry may be killed at any moment like a run, and
//! `affectmill run` goes on with it. A video that has rows is never planned again: they would be there twice.

use super::prepare::{Opened, Prepared, find, open, unprobed};
use super::{RunError, Sink, probe};
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
pub async fn prepare_retry(job: Job, wanted: &Wanted, sink: Sink<'_>) -> Result<Prepared, RunError> {
    let Opened {
        record,
        discovery,
        store,
        access,
    } = open(job, sink)?;
    let shards = plan::read_all(&store)?;
    let commits = commit::read_all(&store)?;
    let covered = plan::covered(&shards);
    if let Some(unknown) = wanted.videos.iter().find(|key| !covered.contains(key)) {
        return Err(RunError::NoSuchVideo(unknown.clone()));
    }

    let mut again: Vec<(u32, PlannedVideo)> = Vec::new();
    let mut classes: BTreeMap<ErrorClass, usize> = BTreeMap::new();
    let mut partial = 0;
    for (latest, outcome) in plan::outcomes(&shards, &commits)? {
        match outcome.status {
            VideoStatus::Ok => continue,
            _ if !wanted.includes(outcome) => continue,
            VideoStatus::Partial => partial += 1,
            VideoStatus::Failed | VideoStatus::Quarantined => match find(&discovery, &outcome.key) {
                Some(source) => {
                    again.push((latest.shard.attempt + 1, unprobed(source)));
                    if let Some(class) = outcome.error_class {
                        *classes.entry(class).or_default() += 1;
                    }
                }
                None => sink(&Event::Warning {
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
        sink(&Event::Warning { message });
    }
    sink(&Event::Retrying {
        videos: again.len(),
        classes: classes.into_iter().collect(),
    });

    let (attempts, videos): (Vec<u32>, Vec<PlannedVideo>) = again.into_iter().unzip();
    let videos = if videos.is_empty() {
        videos
    } else {
        probe::probe(videos, discovery.root.clone(), &record.job, sink).await?
    };
    let again: Vec<_> = attempts.into_iter().zip(videos).collect();
    let plans = plan::append_again(&store, &again, record.job.output.shard_frames)?;
    Prepared::new(record, store, discovery, plans, &access)
}
