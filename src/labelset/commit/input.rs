//! What the last search of the input found beside videos, kept for those who ask later.

use super::CommitError;
use crate::{InputRecord, RECORD_VERSION, paths};
use affectmill_store::Store;

/// Writes it; what an earlier search found goes.
///
/// # Errors
/// The record cannot be written.
pub fn keep_input(store: &Store, found: &InputRecord) -> Result<(), CommitError> {
    let json = serde_json::to_vec_pretty(found).expect("plain text and numbers become JSON");
    // A run that finds the same leaves the output as it is.
    if store.get(paths::INPUT)?.as_deref() != Some(&*json) {
        store.replace(paths::INPUT, &json)?;
    }
    Ok(())
}

/// Reads it; `None` in an older output, where nothing was kept.
///
/// # Errors
/// The record cannot be read.
pub fn kept_input(store: &Store) -> Result<Option<InputRecord>, CommitError> {
    let Some(json) = store.get(paths::INPUT)? else {
        return Ok(None);
    };
    let damaged = |cause: String| CommitError::Input {
        path: store.path(paths::INPUT).to_string(),
        cause,
    };
    let record: InputRecord = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    match record.version {
        RECORD_VERSION => Ok(Some(record)),
        other => Err(damaged(format!(
            "has version {other}, this program reads {RECORD_VERSION}"
        ))),
    }
}
