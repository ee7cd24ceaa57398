//! The feature pyramid and its heads, level by level, as torchvision's `FeaturePyramidNetwork` computes them.
//!
//! This is the reference that `readout.rs` must equal. Inference uses the readout, so only tests build it.

use super::layout::{LEVEL_SIDES, PYRAMID_LEVELS};
use super::readout::heads;
use super::resnet::{Conv, Placement};
use super::state::StateDict;
use affectmill_base::ModelKind;
use tch::{TchError, Tensor};

/// Laterals, outputs and heads.
pub(super) struct Pyramid {
    laterals: Vec<Conv>,
    outputs: Vec<Conv>,
    head_weight: Tensor,
    head_bias: Tensor,
}

impl Pyramid {
    pub(super) fn new(state: &StateDict, kind: ModelKind, place: Placement) -> Result<Self, TchError> {
        let block = |block: &str, padding| -> Result<Vec<_>, TchError> {
            let conv = |(level, side)| {
                let name = format!("fpn.{block}_blocks.{level}.0");
                Conv::plain(state, &name, padding, side, place)
            };
            LEVEL_SIDES.into_iter().enumerate().map(conv).collect()
        };
        let (head_weight, head_bias) = heads(state, kind, place)?;
        Ok(Self {
            laterals: block("inner", 0)?,
            outputs: block("layer", 1)?,
            head_weight,
            head_bias,
        })
    }

    /// C2…C5 to the embedding `[N, 1280]`: the spatial means of P2, P3, P4, P5 and `pool`.
    pub(super) fn embed(&self, levels: &[Tensor]) -> Result<Tensor, TchError> {
        let mut means = Vec::with_capacity(PYRAMID_LEVELS);
        let mut above: Option<Tensor> = None;
        for ((lateral, output), level) in self.laterals.iter().zip(&self.outputs).zip(levels).rev() {
            let mut inner = lateral.forward(level)?;
            if let Some(above) = above {
                let size = level.size();
                inner = inner.f_add(&above.f_upsample_nearest2d(&size[2..], None, None)?)?;
            }
            let outer = output.forward(&inner)?;
            if means.is_empty() {
                // `LastLevelMaxPool`: kernel 1, stride 2.
                let pool = outer.f_max_pool2d([1, 1], [2, 2], [0, 0], [1, 1], false)?;
                means.push(spatial_mean(&pool)?);
            }
            means.push(spatial_mean(&outer)?);
            above = Some(inner);
        }
        // Now: pool, P5, P4, P3, P2.
        let pool = means.remove(0);
        means.reverse();
        means.push(pool);
        Tensor::f_cat(&means, 1)
    }

    /// C2…C5 to the outputs `[N, outputs]`.
    pub(super) fn forward(&self, levels: &[Tensor]) -> Result<Tensor, TchError> {
        self.embed(levels)?
            .f_linear(&self.head_weight, Some(&self.head_bias))
    }
}

fn spatial_mean(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_mean_dim([2_i64, 3].as_slice(), false, None)
}
