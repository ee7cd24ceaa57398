//! Encodes pictures with their times to an H.264 video with the sound of another file.
//!
//! In: RGB pictures in presentation order, each with its time after the container's start. Out: a file with these pictures at
//! these times, and an unchanged copy of the source's sound. It never guesses a rate: a variable frame rate stays variable.

mod muxer;
mod onward;

use crate::decode::DecodeError;
use affectmill_base::{Micros, Size};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use ffmpeg_next::software::scaling;
use muxer::{Muxer, Sound};
use onward::Onward;
use std::path::{Path, PathBuf};

/// Quality of the video: x264's constant rate factor, 0 (lossless) to 51.
const QUALITY: &str = "20";
/// Encoder ticks per second.
const TICKS: i32 = 1_000_000;
/// Ticks by which pictures and sound may be out of order on one clock.
const DISORDER: i64 = 200_000;
/// Ticks between two pictures beyond which a clock has jumped: an hour.
const FAR: i64 = 3_600_000_000;

/// Why a video cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The encoder is missing.
    #[error("this FFmpeg has no H.264 encoder (libx264); install one that has it, such as Debian's")]
    NoEncoder,
    /// FFmpeg cannot write the format of the file's extension.
    #[error("{}: cannot be begun: {cause}; name a file that ends in .mp4, .mkv or .mov, in a folder that is there", .path.display())]
    Begin {
        /// The file.
        path: PathBuf,
        /// FFmpeg's error.
        cause: ffmpeg::Error,
    },
    /// The container does not support the codec of the source's sound.
    #[error("{}: its sound ({codec}) has no place in this container; name an output that ends in .mkv", .source_path.display())]
    Sound {
        /// The source.
        source_path: PathBuf,
        /// FFmpeg's name of the codec.
        codec: String,
    },
    /// The sound cannot be read.
    #[error(transparent)]
    Source(#[from] DecodeError),
    /// A picture of another size.
    #[error(
        "the picture at {at} µs has {found} bytes where {expected} are needed; videos whose size changes cannot be drawn on"
    )]
    Length {
        /// Its time.
        at: i64,
        /// Its bytes.
        found: usize,
        /// What it should have.
        expected: usize,
    },
    /// Writing failed.
    #[error("{}: cannot be written: {cause}; free space there and try again", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// FFmpeg's error.
        cause: ffmpeg::Error,
    },
}

/// Writes one video.
pub struct VideoWriter {
    path: PathBuf,
    size: Size,
    encoder: ffmpeg::encoder::video::Encoder,
    muxer: Muxer,
    scaler: scaling::Context,
    rgb: Video,
    /// Duration of the last picture in ticks.
    lasts: i64,
    clock: Onward,
}

/// Format of the video.
pub struct Format {
    /// Pixels of its pictures; odd ones are padded to even.
    pub size: Size,
    /// Width ÷ height of a pixel.
    pub pixel_aspect: f64,
    /// Approximate frames per second; the times are exact.
    pub rate: f64,
}

impl VideoWriter {
    /// Creates a video, with the sound of `sound` if it has any.
    ///
    /// # Errors
    /// The file cannot be made, there is no encoder, or the container has no place for the sound.
    pub fn create(path: &Path, format: &Format, sound: Option<&Path>) -> Result<Self, EncodeError> {
        let begin = |cause| EncodeError::Begin {
            path: path.to_owned(),
            cause,
        };
        let sound = sound.map(Sound::open).transpose()?.flatten();
        let codec = ffmpeg::encoder::find_by_name("libx264").ok_or(EncodeError::NoEncoder)?;
        // The prefix keeps FFmpeg from reading a protocol into the name.
        let url = path.to_str().map(|path| format!("file:{path}"));
        let url = url.ok_or_else(|| begin(ffmpeg::Error::InvalidData))?;
        let mut muxer = Muxer::create(&url, codec, sound).map_err(|error| match error {
            muxer::Refusal::Ffmpeg(cause) => begin(cause),
            muxer::Refusal::Sound { source_path, codec } => EncodeError::Sound { source_path, codec },
        })?;
        let even = |pixels: u32| pixels.next_multiple_of(2);
        let (width, height) = (even(format.size.width), even(format.size.height));
        let mut context = ffmpeg::codec::Context::new_with_codec(codec)
            .encoder()
            .video()
            .map_err(begin)?;
        context.set_width(width);
        context.set_height(height);
        context.set_format(Pixel::YUV420P);
        context.set_time_base((1, TICKS));
        context.set_frame_rate(Some(((format.rate * 1000.0).round() as i32, 1000)));
        context.set_aspect_ratio(((format.pixel_aspect * 10_000.0).round() as i32, 10_000));
        // swscale's default for RGB.
        context.set_colorspace(ffmpeg::color::Space::SMPTE170M);
        context.set_color_range(ffmpeg::color::Range::MPEG);
        if muxer.wants_global_header() {
            context.set_flags(ffmpeg::codec::Flags::GLOBAL_HEADER);
        }
        let mut options = ffmpeg::Dictionary::new();
        options.set("crf", QUALITY);
        options.set("preset", "veryfast");
        let encoder = context.open_as_with(codec, options).map_err(begin)?;
        muxer.begin(&encoder).map_err(begin)?;
        let flags = scaling::Flags::BICUBIC | scaling::Flags::ACCURATE_RND;
        let scaler = scaling::Context::get(Pixel::RGB24, width, height, Pixel::YUV420P, width, height, flags);
        Ok(Self {
            path: path.to_owned(),
            size: format.size,
            encoder,
            muxer,
            scaler: scaler.map_err(begin)?,
            rgb: Video::new(Pixel::RGB24, width, height),
            lasts: (f64::from(TICKS) / format.rate).round() as i64,
            clock: Onward::default(),
        })
    }

    /// Adds a picture, `width × height × 3` bytes of R, G, B, row by row. One that is slightly before the previous one is
    /// moved to just after it; when the clock jumps back, as where two recordings were joined, times continue from there.
    ///
    /// # Errors
    /// The picture has another size, or the file cannot be written.
    pub fn write(&mut self, rgb: &[u8], at: Micros) -> Result<(), EncodeError> {
        let row = self.size.width as usize * 3;
        let expected = row * self.size.height as usize;
        if rgb.len() != expected {
            return Err(EncodeError::Length {
                at: at.0,
                found: rgb.len(),
                expected,
            });
        }
        let stride = self.rgb.stride(0);
        for (to, from) in self.rgb.data_mut(0).chunks_mut(stride).zip(rgb.chunks_exact(row)) {
            to[..row].copy_from_slice(from);
        }
        let pts = self.clock.at(at.0, self.lasts, (DISORDER, FAR));
        let mut frame = Video::empty();
        let path = self.path.clone();
        let failed = |cause| EncodeError::Write { path, cause };
        self.scaler
            .run(&self.rgb, &mut frame)
            .and_then(|()| {
                frame.set_pts(Some(pts));
                self.encoder.send_frame(&frame)
            })
            .and_then(|()| self.drain())
            .map_err(failed)
    }

    /// Finishes the video: drains the encoder and writes the rest of the sound.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> Result<(), EncodeError> {
        let ended = self
            .encoder
            .send_eof()
            .and_then(|()| self.drain())
            .and_then(|()| self.muxer.finish());
        ended.map_err(|cause| EncodeError::Write {
            path: self.path,
            cause,
        })
    }

    fn drain(&mut self) -> Result<(), ffmpeg::Error> {
        let mut packet = ffmpeg::Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {
                    packet.set_duration(self.lasts);
                    self.muxer.picture(&mut packet, (1, TICKS).into())?;
                }
                Err(ffmpeg::Error::Eof | ffmpeg::Error::Other { errno: libc::EAGAIN }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
