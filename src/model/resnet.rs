//! The ResNet-50 body, `[N, 3, 128, 128]` normalised RGB in, C2…C5 out, with batch norm folded into the convolutions.
//!
//! A frozen batch norm is `y = γ·(x − μ)/√(σ² + ε) + β`, an affine map of each channel, so it is multiplied into the
//! convolution before it, in float64, at load. ε is 1e-5, the default of torchvision's `FrozenBatchNorm2d` (with which
//! `resnet_fpn_backbone` builds the body) and of `BatchNorm2d` alike. The stride of a bottleneck sits on its 3×3 convolution,
//! as in torchvision.

use super::layout::STAGES;
use super::state::{Array, StateDict};
use tch::{Device, Kind, TchError, Tensor};

const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A tensor laid out on a device in the precision of a network; every constructor of this room takes one.
#[derive(Clone, Copy)]
pub(super) struct Placement {
    pub device: Device,
    pub kind: Kind,
}

impl Placement {
    pub(super) fn is_fp32_on_cpu(self) -> bool {
        self.device == Device::Cpu && self.kind == Kind::Float
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

/// The same tensor `[N, C, H, W]`, laid out in memory as `[N, H, W, C]`: what the CPU's convolutions are fastest on.
pub(super) fn channels_last(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

/// A square convolution with bias.
pub(super) struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
    /// Run by oneDNN: fp32 on the CPU.
    onednn: bool,
}

impl Conv {
    /// A convolution that carries its own bias: `name.weight`, `name.bias`.
    #[cfg(test)]
    pub(super) fn plain(
        state: &StateDict,
        name: &str,
        padding: i64,
        place: Placement,
    ) -> Result<Self, TchError> {
        Ok(Self {
            weight: channels_last(&place.array(&state.tensors[&format!("{name}.weight")])?)?,
            bias: place.array(&state.tensors[&format!("{name}.bias")])?,
            stride: 1,
            padding,
            onednn: place.is_fp32_on_cpu(),
        })
    }

    /// A convolution without bias and the batch norm after it, as one convolution padded to keep its size (but
    /// for the stride).
    fn folded(
        state: &StateDict,
        conv: &str,
        bn: &str,
        stride: i64,
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
        Ok(Self {
            weight: channels_last(&place.tensor(&scaled.collect::<Vec<_>>(), &kernel.shape)?)?,
            bias: place.tensor(&bias, &[bias.len()])?,
            stride,
            padding: kernel.shape[2] as i64 / 2,
            onednn: place.is_fp32_on_cpu(),
        })
    }

    /// `[N, C, H, W]` to `[N, C′, H′, W′]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        if self.onednn {
            // Asked for by name, because `conv2d` takes another implementation, with other last bits, where it
            // thinks that faster: for few samples on a single thread.
            return x.f_mkldnn_convolution(&self.weight, Some(&self.bias), padding, stride, [1, 1], 1);
        }
        // The full form of `conv2d`: no benchmarking and only deterministic algorithms on a GPU, and no TF32, whose
        // 10-bit fractions would cost three decimal places.
        let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
        x.f_internal_convolution(
            &self.weight,
            Some(&self.bias),
            stride,
            padding,
            [1, 1],
            false,
            [0, 0],
            1,
            benchmark,
            deterministic,
            cudnn,
            tf32,
        )
    }
}

struct Bottleneck {
    convs: [Conv; 3],
    shortcut: Option<Conv>,
}

impl Bottleneck {
    fn new(state: &StateDict, at: &str, stride: i64, place: Placement) -> Result<Self, TchError> {
        let conv = |i: usize, stride| {
            Conv::folded(
                state,
                &format!("{at}.conv{i}"),
                &format!("{at}.bn{i}"),
                stride,
                place,
            )
        };
        let shortcut = format!("{at}.downsample.0");
        let projected = state.tensors.contains_key(&format!("{shortcut}.weight"));
        let project = || Conv::folded(state, &shortcut, &format!("{at}.downsample.1"), stride, place);
        Ok(Self {
            convs: [conv(1, 1)?, conv(2, stride)?, conv(3, 1)?],
            shortcut: projected.then(project).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let [reduce, spatial, expand] = &self.convs;
        let y = reduce.forward(x)?.f_relu_()?;
        let y = spatial.forward(&y)?.f_relu_()?;
        let mut y = expand.forward(&y)?;
        match &self.shortcut {
            Some(project) => y.f_add_(&project.forward(x)?)?,
            None => y.f_add_(x)?,
        }
        .f_relu_()
    }
}

/// ResNet-50 without its classifier.
pub(super) struct Body {
    stem: Conv,
    stages: Vec<Vec<Bottleneck>>,
}

impl Body {
    /// Builds the body from canonical tensors that were checked against the layout.
    pub(super) fn new(state: &StateDict, place: Placement) -> Result<Self, TchError> {
        let mut stages = Vec::new();
        for (stage, (_, blocks)) in STAGES.into_iter().enumerate() {
            let block = |block: usize| {
                let stride = if block == 0 && stage > 0 { 2 } else { 1 };
                Bottleneck::new(state, &format!("body.layer{}.{block}", stage + 1), stride, place)
            };
            stages.push((0..blocks).map(block).collect::<Result<_, _>>()?);
        }
        Ok(Self {
            stem: Conv::folded(state, "body.conv1", "body.bn1", 2, place)?,
            stages,
        })
    }

    /// C2 `[N, 256, 32, 32]`, C3 `[N, 512, 16, 16]`, C4 `[N, 1024, 8, 8]`, C5 `[N, 2048, 4, 4]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let x = self.stem.forward(&channels_last(x)?)?.f_relu_()?;
        let mut x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        let mut levels = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            for block in stage {
                x = block.forward(&x)?;
            }
            levels.push(x.shallow_clone());
        }
        Ok(levels)
    }
}
