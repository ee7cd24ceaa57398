//! Crops and aligns a face straight from the planes of a picture.
//!
//! In: a picture, a face, a crop recipe. Out: the model's input. A model is trained with its recipe, so each one reproduces the
//! published code:
//!
//! * `arcface112`: the least-squares similarity (Umeyama, *Least-squares estimation of transformation parameters between two
//!   point patterns*, PAMI 1991) from the five landmarks to the 112×112 template of ArcFace's and Aff-Wild2's crops (insightface,
//!   `face_align.py`), resized to 128×128. Landmarks have OpenCV's coordinates: whole numbers at pixel centres. Samples are
//!   bilinear, and black outside the picture, as `cv2.warpAffine` does by default.
//! * `square`: the smallest square around the centre of the box; bilinear samples, black outside the picture.
//! * `box`: the box itself, resized by the antialiased filter of [`Preparer`].

use super::colour::{colour, normalised};
use super::prepare::{PrepareError, Preparer};
use affectmill_base::{Crop, Face, Rect};
use affectmill_base::{INPUT_LEN, INPUT_SIZE};
use affectmill_media::decode::{Component, Picture};
use affectmill_nn::Affine;

/// Landmarks of an aligned face in 112×112 pixels.
const TEMPLATE: [(f64, f64); 5] = [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
];
/// Side of the template.
const TEMPLATE_SIDE: f64 = 112.0;

/// Makes model inputs by a recipe.
#[derive(Default)]
pub struct Cropper {
    preparer: Preparer,
    /// The components at 128 × 128, as 16-bit codes.
    small: [Vec<f32>; 3],
    /// The share of each pixel that lies within the picture.
    cover: Vec<f32>,
}

impl Cropper {
    /// Writes the face's crop by each recipe in turn, each as [`crop`](Self::crop) does.
    ///
    /// # Errors
    /// As [`crop`](Self::crop).
    pub fn crop_all(
        &mut self,
        picture: &Picture,
        face: &Face,
        recipes: &[Crop],
        out: &mut [f32],
    ) -> Result<(), PrepareError> {
        let crops = out.chunks_exact_mut(INPUT_LEN);
        recipes
            .iter()
            .zip(crops)
            .try_for_each(|(&recipe, out)| self.crop(picture, face, recipe, out))
    }

    /// Writes the face as `[3, 128, 128]` f32, RGB planes, ImageNet-normalised, the displayed transform up.
    ///
    /// # Errors
    /// When `out` is not 3·128·128 long, the box leaves the picture, or the recipe needs landmarks that the face lacks.
    pub fn crop(
        &mut self,
        picture: &Picture,
        face: &Face,
        recipe: Crop,
        out: &mut [f32],
    ) -> Result<(), PrepareError> {
        let Some(transform) = CropTransform::by(recipe, picture, face)? else {
            return self.preparer.prepare(picture, face, out);
        };
        if out.len() != 3 * INPUT_SIZE * INPUT_SIZE {
            return Err(PrepareError::Length {
                expected: 3 * INPUT_SIZE * INPUT_SIZE,
                found: out.len(),
            });
        }
        let transform = transform.stored(picture);
        for (component, samples) in picture.components().iter().zip(&mut self.small) {
            transform.sample(picture, component, samples);
        }
        transform.cover(picture, &mut self.cover);
        let cover = &self.cover;
        colour(picture, &self.small, out, |value, channel, pixel| {
            normalised(value * cover[pixel], channel)
        });
        Ok(())
    }
}

/// Affine transform from a crop to the picture: the centre of crop pixel `(u, v)` maps to
/// `(x.0·u + x.1·v + x.2, y.0·u + y.1·v + y.2)`, where picture pixels start at whole numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct CropTransform {
    x: (f64, f64, f64),
    y: (f64, f64, f64),
}

impl CropTransform {
    /// The transform of a face by a recipe; `None` when the box itself is resampled.
    pub fn by(recipe: Crop, picture: &Picture, face: &Face) -> Result<Option<Self>, PrepareError> {
        Ok(match recipe {
            Crop::Box => None,
            Crop::Square => Some(Self::square(picture, face.rect)),
            Crop::Arcface112 => {
                let transform = face
                    .landmarks
                    .and_then(|landmarks| Self::aligned(picture, &landmarks));
                Some(transform.ok_or(PrepareError::Landmarks)?)
            }
        })
    }

    /// The transform from crop pixels to picture pixels.
    pub fn pixels(self) -> Affine {
        [self.x, self.y].map(|transform| [transform.0, transform.1, transform.2])
    }

    /// The transform from crop pixels to a component's samples, whole numbers at their centres.
    pub fn samples(self, component: &Component) -> Affine {
        let map = |transform: (f64, f64, f64), pitch: u32, site: f64| {
            let pitch = f64::from(pitch);
            [
                transform.0 / pitch,
                transform.1 / pitch,
                transform.2 / pitch + site - 0.5,
            ]
        };
        [
            map(self.x, component.pitch.0, component.site.0),
            map(self.y, component.pitch.1, component.site.1),
        ]
    }

    fn square(picture: &Picture, rect: Rect) -> Self {
        let aspect = picture.pixel_aspect();
        let [x, y, w, h] = [rect.x, rect.y, rect.w, rect.h].map(f64::from);
        // In square pixels.
        let side = (w * aspect).max(h);
        let step = side / INPUT_SIZE as f64;
        let corner = (x + w / 2.0 - side / aspect / 2.0, y + h / 2.0 - side / 2.0);
        Self {
            x: (step / aspect, 0.0, corner.0 + step / aspect / 2.0),
            y: (0.0, step, corner.1 + step / 2.0),
        }
    }

    /// `None` when all landmarks coincide.
    fn aligned(picture: &Picture, landmarks: &[f32; 10]) -> Option<Self> {
        let aspect = picture.pixel_aspect();
        // Square pixels, whole numbers at their centres.
        let points = landmarks.as_chunks::<2>().0.iter();
        let points: Vec<(f64, f64)> = points
            .map(|&[x, y]| ((f64::from(x) + 0.5) * aspect - 0.5, f64::from(y)))
            .collect();
        // From the template to the picture: the inverse of the fitted similarity.
        let Similarity { turn, shift } = Similarity::fit(&points, &TEMPLATE)?.inverse();
        let step = TEMPLATE_SIDE / INPUT_SIZE as f64;
        // The crop's pixel u lies at template (u + ½)·step − ½.
        let first = step / 2.0 - 0.5;
        let x0 = turn.0 * first - turn.1 * first + shift.0 + 0.5;
        let y0 = turn.1 * first + turn.0 * first + shift.1 + 0.5;
        Some(Self {
            x: (turn.0 * step / aspect, -turn.1 * step / aspect, x0 / aspect),
            y: (turn.1 * step, turn.0 * step, y0),
        })
    }

    /// The transform to the picture as stored.
    pub fn stored(self, picture: &Picture) -> Self {
        let size = picture.size();
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        let Self { x, y } = self;
        let from = |end: f64, transform: (f64, f64, f64)| (-transform.0, -transform.1, end - transform.2);
        let turn = picture.orientation();
        let (x, y) = match turn.quarter_turns % 4 {
            0 => (x, y),
            1 => (y, from(width, x)),
            2 => (from(width, x), from(height, y)),
            _ => (from(height, y), x),
        };
        let x = if turn.mirrored {
            from(f64::from(picture.stored().width), x)
        } else {
            x
        };
        Self { x, y }
    }

    /// Bilinear samples of one component, as 16-bit codes; the edge is replicated.
    fn sample(self, picture: &Picture, component: &Component, out: &mut Vec<f32>) {
        let samples = picture.samples();
        if samples.bytes == 1 {
            self.sample_codes(picture, component, out, |row, at| f32::from(row[at]) * 256.0);
        } else {
            let unit = f32::from(1u16 << samples.justify);
            self.sample_codes(picture, component, out, |row, at| {
                f32::from(u16::from_le_bytes([row[2 * at], row[2 * at + 1]])) * unit
            });
        }
    }

    #[inline(always)]
    fn sample_codes(
        self,
        picture: &Picture,
        component: &Component,
        out: &mut Vec<f32>,
        code: impl Fn(&[u8], usize) -> f32,
    ) {
        let plane = picture.plane(component.plane);
        let (width, height) = (component.size.width as usize, component.size.height as usize);
        let across = |value: f64, pitch: u32, site: f64, last: usize| -> (usize, usize, f32) {
            let place = (value / f64::from(pitch) + site - 0.5).clamp(0.0, last as f64);
            let first = place as usize;
            (first, (first + 1).min(last), (place - first as f64) as f32)
        };
        out.clear();
        for v in 0..INPUT_SIZE {
            for u in 0..INPUT_SIZE {
                let (x, y) = self.at(u, v);
                let (left, right, fx) = across(x, component.pitch.0, component.site.0, width - 1);
                let (top, bottom, fy) = across(y, component.pitch.1, component.site.1, height - 1);
                let (left, right) = (
                    component.offset + left * component.step,
                    component.offset + right * component.step,
                );
                let (upper, lower) = (plane.row(top), plane.row(bottom));
                let mix = |row: &[u8]| {
                    let (a, b) = (code(row, left), code(row, right));
                    a + (b - a) * fx
                };
                let (a, b) = (mix(upper), mix(lower));
                out.push(a + (b - a) * fy);
            }
        }
    }

    /// The share of each pixel that bilinear sampling takes from within the picture: 1 inside, falling to 0 one pixel
    /// outside the centres of the border pixels.
    fn cover(self, picture: &Picture, out: &mut Vec<f32>) {
        let size = picture.stored();
        let share = |value: f64, length: u32| {
            let within = (value + 0.5).min(f64::from(length) + 0.5 - value);
            within.clamp(0.0, 1.0) as f32
        };
        out.clear();
        for v in 0..INPUT_SIZE {
            for u in 0..INPUT_SIZE {
                let (x, y) = self.at(u, v);
                out.push(share(x, size.width) * share(y, size.height));
            }
        }
    }

    fn at(self, u: usize, v: usize) -> (f64, f64) {
        let (u, v) = (u as f64, v as f64);
        (
            self.x.0 * u + self.x.1 * v + self.x.2,
            self.y.0 * u + self.y.1 * v + self.y.2,
        )
    }
}

/// `(x, y) → (a·x − b·y, b·x + a·y) + shift` with `turn = (a, b)`: a product of complex numbers.
#[derive(Clone, Copy, Debug)]
struct Similarity {
    turn: (f64, f64),
    shift: (f64, f64),
}

impl Similarity {
    /// The least-squares fit of `from` to `to`. In the plane, Umeyama's solution is the complex number
    /// Σ conj(s)·d ÷ Σ|s|² over the points s, d relative to their means. `None` when all points of `from` coincide.
    fn fit(from: &[(f64, f64)], to: &[(f64, f64)]) -> Option<Self> {
        let mean = |points: &[(f64, f64)]| {
            let sum = points
                .iter()
                .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
            (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
        };
        let (middle, target) = (mean(from), mean(to));
        let (mut a, mut b, mut spread) = (0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(to) {
            let s = (from.0 - middle.0, from.1 - middle.1);
            let d = (to.0 - target.0, to.1 - target.1);
            a += s.0 * d.0 + s.1 * d.1;
            b += s.0 * d.1 - s.1 * d.0;
            spread += s.0 * s.0 + s.1 * s.1;
        }
        let turn = (a / spread, b / spread);
        let scale = turn.0.hypot(turn.1);
        (spread > 1e-6 && scale > 1e-9).then_some(Self {
            turn,
            shift: (
                target.0 - turn.0 * middle.0 + turn.1 * middle.1,
                target.1 - turn.1 * middle.0 - turn.0 * middle.1,
            ),
        })
    }

    fn inverse(self) -> Self {
        let square = self.turn.0 * self.turn.0 + self.turn.1 * self.turn.1;
        let (a, b) = (self.turn.0 / square, -self.turn.1 / square);
        Self {
            turn: (a, b),
            shift: (
                -(a * self.shift.0 - b * self.shift.1),
                -(b * self.shift.0 + a * self.shift.1),
            ),
        }
    }
}
