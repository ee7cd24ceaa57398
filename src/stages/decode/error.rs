//! Why a video gives no frames at all. Damage in the midst of one is no error: see `VideoReader::damage`.

use std::path::PathBuf;

/// A video could not be read at all. Every message names the file, the cause and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file could not be opened or its container not be understood.
    #[error("{}: cannot be opened as a video: {cause}; check that the file is whole and readable, or leave it out", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system or FFmpeg said.
        cause: String,
    },
    /// A file that only points to other files.
    #[error("{}: is a `{format}` list that refers to other files; give the files it names instead", .path.display())]
    Indirect {
        /// The file.
        path: PathBuf,
        /// FFmpeg's name of the format.
        format: String,
    },
    /// The container holds no moving picture.
    #[error("{}: holds no video stream (sound or cover pictures do not count); leave it out", .path.display())]
    NoVideo {
        /// The file.
        path: PathBuf,
    },
    /// This FFmpeg has no decoder for the video, or the decoder would not start.
    #[error("{}: the {codec} video cannot be decoded by this FFmpeg: {cause}; convert it (`ffmpeg -i …`) or install an FFmpeg with that decoder", .path.display())]
    NoDecoder {
        /// The file.
        path: PathBuf,
        /// FFmpeg's name of the codec.
        codec: String,
        /// What FFmpeg said.
        cause: String,
    },
    /// The file opened, but not one frame came out.
    #[error("{}: no frame could be decoded: {cause}; the file is damaged, fetch it again or leave it out", .path.display())]
    NothingDecoded {
        /// The file.
        path: PathBuf,
        /// The first damage, or that the stream is empty.
        cause: String,
    },
    /// A folder of images could not be listed.
    #[error("{}: the folder of images cannot be listed: {cause}; check that it exists and may be read", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A folder without numbered images.
    #[error("{}: holds no image named by a number, such as 00001.jpg (jpg, jpeg, png, bmp or webp); leave it out", .path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },
    /// A number in a file name that does not fit.
    #[error("{}: the number in the file name is too large for a frame index; rename the file", .path.display())]
    HugeNumber {
        /// The image.
        path: PathBuf,
    },
    /// An image numbered below the first.
    #[error("{}: its number lies below input.image_base = {base}, the number of frame 0; {}", .path.display(), if *.number == 0 { "set `image_base = 0`" } else { "set a smaller `image_base`" })]
    BelowBase {
        /// The image.
        path: PathBuf,
        /// Its number.
        number: u64,
        /// The number of frame 0.
        base: u64,
    },
    /// Two images claim one frame.
    #[error("{} and {}: two images of number {number}; keep one of them", .first.display(), .second.display())]
    SameNumber {
        /// One image.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// Their number.
        number: u64,
    },
}
