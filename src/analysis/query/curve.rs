//! A quantity frame by frame, smoothed or not.

use super::stretches::{Stretch, each_video};
use super::{Answer, Asked, seconds};
use crate::labels::{LabelError, Labels};
use polars::prelude::*;

pub(super) fn answer(labels: &Labels, asked: &Asked<'_>) -> Result<Answer, LabelError> {
    let mut curves = table("", &[])?;
    let mut failed = None;
    let without_times = each_video(labels, asked, |video, mut stretches| {
        // Track by track within a video: sorting the whole would double it.
        stretches.sort_by_key(|stretch| (stretch.track, stretch.points.first().map(|point| point.frame)));
        let stacked = table(video, &stretches).and_then(|rows| curves.vstack_mut_owned(rows).map(|_| ()));
        if let Err(error) = stacked {
            failed.get_or_insert(error);
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let of = asked.of();
    Ok(Answer {
        caption: format!("{of} in each frame, track by track"),
        of: Some(of),
        table: curves,
        without_times,
        untrained: asked.untrained(),
    })
}

fn table(video: &str, stretches: &[Stretch]) -> PolarsResult<DataFrame> {
    let rows = stretches.iter().map(|stretch| stretch.points.len()).sum();
    let each = || stretches.iter().flat_map(|stretch| &stretch.points);
    let tracks = stretches
        .iter()
        .flat_map(|stretch| std::iter::repeat_n(stretch.track, stretch.points.len()));
    let mut table = df!(
        "track" => tracks.collect::<Vec<_>>(),
        "time_s" => each().map(|point| point.time.map(seconds)).collect::<Vec<_>>(),
        "frame" => each().map(|point| point.frame).collect::<Vec<_>>(),
        "face" => each().map(|point| point.face).collect::<Vec<_>>(),
        "value" => each().map(|point| point.value).collect::<Vec<_>>(),
    )?;
    let video = StringChunked::full("video".into(), video, rows);
    table.insert_column(0, video.into_column())?;
    Ok(table)
}
