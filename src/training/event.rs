//! What a training tells the world.

use super::score::Score;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Something that happened in a training.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Faces and weights are there; steps begin.
    Started {
        /// What is trained.
        kind: &'static str,
        /// Where.
        device: String,
        /// Videos that are trained on, and their faces with a label.
        training: Side,
        /// Videos that are held out, and their faces with a label.
        held_out: Side,
        /// Steps of the whole training, should it not end early.
        steps: u64,
        /// Steps that were made before, by an earlier run.
        resumed: u64,
    },
    /// Something the user ought to know; the training goes on.
    Warning {
        /// What.
        message: String,
    },
    /// A step was made.
    Step {
        /// Its losses.
        #[serde(flatten)]
        step: Step,
        /// Epochs of the job.
        epochs: u64,
        /// Steps of the job.
        steps: u64,
        /// Faces of the batch.
        faces: usize,
    },
    /// An epoch ended, and the held-out faces were scored.
    Epoch {
        /// Its figures.
        #[serde(flatten)]
        epoch: Epoch,
        /// It is the best so far.
        best: bool,
    },
    /// All is done.
    Finished {
        /// Why.
        reason: &'static str,
        /// Weights of the best epoch.
        weights: PathBuf,
        /// Which epoch that is, from 1.
        epoch: u64,
        /// Its score.
        score: f64,
    },
}

/// One side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Videos.
    pub videos: usize,
    /// Faces.
    pub faces: usize,
}

/// A step, as `curves.jsonl` keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Step of the whole training, from 1.
    pub step: u64,
    /// The loss that the step was made down from.
    pub loss: f64,
    /// Its parts by task.
    pub losses: BTreeMap<&'static str, f64>,
}

/// An epoch, as `curves.jsonl` keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Epoch {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Its last step.
    pub step: u64,
    /// Mean loss of its steps.
    pub training_loss: f64,
    /// Loss over the held-out faces, each task's over those that have a label.
    pub held_out_loss: f64,
    /// What the held-out faces say.
    #[serde(flatten)]
    pub score: Score,
}
