//! The container: encoded pictures and copied sound, interleaved by time.

use super::onward::Onward;
use super::{DISORDER, FAR};
use crate::decode::{DecodeError, open_media, start_of};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::context::{Input, Output};
use std::path::{Path, PathBuf};

/// Why a container cannot be created.
pub(super) enum Refusal {
    /// FFmpeg's own.
    Ffmpeg(ffmpeg::Error),
    /// The container does not support this audio codec.
    Sound { source_path: PathBuf, codec: String },
}

impl From<ffmpeg::Error> for Refusal {
    fn from(error: ffmpeg::Error) -> Self {
        Self::Ffmpeg(error)
    }
}

/// The sound of a source: its best audio stream, packet by packet.
pub(super) struct Sound {
    path: PathBuf,
    input: Input,
    stream: usize,
    /// Start time of the source in microseconds.
    start: i64,
    next: Option<ffmpeg::Packet>,
    clock: Onward,
}

impl Sound {
    /// `None` when there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, DecodeError> {
        let input = open_media(path)?;
        let stream = input
            .streams()
            .best(ffmpeg::media::Type::Audio)
            .map(|stream| stream.index());
        let start = start_of(&input);
        Ok(stream.map(|stream| Self {
            path: path.to_owned(),
            input,
            stream,
            start,
            next: None,
            clock: Onward::default(),
        }))
    }

    fn time_base(&self) -> ffmpeg::Rational {
        self.input
            .stream(self.stream)
            .map_or((1, 1).into(), |stream| stream.time_base())
    }

    /// The next packet, with times relative to the container's start that continue where the source's jump back; `None` at the end,
    /// also at a damaged one.
    fn next(&mut self) -> Option<ffmpeg::Packet> {
        if let Some(packet) = self.next.take() {
            return Some(packet);
        }
        loop {
            let mut packet = ffmpeg::Packet::empty();
            packet.read(&mut self.input).ok()?;
            if packet.stream() == self.stream && packet.size() > 0 {
                let base = self.time_base();
                let ticks = |micros| rescale(micros, (1, 1_000_000).into(), base);
                let Some(time) = packet.dts().or(packet.pts()) else {
                    return Some(packet);
                };
                let at = self.clock.at(
                    time - ticks(self.start),
                    packet.duration(),
                    (ticks(DISORDER), ticks(FAR)),
                );
                packet.set_pts(packet.pts().map(|pts| pts + at - time));
                packet.set_dts(packet.dts().map(|dts| dts + at - time));
                return Some(packet);
            }
        }
    }
}

fn rescale(ticks: i64, from: ffmpeg::Rational, to: ffmpeg::Rational) -> i64 {
    use ffmpeg::Rescale;
    ticks.rescale(from, to)
}

/// A file that is being written.
pub(super) struct Muxer {
    output: Output,
    sound: Option<Sound>,
}

const PICTURES: usize = 0;
const SOUND: usize = 1;

impl Muxer {
    /// Creates the file and its streams; `begin` must follow.
    pub(super) fn create(url: &str, codec: ffmpeg::Codec, sound: Option<Sound>) -> Result<Self, Refusal> {
        let mut output = ffmpeg::format::output(url)?;
        output.add_stream(codec)?;
        if let Some(sound) = &sound {
            let parameters = sound.input.stream(sound.stream).map(|stream| stream.parameters());
            let parameters = parameters.ok_or(ffmpeg::Error::StreamNotFound)?;
            if !supports(&output, parameters.id()) {
                return Err(Refusal::Sound {
                    source_path: sound.path.clone(),
                    codec: parameters.id().name().to_owned(),
                });
            }
            let mut stream = output.add_stream(ffmpeg::encoder::find(ffmpeg::codec::Id::None))?;
            stream.set_parameters(parameters);
            clear_tag(&mut stream);
            stream.set_time_base(sound.time_base());
        }
        Ok(Self { output, sound })
    }

    /// Whether the container needs a global header.
    pub(super) fn wants_global_header(&self) -> bool {
        self.output
            .format()
            .flags()
            .contains(ffmpeg::format::Flags::GLOBAL_HEADER)
    }

    /// Writes the header.
    pub(super) fn begin(&mut self, encoder: &ffmpeg::encoder::video::Encoder) -> Result<(), ffmpeg::Error> {
        let mut pictures = self
            .output
            .stream_mut(PICTURES)
            .ok_or(ffmpeg::Error::StreamNotFound)?;
        pictures.set_parameters(encoder);
        pictures.set_time_base(encoder.time_base());
        let mut options = ffmpeg::Dictionary::new();
        // The index at the start, so that players can start early; other containers ignore the option.
        options.set("movflags", "+faststart");
        self.output.write_header_with(options).map(drop)
    }

    /// Adds an encoded picture, and the sound up to its time.
    pub(super) fn picture(
        &mut self,
        packet: &mut ffmpeg::Packet,
        base: ffmpeg::Rational,
    ) -> Result<(), ffmpeg::Error> {
        let time = packet.dts().unwrap_or(0);
        self.sound_until(Some(rescale(time, base, (1, 1_000_000).into())))?;
        packet.set_stream(PICTURES);
        packet.rescale_ts(base, self.base(PICTURES));
        packet.set_position(-1);
        packet.write_interleaved(&mut self.output)
    }

    /// Writes the rest of the sound and the container's end.
    pub(super) fn finish(&mut self) -> Result<(), ffmpeg::Error> {
        self.sound_until(None)?;
        self.output.write_trailer()
    }

    fn sound_until(&mut self, micros: Option<i64>) -> Result<(), ffmpeg::Error> {
        let to = self.base(SOUND);
        let Some(sound) = &mut self.sound else {
            return Ok(());
        };
        let from = sound.time_base();
        while let Some(mut packet) = sound.next() {
            let at = packet.dts().or(packet.pts()).unwrap_or(0);
            if micros.is_some_and(|micros| rescale(at, from, (1, 1_000_000).into()) > micros) {
                sound.next = Some(packet);
                return Ok(());
            }
            packet.set_stream(SOUND);
            packet.rescale_ts(from, to);
            packet.set_position(-1);
            packet.write_interleaved(&mut self.output)?;
        }
        Ok(())
    }

    fn base(&self, stream: usize) -> ffmpeg::Rational {
        self.output
            .stream(stream)
            .map_or((1, 1).into(), |stream| stream.time_base())
    }
}

/// Whether a container has a place for a codec.
#[allow(unsafe_code)]
fn supports(output: &Output, codec: ffmpeg::codec::Id) -> bool {
    // SAFETY: the context and its format are valid while borrowed; a table is looked up.
    unsafe {
        ffi::avformat_query_codec(
            (*output.as_ptr()).oformat,
            codec.into(),
            ffi::FF_COMPLIANCE_NORMAL,
        ) == 1
    }
}

/// Lets the container choose its own tag for a codec: the source's is another container's.
#[allow(unsafe_code)]
fn clear_tag(stream: &mut ffmpeg::StreamMut) {
    // SAFETY: the stream and its parameters are valid and borrowed mutably; one field is written.
    unsafe { (*(*stream.as_mut_ptr()).codecpar).codec_tag = 0 };
}
