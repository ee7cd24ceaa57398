//! `prepare.rs` and `align.rs` for pictures in GPU memory: the same transforms and filters, applied on the GPU by [`Resampler`]
//! and [`Warper`].

use super::align::CropTransform;
use super::colour::{PLAIN, colours, imagenet};
use super::prepare::{PrepareError, Region};
use affectmill_base::INPUT_SIZE;
use affectmill_base::{Crop, Face, Orientation, Rect, Size};
use affectmill_media::decode::{Component, Picture};
use affectmill_nn::{Colours, GpuPicture, GpuSample, ModelError, Resampler, Warper};

/// Why a crop could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CropError {
    /// The face or the picture does not allow it.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The GPU failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl CropError {
    /// As a [`ModelError`], for callers whose crops cannot fail.
    pub fn of_model(self) -> ModelError {
        match self {
            CropError::Prepare(error) => ModelError::Batch(error.to_string()),
            CropError::Model(error) => error,
        }
    }
}

/// Makes inputs from pictures on one GPU; reuses its resampler while the geometry stays the same.
#[derive(Default)]
pub(super) struct GpuCropper {
    resampler: Option<(Geometry, Resampler)>,
    warper: Option<Warper>,
}

/// The geometry of a resampler.
#[derive(PartialEq)]
struct Geometry {
    components: Vec<Component>,
    region: Region,
    output: Size,
    colours: Colours,
    turn: Orientation,
}

impl GpuCropper {
    /// The face's crop by each recipe.
    pub fn crop_all(
        &mut self,
        picture: &Picture,
        gpu_picture: &GpuPicture,
        face: &Face,
        recipes: &[Crop],
    ) -> Result<GpuSample, CropError> {
        let crops = recipes
            .iter()
            .map(|&recipe| self.crop(picture, gpu_picture, face, recipe))
            .collect::<Result<_, _>>()?;
        Ok(GpuSample::joined(crops)?)
    }

    fn crop(
        &mut self,
        picture: &Picture,
        gpu_picture: &GpuPicture,
        face: &Face,
        recipe: Crop,
    ) -> Result<GpuSample, CropError> {
        let Some(transform) = CropTransform::by(recipe, picture, face)? else {
            return self.prepare(picture, gpu_picture, face.rect);
        };
        let transform = transform.stored(picture);
        let components: Vec<_> = picture
            .components()
            .iter()
            .map(|component| (component.layout(), transform.samples(component)))
            .collect();
        if self.warper.is_none() {
            self.warper = Some(Warper::new(INPUT_SIZE, gpu_picture)?);
        }
        let warper = self.warper.as_ref().ok_or(PrepareError::Landmarks)?;
        let size = picture.stored();
        let made = warper.run(
            gpu_picture,
            &components,
            &transform.pixels(),
            (size.width.into(), size.height.into()),
            &colours(picture, imagenet()),
        );
        Ok(made?)
    }

    /// As [`Preparer::prepare`](super::Preparer::prepare).
    pub fn prepare(
        &mut self,
        picture: &Picture,
        gpu_picture: &GpuPicture,
        rect: Rect,
    ) -> Result<GpuSample, CropError> {
        let square = Size {
            width: INPUT_SIZE as u32,
            height: INPUT_SIZE as u32,
        };
        self.resample(picture, gpu_picture, rect, square, colours(picture, imagenet()))
    }

    /// As [`Preparer::shrink`](super::Preparer::shrink).
    pub fn shrink(
        &mut self,
        picture: &Picture,
        gpu_picture: &GpuPicture,
        size: Size,
    ) -> Result<GpuSample, CropError> {
        let whole = Rect::whole(picture.size());
        self.resample(picture, gpu_picture, whole, size, colours(picture, PLAIN))
    }

    fn resample(
        &mut self,
        picture: &Picture,
        gpu_picture: &GpuPicture,
        rect: Rect,
        size: Size,
        colours: Colours,
    ) -> Result<GpuSample, CropError> {
        let turn = picture.orientation();
        let geometry = Geometry {
            components: picture.components().to_vec(),
            region: Region::of(picture, rect)?,
            // A quarter turn swaps the sides in both directions.
            output: turn.displayed(size),
            colours,
            turn,
        };
        let resampler = match self.resampler.take() {
            Some((planned, resampler)) if planned == geometry => resampler,
            _ => geometry.resampler(gpu_picture)?,
        };
        let (_, resampler) = self.resampler.insert((geometry, resampler));
        Ok(resampler.run(gpu_picture)?)
    }
}

impl Geometry {
    fn resampler(&self, gpu_picture: &GpuPicture) -> Result<Resampler, ModelError> {
        let (columns, rows) = (self.output.width as usize, self.output.height as usize);
        let parts = self.components.iter().map(|component| {
            let down = self.region.down(component, rows);
            let across = self.region.across(component, columns);
            (component.layout(), down.dense(), across.dense())
        });
        Resampler::new(
            parts.collect(),
            (rows, columns),
            &self.colours,
            self.turn,
            gpu_picture,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cropper, Cuts, Preparer, full_frame};
    use super::*;
    use affectmill_base::INPUT_LEN;
    use affectmill_media::decode::{drawn, drawn_hdr};
    use affectmill_nn::Sample;

    const SIZE: Size = Size {
        width: 322,
        height: 246,
    };

    /// Pictures as NVDEC leaves them (NV12, P010), and others, so that no part leans on one layout; turned in every transform.
    fn pictures() -> Vec<(String, Picture)> {
        let mut all = Vec::new();
        for (format, full) in [
            ("nv12", false),
            ("nv12", true),
            ("p010le", false),
            ("yuv444p", false),
            ("gray", true),
        ] {
            for (quarter_turns, mirrored) in [(0, false), (1, false), (2, false), (3, false), (1, true)] {
                let turn = Orientation {
                    quarter_turns,
                    mirrored,
                };
                all.push((
                    format!("{format} {full} {turn:?}"),
                    drawn(format, SIZE, full, turn),
                ));
            }
        }
        let upright = Orientation::default();
        all.extend([
            ("pq".into(), drawn_hdr(true, "p010le", SIZE, upright)),
            ("hlg".into(), drawn_hdr(false, "p010le", SIZE, upright)),
        ]);
        all
    }

    /// Largest and mean difference, in grey levels.
    fn apart(name: &str, a: &[f32], b: &[f32], units: [(f32, f32); 3]) -> (f32, f32) {
        assert_eq!(a.len(), b.len(), "{name}");
        let plane = a.len() / 3;
        let levels = a.iter().zip(b).enumerate();
        let levels = levels.map(|(at, (a, b))| (a - b).abs() / units[at / plane].0);
        let levels: Vec<f32> = levels.collect();
        let most = levels.iter().copied().fold(0.0, f32::max);
        (most, levels.iter().sum::<f32>() / levels.len() as f32)
    }

    fn values(sample: GpuSample, length: usize) -> Vec<f32> {
        let values = Sample::Gpu(sample).first().unwrap().into_owned();
        assert_eq!(values.len(), length);
        values
    }

    /// The host's transform is compared with ffmpeg, Pillow and OpenCV elsewhere; it rounds to 16 bits between its steps.
    #[test]
    fn inputs_made_on_a_device_are_those_of_the_host() {
        let (mut gpu, mut preparer, mut cropper) =
            (GpuCropper::default(), Preparer::new(), Cropper::default());
        for (name, picture) in pictures() {
            let there = picture.on_device();
            let gpu_picture = there.gpu_picture().unwrap();
            let size = picture.size();
            let mut face = full_frame(&picture);
            face.rect = Rect {
                x: 20.5,
                y: 11.25,
                w: size.width as f32 * 0.6,
                h: size.height as f32 * 0.5,
            };
            // One that leans out of the picture.
            let (w, h) = (size.width as f32, size.height as f32);
            face.landmarks = Some(
                [0.1, 0.3, 0.35, 0.28, 0.2, 0.45, 0.12, 0.6, 0.33, 0.62].map(|share: f32| share * w.min(h)),
            );
            let mut host = vec![0.0; INPUT_LEN];
            // Near black SDR's codes rise steeply with light: what the host rounds is much more there.
            let limit = if picture.tone().is_some() { 10.0 } else { 0.2 };
            for recipe in Crop::ALL {
                cropper.crop(&picture, &face, recipe, &mut host).unwrap();
                let made = gpu.crop_all(&there, gpu_picture, &face, &[recipe]).unwrap();
                let (most, mean) = apart(&name, &host, &values(made, INPUT_LEN), imagenet());
                assert!(most < limit && mean < 0.05, "{name} {recipe:?}: {most} {mean}");
            }
            let whole = Rect::whole(size);
            face.rect = whole;
            preparer.prepare(&picture, &face, &mut host).unwrap();
            let made = gpu.prepare(&there, gpu_picture, whole).unwrap();
            let (most, mean) = apart(&name, &host, &values(made, INPUT_LEN), imagenet());
            assert!(most < limit && mean < 0.05, "{name} whole: {most} {mean}");
        }
    }

    #[test]
    fn likeness_on_a_device_is_that_of_the_host() {
        let (mut here, mut there) = (Cuts::default(), Cuts::default());
        for (name, picture) in pictures() {
            let rect = Rect {
                x: 31.0,
                y: 40.0,
                w: 90.0,
                h: 100.0,
            };
            let on_device = picture.on_device();
            let likeness = |picture: &Picture| {
                super::super::patch_similarity::PatchSimilarity::of(picture, rect).unwrap()
            };
            let alike = likeness(&picture).with(&likeness(&on_device));
            assert!((alike - 1.0).abs() < 1e-5, "{name}: {alike}");
            let cuts = (here.seen(&picture).unwrap(), there.seen(&on_device).unwrap());
            assert_eq!(cuts.0, cuts.1, "{name}");
        }
    }

    #[test]
    fn impossible_boxes_are_refused_alike() {
        let picture = drawn("nv12", SIZE, false, Orientation::default());
        let there = picture.on_device();
        let gpu_picture = there.gpu_picture().unwrap();
        let mut gpu = GpuCropper::default();
        let outside = Rect {
            x: 300.0,
            y: 0.0,
            w: 100.0,
            h: 100.0,
        };
        let refused = gpu.prepare(&there, gpu_picture, outside).err().unwrap();
        assert!(matches!(
            refused,
            CropError::Prepare(PrepareError::Outside { .. })
        ));
        let face = full_frame(&there);
        let refused = gpu
            .crop_all(&there, gpu_picture, &face, &[Crop::Arcface112])
            .err()
            .unwrap();
        assert!(matches!(refused, CropError::Prepare(PrepareError::Landmarks)));
    }
}
