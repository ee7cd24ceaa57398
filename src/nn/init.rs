//! Untrained weights, for wiring and tests: deterministic from a seed on every machine, and marked as untrained.
//!
//! Convolutions are He-normal (He et al. 2015), so that activations keep their scale; the last batch norm of each block
//! is small, so that the sum over 16 blocks does too. The normal variates are sums of four 16-bit uniform ones
//! (Irwin–Hall), computed in integers: no `log` or `cos` whose last bit differs between platforms. Each tensor draws from
//! its own ChaCha8 stream, keyed by seed, kind and name.

use super::state::{Array, CROP, StateDict, UNTRAINED};
use super::{ModelError, layout};
use affectmill_base::{Crop, ModelKind};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Writes untrained weights of a `kind` to the safetensors file `out`; the same seed gives the same bytes.
///
/// # Errors
/// [`ModelError::Io`] when `out` cannot be written; it is then as it was.
pub fn init_weights(kind: ModelKind, seed: u64, crop: Option<Crop>, out: &Path) -> Result<(), ModelError> {
    let mut state = untrained(kind, seed, out);
    if let Some(crop) = crop {
        state.metadata.insert(CROP.to_owned(), crop.name().to_owned());
    }
    state.write(out)
}

/// The weights [`init_weights`] writes.
pub(super) fn untrained(kind: ModelKind, seed: u64, origin: &Path) -> StateDict {
    let mut state = StateDict::new(origin, kind);
    state
        .metadata
        .insert(UNTRAINED.to_owned(), format!("seed {seed}"));
    for (name, shape) in layout::layout(kind) {
        let len = shape.iter().product();
        let data = match (shape.as_slice(), name.as_str()) {
            (&[_, inputs, h, w], _) => {
                // A rectifier halves the second moment; the pyramid has none.
                let gain = if name.starts_with("body.") { 2.0 } else { 1.0 };
                normal(kind, seed, &name, len, f64::sqrt(gain / (inputs * h * w) as f64))
            }
            (&[_, inputs], _) => normal(kind, seed, &name, len, HEAD_GAIN / f64::sqrt(inputs as f64)),
            (_, name) if name.ends_with("bn3.weight") => vec![0.25; len],
            (_, name) if name.ends_with(".running_var") => vec![1.0; len],
            (_, name) if name.starts_with("body.") && name.ends_with(".weight") => vec![1.0; len],
            _ => vec![0.0; len],
        };
        state.tensors.insert(name, Array { shape, data });
    }
    state
}

/// Chosen so that outputs of different pictures differ by about 0.1 to 1.
const HEAD_GAIN: f64 = 0.25;

fn normal(kind: ModelKind, seed: u64, name: &str, len: usize, deviation: f64) -> Vec<f32> {
    let key = Sha256::digest(format!("affectmill init 1\n{seed}\n{}\n{name}", kind.name()));
    let mut random = ChaCha8Rng::from_seed(key.into());
    // Variance of the sum of four uniform integers in [0, 65535].
    let scale = deviation / f64::sqrt(4.0 * (65536.0 * 65536.0 - 1.0) / 12.0);
    let mut draw = || {
        let bits = random.next_u64();
        let sum: u64 = [0, 16, 32, 48]
            .into_iter()
            .map(|shift| bits >> shift & 0xffff)
            .sum();
        ((sum as f64 - 131_070.0) * scale) as f32
    };
    (0..len).map(|_| draw()).collect()
}
