//! Weights and pictures of the golden files, for tests here and in other rooms.

use super::layout;
use super::state::{Array, StateDict};
use affectmill_base::{INPUT_LEN, ModelKind};
use std::path::Path;

/// The formula of `tests/golden/make_fpn_golden.py`: splitmix64 over the FNV-1a hash of the name.
pub fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let draw = |i: u64| {
        let x = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ x >> 31) >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (1..=count as u64).map(draw).collect()
}

/// The golden weights of a kind.
pub fn golden_state(kind: ModelKind) -> StateDict {
    let mut state = StateDict::new(Path::new("golden"), kind);
    for (name, shape) in layout::layout(kind) {
        let (slope, offset) = match (shape.as_slice(), name.as_str()) {
            (&[_, inputs, h, w], _) => {
                let gain = if name.starts_with("body.") { 6.0 } else { 3.0 };
                (f64::sqrt(gain / (inputs * h * w) as f64), 0.0)
            }
            (&[_, inputs], _) => (f64::sqrt(3.0 / inputs as f64), 0.0),
            (_, name) if name.ends_with("running_var") => (0.5, 1.0),
            (_, name) if name.ends_with("bn3.weight") => (0.125, 0.25),
            (_, name) if name.starts_with("body.") && name.ends_with("weight") => (0.25, 1.0),
            _ => (0.1, 0.0),
        };
        let values = uniform(&format!("{}/{name}", kind.name()), shape.iter().product());
        let data = values.into_iter().map(|u| (offset + u * slope) as f32).collect();
        state.tensors.insert(name, Array { shape, data });
    }
    state
}

/// Golden input `n`: 16×16 blocks and noise.
pub fn golden_sample(n: usize) -> Vec<f32> {
    let blocks = uniform(&format!("input/{n}/blocks"), 3 * 8 * 8);
    let noise = uniform(&format!("input/{n}/noise"), INPUT_LEN);
    let value = |(i, noise): (usize, f64)| {
        let (plane, y, x) = (i / 16384, i / 128 % 128, i % 128);
        (2.0 * blocks[plane * 64 + y / 16 * 8 + x / 16] + 0.5 * noise) as f32
    };
    noise.into_iter().enumerate().map(value).collect()
}
