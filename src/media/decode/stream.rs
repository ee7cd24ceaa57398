//! Frames of one video file, in presentation order.
//!
//! The order of calls is that of ffprobe and ffmpeg, so that frame counts agree with theirs: a packet the decoder
//! rejects is skipped, a read error ends the stream, and frames buffered by the decoder are drained at
//! the end.

mod ending;

use super::decoder::{Decoder, is_damaged};
use super::elsewhere::{Elsewhere, Move};
use super::error::DecodeError;
use super::order::Order;
use super::picture::NoPicture;
use super::promise::Promise;
use super::recovery::Recovery;
use super::seek_anchor::Clock;
use super::{DecodeOptions, DecodedFrame, cuda, native, picture, too_large};
use crate::decode::container;
use crate::decode::container::{Container, orientation, time_base};
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{FrameIndex, Micros, Orientation, TimeBase};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;
use std::path::{Path, PathBuf};

/// Maximum errors of a decoder while it is drained.
const MAX_DRAIN_ERRORS: u32 = 64;

/// Reader of one file.
pub(super) struct StreamReader {
    path: PathBuf,
    options: DecodeOptions,
    input: Input,
    stream: usize,
    decoder: Decoder,
    promise: Promise,
    elsewhere: Elsewhere,
    recovery: Option<Recovery>,
    order: Order,
    /// Encryption scheme of skipped packets.
    encrypted: Option<String>,
    time_base: TimeBase,
    start: i64,
    orientation: Orientation,
    aspect: ffmpeg::Rational,
    /// After damage, until the next key frame or recovery point.
    awaiting_keyframe: bool,
    next_index: u64,
    clock: Clock,
    last_time: Option<Micros>,
    phase: Phase,
    damage: Option<Trouble>,
    /// What the file lacks at its end.
    shortfall: Option<Trouble>,
}

enum Phase {
    /// With a move, only packets of the previous stream that the demuxer still buffers.
    Reading(Option<Move>),
    /// The input has ended, perhaps with an error, which is reported after the frames before it; or the video moved.
    Draining {
        read_error: Option<ffmpeg::Error>,
        errors: u32,
        next: Option<Move>,
    },
    Ended,
}

impl StreamReader {
    pub(super) fn open(path: &Path, options: &DecodeOptions) -> Result<Self, DecodeError> {
        let container = container::open(path, options.max_pixels)?;
        let promise = Promise::of(path, &container);
        let Container {
            mut input, stream, ..
        } = container;
        // In a broadcast, the video may move to another stream.
        let broadcast = input.format().name() == "mpegts";
        native::discard(&mut input, |other| {
            let video = other.parameters().medium() == ffmpeg::media::Type::Video;
            other.index() != stream && !(broadcast && video)
        });
        let missing = || DecodeError::NoVideo {
            path: path.to_owned(),
        };
        let own = input.stream(stream).ok_or_else(missing)?;
        Ok(Self {
            path: path.to_owned(),
            options: *options,
            stream,
            decoder: Decoder::open(path, &own, true, options)?,
            promise,
            elsewhere: Elsewhere::default(),
            recovery: Recovery::of(&own),
            order: Order::default(),
            encrypted: None,
            time_base: time_base(&own),
            start: native::start_time(&input),
            aspect: native::container_aspect(&own),
            orientation: orientation(&own),
            awaiting_keyframe: false,
            next_index: 0,
            clock: Clock::default(),
            last_time: None,
            phase: Phase::Reading(None),
            damage: None,
            shortfall: None,
            input,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        while !self.order.is_ready() && self.step()? {}
        let frame = self.order.pop();
        if frame.is_some() || self.next_index > 0 {
            return Ok(frame);
        }
        if let Some(scheme) = self.encrypted.clone() {
            return Err(DecodeError::Encrypted {
                path: self.path.clone(),
                scheme,
            });
        }
        let (class, cause) = match self.damage.as_ref().or(self.shortfall.as_ref()) {
            Some(damage) => (damage.class, damage.error.clone()),
            None => (ErrorClass::Corrupt, "the video stream is empty".into()),
        };
        Err(DecodeError::NothingDecoded {
            path: self.path.clone(),
            cause,
            class,
        })
    }

    /// Processes the decoder's next frame; `false` at the end.
    fn step(&mut self) -> Result<bool, DecodeError> {
        while !matches!(self.phase, Phase::Ended) {
            let mut frame = Video::empty();
            match self.decoder.codec.receive_frame(&mut frame) {
                Ok(()) if self.next_index == self.options.max_frames => {
                    let cause = format!(
                        "there are more frames than input.max_frames = {}",
                        self.options.max_frames
                    );
                    self.note(ErrorClass::Unsupported, &cause);
                    self.phase = Phase::Ended;
                }
                Ok(()) if cuda::on_gpu(&frame) && (cuda::is_empty(&frame) || is_damaged(&frame)) => {
                    return Err(self.nvdec_failed("it could not restore the whole picture".into()));
                }
                Ok(()) => {
                    self.take(frame)?;
                    return Ok(true);
                }
                Err(ffmpeg::Error::Other { errno: libc::EAGAIN }) => self.feed()?,
                Err(ffmpeg::Error::Eof) => self.end()?,
                Err(error) => {
                    self.decoder_error(error)?;
                    if let Phase::Draining { errors, .. } = &mut self.phase {
                        *errors += 1;
                        if *errors > MAX_DRAIN_ERRORS {
                            self.end()?;
                        }
                    }
                }
            }
        }
        Ok(false)
    }

    /// The index of the next frame returned.
    fn at(&self) -> FrameIndex {
        FrameIndex(self.next_index - self.order.len())
    }

    /// Whether no time so far was guessed.
    pub(super) fn ordered(&self) -> bool {
        self.clock.ordered()
    }

    /// Seeks to a key frame at or before a time, as far as the container knows; `false` on failure.
    pub(super) fn seek(&mut self, ticks: i64) -> bool {
        let done = native::seek(&mut self.input, self.stream, ticks);
        self.decoder.codec.flush();
        self.promise.seek();
        self.order = Order::default();
        self.phase = Phase::Reading(None);
        done
    }

    /// Sets the index of the frame returned last, and clears damage met before it.
    pub(super) fn set_position(&mut self, frame: FrameIndex) {
        self.next_index = frame.0 + 1 + self.order.len();
        self.order.renumber(frame.0 + 1);
        self.damage = None;
        self.awaiting_keyframe = false;
        self.encrypted = None;
    }

    /// Why decoding fell back to the CPU; `None` before the first frame.
    pub(super) fn fallback(&self) -> Option<&str> {
        self.decoder.fallback.as_deref()
    }

    /// Records the fallback when the GPU rejects the stream's content and FFmpeg continues without it.
    fn note_fallback(&mut self, frame: &Video) {
        if self.asks_gpu() && !cuda::on_gpu(frame) {
            let (codec, format, from) = (self.decoder.codec.id().name(), frame.format(), self.next_index);
            let (width, height) = (frame.width(), frame.height());
            self.decoder.fallback = Some(format!(
                "NVDEC did not take {codec} of {format:?}, {width}×{height}, from frame {from} on: this GPU does not decode it, or had no \
                 memory left for it"
            ));
        }
    }

    fn asks_gpu(&self) -> bool {
        self.decoder.gpu.is_some() && self.decoder.fallback.is_none()
    }

    pub(super) fn damage(&self) -> Option<&Trouble> {
        self.damage.as_ref()
    }

    /// Whether pictures are skipped after damage.
    pub(super) fn awaiting_keyframe(&self) -> bool {
        self.awaiting_keyframe
    }

    /// What a file that was read to its end lacks.
    pub(super) fn shortfall(&self) -> Option<&Trouble> {
        self.shortfall.as_ref()
    }

    /// The decoder decoder_error something: damage, unless it only wants memory. What NVDEC refuses, the CPU shall judge.
    fn decoder_error(&mut self, error: ffmpeg::Error) -> Result<(), DecodeError> {
        match error {
            error if self.asks_gpu() => Err(self.nvdec_failed(error.to_string())),
            ffmpeg::Error::Other { errno: libc::ENOMEM } => Err(self.out_of_memory()),
            error => {
                self.decoder.complaint.take();
                self.lose();
                self.note(ErrorClass::Corrupt, &error.to_string());
                Ok(())
            }
        }
    }

    /// Errors of NVDEC, of its GPU and of the video have the same few codes, and later frames may be lost or repeated without an
    /// error.
    fn nvdec_failed(&self, cause: String) -> DecodeError {
        match self.decoder.gpu.map(cuda::is_responsive) {
            Some(Err(cause)) => self.gpu_failed(cause),
            _ => DecodeError::Nvdec {
                path: self.path.clone(),
                frame: self.at(),
                cause,
            },
        }
    }

    fn gpu_failed(&self, cause: String) -> DecodeError {
        DecodeError::Gpu {
            path: self.path.clone(),
            frame: self.at(),
            cause,
        }
    }

    fn out_of_memory(&self) -> DecodeError {
        DecodeError::Memory {
            path: self.path.clone(),
            frame: self.at(),
        }
    }

    /// Sends the decoder its next packet, or the end.
    fn feed(&mut self) -> Result<(), DecodeError> {
        loop {
            let mut packet = ffmpeg::Packet::empty();
            let moved = match self.phase {
                Phase::Reading(moved) => moved,
                Phase::Draining { .. } | Phase::Ended => None,
            };
            let read_error = match packet.read(&mut self.input) {
                Ok(()) if packet.stream() != self.stream => {
                    if moved.is_none()
                        && let Some(moved) = self.elsewhere.other(&self.input, self.stream, &packet)
                    {
                        self.phase = Phase::Reading(Some(moved));
                    }
                    continue;
                }
                // The last packets of a stream come only when it begins anew, or at the end of the file.
                Ok(()) if moved.is_some_and(|moved| packet.position() >= moved.place) => {
                    return self.drain(None, moved);
                }
                Ok(()) if self.skips(&packet) => continue,
                Ok(()) => return self.send(&packet),
                Err(ffmpeg::Error::Eof) => None,
                Err(ffmpeg::Error::Other { errno: libc::ENOMEM }) => return Err(self.out_of_memory()),
                Err(error) => Some(error),
            };
            if let Some(cause) = native::read_error(&self.input) {
                return Err(DecodeError::ReadInterrupted {
                    path: self.path.clone(),
                    frame: self.at(),
                    cause,
                });
            }
            return self.drain(read_error.filter(|_| moved.is_none()), moved);
        }
    }

    /// Counts a packet of the stream; `true` when it is encrypted and must be skipped.
    fn skips(&mut self, packet: &ffmpeg::Packet) -> bool {
        self.promise.see(packet);
        self.elsewhere.own(&self.input, self.stream, packet);
        let Some(scheme) = native::encryption(packet) else {
            return false;
        };
        self.lose();
        self.note(
            ErrorClass::Unsupported,
            &format!("from here on it is encrypted ({scheme}); decrypt it with its key"),
        );
        self.encrypted.get_or_insert(scheme);
        true
    }

    fn send(&mut self, packet: &ffmpeg::Packet) -> Result<(), DecodeError> {
        self.order.see(packet);
        if let Some(recovery) = &mut self.recovery {
            recovery.see(packet);
        }
        match self.decoder.codec.send_packet(packet) {
            Ok(()) | Err(ffmpeg::Error::Eof) => Ok(()),
            Err(error) => self.decoder_error(error),
        }
    }

    /// Drains the frames buffered by the decoder.
    fn drain(&mut self, read_error: Option<ffmpeg::Error>, next: Option<Move>) -> Result<(), DecodeError> {
        self.phase = Phase::Draining {
            read_error,
            errors: 0,
            next,
        };
        // An error here belongs to a packet sent earlier, from a decoder thread.
        match self.decoder.codec.send_eof() {
            Ok(()) | Err(ffmpeg::Error::Eof) => Ok(()),
            Err(error) => self.decoder_error(error),
        }
    }

    /// Converts a decoder frame and buffers it.
    fn take(&mut self, frame: Video) -> Result<(), DecodeError> {
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
        // Where frames set_position on their own, decoders make up for the end of a packet and do not say so.
        let packet = self.order.packet_of(&frame);
        let truncated = !self.decoder.predicts && packet.as_ref().is_some_and(|packet| packet.truncated);
        let damaged = self.decoder.complaint.take() || is_damaged(&frame) || truncated;
        let place = packet.as_ref().and_then(|packet| packet.place).filter(|_| key);
        let kind = frame.kind();
        let recovered = |recovery: &Recovery| recovery.reached(frame.pts());
        if damaged {
            self.lose();
            if let Some(first) = self.order.discard_damaged(packet.as_ref()) {
                let (frame, time) = (first.index, first.timestamp);
                self.note_at(
                    frame,
                    time,
                    ErrorClass::Corrupt,
                    "it may lean on a damaged picture",
                );
            }
        } else if key || self.recovery.as_ref().is_some_and(recovered) {
            self.awaiting_keyframe = false;
        }
        let max_pixels = self.options.max_pixels;
        let picture = if damaged || self.awaiting_keyframe {
            let cause = if damaged {
                "the decoder could not restore the whole picture"
            } else {
                "it is predicted from damaged pictures"
            };
            Err((ErrorClass::Corrupt, cause.to_owned()))
        } else if let Some(cause) = too_large(frame.width(), frame.height(), max_pixels) {
            Err((ErrorClass::Unsupported, cause))
        } else {
            match picture::Picture::new(frame, self.orientation, self.aspect, self.decoder.gpu) {
                Ok(picture) => Ok(picture),
                Err(NoPicture::Unfit(cause)) => Err((ErrorClass::Unsupported, cause)),
                Err(NoPicture::Gpu(cause)) => return Err(self.gpu_failed(cause)),
            }
        };
        let picture = picture
            .inspect_err(|(class, cause)| self.note(*class, cause))
            .ok();
        self.next_index += 1;
        let frame = DecodedFrame {
            index,
            timestamp,
            ticks,
            key,
            place,
            picture,
            faces: Vec::new(),
        };
        self.order.push(frame, packet.as_ref(), kind);
        Ok(())
    }

    /// Handles the end of the decoder's frames.
    fn end(&mut self) -> Result<(), DecodeError> {
        self.order.end();
        if let Phase::Draining { read_error, next, .. } = std::mem::replace(&mut self.phase, Phase::Ended) {
            if let Some(next) = next {
                return self.follow(next);
            }
            if let Some(error) = read_error {
                self.note(ErrorClass::Corrupt, &format!("cannot read on: {error}"));
            }
            self.shortfall = self.find_shortfall();
        }
        Ok(())
    }

    /// Handles lost data. Pictures predicted from it are damaged too, although the decoder does not report it: no picture is valid
    /// until the next key frame or recovery point.
    fn lose(&mut self) {
        self.awaiting_keyframe |= self.decoder.predicts;
        if let Some(recovery) = &mut self.recovery {
            recovery.forget();
        }
    }

    /// Records the first damage, with the position of the next frame.
    fn note(&mut self, class: ErrorClass, cause: &str) {
        self.note_at(FrameIndex(self.next_index), self.last_time, class, cause);
    }

    fn note_at(&mut self, frame: FrameIndex, time: Option<Micros>, class: ErrorClass, cause: &str) {
        let time = time.map_or(0, |time| time.0) as f64 / 1e6;
        let what = match class {
            ErrorClass::Unsupported => "left out",
            _ => "damaged",
        };
        self.damage.get_or_insert_with(|| Trouble {
            error: format!("{what} at frame {frame} ({time:.3} s): {cause}"),
            class,
            frame: Some(frame),
        });
    }
}
