//! A third-party ResNet-50, such as torchvision's with ImageNet weights, as the body of a model to train.

use super::checkpoint::{Checkpoint, prefix};
use super::init::untrained;
use super::state::{CROP, StateDict, UNTRAINED};
use super::{ModelError, layout};
use affectmill_base::ModelKind;
use std::path::Path;

/// The tensor that identifies a ResNet; in a pyramid, that of its body.
const LANDMARK: &str = "layer1.0.conv1.weight";

impl StateDict {
    /// Untrained weights of a kind, as `init_weights` writes them.
    pub fn untrained(kind: ModelKind, seed: u64) -> Self {
        untrained(kind, seed, Path::new("untrained weights"))
    }

    /// Replaces the body by that of a ResNet-50 in any file of weights that `import_weights` can open.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::File`] when it has no ResNet, or several; [`ModelError::Mismatch`] naming every
    /// tensor that is missing or wrong.
    pub fn take_body(&mut self, path: &Path, kind: ModelKind) -> Result<(), ModelError> {
        let source = Checkpoint::open_by(path, LANDMARK)?;
        let remedy = "give a ResNet-50's state dict, such as torchvision's resnet50-….pth";
        let prefixes: Vec<&str> = source.names().filter_map(|name| prefix(name, LANDMARK)).collect();
        let [before] = prefixes.as_slice() else {
            let cause = format!("holds {} ResNets: tensors `…{LANDMARK}`", prefixes.len());
            return Err(ModelError::file(path, cause, remedy));
        };
        let body = layout::layout(kind).into_iter();
        let body: Vec<_> = body.filter(|(name, _)| name.starts_with("body.")).collect();
        let named = |name: &str| format!("{before}{}", name.trim_start_matches("body."));
        let mut problems = Vec::new();
        for (name, shape) in &body {
            match source.shape(&named(name)) {
                Some((found, dtype)) if found == shape && dtype.is_float() => {
                    self.tensors.insert(name.clone(), source.read(&named(name))?);
                }
                Some((found, _)) => {
                    problems.push(format!("`{}` is {found:?}, not {shape:?} of floats", named(name)))
                }
                None => problems.push(format!("`{}` {shape:?} is missing", named(name))),
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ModelError::Mismatch {
                path: path.into(),
                kind: "ResNet-50 body",
                problems,
            })
        }
    }

    /// Marks the weights as trained, on faces cropped by a recipe if it is known; replaces earlier marks.
    pub fn mark_trained(&mut self, crop: Option<&str>) {
        self.metadata.remove(UNTRAINED);
        self.metadata.remove(CROP);
        if let Some(crop) = crop {
            self.metadata.insert(CROP.to_owned(), crop.to_owned());
        }
    }

    /// Whether the weights are marked as untrained.
    pub fn is_untrained(&self) -> bool {
        self.metadata.contains_key(UNTRAINED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resnet_becomes_the_body_whatever_stands_before_its_names() {
        let kind = ModelKind::TeacherVa;
        let (donor, plain) = (StateDict::untrained(kind, 5), StateDict::untrained(kind, 1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet50.safetensors");
        for before in ["", "module."] {
            let mut file = StateDict {
                tensors: Default::default(),
                ..donor.clone()
            };
            for (name, array) in &donor.tensors {
                if let Some(name) = name.strip_prefix("body.") {
                    file.tensors.insert(format!("{before}{name}"), array.clone());
                }
            }
            file.write(&path).unwrap();
            let mut state = plain.clone();
            state.take_body(&path, kind).unwrap();
            for (name, array) in &state.tensors {
                let from = if name.starts_with("body.") { &donor } else { &plain };
                assert!(*array == from.tensors[name], "{name}");
            }
            let lost = format!("{before}layer3.2.bn1.running_mean");
            file.tensors.remove(&lost).unwrap();
            file.write(&path).unwrap();
            let error = state.take_body(&path, kind).unwrap_err().to_string();
            assert!(error.contains(&format!("`{lost}` [256] is missing")), "{error}");
        }
    }
}
