//! The tensors of a kind: canonical names and shapes, and the check that a file has them.
//!
//! Canonical names of the pyramid are torchvision's for `resnet_fpn_backbone('resnet50')`, plus the heads:
//!
//! * `body.conv1.weight`, `body.bn1.{weight,bias,running_mean,running_var}`,
//!   `body.layer{1..4}.{block}.conv{1,2,3}.weight`, `….bn{1,2,3}.*`, `….downsample.0.weight`, `….downsample.1.*`;
//! * `fpn.inner_blocks.{0..3}.0.{weight,bias}` (1×1 laterals), `fpn.layer_blocks.{0..3}.0.{weight,bias}` (3×3 outputs);
//! * `heads.{va,expr,au}.{weight,bias}`: `[2|7|12, 1280]` and `[2|7|12]`.

use super::xception;
use affectmill_base::{ModelKind, Task};

/// Width of the bottleneck and number of blocks of each stage of ResNet-50 (He et al. 2016, table 1).
pub(super) const STAGES: [(usize, usize); 4] = [(64, 3), (128, 4), (256, 6), (512, 3)];
/// Channels of C2…C5.
pub(super) const LEVEL_CHANNELS: [usize; 4] = [256, 512, 1024, 2048];
/// Height and width of C2…C5 for a 128×128 input.
pub(super) const LEVEL_SIDES: [usize; 4] = [32, 16, 8, 4];
/// Channels of every pyramid level.
pub(super) const PYRAMID_CHANNELS: usize = 256;
/// Levels of the pyramid: P2…P5 and `pool`.
pub(super) const PYRAMID_LEVELS: usize = 5;
/// Length of the embedding the heads read.
pub(super) const EMBEDDING: usize = PYRAMID_LEVELS * PYRAMID_CHANNELS;

/// The part of a head's tensor names after `heads.`.
pub(super) fn head_name(task: Task) -> &'static str {
    match task {
        Task::Va => "va",
        Task::Expr => "expr",
        Task::Au => "au",
    }
}

/// Every tensor of a model of this kind, in the order of the network: name and shape.
pub(super) fn layout(kind: ModelKind) -> Vec<(String, Vec<usize>)> {
    match kind {
        ModelKind::MiniXception => xception::layout(),
        ModelKind::Student | ModelKind::TeacherVa | ModelKind::TeacherExpr | ModelKind::TeacherAu => {
            pyramid(kind)
        }
    }
}

fn pyramid(kind: ModelKind) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let conv = |tensors: &mut Vec<_>, conv: String, bn: String, out: usize, inputs: usize, side: usize| {
        tensors.push((format!("{conv}.weight"), vec![out, inputs, side, side]));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{bn}.{part}"), vec![out]));
        }
    };
    conv(&mut tensors, "body.conv1".into(), "body.bn1".into(), 64, 3, 7);
    let mut inputs = 64;
    for (stage, (width, blocks)) in STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let at = format!("body.layer{}.{block}", stage + 1);
            let shapes = [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)];
            for (i, (out, from, side)) in shapes.into_iter().enumerate() {
                let (name, bn) = (format!("{at}.conv{}", i + 1), format!("{at}.bn{}", i + 1));
                conv(&mut tensors, name, bn, out, from, side);
            }
            if block == 0 {
                let (name, bn) = (format!("{at}.downsample.0"), format!("{at}.downsample.1"));
                conv(&mut tensors, name, bn, 4 * width, inputs, 1);
            }
            inputs = 4 * width;
        }
    }
    for (level, channels) in LEVEL_CHANNELS.into_iter().enumerate() {
        for (block, from, side) in [("inner", channels, 1), ("layer", PYRAMID_CHANNELS, 3)] {
            let name = format!("fpn.{block}_blocks.{level}.0");
            tensors.push((format!("{name}.weight"), vec![PYRAMID_CHANNELS, from, side, side]));
            tensors.push((format!("{name}.bias"), vec![PYRAMID_CHANNELS]));
        }
    }
    for &task in kind.tasks() {
        let (name, outputs) = (head_name(task), task.outputs().len());
        tensors.push((format!("heads.{name}.weight"), vec![outputs, EMBEDDING]));
        tensors.push((format!("heads.{name}.bias"), vec![outputs]));
    }
    tensors
}

/// Compares the tensors of a file with those of a kind. `find` gives the shape and the element type (as text, and
/// whether it can be read as `f32`) of a canonical name. Returns one line per missing or wrong tensor.
pub(super) fn problems<'a>(
    kind: ModelKind,
    find: impl Fn(&str) -> Option<(&'a [usize], String, bool)>,
) -> Vec<String> {
    let check = |(name, expected): (String, Vec<usize>)| match find(&name) {
        None => Some(format!("`{name}` {expected:?} is missing")),
        Some((found, ..)) if found != expected => {
            Some(format!("`{name}` is {found:?} where {expected:?} is expected"))
        }
        Some((_, dtype, false)) => Some(format!("`{name}` holds {dtype} where floating point is expected")),
        Some(_) => None,
    };
    layout(kind).into_iter().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_has_the_published_number_of_parameters() {
        // torchvision: resnet50 has 25 557 032 parameters of which fc has 2 049 000; running statistics are
        // buffers, 26 560 of each (the sum of all batch-norm widths).
        let elements = |prefix: &str| -> usize {
            let all = layout(ModelKind::Student);
            let kept = all.iter().filter(|(name, _)| name.starts_with(prefix));
            kept.map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        assert_eq!(elements("body."), 25_557_032 - 2_049_000 + 2 * 26_560);
        assert_eq!(elements("fpn."), 3_344_384);
        assert_eq!(elements("heads."), 21 * 1281);
    }
}
