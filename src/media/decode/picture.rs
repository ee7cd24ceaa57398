//! A decoded picture: its planes in memory and their format.
//!
//! In: an FFmpeg frame and the stream's orientation. Out: borrowed planes, the layout of each component in them, colour matrix
//! and range. Formats that cannot be read in place (palettes, packed bits, big-endian, bottom-up) are converted by swscale once,
//! keeping family, matrix and range; all others are never copied.

use super::colour::{Colour, colour_of, tone_of};
use super::cuda;
use crate::decode::native;
use crate::decode::native::{ComponentBytes, Descriptor};
use affectmill_base::{Orientation, Size, Tone};
use affectmill_nn::{ComponentLayout, GpuPicture};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::software::scaling;
use ffmpeg_next::util::chroma::Location;
use ffmpeg_next::util::frame::side_data;

/// A picture that owns its frame.
pub struct Picture {
    memory: Memory,
    stored: Size,
    orientation: Orientation,
    /// Width ÷ height of a stored pixel.
    aspect: f64,
    colour: Colour,
    transfer: Option<&'static str>,
    tone: Option<&'static Tone>,
    samples: Samples,
    components: Vec<Component>,
}

/// Why a frame gives no picture.
#[derive(Debug)]
pub(super) enum NoPicture {
    /// The frame's format is unsupported.
    Unfit(String),
    /// The GPU failed.
    Gpu(String),
}

impl From<String> for NoPicture {
    fn from(cause: String) -> Self {
        Self::Unfit(cause)
    }
}

impl From<&str> for NoPicture {
    fn from(cause: &str) -> Self {
        Self::Unfit(cause.to_owned())
    }
}

enum Memory {
    Host(Video),
    Gpu(GpuPicture),
}

/// How a sample is stored; the same for all components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples {
    /// 1, or 2 (little-endian).
    pub bytes: usize,
    /// Left shift that brings the code's highest bit to bit 15 of a `u16`.
    pub justify: u32,
    /// Bits of a code, 8 to 16.
    pub bits: u32,
}

/// Layout of one component in its plane and in the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Component {
    /// Plane.
    pub plane: usize,
    /// Samples before the first one of this component in a row.
    pub offset: usize,
    /// Samples from one of this component to the next.
    pub step: usize,
    /// Samples of this component across and down.
    pub size: Size,
    /// Luma pixels to one sample, across and down: 1, 2 or 4.
    pub pitch: (u32, u32),
    /// Siting, across and down: pixel coordinate `p` of the stored picture is `p / pitch + site` in samples, both
    /// counted from the upper left edge with centres at + 0.5. 0 when samples are centred between their pixels, ¼
    /// when every second pixel has its own.
    pub site: (f64, f64),
}

impl Component {
    /// Its layout in a plane in GPU memory.
    pub fn layout(&self) -> ComponentLayout {
        ComponentLayout {
            plane: self.plane,
            offset: self.offset,
            step: self.step,
            width: self.size.width as usize,
            height: self.size.height as usize,
        }
    }
}

/// Rows of one plane.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    row_bytes: usize,
}

impl<'a> Plane<'a> {
    /// The bytes of row `y`, all components of the plane.
    ///
    /// # Panics
    /// When `y` is not below the height of the plane's components.
    pub fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..self.row_bytes]
    }
}

impl Picture {
    /// Wraps a decoded frame. `orientation` is the stream's, overridden by one in the frame; `aspect` is the container's, 0 when
    /// unknown; `gpu` is the index of the GPU that may have decoded it.
    pub(super) fn new(
        frame: Video,
        orientation: Orientation,
        aspect: ffmpeg::Rational,
        gpu: Option<usize>,
    ) -> Result<Self, NoPicture> {
        let stored = Size {
            width: frame.width(),
            height: frame.height(),
        };
        let name = format!("{:?}", frame.format());
        let on_gpu = gpu.filter(|_| cuda::on_gpu(&frame));
        let descriptor = match on_gpu {
            Some(_) => cuda::descriptor(&frame),
            None => native::descriptor(&frame),
        };
        let descriptor = descriptor.ok_or("the pixel format is unknown")?;
        if stored.width == 0 || stored.height == 0 || descriptor.components.is_empty() {
            let Size { width, height } = stored;
            return Err(format!("a {name} picture of {width}×{height} has no pixels").into());
        }
        let own = frame.side_data(side_data::Type::DisplayMatrix);
        let own = own
            .and_then(|data| native::matrix_from(data.data()))
            .map(orientation_of);
        let orientation = own.unwrap_or(orientation);
        let aspect = native::pixel_aspect(aspect, &frame);
        let colour = colour_of(&frame, &descriptor)?;
        let (transfer, tone) = (native::transfer(&frame), tone_of(&frame));
        let whole = |memory, (samples, components)| Self {
            memory,
            stored,
            orientation,
            aspect,
            colour,
            transfer,
            tone,
            samples,
            components,
        };
        let picture = match (layout(&frame, &descriptor), on_gpu) {
            (Some((samples, components)), Some(gpu)) => {
                cuda::is_supported(&frame)?;
                let planes = planes_of(&components);
                let gpu_picture =
                    cuda::copy_planes(&frame, gpu, &planes, samples.bytes).map_err(NoPicture::Gpu)?;
                return Ok(whole(Memory::Gpu(gpu_picture), (samples, components)));
            }
            (None, Some(_)) => return Err("its pixels on the GPU cannot be read".into()),
            (Some(layout), None) => whole(Memory::Host(frame), layout),
            (None, None) => {
                let failed = |error| format!("cannot convert {name} pixels: {error}");
                let frame = converted(&frame, colour).map_err(failed)?;
                let descriptor = native::descriptor(&frame).ok_or("the pixel format is unknown")?;
                let layout = layout(&frame, &descriptor);
                let layout = layout.ok_or_else(|| format!("cannot read converted {name} pixels"))?;
                whole(Memory::Host(frame), layout)
            }
        };
        if picture
            .components
            .iter()
            .any(|c| picture.plane(c.plane).data.is_empty())
        {
            return Err(format!("a {name} picture lacks a plane").into());
        }
        Ok(picture)
    }

    /// The picture's planes in GPU memory, if they are there.
    pub fn gpu_picture(&self) -> Option<&GpuPicture> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Gpu(gpu_picture) => Some(gpu_picture),
        }
    }

    /// Size in stored pixels once displayed (rotation applied). Pixels that are not square stay as they are.
    pub fn size(&self) -> Size {
        self.orientation.displayed(self.stored)
    }

    /// Size in stored orientation.
    pub fn stored(&self) -> Size {
        self.stored
    }

    /// Width ÷ height of a pixel of the displayed picture: 1 except for anamorphic video.
    pub fn pixel_aspect(&self) -> f64 {
        if self.orientation.quarter_turns % 2 == 1 {
            1.0 / self.aspect
        } else {
            self.aspect
        }
    }

    /// The transform from the stored to the displayed picture.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Colour family of the components.
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// Transfer characteristics, by ffprobe's name (`bt709`, `smpte2084`); `None` when they are unknown.
    pub fn transfer(&self) -> Option<&'static str> {
        self.transfer
    }

    /// Tone mapping to SDR; `None` when the picture is SDR.
    pub fn tone(&self) -> Option<&'static Tone> {
        self.tone
    }

    /// How samples are stored.
    pub fn samples(&self) -> Samples {
        self.samples
    }

    /// The components in the order of [`Colour`]: one for grey, else three. Alpha is left out.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The rows of one plane of a picture in host memory.
    ///
    /// # Panics
    /// Reading a row of a picture in GPU memory, which [`gpu_picture`](Self::gpu_picture) gives access to.
    pub fn plane(&self, plane: usize) -> Plane<'_> {
        let (rows, samples) = planes_of(&self.components)
            .get(plane)
            .copied()
            .unwrap_or_default();
        let row_bytes = samples * self.samples.bytes;
        let (data, stride) = match &self.memory {
            Memory::Host(frame) => (
                native::plane(frame, plane, rows, row_bytes),
                native::stride(frame, plane).unsigned_abs(),
            ),
            Memory::Gpu(_) => (&[][..], 0),
        };
        Plane {
            data,
            stride,
            row_bytes,
        }
    }

    /// Bytes of memory that the picture references.
    pub fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Host(frame) => native::buffer_bytes(frame),
            Memory::Gpu(gpu_picture) => gpu_picture.bytes(),
        }
    }
}

/// Rows of each plane, and samples of a row.
fn planes_of(components: &[Component]) -> Vec<(usize, usize)> {
    let mut planes: Vec<(usize, usize)> = Vec::new();
    for c in components {
        if planes.len() <= c.plane {
            planes.resize(c.plane + 1, (0, 0));
        }
        let (rows, samples) = &mut planes[c.plane];
        *rows = (*rows).max(c.size.height as usize);
        *samples = (*samples).max(c.offset + (c.size.width as usize - 1) * c.step + 1);
    }
    planes
}

/// Reads a display matrix: pixel (x, y) goes to (a·x + c·y, b·x + d·y), y pointing down. Quarter turns and
/// mirrorings are exact; other angles are rounded to the nearest quarter turn.
pub(super) fn orientation_of(matrix: [i32; 9]) -> Orientation {
    let [a, b, c, d] = [matrix[0], matrix[1], matrix[3], matrix[4]].map(i64::from);
    let upright = a.abs() + d.abs() >= b.abs() + c.abs();
    let (quarter_turns, mirrored) = match (upright, a < 0, d < 0, b < 0, c < 0) {
        (true, false, false, ..) => (0, false),
        (true, true, true, ..) => (2, false),
        (true, true, false, ..) => (0, true),
        (true, false, true, ..) => (2, true),
        (false, _, _, false, true) => (1, false),
        (false, _, _, true, false) => (3, false),
        (false, _, _, true, true) => (1, true),
        (false, _, _, false, false) => (3, true),
    };
    Orientation {
        quarter_turns,
        mirrored,
    }
}

/// Layout of the components, when whole little-endian samples of 8 to 16 bits can be read in place.
fn layout(frame: &Video, descriptor: &Descriptor) -> Option<(Samples, Vec<Component>)> {
    let unreadable = ffi::AV_PIX_FMT_FLAG_PAL
        | ffi::AV_PIX_FMT_FLAG_BITSTREAM
        | ffi::AV_PIX_FMT_FLAG_HWACCEL
        | ffi::AV_PIX_FMT_FLAG_BAYER
        | ffi::AV_PIX_FMT_FLAG_FLOAT;
    let ComponentBytes {
        depth: bits, shift, ..
    } = descriptor.components[0];
    let bytes = if bits + shift > 8 { 2 } else { 1 };
    let count = if descriptor.components.len() < 3 { 1 } else { 3 };
    let used = &descriptor.components[..count];
    let big_endian = bytes == 2 && descriptor.flags & ffi::AV_PIX_FMT_FLAG_BE as u64 != 0;
    let in_place = |c: &ComponentBytes| {
        (c.depth, c.shift) == (bits, shift)
            && c.offset.is_multiple_of(bytes)
            && c.step.is_multiple_of(bytes)
            && native::stride(frame, c.plane) > 0
    };
    // XYZ has no flag of its own in FFmpeg 5.1.
    let foreign = matches!(frame.format(), Pixel::XYZ12LE | Pixel::XYZ12BE);
    if descriptor.flags & unreadable as u64 != 0 || big_endian || foreign {
        return None;
    }
    if !(8..=16).contains(&bits) || bits + shift > 16 || !used.iter().all(in_place) {
        return None;
    }
    let samples = Samples {
        bytes,
        justify: 16 - bits - shift,
        bits,
    };
    let components = used.iter().enumerate().map(|(index, c)| {
        let (across, down) = if index == 0 {
            (0, 0)
        } else {
            descriptor.chroma_shift
        };
        Component {
            plane: c.plane,
            offset: c.offset / bytes,
            step: c.step / bytes,
            size: Size {
                width: frame.width().div_ceil(1 << across),
                height: frame.height().div_ceil(1 << down),
            },
            pitch: (1 << across, 1 << down),
            site: site(frame.chroma_location(), 1 << across, 1 << down),
        }
    });
    Some((samples, components.collect()))
}

/// Siting of samples `across` and `down` pixels apart. Unspecified means left, as H.264, HEVC and MPEG-2 define.
fn site(location: Location, across: u32, down: u32) -> (f64, f64) {
    let first = |pitch: u32| 0.5 - 0.5 / f64::from(pitch);
    let x = match location {
        Location::Center | Location::Top | Location::Bottom => 0.0,
        Location::Unspecified | Location::Left | Location::TopLeft | Location::BottomLeft => first(across),
    };
    let y = match location {
        Location::Unspecified | Location::Left | Location::Center => 0.0,
        Location::Top | Location::TopLeft => first(down),
        Location::Bottom | Location::BottomLeft => -first(down),
    };
    (x, y)
}

/// Converts a frame by swscale to 8-bit planes of the same family.
fn converted(frame: &Video, colour: Colour) -> Result<Video, ffmpeg::Error> {
    let format = match colour {
        Colour::Grey { .. } => Pixel::GRAY8,
        Colour::Yuv { .. } => Pixel::YUV444P,
        Colour::Rgb => Pixel::RGB24,
    };
    let (width, height) = (frame.width(), frame.height());
    let flags = scaling::Flags::BICUBIC | scaling::Flags::ACCURATE_RND | scaling::Flags::FULL_CHR_H_INP;
    let mut scaler = scaling::Context::get(frame.format(), width, height, format, width, height, flags)?;
    let mut output = Video::empty();
    scaler.run(frame, &mut output)?;
    Ok(output)
}

#[cfg(any(test, feature = "testing"))]
pub mod tests {
    use super::*;
    use affectmill_nn::{Device, PlaneMemory};
    use ffmpeg_next::color::{Primaries, Range, TransferCharacteristic};

    /// A picture of smooth slopes with some noise, in a pixel format by its name in FFmpeg.
    pub fn drawn(format: &str, size: Size, full: bool, orientation: Orientation) -> Picture {
        drawn_as(TransferCharacteristic::BT709, format, size, full, orientation)
    }

    /// The same in PQ, or in HLG.
    pub fn drawn_hdr(pq: bool, format: &str, size: Size, orientation: Orientation) -> Picture {
        let transfer = if pq {
            TransferCharacteristic::SMPTE2084
        } else {
            TransferCharacteristic::ARIB_STD_B67
        };
        drawn_as(transfer, format, size, false, orientation)
    }

    fn drawn_as(
        transfer: TransferCharacteristic,
        format: &str,
        size: Size,
        full: bool,
        orientation: Orientation,
    ) -> Picture {
        native::init();
        let format: Pixel = format.parse().unwrap();
        let mut frame = Video::new(format, size.width, size.height);
        frame.set_color_range(if full { Range::JPEG } else { Range::MPEG });
        frame.set_color_transfer_characteristic(transfer);
        frame.set_color_primaries(Primaries::BT2020);
        let wide = native::descriptor(&frame).unwrap().components[0].depth > 8;
        let mut noise = 1u32;
        for plane in 0..frame.planes() {
            let stride = frame.stride(plane);
            for (at, byte) in frame.data_mut(plane).iter_mut().enumerate() {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (x, y) = (at % stride, at / stride);
                let slope = (x * 3 + y * 5 + plane * 60) / 7 % 200 + 20;
                // Of 16-bit samples the low byte is noise.
                *byte = if wide && at % 2 == 0 {
                    (noise >> 24) as u8 & 0xc0
                } else {
                    (slope as u8).wrapping_add((noise >> 28) as u8)
                };
            }
        }
        Picture::new(frame, orientation, ffmpeg::Rational(0, 1), None).unwrap()
    }

    impl Picture {
        /// As the GPU's decoder would leave it, in the memory of a device that is the CPU.
        pub fn on_device(&self) -> Picture {
            let Memory::Host(frame) = &self.memory else {
                panic!("it is one");
            };
            let planes = planes_of(&self.components).into_iter().enumerate();
            let planes = planes.map(|(n, (rows, samples))| PlaneMemory {
                address: frame.data(n).as_ptr(),
                rows,
                samples,
                bytes: self.samples.bytes,
                stride: frame.stride(n),
            });
            let planes: Vec<_> = planes.collect();
            // SAFETY: the planes are those of a frame that lives.
            #[allow(unsafe_code)]
            let gpu_picture = unsafe { GpuPicture::copied(Device::cpu(), &planes) };
            Picture {
                memory: Memory::Gpu(gpu_picture.unwrap()),
                components: self.components.clone(),
                ..*self
            }
        }
    }
}
