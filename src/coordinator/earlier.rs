//! The output of an earlier run whose faces a job takes over (`[faces] mode = "from_labels"`): is it fit, and where in it
//! are the faces of each video.

use super::RunError;
use affectmill_base::NameIndex;
use affectmill_base::{Crop, Location, VideoKey};
use affectmill_labelset::{JobRecord, LabelSet, ShardPlan};
use affectmill_queue::EarlierVideo;
use affectmill_spec::{FaceMode, Job};
use affectmill_store::{Access, Store};
use std::collections::BTreeMap;

/// The earlier output's fingerprint, once it was found fit for the job; `None` for a job that takes no faces over.
///
/// # Errors
/// [`RunError::Earlier`] when it is not finished, was sampled in another way, or has no landmarks where the job's crops
/// need them; [`RunError`] when it cannot be read.
pub fn fingerprint(job: &Job, access: &Access) -> Result<Option<String>, RunError> {
    let Some((set, root)) = open(job, access)? else {
        return Ok(None);
    };
    let unfit = |cause: String| RunError::Earlier {
        output: root.to_string(),
        cause,
    };
    let record = set.job();
    if !set.is_finished()? {
        return Err(unfit("it is not finished; run that job to its end first".into()));
    }
    let sampling = serde_json::json!(job.sampling);
    if record.identity["sampling"] != sampling {
        let was = &record.identity["sampling"];
        return Err(unfit(format!(
            "its frames were sampled by {was}, this job asks for {sampling}; frames must match one to one, so take over its \
             [sampling]"
        )));
    }
    if record.job.faces.mode == FaceMode::FullFrame && job.crops().contains(&Crop::Arcface112) {
        let cause = "it was labelled with mode = \"full_frame\" and has no landmarks, which the crop `arcface112` aligns by; \
                     detect the faces, or crop by `square` or `box`";
        return Err(unfit(cause.into()));
    }
    Ok(Some(record.fingerprint.to_string()))
}

/// Where the faces of every video of the earlier output are.
#[derive(Debug, Default)]
pub struct Earlier(NameIndex<VideoKey, EarlierVideo>);

impl Earlier {
    /// Reads the earlier output's records; empty for a job that takes no faces over.
    ///
    /// # Errors
    /// [`RunError`] when they cannot be read.
    pub fn read(record: &JobRecord, access: &Access) -> Result<Self, RunError> {
        let Some((set, root)) = open(&record.job, access)? else {
            return Ok(Self::default());
        };
        let begun = record.identity["faces"]["labels"].as_str();
        let commits = set.commits()?;
        let mut videos = Vec::new();
        for (latest, outcome) in set.outcomes()? {
            let shard = &latest.shard.id;
            // Labelled anew since the job was resolved, its faces are not those that the fingerprint names.
            if Some(commits[shard].fingerprint.as_str()) != begun {
                return Err(RunError::Earlier {
                    output: root.to_string(),
                    cause: "it was labelled by another job meanwhile; run again".into(),
                });
            }
            let video = EarlierVideo {
                key: None,
                shard: shard.clone(),
                sha256: commits[shard].part.sha256.clone(),
                bytes: latest.planned.bytes,
                status: outcome.status,
            };
            videos.push((latest.planned.key.clone(), video));
        }
        Ok(Self(videos.into_iter().collect()))
    }

    /// Those of a shard's videos that the earlier output has; none of a name that reads like several there.
    pub fn of(&self, shard: &ShardPlan) -> BTreeMap<VideoKey, EarlierVideo> {
        let find = |key: &VideoKey| {
            let (there, video) = self.0.get(key.as_str()).ok().flatten()?;
            let there = (there != key).then(|| there.clone());
            Some((
                key.clone(),
                EarlierVideo {
                    key: there,
                    ..video.clone()
                },
            ))
        };
        shard.videos.iter().filter_map(|video| find(&video.key)).collect()
    }
}

fn open<'a>(job: &'a Job, access: &Access) -> Result<Option<(LabelSet, &'a Location)>, RunError> {
    match (job.faces.mode, &job.faces.labels) {
        (FaceMode::FromLabels, Some(root)) => {
            let set = LabelSet::open(Store::connect_existing(root, access)?)?;
            Ok(Some((set, root)))
        }
        _ => Ok(None),
    }
}
