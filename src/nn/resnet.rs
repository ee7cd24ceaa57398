//! The ResNet-50 body, `[N, 3, 128, 128]` normalised RGB in, C2…C5 out, with batch norm folded into the convolutions.
//!
//! A frozen batch norm is `y = γ·(x − μ)/√(σ² + ε) + β`, an affine map of each channel, so it is multiplied into the
//! convolution before it, in float64, at load. ε is 1e-5, the default of torchvision's `FrozenBatchNorm2d` (with which
//! `resnet_fpn_backbone` builds the body) and of `BatchNorm2d` alike. The stride of a bottleneck sits on its 3×3 convolution,
//! as in torchvision.

use super::layout::{LEVEL_SIDES, STAGES};
use super::state::{Array, StateDict};
use crate::onednn;
use crate::onednn::Geometry;
use affectmill_base::INPUT_SIZE;
use tch::{Device, Kind, TchError, Tensor};

pub(super) const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A tensor laid out on a device in the precision of a network; every constructor of this room takes one.
#[derive(Clone, Copy)]
pub(super) struct Placement {
    pub device: Device,
    pub kind: Kind,
}

impl Placement {
    /// Precisions that oneDNN computes in.
    pub(super) fn has_onednn(self) -> bool {
        self.device == Device::Cpu && matches!(self.kind, Kind::Float | Kind::BFloat16)
    }

    pub(super) fn tensor(self, data: &[f64], shape: &[usize]) -> Result<Tensor, TchError> {
        let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        Tensor::f_from_slice(data)?
            .f_view(shape.as_slice())?
            .f_to_kind(self.kind)?
            .f_to_device(self.device)
    }

    pub(super) fn array(self, array: &Array) -> Result<Tensor, TchError> {
        let data: Vec<f64> = array.data.iter().copied().map(f64::from).collect();
        self.tensor(&data, &array.shape)
    }
}

/// The same tensor `[N, C, H, W]`, in memory as `[N, H, W, C]`, which is fastest for convolutions on the CPU.
pub(super) fn channels_last(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

/// Samples for which weights are laid out; other batches use the same layout.
const PACKED_FOR: i64 = 32;

/// A square convolution with bias.
pub(super) struct Conv {
    weight: Tensor,
    /// `None`: what follows adds it.
    bias: Option<Tensor>,
    geometry: Geometry,
    fused: Fused,
}

/// The library that fuses the ReLU and the addition into a convolution.
#[derive(Clone, Copy, PartialEq)]
enum Fused {
    OneDnn,
    /// On a GPU.
    CuDnn,
    Nobody,
}

impl Conv {
    /// From a weight `[C′, C ÷ groups, k, k]` and a bias `[C′]`; weights are laid out for inputs of `side` × `side`.
    pub(super) fn new(
        weight: Tensor,
        bias: Tensor,
        geometry: Geometry,
        side: usize,
        place: Placement,
    ) -> Result<Self, TchError> {
        let fused = match place.device {
            Device::Cuda(_) if geometry.groups == 1 => Fused::CuDnn,
            _ if place.has_onednn() => Fused::OneDnn,
            _ => Fused::Nobody,
        };
        let mut weight = channels_last(&weight)?;
        if fused == Fused::OneDnn {
            let side = side as i64;
            let channels = weight.size()[1] * geometry.groups;
            weight = onednn::pack(&weight, geometry, [PACKED_FOR, channels, side, side])?;
        }
        Ok(Self {
            weight,
            bias: Some(bias),
            geometry,
            fused,
        })
    }

    /// A convolution that carries its own bias: `name.weight`, `name.bias`. It reads `side` × `side`.
    #[cfg(test)]
    pub(super) fn plain(
        state: &StateDict,
        name: &str,
        padding: i64,
        side: usize,
        place: Placement,
    ) -> Result<Self, TchError> {
        let weight = place.array(&state.tensors[&format!("{name}.weight")])?;
        let bias = place.array(&state.tensors[&format!("{name}.bias")])?;
        Self::new(
            weight,
            bias,
            Geometry {
                padding,
                stride: 1,
                groups: 1,
            },
            side,
            place,
        )
    }

    /// A convolution without bias and the batch norm after it, as one convolution padded to keep its size (but
    /// for the stride). It reads `side` × `side`.
    fn folded(
        state: &StateDict,
        conv: &str,
        bn: &str,
        stride: i64,
        side: usize,
        place: Placement,
    ) -> Result<Self, TchError> {
        let kernel = &state.tensors[&format!("{conv}.weight")];
        let part = |name: &str| {
            state.tensors[&format!("{bn}.{name}")]
                .data
                .iter()
                .copied()
                .map(f64::from)
        };
        let scales = part("weight").zip(part("running_var"));
        let scales: Vec<f64> = scales
            .map(|(gamma, var)| gamma / (var + BATCH_NORM_EPSILON).sqrt())
            .collect();
        let shifts = part("bias").zip(part("running_mean")).zip(&scales);
        let bias: Vec<f64> = shifts.map(|((beta, mean), scale)| beta - mean * scale).collect();
        let filters = kernel.data.chunks_exact(kernel.data.len() / scales.len());
        let scaled = filters
            .zip(&scales)
            .flat_map(|(filter, scale)| filter.iter().map(move |&w| f64::from(w) * scale));
        let weight = place.tensor(&scaled.collect::<Vec<_>>(), &kernel.shape)?;
        let bias = place.tensor(&bias, &[bias.len()])?;
        let padding = kernel.shape[2] as i64 / 2;
        Self::new(
            weight,
            bias,
            Geometry {
                padding,
                stride,
                groups: 1,
            },
            side,
            place,
        )
    }

    /// Leaves the bias of this convolution to one that adds this one's output to its own: a kernel less on a GPU, where no
    /// library adds a bias alone.
    fn leave_bias_to(&mut self, next: &mut Self) -> Result<(), TchError> {
        if let (Fused::CuDnn, Some(sum)) = (self.fused, &next.bias)
            && let Some(bias) = self.bias.take()
        {
            next.bias = Some(sum.f_add(&bias)?);
        }
        Ok(())
    }

    /// `[N, C, H, W]` to `[N, C′, H′, W′]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        if let (Fused::OneDnn, Some(bias)) = (self.fused, &self.bias) {
            return onednn::conv(x, &self.weight, bias, self.geometry, false);
        }
        let Geometry {
            padding,
            stride,
            groups,
        } = self.geometry;
        // The full form of `conv2d`: no benchmarking and only deterministic algorithms on a GPU, and no TF32, whose
        // 10-bit fractions would cost three decimal places.
        let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
        x.f_internal_convolution(
            &self.weight,
            self.bias.as_ref(),
            [stride; 2],
            [padding; 2],
            [1, 1],
            false,
            [0, 0],
            groups,
            benchmark,
            deterministic,
            cudnn,
            tf32,
        )
    }

    /// `relu(forward(x))`.
    pub(super) fn forward_relu(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Geometry {
            padding,
            stride,
            groups,
        } = self.geometry;
        match (self.fused, &self.bias) {
            (Fused::OneDnn, Some(bias)) => onednn::conv(x, &self.weight, bias, self.geometry, true),
            (Fused::CuDnn, bias) => x.f_cudnn_convolution_relu(
                &self.weight,
                bias.as_ref(),
                [stride; 2],
                [padding; 2],
                [1, 1],
                groups,
            ),
            _ => self.forward(x)?.f_relu_(),
        }
    }

    /// `relu(forward(x) + sum)`. May overwrite `sum`, which nothing else may read any more.
    fn forward_add_relu(&self, x: &Tensor, sum: Tensor) -> Result<Tensor, TchError> {
        let Geometry {
            padding,
            stride,
            groups,
        } = self.geometry;
        match (self.fused, &self.bias) {
            (Fused::OneDnn, Some(bias)) => onednn::conv_add_relu(sum, x, &self.weight, bias, self.geometry),
            (Fused::CuDnn, bias) => x.f_cudnn_convolution_add_relu(
                &self.weight,
                &sum,
                1.0,
                bias.as_ref(),
                [stride; 2],
                [padding; 2],
                [1, 1],
                groups,
            ),
            _ => self.forward(x)?.f_add_(&sum)?.f_relu_(),
        }
    }
}

struct Bottleneck {
    convs: [Conv; 3],
    shortcut: Option<Conv>,
}

impl Bottleneck {
    /// The block named `at`, which reads `side` × `side`.
    fn new(
        state: &StateDict,
        at: &str,
        stride: i64,
        side: usize,
        place: Placement,
    ) -> Result<Self, TchError> {
        let conv = |i: usize, stride, side| {
            let (conv, bn) = (format!("{at}.conv{i}"), format!("{at}.bn{i}"));
            Conv::folded(state, &conv, &bn, stride, side, place)
        };
        let shortcut = format!("{at}.downsample.0");
        let projected = state.tensors.contains_key(&format!("{shortcut}.weight"));
        let project = || {
            Conv::folded(
                state,
                &shortcut,
                &format!("{at}.downsample.1"),
                stride,
                side,
                place,
            )
        };
        let small = side / stride as usize;
        let mut convs = [conv(1, 1, side)?, conv(2, stride, side)?, conv(3, 1, small)?];
        let mut shortcut = projected.then(project).transpose()?;
        if let Some(shortcut) = &mut shortcut {
            shortcut.leave_bias_to(&mut convs[2])?;
        }
        Ok(Self { convs, shortcut })
    }

    /// May overwrite `x`, which nothing else may look at any more, unless the block has a shortcut of its own.
    fn forward(&self, x: Tensor) -> Result<Tensor, TchError> {
        let [reduce, spatial, expand] = &self.convs;
        let y = spatial.forward_relu(&reduce.forward_relu(&x)?)?;
        let sum = match &self.shortcut {
            Some(project) => project.forward(&x)?,
            None => x,
        };
        expand.forward_add_relu(&y, sum)
    }
}

/// ResNet-50 without its classifier, or its beginning.
pub(super) struct Body {
    stem: Conv,
    stages: Vec<Vec<Bottleneck>>,
}

impl Body {
    /// Builds the body from canonical tensors that were checked against the layout.
    pub(super) fn new(state: &StateDict, place: Placement) -> Result<Self, TchError> {
        Self::beginning(state, STAGES.len(), place)
    }

    /// The stem and the first so many of the four stages.
    pub(super) fn beginning(state: &StateDict, count: usize, place: Placement) -> Result<Self, TchError> {
        let mut stages = Vec::new();
        for (stage, (_, blocks)) in STAGES.into_iter().enumerate().take(count) {
            let block = |block: usize| {
                let stride = if block == 0 && stage > 0 { 2 } else { 1 };
                let side = LEVEL_SIDES[stage] * stride as usize;
                let name = format!("body.layer{}.{block}", stage + 1);
                Bottleneck::new(state, &name, stride, side, place)
            };
            stages.push((0..blocks).map(block).collect::<Result<_, _>>()?);
        }
        Ok(Self {
            stem: Conv::folded(state, "body.conv1", "body.bn1", 2, INPUT_SIZE, place)?,
            stages,
        })
    }

    /// C2 `[N, 256, 32, 32]`, C3 `[N, 512, 16, 16]`, C4 `[N, 1024, 8, 8]`, C5 `[N, 2048, 4, 4]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>, TchError> {
        Ok(self.levels(x)?.1)
    }

    /// What the last stage puts out (without stages, the stem), and the level of every stage.
    pub(super) fn levels(&self, x: &Tensor) -> Result<(Tensor, Vec<Tensor>), TchError> {
        let x = self.stem.forward_relu(&channels_last(x)?)?;
        let mut x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        let mut levels = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            for block in stage {
                x = block.forward(x)?;
            }
            // Left as it is: the next block has a shortcut of its own.
            levels.push(x.shallow_clone());
        }
        Ok((x, levels))
    }
}
