//! When a quantity holds at or above a threshold.

use super::stretches::{Point, each_video};
use super::{Answer, Asked, clock, seconds};
use crate::labels::{LabelError, Labels};
use polars::prelude::*;

/// A segment, with the times of its first and last frame.
struct Segment {
    video: String,
    track: Option<i32>,
    times: (i64, i64),
    frames: (i64, i64),
    mean: f64,
    peak: f32,
}

impl Segment {
    /// In µs.
    fn length(&self) -> i64 {
        self.times.1.saturating_sub(self.times.0)
    }
}

pub(super) fn answer(
    labels: &Labels,
    asked: &Asked<'_>,
    threshold: f32,
    min_seconds: f64,
) -> Result<Answer, LabelError> {
    let shortest = (min_seconds * 1e6).round() as i64;
    let mut segments = Vec::new();
    let mut timeless = Vec::new();
    let mut without_times = each_video(labels, asked, |video, stretches| {
        let mut of_video = Vec::new();
        for stretch in &stretches {
            for points in stretch
                .points
                .chunk_by(|a, b| (a.value >= threshold) == (b.value >= threshold))
            {
                if points[0].value < threshold {
                    continue;
                }
                match segment(video, stretch.track, points) {
                    Some(segment) => of_video.push(segment),
                    None => return timeless.push(video.to_owned()),
                }
            }
        }
        of_video.retain(|segment| segment.length() >= shortest);
        segments.append(&mut of_video);
    })?;
    without_times.append(&mut timeless);
    segments.sort_by(|a, b| (&a.video, a.times.0, a.track).cmp(&(&b.video, b.times.0, b.track)));
    let of = asked.of();
    let long = match min_seconds {
        0.0 => String::new(),
        _ => format!(" for {min_seconds} s or longer"),
    };
    Ok(Answer {
        caption: format!(
            "segments where {of} is {threshold} or more{long}; start and end are the first and last frame of it"
        ),
        of: Some(of),
        table: table(&segments)?,
        without_times,
        untrained: asked.untrained(),
    })
}

fn segment(video: &str, track: Option<i32>, points: &[Point]) -> Option<Segment> {
    let (first, last) = (points.first()?, points.last()?);
    let values = || points.iter().map(|point| point.value);
    Some(Segment {
        video: video.to_owned(),
        track,
        times: (first.time?, last.time?),
        frames: (first.frame, last.frame),
        mean: values().map(f64::from).sum::<f64>() / points.len() as f64,
        peak: values().fold(f32::NEG_INFINITY, f32::max),
    })
}

fn table(segments: &[Segment]) -> PolarsResult<DataFrame> {
    let each = || segments.iter();
    df!(
        "video" => each().map(|segment| segment.video.as_str()).collect::<Vec<_>>(),
        "track" => each().map(|segment| segment.track).collect::<Vec<_>>(),
        "start" => each().map(|segment| clock(segment.times.0)).collect::<Vec<_>>(),
        "start_s" => each().map(|segment| seconds(segment.times.0)).collect::<Vec<_>>(),
        "end_s" => each().map(|segment| seconds(segment.times.1)).collect::<Vec<_>>(),
        "seconds" => each().map(|segment| seconds(segment.length())).collect::<Vec<_>>(),
        "first_frame" => each().map(|segment| segment.frames.0).collect::<Vec<_>>(),
        "last_frame" => each().map(|segment| segment.frames.1).collect::<Vec<_>>(),
        "mean" => each().map(|segment| segment.mean).collect::<Vec<_>>(),
        "peak" => each().map(|segment| segment.peak).collect::<Vec<_>>(),
    )
}
