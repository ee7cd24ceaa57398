//! Timelines of single videos: as many points as a chart can show, whatever their length.

use super::figures::{Point, Timeline};
use affectmill_base::{ACTION_UNITS, EXPRESSIONS};
use affectmill_labelset::VideoOutcome;
use affectmill_labelset::rows::LabelColumns;
use std::collections::BTreeMap;

/// Stretches of a timeline.
pub const BINS: usize = 240;

/// Sums of the videos that are shown.
pub struct Timelines {
    videos: BTreeMap<String, Vec<Sums>>,
    /// In which order they are shown, and their frames.
    order: Vec<(String, u64)>,
    expressions: Option<usize>,
    units: Option<usize>,
}

#[derive(Clone, Default)]
struct Sums {
    faces: u64,
    frame: f64,
    seconds: f64,
    timed: u64,
    planes: Vec<Means<2>>,
    expressions: Means<{ EXPRESSIONS.len() }>,
    units: Means<{ ACTION_UNITS.len() }>,
}

/// Sums over the faces for which a model gave numbers.
#[derive(Clone)]
struct Means<const N: usize> {
    faces: u64,
    sums: [f64; N],
}

impl<const N: usize> Default for Means<N> {
    fn default() -> Self {
        Self {
            faces: 0,
            sums: [0.0; N],
        }
    }
}

impl<const N: usize> Means<N> {
    fn add(&mut self, columns: &[Vec<f32>; N], row: usize) {
        if columns[0][row].is_nan() {
            return;
        }
        self.faces += 1;
        for (sum, column) in self.sums.iter_mut().zip(columns) {
            *sum += f64::from(column[row]);
        }
    }

    fn finish(&self) -> Option<[f32; N]> {
        (self.faces > 0).then(|| self.sums.map(|sum| (sum / self.faces as f64) as f32))
    }
}

impl Timelines {
    /// Of these videos, with the expressions and action units of these models among those that have them.
    pub fn new(shown: &[&VideoOutcome], expressions: Option<usize>, units: Option<usize>) -> Self {
        let order: Vec<_> = shown
            .iter()
            .map(|video| (video.key.as_str().to_owned(), video.frames))
            .collect();
        let empty = |(video, _): &(String, u64)| (video.clone(), vec![Sums::default(); BINS]);
        Self {
            videos: order.iter().map(empty).collect(),
            order,
            expressions,
            units,
        }
    }

    /// Counts the largest face of each frame.
    pub fn add(&mut self, rows: &LabelColumns, labelled: &[usize]) {
        let mut before: Option<(&str, i64)> = None;
        for &row in labelled {
            let at = (rows.videos.get(row).unwrap_or_default(), rows.frames[row]);
            let first_of_frame = before.replace(at) != Some(at);
            let Some(bins) = self.videos.get_mut(at.0).filter(|_| first_of_frame) else {
                continue;
            };
            let frames = self
                .order
                .iter()
                .find(|(video, _)| video == at.0)
                .map_or(1, |(_, frames)| *frames);
            let bin = (at.1.max(0) as u128 * BINS as u128 / u128::from(frames.max(1))) as usize;
            let sums = &mut bins[bin.min(BINS - 1)];
            sums.faces += 1;
            sums.frame += at.1 as f64;
            if let Some(time) = rows.timestamps[row] {
                sums.timed += 1;
                sums.seconds += time as f64 / 1e6;
            }
            sums.planes.resize(rows.planes.len(), Means::default());
            for (sums, columns) in sums.planes.iter_mut().zip(&rows.planes) {
                sums.add(columns, row);
            }
            if let Some(model) = self.expressions {
                sums.expressions.add(&rows.expressions[model].probabilities, row);
            }
            if let Some(model) = self.units {
                sums.units.add(&rows.units[model], row);
            }
        }
    }

    /// What came out, in the order they were asked for.
    pub fn finish(mut self, outcomes: &[&VideoOutcome]) -> Vec<Timeline> {
        let timeline = |(video, _): (String, u64)| {
            let bins = self.videos.remove(&video)?;
            let in_seconds = bins.iter().all(|sums| sums.timed == sums.faces);
            let faces = outcomes.iter().find(|outcome| outcome.key.as_str() == video);
            let points = bins.into_iter().enumerate().filter(|(_, sums)| sums.faces > 0);
            Some(Timeline {
                faces: faces.map_or(0, |outcome| outcome.faces),
                in_seconds,
                points: points.map(|(bin, sums)| sums.finish(bin, in_seconds)).collect(),
                video,
            })
        };
        self.order.into_iter().filter_map(timeline).collect()
    }
}

impl Sums {
    fn finish(self, bin: usize, in_seconds: bool) -> Point {
        Point {
            bin,
            x: if in_seconds { self.seconds } else { self.frame } / self.faces as f64,
            valence_arousal: self.planes.iter().map(Means::finish).collect(),
            expressions: self.expressions.finish(),
            action_units: self.units.finish(),
        }
    }
}
