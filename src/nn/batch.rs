//! Prepared faces, in host memory or on a GPU, and the batch that a network reads.
//!
//! Flows in: samples of [`INPUT_LEN`] normalised values, 3 planes R, G, B of 128×128, rows top to bottom, each
//! `(value/255 − mean) / std`. Flows out: tensors on the network's device. What comes from the host goes up at once, from
//! page-locked memory, while the GPU is still at work on what came before.

use crate::{Device, ModelError};
use affectmill_base::{INPUT_LEN, INPUT_SIZE};
use std::borrow::Cow;
use tch::{Kind, TchError, Tensor};

/// Batches are padded with zeros to at least this many samples: libraries like to treat one or two samples by
/// themselves, in another order of summation.
const SMALLEST: usize = 4;

/// Samples of one piece on the CPU at most, where a row does not depend on it: each piece ends in a sign of life, and takes
/// seconds where the processor is slow.
const PIECE: usize = 32;

const SHAPE: [i64; 3] = [3, INPUT_SIZE as i64, INPUT_SIZE as i64];

/// A prepared face, once for each way of cropping.
pub enum Sample {
    /// In host memory, one crop after the other.
    Host(Vec<f32>),
    /// On a GPU.
    Gpu(GpuSample),
}

/// Crops that lie on a GPU, each `[3, 128, 128]` f32.
pub struct GpuSample(pub(super) Vec<Tensor>);

impl Sample {
    /// The first crop, brought to the host if need be.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when the GPU fails.
    pub fn first(&self) -> Result<Cow<'_, [f32]>, ModelError> {
        match self {
            Sample::Host(values) => Ok(Cow::Borrowed(&values[..INPUT_LEN.min(values.len())])),
            Sample::Gpu(GpuSample(crops)) => {
                let fetch = || {
                    let mut values = vec![0.0; INPUT_LEN];
                    crops[0].f_contiguous()?.f_copy_data(&mut values, INPUT_LEN)?;
                    Ok(Cow::Owned(values))
                };
                fetch().map_err(ModelError::torch("fetching a crop from the GPU"))
            }
        }
    }
}

impl GpuSample {
    /// Crops of one face in a row.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when there are none.
    pub fn joined(crops: Vec<GpuSample>) -> Result<Self, ModelError> {
        let crops: Vec<Tensor> = crops.into_iter().flat_map(|crop| crop.0).collect();
        if crops.is_empty() {
            Err(ModelError::Batch("a face without a crop".into()))
        } else {
            Ok(Self(crops))
        }
    }
}

/// Samples gathered for one call of [`Network::infer`](super::Network::infer).
pub struct Batch {
    places: Places,
    capacity: usize,
    pub(super) len: usize,
    pub(super) device: Device,
}

enum Places {
    /// Always as long as the largest tensor made of it; zero past the samples.
    Host(Vec<f32>),
    Gpu {
        /// `[capacity, INPUT_LEN]`, page-locked. A place is written once between two calls of `clear`, before which the GPU
        /// has read it.
        pinned: Tensor,
        taken: Vec<Tensor>,
        /// What fills the batch up.
        zeros: Tensor,
    },
}

impl Batch {
    /// An empty batch for at most `capacity` samples that a network on `device` will read.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for a capacity of zero or one that overflows memory's addresses;
    /// [`ModelError::Device`] for a GPU that is not there.
    pub fn new(capacity: usize, device: Device) -> Result<Self, ModelError> {
        device.require()?;
        let impossible = || {
            ModelError::Batch(format!(
                "a capacity of {capacity} samples is impossible; choose 1 to some hundreds"
            ))
        };
        let length = capacity.max(SMALLEST).checked_mul(INPUT_LEN);
        let length = length.filter(|_| capacity > 0).ok_or_else(impossible)?;
        let places = if device == Device::cpu() {
            let mut data = Vec::new();
            data.try_reserve_exact(length).map_err(|_| impossible())?;
            data.resize(length, 0.0);
            Places::Host(data)
        } else {
            let on_host = (Kind::Float, tch::Device::Cpu);
            let shape = [capacity as i64, INPUT_LEN as i64];
            let make = || {
                Ok(Places::Gpu {
                    pinned: Tensor::f_zeros(shape, on_host)?.f_pin_memory(device.tch())?,
                    taken: Vec::with_capacity(capacity),
                    zeros: Tensor::f_zeros(SHAPE, (Kind::Float, device.tch()))?,
                })
            };
            make().map_err(ModelError::torch("making room for a batch"))?
        };
        Ok(Self {
            places,
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

    /// Whether it has no samples.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes every sample out.
    pub fn clear(&mut self) {
        match &mut self.places {
            Places::Host(data) => data[..self.len * INPUT_LEN].fill(0.0),
            Places::Gpu { taken, .. } => taken.clear(),
        }
        self.len = 0;
    }

    /// Adds one sample from the host.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch is full or the sample is not [`INPUT_LEN`] long; [`ModelError::Torch`] when the
    /// GPU fails.
    pub fn push(&mut self, sample: &[f32]) -> Result<(), ModelError> {
        self.has_room()?;
        if sample.len() != INPUT_LEN {
            let cause = format!(
                "a sample of {} values where {INPUT_LEN} are expected",
                sample.len()
            );
            return Err(ModelError::Batch(cause));
        }
        match &mut self.places {
            Places::Host(data) => data[self.len * INPUT_LEN..][..INPUT_LEN].copy_from_slice(sample),
            Places::Gpu { pinned, taken, .. } => {
                let uploaded = upload(pinned, self.len, sample, self.device);
                taken.push(uploaded.map_err(ModelError::torch("taking a crop to the GPU"))?);
            }
        }
        self.len += 1;
        Ok(())
    }

    /// Adds crop `n` of a sample that lies on the batch's GPU.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch is full or on another device.
    pub fn take(&mut self, sample: &GpuSample, n: usize) -> Result<(), ModelError> {
        self.has_room()?;
        let crop = sample.0.get(n).filter(|crop| crop.size() == SHAPE);
        match (&mut self.places, crop) {
            (Places::Gpu { taken, .. }, Some(crop)) if crop.device() == self.device.tch() => {
                taken.push(crop.shallow_clone());
                self.len += 1;
                Ok(())
            }
            _ => Err(ModelError::Batch(format!(
                "a crop that is none, or not on {}",
                self.device
            ))),
        }
    }

    fn has_room(&self) -> Result<(), ModelError> {
        if self.len < self.capacity {
            return Ok(());
        }
        let cause = format!("all {} places are taken; infer and clear it first", self.capacity);
        Err(ModelError::Batch(cause))
    }

    /// Samples of one tensor, of a batch that is read in so many pieces. On a GPU always the same number, because there the
    /// choice of algorithm, and with it the last bits, depends on it.
    fn piece(&self, pieces: usize) -> usize {
        match self.places {
            Places::Host(_) => self.len.div_ceil(pieces.max(self.len.div_ceil(PIECE))),
            Places::Gpu { .. } => self.capacity.div_ceil(pieces),
        }
    }

    /// Tensors `[rows, 3, 128, 128]` on the device with all samples, zeros past the last, and the number of samples in each.
    pub(super) fn tensors(
        &self,
        kind: Kind,
        pieces: usize,
    ) -> impl Iterator<Item = (usize, Result<Tensor, TchError>)> {
        let piece = self.piece(pieces).max(1);
        (0..self.len).step_by(piece).map(move |first| {
            let count = piece.min(self.len - first);
            (count, self.tensor(kind, first, count, piece.max(SMALLEST)))
        })
    }

    fn tensor(&self, kind: Kind, first: usize, count: usize, rows: usize) -> Result<Tensor, TchError> {
        match &self.places {
            Places::Host(data) => {
                let shape = [rows as i64, SHAPE[0], SHAPE[1], SHAPE[2]];
                let values = &data[first * INPUT_LEN..];
                let samples = match values.get(..rows * INPUT_LEN) {
                    Some(values) => Tensor::f_from_slice(values)?,
                    // The last piece, where padding reaches beyond the room.
                    None => {
                        let mut padded = values.to_vec();
                        padded.resize(rows * INPUT_LEN, 0.0);
                        Tensor::f_from_slice(&padded)?
                    }
                };
                samples.f_view(shape)?.f_to_kind(kind)
            }
            Places::Gpu { taken, zeros, .. } => {
                let mut samples: Vec<&Tensor> = taken[first..first + count].iter().collect();
                samples.resize(rows, zeros);
                Tensor::f_stack(&samples, 0)?.f_to_kind(kind)
            }
        }
    }
}

/// Sends a sample up from its place in page-locked memory, without waiting for it to arrive.
fn upload(pinned: &Tensor, place: usize, sample: &[f32], device: Device) -> Result<Tensor, TchError> {
    let mut row = pinned.f_select(0, place as i64)?;
    let from = Tensor::f_from_slice(sample)?;
    row.f_copy_(&from)?;
    row.f_view(SHAPE)?
        .f_to_device_(device.tch(), Kind::Float, true, false)
}
