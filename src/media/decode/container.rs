//! The container of a video file, and its video stream.

use super::error::DecodeError;
use super::picture;
use crate::decode::native;
use crate::decode::native::{Header, Reach};
use affectmill_base::{FrameIndex, Orientation, TimeBase};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::format::stream::Disposition;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

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

/// An open container.
pub(super) struct Container {
    pub input: Input,
    /// Index of its video stream.
    pub stream: usize,
    /// What its header says of that stream.
    pub header: Header,
}

/// Opens the container and finds the video stream. Where none is known from the first megabytes, and the container does not
/// list its streams in front, the picture may begin after minutes of sound: then it is read further.
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
    // FFmpeg does not tell a disk's error from a file's, so the ends of the file are read first.
    ends_can_be_read(path, metadata.len()).map_err(unreadable)?;
    let open = |reach| {
        let opened = native::open_input(path, max_pixels, reach).map_err(|error| match error {
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
    let (mut input, mut headers) = open(Reach::Usual)?;
    let format = input.format().name().to_owned();
    if format.split(',').any(|name| INDIRECT.contains(&name)) {
        return Err(DecodeError::Indirect {
            path: path.to_owned(),
            format,
        });
    }
    let mut stream = best_stream(&input);
    if stream.is_none() && native::streams_may_follow(&input) {
        (input, headers) = open(Reach::Far)?;
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

/// Reads a little of where containers keep their tables.
fn ends_can_be_read(path: &Path, length: u64) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut bytes = [0; 4096];
    let _ = file.read(&mut bytes)?;
    file.seek(SeekFrom::Start(length.saturating_sub(bytes.len() as u64)))?;
    file.read(&mut bytes).map(|_| ())
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

/// How a stream's pictures must be turned to be displayed.
pub(super) fn orientation(stream: &ffmpeg::Stream) -> Orientation {
    native::display_matrix(stream)
        .map(picture::orientation_of)
        .unwrap_or_default()
}

/// The length of a tick of a stream's times.
pub(super) fn time_base(stream: &ffmpeg::Stream) -> TimeBase {
    let base = stream.time_base();
    TimeBase {
        num: base.numerator(),
        den: base.denominator(),
    }
}
