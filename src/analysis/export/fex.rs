//! py-feat's Fex CSV, as its first detector writes it: box, action units and emotions as probabilities.
//!
//! Its second detector's files are told by valence and arousal, and hold a mesh of 478 points that nobody here finds: so
//! valence and arousal stay out, and `read_feat` takes the file for the first's.

use super::folder::Folder;
use super::{Exported, of_task};
use crate::export::per_video;
use crate::export::per_video::{Scores, padded};
use crate::labels::{LabelError, Labels, Quantity, floats, integers};
use crate::table::FORMULA;
use affectmill_base::Task;
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use polars::prelude::{PolarsResult, col};
use std::borrow::Cow;
use std::fmt::Write;
use std::str::FromStr;

/// py-feat's name and order of the expressions.
const EMOTIONS: [(&str, &str); 7] = [
    ("anger", "Anger"),
    ("disgust", "Disgust"),
    ("fear", "Fear"),
    ("happiness", "Happiness"),
    ("sadness", "Sadness"),
    ("surprise", "Surprise"),
    ("neutral", "Neutral"),
];

pub(super) fn write(
    labels: &Labels,
    folder: &Folder,
    chosen: &[(Task, &ModelRecord)],
) -> Result<Exported, LabelError> {
    let values = labels.job().job.output.values;
    let mut header = String::from("FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore");
    let mut columns = [
        column::FRAME,
        column::TIMESTAMP,
        column::FACE,
        column::TRACK,
        column::FACE_SCORE,
    ]
    .map(col)
    .to_vec();
    columns.extend(column::BOX.map(col));
    // The value columns in order; emotions without a model stay empty, because the reader wants them.
    let mut shown: Vec<Option<String>> = Vec::new();
    if let Some(model) = of_task(chosen, Task::Au) {
        for unit in Quantity::of(Task::Au) {
            let name = padded(unit.name());
            header += &format!(",{name}");
            columns.push(unit.value(&model.name, values).alias(name.as_str()));
            shown.push(Some(name));
        }
    }
    let model = of_task(chosen, Task::Expr);
    for (name, class) in EMOTIONS {
        header += &format!(",{name}");
        let quantity = model.zip(Quantity::from_str(class).ok());
        if let Some((model, class)) = quantity {
            columns.push(class.value(&model.name, values).alias(name));
        }
        shown.push(model.map(|_| name.to_owned()));
    }
    header += ",input,frame,approx_time,Identity";

    let mut scores = Scores::default();
    per_video::write(labels, folder, &columns, &header, |video, first, rows, text| {
        if first {
            scores = Scores::default();
        }
        let [frames, times, faces, tracks] =
            [column::FRAME, column::TIMESTAMP, column::FACE, column::TRACK].map(|name| integers(rows, name));
        let (frames, times, faces, tracks) = (frames?, times?, faces?, tracks?);
        let found = floats(rows, column::FACE_SCORE)?;
        let boxes: Vec<Vec<Option<f32>>> = column::BOX
            .iter()
            .map(|name| floats(rows, name))
            .collect::<PolarsResult<_>>()?;
        let shown: Vec<Option<Vec<Option<f32>>>> = shown
            .iter()
            .map(|name| name.as_ref().map(|name| floats(rows, name)).transpose())
            .collect::<PolarsResult<_>>()?;
        let input = quoted(&as_path(video));
        for row in 0..rows.height() {
            for side in &boxes {
                number(text, side[row]);
            }
            // A frame without a face is a row of empty cells, as py-feat has it.
            let score = faces[row].map(|_| scores.of(tracks[row], found[row]));
            number(text, score);
            for column in &shown {
                number(text, column.as_ref().and_then(|column| column[row]));
            }
            let _ = write!(text, "{input},{},", frames[row].unwrap_or_default());
            if let Some(time) = times[row] {
                let seconds = time.max(0) / 1_000_000;
                let _ = write!(text, "{:02}:{:02}", seconds / 60, seconds % 60);
            }
            text.push(',');
            if let Some(person) = faces[row].map(|face| tracks[row].unwrap_or(face)) {
                let _ = write!(text, "Person_{person}");
            }
            text.push('\n');
        }
        Ok(())
    })
}

fn number(text: &mut String, value: Option<f32>) {
    if let Some(value) = value {
        let _ = write!(text, "{value}");
    }
    text.push(',');
}

/// A video's path, which py-feat opens; one that a spreadsheet would take for a formula, in the spelling that no spreadsheet does.
fn as_path(video: &str) -> Cow<'_, str> {
    if video.starts_with(FORMULA) {
        Cow::Owned(format!("./{video}"))
    } else {
        Cow::Borrowed(video)
    }
}

/// A cell of CSV.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}
