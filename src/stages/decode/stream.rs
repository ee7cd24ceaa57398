//! Frames of one video file, in presentation order.
//!
//! The order of calls is that of ffprobe and ffmpeg, so that frame counts agree with theirs: a packet the decoder
//! refuses is passed over, a read error ends the stream, and frames held back by the decoder are drawn out at
//! the end.

use super::error::DecodeError;
use super::foothold::Clock;
use super::picture::NoPicture;
use super::{DecodeOptions, DecodedFrame, container, cuda, native, picture, too_large};
use crate::dataset::{ErrorClass, Trouble};
use crate::domain::{FrameIndex, Micros, Orientation, TimeBase};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::threading;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;
use std::path::{Path, PathBuf};

/// Codecs whose decoders put the picture before in a damaged slice's place, and say so nowhere but in the log: FFV1, which has
/// checksums. They give each packet's frame at once, so that what is said is said of that frame; and from one key frame to the
/// next a damaged slice stays as it is.
const MENDS_UNSEEN: [ffmpeg::codec::Id; 1] = [ffmpeg::codec::Id::FFV1];

/// A decoder that keeps failing while it is drained is given up after so many errors.
const MAX_DRAIN_ERRORS: u32 = 64;

/// Reader of one file.
pub(super) struct StreamReader {
    path: PathBuf,
    input: Input,
    stream: usize,
    decoder: ffmpeg::decoder::Video,
    time_base: TimeBase,
    start: i64,
    orientation: Orientation,
    aspect: ffmpeg::Rational,
    max_pixels: u64,
    max_frames: u64,
    /// Dropped after the decoder, which may speak while it goes.
    complaint: native::Complaint,
    /// The GPU that was asked to decode.
    gpu: Option<usize>,
    /// Why the CPU decodes though the GPU was to.
    fallback: Option<String>,
    /// Frames are predicted from one another.
    predicts: bool,
    /// Something before was damaged, and no frame came since that stands on its own.
    adrift: bool,
    next_index: u64,
    clock: Clock,
    last_time: Option<Micros>,
    phase: Phase,
    damage: Option<Trouble>,
}

enum Phase {
    Reading,
    /// The input has ended, with an error that is reported once the frames before it are out.
    Draining {
        read_error: Option<ffmpeg::Error>,
        errors: u32,
    },
    Ended,
}

pub(super) fn no_decoder(path: &Path, codec: ffmpeg::codec::Id, error: ffmpeg::Error) -> DecodeError {
    let codec = if codec == ffmpeg::codec::Id::None {
        "unknown"
    } else {
        codec.name()
    };
    DecodeError::NoDecoder {
        path: path.to_owned(),
        codec: codec.to_owned(),
        cause: error.to_string(),
    }
}

impl StreamReader {
    pub(super) fn open(path: &Path, options: &DecodeOptions) -> Result<Self, DecodeError> {
        let (mut input, index) = container::open(path, options.max_pixels)?;
        native::discard_others(&mut input, index);
        let stream = input.stream(index).ok_or_else(|| DecodeError::NoVideo {
            path: path.to_owned(),
        })?;
        let parameters = stream.parameters();
        let codec = parameters.id();
        let mut context = ffmpeg::codec::Context::from_parameters(parameters)
            .map_err(|error| no_decoder(path, codec, error))?;
        native::limit_pixels(&mut context, options.max_pixels);
        let complaint = native::Complaint::default();
        let mends_unseen = MENDS_UNSEEN.contains(&codec);
        if mends_unseen {
            native::listen(&mut context, &complaint);
        }
        // Where frames lean on one another, libavcodec fills in for lost ones from what its threads have at hand,
        // and does not always tell. Frames must not depend on the number of threads.
        let predicts = !native::intra_only(codec) || mends_unseen;
        let (gpu, fallback) = match options.nvdec.map(|gpu| cuda::ask(&mut context, gpu)) {
            None => (None, None),
            Some(asked) => (asked.is_ok().then_some(options.nvdec).flatten(), asked.err()),
        };
        context.set_threading(threading::Config {
            kind: if mends_unseen {
                threading::Type::Slice
            } else {
                threading::Type::Frame
            },
            count: if (predicts && !mends_unseen) || gpu.is_some() {
                1
            } else {
                options.threads
            },
            ..Default::default()
        });
        context.set_frame_rate(Some(stream.avg_frame_rate()));
        let mut decoder = context.decoder();
        decoder.set_packet_time_base(stream.time_base());
        let decoder = decoder.video().map_err(|error| no_decoder(path, codec, error))?;
        refuse_too_large(path, decoder.width(), decoder.height(), options.max_pixels)?;
        Ok(Self {
            path: path.to_owned(),
            max_pixels: options.max_pixels,
            max_frames: options.max_frames,
            stream: index,
            decoder,
            time_base: time_base(&stream),
            start: native::start_time(&input),
            aspect: native::container_aspect(&stream),
            orientation: native::display_matrix(&stream)
                .map(picture::orientation_of)
                .unwrap_or_default(),
            gpu,
            fallback,
            predicts,
            complaint,
            adrift: false,
            next_index: 0,
            clock: Clock::default(),
            last_time: None,
            phase: Phase::Reading,
            damage: None,
            input,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        let frame = self.step()?;
        if frame.is_some() || self.next_index > 0 {
            return Ok(frame);
        }
        let (class, cause) = match &self.damage {
            Some(damage) => (damage.class, damage.error.clone()),
            None => (ErrorClass::Corrupt, "the video stream is empty".into()),
        };
        Err(DecodeError::NothingDecoded {
            path: self.path.clone(),
            cause,
            class,
        })
    }

    /// The decoder's next frame, `None` at the end.
    fn step(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        while !matches!(self.phase, Phase::Ended) {
            let mut frame = Video::empty();
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) if self.next_index == self.max_frames => {
                    let cause = format!(
                        "there are more frames than input.max_frames = {}",
                        self.max_frames
                    );
                    self.note(ErrorClass::Unsupported, &cause);
                    self.phase = Phase::Ended;
                }
                Ok(()) if cuda::is_there(&frame) && (cuda::is_empty(&frame) || is_damaged(&frame)) => {
                    return Err(self.nvdec_failed("it could not restore the whole picture".into()));
                }
                Ok(()) => return self.take(frame).map(Some),
                Err(ffmpeg::Error::Other { errno: libc::EAGAIN }) => self.feed()?,
                Err(ffmpeg::Error::Eof) => self.end(),
                Err(error) => {
                    self.refused(error)?;
                    if let Phase::Draining { errors, .. } = &mut self.phase {
                        *errors += 1;
                        if *errors > MAX_DRAIN_ERRORS {
                            self.end();
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// Whether every time so far was told, none guessed.
    pub(super) fn ordered(&self) -> bool {
        self.clock.ordered()
    }

    /// Goes to a key frame at or before a time, as far as the container knows; `false` when it cannot.
    pub(super) fn seek(&mut self, ticks: i64) -> bool {
        let done = native::seek(&mut self.input, self.stream, ticks);
        self.decoder.flush();
        self.phase = Phase::Reading;
        done
    }

    /// The frame that was returned last is this one; what was met before it, on the way from some other place, does not count.
    pub(super) fn stand(&mut self, frame: FrameIndex) {
        self.next_index = frame.0 + 1;
        self.damage = None;
        self.adrift = false;
    }

    /// Why the CPU decodes though the GPU was to; nothing before the first frame.
    pub(super) fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The GPU may also refuse once it knows what the stream holds: then FFmpeg goes on without it.
    fn note_fallback(&mut self, frame: &Video) {
        if self.gpu.is_some() && self.fallback.is_none() && !cuda::is_there(frame) {
            let (codec, format, from) = (self.decoder.id().name(), frame.format(), self.next_index);
            let (width, height) = (frame.width(), frame.height());
            self.fallback = Some(format!(
                "NVDEC did not take {codec} of {format:?}, {width}×{height}, from frame {from} on: this GPU does not decode it, or had no \
                 memory left for it"
            ));
        }
    }

    pub(super) fn damage(&self) -> Option<&Trouble> {
        self.damage.as_ref()
    }

    /// The decoder refused something: damage, unless it only wants memory. What NVDEC refuses, the CPU shall judge.
    fn refused(&mut self, error: ffmpeg::Error) -> Result<(), DecodeError> {
        match error {
            error if self.gpu.is_some() && self.fallback.is_none() => {
                Err(self.nvdec_failed(error.to_string()))
            }
            ffmpeg::Error::Other { errno: libc::ENOMEM } => Err(self.starved()),
            error => {
                self.complaint.take();
                self.note(ErrorClass::Corrupt, &error.to_string());
                Ok(())
            }
        }
    }

    /// The troubles of NVDEC, of its GPU and of the video come as the same few errors, and after them frames may be lost, or old
    /// ones shown, as if nothing had happened.
    fn nvdec_failed(&self, cause: String) -> DecodeError {
        match self.gpu.map(cuda::answers) {
            Some(Err(cause)) => self.gpu_failed(cause),
            _ => DecodeError::Nvdec {
                path: self.path.clone(),
                frame: FrameIndex(self.next_index),
                cause,
            },
        }
    }

    fn gpu_failed(&self, cause: String) -> DecodeError {
        DecodeError::Gpu {
            path: self.path.clone(),
            frame: FrameIndex(self.next_index),
            cause,
        }
    }

    fn starved(&self) -> DecodeError {
        DecodeError::Memory {
            path: self.path.clone(),
            frame: FrameIndex(self.next_index),
        }
    }

    /// Gives the decoder its next packet, or word of the end.
    fn feed(&mut self) -> Result<(), DecodeError> {
        loop {
            let mut packet = ffmpeg::Packet::empty();
            let read_error = match packet.read(&mut self.input) {
                Ok(()) if packet.stream() != self.stream => continue,
                Ok(()) => {
                    match self.decoder.send_packet(&packet) {
                        Ok(()) | Err(ffmpeg::Error::Eof) => {}
                        Err(error) => self.refused(error)?,
                    }
                    return Ok(());
                }
                Err(ffmpeg::Error::Eof) => None,
                Err(ffmpeg::Error::Other { errno: libc::ENOMEM }) => return Err(self.starved()),
                Err(error) => Some(error),
            };
            if let Some(cause) = native::read_error(&self.input) {
                return Err(DecodeError::BrokeOff {
                    path: self.path.clone(),
                    frame: FrameIndex(self.next_index),
                    cause,
                });
            }
            self.phase = Phase::Draining {
                read_error,
                errors: 0,
            };
            // An error here is that of a packet sent earlier, met by a decoder thread.
            match self.decoder.send_eof() {
                Ok(()) | Err(ffmpeg::Error::Eof) => {}
                Err(error) => self.refused(error)?,
            }
            return Ok(());
        }
    }

    /// Turns a frame of the decoder's into one of ours.
    fn take(&mut self, frame: Video) -> Result<DecodedFrame, DecodeError> {
        self.note_fallback(&frame);
        let index = FrameIndex(self.next_index);
        let ticks = frame.timestamp();
        let dts = frame.packet().dts;
        self.clock.read(
            frame.pts(),
            Some(dts).filter(|dts| *dts != ffmpeg::ffi::AV_NOPTS_VALUE),
        );
        let timestamp = ticks.and_then(|ticks| self.time_base.micros(ticks));
        let timestamp = timestamp
            .and_then(|time| time.0.checked_sub(self.start))
            .map(Micros);
        self.last_time = timestamp.or(self.last_time);
        let key = frame.is_key();
        let damaged = self.complaint.take() || is_damaged(&frame);
        if key && !damaged {
            self.adrift = false;
        }
        let picture = if damaged || self.adrift {
            let cause = if damaged {
                "the decoder could not restore the whole picture"
            } else {
                "it is predicted from damaged pictures"
            };
            Err((ErrorClass::Corrupt, cause.to_owned()))
        } else if let Some(cause) = too_large(frame.width(), frame.height(), self.max_pixels) {
            Err((ErrorClass::Unsupported, cause))
        } else {
            match picture::Picture::new(frame, self.orientation, self.aspect, self.gpu) {
                Ok(picture) => Ok(picture),
                Err(NoPicture::Unfit(cause)) => Err((ErrorClass::Unsupported, cause)),
                Err(NoPicture::Gpu(cause)) => return Err(self.gpu_failed(cause)),
            }
        };
        let picture = picture
            .inspect_err(|(class, cause)| self.note(*class, cause))
            .ok();
        self.next_index += 1;
        Ok(DecodedFrame {
            index,
            timestamp,
            ticks,
            key,
            picture,
            faces: Vec::new(),
        })
    }

    fn end(&mut self) {
        if let Phase::Draining {
            read_error: Some(error),
            ..
        } = std::mem::replace(&mut self.phase, Phase::Ended)
        {
            self.note(ErrorClass::Corrupt, &format!("cannot read on: {error}"));
        }
    }

    /// Keeps the first damage, with the position of the next frame. What is predicted from damaged pictures is damaged too,
    /// though the decoder does not say so: up to the next key frame no picture is to be trusted.
    fn note(&mut self, class: ErrorClass, cause: &str) {
        self.adrift |= self.predicts && class == ErrorClass::Corrupt;
        if self.damage.is_none() {
            let time = self.last_time.map_or(0, |time| time.0) as f64 / 1e6;
            let what = match class {
                ErrorClass::Unsupported => "left out",
                _ => "damaged",
            };
            self.damage = Some(Trouble {
                error: format!("{what} at frame {} ({time:.3} s): {cause}", self.next_index),
                class,
                frame: Some(FrameIndex(self.next_index)),
            });
        }
    }
}

/// Whether the decoder says so.
fn is_damaged(frame: &Video) -> bool {
    frame.is_corrupt() || frame.has_decode_errors()
}

pub(super) fn refuse_too_large(path: &Path, width: u32, height: u32, max: u64) -> Result<(), DecodeError> {
    match too_large(width, height, max) {
        None => Ok(()),
        Some(_) => Err(DecodeError::TooLarge {
            path: path.to_owned(),
            width,
            height,
            max,
        }),
    }
}

pub(super) fn time_base(stream: &ffmpeg::Stream) -> TimeBase {
    let base = stream.time_base();
    TimeBase {
        num: base.numerator(),
        den: base.denominator(),
    }
}
