//! The job file: TOML in, a validated [`Job`] out, and the fingerprint of everything that can change a label.
//!
//! Flows in: the path of a job file and `--set` overrides. Flows out: a [`Job`] whose paths are absolute, or a
//! [`SpecError`] that names file, line, column, key and remedy of everything that is wrong with it. On the way:
//! `tree` (TOML with the place of each value) → `overrides` → `check` (against the JSON Schema of [`Job`]) → `paths` →
//! `rules` (what a schema cannot say). `identity` turns a job and its models into the fingerprint.
//!
//! It reads only the job file: it never opens a video, a model or a device, nor checks that they exist.

mod check;
mod device;
mod error;
mod identity;
mod job;
mod overrides;
mod paths;
mod rules;
mod services;
#[cfg(test)]
mod tests;
mod train;
mod tree;

pub use device::DeviceChoice;
pub use error::{Place, Problem, SpecError};
pub use identity::{LABELS_VERSION, ModelRecord, differences, fingerprint, identity};
pub use job::{
    Crops, DEFAULT_EXTENSIONS, Decode, FaceMode, Faces, Input, Job, ModelSpec, Output, Run, Sampling,
    SamplingMode, Values,
};
pub use rules::{is_inbox_prefix, is_job_name};
pub use services::{NatsSettings, S3Settings};
pub use train::{
    Data, Distill, Optimiser, OptimiserKind, OptimiserSettings, Recipe, SplitBy, Start, Targets, Train,
    TrainJob, TrainOutput, TrainRun, Validation, load_train, train_schema,
};

use std::path::Path;

/// Reads, overrides, checks and resolves a job file.
///
/// An override is `key=value`, such as `run.workers=2` or `models.student.weights=new.safetensors`; a `[[models]]`
/// entry is addressed by its name or its number from 0. The value is read as TOML and, where it is none, taken as text.
/// Paths of the file are relative to the file's folder, paths of overrides to the current directory; the returned
/// job has absolute ones.
///
/// # Errors
/// [`SpecError`] with every problem that was found: the file cannot be read or is no TOML; unknown keys, wrong types,
/// values out of range, missing keys; combinations that make no sense; what this version does not have.
pub fn load(path: &Path, overrides: &[String]) -> Result<Job, SpecError> {
    let text = read(path)?;
    let mut tree = tree::parse(&text).map_err(|problem| SpecError::at(path, vec![problem]))?;
    check_and_build(&mut tree, overrides, path)
        .and_then(|(job, mut problems)| {
            problems.extend(rules::idle(&job, &tree));
            right(job, problems)
        })
        .map_err(|problems| SpecError::at(path, problems))
}

/// The job that a label set records (`path`), with overrides of this run. Paths of overrides are relative to the current
/// directory.
///
/// # Errors
/// As [`load`], of the overrides: the job itself was right when it was recorded.
pub fn amend(recorded: &Job, overrides: &[String], path: &Path) -> Result<Job, SpecError> {
    let unfit = |error: toml::ser::Error| SpecError::unreadable(path, format!("cannot be amended: {error}"));
    let text = toml::to_string(recorded).map_err(unfit)?;
    let mut tree = tree::parse(&text).map_err(|problem| SpecError::at(path, vec![problem]))?;
    let (job, mut problems) =
        check_and_build(&mut tree, overrides, path).map_err(|problems| SpecError::at(path, problems))?;
    problems.extend(rules::idle(&job, &tree));
    // A record has every key, so keys without effect are reported only for hand-written files.
    problems.retain(|problem| matches!(problem.place, Place::Override(_)));
    right(job, problems).map_err(|problems| SpecError::at(path, problems))
}

/// Checks a job that another host posted, as its file was checked there: types, ranges, choices and rules; and that its paths are
/// absolute.
///
/// # Errors
/// What is wrong, in words.
pub fn check_posted(job: &Job) -> Result<(), String> {
    let text = toml::to_string(job).map_err(|error| error.to_string())?;
    let checked = tree::parse(&text)
        .map_err(|problem| vec![problem])
        .and_then(|mut tree| check_and_build(&mut tree, &[], Path::new("job.toml")))
        .and_then(|(same, problems)| right(same, problems));
    match checked {
        Ok(same) if same == *job => Ok(()),
        Ok(_) => Err("a path in it is not absolute".into()),
        Err(problems) => {
            let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Err(messages.join("; "))
        }
    }
}

fn check_and_build(
    tree: &mut tree::Node,
    overrides: &[String],
    path: &Path,
) -> Result<(Job, Vec<Problem>), Vec<Problem>> {
    overrides::apply(tree, overrides)?;
    check::check(tree, &json_schema())?;
    // The schema was derived from the type, so what passed it deserialises; were a later rule of serde's stricter,
    // its words are still better than a panic.
    let mut job: Job = serde_json::from_value(tree.to_json()).map_err(|error| {
        vec![Problem::new(
            Place::START,
            format!("the job cannot be read: {error}"),
        )]
    })?;
    let mut problems = paths::resolve(&mut job, tree, path);
    problems.extend(rules::check(&job, tree));
    Ok((job, problems))
}

fn right(job: Job, problems: Vec<Problem>) -> Result<Job, Vec<Problem>> {
    if problems.is_empty() {
        Ok(job)
    } else {
        Err(problems)
    }
}

fn read(path: &Path) -> Result<String, SpecError> {
    if path.is_dir() {
        let remedy = "is a folder, not a job file; name a TOML file in it";
        return Err(SpecError::unreadable(path, remedy.into()));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such job file; check the path".into(),
            std::io::ErrorKind::PermissionDenied => "cannot be read: permission denied".into(),
            _ => format!("cannot be read: {error}"),
        };
        SpecError::unreadable(path, cause)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let head = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let problem = Problem::new(
            Place::of_offset(&head, valid),
            "is not UTF-8; save the job file as UTF-8 text",
        );
        SpecError::at(path, vec![problem])
    })
}

/// The JSON Schema (2020-12) of the job file, with explanations and defaults.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Job).to_value()
}
