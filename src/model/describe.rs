//! What a weight file is, without loading it: reads its header, hashes its bytes, touches no device.

use super::ModelError;
use super::state::{Header, UNTRAINED};
use crate::domain::ModelKind;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Identity of a weight file that was found fit for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsInfo {
    /// SHA-256 of the whole file, 64 lower-case hex digits.
    pub sha256: String,
    /// The file says that nobody trained it: its labels mean nothing.
    pub untrained: bool,
    /// The kind it was checked against.
    pub kind: ModelKind,
}

/// Checks that a safetensors file holds every tensor of a `kind`, by name, shape and element type, and hashes it.
/// The values are not looked at; [`super::Network::load`] does that.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when it is not safetensors or is marked as another model;
/// [`ModelError::Mismatch`] naming every tensor that is missing or wrong.
pub fn describe(path: &Path, kind: ModelKind) -> Result<WeightsInfo, ModelError> {
    let failed = || ModelError::io("read the weights", path);
    let mut file = File::open(path).map_err(failed())?;
    let file_len = file.metadata().map_err(failed())?.len();
    let mut head = Vec::new();
    file.by_ref().take(8).read_to_end(&mut head).map_err(failed())?;
    let header_len = Header::length(path, &head, file_len)?;
    file.by_ref()
        .take(header_len as u64 - 8)
        .read_to_end(&mut head)
        .map_err(failed())?;
    let header = Header::parse(path, &head, file_len)?;
    header.check(path, kind)?;

    let mut digest = Sha256::new_with_prefix(&head);
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(failed())? {
            0 => break,
            read => digest.update(&chunk[..read]),
        }
    }
    Ok(WeightsInfo {
        sha256: digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        untrained: header.metadata.contains_key(UNTRAINED),
        kind,
    })
}
