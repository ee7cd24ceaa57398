//! What a label set was begun on: the first commit fixes it, others are held against it.

use super::CommitError;
use crate::{DeviceClass, DeviceRecord, RECORD_VERSION, ShardDevice, paths};
use affectmill_store::{Put, Store};

/// To be called before a commit: fixes the device of a label set that has none yet. Unless a change is `allowed`, one of
/// another class is refused.
///
/// # Errors
/// [`CommitError::OtherDevice`]; the store failed.
pub fn hold_device(store: &Store, device: &ShardDevice, allowed: bool) -> Result<(), CommitError> {
    let record = DeviceRecord {
        version: RECORD_VERSION,
        device: device.clone(),
    };
    let json = serde_json::to_vec_pretty(&record).expect("a record of plain text becomes JSON");
    match store.put_new(paths::DEVICE, &json)? {
        Put::Created => Ok(()),
        Put::Exists => check_device(store, device.class, allowed),
    }
}

/// Refuses a class of device other than that which the label set was begun on, unless a change is `allowed`. One that has no
/// record of it, as an older affectmill leaves it, may go on on any.
///
/// # Errors
/// As [`hold_device`].
pub fn check_device(store: &Store, class: DeviceClass, allowed: bool) -> Result<(), CommitError> {
    let Some(bytes) = store.get(paths::DEVICE)?.filter(|_| !allowed) else {
        return Ok(());
    };
    let record: DeviceRecord = serde_json::from_slice(&bytes).map_err(|error| CommitError::Record {
        path: store.path(paths::DEVICE).to_string(),
        cause: error.to_string(),
    })?;
    if record.device.class == class {
        return Ok(());
    }
    Err(CommitError::OtherDevice {
        output: store.root().to_string(),
        was: record.device,
        is: class,
    })
}
