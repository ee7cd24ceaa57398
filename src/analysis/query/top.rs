//! The frames where a quantity is largest.

use super::stretches::{Point, Stretch, each_video};
use super::{Answer, Asked, clock, seconds};
use crate::labels::{LabelError, Labels};
use polars::prelude::*;
use std::cmp::Ordering;

/// A face in a frame of a video.
struct Found {
    video: String,
    track: Option<i32>,
    point: Point,
}

impl Found {
    /// Largest first; of equals, by video, frame and face.
    fn order(&self, other: &Self) -> Ordering {
        let place = |found: &Self| (found.point.frame, found.point.face);
        let by_value = other.point.value.total_cmp(&self.point.value);
        by_value.then_with(|| (&self.video, place(self)).cmp(&(&other.video, place(other))))
    }
}

pub(super) fn answer(
    labels: &Labels,
    asked: &Asked<'_>,
    count: usize,
    apart_seconds: f64,
) -> Result<Answer, LabelError> {
    let apart = (apart_seconds * 1e6).round() as u64;
    let mut best: Vec<Found> = Vec::new();
    let without_times = each_video(labels, asked, |video, stretches| {
        best.extend(of_video(video, &stretches, count, apart));
        best.sort_by(Found::order);
        best.truncate(count);
    })?;
    let of = asked.of();
    let spread = match apart_seconds {
        0.0 => String::new(),
        _ => format!(", {apart_seconds} s or more apart"),
    };
    Ok(Answer {
        caption: format!("the frames where {of} is largest{spread}"),
        of: Some(of),
        table: table(&best)?,
        without_times,
        untrained: asked.untrained(),
    })
}

/// The best of one video, none too near to a better one of its track.
fn of_video(video: &str, stretches: &[Stretch], count: usize, apart: u64) -> Vec<Found> {
    let points = stretches
        .iter()
        .flat_map(|stretch| stretch.points.iter().map(|&point| (stretch.track, point)));
    let mut points: Vec<(Option<i32>, Point)> = points.collect();
    points.sort_by(|(_, a), (_, b)| {
        let by_value = b.value.total_cmp(&a.value);
        by_value.then_with(|| (a.frame, a.face).cmp(&(b.frame, b.face)))
    });
    let mut best: Vec<Found> = Vec::new();
    for (track, point) in points {
        if best.len() == count {
            break;
        }
        let near = |found: &Found| {
            let same = found.track == track && (track.is_some() || found.point.face == point.face);
            let times = found.point.time.zip(point.time);
            same && times.is_some_and(|(a, b)| a.abs_diff(b) < apart)
        };
        if !best.iter().any(near) {
            best.push(Found {
                video: video.to_owned(),
                track,
                point,
            });
        }
    }
    best
}

fn table(best: &[Found]) -> PolarsResult<DataFrame> {
    let each = || best.iter().map(|found| &found.point);
    df!(
        "video" => best.iter().map(|found| found.video.as_str()).collect::<Vec<_>>(),
        "time" => each().map(|point| point.time.map(clock)).collect::<Vec<_>>(),
        "time_s" => each().map(|point| point.time.map(seconds)).collect::<Vec<_>>(),
        "frame" => each().map(|point| point.frame).collect::<Vec<_>>(),
        "face" => each().map(|point| point.face).collect::<Vec<_>>(),
        "track" => best.iter().map(|found| found.track).collect::<Vec<_>>(),
        "value" => each().map(|point| point.value).collect::<Vec<_>>(),
    )
}
