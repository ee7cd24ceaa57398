//! What a weight file is, without loading it: reads its header, hashes its bytes, touches no device.

use super::state::{ARCHITECTURE_KEY, CROP, Header, UNTRAINED};
use super::{DETECTOR_ARCHITECTURE, ModelError};
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
    /// The crop recipe that the file says the model was trained on.
    pub crop: Option<String>,
}

/// Checks that a safetensors file holds every tensor of a `kind`, by name, shape and element type, and hashes it.
/// The values are not looked at; [`super::Network::load`] does that.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when it is not safetensors or is marked as another model;
/// [`ModelError::Mismatch`] naming every tensor that is missing or wrong.
pub fn describe(path: &Path, kind: ModelKind) -> Result<WeightsInfo, ModelError> {
    let (mut file, head, header) = open(path)?;
    header.check(path, kind)?;

    Ok(WeightsInfo {
        sha256: rest_hashed(path, &mut file, &head)?,
        untrained: header.metadata.contains_key(UNTRAINED),
        kind,
        crop: header.metadata.get(CROP).cloned(),
    })
}

/// The crop recipe that a weight file says its model was trained on.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when it is not safetensors.
pub fn stated_crop(path: &Path) -> Result<Option<String>, ModelError> {
    let (_, _, mut header) = open(path)?;
    Ok(header.metadata.remove(CROP))
}

/// SHA-256 of a detector's weight file, 64 lower-case hex digits, once its header was found to be one.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when it is not safetensors or holds something else.
pub fn describe_detector(path: &Path) -> Result<String, ModelError> {
    let (mut file, head, header) = open(path)?;
    if header.metadata.get(ARCHITECTURE_KEY).map(String::as_str) != Some(DETECTOR_ARCHITECTURE) {
        let cause = "holds no face detector";
        let remedy = "name the file that `affectmill import-weights centerface.onnx -o FILE` wrote";
        return Err(ModelError::file(path, cause.to_owned(), remedy));
    }
    rest_hashed(path, &mut file, &head)
}

/// The file behind its header, the header's bytes, the header.
fn open(path: &Path) -> Result<(File, Vec<u8>, Header), ModelError> {
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
    Ok((file, head, header))
}

/// SHA-256 of the bytes that were read and those that follow.
pub(super) fn rest_hashed(path: &Path, file: &mut File, head: &[u8]) -> Result<String, ModelError> {
    let mut digest = Sha256::new_with_prefix(head);
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file
            .read(&mut chunk)
            .map_err(ModelError::io("read the weights", path))?
        {
            0 => break,
            read => digest.update(&chunk[..read]),
        }
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
