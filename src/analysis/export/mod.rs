//! `affectmill export`: a label set in the formats that others read.
//!
//! Flows in: the rows of a label set, piece by piece, and its crops. Flows out: files in a folder of their own, each there whole or
//! not at all. In memory is one piece of a part at a time.
//!
//! Never says what the models did not: what a format wants and no model has is left empty.

mod abaw;
mod fex;
mod folder;
mod names;
mod openface;
mod per_video;
mod plain;
mod webdataset;

use super::labels::{LabelError, Labels, models_for};
use super::table::Cells;
use affectmill_base::Task;
use affectmill_spec::ModelRecord;
use folder::Folder;
use std::path::Path;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenFace 2.2's CSV, a file for each video.
    Openface,
    /// py-feat's Fex CSV, a file for each video.
    Fex,
    /// Annotation and submission folders of the ABAW competitions.
    Abaw,
    /// Tar shards of crops with their labels, for trainers.
    Webdataset,
    /// One CSV with every column.
    Csv,
    /// One file of JSON lines with every column.
    Jsonl,
}

impl Format {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Openface => "openface",
            Format::Fex => "fex",
            Format::Abaw => "abaw",
            Format::Webdataset => "webdataset",
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
        }
    }
}

/// What came of an export.
#[derive(Debug, Default)]
pub struct Exported {
    /// Files with labels.
    pub files: u64,
    /// Rows, or samples, in them.
    pub rows: u64,
    /// Cells of CSV that got a `'` before them.
    pub quoted_cells: u64,
    /// Models that were asked and whose weights mean nothing.
    pub untrained: Vec<String>,
}

/// Exports a label set into a folder that is empty, missing, or holds an earlier export of the same; from the models named, where
/// several could answer. `cells` is for [`Format::Csv`].
///
/// # Errors
/// [`LabelError`]; among them that the format cannot be had from these labels, or that the folder is somebody else's.
pub fn export(
    labels: &Labels,
    format: Format,
    folder: &Path,
    models: &[String],
    cells: Cells,
) -> Result<Exported, LabelError> {
    let tasks: &[Task] = match format {
        Format::Openface => &[Task::Au],
        Format::Fex => &[Task::Expr, Task::Au],
        Format::Abaw | Format::Webdataset => &Task::ALL,
        Format::Csv | Format::Jsonl => &[],
    };
    let chosen = models_for(labels.job(), models, tasks)?;
    if chosen.is_empty() && !tasks.is_empty() {
        let name = format.name();
        let wanted = match format {
            Format::Openface => "action units",
            Format::Fex => "expressions or action units",
            _ => "valence and arousal, expressions or action units",
        };
        let error = format!(
            "{name} holds {wanted}, and no model in question has them; csv and jsonl hold what there is"
        );
        return Err(LabelError::Unanswerable(error));
    }
    let asked: Vec<&ModelRecord> = if tasks.is_empty() {
        let named = |model: &&ModelRecord| models.is_empty() || models.contains(&model.name);
        labels.job().models.iter().filter(named).collect()
    } else {
        let is_asked = |model: &&ModelRecord| chosen.iter().any(|(_, chosen)| chosen.name == model.name);
        labels.job().models.iter().filter(is_asked).collect()
    };
    if format == Format::Webdataset {
        webdataset::check(labels)?;
    }
    let names: Vec<&str> = asked.iter().map(|model| model.name.as_str()).collect();
    let folder = Folder::open(folder, labels, format, &names)?;
    let mut exported = match format {
        Format::Openface => openface::write(labels, &folder, &chosen)?,
        Format::Fex => fex::write(labels, &folder, &chosen)?,
        Format::Abaw => abaw::write(labels, &folder, &chosen)?,
        Format::Webdataset => webdataset::write(labels, &folder, &chosen)?,
        Format::Csv => plain::write(labels, &folder, &asked, plain::Text::Csv, cells)?,
        Format::Jsonl => plain::write(labels, &folder, &asked, plain::Text::JsonLines, cells)?,
    };
    let untrained = asked.iter().filter(|model| model.untrained);
    exported.untrained = untrained.map(|model| model.name.clone()).collect();
    folder.finish()?;
    Ok(exported)
}

/// The model of a task, where one was chosen.
fn of_task<'a>(chosen: &[(Task, &'a ModelRecord)], task: Task) -> Option<&'a ModelRecord> {
    let found = chosen.iter().find(|(of, _)| *of == task);
    found.map(|(_, model)| *model)
}
