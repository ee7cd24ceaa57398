//! The fingerprint: a hash over everything that can change a label, and nothing else.
//!
//! Locations and the execution of a run (`input.uri`, `input.extensions`, `output.uri`, `output.shard_frames`, all of `[run]`) are
//! not part of it: a label set may move, and continue with more workers.

use super::{Crops, FaceMode, Job, job};
use affectmill_base::{Fingerprint, NetworkKind, Precision, Task, checksum, checksums};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the label columns, part of the fingerprint: increased when the same settings give other rows.
pub const LABELS_VERSION: u32 = 2;

/// What is known of a model's weight file.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Column prefix.
    pub name: String,
    /// Kind.
    #[schemars(schema_with = "job::model_kinds")]
    pub kind: NetworkKind,
    /// What each number means that a TorchScript module gives, by name; of other kinds nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// SHA-256 of the weight file, hex.
    #[serde(deserialize_with = "checksum")]
    #[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// SHA-256 of the weight files of further members, in the job's order.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "checksums"
    )]
    #[schemars(with = "Vec<String>")]
    pub also: Vec<String>,
    /// Whether each face is also seen mirrored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flip: bool,
    /// Architecture id, such as `resnet50-fpn256-mean5`.
    pub architecture: String,
    /// Preprocessing id: crop recipe, size, filter, mean and std.
    pub preprocessing: String,
    /// Arithmetic of the convolutions.
    #[schemars(schema_with = "job::precisions")]
    pub precision: Precision,
    /// The weights came from `init-weights`: the labels mean nothing.
    pub untrained: bool,
}

impl ModelRecord {
    /// Whether its numbers are means over several looks at a face, with a standard deviation each.
    pub fn is_ensemble(&self) -> bool {
        self.flip || !self.also.is_empty()
    }

    /// Checksums of all its weight files.
    pub fn weights(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.sha256)
            .chain(&self.also)
            .map(String::as_str)
    }

    /// The tasks it predicts, in output order.
    pub fn tasks(&self) -> &'static [Task] {
        self.kind.tasks(&self.outputs)
    }

    /// Numbers of one face as the rows get them: for each task the outputs, then, of an ensemble, their deviations.
    pub fn output_count(&self) -> usize {
        let outputs: usize = self.tasks().iter().map(|task| task.outputs().len()).sum();
        outputs * if self.is_ensemble() { 2 } else { 1 }
    }
}

/// Everything that can change a label, as JSON whose keys follow the job file's.
///
/// `models` are the job's models as found, in job order (it is the order of the columns); `faces_from` is the SHA-256 of the
/// detector's weights, or the fingerprint of the labels that faces are taken from; `decode_backend` names the decoder with its version, such as
/// `libavcodec 59.37.100`.
pub fn identity(job: &Job, models: &[ModelRecord], faces_from: Option<&str>, decode_backend: &str) -> Value {
    let model = |model: &ModelRecord| {
        let mut identity = json!({
            "name": model.name,
            "kind": model.kind,
            "sha256": model.sha256,
            "architecture": model.architecture,
            "preprocessing": model.preprocessing,
            "precision": model.precision,
        });
        // Omitted when they have no effect, so that earlier label sets keep their fingerprint.
        if !model.outputs.is_empty() {
            identity["outputs"] = json!(model.outputs);
        }
        if !model.also.is_empty() {
            identity["also"] = json!(model.also);
        }
        if model.flip {
            identity["flip"] = json!(true);
        }
        identity
    };
    let mut output = json!({ "values": job.output.values });
    if job.output.crops != Crops::None {
        output["crops"] = json!(job.output.crops);
        output["crop_quality"] = json!(job.output.crop_quality);
    }
    json!({
        "labels_version": LABELS_VERSION,
        "input": {
            "image_base": job.input.image_base,
            "image_fps": job.input.image_fps,
            "max_pixels": job.input.max_pixels,
            "max_frames": job.input.max_frames,
        },
        "sampling": job.sampling,
        "faces": faces(job, faces_from),
        "models": models.iter().map(model).collect::<Vec<_>>(),
        "output": output,
        "decode_backend": decode_backend,
    })
}

/// Settings without effect are omitted; detector and earlier labels are identified by their content.
fn faces(job: &Job, from: Option<&str>) -> Value {
    let faces = &job.faces;
    let FaceMode::Detect = faces.mode else {
        let mut few = json!({ "mode": faces.mode });
        if faces.mode == FaceMode::FromLabels {
            few["labels"] = json!(from);
            few["crop"] = json!(faces.crop);
        }
        return few;
    };
    let mut all = json!(faces);
    all["detector"] = json!(from);
    if let Some(all) = all.as_object_mut() {
        all.remove("labels");
    }
    all
}

/// SHA-256 over the canonical text of an identity: JSON in UTF-8 without white space, the keys of every object sorted
/// by their bytes, strings and numbers as serde_json writes them (shortest text that reads back as the same double).
pub fn fingerprint(identity: &Value) -> Fingerprint {
    Fingerprint::from_digest(&Sha256::digest(sorted(identity).to_string()))
}

/// serde_json keeps keys sorted or in insertion order, depending on a feature that any crate may enable; sorted insertion gives the
/// same text either way.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let by_key: BTreeMap<&String, &Value> = map.iter().collect();
            by_key
                .into_iter()
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

/// Differences between two identities, one line per value, sorted by key: `sampling.stride: was 5, is 10`.
///
/// Models are named by their name, as in `models.student.sha256`; `unset` stands for null and for a missing key.
/// Empty exactly when the identities, and so the fingerprints, are equal.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let (mut was, mut is) = (BTreeMap::new(), BTreeMap::new());
    flatten(old, String::new(), &mut was);
    flatten(new, String::new(), &mut is);
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let text = |side: &BTreeMap<String, Value>, key: &String| match side.get(key) {
        None | Some(Value::Null) => "unset".to_string(),
        Some(value) => value.to_string(),
    };
    keys.into_iter()
        .filter(|key| was.get(*key) != is.get(*key))
        .map(|key| format!("{key}: was {}, is {}", text(&was, key), text(&is, key)))
        .collect()
}

/// Scalars by dotted path. A list of named entries also gives the order of the names, which no single entry has.
fn flatten(value: &Value, path: String, into: &mut BTreeMap<String, Value>) {
    let below = |step: &str| {
        if path.is_empty() {
            step.to_string()
        } else {
            format!("{path}.{step}")
        }
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| flatten(value, below(key), into)),
        Value::Array(items) => {
            let names: Option<Vec<&str>> = items.iter().map(|item| item["name"].as_str()).collect();
            for (index, item) in items.iter().enumerate() {
                let step = names
                    .as_ref()
                    .map_or(index.to_string(), |names| names[index].to_string());
                flatten(item, below(&step), into);
            }
            if let Some(names) = names {
                into.insert(path, names.join(", ").into());
            }
        }
        scalar => {
            into.insert(path, scalar.clone());
        }
    }
}
