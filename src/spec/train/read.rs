//! Reads a train job file to a [`TrainJob`], or reports all its problems.

use super::{OptimiserKind, Recipe, SplitBy, TrainJob, task_name, train_schema};
use crate::tree::Node;
use crate::{Place, Problem, SpecError, check, overrides, paths, read, tree};
use affectmill_base::Task;
use std::path::Path;

/// Reads, overrides, checks and resolves a train job file, as [`super::load`] does with a job of `run`.
///
/// # Errors
/// [`SpecError`] with every problem that was found.
pub fn load_train(path: &Path, overrides: &[String]) -> Result<TrainJob, SpecError> {
    let text = read(path)?;
    let mut tree = tree::parse(&text).map_err(|problem| SpecError::at(path, vec![problem]))?;
    let checked = overrides::apply(&mut tree, overrides).and_then(|()| check::check(&tree, &train_schema()));
    checked.map_err(|problems| SpecError::at(path, problems))?;
    let mut job: TrainJob = serde_json::from_value(tree.to_json()).map_err(|error| {
        let message = format!("the job cannot be read: {error}");
        SpecError::at(path, vec![Problem::new(Place::START, message)])
    })?;
    let mut problems = resolve(&mut job, &tree, path);
    problems.extend(rules(&job, &tree));
    if problems.is_empty() {
        Ok(job)
    } else {
        Err(SpecError::at(path, problems))
    }
}

fn resolve(job: &mut TrainJob, tree: &Node, job_file: &Path) -> Vec<Problem> {
    let paths = [
        ("data", "crops", job.data.crops.as_mut()),
        ("data", "images", job.data.images.as_mut()),
        ("data", "annotations", job.data.annotations.as_mut()),
        ("start", "body", job.start.body.as_mut()),
        ("start", "weights", job.start.weights.as_mut()),
        ("output", "path", Some(&mut job.output.path)),
    ];
    let mut problems = Vec::new();
    for (section, key, path) in paths {
        let Some(path) = path else { continue };
        let place = tree.place_of(&[section, key]);
        if let Err(cause) = paths::resolve_local(path, &place, job_file) {
            let message = format!("`{section}.{key}` is {:?}: {cause}", path.to_string_lossy());
            problems.push(Problem::new(place, message));
        }
    }
    problems
}

/// What the schema cannot say.
fn rules(job: &TrainJob, tree: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |path: &[&str], message: String| {
        problems.push(Problem::new(tree.place_of(path), message));
    };
    let TrainJob { train, data, .. } = job;
    match (train.recipe, train.task) {
        (Recipe::Teacher, None) => {
            let message = "a teacher has one task; add `task = \"va\"`, `\"expr\"` or `\"au\"` to [train]";
            refuse(&["train", "recipe"], message.into());
        }
        (Recipe::Student, Some(_)) => {
            let message = "`train.task` has no effect: a student has all three tasks; leave it out";
            refuse(&["train", "task"], message.into());
        }
        _ => {}
    }
    if data.crops.is_none() && data.images.is_none() {
        refuse(
            &["data"],
            "there are no faces; add `crops` or `images` to [data]".into(),
        );
    }
    if data.image_crop.is_some() && data.images.is_none() {
        let message = "`data.image_crop` has no effect without `data.images`: crops of a run state theirs; leave it out";
        refuse(&["data", "image_crop"], message.into());
    }
    let named = |task| job.teacher(task).is_some();
    let kind = job.kind();
    if data.annotations.is_none() && !kind.tasks().iter().any(|&task| named(task)) {
        let keys: Vec<String> = kind
            .tasks()
            .iter()
            .map(|&task| format!("`{}_teacher`", task_name(task)))
            .collect();
        let message = format!(
            "there are no labels; add `annotations` (people's) or {} to [data]",
            keys.join(", ")
        );
        refuse(&["data"], message);
    }
    for task in Task::ALL {
        let key = format!("{}_teacher", task_name(task));
        if named(task) && data.crops.is_none() {
            let message = format!(
                "`data.{key}` has no effect: teachers' labels lie in the JSON beside `data.crops`; add it"
            );
            refuse(&["data", &key], message);
        } else if named(task) && !kind.tasks().contains(&task) {
            refuse(
                &["data", &key],
                format!(
                    "`data.{key}` has no effect: this is a {}; leave it out",
                    kind.name()
                ),
            );
        }
    }
    if job.validation.by == SplitBy::Annotations && data.annotations.is_none() {
        refuse(
            &["validation", "by"],
            "there are no annotations to split by; add `data.annotations`".into(),
        );
    }
    if job.validation.by == SplitBy::Videos && job.validation.videos.is_empty() {
        refuse(
            &["validation", "by"],
            "no video is listed; add `videos = [\"name\"]` to [validation]".into(),
        );
    }
    if job.start.body.is_some() && job.start.weights.is_some() {
        refuse(
            &["start", "body"],
            "`start.weights` holds a body already; leave one of them out".into(),
        );
    }
    if train.accumulate > train.batch {
        let message = format!(
            "a batch of {} cannot be cut into {} parts; choose fewer",
            train.batch, train.accumulate
        );
        refuse(&["train", "accumulate"], message);
    }
    let needless = match job.optimiser().name {
        OptimiserKind::Sgd => [("beta1", job.optimiser.beta1), ("beta2", job.optimiser.beta2)],
        OptimiserKind::Adam => [("momentum", job.optimiser.momentum), ("momentum", None)],
    };
    for (key, _) in needless.into_iter().filter(|(_, value)| value.is_some()) {
        refuse(
            &["optimiser", key],
            format!("`optimiser.{key}` has no effect with this optimiser; leave it out"),
        );
    }
    problems
}
