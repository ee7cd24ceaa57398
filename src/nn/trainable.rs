//! The paper's pyramid models as training needs them: every weight apart, gradients kept.
//!
//! Flows in: weights, then batches `[N, 3, 128, 128]` of normalised RGB. Flows out: outputs `[N, outputs]` through which
//! libtorch's autograd reaches the trained weights; the optimiser changes them in place.
//!
//! As the paper trains: batch norm is frozen, statistics and affine part, and so are the stem and the first stages. What is
//! frozen at the bottom runs as at inference. Above it a frozen batch norm is multiplied into the weights of its
//! convolution at every step, which costs a pass over the weights instead of several over the activations.
//!
//! The pyramid is never written out above P5. The spatial mean of a zero-padded 3×3 convolution needs, of its input, only
//! the nine sums over what each tap of the kernel sees; these are combinations of the sums over all cells, the borders and
//! the corners, and such sums pass through 1×1 convolutions, additions and nearest upsampling ([`border_sums`]). It is the
//! algebra of `readout.rs`, left differentiable; tests compare it with torchvision's own pyramid.

use super::resnet::{BATCH_NORM_EPSILON, Body, Placement, channels_last};
use super::state::StateDict;
use crate::layout;
use crate::layout::{LEVEL_SIDES, PYRAMID_CHANNELS, STAGES};
use crate::{Device, ModelError};
use affectmill_base::INPUT_SIZE;
use affectmill_base::{ModelKind, Precision};
use std::collections::BTreeMap;
use tch::{Kind, TchError, Tensor};

/// Parts of the body that can be trained, from the top: layer4, layer3, layer2, layer1 and the stem; the number that
/// torchvision's `resnet_fpn_backbone` calls `trainable_layers`.
pub const BODY_LAYERS: usize = STAGES.len() + 1;

/// A model in training.
pub struct Trainable {
    kind: ModelKind,
    device: Device,
    /// Of the weights; the convolutions compute in `compute`.
    master: Kind,
    compute: Kind,
    /// What is frozen at the bottom; `None` when the stem is trained.
    frozen: Option<Body>,
    /// Stages in `frozen`.
    first_stage: usize,
    /// Trained weights by canonical name.
    weights: BTreeMap<String, Tensor>,
    /// Scale `[C′, 1, 1, 1]` and shift `[C′]` of each frozen batch norm above the frozen part, by its convolution.
    norms: BTreeMap<String, (Tensor, Tensor)>,
    /// Sums over all cells and borders of a level `[9, H·W]`, for C2, C3, C4 and P5's input.
    sums: Vec<Tensor>,
    /// The nine sums of what the taps of a 3×3 kernel see, out of a level's border sums `[9, 9]`.
    taps: Tensor,
    /// What nearest upsampling by 2 makes of border sums `[9, 1]`.
    doubling: Tensor,
    /// The weights as they were given.
    state: StateDict,
}

impl Trainable {
    /// Makes the heads, the pyramid and the upper `trainable_layers` (0 to [`BODY_LAYERS`]) of the body trainable.
    ///
    /// # Errors
    /// As [`super::Network::from_state`]; [`ModelError::Batch`] for mini-Xception, which is no pyramid.
    pub fn new(
        state: StateDict,
        kind: ModelKind,
        trainable_layers: usize,
        precision: Precision,
        device: Device,
    ) -> Result<Self, ModelError> {
        if kind == ModelKind::MiniXception {
            let cause = "mini-Xception cannot be trained here; train a student or a teacher";
            return Err(ModelError::Batch(cause.into()));
        }
        device.require()?;
        let compute = match precision {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 if device.has_bf16() => Kind::BFloat16,
            Precision::Bf16 => return Err(ModelError::NoBf16),
            // Gradients underflow in fp16.
            Precision::Fp16 => return Err(ModelError::NoFp16),
        };
        Self::of_kinds(state, kind, trainable_layers, Kind::Float, compute, device)
    }

    /// As [`new`](Self::new), with weights and convolutions in any element type.
    pub fn of_kinds(
        state: StateDict,
        kind: ModelKind,
        trainable_layers: usize,
        master: Kind,
        compute: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        let problems = state.problems(kind);
        if !problems.is_empty() {
            return Err(ModelError::Mismatch {
                path: state.origin.clone(),
                kind: kind.name(),
                problems,
            });
        }
        let _no_grad = tch::no_grad_guard();
        Self::build(state, kind, trainable_layers, master, compute, device)
            .map_err(ModelError::torch("building the network"))
    }

    fn build(
        state: StateDict,
        kind: ModelKind,
        trainable_layers: usize,
        master: Kind,
        compute: Kind,
        device: Device,
    ) -> Result<Self, TchError> {
        let of = |kind| Placement {
            device: device.tch(),
            kind,
        };
        let (place, exact) = (of(master), of(Kind::Double));
        let first_stage = STAGES.len().saturating_sub(trainable_layers);
        let frozen = (trainable_layers < BODY_LAYERS)
            .then(|| Body::beginning(&state, first_stage, of(compute)))
            .transpose()?;
        let is_frozen = |name: &str| {
            let stage = name.strip_prefix("body.layer").and_then(|rest| rest.get(..1));
            match stage.and_then(|digit| digit.parse::<usize>().ok()) {
                Some(stage) => stage <= first_stage,
                None => name.starts_with("body.") && frozen.is_some(),
            }
        };
        let (mut weights, mut norms) = (BTreeMap::new(), BTreeMap::new());
        for (name, array) in &state.tensors {
            let is_norm = name.starts_with("body.") && array.shape.len() == 1;
            if is_frozen(name) || is_norm {
                continue;
            }
            let mut tensor = place.array(array)?;
            if array.shape.len() == 4 {
                tensor = channels_last(&tensor)?;
            }
            weights.insert(name.clone(), tensor.f_set_requires_grad(true)?);
            if name.starts_with("body.") {
                norms.insert(name.clone(), norm(&state, &norm_name(name), exact, master)?);
            }
        }
        let sums = LEVEL_SIDES.into_iter().map(|side| {
            let lines = selectors(side);
            of(compute).tensor(&outer(&lines, &lines), &[9, side * side])
        });
        Ok(Self {
            kind,
            device,
            master,
            compute,
            frozen,
            first_stage,
            weights,
            norms,
            sums: sums.collect::<Result<_, _>>()?,
            taps: place.tensor(&outer(&TAPS, &TAPS), &[9, 9])?,
            doubling: place.tensor(
                &outer(
                    &[vec![2.0], vec![1.0], vec![1.0]],
                    &[vec![2.0], vec![1.0], vec![1.0]],
                ),
                &[9, 1],
            )?,
            state,
        })
    }

    /// What it is.
    pub fn kind(&self) -> ModelKind {
        self.kind
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Trained weights by canonical name, in the order of the names. They are leaves of autograd's graphs: to be changed in
    /// place, where no gradient is recorded.
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }

    /// The weights as they are now, under the metadata that they came with.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when the device fails.
    pub fn state(&self) -> Result<StateDict, ModelError> {
        let mut state = self.state.clone();
        for (name, weight) in &self.weights {
            if let Some(array) = state.tensors.get_mut(name) {
                array.data = values(weight)?;
            }
        }
        Ok(state)
    }

    /// `[N, 3, 128, 128]` normalised RGB, f32, to outputs `[N, outputs]` in the order of the kind's tasks.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory runs out or the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        self.outputs(x)
            .map_err(ModelError::torch("computing a training batch"))
    }

    fn outputs(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let x = channels_last(&x.f_to_device(self.device.tch())?.f_to_kind(self.compute)?)?;
        let (mut x, mut levels) = match &self.frozen {
            Some(frozen) => {
                let _no_grad = tch::no_grad_guard();
                frozen.levels(&x)?
            }
            None => {
                let x = self.normed("body.conv1", &x, 2)?.f_relu_()?;
                (x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?, Vec::new())
            }
        };
        for (stage, (_, blocks)) in STAGES.into_iter().enumerate().skip(self.first_stage) {
            for block in 0..blocks {
                let stride = if block == 0 && stage > 0 { 2 } else { 1 };
                x = self.bottleneck(&format!("body.layer{}.{block}", stage + 1), &x, stride)?;
            }
            levels.push(x.shallow_clone());
        }
        let embedding = self.embed(&levels)?;
        let stack = |part: &str| {
            let names = self.kind.tasks().iter();
            let names = names.map(|&task| format!("heads.{}.{part}", layout::head_name(task)));
            Tensor::f_cat(&names.map(|name| &self.weights[&name]).collect::<Vec<_>>(), 0)
        };
        embedding.f_linear(&stack("weight")?, Some(&stack("bias")?))
    }

    fn bottleneck(&self, at: &str, x: &Tensor, stride: i64) -> Result<Tensor, TchError> {
        let y = self.normed(&format!("{at}.conv1"), x, 1)?.f_relu_()?;
        let y = self.normed(&format!("{at}.conv2"), &y, stride)?.f_relu_()?;
        let mut y = self.normed(&format!("{at}.conv3"), &y, 1)?;
        let shortcut = format!("{at}.downsample.0");
        if self.weights.contains_key(&format!("{shortcut}.weight")) {
            y.f_add_(&self.normed(&shortcut, x, stride)?)?.f_relu_()
        } else {
            y.f_add_(x)?.f_relu_()
        }
    }

    /// A convolution of the body and its frozen batch norm, padded to keep its size (but for the stride).
    fn normed(&self, conv: &str, x: &Tensor, stride: i64) -> Result<Tensor, TchError> {
        let name = format!("{conv}.weight");
        let (weight, (scale, shift)) = (&self.weights[&name], &self.norms[&name]);
        let padding = weight.size()[2] / 2;
        self.convolve(x, &weight.f_mul(scale)?, shift, stride, padding)
    }

    fn convolve(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        stride: i64,
        padding: i64,
    ) -> Result<Tensor, TchError> {
        let (weight, bias) = (weight.f_to_kind(self.compute)?, bias.f_to_kind(self.compute)?);
        // As at inference: only deterministic algorithms, and no TF32.
        let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
        x.f_internal_convolution(
            &weight,
            Some(&bias),
            [stride; 2],
            [padding; 2],
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

    /// C2…C5 to the embedding `[N, 1280]`: the spatial means of P2, P3, P4, P5 and `pool`.
    fn embed(&self, levels: &[Tensor]) -> Result<Tensor, TchError> {
        let top = levels.len() - 1;
        let part = |block: &str, level: usize, part: &str| {
            &self.weights[&format!("fpn.{block}_blocks.{level}.0.{part}")]
        };
        // P5 is so small that it is written out; `pool` is every other cell of it (`LastLevelMaxPool`: kernel 1, stride 2).
        let inner = self.convolve(
            &levels[top],
            part("inner", top, "weight"),
            part("inner", top, "bias"),
            1,
            0,
        )?;
        let p5 = self.convolve(
            &inner,
            part("layer", top, "weight"),
            part("layer", top, "bias"),
            1,
            1,
        )?;
        let pool = p5.f_slice(2, None, None, 2)?.f_slice(3, None, None, 2)?;
        let mut means = vec![self.mean(&pool)?, self.mean(&p5)?];
        let mut sums = self.border_sums(top, &inner)?;
        for level in (0..top).rev() {
            let lateral = part("inner", level, "weight").f_flatten(1, -1)?;
            let own = self
                .border_sums(level, &levels[level])?
                .f_matmul(&lateral.f_transpose(0, 1)?)?;
            let cells = self.sums[level].f_sum_dim_intlist([1_i64].as_slice(), true, self.master)?;
            let bias = cells.f_mul(part("inner", level, "bias"))?;
            sums = own.f_add(&bias)?.f_add(&sums.f_mul(&self.doubling)?)?;
            let kernel = part("layer", level, "weight");
            let kernel = kernel
                .f_permute([2, 3, 1, 0])?
                .f_reshape([-1, PYRAMID_CHANNELS as i64])?;
            let seen = self.taps.f_matmul(&sums)?.f_flatten(1, -1)?;
            let mean = seen
                .f_matmul(&kernel)?
                .f_divide_scalar((LEVEL_SIDES[level] * LEVEL_SIDES[level]) as f64)?;
            means.push(mean.f_add(part("layer", level, "bias"))?);
        }
        // Now: pool, P5, P4, P3, P2.
        means[1..].reverse();
        means.rotate_left(1);
        Tensor::f_cat(&means, 1)
    }

    fn mean(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_mean_dim([2_i64, 3].as_slice(), false, self.master)
    }

    /// The sums of a level `[N, C, H, W]` over all rows, the first and the last, times the same of columns: `[N, 9, C]`.
    fn border_sums(&self, level: usize, x: &Tensor) -> Result<Tensor, TchError> {
        // `[N, H·W, C]` is how it lies in memory.
        let cells = x.f_permute([0, 2, 3, 1])?.f_flatten(1, 2)?;
        self.sums[level].f_matmul(&cells)?.f_to_kind(self.master)
    }
}

/// The values of a tensor in row-major order.
///
/// # Errors
/// [`ModelError::Torch`] when the device fails.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
    let copy = || {
        let flat = tensor
            .f_detach()?
            .f_to_device(tch::Device::Cpu)?
            .f_to_kind(Kind::Float)?
            .f_contiguous()?;
        let mut values = vec![0.0; flat.numel()];
        let count = values.len();
        flat.f_copy_data(&mut values, count)?;
        Ok(values)
    };
    copy().map_err(ModelError::torch("copying a weight"))
}

/// Samples of [`affectmill_base::INPUT_LEN`] normalised values, one after the other, as a tensor `[N, 3, 128, 128]`.
///
/// # Errors
/// [`ModelError::Torch`] when they are no whole samples.
pub fn batch_tensor(samples: &[f32]) -> Result<Tensor, ModelError> {
    let side = INPUT_SIZE as i64;
    Tensor::f_from_slice(samples)
        .and_then(|flat| flat.f_view([-1, 3, side, side]))
        .map_err(ModelError::torch("making a batch"))
}

/// The batch norm after a convolution: `….conv1.weight` has `….bn1`, `….downsample.0.weight` has `….downsample.1`.
fn norm_name(conv: &str) -> String {
    let conv = conv.trim_end_matches(".weight");
    match conv.strip_suffix("downsample.0") {
        Some(at) => format!("{at}downsample.1"),
        None => conv.replace("conv", "bn"),
    }
}

/// `y = scale·x + shift` of a frozen batch norm, computed in float64.
fn norm(state: &StateDict, name: &str, exact: Placement, kind: Kind) -> Result<(Tensor, Tensor), TchError> {
    let part = |part: &str| exact.array(&state.tensors[&format!("{name}.{part}")]);
    let scale =
        part("weight")?.f_divide(&part("running_var")?.f_add_scalar(BATCH_NORM_EPSILON)?.f_sqrt()?)?;
    let shift = part("bias")?.f_sub(&part("running_mean")?.f_mul(&scale)?)?;
    Ok((
        scale.f_view([-1, 1, 1, 1])?.f_to_kind(kind)?,
        shift.f_to_kind(kind)?,
    ))
}

/// Which lines each sum takes: all, the first, the last.
fn selectors(side: usize) -> [Vec<f64>; 3] {
    let only = |line: usize| (0..side).map(|at| if at == line { 1.0 } else { 0.0 }).collect();
    [vec![1.0; side], only(0), only(side - 1)]
}

/// Lines that the three rows (or columns) of a padded 3×3 kernel see, out of all, the first and the last: all but the
/// last, all, all but the first.
const TAPS: [[f64; 3]; 3] = [[1.0, 0.0, -1.0], [1.0, 0.0, 0.0], [1.0, -1.0, 0.0]];

/// The Kronecker product of two matrices of three rows, row by row.
fn outer<R: AsRef<[f64]>>(rows: &[R; 3], columns: &[R; 3]) -> Vec<f64> {
    let mut product = Vec::new();
    for row in rows {
        for column in columns {
            for a in row.as_ref() {
                product.extend(column.as_ref().iter().map(|b| a * b));
            }
        }
    }
    product
}
