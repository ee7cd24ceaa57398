//! A decoded picture in GPU memory; resamples it and warps crops without copying it to the host.
//!
//! In: planes as the GPU's decoder leaves them, filters and affine maps computed on the host. Out: planes R′, G′, B′ on the GPU.
//! The arithmetic is that of `vision` in single precision instead of fixed point; tests compare the two (every operation here runs
//! on any libtorch device, including the CPU).

use super::batch::GpuSample;
use super::toner::Toner;
use super::{Device, ModelError};
use affectmill_base::{Orientation, Tone};
use std::ops::Range;
use tch::{Kind, TchError, Tensor};

/// Bilinear; the edge is replicated; whole numbers at sample centres.
const BILINEAR: i64 = 0;
const BORDER: i64 = 1;

/// The planes of one picture.
pub struct GpuPicture {
    /// `[rows, samples of a row]`: `Uint8`, or the bits of 16-bit samples as `Int16`.
    planes: Vec<Tensor>,
}

/// A plane in a device's memory.
pub struct PlaneMemory {
    /// Its first sample.
    pub address: *const u8,
    /// Rows.
    pub rows: usize,
    /// Samples of a row, all components together.
    pub samples: usize,
    /// Bytes of a sample: 1 or 2.
    pub bytes: usize,
    /// Bytes from a row to the next.
    pub stride: usize,
}

/// Layout of one component's samples in a plane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComponentLayout {
    /// Plane.
    pub plane: usize,
    /// Samples before the first one in a row.
    pub offset: usize,
    /// Samples from one to the next.
    pub step: usize,
    /// Samples across.
    pub width: usize,
    /// Samples down.
    pub height: usize,
}

impl GpuPicture {
    /// Copies planes within the device, in stream order: the owner may reuse the planes at once if its work is in the same stream.
    ///
    /// # Safety
    /// Each plane lies in the memory of `device`: `rows` rows of `samples` samples, `stride` bytes apart.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory runs out.
    #[allow(unsafe_code)]
    pub unsafe fn copied(device: Device, planes: &[PlaneMemory]) -> Result<Self, ModelError> {
        let copy = |plane: &PlaneMemory| {
            let (kind, bytes) = match plane.bytes {
                1 => (Kind::Uint8, 1),
                _ => (Kind::Int16, 2),
            };
            let size = [plane.rows as i64, plane.samples as i64];
            let strides = [(plane.stride / bytes) as i64, 1];
            // SAFETY: the caller vouches for the memory; the tensor over it does not leave this function.
            let there = unsafe { Tensor::f_from_blob(plane.address, &size, &strides, kind, device.tch()) }?;
            there.f_to_device_(device.tch(), kind, true, true)
        };
        let planes = planes.iter().map(copy).collect::<Result<_, TchError>>();
        let planes = planes.map_err(ModelError::torch("taking over a decoded picture"))?;
        Ok(Self { planes })
    }

    /// Bytes of memory that it uses.
    pub fn bytes(&self) -> usize {
        let bytes = |plane: &Tensor| plane.numel() * plane.kind().elt_size_in_bytes();
        self.planes.iter().map(bytes).sum()
    }

    /// The codes of a component at the given rows and columns, row by row.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when one lies outside or the device fails.
    pub fn codes(&self, of: &ComponentLayout, rows: &[i64], columns: &[i64]) -> Result<Vec<f32>, ModelError> {
        let read = || {
            let all = self.view(of, 0..of.height, 0..of.width)?;
            let index = |of: &[i64]| Tensor::f_from_slice(of)?.f_to_device(all.device());
            let few = all
                .f_index_select(0, &index(rows)?)?
                .f_index_select(1, &index(columns)?)?;
            let mut values = vec![0.0; few.numel()];
            let length = values.len();
            widened(&few)?
                .f_to_device(tch::Device::Cpu)?
                .f_contiguous()?
                .f_copy_data(&mut values, length)?;
            Ok(values)
        };
        read().map_err(ModelError::torch("reading a decoded picture"))
    }

    /// The bytes of every `step`-th row of each plane.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when the device fails.
    pub fn every_row(&self, step: usize) -> Result<Vec<Vec<u8>>, ModelError> {
        let read = |plane: &Tensor| {
            let rows = plane
                .f_slice(0, None, None, step as i64)?
                .f_contiguous()?
                .f_view_dtype(Kind::Uint8)?
                .f_to_device(tch::Device::Cpu)?;
            let mut bytes = vec![0u8; rows.numel()];
            let length = bytes.len();
            rows.f_copy_data(&mut bytes, length)?;
            Ok(bytes)
        };
        let rows = self.planes.iter().map(read).collect::<Result<_, TchError>>();
        rows.map_err(ModelError::torch("reading a decoded picture"))
    }

    fn view(
        &self,
        of: &ComponentLayout,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Tensor, TchError> {
        let first = of.offset + columns.start * of.step;
        let end = of.offset + (columns.end - 1) * of.step + 1;
        self.planes[of.plane]
            .f_narrow(0, rows.start as i64, rows.len() as i64)?
            .f_slice(1, first as i64, end as i64, of.step as i64)
    }

    fn device(&self) -> tch::Device {
        self.planes[0].device()
    }
}

/// Codes as floats.
fn widened(codes: &Tensor) -> Result<Tensor, TchError> {
    match codes.kind() {
        Kind::Int16 => codes
            .f_to_kind(Kind::Int)?
            .f_bitwise_and(0xffff)?
            .f_to_kind(Kind::Float),
        _ => codes.f_to_kind(Kind::Float),
    }
}

/// From codes of the components to R′, G′, B′ of 0…255, clipped, and then to other units.
#[derive(Clone, Debug, PartialEq)]
pub struct Colours {
    /// For each channel: a factor for each component.
    pub factors: [Vec<f32>; 3],
    /// For each channel, added.
    pub shift: [f32; 3],
    /// For HDR: tone mapping of the clipped values to SDR.
    pub tone: Option<&'static Tone>,
    /// For each channel, applied to what was clipped: a factor and what is added.
    pub units: [(f32, f32); 3],
}

/// The same on a device.
struct ColourMatrix {
    factors: Tensor,
    shift: Tensor,
    tone: Option<Toner>,
    /// `None` where clipped values are what is wanted.
    units: Option<(Tensor, Tensor)>,
}

impl ColourMatrix {
    fn new(colours: &Colours, device: tch::Device) -> Result<Self, TchError> {
        let column = |values: [f32; 3]| tensor(&values, &[3, 1], device);
        let components = colours.factors[0].len() as i64;
        Ok(Self {
            factors: tensor(&colours.factors.concat(), &[3, components], device)?,
            shift: column(colours.shift)?,
            tone: colours.tone.map(|tone| Toner::new(tone, device)).transpose()?,
            units: match colours.units {
                [(1.0, 0.0), (1.0, 0.0), (1.0, 0.0)] => None,
                units => Some((
                    column(units.map(|unit| unit.0))?,
                    column(units.map(|unit| unit.1))?,
                )),
            },
        })
    }

    /// Codes `[components, pixels]` to `[3, pixels]`; `cover`, where given, darkens what was clipped.
    fn paint(&self, codes: &Tensor, cover: Option<&Tensor>) -> Result<Tensor, TchError> {
        let mut x = self.shift.f_addmm(&self.factors, codes)?.f_clamp_(0.0, 255.0)?;
        if let Some(tone) = &self.tone {
            x = tone.apply(&x.f_div_scalar_(255.0)?)?.f_mul_scalar_(255.0)?;
        }
        if let Some(cover) = cover {
            x = x.f_mul_(cover)?;
        }
        match &self.units {
            Some((scale, shift)) => x.f_mul_(scale)?.f_add_(shift),
            None => Ok(x),
        }
    }
}

/// Weights of a filter along one axis: for each output, of samples from `first` on, row by row.
pub struct Weights {
    /// First sample.
    pub first: usize,
    /// Samples.
    pub count: usize,
    /// `[outputs, count]`.
    pub matrix: Vec<f32>,
}

/// Resamples pictures of one geometry.
pub struct Resampler {
    parts: Vec<Part>,
    palette: ColourMatrix,
    /// Rows and columns of the output as it is stored.
    size: (usize, usize),
    turn: Orientation,
}

struct Part {
    lattice: ComponentLayout,
    rows: Range<usize>,
    columns: Range<usize>,
    down: Tensor,
    across: Tensor,
}

impl Resampler {
    /// From each component's lattice and its filters down and across, for pictures on the device of `like`, which are
    /// displayed turned.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory runs out.
    pub fn new(
        parts: Vec<(ComponentLayout, Weights, Weights)>,
        size: (usize, usize),
        colours: &Colours,
        turn: Orientation,
        like: &GpuPicture,
    ) -> Result<Self, ModelError> {
        let device = like.device();
        let part = |(lattice, down, across): (ComponentLayout, Weights, Weights)| {
            let (rows, columns) = (down.count as i64, across.count as i64);
            Ok(Part {
                lattice,
                rows: down.first..down.first + down.count,
                columns: across.first..across.first + across.count,
                down: tensor(&down.matrix, &[size.0 as i64, rows], device)?,
                across: tensor(&across.matrix, &[size.1 as i64, columns], device)?.f_transpose(0, 1)?,
            })
        };
        let make = || {
            Ok(Self {
                parts: parts.into_iter().map(part).collect::<Result<_, TchError>>()?,
                palette: ColourMatrix::new(colours, device)?,
                size,
                turn,
            })
        };
        make().map_err(ModelError::torch("laying out filters"))
    }

    /// The picture resampled, `[3, height, width]` as displayed.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory runs out.
    pub fn run(&self, surface: &GpuPicture) -> Result<GpuSample, ModelError> {
        let resample = || {
            let part = |part: &Part| {
                let codes =
                    widened(&surface.view(&part.lattice, part.rows.clone(), part.columns.clone())?)?;
                part.down.f_matmul(&codes)?.f_matmul(&part.across)
            };
            let small: Vec<Tensor> = self.parts.iter().map(part).collect::<Result<_, TchError>>()?;
            let small = Tensor::f_stack(&small, 0)?.f_flatten(1, -1)?;
            let shape = [3, self.size.0 as i64, self.size.1 as i64];
            turned(self.palette.paint(&small, None)?.f_view(shape)?, self.turn)
        };
        let made = resample().map_err(ModelError::torch("resampling a decoded picture"))?;
        Ok(GpuSample(vec![made]))
    }
}

/// Brings a stored picture `[3, rows, columns]` the displayed way up.
fn turned(x: Tensor, turn: Orientation) -> Result<Tensor, TchError> {
    let x = if turn.mirrored { x.f_flip([2])? } else { x };
    match turn.quarter_turns % 4 {
        0 => Ok(x),
        1 => x.f_flip([1])?.f_transpose(1, 2)?.f_contiguous(),
        2 => x.f_flip([1, 2]),
        _ => x.f_flip([2])?.f_transpose(1, 2)?.f_contiguous(),
    }
}

/// An affine map of a crop's pixel `(u, v)`: to `x = x·(u, v, 1)`, `y = y·(u, v, 1)`.
pub type Affine = [[f64; 3]; 2];

/// Cuts square crops of one side out of pictures along affine maps, by bilinear samples.
pub struct Warper {
    side: usize,
    /// `(u, v, 1)` of each pixel.
    pixels: Tensor,
}

impl Warper {
    /// For crops of `side` × `side`, of pictures on the device of `like`.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory runs out.
    pub fn new(side: usize, like: &GpuPicture) -> Result<Self, ModelError> {
        let pixels = (0..side * side).flat_map(|at| [(at % side) as f64, (at / side) as f64, 1.0]);
        let pixels: Vec<f64> = pixels.collect();
        let pixels = tensor(&pixels, &[(side * side) as i64, 3], like.device());
        let pixels = pixels.map_err(ModelError::torch("laying out a crop"))?;
        Ok(Self { side, pixels })
    }

    /// Cuts out a crop `[3, side, side]`. Each component comes with the map to its samples, whole numbers at their centres;
    /// beyond the edge the edge's. `picture` is the map to the pixels of a picture of `size` (width, height), whose pixels begin
    /// at whole numbers; what lies beyond it fades to black over a pixel.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when memory runs out.
    pub fn run(
        &self,
        surface: &GpuPicture,
        components: &[(ComponentLayout, Affine)],
        picture: &Affine,
        size: (f64, f64),
        colours: &Colours,
    ) -> Result<GpuSample, ModelError> {
        let device = surface.device();
        let warp = || {
            let windows: Vec<Window> = components
                .iter()
                .map(|(lattice, map)| Window::of(lattice, map, self.side))
                .collect();
            // One matrix for all maps: columns x, y of each.
            let mut columns: Vec<[f64; 3]> = windows.iter().flat_map(|window| window.grid).collect();
            columns.extend(picture);
            let matrix: Vec<f64> = (0..3)
                .flat_map(|row| columns.iter().map(move |c| c[row]))
                .collect();
            let matrix = tensor(&matrix, &[3, columns.len() as i64], device)?;
            let places = self.pixels.f_matmul(&matrix)?.f_to_kind(Kind::Float)?;
            let side = self.side as i64;
            let mut small = Vec::with_capacity(components.len());
            for (n, (window, (lattice, _))) in windows.into_iter().zip(components).enumerate() {
                let codes = widened(&surface.view(lattice, window.rows, window.columns)?)?;
                let grid = places
                    .f_narrow(1, 2 * n as i64, 2)?
                    .f_reshape([1, side, side, 2])?;
                let codes = codes.f_unsqueeze(0)?.f_unsqueeze(0)?;
                small.push(
                    codes
                        .f_grid_sampler_2d(&grid, BILINEAR, BORDER, true)?
                        .f_flatten(0, -1)?,
                );
            }
            let share = |column: usize, length: f64| {
                let x = places.f_select(1, column as i64)?;
                let (near, far) = (x.f_add_scalar(0.5)?, x.f_neg()?.f_add_scalar(length + 0.5)?);
                near.f_minimum(&far)?.f_clamp(0.0, 1.0)
            };
            let first = 2 * components.len();
            let cover = share(first, size.0)?.f_mul_(&share(first + 1, size.1)?)?;
            let palette = ColourMatrix::new(colours, device)?;
            let painted = palette.paint(&Tensor::f_stack(&small, 0)?, Some(&cover))?;
            painted.f_view([3, side, side])
        };
        let made = warp().map_err(ModelError::torch("cutting a face out of a decoded picture"))?;
        Ok(GpuSample(vec![made]))
    }
}

/// The part of a component that a crop reads, and the map into it in the sampler's units, −1 to 1 from its first sample to
/// its last.
struct Window {
    rows: Range<usize>,
    columns: Range<usize>,
    grid: [[f64; 3]; 2],
}

impl Window {
    fn of(lattice: &ComponentLayout, map: &Affine, side: usize) -> Self {
        let last = side as f64 - 1.0;
        let span = |way: &[f64; 3], length: usize| {
            let corners = [(0.0, 0.0), (last, 0.0), (0.0, last), (last, last)];
            let places = corners.map(|(u, v)| {
                let place = way[0] * u + way[1] * v + way[2];
                place.clamp(0.0, (length - 1) as f64)
            });
            let low = places.into_iter().fold(f64::INFINITY, f64::min);
            let high = places.into_iter().fold(0.0, f64::max);
            low as usize..(high.ceil() as usize + 1).min(length)
        };
        let grid = |way: &[f64; 3], span: &Range<usize>| {
            let scale = 2.0 / (span.len() - 1).max(1) as f64;
            let shift = (way[2] - span.start as f64) * scale - 1.0;
            [way[0] * scale, way[1] * scale, shift]
        };
        let (columns, rows) = (span(&map[0], lattice.width), span(&map[1], lattice.height));
        Self {
            grid: [grid(&map[0], &columns), grid(&map[1], &rows)],
            rows,
            columns,
        }
    }
}

/// Sends numbers to a device without waiting for them to arrive.
fn tensor<T: tch::kind::Element>(
    values: &[T],
    shape: &[i64],
    device: tch::Device,
) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(values)?
        .f_view(shape)?
        .f_to_device_(device, T::KIND, true, false)
}
