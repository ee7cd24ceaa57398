//! A decoder set up for one stream.

use super::error::DecodeError;
use super::{DecodeOptions, cuda, native};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::Stream;
use ffmpeg_next::codec::{Id, threading};
use ffmpeg_next::frame::Video;
use std::path::Path;

/// Codecs whose decoders put the picture before in a damaged slice's place, and say so nowhere but in the log: FFV1, which has
/// checksums. They give each packet's frame at once, so that what is said is said of that frame; and from one key frame to the
/// next a damaged slice stays as it is.
const MENDS_UNSEEN: [Id; 1] = [Id::FFV1];

/// The decoder of one stream. Its first field is dropped first: it may speak while it goes.
pub(super) struct Decoder {
    pub codec: ffmpeg::decoder::Video,
    /// Whether it spoke of an error.
    pub complaint: native::Complaint,
    /// The GPU that was asked to decode.
    pub gpu: Option<usize>,
    /// Why the CPU decodes though the GPU was to.
    pub fallback: Option<String>,
    /// Frames are predicted from one another.
    pub predicts: bool,
}

impl Decoder {
    /// `known` says whether the stream was looked into when its file was opened.
    pub(super) fn open(
        path: &Path,
        stream: &Stream,
        known: bool,
        options: &DecodeOptions,
    ) -> Result<Self, DecodeError> {
        // WebM marks the whole track, and puts a byte of its own before each frame, also of those that are not encrypted.
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
            codec: decoder,
            complaint,
            gpu,
            fallback,
            predicts,
        })
    }
}

/// Whether the decoder says that a frame is not whole.
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
