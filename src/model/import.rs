//! Other people's names to ours: a checkpoint of the paper's models, in any of its spellings, to safetensors.
//!
//! Understood, behind any common prefix (`module.`, `model.`, `student.` …): torchvision's names of the body and the
//! pyramid, old (`fpn.inner_blocks.0.weight`) and new (`fpn.inner_blocks.0.0.weight`); heads `VA_head.linear.*`,
//! `EXPR_head.linear.*`, `AU_head.linear.*` of a student, `head.linear.*` of a teacher (told by its number of outputs),
//! and this program's own `heads.va.*`. A classifier `body.fc.*` and batch counters are left out; so is whatever else
//! the file holds, and it is listed.

use super::ModelError;
use super::checkpoint::{Checkpoint, LANDMARK, prefix};
use super::layout::{self, head_name};
use super::state::{StateDict, UNTRAINED};
use crate::domain::{ModelKind, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const NAME_KIND: &str = "say which model to make of it with `--kind`";

/// What an import made of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The kind that was written.
    pub kind: ModelKind,
    /// Number of tensors written.
    pub tensors: usize,
    /// Format of the source, in words.
    pub source_format: String,
    /// Names of tensors that were left out, as the source spells them.
    pub ignored: Vec<String>,
}

/// Converts `src` to the safetensors file `out`. Without `kind` the heads decide; a `kind` with fewer heads than the
/// source has keeps those it needs.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when the source is damaged, of an unknown format, or its kind cannot be
/// told; [`ModelError::Mismatch`] naming every tensor that is missing or has another shape.
pub fn import_weights(src: &Path, kind: Option<ModelKind>, out: &Path) -> Result<Imported, ModelError> {
    let checkpoint = Checkpoint::open(src)?;
    let names = canonical_names(&checkpoint, src)?;
    let kind = match kind {
        Some(kind) => kind,
        None => kind_of(&names, src)?,
    };

    let find = |name: &str| {
        let (shape, dtype) = checkpoint.shape(names.get(name)?)?;
        Some((shape, dtype.to_string(), dtype.is_float()))
    };
    refuse(src, kind, layout::problems(kind, find))?;
    let mut state = StateDict::new(src, kind);
    let mut used = BTreeSet::new();
    for (name, _) in layout::layout(kind) {
        let source = names[&name].as_str();
        state.tensors.insert(name, checkpoint.read(source)?);
        used.insert(source);
    }
    // Untrained weights stay untrained, whatever they are converted to.
    if let Some(mark) = checkpoint.metadata.get(UNTRAINED) {
        state.metadata.insert(UNTRAINED.to_owned(), mark.clone());
    }
    refuse(src, kind, state.problems(kind))?;
    state.write(out)?;
    let known = |name: &str| name.ends_with(".num_batches_tracked") || name.contains("body.fc.");
    let ignored = checkpoint
        .names()
        .filter(|name| !used.contains(name) && !known(name));
    Ok(Imported {
        kind,
        tensors: used.len(),
        source_format: checkpoint.format.clone(),
        ignored: ignored.map(str::to_owned).collect(),
    })
}

fn refuse(path: &Path, kind: ModelKind, problems: Vec<String>) -> Result<(), ModelError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(ModelError::Mismatch {
        path: path.to_path_buf(),
        kind: kind.name(),
        problems,
    })
}

/// The source's name of each canonical name it has.
fn canonical_names(checkpoint: &Checkpoint, path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let prefixes: Vec<&str> = checkpoint
        .names()
        .filter_map(|name| prefix(name, LANDMARK))
        .collect();
    let [root] = prefixes.as_slice() else {
        let cause = match prefixes.len() {
            0 => format!("no tensor's name ends in `{LANDMARK}`"),
            _ => format!("holds several models: `{}`", prefixes.join("`, `")),
        };
        return Err(ModelError::file(
            path,
            cause,
            "save the state dict of one feature-pyramid model and import that",
        ));
    };
    let mut names = BTreeMap::new();
    for name in checkpoint.names() {
        let canonical = match name.strip_prefix(root) {
            Some(own) if own.starts_with("body.") => Some(own.to_owned()),
            Some(own) if own.starts_with("fpn.") => Some(pyramid_name(own)),
            _ => head(checkpoint, name),
        };
        if let Some(canonical) = canonical
            && let Some(other) = names.insert(canonical.clone(), name.to_owned())
        {
            let cause = format!("`{other}` and `{name}` both are `{canonical}`");
            return Err(ModelError::file(path, cause, "save one model per file"));
        }
    }
    Ok(names)
}

/// torchvision before 0.13 had no `.0` behind the level.
fn pyramid_name(own: &str) -> String {
    match own.split('.').collect::<Vec<_>>().as_slice() {
        [fpn, blocks, level, part @ ("weight" | "bias")] => format!("{fpn}.{blocks}.{level}.0.{part}"),
        _ => own.to_owned(),
    }
}

/// The canonical name of a head's tensor, whatever stands before it.
fn head(checkpoint: &Checkpoint, name: &str) -> Option<String> {
    for part in ["weight", "bias"] {
        for (task, theirs) in [
            (Task::Va, "VA_head"),
            (Task::Expr, "EXPR_head"),
            (Task::Au, "AU_head"),
        ] {
            let ours = format!("heads.{}.{part}", head_name(task));
            if prefix(name, &format!("{theirs}.linear.{part}")).is_some() || prefix(name, &ours).is_some() {
                return Some(ours);
            }
        }
        if prefix(name, &format!("head.linear.{part}")).is_some() {
            let outputs = *checkpoint.shape(name)?.0.first()?;
            let task = Task::ALL
                .into_iter()
                .find(|task| task.outputs().len() == outputs)?;
            return Some(format!("heads.{}.{part}", head_name(task)));
        }
    }
    None
}

/// The kind whose heads the source has, neither more nor fewer.
fn kind_of(names: &BTreeMap<String, String>, path: &Path) -> Result<ModelKind, ModelError> {
    let has = |task: Task| names.contains_key(&format!("heads.{}.weight", head_name(task)));
    let tasks: Vec<Task> = Task::ALL.into_iter().filter(|task| has(*task)).collect();
    ModelKind::ALL
        .into_iter()
        .find(|kind| kind.tasks() == tasks.as_slice())
        .ok_or_else(|| {
            let found: Vec<&str> = tasks.into_iter().map(head_name).collect();
            let cause = format!("its heads ({}) are those of no kind", found.join(", "));
            ModelError::file(path, cause, NAME_KIND)
        })
}
