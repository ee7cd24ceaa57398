//! What a weight file is: reads its header, touches no device.

use super::state::{ARCHITECTURE_KEY, CROP, Header, UNTRAINED};
use super::{DETECTOR_ARCHITECTURE, ModelError, WeightFile};
use affectmill_base::ModelKind;

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

/// Checks that a safetensors file has every tensor of a `kind`, by name, shape and element type.
/// The values are not looked at; [`super::Network::load`] does that.
///
/// # Errors
/// [`ModelError::File`] when it is not safetensors or is marked as another model; [`ModelError::Mismatch`] naming every
/// tensor that is missing or wrong.
pub fn describe(file: &WeightFile, kind: ModelKind) -> Result<WeightsInfo, ModelError> {
    let header = Header::of(file)?;
    header.check(file.path(), kind)?;

    Ok(WeightsInfo {
        sha256: file.sha256().to_owned(),
        untrained: header.metadata.contains_key(UNTRAINED),
        kind,
        crop: header.metadata.get(CROP).cloned(),
    })
}

/// The crop recipe that a weight file says its model was trained on.
///
/// # Errors
/// [`ModelError::File`] when it is not safetensors.
pub fn stated_crop(file: &WeightFile) -> Result<Option<String>, ModelError> {
    Ok(Header::of(file)?.metadata.remove(CROP))
}

/// SHA-256 of a detector's weight file, 64 lower-case hex digits, once its header was found to be one.
///
/// # Errors
/// [`ModelError::File`] when it is not safetensors or has other tensors.
pub fn describe_detector(file: &WeightFile) -> Result<String, ModelError> {
    let header = Header::of(file)?;
    if header.metadata.get(ARCHITECTURE_KEY).map(String::as_str) != Some(DETECTOR_ARCHITECTURE) {
        let cause = "holds no face detector";
        let remedy = "name the file that `affectmill import-weights centerface.onnx -o FILE` wrote";
        return Err(ModelError::file(file.path(), cause.to_owned(), remedy));
    }
    Ok(file.sha256().to_owned())
}
