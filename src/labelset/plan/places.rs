//! Where the videos of an output lie. Keys are relative to a root, so videos of another root are other videos of the same
//! names, unless somebody says that the collection has moved.

use super::{PlanError, Plans};
use crate::{InputPlace, JobRecord, Plan, PlannedVideo, paths};
use affectmill_base::Location;
use affectmill_store::{Store, same_place};
use std::ffi::OsStr;

/// Where videos that are to be planned were found.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The place.
    pub place: InputPlace,
    /// The user says that what is planned lies there too: the collection was moved, or is mounted in several places.
    pub moved: bool,
}

impl Plans {
    /// Whether videos that were found there may be planned beside those that are; `true` when nobody has said so before.
    ///
    /// # Errors
    /// [`PlanError::OtherInput`].
    pub fn admit(&self, origin: &Origin, output: &Location) -> Result<bool, PlanError> {
        let found = &origin.place.root;
        let Some(last) = self.places.last() else {
            return Ok(false);
        };
        if self.places.iter().any(|known| same_place(&known.root, found)) {
            return Ok(false);
        }
        if origin.moved {
            Ok(true)
        } else {
            Err(PlanError::OtherInput {
                output: output.to_string(),
                known: last.root.to_string(),
                found: found.to_string(),
            })
        }
    }

    /// Adds the place of a plan.
    pub(super) fn add_places(&mut self, plan: &Plan, store: &Store) -> Result<(), PlanError> {
        let places = match &plan.input {
            Some(place) => vec![place.clone()],
            // The job as the first run had it tells as much as it can.
            None if self.places.is_empty() && !plan.shards.is_empty() => before_places(plan, store)?,
            None => return Ok(()),
        };
        self.places.retain(|known| !places.contains(known));
        self.places.extend(places);
        Ok(())
    }
}

/// The places that may be meant by an older plan, which does not say: the input, and where it may have been one
/// file or one folder of images, what that lies in, which then comes last.
fn before_places(plan: &Plan, store: &Store) -> Result<Vec<InputPlace>, PlanError> {
    let damaged = |cause: String| PlanError::Damaged {
        path: store.path(paths::JOB).to_string(),
        cause,
    };
    let json = store
        .get(paths::JOB)?
        .ok_or_else(|| damaged("it is missing".into()))?;
    let record: JobRecord = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    let uri = record.job.input.uri;
    let (name, above) = match &uri {
        Location::Local(path) => (
            path.file_name().and_then(OsStr::to_str),
            path.parent().map(Location::from),
        ),
        Location::S3 { bucket, key } => {
            let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
            let above = Location::S3 {
                bucket: bucket.clone(),
                key: above.into(),
            };
            (Some(name), Some(above))
        }
    };
    let is_it = |video: &PlannedVideo| Some(video.file()) == name;
    let alone = plan.shards.iter().flat_map(|shard| &shard.videos).all(is_it);
    let roots = [Some(uri.clone()), above.filter(|_| alone)];
    let place = |root| InputPlace {
        uri: uri.clone(),
        root,
    };
    Ok(roots.into_iter().flatten().map(place).collect())
}
