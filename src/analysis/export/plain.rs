//! One text file with every row and column, for those who want it.

use super::Exported;
use super::folder::Folder;
use super::per_video::put;
use crate::labels::{LabelError, Labels};
use crate::table;
use crate::table::Cells;
use affectmill_labelset::LabelSchema;
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use polars::prelude::*;

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// `labels.csv`; landmarks in ten columns.
    Csv,
    /// `labels.jsonl`; landmarks in a list.
    JsonLines,
}

/// Columns of text that Parquet keeps as dictionaries.
fn is_text(name: &str) -> bool {
    name == column::VIDEO || name == column::STATUS || name.ends_with("_expression")
}

pub(super) fn write(
    labels: &Labels,
    folder: &Folder,
    models: &[&ModelRecord],
    text: Text,
    cells: Cells,
) -> Result<Exported, LabelError> {
    let job = labels.job();
    let models: Vec<ModelRecord> = models.iter().map(|&model| model.clone()).collect();
    let schema = LabelSchema::new(&models, job.job.output.values, &job.fingerprint);
    let mut columns: Vec<Expr> = Vec::new();
    for field in schema.arrow().fields() {
        let name = field.name().as_str();
        match (name, text) {
            (column::LANDMARKS, Text::Csv) => columns.extend(points()),
            (name, _) if is_text(name) => columns.push(col(name).cast(DataType::String)),
            (name, _) => columns.push(col(name)),
        }
    }
    let name = match text {
        Text::Csv => "labels.csv",
        Text::JsonLines => "labels.jsonl",
    };
    let mut file = folder.create(name)?;
    let mut exported = Exported {
        files: 1,
        ..Exported::default()
    };
    labels.each_piece(&columns, |mut rows| {
        let mut bytes = Vec::new();
        match text {
            Text::Csv => exported.quoted_cells += table::csv(&rows, cells, exported.rows == 0, &mut bytes)?,
            Text::JsonLines => JsonWriter::new(&mut bytes)
                .with_json_format(JsonFormat::JsonLines)
                .finish(&mut rows)?,
        }
        exported.rows += rows.height() as u64;
        put(Some(&mut file), &bytes)
    })?;
    file.finish()?;
    Ok(exported)
}

/// `landmark_0_x`, `landmark_0_y`, … `landmark_4_y`.
fn points() -> impl Iterator<Item = Expr> {
    (0..10).map(|n| {
        let name = format!("landmark_{}_{}", n / 2, ["x", "y"][n % 2]);
        col(column::LANDMARKS).arr().get(lit(n as i64), true).alias(name)
    })
}
