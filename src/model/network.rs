//! The inference network and the batch it reads.
//!
//! Flows in: samples of [`INPUT_LEN`] normalised values, one face each. Flows out: one row of outputs a sample. A row's bits
//! depend on its sample and the weights alone: not on its place in the batch, its neighbours, the size of the batch or
//! (on the CPU) the number of threads.

use super::readout::Readout;
use super::resnet::{Body, Placement};
use super::script::Script;
use super::state::StateDict;
use super::xception::Xception;
use super::{Device, INPUT_LEN, INPUT_SIZE, ModelError};
use crate::domain::{ModelKind, Precision};
use std::path::Path;
use tch::{Kind, TchError, Tensor};

/// Batches are padded with zeros to at least this many samples: libraries like to treat one or two samples by
/// themselves, in another order of summation.
const SMALLEST: usize = 4;

/// Samples gathered for one call of [`Network::infer`], in host memory.
pub struct Batch {
    // Always as long as the largest tensor made of it; zero past the samples.
    data: Vec<f32>,
    capacity: usize,
    len: usize,
    device: Device,
}

impl Batch {
    /// An empty batch for at most `capacity` samples that a network on `device` will read.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for a capacity of zero or one that overflows memory's addresses;
    /// [`ModelError::Device`] for a GPU that is not there.
    pub fn new(capacity: usize, device: Device) -> Result<Self, ModelError> {
        device.require()?;
        let length = capacity
            .max(SMALLEST)
            .checked_mul(INPUT_LEN)
            .filter(|_| capacity > 0);
        let mut data = Vec::new();
        let length = length.filter(|&length| data.try_reserve_exact(length).is_ok());
        let length = length.ok_or_else(|| {
            ModelError::Batch(format!(
                "a capacity of {capacity} samples is impossible; choose 1 to some hundreds"
            ))
        })?;
        data.resize(length, 0.0);
        Ok(Self {
            data,
            capacity,
            len: 0,
            device,
        })
    }

    /// How many samples fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many samples are in.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Holds no sample.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes every sample out.
    pub fn clear(&mut self) {
        self.data[..self.len * INPUT_LEN].fill(0.0);
        self.len = 0;
    }

    /// Adds one sample: 3 planes R, G, B of 128×128 values, rows top to bottom, each `(value/255 − mean) / std`.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch is full or the sample is not [`INPUT_LEN`] long.
    pub fn push(&mut self, sample: &[f32]) -> Result<(), ModelError> {
        if self.len == self.capacity {
            let cause = format!("all {} places are taken; infer and clear it first", self.capacity);
            return Err(ModelError::Batch(cause));
        }
        if sample.len() != INPUT_LEN {
            let cause = format!(
                "a sample of {} values where {INPUT_LEN} are expected",
                sample.len()
            );
            return Err(ModelError::Batch(cause));
        }
        self.data[self.len * INPUT_LEN..][..INPUT_LEN].copy_from_slice(sample);
        self.len += 1;
        Ok(())
    }

    /// `[rows, 3, 128, 128]` on the device, zeros past the samples. On a GPU always of one shape, because there
    /// the choice of algorithm, and with it the last bits, depends on it.
    fn tensor(&self, kind: Kind) -> Result<Tensor, TchError> {
        let rows = if self.device == Device::cpu() {
            self.len
        } else {
            self.capacity
        };
        let rows = rows.max(SMALLEST);
        let side = INPUT_SIZE as i64;
        let samples = Tensor::f_from_slice(&self.data[..rows * INPUT_LEN])?;
        samples
            .f_view([rows as i64, 3, side, side])?
            .f_to_device(self.device.tch())?
            .f_to_kind(kind)
    }
}

/// A model ready to label, on one device.
pub struct Network {
    layers: Layers,
    /// Outputs of one face.
    width: usize,
    precision: Kind,
    device: Device,
}

impl Network {
    /// Loads the safetensors file of a `kind` (canonical names; `import_weights` writes them) onto a device.
    ///
    /// # Errors
    /// As [`StateDict::read`] and [`Network::from_state`].
    pub fn load(
        path: &Path,
        kind: ModelKind,
        precision: Precision,
        device: Device,
    ) -> Result<Self, ModelError> {
        device.require()?;
        Self::from_state(&StateDict::read(path, kind)?, kind, precision, device)
    }

    /// Builds the network from weights in memory.
    ///
    /// # Errors
    /// [`ModelError::Mismatch`] naming every tensor that is missing, misshapen or not finite;
    /// [`ModelError::Device`]; [`ModelError::NoBf16`]; [`ModelError::Torch`] when memory runs out.
    pub fn from_state(
        state: &StateDict,
        kind: ModelKind,
        precision: Precision,
        device: Device,
    ) -> Result<Self, ModelError> {
        device.require()?;
        if precision == Precision::Bf16 && !device.has_bf16() {
            return Err(ModelError::NoBf16);
        }
        let problems = state.problems(kind);
        if !problems.is_empty() {
            return Err(ModelError::Mismatch {
                path: state.origin.clone(),
                kind: kind.name(),
                problems,
            });
        }
        let place = Placement {
            device: device.tch(),
            kind: match precision {
                Precision::Fp32 => Kind::Float,
                Precision::Bf16 => Kind::BFloat16,
            },
        };
        let _no_grad = tch::no_grad_guard();
        let layers = Layers::new(state, kind, place).map_err(ModelError::torch("building the network"))?;
        Ok(Self {
            layers,
            width: kind.output_count(),
            precision: place.kind,
            device,
        })
    }

    /// A network that is a module of somebody's own, of so many outputs; it was found to work.
    pub(super) fn of_script(script: Script, width: usize, device: Device) -> Self {
        Self {
            layers: Layers::Script(script),
            width,
            precision: Kind::Float,
            device,
        }
    }

    /// Runs the network on a batch. Row-major `[batch.len(), outputs]`: valence and arousal raw, expression
    /// and action-unit logits, in the order of the tasks. An empty batch gives no rows.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch is meant for another device; [`ModelError::Torch`] when memory runs out or
    /// the device fails.
    pub fn infer(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.look(batch, false)
    }

    /// As [`infer`](Self::infer), of the samples mirrored left to right.
    ///
    /// # Errors
    /// As [`infer`](Self::infer).
    pub fn infer_mirrored(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.look(batch, true)
    }

    fn look(&self, batch: &Batch, mirrored: bool) -> Result<Vec<f32>, ModelError> {
        if batch.device != self.device {
            let cause = format!("made for {} but the network is on {}", batch.device, self.device);
            return Err(ModelError::Batch(cause));
        }
        let mut rows = vec![0.0; batch.len * self.width];
        if rows.is_empty() {
            return Ok(rows);
        }
        let _no_grad = tch::no_grad_guard();
        let mut run = || {
            let mut samples = batch.tensor(self.precision)?;
            if mirrored {
                samples = samples.f_flip([3])?;
            }
            let outputs = self
                .layers
                .forward(&samples)?
                .f_to_device(tch::Device::Cpu)?
                .f_contiguous()?;
            let taken = rows.len();
            outputs.f_copy_data(&mut rows, taken)
        };
        run().map_err(ModelError::torch("inferring a batch"))?;
        Ok(rows)
    }
}

/// The layers of each architecture.
enum Layers {
    Pyramid(Body, Readout),
    Xception(Xception),
    Script(Script),
}

impl Layers {
    fn new(state: &StateDict, kind: ModelKind, place: Placement) -> Result<Self, TchError> {
        Ok(match kind {
            ModelKind::MiniXception => Self::Xception(Xception::new(state, place)?),
            ModelKind::Student | ModelKind::TeacherVa | ModelKind::TeacherExpr | ModelKind::TeacherAu => {
                Self::Pyramid(Body::new(state, place)?, Readout::new(state, kind, place)?)
            }
        })
    }

    /// `[N, 3, 128, 128]` to `[N, outputs]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Pyramid(body, readout) => readout.forward(&body.forward(x)?),
            Self::Xception(network) => network.forward(x),
            Self::Script(script) => script.forward(x),
        }
    }
}
