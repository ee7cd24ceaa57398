//! Tone mapping from HDR to SDR on a device: [`Tone::apply`] over whole pictures.

use affectmill_base::{Table, Tone};
use tch::{Device, Kind, TchError, Tensor};

/// A tone's tables on a device.
pub(super) struct Toner {
    light: Lookup,
    scene: Option<Scene>,
    gamut: Tensor,
    code: Lookup,
}

struct Scene {
    luma: Tensor,
    factor: Lookup,
    display: Lookup,
}

/// A table, `[steps + 1]`.
struct Lookup(Tensor);

impl Lookup {
    fn new(table: &Table, device: Device) -> Result<Self, TchError> {
        Ok(Self(Tensor::f_from_slice(table.values())?.f_to_device(device)?))
    }

    /// Its values at each of `x`, of 0…1.
    fn at(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let steps = self.0.numel() as f64 - 1.0;
        let place = x.f_mul_scalar(steps)?;
        let step = place.f_floor()?.f_clamp_max(steps - 1.0)?;
        let index = step.f_to_kind(Kind::Int64)?;
        let (a, b) = (self.0.f_take(&index)?, self.0.f_take(&index.f_add_scalar(1)?)?);
        b.f_sub(&a)?.f_mul(&place.f_sub(&step)?)?.f_add(&a)
    }

    /// Its values at the fourth root of each of `x`, clipped to 0…1.
    fn at_root(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.at(&x.f_clamp(0.0, 1.0)?.f_sqrt()?.f_sqrt()?)
    }
}

impl Toner {
    pub(super) fn new(tone: &Tone, device: Device) -> Result<Self, TchError> {
        let matrix = |values: &[f32]| Tensor::f_from_slice(values)?.f_view([-1, 3])?.f_to_device(device);
        let scene = tone.scene.as_ref().map(|scene| {
            Ok::<_, TchError>(Scene {
                luma: matrix(&scene.luma)?,
                factor: Lookup::new(&scene.factor, device)?,
                display: Lookup::new(&scene.display, device)?,
            })
        });
        Ok(Self {
            light: Lookup::new(&tone.light, device)?,
            scene: scene.transpose()?,
            gamut: matrix(tone.gamut.as_flattened())?,
            code: Lookup::new(&tone.code, device)?,
        })
    }

    /// R′, G′, B′ `[3, pixels]` of HDR to those of SDR, all of 0…1.
    pub(super) fn apply(&self, coded: &Tensor) -> Result<Tensor, TchError> {
        let mut light = self.light.at(coded)?;
        if let Some(scene) = &self.scene {
            let factor = scene.factor.at_root(&scene.luma.f_matmul(&light)?)?;
            light = scene.display.at_root(&light.f_mul(&factor)?)?;
        }
        self.code.at_root(&self.gamut.f_matmul(&light)?)
    }
}
