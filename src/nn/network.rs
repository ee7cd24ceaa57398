//! The inference network.
//!
//! Flows in: a batch of samples, one face each. Flows out: one row of outputs a sample. A row's bits depend on its sample and
//! the weights alone: not on its place in the batch, its neighbours or (on the CPU) the size of the batch and the number of
//! threads. On a GPU they depend on the kind of GPU, and on the batch's capacity, as libraries choose algorithms by it.

use super::error::tells_of_memory;
use super::readout::Readout;
use super::resnet::{Body, Placement};
use super::script::Script;
use super::state::StateDict;
use super::xception::Xception;
use super::{Batch, Device, ModelError, WeightFile};
use affectmill_base::{ModelKind, Precision};
use std::cell::Cell;
use tch::{Kind, TchError, Tensor};

/// A model ready to label, on one device.
pub struct Network {
    layers: Layers,
    /// Outputs of one face.
    width: usize,
    precision: Kind,
    device: Device,
    /// In how many pieces a batch is read: 2 once the GPU had no memory for a whole one.
    pieces: Cell<usize>,
}

impl Network {
    /// Loads the safetensors file of a `kind` (canonical names; `import_weights` writes them) onto a device.
    ///
    /// # Errors
    /// As [`StateDict::of`] and [`Network::from_state`].
    pub fn load(
        file: &WeightFile,
        kind: ModelKind,
        precision: Precision,
        device: Device,
    ) -> Result<Self, ModelError> {
        device.require()?;
        Self::from_state(&StateDict::of(file, kind)?, kind, precision, device)
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
        if precision == Precision::Fp16 && device == Device::cpu() {
            return Err(ModelError::NoFp16);
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
                Precision::Fp16 => Kind::Half,
            },
        };
        let _no_grad = tch::no_grad_guard();
        let layers = Layers::new(state, kind, place).map_err(ModelError::torch("building the network"))?;
        Ok(Self {
            layers,
            width: kind.output_count(),
            precision: place.kind,
            device,
            pieces: Cell::new(1),
        })
    }

    /// A network that is a module of somebody's own, of so many outputs; it was found to work.
    pub(super) fn of_script(script: Script, width: usize, device: Device) -> Self {
        Self {
            layers: Layers::Script(script),
            width,
            precision: Kind::Float,
            device,
            pieces: Cell::new(1),
        }
    }

    /// Runs the network on a batch. Row-major `[batch.len(), outputs]`: valence and arousal raw, expression
    /// and action-unit logits, in the order of the tasks. An empty batch gives no rows.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch is meant for another device; [`ModelError::GpuMemory`] when the GPU has no room even
    /// for half a batch (once it had none for a whole one, batches are read in two halves); [`ModelError::Torch`] when the
    /// device fails.
    pub fn infer(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.look(batch, false, &|| {})
    }

    /// As [`infer`](Self::infer), of the samples as they are or `mirrored` left to right. `looked` is called after each piece in
    /// which the batch is read.
    ///
    /// # Errors
    /// As [`infer`](Self::infer).
    pub fn look(&self, batch: &Batch, mirrored: bool, looked: &dyn Fn()) -> Result<Vec<f32>, ModelError> {
        if batch.device != self.device {
            let cause = format!("made for {} but the network is on {}", batch.device, self.device);
            return Err(ModelError::Batch(cause));
        }
        let _no_grad = tch::no_grad_guard();
        match self.rows(batch, mirrored, looked) {
            Err(error) if self.pieces.get() == 1 && batch.capacity() > 1 && self.out_of_memory(&error) => {
                self.pieces.set(2);
                self.rows(batch, mirrored, looked)
            }
            rows => rows,
        }
        .map_err(|cause| {
            if self.out_of_memory(&cause) {
                ModelError::GpuMemory {
                    device: self.device.to_string(),
                    batch: batch.capacity(),
                    cause,
                }
            } else {
                ModelError::torch("inferring a batch")(cause)
            }
        })
    }

    /// Whether batches are read in halves by now, because the GPU had no memory for a whole one.
    pub fn halves(&self) -> bool {
        self.pieces.get() > 1
    }

    /// Whether the GPU may have had no memory for it.
    fn out_of_memory(&self, error: &TchError) -> bool {
        self.device.gpu().is_some() && tells_of_memory(error)
    }

    fn rows(&self, batch: &Batch, mirrored: bool, looked: &dyn Fn()) -> Result<Vec<f32>, TchError> {
        let width = self.width;
        let mut rows = vec![0.0; batch.len * width];
        let mut left = rows.as_mut_slice();
        for (count, samples) in batch.tensors(self.precision, self.pieces.get()) {
            let mut samples = samples?;
            if mirrored {
                samples = samples.f_flip([3])?;
            }
            let outputs = self
                .layers
                .forward(&samples)?
                .f_to_device(tch::Device::Cpu)?
                .f_contiguous()?;
            let (here, rest) = left.split_at_mut(count * width);
            outputs.f_copy_data(here, count * width)?;
            left = rest;
            looked();
        }
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

#[cfg(test)]
mod tests {
    use super::super::golden::{golden_sample, golden_state};
    use super::*;

    #[test]
    fn halves_of_a_batch_give_the_rows_of_the_whole() {
        let state = golden_state(ModelKind::TeacherVa);
        let network =
            Network::from_state(&state, ModelKind::TeacherVa, Precision::Fp32, Device::cpu()).unwrap();
        for samples in [1, 2, 5] {
            let mut batch = Batch::new(5, Device::cpu()).unwrap();
            for n in 0..samples {
                batch.push(&golden_sample(n)).unwrap();
            }
            network.pieces.set(1);
            let whole = network.infer(&batch).unwrap();
            assert!(!network.halves());
            network.pieces.set(2);
            assert!(network.halves());
            assert_eq!(network.infer(&batch).unwrap(), whole, "{samples} samples");
        }
    }

    /// As PyTorch 2.11, cuDNN and cuBLAS word it.
    #[test]
    fn a_gpu_that_is_full_is_told_from_one_that_is_broken() {
        let full = [
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
            "GET was unable to find an engine to execute this computation",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        ];
        for words in full {
            assert!(tells_of_memory(&TchError::Torch(words.into())), "{words}");
        }
        let broken = "CUDA error: an illegal memory access was encountered";
        assert!(!tells_of_memory(&TchError::Torch(broken.into())));
    }
}
