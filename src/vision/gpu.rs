//! What `prepare.rs` and `align.rs` do, for a picture that lies on a GPU: the same geometry and filters, computed here, carried
//! out by [`Resampler`] and [`Warper`] where the picture is.

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
    /// For whoever crops nothing that could be at fault.
    pub fn of_model(self) -> ModelError {
        match self {
            CropError::Prepare(error) => ModelError::Batch(error.to_string()),
            CropError::Model(error) => error,
        }
    }
}

/// Makes inputs from pictures on one GPU; keeps what it laid out from one picture to the next of the same geometry.
#[derive(Default)]
pub(super) struct GpuCropper {
    resampler: Option<(Geometry, Resampler)>,
    warper: Option<Warper>,
}

/// What a resampler is laid out for.
#[derive(PartialEq)]
struct Geometry {
    components: Vec<Component>,
    region: Region,
    output: Size,
    colours: Colours,
    turn: Orientation,
}

impl GpuCropper {
    /// The face by each recipe.
    pub fn crop_all(
        &mut self,
        picture: &Picture,
        surface: &GpuPicture,
        face: &Face,
        recipes: &[Crop],
    ) -> Result<GpuSample, CropError> {
        let crops = recipes
            .iter()
            .map(|&recipe| self.crop(picture, surface, face, recipe))
            .collect::<Result<_, _>>()?;
        Ok(GpuSample::joined(crops)?)
    }

    fn crop(
        &mut self,
        picture: &Picture,
        surface: &GpuPicture,
        face: &Face,
        recipe: Crop,
    ) -> Result<GpuSample, CropError> {
        let Some(way) = CropTransform::by(recipe, picture, face)? else {
            return self.prepare(picture, surface, face.rect);
        };
        let way = way.stored(picture);
        let components: Vec<_> = picture
            .components()
            .iter()
            .map(|component| (component.lattice(), way.samples(component)))
            .collect();
        if self.warper.is_none() {
            self.warper = Some(Warper::new(INPUT_SIZE, surface)?);
        }
        let warper = self.warper.as_ref().ok_or(PrepareError::Landmarks)?;
        let size = picture.stored();
        let made = warper.run(
            surface,
            &components,
            &way.pixels(),
            (size.width.into(), size.height.into()),
            &colours(picture, imagenet()),
        );
        Ok(made?)
    }

    /// As [`Preparer::prepare`](super::Preparer::prepare).
    pub fn prepare(
        &mut self,
        picture: &Picture,
        surface: &GpuPicture,
        rect: Rect,
    ) -> Result<GpuSample, CropError> {
        let square = Size {
            width: INPUT_SIZE as u32,
            height: INPUT_SIZE as u32,
        };
        self.resample(picture, surface, rect, square, colours(picture, imagenet()))
    }

    /// As [`Preparer::shrink`](super::Preparer::shrink).
    pub fn shrink(
        &mut self,
        picture: &Picture,
        surface: &GpuPicture,
        size: Size,
    ) -> Result<GpuSample, CropError> {
        let whole = Rect::whole(picture.size());
        self.resample(picture, surface, whole, size, colours(picture, PLAIN))
    }

    fn resample(
        &mut self,
        picture: &Picture,
        surface: &GpuPicture,
        rect: Rect,
        size: Size,
        colours: Colours,
    ) -> Result<GpuSample, CropError> {
        let turn = picture.orientation();
        let geometry = Geometry {
            components: picture.components().to_vec(),
            region: Region::of(picture, rect)?,
            // A quarter turn swaps the sides, back as well as forth.
            output: turn.displayed(size),
            colours,
            turn,
        };
        let resampler = match self.resampler.take() {
            Some((laid_out, resampler)) if laid_out == geometry => resampler,
            _ => geometry.resampler(surface)?,
        };
        let (_, resampler) = self.resampler.insert((geometry, resampler));
        Ok(resampler.run(surface)?)
    }
}

impl Geometry {
    fn resampler(&self, like: &GpuPicture) -> Result<Resampler, ModelError> {
        let (columns, rows) = (self.output.width as usize, self.output.height as usize);
        let parts = self.components.iter().map(|component| {
            let down = self.region.down(component, rows);
            let across = self.region.across(component, columns);
            (component.lattice(), down.dense(), across.dense())
        });
        Resampler::new(parts.collect(), (rows, columns), &self.colours, self.turn, like)
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

    /// Pictures as NVDEC leaves them (NV12, P010), and others, so that no part leans on one layout; turned in every way.
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

    /// The host's way is held against ffmpeg, Pillow and OpenCV elsewhere; it rounds to 16 bits between its steps.
    #[test]
    fn inputs_made_on_a_device_are_those_of_the_host() {
        let (mut gpu, mut preparer, mut cropper) =
            (GpuCropper::default(), Preparer::new(), Cropper::default());
        for (name, picture) in pictures() {
            let there = picture.as_a_surface();
            let surface = there.surface().unwrap();
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
                let made = gpu.crop_all(&there, surface, &face, &[recipe]).unwrap();
                let (most, mean) = apart(&name, &host, &values(made, INPUT_LEN), imagenet());
                assert!(most < limit && mean < 0.05, "{name} {recipe:?}: {most} {mean}");
            }
            let whole = Rect::whole(size);
            face.rect = whole;
            preparer.prepare(&picture, &face, &mut host).unwrap();
            let made = gpu.prepare(&there, surface, whole).unwrap();
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
            let on_device = picture.as_a_surface();
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
        let there = picture.as_a_surface();
        let surface = there.surface().unwrap();
        let mut gpu = GpuCropper::default();
        let outside = Rect {
            x: 300.0,
            y: 0.0,
            w: 100.0,
            h: 100.0,
        };
        let refused = gpu.prepare(&there, surface, outside).err().unwrap();
        assert!(matches!(
            refused,
            CropError::Prepare(PrepareError::Outside { .. })
        ));
        let face = full_frame(&there);
        let refused = gpu
            .crop_all(&there, surface, &face, &[Crop::Arcface112])
            .err()
            .unwrap();
        assert!(matches!(refused, CropError::Prepare(PrepareError::Landmarks)));
    }
}
