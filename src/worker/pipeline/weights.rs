//! Weight files as the record names them, wherever they lie: what is read is held against its checksum, and what was held
//! against it is what becomes the model.

use super::PipelineError;
use affectmill_base::Location;
use affectmill_nn::WeightFile;
use affectmill_store::{Access, kept_copy};

/// Reads the weights at a place; `whose` names them in the error. Without a place there is nothing to read, which a record
/// of this program's never says.
pub(super) fn as_recorded(
    recorded: Option<(&Location, &str)>,
    whose: impl Fn() -> String,
    access: &Access,
) -> Result<WeightFile, PipelineError> {
    let Some((place, sha256)) = recorded else {
        return Err(PipelineError::Unrecorded(whose()));
    };
    let file = WeightFile::read(&kept_copy(place, access)?)?;
    if file.sha256() == sha256 {
        return Ok(file);
    }
    Err(PipelineError::Weights {
        whose: whose(),
        place: place.clone(),
    })
}
