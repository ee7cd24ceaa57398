//! The container of a video file, and its video stream.

use super::error::DecodeError;
use super::picture;
use crate::decode::native;
use crate::decode::native::{Header, ProbeDepth};
use affectmill_base::{FrameIndex, Orientation, TimeBase};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::format::stream::Disposition;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Formats that refer to other files, and text that FFmpeg would render as pictures.
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

/// An open container.
pub(super) struct Container {
    pub input: Input,
    /// Index of its video stream.
    pub stream: usize,
    /// The header's data on that stream.
    pub header: Header,
}

/// Opens the container and finds the video stream. It reads further when the first megabytes show none and the container does not
/// list its streams at the start, because video may start after minutes of sound.
pub(super) fn open(path: &Path, max_pixels: u64) -> Result<Container, DecodeError> {
    native::init();
    let not_opened = |cause: String| DecodeError::Open {
        path: path.to_owned(),
        cause,
    };
    let unreadable = |cause| DecodeError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(DecodeError::NoFile {
            path: path.to_owned(),
            what: if metadata.is_dir() {
                "a folder"
            } else {
                "no regular file"
            },
        });
    }
    if metadata.len() == 0 {
        return Err(not_opened("it is empty (0 bytes)".into()));
    }
    // FFmpeg does not distinguish disk errors from damaged files, so both ends of the file are read first.
    ends_can_be_read(path, metadata.len()).map_err(unreadable)?;
    let open = |depth| {
        let opened = native::open_input(path, max_pixels, depth).map_err(|error| match error {
            ffmpeg::Error::Other { errno: libc::ENOMEM } => DecodeError::Memory {
                path: path.to_owned(),
                frame: FrameIndex(0),
            },
            error => not_opened(error.to_string()),
        })?;
        match native::read_error(&opened.0) {
            Some(cause) => Err(unreadable(cause)),
            None => Ok(opened),
        }
    };
    let (mut input, mut headers) = open(ProbeDepth::Usual)?;
    let format = input.format().name().to_owned();
    if format.split(',').any(|name| INDIRECT.contains(&name)) {
        return Err(DecodeError::Indirect {
            path: path.to_owned(),
            format,
        });
    }
    let mut stream = best_stream(&input);
    if stream.is_none() && native::streams_may_follow(&input) {
        (input, headers) = open(ProbeDepth::Far)?;
        stream = best_stream(&input);
    }
    let stream = stream.ok_or_else(|| DecodeError::NoVideo {
        path: path.to_owned(),
    })?;
    Ok(Container {
        header: headers.get(stream).copied().unwrap_or_default(),
        stream,
        input,
    })
}

/// Reads the start and the end, where containers keep their tables.
fn ends_can_be_read(path: &Path, length: u64) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut bytes = [0; 4096];
    let _ = file.read(&mut bytes)?;
    file.seek(SeekFrom::Start(length.saturating_sub(bytes.len() as u64)))?;
    file.read(&mut bytes).map(|_| ())
}

/// FFmpeg's best video stream, but never a cover picture.
fn best_stream(input: &Input) -> Option<usize> {
    let moving = |stream: &ffmpeg::Stream| {
        stream.parameters().medium() == ffmpeg::media::Type::Video
            && !stream.disposition().contains(Disposition::ATTACHED_PIC)
    };
    let best = input.streams().best(ffmpeg::media::Type::Video).filter(moving);
    best.or_else(|| input.streams().find(moving))
        .map(|stream| stream.index())
}

/// Orientation of a stream's pictures.
pub(super) fn orientation(stream: &ffmpeg::Stream) -> Orientation {
    native::display_matrix(stream)
        .map(picture::orientation_of)
        .unwrap_or_default()
}

/// The stream's time base.
pub(super) fn time_base(stream: &ffmpeg::Stream) -> TimeBase {
    let base = stream.time_base();
    TimeBase {
        num: base.numerator(),
        den: base.denominator(),
    }
}
