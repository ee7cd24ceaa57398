//! What a training leaves in its output folder, and how it goes on from there.
//!
//! ```text
//!  checkpoint.safetensors    everything to go on: weights, the optimiser's moments, where in the data; replaced whole
//!  best.safetensors          weights of the best epoch, as `run` takes them
//!  epoch-0007.safetensors    where more than one epoch is kept: the best ones
//!  curves.jsonl              a line for each step and each epoch
//! ```
//!
//! A checkpoint names its job and its data; another job, or changed data, is refused. Lines of the curves beyond the
//! checkpoint, and weights that it does not know, are of steps that will be made again, and are removed.

use super::error::TrainError;
use super::optimise::Optimise;
use affectmill_base::ModelKind;
use affectmill_base::write_atomic;
use affectmill_nn::{Array, StateDict, Trainable, values};
use affectmill_spec::TrainJob;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use tch::Tensor;

const CHECKPOINT: &str = "checkpoint.safetensors";
const BEST: &str = "best.safetensors";
const CURVES: &str = "curves.jsonl";
/// Before the name of a moment among a checkpoint's tensors.
const MOMENT: &str = "optimiser.";
/// Metadata key of [`Record`].
const RECORD: &str = "affectmill.training";

/// How far a training is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that are over.
    pub epoch: u64,
    /// Batches of the epoch under way that are over.
    pub batch: usize,
    /// Steps that were made.
    pub step: u64,
    /// Sum of the losses of the epoch under way, as the bits of an f64: text would round it.
    pub loss: u64,
    /// The epochs that are kept, the best first; scores as bits too.
    pub best: Vec<Kept>,
    /// Epochs since the best one.
    pub stale: u64,
}

/// An epoch whose weights are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Which, from 1.
    pub epoch: u64,
    /// Bits of its score.
    pub score: u64,
}

/// What a checkpoint says of itself.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    job: Value,
    data: String,
    /// Of the pictures outside tar files; a checkpoint of an older affectmill does not say.
    #[serde(default)]
    pictures: Option<String>,
    progress: Progress,
}

const VERSION: u32 = 1;

/// What tells the data of one training from another's: two hashes.
pub struct Identity {
    /// Over names, sides and labels of the faces, and the sizes of those in tar files.
    pub faces: String,
    /// Over sizes and dates of pictures outside tar files.
    pub pictures: String,
}

/// The output folder of a training.
pub struct Folder {
    path: PathBuf,
    /// What a checkpoint must say of its job.
    job: Value,
    /// What a checkpoint must say of its data.
    data: Identity,
}

/// What a checkpoint holds.
pub struct Resumed {
    /// The weights.
    pub weights: StateDict,
    /// The optimiser's moments.
    pub moments: BTreeMap<String, Array>,
    /// How far it was.
    pub progress: Progress,
}

impl Folder {
    /// Opens the output of a job over data of an identity; the folder is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(job: &TrainJob, data: Identity) -> Result<Self, TrainError> {
        let path = job.output.path.clone();
        fs::create_dir_all(&path).map_err(|error| TrainError::Output {
            path: path.clone(),
            cause: format!("cannot be made: {error}"),
        })?;
        Ok(Self {
            path,
            job: decisive(job),
            data,
        })
    }

    /// Weights of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// The curves.
    pub fn curves(&self) -> PathBuf {
        self.path.join(CURVES)
    }

    fn epoch(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("epoch-{epoch:04}.safetensors"))
    }

    /// Reads the checkpoint, if there is one, and removes what lies beyond it.
    ///
    /// # Errors
    /// [`TrainError::Output`] when it is of another job or other data; [`TrainError::Model`] when it is damaged.
    pub fn resume(&self, kind: ModelKind) -> Result<Option<Resumed>, TrainError> {
        let path = self.path.join(CHECKPOINT);
        if !path.exists() {
            return match self.stranger()? {
                Some(name) => Err(TrainError::Output {
                    path: self.path.clone(),
                    cause: format!(
                        "holds a `{name}` and no checkpoint, so it is not this training's; train into another folder"
                    ),
                }),
                None => Ok(None),
            };
        }
        let mut weights = StateDict::read_with(&path, kind, |name| name.starts_with(MOMENT))?;
        let record = weights.metadata.remove(RECORD).unwrap_or_default();
        let other = |what: &str| TrainError::Output {
            path: path.clone(),
            cause: format!("{what}; train into another folder, or remove this one to begin again"),
        };
        let record: Record = serde_json::from_str(&record)
            .map_err(|error| other(&format!("is no checkpoint of this version ({error})")))?;
        if record.version != VERSION {
            return Err(other(&format!(
                "is a checkpoint of version {}, not {VERSION}",
                record.version
            )));
        }
        // Ours read back as the record's was: a number that went through text may have another last bit.
        let ours: Value = serde_json::from_str(&self.job.to_string())
            .map_err(|error| other(&format!("cannot be held against the job ({error})")))?;
        if record.job != ours {
            let keys = differences(&record.job, &ours);
            return Err(other(&format!("is of a job with another {}", keys.join(", "))));
        }
        if record.data != self.data.faces {
            return Err(other("was made from other faces, labels or held-out videos"));
        }
        if record
            .pictures
            .is_some_and(|pictures| pictures != self.data.pictures)
        {
            return Err(other(
                "was made from other pictures: sizes or dates of files in `data.images` have changed since",
            ));
        }
        let names: Vec<String> = weights
            .tensors
            .keys()
            .filter(|name| name.starts_with(MOMENT))
            .cloned()
            .collect();
        let moments = names.into_iter().filter_map(|name| {
            let array = weights.tensors.remove(&name)?;
            Some((name[MOMENT.len()..].to_owned(), array))
        });
        let moments = moments.collect();
        self.trim(&record.progress)?;
        Ok(Some(Resumed {
            weights,
            moments,
            progress: record.progress,
        }))
    }

    /// Writes the checkpoint, replacing the one before in one step.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the disk does not take it; the one before is there then.
    pub fn checkpoint(
        &self,
        model: &Trainable,
        optimiser: &Optimise,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        let mut state = model.state()?;
        for (name, moment) in optimiser.moments() {
            let shape = moment.size().iter().map(|&side| side as usize).collect();
            let array = Array {
                shape,
                data: values(moment)?,
            };
            state.tensors.insert(format!("{MOMENT}{name}"), array);
        }
        let record = Record {
            version: VERSION,
            job: self.job.clone(),
            data: self.data.faces.clone(),
            pictures: Some(self.data.pictures.clone()),
            progress: progress.clone(),
        };
        let record = serde_json::to_string(&record).map_err(|error| self.unwritten(&error.into()))?;
        state.metadata.insert(RECORD.into(), record);
        Ok(state.write(&self.path.join(CHECKPOINT))?)
    }

    /// Keeps the weights of an epoch that is among the best: of `progress.best`, which holds it already.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the disk does not take them.
    pub fn keep(
        &self,
        model: &Trainable,
        crop: Option<&str>,
        epoch: u64,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        let mut state = model.state()?;
        state.mark_trained(crop);
        if self.keeps_several() {
            state.write(&self.epoch(epoch))?;
        }
        if progress.best.first().is_some_and(|best| best.epoch == epoch) {
            state.write(&self.best())?;
        }
        Ok(())
    }

    fn keeps_several(&self) -> bool {
        self.job["output"]["keep"].as_u64().is_some_and(|keep| keep > 1)
    }

    /// Removes weights of epochs that are not among the best any more.
    ///
    /// # Errors
    /// [`TrainError::Output`].
    pub fn forget(&self, progress: &Progress) -> Result<(), TrainError> {
        let kept: Vec<PathBuf> = progress.best.iter().map(|kept| self.epoch(kept.epoch)).collect();
        for entry in fs::read_dir(&self.path).map_err(|error| self.unwritten(&error))? {
            let path = entry.map_err(|error| self.unwritten(&error))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let is_epoch = name.starts_with("epoch-") && name.ends_with(".safetensors");
            // What a process that was killed did not finish.
            let is_torn = name.starts_with(".weights-");
            if is_torn || is_epoch && !kept.contains(&path) {
                fs::remove_file(&path).map_err(|error| self.unwritten(&error))?;
            }
        }
        Ok(())
    }

    /// Adds a line to the curves.
    ///
    /// # Errors
    /// [`TrainError::Output`].
    pub fn line(&self, line: &impl Serialize) -> Result<(), TrainError> {
        let mut text = serde_json::to_vec(line).map_err(|error| self.unwritten(&error.into()))?;
        text.push(b'\n');
        let file = OpenOptions::new().create(true).append(true).open(self.curves());
        file.and_then(|mut file| file.write_all(&text))
            .map_err(|error| self.unwritten(&error))
    }

    /// A file that training would replace or remove. A training's own lie beside a checkpoint, which comes first.
    fn stranger(&self) -> Result<Option<String>, TrainError> {
        for entry in fs::read_dir(&self.path).map_err(|error| self.unwritten(&error))? {
            let name = entry.map_err(|error| self.unwritten(&error))?.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".safetensors") || name.starts_with("curves.") {
                return Ok(Some(name.into_owned()));
            }
        }
        Ok(None)
    }

    fn trim(&self, progress: &Progress) -> Result<(), TrainError> {
        self.forget(progress)?;
        let text = match fs::read_to_string(self.curves()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| self.unwritten(&error))?,
        };
        let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
        let kept = text
            .lines()
            .filter(|line| step(line).is_some_and(|step| step <= progress.step));
        let kept: String = kept.map(|line| format!("{line}\n")).collect();
        Ok(write_atomic(&self.curves(), kept.as_bytes())?)
    }

    fn unwritten(&self, error: &io::Error) -> TrainError {
        TrainError::Output {
            path: self.path.clone(),
            cause: format!("cannot be written: {error}; what was checkpointed stays"),
        }
    }
}

/// Moments as the optimiser holds them: laid out like their weights, so that sums are made in the same order.
///
/// # Errors
/// libtorch's.
pub fn moments(
    arrays: BTreeMap<String, Array>,
    weights: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let _no_grad = tch::no_grad_guard();
    let mut moments = BTreeMap::new();
    for (name, array) in arrays {
        let Some(weight) = Optimise::weight_of(&name).and_then(|weight| weights.get(weight)) else {
            continue;
        };
        let place = || {
            let mut moment = weight.f_zeros_like()?;
            moment.f_copy_(&Tensor::f_from_slice(&array.data)?.f_view(weight.size().as_slice())?)?;
            Ok(moment)
        };
        moments.insert(
            name,
            place().map_err(TrainError::torch("restoring the optimiser"))?,
        );
    }
    Ok(moments)
}

/// The part of a job that decides on the weights: where it lies and how it is carried out does not, nor how long it may go on.
fn decisive(job: &TrainJob) -> Value {
    let mut job = serde_json::to_value(job).unwrap_or_default();
    if let Some(sections) = job.as_object_mut() {
        sections.remove("run");
    }
    for (section, key) in [
        ("output", "path"),
        ("train", "epochs"),
        ("train", "patience"),
        ("data", "crops"),
        ("data", "images"),
        // The weights' mark alone follows from it.
        ("data", "image_crop"),
        ("data", "annotations"),
        ("start", "body"),
        ("start", "weights"),
    ] {
        if let Some(section) = job.get_mut(section).and_then(Value::as_object_mut) {
            section.remove(key);
        }
    }
    job
}

/// Keys of two jobs that differ, as `section.key`.
fn differences(one: &Value, other: &Value) -> Vec<String> {
    let sections = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut keys = Vec::new();
    for (section, ours) in sections(other) {
        for (key, value) in sections(&ours) {
            if one[&section][&key] != value {
                keys.push(format!("{section}.{key}"));
            }
        }
    }
    keys
}
