//! What is kept beside a model's weights of how its logits become probabilities and decisions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version written into every calibration.
pub const CALIBRATION_VERSION: u32 = 1;

/// `<weights>.calibration.json`: temperature and thresholds of one model, tuned on one set of annotations
/// (`affectmill evaluate --tune`), to be applied to others (`--apply`).
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    /// Format version.
    pub version: u32,
    /// The affectmill version that wrote it.
    pub affectmill: String,
    /// The model's name in the label set it was tuned on.
    pub model: String,
    /// SHA-256 of the model's weights, hex, and of an ensemble's further members: it is applied to no others.
    #[schemars(length(min = 1))]
    pub weights: Vec<String>,
    /// Whether the model also saw each face mirrored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flip: bool,
    /// What each number means that a TorchScript module gives, by name; of other models nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// What it was tuned on.
    pub tuned_on: TunedOn,
    /// Of the expressions; none where the model has none or none were annotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<TunedTemperature>,
    /// By action unit; a unit of which no active face was annotated is missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, TunedThreshold>,
}

/// Labels and annotations.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedOn {
    /// The label set, as it was named.
    pub labels: String,
    /// Its fingerprint, hex.
    #[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
    pub fingerprint: String,
    /// The annotations, as they were named.
    pub annotations: String,
    /// Which of them: the files of `train`, `validation` or `all`; of another label set the model.
    pub which: String,
}

/// A temperature, by which logits are divided before the softmax (Guo et al. 2017).
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedTemperature {
    /// The temperature with the least mean negative log-likelihood, 0.05 to 20.
    #[schemars(range(min = 0.05, max = 20))]
    pub temperature: f64,
    /// Faces it was tuned on.
    pub faces: u64,
    /// Mean negative log-likelihood at temperature 1 and at this one.
    pub nll: [f64; 2],
}

/// A threshold of an action unit.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedThreshold {
    /// The unit is taken for active where its logit is above: the threshold with the largest F1.
    pub logit: f64,
    /// Faces it was tuned on.
    pub faces: u64,
    /// F1 with the logit 0 as threshold and with this one.
    pub f1: [f64; 2],
}
