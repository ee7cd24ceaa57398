//! Decodes a video file, a folder of numbered images or a set of crops to frames in presentation order.
//!
//! In: a path. Out: [`DecodedFrame`]s, each with its index, its time after the container's start, and a [`Picture`] whose planes
//! stay in the decoder's memory. It must never skip or invent a frame, never guess a time from a frame rate, never buffer more
//! frames than the decoder itself, never write to the terminal.
//!
//! Frames, their order and their times are those of `ffprobe -show_frames`, for any number of threads.

mod colour;
mod container;
mod crops;
mod cuda;
mod decoder;
mod elsewhere;
mod error;
mod images;
mod native;
mod nvdec;
mod order;
mod picture;
mod probe;
mod promise;
mod recovery;
mod sampling;
mod seek_anchor;
mod stream;

pub use colour::Colour;
pub use cuda::check_gpu as nvdec_opens;
pub use error::DecodeError;
pub use nvdec::available as nvdec_available;
#[cfg(any(test, feature = "testing"))]
pub use picture::tests::{drawn, drawn_hdr};
pub use picture::{Component, Picture, Plane, Samples};
pub use sampling::Sampler;

use affectmill_base::{Face, FrameIndex, Micros, VideoKey};
use affectmill_base::{SourceKind, Trouble};
use std::path::Path;

/// How videos are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeOptions {
    /// Threads of FFmpeg's decoder for codecs whose frames stand on their own (Motion JPEG, ProRes, …) and for FFV1; 0 lets
    /// FFmpeg choose. All others use one, because error concealment depends on the thread count: decode
    /// several videos at once instead. Changes no frame.
    pub threads: usize,
    /// Number in the file name of frame 0 of a folder of images.
    pub image_base: u64,
    /// Frames a second of folders of images, above 0; without it their frames have no timestamp.
    pub image_fps: Option<f64>,
    /// Maximum pixels of a stored picture; a larger one is not decoded.
    pub max_pixels: u64,
    /// Maximum frames of a video file; later ones are skipped.
    pub max_frames: u64,
    /// Index of the GPU whose NVDEC decodes video files, as CUDA counts it in this process; `None` for the CPU.
    pub nvdec: Option<usize>,
}

impl DecodeOptions {
    /// The same options without a GPU.
    pub fn on_the_cpu(self) -> Self {
        Self { nvdec: None, ..self }
    }
}

/// One frame of a video.
pub struct DecodedFrame {
    /// Position in presentation order over all frames that the decoder returns; of an image, its number minus
    /// the base.
    pub index: FrameIndex,
    /// Best-effort presentation time after the container's start; `None` when the stream has none.
    pub timestamp: Option<Micros>,
    /// The same time in ticks of the stream's time base; `None` also for images.
    pub ticks: Option<i64>,
    /// Marked by the decoder as a key frame; always so for images.
    pub key: bool,
    /// Byte offset of a key frame's packet, when it is known.
    pub place: Option<i64>,
    /// The picture; `None` when it is damaged, and in a set of crops.
    pub picture: Option<Picture>,
    /// In a set of crops: the faces of the frame, without damaged ones.
    pub faces: Vec<CroppedFace>,
}

/// A face of a set of crops.
pub struct CroppedFace {
    /// The face in the original video.
    pub face: Face,
    /// Its crop.
    pub picture: Picture,
    /// The bytes of its crop, if it is JPEG.
    pub jpeg: Option<Vec<u8>>,
}

/// The message for a picture larger than the job allows.
fn too_large(width: u32, height: u32, max: u64) -> Option<String> {
    let pixels = u64::from(width) * u64::from(height);
    (pixels > max).then(|| format!("its picture of {width}×{height} has more than input.max_pixels = {max}"))
}

/// Length of a video by its header; both 0 when it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Estimated frames.
    pub frames: u64,
    /// Estimated duration in microseconds.
    pub duration_us: u64,
}

/// Reads the frames of one video.
pub struct VideoReader {
    source: Source,
    watch: seek_anchor::Watch,
}

enum Source {
    // Boxed: its state is far larger than an image list's.
    File(Box<stream::StreamReader>),
    Images(images::ImageReader),
    Crops(crops::CropReader),
}

impl VideoReader {
    fn over(source: Source) -> Self {
        Self {
            source,
            watch: seek_anchor::Watch::default(),
        }
    }

    /// Opens a video.
    ///
    /// # Errors
    /// When the file or folder cannot be read, is no video, this FFmpeg has no decoder for it, or its pictures are too
    /// large; of a folder also when a number lies below the base or occurs twice.
    pub fn open(path: &Path, kind: SourceKind, options: &DecodeOptions) -> Result<Self, DecodeError> {
        Ok(Self::over(match kind {
            SourceKind::File => Source::File(Box::new(stream::StreamReader::open(path, options)?)),
            SourceKind::Images => Source::Images(images::ImageReader::open(path, options)?),
        }))
    }

    /// Opens a video of which there are crops, in the tar file of a set of crops.
    ///
    /// # Errors
    /// When the file cannot be read, is no tar file, or has no crops of the video.
    pub fn open_crops(
        archive: &Path,
        video: &VideoKey,
        options: &DecodeOptions,
    ) -> Result<Self, DecodeError> {
        crops::CropReader::open(archive, video, options).map(|reader| Self::over(Source::Crops(reader)))
    }

    /// The next frame in presentation order, `None` at the end. Memory does not grow with the video's length,
    /// except for the list of file names of a folder.
    ///
    /// # Errors
    /// [`DecodeError::NothingDecoded`] at the end of a file that gave no frame at all; [`DecodeError::ReadInterrupted`],
    /// [`DecodeError::Memory`] or [`DecodeError::Gpu`] when the machine failed, not the video; [`DecodeError::Nvdec`] where a
    /// reader without NVDEC should [continue](Self::pass). Damage inside a video is no error: decoding
    /// continues and [`damage`](Self::damage) reports it.
    // Not an `Iterator`, because callers read the damage between frames.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        let frame = match &mut self.source {
            Source::File(reader) => reader.next(),
            Source::Images(reader) => reader.next(),
            Source::Crops(reader) => reader.next(),
        }?;
        if let Some(frame) = &frame {
            self.watch.see(frame, self.source.ordered());
        }
        Ok(frame)
    }

    /// The crop recipe of a set of crops, when it is recorded.
    pub fn recipe(&self) -> Option<&str> {
        match &self.source {
            Source::Crops(reader) => reader.recipe(),
            Source::File(_) | Source::Images(_) => None,
        }
    }

    /// Why decoding fell back to the CPU; known after the first frame.
    pub fn fallback(&self) -> Option<&str> {
        match &self.source {
            Source::File(reader) => reader.fallback(),
            Source::Images(_) | Source::Crops(_) => None,
        }
    }

    /// Whether pictures are skipped after damage, until the next key frame.
    pub fn awaiting_keyframe(&self) -> bool {
        match &self.source {
            Source::File(reader) => reader.awaiting_keyframe(),
            Source::Images(_) | Source::Crops(_) => false,
        }
    }

    /// What a file that was read to its end lacks, such as `ends at 2.680 s of 5.280 s: …`; its frame is the first missing one.
    pub fn shortfall(&self) -> Option<&Trouble> {
        match &self.source {
            Source::File(reader) => reader.shortfall(),
            Source::Images(_) | Source::Crops(_) => None,
        }
    }

    /// The first damage so far, with its position, such as `damaged at frame 1290 (51.600 s): Invalid data found when processing
    /// input`. The time is that of the previous frame.
    pub fn damage(&self) -> Option<&Trouble> {
        match &self.source {
            Source::File(reader) => reader.damage(),
            Source::Images(reader) => reader.damage(),
            Source::Crops(reader) => reader.damage(),
        }
    }
}

/// Reads the header only: the declared number of frames, else duration × rate; of a folder, the number of images.
///
/// # Errors
/// As [`VideoReader::open`].
pub fn probe(path: &Path, kind: SourceKind, options: &DecodeOptions) -> Result<Probe, DecodeError> {
    match kind {
        SourceKind::File => probe::probe(path, options),
        SourceKind::Images => images::probe(path, options),
    }
}

/// Decodes one image (JPEG, PNG, BMP, WebP) from memory; a damaged image is an error.
///
/// # Errors
/// What is wrong with it, in words.
pub fn image(bytes: &[u8], max_pixels: u64) -> Result<Picture, String> {
    native::init();
    images::decoded(bytes, max_pixels).map_err(|bad| match bad {
        images::BadImage::Unreadable(cause) => cause.to_string(),
        images::BadImage::Unfit(_, cause) => cause,
    })
}

/// Opens a video file to copy streams without decoding.
pub(super) fn open_media(path: &Path) -> Result<ffmpeg_next::format::context::Input, DecodeError> {
    container::open(path, u64::MAX).map(|container| container.input)
}

/// Start time of an opened file, in microseconds.
pub(super) fn start_of(input: &ffmpeg_next::format::context::Input) -> i64 {
    native::start_time(input)
}

/// Version of libavcodec, such as `59.37.100`.
pub fn ffmpeg_version() -> String {
    let version = ffmpeg_next::codec::version();
    format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff)
}

/// The decoder, as far as it can change a picture; part of the fingerprint. A new major version of libavcodec may decode
/// differently, and so may a GPU.
pub fn backend(nvdec: bool) -> String {
    let decoder = if nvdec { "nvdec" } else { "cpu" };
    format!("{decoder}, libavcodec {}", ffmpeg_next::codec::version() >> 16)
}

/// Whether this build of FFmpeg has a decoder of that name.
pub fn has_decoder(name: &str) -> bool {
    ffmpeg_next::decoder::find_by_name(name).is_some()
}
