//! OpenFace 2.2's CSV of a sequence: its columns of time, confidence and action units.
//!
//! `AUxx_c` is 1 where the probability is above a half, and empty where the model gave no number for a face. The intensities `AUxx_r`, and units that no model has, stay empty: readers that want
//! every column find them, without a number.

use super::folder::Folder;
use super::{Exported, of_task};
use crate::export::per_video;
use crate::export::per_video::{Scores, padded};
use crate::labels::{LabelError, Labels, Quantity, floats, integers};
use affectmill_base::Task;
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use polars::prelude::{PolarsResult, col};
use std::fmt::Write;

/// OpenFace's units: with an intensity, and AU28, which has its presence alone.
const UNITS: [&str; 18] = [
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12", "AU14", "AU15", "AU17", "AU20",
    "AU23", "AU25", "AU26", "AU28", "AU45",
];

pub(super) fn write(
    labels: &Labels,
    folder: &Folder,
    chosen: &[(Task, &ModelRecord)],
) -> Result<Exported, LabelError> {
    let Some(model) = of_task(chosen, Task::Au) else {
        return Ok(Exported::default());
    };
    let ours: Vec<Quantity> = Quantity::of(Task::Au).collect();
    // AU24 is ours alone: behind OpenFace's own, where nobody counts columns.
    let extra = ours
        .iter()
        .map(|unit| padded(unit.name()))
        .filter(|unit| !UNITS.contains(&unit.as_str()));
    let presences: Vec<String> = UNITS.map(String::from).into_iter().chain(extra).collect();
    let place = |unit: &String| ours.iter().position(|own| padded(own.name()) == *unit);
    let places: Vec<Option<usize>> = presences.iter().map(place).collect();
    let intensities = UNITS.iter().filter(|unit| **unit != "AU28");
    let mut header = String::from("frame,face_id,timestamp,confidence,success");
    intensities
        .clone()
        .for_each(|unit| header += &format!(",{unit}_r"));
    presences.iter().for_each(|unit| header += &format!(",{unit}_c"));
    let empty = ",".repeat(intensities.count());

    let values = labels.job().job.output.values;
    let fixed = [
        column::FRAME,
        column::TIMESTAMP,
        column::FACE,
        column::TRACK,
        column::FACE_SCORE,
    ];
    let mut columns = fixed.map(col).to_vec();
    columns.extend(
        ours.iter()
            .map(|unit| unit.value(&model.name, values).alias(unit.name())),
    );
    let mut scores = Scores::default();
    per_video::write(labels, folder, &columns, &header, |_, first, rows, text| {
        if first {
            scores = Scores::default();
        }
        let [frames, times, faces, tracks] =
            [column::FRAME, column::TIMESTAMP, column::FACE, column::TRACK].map(|name| integers(rows, name));
        let (frames, times, faces, tracks) = (frames?, times?, faces?, tracks?);
        let found = floats(rows, column::FACE_SCORE)?;
        let units: Vec<Vec<Option<f32>>> = ours
            .iter()
            .map(|unit| floats(rows, unit.name()))
            .collect::<PolarsResult<_>>()?;
        for row in 0..rows.height() {
            let frame = frames[row].unwrap_or_default().saturating_add(1);
            let id = tracks[row].or(faces[row]).unwrap_or(0);
            let _ = write!(text, "{frame},{id},");
            if let Some(time) = times[row] {
                let _ = write!(text, "{}", time as f64 / 1e6);
            }
            // As OpenFace has it, a frame without a face is a row of zeros.
            let success = faces[row].is_some();
            let score = if success {
                scores.of(tracks[row], found[row])
            } else {
                0.0
            };
            let _ = write!(text, ",{score:.3},{}{empty}", u8::from(success));
            for place in &places {
                match place {
                    Some(unit) => {
                        text.push(',');
                        // Where the model gave no number for a face, nobody knows.
                        if let Some(p) = units[*unit][row].or((!success).then_some(0.0)) {
                            let _ = write!(text, "{}", u8::from(p > 0.5));
                        }
                    }
                    None => text.push(','),
                }
            }
            text.push('\n');
        }
        Ok(())
    })
}
