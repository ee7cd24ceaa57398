//! Weight files within reach: those on a disk as they lie, those in S3 as copies, held against the job's checksums.

use super::PipelineError;
use crate::dataset::JobRecord;
use crate::domain::Location;
use crate::runtime::sha256_file;
use crate::store::{Access, StoreError, kept_copy};
use std::path::PathBuf;

/// Paths of a job's weights.
pub(super) struct Weights {
    /// Those of each model, in job order.
    pub models: Vec<Vec<PathBuf>>,
    pub detector: Option<PathBuf>,
}

impl Weights {
    /// Brings them here.
    pub fn at_hand(record: &JobRecord, access: &Access) -> Result<Self, PipelineError> {
        let mut models = Vec::with_capacity(record.models.len());
        for (spec, known) in record.job.models.iter().zip(&record.models) {
            let members = spec.all_weights().zip(known.weights());
            let members = members.map(|(place, sha256)| copy(place, Some(sha256), &spec.name, access));
            models.push(members.collect::<Result<_, _>>()?);
        }
        let detector = record.job.faces.detector.as_ref();
        let sha256 = record.identity["faces"]["detector"].as_str();
        let detector = detector.map(|place| copy(place, sha256, "the face detector", access));
        Ok(Self {
            models,
            detector: detector.transpose()?,
        })
    }
}

fn copy(
    place: &Location,
    sha256: Option<&str>,
    model: &str,
    access: &Access,
) -> Result<PathBuf, PipelineError> {
    let path = kept_copy(place, access)?;
    if matches!(place, Location::S3 { .. }) {
        let found = sha256_file(&path).map_err(|source| StoreError::Io {
            operation: "read the weights",
            path: path.clone(),
            source,
        })?;
        if sha256.is_some_and(|sha256| sha256 != found.sha256) {
            return Err(PipelineError::Weights {
                model: model.into(),
                place: place.clone(),
            });
        }
    }
    Ok(path)
}
