//! `affectmill summary`: small tables of what is in a label set, made by Polars over the committed parts.

use super::labels::{LabelError, Labels};
use super::table::map_text;
use affectmill_base::{EXPRESSIONS, Task, escaped};
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use polars::prelude::*;

/// Tables of a label set.
pub struct Tables {
    /// Rows and faces of each video, and a line for each model that has them with its mean valence and arousal.
    pub videos: DataFrame,
    /// One row per expression class: the share of labelled faces, one column per model that has expressions.
    pub expressions: Option<DataFrame>,
}

/// Reads the tables, in memory that does not grow with the rows: what is kept is a row per video.
///
/// # Errors
/// [`LabelError`].
pub fn read(labels: &Labels) -> Result<Tables, LabelError> {
    let models = &labels.job().models;
    let mut columns = [column::FACE, column::TIMESTAMP].map(col).to_vec();
    let mut first = vec![
        len().cast(DataType::Int64).alias("rows"),
        col(column::FACE).count().cast(DataType::Int64).alias("faces"),
        col(column::TIMESTAMP).max(),
    ];
    let mut again = vec![
        col("rows").sum(),
        col("faces").sum(),
        col(column::TIMESTAMP).max(),
    ];
    for model in having(models, Task::Va) {
        for output in Task::Va.outputs() {
            let column = column::raw(&model.name, Task::Va, output);
            columns.push(col(column.as_str()).cast(DataType::Float64));
            first.push(col(column.as_str()).sum());
            again.push(col(column).sum());
        }
        // A face for which the model gave no numbers is none of its mean.
        let counted = said(model, Task::Va.outputs()[0]);
        let column = col(column::raw(&model.name, Task::Va, Task::Va.outputs()[0]));
        first.push(column.count().cast(DataType::Int64).alias(counted.as_str()));
        again.push(col(counted).sum());
    }
    for model in having(models, Task::Expr) {
        let column = column::expression(&model.name);
        columns.push(col(column.as_str()).cast(DataType::String));
        for class in EXPRESSIONS {
            let is_class = col(column.as_str()).eq(lit(class)).cast(DataType::Int64);
            first.push(is_class.sum().alias(share(model, class)));
            again.push(col(share(model, class)).sum());
        }
        let counted = said(model, "expression");
        first.push(
            col(column::expression(&model.name))
                .count()
                .cast(DataType::Int64)
                .alias(counted.as_str()),
        );
        again.push(col(counted).sum());
    }
    let whole = labels.per_video(&columns, &first, &again)?;
    Ok(Tables {
        videos: per_video(&whole, models)?,
        expressions: expressions(&whole, models)?,
    })
}

fn having(models: &[ModelRecord], task: Task) -> impl Iterator<Item = &ModelRecord> {
    models.iter().filter(move |model| model.tasks().contains(&task))
}

/// Name of the number of faces for which a model gave an output.
fn said(model: &ModelRecord, output: &str) -> String {
    format!("{}/{output}/faces", model.name)
}

/// Name of the number of faces with an expression.
fn share(model: &ModelRecord, class: &str) -> String {
    format!("{}/{class}", model.name)
}

fn per_video(whole: &DataFrame, models: &[ModelRecord]) -> PolarsResult<DataFrame> {
    let fixed = [
        col("video"),
        col("rows"),
        col("faces"),
        (col(column::TIMESTAMP).cast(DataType::Float64) / lit(1e6)).alias("last_s"),
    ];
    let by_model: Vec<LazyFrame> = having(models, Task::Va)
        .map(|model| {
            let means = Task::Va.outputs().iter().map(|output| {
                let sum = col(column::raw(&model.name, Task::Va, output));
                let faces = col(said(model, Task::Va.outputs()[0]));
                let mean = when(faces.clone().gt(lit(0)))
                    .then(sum / faces)
                    .otherwise(lit(NULL));
                mean.cast(DataType::Float32).alias(*output)
            });
            let mut columns = fixed.to_vec();
            columns.push(lit(model.name.as_str()).alias("model"));
            columns.extend(means);
            whole.clone().lazy().select(columns)
        })
        .collect();
    if by_model.is_empty() {
        return whole.clone().lazy().select(fixed).collect();
    }
    // Narrow enough for a terminal, however many models.
    let in_order = SortMultipleOptions::default().with_maintain_order(true);
    concat(by_model, UnionArgs::default())?
        .sort(["video"], in_order)
        .collect()
}

fn expressions(whole: &DataFrame, models: &[ModelRecord]) -> PolarsResult<Option<DataFrame>> {
    let mut columns = vec![Column::new("expression".into(), EXPRESSIONS)];
    let total = |name: &str| PolarsResult::Ok(whole.column(name)?.i64()?.sum().unwrap_or_default());
    for model in having(models, Task::Expr) {
        let faces = total(&said(model, "expression"))?;
        let share = |class: &&str| {
            let of_class = total(&share(model, class))?;
            Ok((faces > 0).then(|| of_class as f64 / faces as f64))
        };
        let values: Vec<Option<f64>> = EXPRESSIONS.iter().map(share).collect::<PolarsResult<_>>()?;
        columns.push(Column::new(model.name.as_str().into(), values));
    }
    match columns.len() {
        1 => Ok(None),
        _ => DataFrame::new(EXPRESSIONS.len(), columns).map(Some),
    }
}

/// The tables as text.
///
/// # Errors
/// Polars' own.
pub fn render(tables: &Tables) -> PolarsResult<String> {
    let mut text = map_text(&tables.videos, escaped)?.to_string();
    if let Some(expressions) = &tables.expressions {
        text += &format!("\nshare of faces by expression\n{expressions}");
    }
    Ok(text)
}
