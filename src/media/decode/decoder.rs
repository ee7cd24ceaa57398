//! The decoder of one stream.

use super::error::DecodeError;
use super::{DecodeOptions, cuda, native};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::Stream;
use ffmpeg_next::codec::{Id, threading};
use ffmpeg_next::frame::Video;
use std::path::Path;

/// Codecs whose decoders replace a damaged slice by the previous picture and report it only in the log: FFV1, which has
/// checksums. They return each packet's frame at once, so a log message belongs to that frame. A damaged slice stays damaged
/// until the next key frame.
const CONCEALS_SILENTLY: [Id; 1] = [Id::FFV1];

/// The decoder of one stream. `codec` is dropped first, because it may log while it is freed.
pub(super) struct Decoder {
    pub codec: ffmpeg::decoder::Video,
    /// Whether it logged an error.
    pub complaint: native::Complaint,
    /// The GPU requested for decoding.
    pub gpu: Option<usize>,
    /// Why decoding falls back to the CPU.
    pub fallback: Option<String>,
    /// Whether frames are predicted from one another.
    pub predicts: bool,
}

impl Decoder {
    /// Opens the decoder; `known` says whether the stream was probed when its file was opened.
    pub(super) fn open(
        path: &Path,
        stream: &Stream,
        known: bool,
        options: &DecodeOptions,
    ) -> Result<Self, DecodeError> {
        // WebM marks the whole track, and puts its own byte before each frame, even before those that are not encrypted.
        if stream.metadata().get("enc_key_id").is_some() {
            return Err(DecodeError::Encrypted {
                path: path.to_owned(),
                scheme: "webm".into(),
            });
        }
        if native::is_dolby_vision_only(stream) {
            return Err(DecodeError::DolbyVision {
                path: path.to_owned(),
            });
        }
        let parameters = stream.parameters();
        let codec = parameters.id();
        let mut context = ffmpeg::codec::Context::from_parameters(parameters)
            .map_err(|error| no_decoder(path, codec, error))?;
        native::limit_pixels(&mut context, options.max_pixels);
        if !known && codec == Id::H264 {
            native::expect_reordering(&mut context);
        }
        let complaint = native::Complaint::default();
        let conceals_silently = CONCEALS_SILENTLY.contains(&codec);
        if conceals_silently {
            native::listen(&mut context, &complaint);
        }
        // When frames are predicted from one another, error concealment depends on the thread count and is not always reported.
        // Frames must not depend on the number of threads.
        let predicts = !native::intra_only(codec) || conceals_silently;
        let (gpu, fallback) = match options.nvdec.map(|gpu| cuda::configure(&mut context, gpu)) {
            None => (None, None),
            Some(asked) => (asked.is_ok().then_some(options.nvdec).flatten(), asked.err()),
        };
        context.set_threading(threading::Config {
            kind: if conceals_silently {
                threading::Type::Slice
            } else {
                threading::Type::Frame
            },
            count: if (predicts && !conceals_silently) || gpu.is_some() {
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
            codec: decoder,
            complaint,
            gpu,
            fallback,
            predicts,
        })
    }
}

/// Whether the decoder reports that a frame is incomplete.
pub(super) fn is_damaged(frame: &Video) -> bool {
    frame.is_corrupt() || frame.has_decode_errors()
}

pub(super) fn no_decoder(path: &Path, codec: Id, error: ffmpeg::Error) -> DecodeError {
    let codec = if codec == Id::None {
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

pub(super) fn refuse_too_large(path: &Path, width: u32, height: u32, max: u64) -> Result<(), DecodeError> {
    match super::too_large(width, height, max) {
        None => Ok(()),
        Some(_) => Err(DecodeError::TooLarge {
            path: path.to_owned(),
            width,
            height,
            max,
        }),
    }
}
