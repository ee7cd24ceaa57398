//! The container of a video file, and its video stream.

use super::error::DecodeError;
use super::native;
use crate::domain::FrameIndex;
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

/// Opens the container and finds the video stream.
pub(super) fn open(path: &Path, max_pixels: u64) -> Result<(Input, usize), DecodeError> {
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
    let input = native::open_input(path, max_pixels).map_err(|error| match error {
        ffmpeg::Error::Other { errno: libc::ENOMEM } => DecodeError::Memory {
            path: path.to_owned(),
            frame: FrameIndex(0),
        },
        error => not_opened(error.to_string()),
    })?;
    if let Some(cause) = native::read_error(&input) {
        return Err(unreadable(cause));
    }
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
