//! Frames of one video file, in presentation order.
//!
//! The order of calls is that of ffprobe and ffmpeg, so that frame counts agree with theirs: a packet the decoder
//! refuses is passed over, a read error ends the stream, and frames held back by the decoder are drawn out at
//! the end.

use super::error::DecodeError;
use super::{DecodedFrame, Probe, native, picture};
use crate::domain::{FrameIndex, Micros, Orientation, TimeBase};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::threading;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::format::stream::Disposition;
use ffmpeg_next::frame::Video;
use std::path::{Path, PathBuf};

/// Formats that draw in other files, and text that FFmpeg would show as a picture.
const INDIRECT: [&str; 8] = [
    "hls",
    "concat",
    "dash",
    "imf",
    "sdp",
    "rtsp",
    "webm_dash_manifest",
    "tty",
];

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
    next_index: u64,
    last_time: Option<Micros>,
    phase: Phase,
    damage: Option<String>,
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

/// Opens the container and finds the video stream.
fn open_container(path: &Path) -> Result<(Input, usize), DecodeError> {
    native::init();
    let open = |cause: String| DecodeError::Open {
        path: path.to_owned(),
        cause,
    };
    let metadata = std::fs::metadata(path).map_err(|error| open(error.to_string()))?;
    if metadata.is_dir() {
        return Err(open("it is a folder".into()));
    }
    if !metadata.is_file() {
        return Err(open("it is no regular file".into()));
    }
    if metadata.len() == 0 {
        return Err(open("it is empty (0 bytes)".into()));
    }
    let input = native::open_input(path).map_err(|error| open(error.to_string()))?;
    let format = input.format().name().to_owned();
    if format.split(',').any(|name| INDIRECT.contains(&name)) {
        return Err(DecodeError::Indirect {
            path: path.to_owned(),
            format,
        });
    }
    let stream = best_stream(&input).ok_or_else(|| DecodeError::NoVideo {
        path: path.to_owned(),
    })?;
    Ok((input, stream))
}

fn no_decoder(path: &Path, codec: ffmpeg::codec::Id, error: ffmpeg::Error) -> DecodeError {
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

/// FFmpeg's choice, but never a cover picture.
fn best_stream(input: &Input) -> Option<usize> {
    let moving = |stream: &ffmpeg::Stream| {
        stream.parameters().medium() == ffmpeg::media::Type::Video
            && !stream.disposition().contains(Disposition::ATTACHED_PIC)
    };
    let best = input.streams().best(ffmpeg::media::Type::Video).filter(moving);
    best.or_else(|| input.streams().find(moving))
        .map(|stream| stream.index())
}

impl StreamReader {
    pub(super) fn open(path: &Path, threads: usize) -> Result<Self, DecodeError> {
        let (mut input, index) = open_container(path)?;
        native::discard_others(&mut input, index);
        let stream = input.stream(index).ok_or_else(|| DecodeError::NoVideo {
            path: path.to_owned(),
        })?;
        let parameters = stream.parameters();
        let codec = parameters.id();
        let mut context = ffmpeg::codec::Context::from_parameters(parameters)
            .map_err(|error| no_decoder(path, codec, error))?;
        // Where frames lean on one another, libavcodec fills in for lost ones from what its threads have at hand,
        // and does not always tell. Frames must not depend on the number of threads.
        context.set_threading(threading::Config {
            kind: threading::Type::Frame,
            count: if native::intra_only(codec) { threads } else { 1 },
            ..Default::default()
        });
        context.set_frame_rate(Some(stream.avg_frame_rate()));
        let mut decoder = context.decoder();
        decoder.set_packet_time_base(stream.time_base());
        let decoder = decoder.video().map_err(|error| no_decoder(path, codec, error))?;
        Ok(Self {
            path: path.to_owned(),
            stream: index,
            decoder,
            time_base: time_base(&stream),
            start: native::start_time(&input),
            aspect: native::container_aspect(&stream),
            orientation: native::display_matrix(&stream)
                .map(picture::orientation_of)
                .unwrap_or_default(),
            next_index: 0,
            last_time: None,
            phase: Phase::Reading,
            damage: None,
            input,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<DecodedFrame>, DecodeError> {
        let frame = self.step();
        if frame.is_some() || self.next_index > 0 {
            return Ok(frame);
        }
        let cause = self
            .damage
            .clone()
            .unwrap_or_else(|| "the video stream is empty".into());
        Err(DecodeError::NothingDecoded {
            path: self.path.clone(),
            cause,
        })
    }

    /// The decoder's next frame, `None` at the end.
    fn step(&mut self) -> Option<DecodedFrame> {
        while !matches!(self.phase, Phase::Ended) {
            let mut frame = Video::empty();
            match self.decoder.receive_frame(&mut frame) {
                Ok(()) => return Some(self.take(frame)),
                Err(ffmpeg::Error::Other { errno: libc::EAGAIN }) => self.feed(),
                Err(ffmpeg::Error::Eof) => self.end(),
                Err(error) => {
                    self.note(&error.to_string());
                    if let Phase::Draining { errors, .. } = &mut self.phase {
                        *errors += 1;
                        if *errors > MAX_DRAIN_ERRORS {
                            self.end();
                        }
                    }
                }
            }
        }
        None
    }

    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Gives the decoder its next packet, or word of the end.
    fn feed(&mut self) {
        loop {
            let mut packet = ffmpeg::Packet::empty();
            let read_error = match packet.read(&mut self.input) {
                Ok(()) if packet.stream() != self.stream => continue,
                Ok(()) => {
                    match self.decoder.send_packet(&packet) {
                        Ok(()) | Err(ffmpeg::Error::Eof) => {}
                        Err(error) => self.note(&error.to_string()),
                    }
                    return;
                }
                Err(ffmpeg::Error::Eof) => None,
                Err(error) => Some(error),
            };
            self.phase = Phase::Draining {
                read_error,
                errors: 0,
            };
            // An error here is that of a packet sent earlier, met by a decoder thread.
            match self.decoder.send_eof() {
                Ok(()) | Err(ffmpeg::Error::Eof) => {}
                Err(error) => self.note(&error.to_string()),
            }
            return;
        }
    }

    /// Turns a frame of the decoder's into one of ours.
    fn take(&mut self, frame: Video) -> DecodedFrame {
        let index = FrameIndex(self.next_index);
        let timestamp = frame.timestamp().and_then(|ticks| self.time_base.micros(ticks));
        let timestamp = timestamp
            .and_then(|time| time.0.checked_sub(self.start))
            .map(Micros);
        self.last_time = timestamp.or(self.last_time);
        let key = frame.is_key();
        let damaged = frame.is_corrupt() || frame.has_decode_errors();
        let picture = if damaged {
            Err("the decoder could not restore the whole picture".to_owned())
        } else {
            picture::Picture::new(frame, self.orientation, self.aspect)
        };
        let picture = picture.inspect_err(|cause| self.note(cause)).ok();
        self.next_index += 1;
        DecodedFrame {
            index,
            timestamp,
            key,
            picture,
        }
    }

    fn end(&mut self) {
        if let Phase::Draining {
            read_error: Some(error),
            ..
        } = std::mem::replace(&mut self.phase, Phase::Ended)
        {
            self.note(&format!("cannot read on: {error}"));
        }
    }

    /// Keeps the first damage, with the position of the next frame.
    fn note(&mut self, cause: &str) {
        if self.damage.is_none() {
            let time = self.last_time.map_or(0, |time| time.0) as f64 / 1e6;
            self.damage = Some(format!(
                "damaged at frame {} ({time:.3} s): {cause}",
                self.next_index
            ));
        }
    }
}

fn time_base(stream: &ffmpeg::Stream) -> TimeBase {
    let base = stream.time_base();
    TimeBase {
        num: base.numerator(),
        den: base.denominator(),
    }
}

/// What the header says of a file.
pub(super) fn probe(path: &Path) -> Result<Probe, DecodeError> {
    let (input, index) = open_container(path)?;
    let stream = input.stream(index).ok_or_else(|| DecodeError::NoVideo {
        path: path.to_owned(),
    })?;
    let codec = stream.parameters().id();
    if ffmpeg::decoder::find(codec).is_none() {
        return Err(no_decoder(path, codec, ffmpeg::Error::DecoderNotFound));
    }
    let own = Some(stream.duration()).filter(|&ticks| ticks > 0);
    let own = own
        .and_then(|ticks| time_base(&stream).micros(ticks))
        .map(|time| time.0);
    let duration = own.unwrap_or_else(|| input.duration()).max(0) as u64;
    let rate = stream.avg_frame_rate();
    let by_rate = || {
        let rate = f64::from(rate.numerator()) / f64::from(rate.denominator().max(1));
        (duration as f64 / 1e6 * rate.max(0.0)).round() as u64
    };
    let frames = u64::try_from(stream.frames())
        .ok()
        .filter(|&frames| frames > 0)
        .unwrap_or_else(by_rate);
    Ok(Probe {
        frames,
        duration_us: duration,
    })
}
