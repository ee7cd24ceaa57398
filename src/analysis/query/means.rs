//! The mean of quantities over the faces of each video.

use super::Answer;
use crate::labels::{LabelError, Labels, Quantity};
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use polars::prelude::*;

pub(super) fn answer(labels: &Labels, asked: &[(Quantity, &ModelRecord)]) -> Result<Answer, LabelError> {
    let values = labels.job().job.output.values;
    let mut names: Vec<String> = Vec::new();
    let mut columns = vec![col(column::FACE)];
    for (quantity, model) in asked {
        let name = quantity.column(&model.name);
        // Asked for twice, told once.
        if !names.contains(&name) {
            columns.push(quantity.value(&model.name, values).cast(DataType::Float64));
            names.push(name);
        }
    }
    // Sums, then sums of sums: a mean of means would weigh pieces, not faces.
    let sums: Vec<Expr> = names.iter().map(|name| col(name.as_str()).sum()).collect();
    // A face for which the model gave no numbers is none of its mean.
    let said = |name: &str| format!("{name}/faces");
    let faces: Vec<Expr> = names
        .iter()
        .map(|name| col(name.as_str()).count().cast(DataType::Int64).alias(said(name)))
        .collect();
    let counts = [len().alias("rows"), col(column::FACE).count().alias("faces")]
        .map(|count| count.cast(DataType::Int64));
    let first = [&counts[..], &sums, &faces].concat();
    let faces = names.iter().map(|name| col(said(name)).sum()).collect::<Vec<_>>();
    let again = [&[col("rows").sum(), col("faces").sum()], &sums[..], &faces].concat();
    let whole = labels.per_video(&columns, &first, &again)?;
    let means = names.iter().map(|name| {
        let (sum, faces) = (col(name.as_str()), col(said(name)));
        // A video without a face has no mean.
        when(faces.clone().gt(lit(0)))
            .then(sum / faces)
            .otherwise(lit(NULL))
            .alias(name.as_str())
    });
    let shown = ["video", "rows", "faces"].map(col).into_iter().chain(means);
    let table = whole.lazy().select(shown.collect::<Vec<_>>()).collect()?;
    let mut untrained: Vec<String> = Vec::new();
    for (_, model) in asked.iter().filter(|(_, model)| model.untrained) {
        if !untrained.contains(&model.name) {
            untrained.push(model.name.clone());
        }
    }
    Ok(Answer {
        caption: "means over the faces of each video; columns that end in _p are probabilities".into(),
        of: None,
        table,
        without_times: Vec::new(),
        untrained,
    })
}
