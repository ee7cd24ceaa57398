//! Element types of weight files, and their conversion to `f32`.

use std::fmt;

/// Element type of a stored tensor. Only floating point becomes weights; other types are known by size, so that
/// their storages can be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// Not floating point: its name and the bytes of one element.
    Other(&'static str, usize),
}

impl Dtype {
    pub(super) fn size(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Other(_, size) => size,
        }
    }

    pub(super) fn is_float(self) -> bool {
        !matches!(self, Dtype::Other(..))
    }

    /// Reads the little-endian element at `index`. `None` outside of `bytes` or where the type is no float.
    pub(super) fn read(self, bytes: &[u8], index: usize) -> Option<f32> {
        let start = index.checked_mul(self.size())?;
        let element = bytes.get(start..start.checked_add(self.size())?)?;
        match (self, element) {
            (Dtype::F64, &[a, b, c, d, e, f, g, h]) => {
                Some(f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32)
            }
            (Dtype::F32, &[a, b, c, d]) => Some(f32::from_le_bytes([a, b, c, d])),
            (Dtype::F16, &[a, b]) => Some(half_to_f32(u16::from_le_bytes([a, b]))),
            (Dtype::Bf16, &[a, b]) => Some(f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16)),
            _ => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::Other(name, _) => name,
        })
    }
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        match dtype {
            safetensors::Dtype::F64 => Dtype::F64,
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            // Never read, so its size does not matter.
            _ => Dtype::Other("no floating point of 16, 32 or 64 bits", 1),
        }
    }
}

/// IEEE 754 binary16 to binary32, exact.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 31, u32::from(bits) & 1023);
    match exponent {
        // Subnormal: fraction · 2⁻²⁴.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_exactly() {
        // Bit patterns from IEEE 754-2008 binary16.
        for (bits, value) in [
            (0x0000_u16, 0.0_f32),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(
                Dtype::F16.read(&bits.to_le_bytes(), 0),
                Some(value),
                "{bits:#06x}"
            );
        }
        assert!(half_to_f32(0x7e00).is_nan());
        assert_eq!(half_to_f32(0x8000).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(Dtype::Bf16.read(&[0x80, 0x3f], 0), Some(1.0));
        assert_eq!(Dtype::F32.read(&[0, 0, 0], 0), None);
    }
}
