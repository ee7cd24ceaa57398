//! The loop: epochs of steps, each epoch scored on the held-out faces, checkpoints on the way.

use super::corpus::Corpus;
use super::error::TrainError;
use super::event::{Epoch, Event, Side, Step};
use super::labels::Labels;
use super::losses::{Loss, Objective};
use super::optimise::Optimise;
use super::score::{Score, Scorer};
use crate::loader;
use crate::loader::{Batch, Draw, Loader};
use crate::state;
use crate::state::{Folder, Kept, Progress};
use affectmill_base::INPUT_LEN;
use affectmill_base::{ModelKind, Task};
use affectmill_nn as model;
use affectmill_nn::{Device, StateDict, Trainable};
use affectmill_spec::TrainJob;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;

/// Faces that are scored at once.
const SCORED_AT_ONCE: usize = 32;

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// All epochs were made, or patience ran out.
    Finished {
        /// Weights of the best epoch.
        weights: PathBuf,
    },
    /// It was told to stop; a checkpoint was written.
    Stopped,
}

/// Trains, from the beginning or from the checkpoint in the output folder, until the job is done or `stop` is set.
///
/// # Errors
/// [`TrainError`]; what was checkpointed stays.
pub fn run(job: &TrainJob, stop: &AtomicBool, tell: &mut dyn FnMut(Event)) -> Result<Ended, TrainError> {
    if let Some(threads) = job.run.threads {
        model::set_threads(threads);
    }
    let device = match &job.run.device {
        Some(device) => Device::parse(device)?,
        None => Device::parse(&Device::in_turn(1, Device::cuda_count()).concat())?,
    };
    let corpus = Arc::new(Corpus::read(job)?);
    for message in &corpus.warnings {
        tell(Event::Warning {
            message: message.clone(),
        });
    }
    let mut trainer = Trainer::begin(job, corpus, device, tell)?;
    trainer.train(stop, tell)
}

/// A training under way.
struct Trainer<'a> {
    job: &'a TrainJob,
    corpus: Arc<Corpus>,
    training: Vec<usize>,
    held_out: Vec<usize>,
    model: Trainable,
    objective: Objective,
    optimiser: Optimise,
    progress: Progress,
    folder: Folder,
}

impl<'a> Trainer<'a> {
    fn begin(
        job: &'a TrainJob,
        corpus: Arc<Corpus>,
        device: Device,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Self, TrainError> {
        let kind = job.kind();
        let folder = Folder::open(job, corpus.identity())?;
        let resumed = folder.resume(kind)?;
        let fresh = resumed.is_none();
        let (weights, arrays, progress) = match resumed {
            Some(resumed) => (resumed.weights, resumed.moments, resumed.progress),
            None => (start(job, kind)?, BTreeMap::new(), Progress::default()),
        };
        if fresh && weights.is_untrained() && job.start.body.is_none() {
            let message = "begins with untrained weights, body and all; the paper's recipe begins with a ResNet-50 of ImageNet: \
                           name one as `start.body`";
            tell(Event::Warning {
                message: message.into(),
            });
        }
        let train = &job.train;
        let model = Trainable::new(weights, kind, train.trainable_layers, train.precision, device)?;
        let moments = state::moments(arrays, model.weights())?;
        let trainer = Self {
            training: corpus.side(false),
            held_out: corpus.side(true),
            corpus,
            objective: Objective::new(kind, job.distill),
            optimiser: Optimise::new(job.optimiser(), progress.step, moments),
            job,
            model,
            progress,
            folder,
        };
        if fresh {
            // From now on the folder is known for this training's.
            let Self {
                folder,
                model,
                optimiser,
                progress,
                ..
            } = &trainer;
            folder.checkpoint(model, optimiser, progress)?;
        }
        tell(Event::Started {
            kind: kind.name(),
            device: device.to_string(),
            training: trainer.side(false),
            held_out: trainer.side(true),
            steps: trainer.steps(),
            resumed: trainer.progress.step,
        });
        Ok(trainer)
    }

    fn side(&self, held_out: bool) -> Side {
        let videos = self.corpus.held_out.iter();
        Side {
            videos: videos.filter(|side| **side == held_out).count(),
            faces: if held_out {
                self.held_out.len()
            } else {
                self.training.len()
            },
        }
    }

    fn batches(&self, epoch: u64) -> Vec<Vec<Draw>> {
        let train = &self.job.train;
        loader::epoch(
            &self.training,
            train.seed,
            epoch,
            train.batch,
            self.job.epoch_share(),
            train.flip,
        )
    }

    fn steps(&self) -> u64 {
        self.batches(0).len() as u64 * self.job.train.epochs
    }

    fn train(&mut self, stop: &AtomicBool, tell: &mut dyn FnMut(Event)) -> Result<Ended, TrainError> {
        let epochs = self.job.train.epochs;
        let patient = |progress: &Progress| {
            self.job
                .train
                .patience
                .is_none_or(|patience| progress.stale < patience)
        };
        let mut reason = "all epochs are made";
        while self.progress.epoch < epochs {
            if !patient(&self.progress) {
                reason = "no better score for `train.patience` epochs";
                break;
            }
            if !self.epoch(stop, tell)? {
                return Ok(Ended::Stopped);
            }
        }
        let weights = self.folder.best();
        if let Some(best) = self.progress.best.first() {
            tell(Event::Finished {
                reason,
                weights: weights.clone(),
                epoch: best.epoch,
                score: f64::from_bits(best.score),
            });
        }
        Ok(Ended::Finished { weights })
    }

    /// Makes the steps of an epoch that are left, and scores it. `false` when it was told to stop before.
    fn epoch(&mut self, stop: &AtomicBool, tell: &mut dyn FnMut(Event)) -> Result<bool, TrainError> {
        let mut batches = self.batches(self.progress.epoch);
        let count = batches.len();
        let steps = self.steps();
        let mut loader = Loader::start(
            &self.corpus,
            batches.split_off(self.progress.batch),
            self.job.run.loaders,
        )?;
        while let Some(batch) = loader.next()? {
            let step = self.step(&batch)?;
            self.progress.step = step.step;
            self.progress.batch += 1;
            self.progress.loss = (f64::from_bits(self.progress.loss) + step.loss).to_bits();
            self.folder.line(&step)?;
            tell(Event::Step {
                step,
                epochs: self.job.train.epochs,
                steps,
                faces: batch.draws.len(),
            });
            if self.progress.batch == count {
                break;
            }
            let stopped = stop.load(Ordering::Relaxed);
            if stopped || self.progress.step.is_multiple_of(self.job.run.checkpoint_steps) {
                self.folder
                    .checkpoint(&self.model, &self.optimiser, &self.progress)?;
            }
            if stopped {
                return Ok(false);
            }
        }
        self.end_epoch(count, tell)?;
        Ok(!stop.load(Ordering::Relaxed) || self.progress.epoch == self.job.train.epochs)
    }

    fn step(&mut self, batch: &Batch) -> Result<Step, TrainError> {
        let labels: Vec<Labels> = batch
            .draws
            .iter()
            .map(|draw| self.corpus.samples[draw.sample].labels)
            .collect();
        let counts = self.objective.counts(labels.iter());
        let part = labels.len().div_ceil(self.job.train.accumulate);
        let weights: Vec<&Tensor> = self.model.weights().values().collect();
        let mut gradients: Vec<Tensor> = Vec::new();
        let mut losses = vec![0.0; counts.len()];
        for (inputs, labels) in batch.inputs.chunks(part * INPUT_LEN).zip(labels.chunks(part)) {
            let outputs = self.model.forward(&model::batch_tensor(inputs)?)?;
            let torch = TrainError::torch("computing the loss");
            let loss = self.objective.loss(&outputs, labels, &counts).map_err(torch)?;
            add(&mut losses, &loss)?;
            let sum: f64 = losses.iter().sum();
            if !sum.is_finite() {
                return Err(self.not_finite(sum, &batch.draws));
            }
            let torch = TrainError::torch("computing the gradients");
            let part = Tensor::f_run_backward(&[&loss.total], &weights, false, false).map_err(torch)?;
            if gradients.is_empty() {
                gradients = part;
            } else {
                let torch = TrainError::torch("adding up gradients");
                gradients
                    .iter_mut()
                    .zip(&part)
                    .try_for_each(|(sum, part)| sum.f_add_(part).map(drop))
                    .map_err(torch)?;
            }
        }
        let torch = TrainError::torch("changing the weights");
        self.optimiser
            .step(self.model.weights(), &gradients)
            .map_err(torch)?;
        let sum = self.sum().map_err(TrainError::torch("looking at the weights"))?;
        if !sum.is_finite() {
            return Err(self.not_finite(sum, &batch.draws));
        }
        let names = self.model.kind().tasks().iter().map(|&task| name(task));
        Ok(Step {
            epoch: self.progress.epoch + 1,
            step: self.optimiser.steps(),
            loss: losses.iter().sum(),
            losses: names.zip(losses).collect(),
        })
    }

    /// The sum of all weights: no number as soon as one of them is none.
    fn sum(&self) -> Result<f64, tch::TchError> {
        let _no_grad = tch::no_grad_guard();
        let sums = self
            .model
            .weights()
            .values()
            .map(|weight| weight.f_sum(tch::Kind::Float));
        let sums = sums.collect::<Result<Vec<_>, _>>()?;
        Tensor::f_stack(&sums, 0)?
            .f_sum(tch::Kind::Double)?
            .f_double_value(&[])
    }

    fn not_finite(&self, loss: f64, draws: &[Draw]) -> TrainError {
        let first: Vec<String> = draws
            .iter()
            .take(3)
            .map(|draw| self.corpus.called(draw.sample))
            .collect();
        let checkpoint = match self.progress.step {
            0 => "nothing was written yet".to_owned(),
            step => format!(
                "step {step} was the last that went well; the last checkpoint and the best weights stay"
            ),
        };
        TrainError::NotFinite {
            loss,
            epoch: self.progress.epoch + 1,
            step: self.progress.step + 1,
            faces: format!(
                "a batch of {} faces that begins with {}",
                draws.len(),
                first.join(", ")
            ),
            checkpoint,
        }
    }

    /// The weights still are numbers, and what they say of the held-out faces is none.
    fn not_scored(&self, loss: f64) -> TrainError {
        let checkpoint = match self.progress.best.first() {
            None => "no weights were kept yet".to_owned(),
            Some(best) => format!("the weights of epoch {} stay the best", best.epoch),
        };
        TrainError::NotFinite {
            loss,
            epoch: self.progress.epoch + 1,
            step: self.progress.step,
            faces: format!("the {} faces that are held out", self.held_out.len()),
            checkpoint,
        }
    }

    /// Scores the epoch, keeps its weights where it is among the best, and writes a checkpoint.
    fn end_epoch(&mut self, batches: usize, tell: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let (held_out_loss, score) = self.score()?;
        if !(held_out_loss.is_finite() && score.score.is_finite()) {
            return Err(self.not_scored(held_out_loss));
        }
        let epoch = Epoch {
            epoch: self.progress.epoch + 1,
            step: self.progress.step,
            training_loss: f64::from_bits(self.progress.loss) / batches as f64,
            held_out_loss,
            score,
        };
        self.folder.line(&epoch)?;
        let progress = &mut self.progress;
        (progress.epoch, progress.batch, progress.loss) = (epoch.epoch, 0, 0);
        let best = rank(progress, &epoch, self.job.output.keep);
        if progress.best.iter().any(|kept| kept.epoch == epoch.epoch) {
            let crop = self.corpus.crop();
            self.folder.keep(&self.model, crop, epoch.epoch, &self.progress)?;
        }
        self.folder
            .checkpoint(&self.model, &self.optimiser, &self.progress)?;
        self.folder.forget(&self.progress)?;
        tell(Event::Epoch { epoch, best });
        Ok(())
    }

    /// Loss and figures of the held-out faces.
    fn score(&self) -> Result<(f64, Score), TrainError> {
        let _no_grad = tch::no_grad_guard();
        let samples = &self.corpus.samples;
        let counts = self
            .objective
            .counts(self.held_out.iter().map(|&sample| &samples[sample].labels));
        let mut scorer = Scorer::new(self.model.kind());
        let mut losses = vec![0.0; counts.len()];
        let batches = loader::in_order(&self.held_out, SCORED_AT_ONCE);
        let mut loader = Loader::start(&self.corpus, batches, self.job.run.loaders)?;
        while let Some(batch) = loader.next()? {
            let labels: Vec<Labels> = batch
                .draws
                .iter()
                .map(|draw| samples[draw.sample].labels)
                .collect();
            let outputs = self.model.forward(&model::batch_tensor(&batch.inputs)?)?;
            let torch = TrainError::torch("scoring the held-out faces");
            add(
                &mut losses,
                &self.objective.loss(&outputs, &labels, &counts).map_err(torch)?,
            )?;
            let rows = model::values(&outputs)?;
            for (labels, row) in labels.iter().zip(rows.chunks(self.model.kind().output_count())) {
                scorer.add(&labels.truth(), row);
            }
        }
        Ok((losses.iter().sum(), scorer.score()))
    }
}

/// Puts an epoch in its place among the best ones; whether it is the best of all.
fn rank(progress: &mut Progress, epoch: &Epoch, keep: usize) -> bool {
    let score = epoch.score.score;
    let better = |kept: &Kept| f64::from_bits(kept.score) >= score;
    let place = progress.best.iter().take_while(|kept| better(kept)).count();
    let kept = Kept {
        epoch: epoch.epoch,
        score: score.to_bits(),
    };
    progress.best.insert(place, kept);
    progress.best.truncate(keep);
    progress.stale = if place == 0 { 0 } else { progress.stale + 1 };
    place == 0
}

fn add(losses: &mut [f64], loss: &Loss) -> Result<(), TrainError> {
    for (sum, part) in losses.iter_mut().zip(&loss.parts) {
        *sum += part
            .f_double_value(&[])
            .map_err(TrainError::torch("reading the loss"))?;
    }
    Ok(())
}

fn name(task: Task) -> &'static str {
    match task {
        Task::Va => "va",
        Task::Expr => "expr",
        Task::Au => "au",
    }
}

/// The weights before the first step.
fn start(job: &TrainJob, kind: ModelKind) -> Result<StateDict, TrainError> {
    if let Some(weights) = &job.start.weights {
        return Ok(StateDict::read(weights, kind)?);
    }
    let mut state = StateDict::untrained(kind, job.train.seed);
    if let Some(body) = &job.start.body {
        state.take_body(body, kind)?;
    }
    Ok(state)
}
