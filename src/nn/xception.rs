//! mini-Xception, a small network of expressions (Arriaga, Valdenegro-Toro, Plöger, *Real-time Convolutional Neural
//! Networks for Emotion and Gender Classification*, arXiv 1710.07557): 58 thousand parameters, trained on FER2013.
//!
//! Flows in: the same batch that the pyramid reads. Flows out: the 7 expression logits. Its own input is grey,
//! `[N, 1, 64, 64]` of values −1…1: luma of BT.601 (as OpenCV's `COLOR_BGR2GRAY`), each the mean of 2×2 pixels; both
//! steps are one convolution here.
//!
//! Canonical tensors, batch norm folded in: `stem.{0,1}.{weight,bias}`; for each of four blocks
//! `block.{i}.shortcut.{weight,bias}` and `block.{i}.{0,1}.{depth.weight,point.weight,point.bias}` (a separable
//! convolution: 3×3 by channel, then 1×1); `head.{weight,bias}`.

use super::onednn::Geometry;
use super::resnet::{Conv, Placement, channels_last};
use super::state::{Array, StateDict};
use affectmill_base::EXPRESSIONS;
use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD, INPUT_SIZE};
use tch::{TchError, Tensor};

/// Channels after the stem and after each block.
pub(super) const CHANNELS: [usize; 5] = [8, 16, 32, 64, 128];
/// Height and width of the network's own input.
const SIDE: usize = 64;
/// Luma of R, G, B (BT.601).
const LUMA: [f64; 3] = [0.299, 0.587, 0.114];

/// Every tensor: name and shape.
pub(super) fn layout() -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let mut conv = |name: String, shape: [usize; 4]| {
        tensors.push((format!("{name}.weight"), shape.to_vec()));
        if !name.ends_with(".depth") {
            tensors.push((format!("{name}.bias"), vec![shape[0]]));
        }
    };
    let stem = CHANNELS[0];
    conv("stem.0".into(), [stem, 1, 3, 3]);
    conv("stem.1".into(), [stem, stem, 3, 3]);
    for (i, pair) in CHANNELS.windows(2).enumerate() {
        let (inputs, outputs) = (pair[0], pair[1]);
        conv(format!("block.{i}.shortcut"), [outputs, inputs, 1, 1]);
        for (j, from) in [inputs, outputs].into_iter().enumerate() {
            conv(format!("block.{i}.{j}.depth"), [from, 1, 3, 3]);
            conv(format!("block.{i}.{j}.point"), [outputs, from, 1, 1]);
        }
    }
    conv("head".into(), [EXPRESSIONS.len(), CHANNELS[4], 3, 3]);
    tensors
}

/// The network on a device.
pub(super) struct Xception {
    grey: Conv,
    stem: [Conv; 2],
    blocks: Vec<Block>,
    head: Conv,
}

struct Block {
    shortcut: Conv,
    separable: [[Conv; 2]; 2],
}

impl Xception {
    /// Builds the network from tensors that were checked against the layout.
    pub(super) fn new(state: &StateDict, place: Placement) -> Result<Self, TchError> {
        let conv = |name: &str, geometry: Geometry, side: usize| {
            let weight = &state.tensors[&format!("{name}.weight")];
            let none = Array {
                shape: vec![weight.shape[0]],
                data: vec![0.0; weight.shape[0]],
            };
            let bias = state.tensors.get(&format!("{name}.bias")).unwrap_or(&none);
            Conv::new(place.array(weight)?, place.array(bias)?, geometry, side, place)
        };
        let geometry = |padding, stride, groups: usize| Geometry {
            padding,
            stride,
            groups: groups as i64,
        };
        // Without padding the stem takes a pixel off each border.
        let mut side = SIDE - 2;
        let stem = [
            conv("stem.0", geometry(0, 1, 1), SIDE)?,
            conv("stem.1", geometry(0, 1, 1), side)?,
        ];
        side -= 2;
        let mut blocks = Vec::new();
        for (i, pair) in CHANNELS.windows(2).enumerate() {
            let separable = |j: usize, channels: usize| {
                let name = format!("block.{i}.{j}");
                Ok::<_, TchError>([
                    conv(&format!("{name}.depth"), geometry(1, 1, channels), side)?,
                    conv(&format!("{name}.point"), geometry(0, 1, 1), side)?,
                ])
            };
            blocks.push(Block {
                shortcut: conv(&format!("block.{i}.shortcut"), geometry(0, 2, 1), side)?,
                separable: [separable(0, pair[0])?, separable(1, pair[1])?],
            });
            side = side.div_ceil(2);
        }
        Ok(Self {
            grey: grey(place)?,
            stem,
            blocks,
            head: conv("head", geometry(1, 1, 1), side)?,
        })
    }

    /// `[N, 3, 128, 128]` normalised RGB to `[N, 7]` logits, f32.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mut x = self.grey.forward(&channels_last(x)?)?;
        for conv in &self.stem {
            x = conv.forward_relu(&x)?;
        }
        for block in &self.blocks {
            let [[depth, point], [deeper, sharper]] = &block.separable;
            let y = point.forward_relu(&depth.forward(&x)?)?;
            let y = sharper.forward(&deeper.forward(&y)?)?;
            // Padded as TensorFlow's `same` does: of an even side only the last window reaches beyond the border.
            let padding = y.size()[2] % 2;
            let mut y = y.f_max_pool2d([3, 3], [2, 2], [padding; 2], [1, 1], true)?;
            x = y.f_add_(&block.shortcut.forward(&x)?)?;
        }
        let logits = self.head.forward(&x)?;
        logits.f_mean_dim(Some([2_i64, 3].as_slice()), false, tch::Kind::Float)
    }
}

/// From normalised RGB to grey of half the size: Σ luma·(σ·x + μ) of values in [0, 1], brought to −1…1, the mean of 2×2.
fn grey(place: Placement) -> Result<Conv, TchError> {
    let weights = (0..3).flat_map(|c| [2.0 * LUMA[c] * f64::from(IMAGENET_STD[c]) / 4.0; 4]);
    let mean: f64 = (0..3).map(|c| LUMA[c] * f64::from(IMAGENET_MEAN[c])).sum();
    let geometry = Geometry {
        padding: 0,
        stride: (INPUT_SIZE / SIDE) as i64,
        groups: 1,
    };
    Conv::new(
        place.tensor(&weights.collect::<Vec<_>>(), &[1, 3, 2, 2])?,
        place.tensor(&[2.0 * mean - 1.0], &[1])?,
        geometry,
        INPUT_SIZE,
        place,
    )
}
