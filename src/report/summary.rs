//! `affectmill summary`: small tables of what is in a label set, made by Polars over the committed parts.

use crate::dataset::{JobRecord, ModelRecord, paths};
use crate::domain::{EXPRESSIONS, ShardId, Task};
use crate::store::Store;
use polars::prelude::*;
use std::path::PathBuf;

/// Tables of a label set.
pub struct Tables {
    /// Rows and faces of each video, and a line for each model that has them with its mean valence and arousal.
    pub videos: DataFrame,
    /// One row per expression class: the share of labelled faces, one column per model that has expressions.
    pub expressions: Option<DataFrame>,
}

/// Reads the tables from the parts of these committed shards, in bounded memory: Polars streams them.
///
/// Parts that do not lie on a disk are brought to scratch space first.
///
/// # Errors
/// Polars' own, or the store's.
pub fn read(store: &Store, job: &JobRecord, shards: &[ShardId]) -> PolarsResult<Tables> {
    // The parts by name: strangers in the folder are no labels, and `[` in a path is no pattern.
    let parts: Vec<String> = shards.iter().map(paths::part).collect();
    let (parts, _copies) = store
        .at_hand(&parts)
        .map_err(|error| polars_err!(ComputeError: "{error}"))?;
    let part = |path: &PathBuf| PlRefPath::new(path.to_string_lossy().as_ref());
    let as_named = ScanArgsParquet {
        glob: false,
        ..Default::default()
    };
    let labels = LazyFrame::scan_parquet_files(parts.iter().map(part).collect(), as_named)?
        .with_column(col("video").cast(DataType::String))
        .with_column(col("status").cast(DataType::String));
    Ok(Tables {
        videos: per_video(labels.clone(), &job.models)?,
        expressions: expressions(labels, &job.models)?,
    })
}

fn having(models: &[ModelRecord], task: Task) -> impl Iterator<Item = &ModelRecord> {
    models
        .iter()
        .filter(move |model| model.kind.tasks().contains(&task))
}

fn per_video(labels: LazyFrame, models: &[ModelRecord]) -> PolarsResult<DataFrame> {
    let mut columns = vec![
        len().alias("rows"),
        col("face").count().alias("faces"),
        (col("timestamp_us").max().cast(DataType::Float64) / lit(1e6)).alias("last_s"),
    ];
    for model in having(models, Task::Va) {
        for output in Task::Va.outputs() {
            columns.push(col(format!("{}_{output}", model.name)).mean());
        }
    }
    let wide = labels
        .group_by([col("video")])
        .agg(columns)
        .sort(["video"], Default::default())
        .collect()?;
    let by_model: Vec<LazyFrame> = having(models, Task::Va)
        .map(|model| {
            let means = Task::Va
                .outputs()
                .iter()
                .map(|output| col(format!("{}_{output}", model.name)).alias(*output));
            let mut columns = ["video", "rows", "faces", "last_s"].map(col).to_vec();
            columns.push(lit(model.name.as_str()).alias("model"));
            columns.extend(means);
            wide.clone().lazy().select(columns)
        })
        .collect();
    if by_model.is_empty() {
        return Ok(wide);
    }
    // Narrow enough for a terminal, however many models.
    let in_order = SortMultipleOptions::default().with_maintain_order(true);
    concat(by_model, UnionArgs::default())?
        .sort(["video"], in_order)
        .collect()
}

fn expressions(labels: LazyFrame, models: &[ModelRecord]) -> PolarsResult<Option<DataFrame>> {
    let shares: Vec<Expr> = having(models, Task::Expr)
        .flat_map(|model| {
            EXPRESSIONS.iter().map(|class| {
                let column = col(format!("{}_expression", model.name)).cast(DataType::String);
                let share = column.eq(lit(*class)).mean();
                share.alias(format!("{}/{class}", model.name))
            })
        })
        .collect();
    if shares.is_empty() {
        return Ok(None);
    }
    let row = labels.select(shares).collect()?;
    let mut columns = vec![Column::new("expression".into(), EXPRESSIONS)];
    for model in having(models, Task::Expr) {
        let share = |class: &&str| {
            row.column(&format!("{}/{class}", model.name))?
                .f64()?
                .get(0)
                .map_or(Ok(None), |v| Ok(Some(v)))
        };
        let values: Vec<Option<f64>> = EXPRESSIONS.iter().map(share).collect::<PolarsResult<_>>()?;
        columns.push(Column::new(model.name.as_str().into(), values));
    }
    DataFrame::new(EXPRESSIONS.len(), columns).map(Some)
}

/// The tables as text.
pub fn render(tables: &Tables) -> String {
    let mut text = tables.videos.to_string();
    if let Some(expressions) = &tables.expressions {
        text += &format!("\nshare of faces by expression\n{expressions}");
    }
    text
}
