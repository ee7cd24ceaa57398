//! Why a video gives no frames at all. Damage inside a video is no error: see `VideoReader::damage`.

use affectmill_base::ErrorClass;
use affectmill_base::FrameIndex;
use affectmill_base::is_transient;
use std::path::PathBuf;

/// A video could not be read at all, or not to its end. Every message names the file, the cause and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}; check its permissions, and that its disk is mounted and well", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{}: cannot be opened as a video: it is {what}; leave it out", .path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The container cannot be parsed.
    #[error("{}: cannot be opened as a video: {cause}; check that the file is whole, or leave it out", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// FFmpeg's error.
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
    /// The container has no video stream.
    #[error("{}: holds no video stream (sound or cover pictures do not count); leave it out", .path.display())]
    NoVideo {
        /// The file.
        path: PathBuf,
    },
    /// This FFmpeg has no decoder for the video, or the decoder did not start.
    #[error("{}: the {codec} video cannot be decoded by this FFmpeg: {cause}; convert it (`ffmpeg -i …`) or install an FFmpeg with that decoder", .path.display())]
    NoDecoder {
        /// The file.
        path: PathBuf,
        /// FFmpeg's name of the codec.
        codec: String,
        /// FFmpeg's error.
        cause: String,
    },
    /// The pictures are larger than the job allows.
    #[error("{}: its pictures of {width}×{height} have more than input.max_pixels = {max}; raise it if they are meant, or leave it out", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// As stored.
        width: u32,
        /// As stored.
        height: u32,
        /// The limit.
        max: u64,
    },
    /// Reading was interrupted by an I/O error. The frames before it are incomplete.
    #[error("{}: reading broke off at frame {frame}: {cause}; check its disk and the way to it", .path.display())]
    ReadInterrupted {
        /// The file.
        path: PathBuf,
        /// The frame that was not decoded.
        frame: FrameIndex,
        /// The system's error.
        cause: std::io::Error,
    },
    /// Out of memory while decoding. The frames before it are incomplete.
    #[error("{}: out of memory at frame {frame}; lower input.max_pixels or run.workers, or leave it out", .path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// The frame that was not decoded.
        frame: FrameIndex,
    },
    /// The GPU failed while decoding. The frames before it are incomplete.
    #[error(
        "{}: the GPU failed at frame {frame}: {cause}; look at `nvidia-smi` and the kernel's log, run fewer workers on it \
         (run.workers), or set [input] decode = \"cpu\", which makes another dataset",
        .path.display()
    )]
    Gpu {
        /// The file.
        path: PathBuf,
        /// The frame that was not decoded.
        frame: FrameIndex,
        /// CUDA's error.
        cause: String,
    },
    /// NVDEC failed on the video, but the GPU works. Later frames are unreliable; decode again on the CPU.
    #[error("{}: NVDEC failed at frame {frame}: {cause}; set [input] decode = \"cpu\", which makes another dataset", .path.display())]
    Nvdec {
        /// The file.
        path: PathBuf,
        /// The frame that was not decoded.
        frame: FrameIndex,
        /// FFmpeg's error.
        cause: String,
    },
    /// Its samples are encrypted.
    #[error("{}: is encrypted ({scheme}); decrypt it with its key (`ffmpeg -decryption_key …`), or leave it out", .path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
        /// How: `cenc`, `cbcs`, `webm`, …
        scheme: String,
    },
    /// Its pictures are Dolby Vision without a compatible base layer.
    #[error(
        "{}: is Dolby Vision without a base layer that others can show (profile 5); convert it to HDR10 or SDR first, as \
         `ffmpeg -vf libplacebo` does, or leave it out",
        .path.display()
    )]
    DolbyVision {
        /// The file.
        path: PathBuf,
    },
    /// The file opened, but not one frame came out.
    #[error("{}: no frame could be decoded: {cause}; the file is damaged, fetch it again or leave it out", .path.display())]
    NothingDecoded {
        /// The file.
        path: PathBuf,
        /// The first damage, or that the stream is empty.
        cause: String,
        /// The damage's class.
        class: ErrorClass,
    },
    /// A folder of images could not be listed.
    #[error("{}: the folder of images cannot be listed: {cause}; check that it exists and may be read", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
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

impl DecodeError {
    /// The class of the error.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreadable { .. } | Self::ReadInterrupted { .. } | Self::Folder { .. } => ErrorClass::Io,
            Self::Open { .. } | Self::Nvdec { .. } => ErrorClass::Corrupt,
            Self::NothingDecoded { class, .. } => *class,
            Self::Memory { .. } | Self::Gpu { .. } => ErrorClass::Crash,
            Self::NoFile { .. }
            | Self::Indirect { .. }
            | Self::NoVideo { .. }
            | Self::Encrypted { .. }
            | Self::DolbyVision { .. }
            | Self::NoDecoder { .. }
            | Self::TooLarge { .. }
            | Self::NoImages { .. }
            | Self::HugeNumber { .. }
            | Self::BelowBase { .. }
            | Self::SameNumber { .. } => ErrorClass::Unsupported,
        }
    }

    /// Whether the disk or the network share failed while the video was opened, and a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreadable { cause, .. } | Self::Folder { cause, .. } => is_transient(cause),
            _ => false,
        }
    }

    /// The frame at which the machine failed, not the video: the frames before it are incomplete, and a retry may give more.
    pub fn read_interrupted(&self) -> Option<FrameIndex> {
        match self {
            Self::ReadInterrupted { frame, .. } | Self::Memory { frame, .. } | Self::Gpu { frame, .. } => {
                Some(*frame)
            }
            _ => None,
        }
    }
}
