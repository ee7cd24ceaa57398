//! Temperature of the expressions and thresholds of the action units, tuned on one set of annotations for others.
//!
//! Flows in: annotated faces and their logits. Flows out: a [`CalibrationRecord`], and the [`Decision`] that one means.

use super::metrics::{Binary, CLASSES, Decision, OTHER, Prediction, Truth, UNITS, log_sum_exp, softmax};
use affectmill_base::ACTION_UNITS;
use affectmill_base::{WriteError, sha256_hex, write_atomic};
use affectmill_labelset::{CALIBRATION_VERSION, CalibrationRecord, TunedTemperature, TunedThreshold};
use affectmill_spec::ModelRecord;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Bounds of a temperature.
pub const TEMPERATURES: [f64; 2] = [0.05, 20.0];
/// Steps after which the search for a temperature ends, wherever it is; it needs about ten.
const MOST_STEPS: usize = 200;

/// Why a calibration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The file cannot be read.
    #[error("cannot read calibration `{}`: {cause}; `affectmill evaluate --tune` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        cause: io::Error,
    },
    /// The file is no calibration.
    #[error("`{}` is no calibration: {cause}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// It is of other weights.
    #[error(
        "`{}` was tuned for other weights: {}, while the labels of `{model}` are of {}; tune these with --tune",
        path.display(),
        short(theirs),
        short(ours)
    )]
    OtherWeights {
        /// The file.
        path: PathBuf,
        /// SHA-256 of the weights it states, and `mirrored`.
        theirs: Vec<String>,
        /// The model.
        model: String,
        /// SHA-256 of its weights, and `mirrored`.
        ours: Vec<String>,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn short(weights: &[String]) -> String {
    let short = weights.iter().map(|sha256| format!("{sha256:.16}"));
    short.collect::<Vec<_>>().join(" + ")
}

/// Logits of annotated faces: 29 bytes a face with an expression, 8 for each of its action units.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    expressions: Vec<([f32; CLASSES], u8)>,
    units: [Vec<(f32, bool)>; UNITS],
}

impl Samples {
    /// Takes one face. A face of an expression that models do not have says nothing about their logits.
    pub fn add(&mut self, truth: &Truth, prediction: &Prediction) {
        let class = truth.expression.filter(|class| *class != OTHER);
        if let (Some(class), Some(logits)) = (class, prediction.expression) {
            self.expressions.push((logits.map(|logit| logit as f32), class));
        }
        if let (Some(truth), Some(logits)) = (truth.units, prediction.units) {
            for (unit, samples) in self.units.iter_mut().enumerate() {
                samples.extend(truth.get(unit).map(|active| (logits[unit] as f32, active)));
            }
        }
    }

    /// The temperature with the least negative log-likelihood; none without a face.
    pub fn temperature(&self) -> Option<TunedTemperature> {
        if self.expressions.is_empty() {
            return None;
        }
        // In the inverse temperature the likelihood is convex, so its slope has one root (or a bound is best).
        let [mut low, mut high] = [1.0 / TEMPERATURES[1], 1.0 / TEMPERATURES[0]];
        let mut beta = 1.0;
        for _ in 0..MOST_STEPS {
            let (slope, curvature) = self.slope(beta);
            *if slope > 0.0 { &mut high } else { &mut low } = beta;
            let newton = beta - slope / curvature;
            let inside = low < newton && newton < high;
            let next = if inside { newton } else { (low * high).sqrt() };
            let step = (next - beta).abs();
            beta = next;
            if step <= 1e-12 * beta {
                break;
            }
        }
        // A search that ran into a bound ends a hair beside it.
        let found = 1.0 / beta;
        let at_bound = |bound: &f64| (found / bound - 1.0).abs() < 1e-9;
        let temperature = TEMPERATURES.into_iter().find(at_bound).unwrap_or(found);
        Some(TunedTemperature {
            temperature,
            faces: self.expressions.len() as u64,
            nll: [self.nll(1.0), self.nll(1.0 / temperature)],
        })
    }

    /// First and second derivative of the mean negative log-likelihood by the inverse temperature: mean of E[z] − z of the
    /// truth, and of Var[z].
    fn slope(&self, beta: f64) -> (f64, f64) {
        let (mut slope, mut curvature) = (0.0, 0.0);
        for (logits, class) in &self.expressions {
            let logits = logits.map(f64::from);
            let p = softmax(&logits.map(|logit| logit * beta));
            let mean: f64 = p.iter().zip(logits).map(|(p, z)| p * z).sum();
            slope += mean - logits[usize::from(*class)];
            curvature += p
                .iter()
                .zip(logits)
                .map(|(p, z)| p * (z - mean).powi(2))
                .sum::<f64>();
        }
        let count = self.expressions.len() as f64;
        (slope / count, curvature / count)
    }

    fn nll(&self, beta: f64) -> f64 {
        let of = |(logits, class): &([f32; CLASSES], u8)| {
            let logits = logits.map(|logit| f64::from(logit) * beta);
            log_sum_exp(&logits) - logits[usize::from(*class)]
        };
        self.expressions.iter().map(of).sum::<f64>() / self.expressions.len() as f64
    }

    /// The threshold with the largest F1 of each action unit that is active on some face.
    pub fn thresholds(&self) -> BTreeMap<String, TunedThreshold> {
        let units = ACTION_UNITS.iter().zip(&self.units);
        units
            .filter_map(|(unit, samples)| Some(((*unit).into(), best_threshold(samples.clone())?)))
            .collect()
    }
}

/// Every threshold that tells samples apart, the best kept; of equally good ones the nearest to 0.
fn best_threshold(mut samples: Vec<(f32, bool)>) -> Option<TunedThreshold> {
    samples.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let active = samples.iter().filter(|(_, active)| *active).count() as u64;
    if active == 0 {
        return None;
    }
    let mut at_zero = Binary::default();
    samples
        .iter()
        .for_each(|(logit, active)| at_zero.add(*active, *logit > 0.0));
    let mut best: Option<(f64, f64)> = None;
    let (mut hits, mut said) = (0, 0);
    for (n, (logit, is_active)) in samples.iter().enumerate() {
        said += 1;
        hits += u64::from(*is_active);
        let next = samples.get(n + 1).map(|(next, _)| *next);
        if next == Some(*logit) {
            continue;
        }
        let threshold = between(next, *logit);
        let f1 = 2.0 * hits as f64 / (said + active) as f64;
        let better = best.is_none_or(|(best, at)| match f1.total_cmp(&best) {
            Ordering::Equal => threshold.abs() < at.abs(),
            order => order.is_gt(),
        });
        if better {
            best = Some((f1, threshold));
        }
    }
    best.map(|(f1, logit)| TunedThreshold {
        logit,
        faces: samples.len() as u64,
        f1: [at_zero.f1().unwrap_or(0.0), f1],
    })
}

/// A threshold that `above` is above and `below` is not: 0 where it does, else the middle.
fn between(below: Option<f32>, above: f32) -> f64 {
    let above = f64::from(above);
    let below = below.map_or_else(|| above.min(0.0) - 1.0, f64::from);
    if below <= 0.0 && 0.0 < above {
        0.0
    } else {
        below + (above - below) / 2.0
    }
}

/// Where a model's calibration lies by default: beside its weights, the first ones of an ensemble. `a.calibration.json` is that of
/// the single model; one of an ensemble carries the beginning of a hash over all that makes it, so that neither replaces another.
pub fn beside(weights: &Path, model: &ModelRecord) -> PathBuf {
    if !model.is_ensemble() {
        return weights.with_extension("calibration.json");
    }
    let all = sha256_hex(views(model.weights(), model.flip).join("\n").as_bytes());
    let stem = weights.file_stem().unwrap_or_default().to_string_lossy();
    weights.with_file_name(format!("{stem}-{all:.8}.calibration.json"))
}

/// What a model's numbers are means over: its weights, and whether each face is also seen mirrored.
fn views<'a>(weights: impl Iterator<Item = &'a str>, flip: bool) -> Vec<String> {
    let mirrored = flip.then_some("mirrored");
    weights.chain(mirrored).map(String::from).collect()
}

/// Whether a file is a calibration of any weights.
pub fn is_one(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|text| serde_json::from_slice::<CalibrationRecord>(&text).is_ok())
}

/// Writes a calibration; one that was there is replaced.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, record: &CalibrationRecord) -> Result<(), CalibrationError> {
    let text = serde_json::to_string_pretty(record).expect("a record of numbers and text becomes JSON");
    Ok(write_atomic(path, format!("{text}\n").as_bytes())?)
}

/// Reads the calibration of a model's weights.
///
/// # Errors
/// [`CalibrationError`]: also where it is of other weights.
pub fn read(path: &Path, model: &ModelRecord) -> Result<CalibrationRecord, CalibrationError> {
    let text = std::fs::read(path).map_err(|cause| CalibrationError::Read {
        path: path.into(),
        cause,
    })?;
    let bad = |cause: String| CalibrationError::Format {
        path: path.into(),
        cause,
    };
    let record: CalibrationRecord = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if record.version != CALIBRATION_VERSION {
        return Err(bad(format!(
            "it has version {}, this affectmill reads {CALIBRATION_VERSION}",
            record.version
        )));
    }
    let known = |unit: &String| ACTION_UNITS.contains(&unit.as_str());
    if let Some(unit) = record.units.keys().find(|unit| !known(unit)) {
        return Err(bad(format!("`{unit}` is no action unit of this affectmill")));
    }
    if let Some(tuned) = record.expression.filter(|tuned| tuned.temperature <= 0.0) {
        return Err(bad(format!("temperature {} is not above 0", tuned.temperature)));
    }
    let theirs = views(record.weights.iter().map(String::as_str), record.flip);
    let ours = views(model.weights(), model.flip);
    if record.outputs != model.outputs {
        return Err(bad(format!(
            "it is of the outputs {}, and `{}` names them {}; tune these with --tune",
            record.outputs.join(", "),
            model.name,
            model.outputs.join(", ")
        )));
    }
    if theirs != ours {
        return Err(CalibrationError::OtherWeights {
            path: path.into(),
            theirs,
            model: model.name.clone(),
            ours,
        });
    }
    Ok(record)
}

/// What a calibration means; where it says nothing, temperature 1 and threshold 0.
pub fn decision(record: &CalibrationRecord) -> Decision {
    Decision {
        temperature: record.expression.map_or(1.0, |tuned| tuned.temperature),
        thresholds: ACTION_UNITS.map(|unit| record.units.get(unit).map_or(0.0, |tuned| tuned.logit)),
    }
}
