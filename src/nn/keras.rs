//! Reads mini-Xception from the HDF5 file of a trained Keras model.
//!
//! Flows in: the bytes of such a file. Flows out: the canonical tensors of [`super::xception`], batch norm folded in
//! (float64, ε = 0.001, Keras' default, which the published model has), the classes in our order. Layers are identified by
//! kind and number (`conv2d_3`, `batch_normalization_5`), in the order in which the published code makes them: two of the
//! stem; in each block the shortcut, then two separable ones; the head.

use super::state::Array;
use super::xception::CHANNELS;
use affectmill_base::EXPRESSIONS;
use hdf5_reader::error::Error;
use hdf5_reader::group::Group;
use hdf5_reader::{Hdf5File, OpenOptions};
use std::collections::BTreeMap;

/// First bytes of an HDF5 file.
pub(super) const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

const EPSILON: f64 = 0.001;
/// Maximum depth of groups; Keras has three levels.
const DEEPEST: usize = 8;
/// The trained model's classes, each with its place in ours: angry, disgust, fear, happy, sad, surprise, neutral.
const CLASSES: [&str; 7] = [
    "Anger",
    "Disgust",
    "Fear",
    "Happiness",
    "Sadness",
    "Surprise",
    "Neutral",
];

/// The canonical tensors; the error says what is missing or misshapen.
pub(super) fn mini_xception(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let layers = Layers::read(bytes)?;
    let mut tensors = BTreeMap::new();
    let mut put = |name: String, weight: Array, bias: Option<Vec<f32>>| {
        tensors.insert(format!("{name}.weight"), weight);
        if let Some(data) = bias {
            let shape = vec![data.len()];
            tensors.insert(format!("{name}.bias"), Array { shape, data });
        }
    };
    let mut normed = |name: String, conv: Array, norm: usize| -> Result<(), String> {
        let (weight, bias) = folded(conv, layers.norm(norm)?)?;
        put(name, weight, Some(bias));
        Ok(())
    };
    for i in 0..2 {
        normed(format!("stem.{i}"), layers.conv("conv2d", i, "kernel")?, i)?;
    }
    let mut depths = Vec::new();
    for i in 0..CHANNELS.len() - 1 {
        let (first, norm) = (2 * i, 2 + 3 * i);
        let shortcut = layers.conv("conv2d", 2 + i, "kernel")?;
        normed(format!("block.{i}.shortcut"), shortcut, norm)?;
        for j in 0..2 {
            let name = format!("block.{i}.{j}");
            let point = layers.conv("separable_conv2d", first + j, "pointwise_kernel")?;
            normed(format!("{name}.point"), point, norm + 1 + j)?;
            depths.push((name, layers.depthwise(first + j)?));
        }
    }
    for (name, depth) in depths {
        put(format!("{name}.depth"), depth, None);
    }
    let last = CHANNELS.len() + 1;
    let (weight, bias) = in_our_order(
        layers.conv("conv2d", last, "kernel")?,
        layers.array("conv2d", last, "bias")?,
    )?;
    put("head".into(), weight, Some(bias));
    Ok(tensors)
}

/// Layers of each kind in the order of their numbers.
struct Layers(BTreeMap<String, Vec<Layer>>);

struct Layer {
    number: u64,
    /// Its weights by name.
    arrays: BTreeMap<String, Array>,
}

impl Layers {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        // No array is larger than the file; external files and links stay closed.
        let options = OpenOptions {
            max_read_bytes: bytes.len(),
            ..OpenOptions::default()
        };
        let file = Hdf5File::from_bytes_with_options(bytes, options).map_err(|error| error.to_string())?;
        let root = file.root_group().map_err(|error| error.to_string())?;
        // A file of weights alone has the layers at its top.
        let top = root.group("model_weights").unwrap_or(root);
        let mut kinds: BTreeMap<String, Vec<Layer>> = BTreeMap::new();
        for layer in top.groups().map_err(|error| error.to_string())? {
            let name = layer.name().rsplit('/').next().unwrap_or_default();
            let (kind, number) = match name.rsplit_once('_') {
                Some((kind, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => (
                    kind,
                    digits
                        .parse()
                        .map_err(|_| format!("layer `{name}` has no number"))?,
                ),
                // Newer versions leave the first one's number out.
                _ => (name, 0),
            };
            let mut arrays = BTreeMap::new();
            gather(&layer, &mut arrays, DEEPEST)?;
            if !arrays.is_empty() {
                kinds
                    .entry(kind.to_owned())
                    .or_default()
                    .push(Layer { number, arrays });
            }
        }
        kinds
            .values_mut()
            .for_each(|layers| layers.sort_by_key(|layer| layer.number));
        Ok(Self(kinds))
    }

    /// An array of the `n`-th layer of a kind, counted from 0.
    fn array(&self, kind: &str, n: usize, array: &str) -> Result<&Array, String> {
        let layer = self.0.get(kind).and_then(|layers| layers.get(n));
        layer
            .and_then(|layer| layer.arrays.get(array))
            .ok_or_else(|| format!("`{array}` of the layer {kind} number {} is missing", n + 1))
    }

    /// A convolution's weight, `[height, width, in, out]` there, as `[out, in, height, width]`.
    fn conv(&self, kind: &str, n: usize, array: &str) -> Result<Array, String> {
        let there = self.array(kind, n, array)?;
        let &[height, width, inputs, outputs] = there.shape.as_slice() else {
            return Err(format!(
                "`{array}` of {kind} number {} is {:?}",
                n + 1,
                there.shape
            ));
        };
        let pixels = height * width;
        let at = |o, i, p| there.data[(p * inputs + i) * outputs + o];
        let data =
            (0..outputs).flat_map(|o| (0..inputs).flat_map(move |i| (0..pixels).map(move |p| at(o, i, p))));
        Ok(Array {
            data: data.collect(),
            shape: vec![outputs, inputs, height, width],
        })
    }

    /// The same for the first half of a separable convolution, `[height, width, channels, 1]` there.
    fn depthwise(&self, n: usize) -> Result<Array, String> {
        let mut weight = self.conv("separable_conv2d", n, "depthwise_kernel")?;
        weight.shape.swap(0, 1);
        Ok(weight)
    }

    /// γ, β, μ, σ² of the `n`-th batch norm.
    fn norm(&self, n: usize) -> Result<[&[f32]; 4], String> {
        let part = |name| Ok::<_, String>(self.array("batch_normalization", n, name)?.data.as_slice());
        Ok([
            part("gamma")?,
            part("beta")?,
            part("moving_mean")?,
            part("moving_variance")?,
        ])
    }
}

/// The arrays of 32-bit floats in a group and those below it, named without the `:0` of TensorFlow's variables.
fn gather(group: &Group, arrays: &mut BTreeMap<String, Array>, deeper: usize) -> Result<(), String> {
    let failed = |error: Error| format!("{}: {error}", group.name());
    for dataset in group.datasets().map_err(failed)? {
        let name = dataset.name().rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(":0").unwrap_or(name).to_owned();
        let values = dataset.read_array::<f32>().map_err(failed)?;
        let array = Array {
            shape: values.shape().to_vec(),
            data: values.iter().copied().collect(),
        };
        if array.data.is_empty() {
            return Err(format!("`{name}` of {} is empty", group.name()));
        }
        arrays.insert(name, array);
    }
    if deeper > 0 {
        for below in group.groups().map_err(failed)? {
            gather(&below, arrays, deeper - 1)?;
        }
    }
    Ok(())
}

/// A weight `[out, …]` with the following batch norm folded in, and the resulting bias.
fn folded(mut weight: Array, norm: [&[f32]; 4]) -> Result<(Array, Vec<f32>), String> {
    let outputs = weight.shape[0];
    if outputs == 0 || norm.iter().any(|part| part.len() != outputs) {
        return Err(format!(
            "a batch norm does not have the {outputs} channels of its convolution"
        ));
    }
    let filter = weight.data.len() / outputs;
    let mut bias = Vec::with_capacity(outputs);
    for (channel, weights) in weight.data.chunks_exact_mut(filter).enumerate() {
        let [gamma, beta, mean, variance] = norm.map(|part| f64::from(part[channel]));
        let scale = gamma / (variance + EPSILON).sqrt();
        weights
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) * scale) as f32);
        bias.push((beta - mean * scale) as f32);
    }
    Ok((weight, bias))
}

/// The head with its classes in our order.
fn in_our_order(weight: Array, bias: &Array) -> Result<(Array, Vec<f32>), String> {
    let count = CLASSES.len();
    if weight.shape[0] != count || bias.data.len() != count {
        return Err(format!(
            "the last convolution has {} outputs, not the {count} expressions of FER2013",
            weight.shape[0]
        ));
    }
    let filter = weight.data.len() / count;
    let (mut sorted, mut biases) = (Vec::with_capacity(weight.data.len()), Vec::with_capacity(count));
    for class in EXPRESSIONS {
        let from = CLASSES.iter().position(|name| *name == class);
        let from = from.ok_or_else(|| format!("there is no class {class}"))?;
        sorted.extend_from_slice(&weight.data[from * filter..][..filter]);
        biases.push(bias.data[from]);
    }
    let shape = weight.shape;
    Ok((Array { shape, data: sorted }, biases))
}
