//! Resamples the planes of a picture to a model's input, without an RGB picture in between.
//!
//! Each component (Y′, Cb, Cr, or R′, G′, B′, or grey) is resampled to the output's size by an antialiased triangle filter that
//! honours its chroma location; then follow the colour matrix, clipping to 0…255, and the normalisation. The result equals a
//! conversion to RGB and a resize with Pillow's antialiased bilinear filter, without their roundings to 8 bits.
//!
//! Rows are mixed first, in 16-bit fixed point over whole rows, because nearly all samples are read there. Truncating one
//! product loses half of 1/256 grey level on average, which is added back.

use super::colour::{colour, normalised};
use super::filter::Filter;
use affectmill_base::INPUT_SIZE;
use affectmill_base::{Face, Orientation, Rect, Size};
use affectmill_media::decode::{Component, Picture, Samples};

/// Added to 8-bit codes after widening to 16 bits, and subtracted at the end: with non-zero low bits the compiler uses 16-bit
/// multiplications, 2.5 times as fast for 1080p.
const HALF: u16 = 128;

/// Why a face could not be prepared.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PrepareError {
    /// The box is empty, not finite, or leaves the picture.
    #[error("the face box {rect:?} is not inside the picture of {} × {} pixels; clip boxes to the picture", .size.width, .size.height)]
    Outside {
        /// The box.
        rect: Rect,
        /// The displayed picture.
        size: Size,
    },
    /// The crop recipe needs five landmarks.
    #[error(
        "the face has no five landmarks apart from one another, which this crop recipe aligns by; choose `square` or `box`"
    )]
    Landmarks,
    /// The output buffer has the wrong length.
    #[error("the output holds {found} numbers where one input has {expected}; pass a slice of that length")]
    Length {
        /// Required elements.
        expected: usize,
        /// Elements given.
        found: usize,
    },
}

/// Makes model inputs; reuses its filters while the geometry stays the same.
#[derive(Default)]
pub struct Preparer {
    plan: Option<Plan>,
    /// One mixed row of a plane.
    mixed: Vec<u16>,
    /// One component of it.
    line: Vec<f32>,
    /// The three components at the output's size, as 16-bit codes.
    small: [Vec<f32>; 3],
    /// A stored picture's result before it is rotated.
    unrotated: Vec<f32>,
}

impl Preparer {
    /// A preparer without filters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the face as `[3, 128, 128]` f32, RGB planes, ImageNet-normalised, in displayed orientation.
    ///
    /// The box is cropped in displayed pixels and resized to a square; samples just outside contribute to its border as in
    /// Pillow's `resize(box=…)`.
    ///
    /// # Errors
    /// When the box is empty or leaves the picture, or `out` is not 3·128·128 long.
    pub fn prepare(&mut self, picture: &Picture, face: &Face, out: &mut [f32]) -> Result<(), PrepareError> {
        let square = Size {
            width: INPUT_SIZE as u32,
            height: INPUT_SIZE as u32,
        };
        self.resample(picture, face.rect, square, out, |value, channel, _| {
            normalised(value, channel)
        })
    }

    /// Writes the whole picture, resized to `size`, as `[3, height, width]` f32, RGB planes of 0…255, in displayed orientation.
    ///
    /// # Errors
    /// When `out` is not 3·width·height long.
    pub fn shrink(&mut self, picture: &Picture, size: Size, out: &mut [f32]) -> Result<(), PrepareError> {
        let whole = Rect::whole(picture.size());
        self.resample(picture, whole, size, out, |value, _, _| value)
    }

    #[inline(always)]
    fn resample(
        &mut self,
        picture: &Picture,
        rect: Rect,
        size: Size,
        out: &mut [f32],
        finish: impl Fn(f32, usize, usize) -> f32,
    ) -> Result<(), PrepareError> {
        let pixels = size.width as usize * size.height as usize;
        if out.len() != 3 * pixels {
            return Err(PrepareError::Length {
                expected: 3 * pixels,
                found: out.len(),
            });
        }
        let region = Region::of(picture, rect)?;
        let turn = picture.orientation();
        // A quarter turn swaps the sides in both directions.
        let stored = turn.displayed(size);
        if !self
            .plan
            .as_ref()
            .is_some_and(|plan| plan.fits(picture, region, stored))
        {
            self.plan = Some(Plan::new(picture, region, stored));
        }
        let Self {
            plan: Some(plan),
            mixed,
            line,
            small,
            unrotated,
        } = self
        else {
            return Ok(());
        };
        for group in &plan.planes {
            group.resample(picture, stored, mixed, line, small);
        }
        if turn == Orientation::default() {
            colour(picture, small, out, finish);
        } else {
            unrotated.resize(3 * pixels, 0.0);
            colour(picture, small, unrotated, finish);
            for (from, to) in unrotated.chunks_exact(pixels).zip(out.chunks_exact_mut(pixels)) {
                rotated(from, turn, stored, to);
            }
        }
        Ok(())
    }
}

/// A box in pixels of the stored picture.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Region {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Region {
    /// A component's horizontal filter, for `columns` outputs.
    pub fn across(self, component: &Component, columns: usize) -> Filter {
        let pitch = f64::from(component.pitch.0);
        let start = self.x / pitch + component.site.0;
        Filter::new(component.size.width as usize, start, self.w / pitch, columns)
    }

    /// A component's vertical filter, for `rows` outputs.
    pub fn down(self, component: &Component, rows: usize) -> Filter {
        let pitch = f64::from(component.pitch.1);
        let start = self.y / pitch + component.site.1;
        Filter::new(component.size.height as usize, start, self.h / pitch, rows)
    }

    /// Transforms a box of the displayed picture to the stored one.
    pub fn of(picture: &Picture, rect: Rect) -> Result<Self, PrepareError> {
        let size = picture.size();
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        let [x, y, w, h] = [rect.x, rect.y, rect.w, rect.h].map(f64::from);
        let inside = x >= 0.0 && y >= 0.0 && w > 0.0 && h > 0.0 && x + w <= width && y + h <= height;
        if !inside {
            return Err(PrepareError::Outside { rect, size });
        }
        let turn = picture.orientation();
        let stored = match turn.quarter_turns % 4 {
            0 => Self { x, y, w, h },
            1 => Self {
                x: y,
                y: width - x - w,
                w: h,
                h: w,
            },
            2 => Self {
                x: width - x - w,
                y: height - y - h,
                w,
                h,
            },
            _ => Self {
                x: height - y - h,
                y: x,
                w: h,
                h: w,
            },
        };
        let mirrored = f64::from(picture.stored().width) - stored.x - stored.w;
        Ok(if turn.mirrored {
            Self {
                x: mirrored,
                ..stored
            }
        } else {
            stored
        })
    }
}

/// The filters for one geometry.
struct Plan {
    components: Vec<Component>,
    region: Region,
    /// The output before it is rotated.
    size: Size,
    planes: Vec<PlanePlan>,
}

/// The filters for the components that share a plane and so its rows.
struct PlanePlan {
    plane: usize,
    /// For each output row, its first input row and the fractions of the input rows.
    rows: Vec<(usize, Vec<u16>)>,
    /// Half-open range of the samples used in a row.
    samples: (usize, usize),
    /// Index of the component, the component, its horizontal filter.
    across: Vec<(usize, Component, Filter)>,
}

impl Plan {
    fn fits(&self, picture: &Picture, region: Region, size: Size) -> bool {
        (self.region, self.size) == (region, size) && self.components == picture.components()
    }

    fn new(picture: &Picture, region: Region, output: Size) -> Self {
        let (columns, rows) = (output.width as usize, output.height as usize);
        let components = picture.components().to_vec();
        let mut planes: Vec<PlanePlan> = Vec::new();
        for (index, &component) in components.iter().enumerate() {
            let across = region.across(&component, columns);
            let (first, end) = across.range();
            let at = |sample: usize| component.offset + sample * component.step;
            let (first, end) = (at(first), at(end - 1) + 1);
            if let Some(group) = planes.iter_mut().find(|group| group.plane == component.plane) {
                group.samples = (group.samples.0.min(first), group.samples.1.max(end));
                group.across.push((index, component, across));
                continue;
            }
            let down = region.down(&component, rows);
            let rows = (0..rows).map(|output| (down.spans[output].0, down.fractions(output)));
            planes.push(PlanePlan {
                plane: component.plane,
                rows: rows.collect(),
                samples: (first, end),
                across: vec![(index, component, across)],
            });
        }
        Self {
            components,
            region,
            size: output,
            planes,
        }
    }
}

impl PlanePlan {
    /// Fills `small` for the components of this plane.
    fn resample(
        &self,
        picture: &Picture,
        size: Size,
        mixed: &mut Vec<u16>,
        line: &mut Vec<f32>,
        small: &mut [Vec<f32>; 3],
    ) {
        let plane = picture.plane(self.plane);
        let Samples { bytes, justify, .. } = picture.samples();
        let (first, end) = self.samples;
        let columns = size.width as usize;
        let row = |y: usize| &plane.row(y)[first * bytes..end * bytes];
        mixed.resize(end - first, 0);
        for (index, ..) in &self.across {
            small[*index].resize(columns * size.height as usize, 0.0);
        }
        for (output, (top, fractions)) in self.rows.iter().enumerate() {
            mixed.fill(0);
            for (pair, two) in fractions.chunks(2).enumerate() {
                let y = top + 2 * pair;
                // An odd last row is mixed with itself at no weight.
                let (upper, lower) = (row(y), row(y + two.len() - 1));
                let weights = (two[0], if two.len() == 2 { two[1] } else { 0 });
                if bytes == 1 {
                    mix(mixed, upper, lower, weights, |code| u16::from(code) << 8 | HALF);
                } else {
                    let (upper, lower) = (upper.as_chunks::<2>().0, lower.as_chunks::<2>().0);
                    mix(mixed, upper, lower, weights, |code| {
                        u16::from_le_bytes(code) << justify
                    });
                }
            }
            let truncated = fractions.len() as f32 / 2.0 - if bytes == 1 { f32::from(HALF) } else { 0.0 };
            for (index, component, filter) in &self.across {
                let (origin, last) = filter.range();
                let from = &mixed[component.offset + origin * component.step - first..];
                line.clear();
                if component.step == 1 {
                    line.extend(
                        from[..last - origin]
                            .iter()
                            .map(|&code| f32::from(code) + truncated),
                    );
                } else {
                    let own = from.iter().step_by(component.step).take(last - origin);
                    line.extend(own.map(|&code| f32::from(code) + truncated));
                }
                line.resize(last - origin + filter.pitch(), 0.0);
                filter.apply(line, origin, &mut small[*index][output * columns..][..columns]);
            }
        }
    }
}

/// Adds two weighted rows: `mixed += upper·w₀ + lower·w₁`, weights in units of 2⁻¹⁶. The weights of one output row
/// sum to less than 1, so nothing overflows.
#[inline(always)]
fn mix<S: Copy>(mixed: &mut [u16], upper: &[S], lower: &[S], weights: (u16, u16), widen: impl Fn(S) -> u16) {
    let times = |code: S, weight: u16| ((u32::from(widen(code)) * u32::from(weight)) >> 16) as u16;
    for ((sum, &upper), &lower) in mixed.iter_mut().zip(upper).zip(lower) {
        *sum = sum
            .wrapping_add(times(upper, weights.0))
            .wrapping_add(times(lower, weights.1));
    }
}

/// Rotates one plane of `stored` size to displayed orientation.
fn rotated(from: &[f32], turn: Orientation, stored: Size, to: &mut [f32]) {
    let (width, height) = (stored.width as usize, stored.height as usize);
    let columns = turn.displayed(stored).width as usize;
    for (row, to) in to.chunks_exact_mut(columns).enumerate() {
        for (column, to) in to.iter_mut().enumerate() {
            let (x, y) = match turn.quarter_turns % 4 {
                0 => (column, row),
                1 => (row, height - 1 - column),
                2 => (width - 1 - column, height - 1 - row),
                _ => (width - 1 - row, column),
            };
            let x = if turn.mirrored { width - 1 - x } else { x };
            *to = from[y * width + x];
        }
    }
}
