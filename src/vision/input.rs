//! A model's input, made in the memory where its picture is.

use super::gpu::{CropError, GpuCropper};
use super::{Cropper, Preparer, full_frame};
use affectmill_base::INPUT_LEN;
use affectmill_base::{Crop, Face};
use affectmill_media::decode::Picture;
use affectmill_nn::Sample;

/// Makes inputs from pictures in host memory and on a GPU.
#[derive(Default)]
pub struct InputMaker {
    preparer: Preparer,
    cropper: Cropper,
    gpu: GpuCropper,
}

impl InputMaker {
    /// The whole picture. `spare` is a buffer to reuse, as long as one input.
    ///
    /// # Errors
    /// As [`Preparer::prepare`]; [`CropError::Model`] when a GPU fails.
    pub fn whole(&mut self, picture: &Picture, mut spare: Vec<f32>) -> Result<Sample, CropError> {
        let face = full_frame(picture);
        match picture.gpu_picture() {
            Some(gpu_picture) => Ok(Sample::Gpu(self.gpu.prepare(picture, gpu_picture, face.rect)?)),
            None => {
                self.preparer.prepare(picture, &face, &mut spare)?;
                Ok(Sample::Host(spare))
            }
        }
    }

    /// The face's crop by each recipe in turn. `spare` is a buffer to reuse.
    ///
    /// # Errors
    /// As [`Cropper::crop`]; [`CropError::Model`] when a GPU fails.
    pub fn crops(
        &mut self,
        picture: &Picture,
        face: &Face,
        recipes: &[Crop],
        mut spare: Vec<f32>,
    ) -> Result<Sample, CropError> {
        match picture.gpu_picture() {
            Some(gpu_picture) => Ok(Sample::Gpu(self.gpu.crop_all(
                picture,
                gpu_picture,
                face,
                recipes,
            )?)),
            None => {
                spare.resize(recipes.len() * INPUT_LEN, 0.0);
                self.cropper.crop_all(picture, face, recipes, &mut spare)?;
                Ok(Sample::Host(spare))
            }
        }
    }
}
