//! Coarse luma patterns of picture regions, to detect scene cuts and to verify interpolated boxes.

use affectmill_base::Rect;
use affectmill_media::decode::{Colour, Component, Picture};
use affectmill_nn::ModelError;

/// Luma samples of a cell's side.
const PER_CELL: usize = 3;
/// Cells of a face's side.
const FACE_CELLS: usize = 16;
/// Cells of a frame's side.
const FRAME_CELLS: usize = 32;
/// Standard deviation in grey levels below which a patch is flat.
const FLAT: f32 = 2.0;
/// Score of a scene cut, in percent: the default of ffmpeg's `scdet` filter.
const CUT: f32 = 10.0;

/// Mean luma code, 0…255, of each cell of a box: `cells` rows of `cells`, in stored orientation.
fn luma(picture: &Picture, rect: Rect, cells: usize) -> Result<Vec<f32>, ModelError> {
    let index = if picture.colour() == Colour::Rgb { 1 } else { 0 };
    let component = picture.components()[index];
    let samples = picture.samples();
    let size = picture.size();
    let stored = picture.stored();
    let turn = picture.orientation();
    // The box's corners in the stored picture.
    let place = |x: f32, y: f32| {
        let (width, height) = (size.width as f32, size.height as f32);
        let (x, y) = match turn.quarter_turns % 4 {
            0 => (x, y),
            1 => (y, width - x),
            2 => (width - x, height - y),
            _ => (height - y, x),
        };
        (if turn.mirrored { stored.width as f32 - x } else { x }, y)
    };
    let (a, b) = (place(rect.x, rect.y), place(rect.x + rect.w, rect.y + rect.h));
    let line = |from: f32, to: f32, limit: u32| -> Vec<usize> {
        let (first, length) = (from.min(to), (to - from).abs());
        let steps = cells * PER_CELL;
        let at = |i| ((first + (i as f32 + 0.5) * length / steps as f32) as usize).min(limit as usize - 1);
        (0..steps).map(at).collect()
    };
    let columns = line(a.0, b.0, component.size.width);
    let rows = line(a.1, b.1, component.size.height);
    let codes = match picture.gpu_picture() {
        Some(gpu_picture) => {
            let index = |line: &[usize]| -> Vec<i64> { line.iter().map(|&at| at as i64).collect() };
            let mut codes = gpu_picture.codes(&component.layout(), &index(&rows), &index(&columns))?;
            let to_8_bits = match samples.bytes {
                1 => 1.0,
                _ => f32::from(1u16 << samples.justify) / 256.0,
            };
            codes.iter_mut().for_each(|code| *code *= to_8_bits);
            codes
        }
        None => codes(picture, &component, &rows, &columns),
    };
    let mut sums = vec![0.0; cells * cells];
    for (i, row) in codes.chunks_exact(columns.len()).enumerate() {
        for (j, code) in row.iter().enumerate() {
            sums[i / PER_CELL * cells + j / PER_CELL] += code;
        }
    }
    let count = (PER_CELL * PER_CELL) as f32;
    sums.iter_mut().for_each(|sum| *sum /= count);
    Ok(sums)
}

/// The codes of a component, 0…255, at the given rows and columns, of a picture in host memory.
fn codes(picture: &Picture, component: &Component, rows: &[usize], columns: &[usize]) -> Vec<f32> {
    let (plane, samples) = (picture.plane(component.plane), picture.samples());
    let mut codes = Vec::with_capacity(rows.len() * columns.len());
    for &y in rows {
        let row = plane.row(y);
        for &x in columns {
            let at = component.offset + x * component.step;
            codes.push(if samples.bytes == 1 {
                f32::from(row[at])
            } else {
                let code = u16::from_le_bytes([row[2 * at], row[2 * at + 1]]) << samples.justify;
                f32::from(code) / 256.0
            });
        }
    }
    codes
}

/// A box's luma pattern, of mean 0 and length 1; `None` when it is flat.
#[derive(Default)]
pub(super) struct PatchSimilarity(Option<Vec<f32>>);

impl PatchSimilarity {
    /// The pattern of a box inside the picture.
    pub fn of(picture: &Picture, rect: Rect) -> Result<Self, ModelError> {
        let mut cells = luma(picture, rect, FACE_CELLS)?;
        let count = cells.len() as f32;
        let mean = cells.iter().sum::<f32>() / count;
        cells.iter_mut().for_each(|cell| *cell -= mean);
        let length = cells.iter().map(|cell| cell * cell).sum::<f32>().sqrt();
        if length / count.sqrt() < FLAT {
            return Ok(Self(None));
        }
        cells.iter_mut().for_each(|cell| *cell /= length);
        Ok(Self(Some(cells)))
    }

    /// Normalised cross-correlation, −1 to 1; 1 for two flat patches, 0 for a flat and another one.
    pub fn with(&self, other: &Self) -> f32 {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| a * b).sum(),
            (None, None) => 1.0,
            _ => 0.0,
        }
    }
}

/// Detects scene cuts like ffmpeg's `scdet` filter, but on cell means of a coarse grid: the score is the mean absolute luma
/// difference to the previous frame, or the change of that difference when it is smaller, so that steady motion is no cut.
#[derive(Default)]
pub struct Cuts {
    last: Vec<f32>,
    difference: f32,
}

impl Cuts {
    /// Resets, for another video.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a cut lies between the previous frame and this one.
    ///
    /// # Errors
    /// [`ModelError`] when the GPU on which the picture lies fails.
    pub fn seen(&mut self, picture: &Picture) -> Result<bool, ModelError> {
        let cells = luma(picture, Rect::whole(picture.size()), FRAME_CELLS)?;
        let last = std::mem::replace(&mut self.last, cells);
        if last.is_empty() {
            return Ok(false);
        }
        let sum: f32 = last.iter().zip(&self.last).map(|(a, b)| (a - b).abs()).sum();
        let difference = sum / last.len() as f32 * 100.0 / 256.0;
        let before = std::mem::replace(&mut self.difference, difference);
        Ok(difference.min((difference - before).abs()) >= CUT)
    }
}
