//! Keeps in the output what the last search passed over and could not see, for those who ask later.

use super::{DiscoverError, Discovery};
use crate::dataset::{InputRecord, RECORD_VERSION, paths};
use crate::domain::Location;
use crate::store::Store;

/// Writes what a search of `uri` found beside videos; what an earlier one found goes.
///
/// # Errors
/// The record cannot be written.
pub fn keep(store: &Store, uri: &Location, found: &Discovery) -> Result<(), DiscoverError> {
    let record = InputRecord::new(uri.clone(), found.passed_over.clone(), found.unseen.clone());
    let json = serde_json::to_vec_pretty(&record).map_err(|error| damaged(store, error.to_string()))?;
    // A run that finds the same leaves the output as it is.
    if store.get(paths::INPUT)?.as_deref() != Some(&*json) {
        store.replace(paths::INPUT, &json)?;
    }
    Ok(())
}

/// What the last search found; `None` in an older output, where nothing was kept.
///
/// # Errors
/// The record cannot be read.
pub fn kept(store: &Store) -> Result<Option<InputRecord>, DiscoverError> {
    let Some(json) = store.get(paths::INPUT)? else {
        return Ok(None);
    };
    let record: InputRecord =
        serde_json::from_slice(&json).map_err(|error| damaged(store, error.to_string()))?;
    match record.version {
        RECORD_VERSION => Ok(Some(record)),
        other => Err(damaged(
            store,
            format!("has version {other}, this program reads {RECORD_VERSION}"),
        )),
    }
}

fn damaged(store: &Store, cause: String) -> DiscoverError {
    DiscoverError::Record {
        path: store.path(paths::INPUT).to_string(),
        cause,
    }
}
