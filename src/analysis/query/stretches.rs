//! Frames of one face that follow one another: what can be smoothed, and what a segment lies in.

use super::Asked;
use crate::labels::{LabelError, Labels, floats, integers};
use affectmill_labelset::VideoStatus;
use affectmill_labelset::schema::column;
use affectmill_spec::{Sampling, SamplingMode};
use polars::prelude::{Expr, col};
use std::collections::{HashMap, HashSet};

/// A face in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub frame: i64,
    /// Presentation time in µs.
    pub time: Option<i64>,
    pub face: i32,
    pub value: f32,
}

/// In a damaged video, frames further apart than so many times the usual have lost some between them.
const JUMP: f64 = 1.5;

/// Sampled frames of one track (where there are no tracks, of one place in the order of faces) without a gap: each is the next
/// sampled frame of the video, and later than the one before; in a damaged video, no longer after it than is usual there.
#[derive(Debug)]
pub(super) struct Stretch {
    pub track: Option<i32>,
    pub points: Vec<Point>,
}

impl Stretch {
    /// The times of its frames; none where one is missing.
    pub fn times(&self) -> Option<Vec<i64>> {
        self.points.iter().map(|point| point.time).collect()
    }
}

/// Shows the stretches of each video, smoothed as asked. What is to be smoothed needs times: where they are missing the
/// video is not shown, and is among those returned.
pub(super) fn each_video(
    labels: &Labels,
    asked: &Asked<'_>,
    mut show: impl FnMut(&str, Vec<Stretch>),
) -> Result<Vec<String>, LabelError> {
    let value = asked
        .quantity
        .value(&asked.model.name, labels.job().job.output.values);
    let columns: [Expr; 5] = [
        col(column::FRAME),
        col(column::TIMESTAMP),
        col(column::FACE),
        col(column::TRACK),
        value.alias("value"),
    ];
    let sampling = &labels.job().job.sampling;
    let step = step(sampling);
    // What is lost before it can be decoded leaves no frame behind, and the next one has the next number: time alone tells. The
    // distances of key frames tell nothing, nor do those of a video that is whole, where a picture may last.
    let damaged: HashSet<&str> = labels
        .videos()
        .filter(|video| video.status == VideoStatus::Partial && sampling.mode != SamplingMode::Keyframes)
        .map(|video| video.key.as_str())
        .collect();
    let mut without_times = Vec::new();
    let mut hand_over = |video: String, gathering: Gathering| {
        let mut stretches = gathering.finish();
        if damaged.contains(video.as_str()) {
            stretches = apart_at_jumps(stretches);
        }
        if let Some(smooth) = asked.smooth {
            for stretch in &mut stretches {
                let Some(times) = stretch.times() else {
                    without_times.push(video);
                    return;
                };
                let values: Vec<f32> = stretch.points.iter().map(|point| point.value).collect();
                let smoothed = smooth.apply(&times, &values);
                let points = stretch.points.iter_mut().zip(smoothed);
                points.for_each(|(point, value)| point.value = value);
            }
        }
        show(&video, stretches);
    };
    let mut current: Option<(String, Gathering)> = None;
    labels.each_video_piece(&columns, |video, rows| {
        if current.as_ref().is_none_or(|(name, _)| name != video) {
            if let Some((video, gathering)) = current.take() {
                hand_over(video, gathering);
            }
            current = Some((video.to_owned(), Gathering::new(step)));
        }
        let Some((_, gathering)) = &mut current else {
            return Ok(());
        };
        let [frames, times, faces, tracks] =
            [column::FRAME, column::TIMESTAMP, column::FACE, column::TRACK].map(|name| integers(&rows, name));
        let (frames, times, faces, tracks) = (frames?, times?, faces?, tracks?);
        for (row, value) in floats(&rows, "value")?.into_iter().enumerate() {
            let frame = frames[row].unwrap_or_default();
            let face = faces[row].zip(value).map(|(face, value)| Point {
                frame,
                time: times[row],
                face: face as i32,
                value,
            });
            gathering.row(frame, face, tracks[row].map(|track| track as i32));
        }
        Ok(())
    })?;
    if let Some((video, gathering)) = current {
        hand_over(video, gathering);
    }
    Ok(without_times)
}

/// How far apart sampled frames lie, where that is fixed: more is a gap, even where no row tells of it, as of images or crops
/// that are missing.
fn step(sampling: &Sampling) -> Option<i64> {
    match sampling.mode {
        SamplingMode::Every => Some(1),
        SamplingMode::Stride => sampling.stride.map(|stride| stride as i64),
        SamplingMode::Fps | SamplingMode::Keyframes => None,
    }
}

/// Parts stretches where time jumps.
fn apart_at_jumps(stretches: Vec<Stretch>) -> Vec<Stretch> {
    let distance = |a: &Point, b: &Point| Some(b.time? - a.time?);
    let pairs = stretches.iter().flat_map(|stretch| stretch.points.windows(2));
    let mut distances: Vec<i64> = pairs.filter_map(|pair| distance(&pair[0], &pair[1])).collect();
    distances.sort_unstable();
    let Some(&usual) = distances.get(distances.len() / 2) else {
        return stretches;
    };
    let near = |a: &Point, b: &Point| distance(a, b).is_none_or(|found| found as f64 <= JUMP * usual as f64);
    let mut parted = Vec::with_capacity(stretches.len());
    for stretch in &stretches {
        parted.extend(stretch.points.chunk_by(near).map(|points| Stretch {
            track: stretch.track,
            points: points.into(),
        }));
    }
    parted.sort_by_key(first);
    parted
}

/// What stretches are ordered by.
fn first(stretch: &Stretch) -> Option<(i64, i32)> {
    stretch.points.first().map(|point| (point.frame, point.face))
}

/// What tells faces apart: the track, or else the place in the order of faces.
type Key = Result<i32, i32>;

/// The stretches of a video under way.
struct Gathering {
    step: Option<i64>,
    /// The frame of the row before, and the one sampled before that one.
    frames: (Option<i64>, Option<i64>),
    open: HashMap<Key, Stretch>,
    done: Vec<Stretch>,
}

impl Gathering {
    fn new(step: Option<i64>) -> Self {
        Self {
            step,
            frames: (None, None),
            open: HashMap::new(),
            done: Vec::new(),
        }
    }

    /// Takes the next row of the video.
    fn row(&mut self, frame: i64, face: Option<Point>, track: Option<i32>) {
        if self.frames.0 != Some(frame) {
            self.frames = (Some(frame), self.frames.0);
        }
        let Some(point) = face else { return };
        let key = track.ok_or(point.face);
        let stretch = self.open.entry(key).or_insert_with(|| Stretch {
            track,
            points: Vec::new(),
        });
        let follows = stretch.points.last().is_none_or(|last| {
            let next = self.frames.1 == Some(last.frame);
            let near = self.step.is_none_or(|step| frame - last.frame == step);
            let later = last.time.zip(point.time).is_none_or(|(last, time)| time > last);
            next && near && later
        });
        if !follows {
            let points = std::mem::take(&mut stretch.points);
            self.done.push(Stretch { track, points });
        }
        stretch.points.push(point);
    }

    fn finish(mut self) -> Vec<Stretch> {
        self.done.extend(self.open.into_values());
        self.done.sort_by_key(first);
        self.done
    }
}
