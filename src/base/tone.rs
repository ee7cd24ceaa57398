//! Tone mapping from HDR to SDR: the picture of a display of 1,000 cd/m², mapped to an SDR display.
//!
//! One fixed chain, the same for every video:
//!
//! 1. Coded values become linear light: PQ by its EOTF (SMPTE ST 2084; ITU-R BT.2100, table 4), HLG by its inverse OETF and the
//!    OOTF of a display of 1,000 cd/m², gamma 1.2 (BT.2100, table 5). Values above 1,000 cd/m² are clipped.
//! 2. The roll-off of ITU-R BT.2390 (5.4.1, "EETF"), for each of R, G and B, from 1,000 to 203 cd/m², the white of graphics
//!    in HDR (BT.2408). Below 88 cd/m², where skin lies, it changes nothing.
//! 3. Primaries of BT.2020 become those of BT.709 (BT.2087); values outside the gamut are clipped.
//! 4. 203 cd/m² becomes SDR white; the values are encoded by BT.1886, gamma 2.4.
//!
//! Steps 1 and 2 of PQ and the other powers are lookup tables, so that CPU and GPU compute the same.

use std::sync::LazyLock;

/// Id of this tone mapping; a changed one gets a new id.
pub const TONE_MAPPING: &str = "bt2390-1000-203";

/// Peak luminance of the HDR display, and luminance of SDR white, in cd/m².
const PEAK: f64 = 1_000.0;
const WHITE: f64 = 203.0;
/// Exponent of the SDR display.
const GAMMA: f64 = 2.4;
/// Luminance of the primaries of BT.2020, and of BT.709.
const WIDE_LUMA: [f32; 3] = [0.2627, 0.6780, 0.0593];
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];
/// From BT.2020 to BT.709 (BT.2087-0, annex).
const GAMUT: [[f32; 3]; 3] = [
    [1.660_491, -0.587_641, -0.072_850],
    [-0.124_55, 1.132_9, -0.008_349],
    [-0.018_151, -0.100_579, 1.118_73],
];
const SAME: [[f32; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
/// Intervals of a table.
const STEPS: usize = 2_048;

/// A function on 0…1, interpolated linearly between its steps.
#[derive(Debug)]
pub struct Table(Vec<f32>);

impl Table {
    fn of(function: impl Fn(f64) -> f64) -> Self {
        let at = |step| function(step as f64 / STEPS as f64) as f32;
        Self((0..=STEPS).map(at).collect())
    }

    /// Its values at 0, 1/n, … 1.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Its value at `x` of 0…1.
    pub fn at(&self, x: f32) -> f32 {
        let position = x * STEPS as f32;
        let step = (position as usize).min(STEPS - 1);
        let (a, b) = (self.0[step], self.0[step + 1]);
        a + (b - a) * (position - step as f32)
    }
}

/// The map from coded HDR values of 0…1 to SDR. Tables of light are indexed by its fourth root, for resolution in the shadows.
#[derive(Debug)]
pub struct Tone {
    /// Coded value to linear light: scene light with `scene`, else light of the SDR display with white at 1.
    pub light: Table,
    /// For HLG: scene light to display light.
    pub scene: Option<Scene>,
    /// The matrix between the primaries, by rows.
    pub gamut: [[f32; 3]; 3],
    /// Root of light to the coded SDR value.
    pub code: Table,
    /// Whether it maps HLG, and whether its primaries are wide; these identify a tone mapping.
    id: (bool, bool),
}

/// From scene light to light of the SDR display.
#[derive(Debug)]
pub struct Scene {
    /// Luminance of the primaries.
    pub luma: [f32; 3],
    /// Root of the luminance to the common factor of R, G and B.
    pub factor: Table,
    /// Root of light of the HDR display, peak at 1, to light of the SDR display.
    pub display: Table,
}

impl PartialEq for Tone {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

static TONES: LazyLock<[Tone; 4]> = LazyLock::new(|| {
    [(false, false), (false, true), (true, false), (true, true)].map(|(hlg, wide)| Tone::new(hlg, wide))
});

impl Tone {
    /// For PQ; `wide` for the primaries of BT.2020, else those of BT.709.
    pub fn pq(wide: bool) -> &'static Self {
        &TONES[usize::from(wide)]
    }

    /// For HLG.
    pub fn hlg(wide: bool) -> &'static Self {
        &TONES[2 + usize::from(wide)]
    }

    fn new(hlg: bool, wide: bool) -> Self {
        let scene = hlg.then(|| Scene {
            luma: if wide { WIDE_LUMA } else { LUMA },
            factor: Table::of(|root| root.powi(4).powf(0.2)),
            display: Table::of(|root| rolled_off(root.powi(4) * PEAK) / WHITE),
        });
        Self {
            light: if hlg {
                Table::of(hlg_scene)
            } else {
                Table::of(|code| rolled_off(pq_light(code)) / WHITE)
            },
            scene,
            gamut: if wide { GAMUT } else { SAME },
            code: Table::of(|root| root.powi(4).powf(1.0 / GAMMA)),
            id: (hlg, wide),
        }
    }

    /// R′, G′, B′ of HDR to SDR, all in 0…1.
    #[inline]
    pub fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        let mut light = rgb.map(|value| self.light.at(value));
        if let Some(scene) = &self.scene {
            let luminance = dot(scene.luma, light);
            let factor = scene.factor.at(root(luminance));
            light = light.map(|value| scene.display.at(root(value * factor)));
        }
        self.gamut.map(|row| self.code.at(root(dot(row, light))))
    }
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The fourth root of a value clipped to 0…1.
fn root(light: f32) -> f32 {
    light.clamp(0.0, 1.0).sqrt().sqrt()
}

const M1: f64 = 2_610.0 / 16_384.0;
const M2: f64 = 2_523.0 / 4_096.0 * 128.0;
const C1: f64 = 3_424.0 / 4_096.0;
const C2: f64 = 2_413.0 / 4_096.0 * 32.0;
const C3: f64 = 2_392.0 / 4_096.0 * 32.0;

/// PQ's EOTF: a coded value to cd/m².
fn pq_light(code: f64) -> f64 {
    let power = code.powf(1.0 / M2);
    10_000.0 * ((power - C1).max(0.0) / (C2 - C3 * power)).powf(1.0 / M1)
}

/// Its inverse.
fn pq_code(light: f64) -> f64 {
    let power = (light / 10_000.0).powf(M1);
    ((C1 + C2 * power) / (1.0 + C3 * power)).powf(M2)
}

/// HLG's inverse OETF: a coded value to scene light, 0…1.
fn hlg_scene(code: f64) -> f64 {
    const A: f64 = 0.178_832_77;
    const B: f64 = 1.0 - 4.0 * A;
    let c = 0.5 - A * (4.0 * A).ln();
    match code {
        code if code <= 0.5 => code * code / 3.0,
        code => (((code - c) / A).exp() + B) / 12.0,
    }
}

/// BT.2390's roll-off, in cd/m².
fn rolled_off(light: f64) -> f64 {
    let peak = pq_code(PEAK);
    let target = pq_code(WHITE) / peak;
    let knee = 1.5 * target - 0.5;
    let code = pq_code(light.min(PEAK)) / peak;
    if code < knee {
        return light;
    }
    let t = (code - knee) / (1.0 - knee);
    let spline = (2.0 * t.powi(3) - 3.0 * t.powi(2) + 1.0) * knee
        + (t.powi(3) - 2.0 * t.powi(2) + t) * (1.0 - knee)
        + (-2.0 * t.powi(3) + 3.0 * t.powi(2)) * target;
    pq_light(spline * peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, by: f64) {
        assert!((a - b).abs() <= by, "{a} is not {b}");
    }

    #[test]
    fn curves_go_through_the_published_points() {
        // ITU-R BT.2408, table 1: 203 cd/m² is 58 % of PQ and 75 % of HLG; 1,000 cd/m² is 75 % of PQ.
        near(pq_code(203.0), 0.58, 0.005);
        near(pq_code(1_000.0), 0.75, 0.005);
        near(pq_code(10_000.0), 1.0, 1e-9);
        near(pq_light(pq_code(50.0)), 50.0, 1e-6);
        near(1_000.0 * hlg_scene(0.75).powf(1.2), 203.0, 1.0);
        near(hlg_scene(1.0), 1.0, 1e-6);
        // BT.2390: nothing changes below the knee, and the peak becomes the target's.
        near(rolled_off(87.0), 87.0, 0.0);
        assert!(rolled_off(90.0) < 90.0);
        near(rolled_off(1_000.0), 203.0, 1e-6);
        near(rolled_off(4_000.0), 203.0, 1e-6);
    }

    #[test]
    fn black_white_and_grey_stay_grey() {
        for tone in [Tone::pq(true), Tone::hlg(true), Tone::pq(false), Tone::hlg(false)] {
            near(tone.apply([0.0; 3])[1].into(), 0.0, 1e-6);
            near(tone.apply([1.0; 3])[0].into(), 1.0, 1e-4);
            let mut last = 0.0;
            for step in 1..100 {
                let [r, g, b] = tone.apply([step as f32 / 100.0; 3]);
                assert!((r - g).abs() < 1e-4 && (b - g).abs() < 1e-4 && g >= last);
                last = g;
            }
        }
    }
}
