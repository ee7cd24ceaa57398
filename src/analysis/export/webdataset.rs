//! Tar shards for trainers: each face as the models saw it, with labels under names that do not tell which model gave them.
//!
//! A sample is `<video>/<frame>-<face>` with `jpg`; `json`: key, time, track, box and crop recipe of the row and the outputs of the
//! models chosen, such as `valence`, `expr_Happiness`, `AU12_p`; and `cls`, the index of the expression, where a model has expressions.

use super::Exported;
use super::folder::Folder;
use crate::labels::{LabelError, Labels};
use affectmill_base::AtomicFile;
use affectmill_base::SampleName;
use affectmill_base::{EXPRESSIONS, Task};
use affectmill_labelset::LabelSchema;
use affectmill_labelset::paths;
use affectmill_labelset::schema::column;
use affectmill_spec::ModelRecord;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufReader, Read};

/// That there are crops.
pub(super) fn check(labels: &Labels) -> Result<(), LabelError> {
    let has_crops = labels.commits().iter().any(|commit| commit.crops.is_some());
    has_crops.then_some(()).ok_or_else(|| {
        let error = format!(
            "{} was labelled without crops, which webdataset is made of; label into another output with `[output] crops = \"webdataset\"`",
            labels.store().root()
        );
        LabelError::Unanswerable(error)
    })
}

pub(super) fn write(
    labels: &Labels,
    folder: &Folder,
    chosen: &[(Task, &ModelRecord)],
) -> Result<Exported, LabelError> {
    let renamed = renamed(labels, chosen);
    let mut exported = Exported::default();
    for commit in labels.commits() {
        let key = paths::crops(&commit.shard);
        if commit.crops.as_ref().is_none_or(|crops| crops.rows == 0) {
            continue;
        }
        let unreadable = |cause: String| {
            let (crops, record) = (
                labels.store().path(&key),
                labels.store().path(&paths::commit(&commit.shard)),
            );
            LabelError::Damaged(format!(
                "cannot read the crops `{crops}`: {cause}; delete them and their commit record `{record}`, and run again"
            ))
        };
        let crops = labels.store().file(&key)?;
        let crops = crops.ok_or_else(|| unreadable("they are missing".into()))?;
        let mut shard = tar::Builder::new(folder.create(&format!("part-{}.tar", commit.shard))?);
        let samples = copy(crops, &mut shard, &renamed);
        exported.rows += samples.map_err(|trouble| match trouble {
            Trouble::Reading(cause) => unreadable(cause),
            Trouble::Writing(cause) => shard.get_ref().failed(cause).into(),
        })?;
        // The end mark first, while the file is at hand to tell what went wrong.
        let ended = shard.finish();
        ended.map_err(|cause| shard.get_ref().failed(cause))?;
        let file = shard
            .into_inner()
            .map_err(|error| unreadable(error.to_string()))?;
        file.finish()?;
        exported.files += 1;
    }
    Ok(exported)
}

enum Trouble {
    Reading(String),
    Writing(io::Error),
}

/// For each column of the models chosen the name without the model's.
fn renamed(labels: &Labels, chosen: &[(Task, &ModelRecord)]) -> Vec<(String, String)> {
    let mut renamed = Vec::new();
    for (task, model) in chosen {
        let (values, fingerprint) = (labels.job().job.output.values, &labels.job().fingerprint);
        let schema = LabelSchema::new(&[(*model).clone()], values, fingerprint);
        for field in schema.of_models() {
            let plain = field
                .name()
                .strip_prefix(&format!("{}_", model.name))
                .unwrap_or(field.name());
            let of = match plain {
                "valence" | "arousal" => Task::Va,
                plain if plain.starts_with("expr") => Task::Expr,
                _ => Task::Au,
            };
            if of == *task {
                renamed.push((field.name().clone(), plain.to_owned()));
            }
        }
    }
    renamed
}

/// Copies the samples of a shard; returns how many.
fn copy(
    crops: File,
    shard: &mut tar::Builder<AtomicFile>,
    renamed: &[(String, String)],
) -> Result<u64, Trouble> {
    let reading = |error: io::Error| Trouble::Reading(error.to_string());
    let mut archive = tar::Archive::new(BufReader::new(crops));
    let mut samples = 0;
    for member in archive.entries().map_err(reading)? {
        let mut member = member.map_err(reading)?;
        let path = member.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path);
        let name =
            SampleName::parse(&path).ok_or_else(|| Trouble::Reading(format!("`{path}` is no crop")))?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(reading)?;
        if name.ending == "jpg" {
            append(shard, &name.to_string(), &bytes)?;
            samples += 1;
            continue;
        }
        let row: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|error| Trouble::Reading(format!("`{path}`: {error}")))?;
        let said = |name: &str| row.get(name).cloned().unwrap_or(Value::Null);
        // The status of a row with a crop is known.
        let fixed = column::FIXED.iter().filter(|name| **name != column::STATUS);
        let fixed = fixed.map(|name| (name.to_string(), said(name)));
        let outputs = renamed
            .iter()
            .map(|(column, plain)| (plain.clone(), said(column)));
        // How it was cropped, which whoever learns from it or labels it must know.
        let crop = row.get("crop").map(|crop| ("crop".to_owned(), crop.clone()));
        let sample: Map<String, Value> = fixed.chain(outputs).chain(crop).collect();
        append(
            shard,
            &name.to_string(),
            Value::from(sample.clone()).to_string().as_bytes(),
        )?;
        let class = sample.get("expression").and_then(Value::as_str);
        let class = class.and_then(|class| EXPRESSIONS.iter().position(|known| *known == class));
        if let Some(class) = class {
            let name = name.to_string();
            let stem = name.strip_suffix("json").unwrap_or(&name);
            append(shard, &format!("{stem}cls"), class.to_string().as_bytes())?;
        }
    }
    Ok(samples)
}

fn append(shard: &mut tar::Builder<AtomicFile>, name: &str, bytes: &[u8]) -> Result<(), Trouble> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    shard
        .append_data(&mut header, name, bytes)
        .map_err(Trouble::Writing)
}
