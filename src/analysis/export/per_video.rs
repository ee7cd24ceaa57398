//! A text file for each video, written as its rows come.

use super::folder::Folder;
use super::{Exported, names};
use crate::labels::{LabelError, Labels};
use affectmill_base::AtomicFile;
use polars::prelude::{DataFrame, Expr};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;

/// Which file is of which video: JSON lines.
const FILES: &str = "files.jsonl";

/// Writes `<video>.csv` for every video that has rows. `write` adds the lines of a piece to the text; it is told whether the piece
/// is the first of its video, and the video's key.
pub(super) fn write(
    labels: &Labels,
    folder: &Folder,
    columns: &[Expr],
    header: &str,
    mut write: impl FnMut(&str, bool, &DataFrame, &mut String) -> Result<(), LabelError>,
) -> Result<Exported, LabelError> {
    let names = names::of_videos(labels.videos().map(|video| video.key.as_str()));
    let mut exported = Exported::default();
    let mut open: Option<(String, AtomicFile)> = None;
    labels.each_video_piece(columns, |video, rows| {
        let first = open.as_ref().is_none_or(|(of, _)| of != video);
        let mut text = String::new();
        if first {
            if let Some((_, file)) = open.take() {
                file.finish()?;
            }
            let file = folder.create(&format!("{}.csv", name(&names, video)?))?;
            open = Some((video.to_owned(), file));
            exported.files += 1;
            let _ = writeln!(text, "{header}");
        }
        write(video, first, &rows, &mut text)?;
        exported.rows += rows.height() as u64;
        put(open.as_mut().map(|(_, file)| file), text.as_bytes())
    })?;
    if let Some((_, file)) = open {
        file.finish()?;
    }
    list(folder, &names, "csv")?;
    Ok(exported)
}

/// The name of a video's files.
pub(super) fn name<'a>(names: &'a BTreeMap<&str, String>, video: &str) -> Result<&'a str, LabelError> {
    names.get(video).map(String::as_str).ok_or_else(|| {
        LabelError::Damaged(format!(
            "a part holds rows of `{video}`, which its commit record does not name; delete both and run again"
        ))
    })
}

/// Writes bytes into a file that is open.
pub(super) fn put(file: Option<&mut AtomicFile>, bytes: &[u8]) -> Result<(), LabelError> {
    let Some(file) = file else { return Ok(()) };
    file.write_all(bytes).map_err(|cause| file.failed(cause).into())
}

/// Writes down which file is of which video.
pub(super) fn list(folder: &Folder, names: &BTreeMap<&str, String>, ending: &str) -> Result<(), LabelError> {
    let mut file = folder.create(FILES)?;
    for (video, name) in names {
        let line = serde_json::json!({"video": video, "file": format!("{name}.{ending}")});
        put(Some(&mut file), format!("{line}\n").as_bytes())?;
    }
    Ok(file.finish()?)
}

/// The detector's confidence in faces: of one whose box was carried between two looks, that of the last look at its track; of a
/// picture that is taken for the face, 1.
#[derive(Default)]
pub(super) struct Scores(HashMap<i64, f32>);

impl Scores {
    /// Of the next face of a video.
    pub fn of(&mut self, track: Option<i64>, score: Option<f32>) -> f32 {
        match (track, score) {
            (Some(track), Some(score)) => {
                self.0.insert(track, score);
                score
            }
            (Some(track), None) => self.0.get(&track).copied().unwrap_or(1.0),
            (None, score) => score.unwrap_or(1.0),
        }
    }
}

/// An action unit as OpenFace and py-feat write it: `AU01` for `AU1`.
pub(super) fn padded(unit: &str) -> String {
    format!("AU{:0>2}", unit.trim_start_matches("AU"))
}
