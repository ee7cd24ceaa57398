//! The pyramid readout: everything after C2…C5, collapsed into one matrix.
//!
//! Laterals, nearest upsampling, addition, zero-padded 3×3 convolutions, subsampling, means and linear heads are all
//! affine, so their composition is an affine map of C2…C5. It weighs the cells of a level by their position, and a
//! row's weight depends only on how often the 3×3 windows reach it: the first and the last row are reached less often
//! than those between, which are all alike. So the map reads, of each level, the sums over three classes of rows times three
//! classes of columns; of C5 all 4×4 cells, because the `pool` level, a subsample of P5, sees every row differently.
//!
//! Flows in: the weights, once, in float64; then C2…C5. Flows out: the outputs of the heads. Exact except for rounding; tests
//! compare it with `pyramid.rs`.

use super::resnet::Placement;
use super::state::StateDict;
use crate::layout;
use crate::layout::{LEVEL_CHANNELS, LEVEL_SIDES, PYRAMID_CHANNELS, PYRAMID_LEVELS};
use affectmill_base::ModelKind;
use std::ops::Range;
use tch::{Device, Kind, TchError, Tensor};

const SOURCES: usize = LEVEL_SIDES.len();

/// The collapsed matrix: `[outputs, features]`, and a bias `[outputs]`.
pub(super) struct Readout {
    weight: Tensor,
    bias: Tensor,
    /// The same in host memory, where the network is on the CPU: see [`dot`].
    host: Option<(Vec<f32>, Vec<f32>)>,
}

impl Readout {
    pub(super) fn new(state: &StateDict, kind: ModelKind, place: Placement) -> Result<Self, TchError> {
        let exact = Placement {
            device: Device::Cpu,
            kind: Kind::Double,
        };
        let load = |name: String| exact.array(&state.tensors[&name]);
        let (head, mut bias) = heads(state, kind, exact)?;
        let outputs = kind.output_count() as i64;
        let channels = PYRAMID_CHANNELS as i64;

        // What each output reads of the pyramid's inner levels: [outputs, channels, row class, column class].
        let mut reads: [Option<Tensor>; SOURCES] = Default::default();
        for target in 0..PYRAMID_LEVELS {
            let level = target.min(SOURCES - 1);
            let step = if target == level { 1 } else { 2 };
            let head = head.f_narrow(1, target as i64 * channels, channels)?;
            bias = bias.f_add(&head.f_matmul(&load(format!("fpn.layer_blocks.{level}.0.bias"))?)?)?;
            let cells = LEVEL_SIDES[level].div_ceil(step).pow(2) as f64;
            let kernel = load(format!("fpn.layer_blocks.{level}.0.weight"))?;
            let kernel = kernel.f_reshape([channels, channels * 9])?;
            let taps = head.f_matmul(&kernel)?.f_view([outputs, channels, 3, 3])?;
            let taps = taps.f_divide_scalar(cells)?;
            for (source, reads) in reads.iter_mut().enumerate().skip(level) {
                let reach = reach(level, step, source).concat();
                let reach = exact.tensor(&reach, &[3, reach.len() / 3])?;
                let read = einsum("opkl,kr,lc->oprc", &[&taps, &reach, &reach])?;
                *reads = Some(match reads.take() {
                    Some(sum) => sum.f_add(&read)?,
                    None => read,
                });
            }
        }

        // Through the laterals, from the inner levels to C2…C5.
        let mut weights = Vec::with_capacity(SOURCES);
        for (source, reads) in reads.iter().flatten().enumerate() {
            let sizes: Vec<f64> = classes(source).iter().map(|rows| rows.len() as f64).collect();
            let sizes = exact.tensor(&sizes, &[sizes.len()])?;
            let constant = load(format!("fpn.inner_blocks.{source}.0.bias"))?;
            bias = bias.f_add(&einsum("oprc,r,c,p->o", &[reads, &sizes, &sizes, &constant])?)?;
            let lateral = load(format!("fpn.inner_blocks.{source}.0.weight"))?;
            let lateral = lateral.f_view([channels, LEVEL_CHANNELS[source] as i64])?;
            weights.push(einsum("oprc,pq->orcq", &[reads, &lateral])?.f_reshape([outputs, -1])?);
        }
        // The sums of bf16 and fp16 levels are fp32, and so is what is made of them.
        let kind = match place.kind {
            Kind::BFloat16 | Kind::Half => Kind::Float,
            kind => kind,
        };
        let place = Placement { kind, ..place };
        let on_host = place.device == Device::Cpu && kind == Kind::Float;
        let place = |exact: Tensor| exact.f_to_kind(place.kind)?.f_to_device(place.device);
        let (weight, bias) = (place(Tensor::f_cat(&weights, 1)?)?, place(bias)?);
        let host = || Ok::<_, TchError>((to_host(&weight)?, to_host(&bias)?));
        Ok(Self {
            host: on_host.then(host).transpose()?,
            weight,
            bias,
        })
    }

    /// C2…C5, `[N, C, H, W]`, to the outputs `[N, outputs]`.
    pub(super) fn forward(&self, levels: &[Tensor]) -> Result<Tensor, TchError> {
        let mut features = Vec::with_capacity(SOURCES);
        for (source, level) in levels.iter().enumerate() {
            let classes = classes(source);
            let kind = self.weight.kind();
            let sums = sum_classes(&level.f_permute([0, 2, 3, 1])?, 1, &classes, kind)?;
            features.push(sum_classes(&sums, 2, &classes, kind)?.f_flatten(1, -1)?);
        }
        let features = Tensor::f_cat(&features, 1)?;
        let Some((weight, bias)) = &self.host else {
            return features.f_linear(&self.weight, Some(&self.bias));
        };
        let length = weight.len() / bias.len();
        let features = to_host(&features)?;
        let output = |row, (weight, bias)| dot(row, weight) + bias;
        let rows = features.chunks_exact(length).flat_map(|row| {
            weight
                .chunks_exact(length)
                .zip(bias)
                .map(move |of| output(row, of))
        });
        let rows: Vec<f32> = rows.collect();
        Tensor::f_from_slice(&rows)?.f_view([-1, bias.len() as i64])
    }
}

/// The inner product, summed in an order that is always the same. The matrix products of the CPU's libraries choose
/// theirs by the number of rows and of threads, and with it the last bits; measured, this one is no slower than 1 % of the
/// network.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Independent sums, so that the compiler may keep them in vector registers. There is no rest: features come
    // in multiples of 256 channels.
    let mut sums = [0.0; 32];
    for (a, b) in a.as_chunks::<32>().0.iter().zip(b.as_chunks::<32>().0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

fn to_host(x: &Tensor) -> Result<Vec<f32>, TchError> {
    let mut values = vec![0.0; x.numel()];
    x.f_contiguous()?.f_copy_data(&mut values, x.numel())?;
    Ok(values)
}

/// Weights `[outputs, 1280]` and biases `[outputs]` of the heads of a kind, in output order.
pub(super) fn heads(
    state: &StateDict,
    kind: ModelKind,
    place: Placement,
) -> Result<(Tensor, Tensor), TchError> {
    let stack = |part: &str| {
        let tasks = kind.tasks().iter();
        let names = tasks.map(|&task| format!("heads.{}.{part}", layout::head_name(task)));
        let parts = names.map(|name| place.array(&state.tensors[&name]));
        Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)
    };
    Ok((stack("weight")?, stack("bias")?))
}

fn einsum(equation: &str, tensors: &[&Tensor]) -> Result<Tensor, TchError> {
    Tensor::f_einsum(equation, tensors, None::<i64>)
}

/// The classes of rows (and alike of columns) of a level that the readout distinguishes.
fn classes(level: usize) -> Vec<Range<usize>> {
    let side = LEVEL_SIDES[level];
    if level == SOURCES - 1 {
        (0..side).map(|row| row..row + 1).collect()
    } else {
        vec![0..1, 1..side - 1, side - 1..side]
    }
}

/// How often each tap of a 3-wide, zero-padded window reads each class of rows of level `source`, when the window's centre
/// visits every `step`th row of `level` and `source` (the same or a coarser level) is upsampled to it: `[3][class]`.
fn reach(level: usize, step: usize, source: usize) -> [Vec<f64>; 3] {
    [0, 1, 2].map(|tap| {
        let rows = rows_reached(level, step, source, tap);
        classes(source).iter().map(|class| rows[class.start]).collect()
    })
}

/// The same for one tap and each single row.
fn rows_reached(level: usize, step: usize, source: usize, tap: usize) -> Vec<f64> {
    let side = LEVEL_SIDES[level];
    let mut rows = vec![0.0; LEVEL_SIDES[source]];
    let inside = (0..side)
        .step_by(step)
        .filter_map(|centre| (centre + tap).checked_sub(1));
    for row in inside.filter(|&row| row < side) {
        rows[row >> (source - level)] += 1.0;
    }
    rows
}

/// Sums `x` over each range of an axis, in precision `kind`: that axis becomes as long as there are ranges.
fn sum_classes(x: &Tensor, axis: i64, classes: &[Range<usize>], kind: Kind) -> Result<Tensor, TchError> {
    if classes.iter().all(|class| class.len() == 1) {
        return x.f_to_kind(kind);
    }
    let sum = |class: &Range<usize>| {
        x.f_narrow(axis, class.start as i64, class.len() as i64)?
            .f_sum_dim_intlist(axis, true, kind)
    };
    Tensor::f_cat(&classes.iter().map(sum).collect::<Result<Vec<_>, _>>()?, axis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_class_are_reached_alike() {
        for target in 0..PYRAMID_LEVELS {
            let level = target.min(SOURCES - 1);
            let step = if target == level { 1 } else { 2 };
            for source in level..SOURCES {
                for tap in 0..3 {
                    let rows = rows_reached(level, step, source, tap);
                    for class in classes(source) {
                        assert!(
                            rows[class.clone()]
                                .iter()
                                .all(|&count| count == rows[class.start]),
                            "{rows:?}"
                        );
                    }
                }
            }
        }
        // By hand: the upper tap of a 3-wide window never reads the last of 4 rows; every second centre reads row 1 alone.
        assert_eq!(rows_reached(3, 1, 3, 0), [1.0, 1.0, 1.0, 0.0]);
        assert_eq!(rows_reached(3, 2, 3, 0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(rows_reached(2, 1, 3, 2), [1.0, 2.0, 2.0, 2.0]);
    }
}
