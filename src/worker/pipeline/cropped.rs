//! Faces of a set of crops: how they were cropped goes along with them, and a crop that the models see as it is stays the file
//! that it was.

use super::decoding::Frames;
use super::{Content, Cropped};
use affectmill_base::INPUT_SIZE;
use affectmill_base::{Crop, Size};
use affectmill_media::decode::CroppedFace;
use affectmill_vision::CropError;
use std::sync::Arc;

impl Frames<'_> {
    /// A face of a set of crops.
    pub fn cropped(&mut self, cropped: CroppedFace, recipe: &Option<Arc<str>>) -> Result<Content, CropError> {
        let CroppedFace { face, picture, jpeg } = cropped;
        let (face, input) = self.prepare(face, &picture)?;
        let unchanged = picture.size()
            == Size {
                width: INPUT_SIZE as u32,
                height: INPUT_SIZE as u32,
            };
        let recipe = recipe.clone();
        Ok(Content::Cropped(
            face,
            input,
            Cropped {
                jpeg: jpeg.filter(|_| unchanged),
                recipe,
            },
        ))
    }

    /// Why crops by this recipe are not for the models, if they are not.
    pub fn mistaken(&self, recipe: &str) -> Option<String> {
        let is_recipe = Crop::ALL.iter().any(|crop| crop.name() == recipe);
        let mut stated = self.source.trained_on.iter().zip(&self.source.job.models);
        let (other, model) = stated.find_map(|(stated, model)| {
            let other = stated
                .as_deref()
                .filter(|stated| is_recipe && *stated != recipe)?;
            Some((other, &model.name))
        })?;
        Some(format!(
            "its faces were cropped by `{recipe}`, and model `{model}` was trained on faces cropped by `{other}`; keep crops of \
             that recipe, or take the faces over from the labels ([faces] mode = \"from_labels\")"
        ))
    }
}
