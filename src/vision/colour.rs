//! Colour conversion: from component codes to R′, G′, B′ and to a model's normalisation.

use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD};
use affectmill_media::decode::{Colour, Picture};
use affectmill_nn::Colours;

/// Converts 16-bit codes of the components to SDR planes R′, G′, B′. `finish` gets a clipped value of 0…255, its channel and its
/// pixel.
#[inline(always)]
pub(super) fn colour(
    picture: &Picture,
    small: &[Vec<f32>; 3],
    out: &mut [f32],
    finish: impl Fn(f32, usize, usize) -> f32,
) {
    let Some(tone) = picture.tone() else {
        return coded(picture, small, out, finish);
    };
    coded(picture, small, out, |value, _, _| value);
    let pixels = out.len() / 3;
    for pixel in 0..pixels {
        let at = [pixel, pixels + pixel, 2 * pixels + pixel];
        let values = tone.apply(at.map(|at| out[at] / 255.0));
        for (channel, (at, value)) in at.into_iter().zip(values).enumerate() {
            out[at] = finish(value * 255.0, channel, pixel);
        }
    }
}

/// Converts without tone mapping: to R′, G′, B′ of the picture's own transfer function, SDR or HDR.
///
/// With luma weights Kr, Kg, Kb (ITU-T H.273, 8.3): R′ = Y′ + 2(1 − Kr)·Cr, B′ = Y′ + 2(1 − Kb)·Cb,
/// G′ = Y′ − 2Kr(1 − Kr)/Kg·Cr − 2Kb(1 − Kb)/Kg·Cb; limited range has 219 steps of luma from 16 and 224 of chroma
/// about 128, full range 255 and 255.
#[inline(always)]
fn coded(
    picture: &Picture,
    small: &[Vec<f32>; 3],
    out: &mut [f32],
    finish: impl Fn(f32, usize, usize) -> f32,
) {
    let pixels = out.len() / 3;
    let finish = |value: f32, channel, pixel| finish(value.clamp(0.0, 255.0), channel, pixel);
    let bits = picture.samples().bits;
    // Codes are left-justified in 16 bits; `unit` scales them to 8-bit codes, `whole` to 0…255 of full range.
    let unit = 1.0 / 256.0;
    let whole = 255.0 / (((1u32 << bits) - 1) << (16 - bits)) as f32;
    let luma = |full: bool| {
        if full {
            (whole, 0.0)
        } else {
            (unit * 255.0 / 219.0, -16.0 * 255.0 / 219.0)
        }
    };
    let [first, second, third] = small;
    match picture.colour() {
        Colour::Rgb => {
            for (channel, codes) in [first, second, third].into_iter().enumerate() {
                let out = out[channel * pixels..][..pixels].iter_mut().zip(codes);
                for (pixel, (out, code)) in out.enumerate() {
                    *out = finish(code * whole, channel, pixel);
                }
            }
        }
        Colour::Grey { full } => {
            let (scale, shift) = luma(full);
            for (channel, out) in out.chunks_exact_mut(pixels).enumerate() {
                for (pixel, (out, y)) in out.iter_mut().zip(first).enumerate() {
                    *out = finish(y * scale + shift, channel, pixel);
                }
            }
        }
        Colour::Yuv {
            matrix: (kr, kb),
            full,
        } => {
            let (scale, shift) = luma(full);
            let chroma = if full { whole } else { unit * 255.0 / 224.0 };
            let factors = chroma_shares(kr, kb).map(|(u, v)| (u * chroma, v * chroma));
            for (channel, (out, (u, v))) in out.chunks_exact_mut(pixels).zip(factors).enumerate() {
                // 128 in 8 bits is 32,768 in 16.
                let shift = shift - 32_768.0 * (u + v);
                let codes = first.iter().zip(second).zip(third);
                for (pixel, (out, ((y, cb), cr))) in out.iter_mut().zip(codes).enumerate() {
                    *out = finish(y * scale + cb * u + cr * v + shift, channel, pixel);
                }
            }
        }
    }
}

/// Contributions of Cb and Cr to R′, G′ and B′.
fn chroma_shares(kr: f32, kb: f32) -> [(f32, f32); 3] {
    let kg = 1.0 - kr - kb;
    let (vr, ub) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
    let (vg, ug) = (-kr * vr / kg, -kb * ub / kg);
    [(0.0, vr), (ug, vg), (ub, 0.0)]
}

/// [`colour`] as one affine map of the stored codes, for pictures on a GPU; `units` apply after clipping.
pub(super) fn colours(picture: &Picture, units: [(f32, f32); 3]) -> Colours {
    let samples = picture.samples();
    // Scales to 8-bit codes, and to 0…255 of full range.
    let unit = 1.0 / f32::from(1u16 << (samples.bits - 8));
    let whole = 255.0 / ((1u32 << samples.bits) - 1) as f32;
    // Codes of more than 8 bits may be stored left-justified.
    let stored = if samples.bytes == 1 {
        1.0
    } else {
        1.0 / f32::from(1u16 << (16 - samples.bits - samples.justify))
    };
    let (unit, whole) = (unit * stored, whole * stored);
    let luma = |full: bool| {
        if full {
            (whole, 0.0)
        } else {
            (unit * 255.0 / 219.0, -16.0 * 255.0 / 219.0)
        }
    };
    let (factors, shift) = match picture.colour() {
        Colour::Rgb => (
            [[whole, 0.0, 0.0], [0.0, whole, 0.0], [0.0, 0.0, whole]].map(Vec::from),
            [0.0; 3],
        ),
        Colour::Grey { full } => {
            let (scale, shift) = luma(full);
            ([[scale]; 3].map(Vec::from), [shift; 3])
        }
        Colour::Yuv {
            matrix: (kr, kb),
            full,
        } => {
            let (scale, shift) = luma(full);
            let chroma = if full { whole } else { unit * 255.0 / 224.0 };
            let shares = chroma_shares(kr, kb);
            let middle = 128.0 / unit;
            (
                shares.map(|(u, v)| vec![scale, u * chroma, v * chroma]),
                shares.map(|(u, v)| shift - middle * chroma * (u + v)),
            )
        }
    };
    Colours {
        factors,
        shift,
        tone: picture.tone(),
        units,
    }
}

/// No normalisation.
pub(super) const PLAIN: [(f32, f32); 3] = [(1.0, 0.0); 3];

/// [`normalised`] as a factor and an offset per channel.
pub(super) fn imagenet() -> [(f32, f32); 3] {
    [0, 1, 2].map(|channel| {
        let scale = 1.0 / (255.0 * IMAGENET_STD[channel]);
        (scale, -IMAGENET_MEAN[channel] / IMAGENET_STD[channel])
    })
}

/// Normalises a channel value of 0…255 with ImageNet's mean and deviation.
#[inline(always)]
pub(super) fn normalised(value: f32, channel: usize) -> f32 {
    let scale = 1.0 / (255.0 * IMAGENET_STD[channel]);
    value * scale - IMAGENET_MEAN[channel] / IMAGENET_STD[channel]
}
