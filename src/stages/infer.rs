//! Prepared faces in, outputs of every model out: one batch, shared by all models of a job.
//!
//! An output does not depend on the other faces of its batch, so whoever fills batches may cut them anywhere.

use crate::domain::ModelKind;
use crate::model::{Batch, Device, ModelError, Network};
use crate::spec::ModelSpec;

/// The models of a job on one device, and the batch they share.
pub struct Engine {
    models: Vec<(ModelKind, Network)>,
    batch: Batch,
}

impl Engine {
    /// Loads the models, in job order.
    ///
    /// # Errors
    /// [`ModelError`] when a weight file is missing or does not fit, or the device has no room.
    pub fn load(models: &[ModelSpec], capacity: usize, device: Device) -> Result<Self, ModelError> {
        let load = |model: &ModelSpec| {
            let network = Network::load(&model.weights, model.kind, model.precision, device)?;
            Ok((model.kind, network))
        };
        Ok(Self {
            models: models.iter().map(load).collect::<Result<_, ModelError>>()?,
            batch: Batch::new(capacity, device)?,
        })
    }

    /// Faces a batch holds.
    pub fn capacity(&self) -> usize {
        self.batch.capacity()
    }

    /// Whether the batch must be run before another face fits.
    pub fn is_full(&self) -> bool {
        self.batch.len() == self.batch.capacity()
    }

    /// Adds a prepared face: planar RGB `[3, 128, 128]` f32, normalised.
    ///
    /// # Errors
    /// [`ModelError`] when the sample has another length or the batch is full.
    pub fn push(&mut self, sample: &[f32]) -> Result<(), ModelError> {
        self.batch.push(sample)
    }

    /// Throws away what was pushed.
    pub fn clear(&mut self) {
        self.batch.clear();
    }

    /// Runs every model over the batch and empties it.
    ///
    /// # Errors
    /// [`ModelError`] when libtorch refuses; the batch is kept.
    pub fn run(&mut self) -> Result<Outputs, ModelError> {
        let mut models = Vec::with_capacity(self.models.len());
        if !self.batch.is_empty() {
            for (kind, network) in &self.models {
                models.push((kind.output_count(), network.infer(&self.batch)?));
            }
        }
        self.batch.clear();
        Ok(Outputs { models })
    }
}

/// What the models say of the faces of one batch.
pub struct Outputs {
    /// Width and row-major `[faces, width]` values of each model.
    models: Vec<(usize, Vec<f32>)>,
}

impl Outputs {
    /// Raw outputs of each model, in job order, for the `n`-th face of the batch.
    pub fn face(&self, n: usize) -> Vec<&[f32]> {
        self.models
            .iter()
            .map(|(width, values)| &values[n * width..(n + 1) * width])
            .collect()
    }
}
