//! Why a video gives no frames at all. Damage in the midst of one is no error: see `VideoReader::damage`.

use affectmill_base::ErrorClass;
use affectmill_base::FrameIndex;
use affectmill_base::passes;
use std::path::PathBuf;

/// A video could not be read at all, or not to its end. Every message names the file, the cause and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The system does not let the file be read.
    #[error("{}: cannot be read: {cause}; check its permissions, and that its disk is mounted and well", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{}: cannot be opened as a video: it is {what}; leave it out", .path.display())]
    NoFile {
        /// What lies there.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The container was not understood.
    #[error("{}: cannot be opened as a video: {cause}; check that the file is whole, or leave it out", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What FFmpeg said.
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
    /// Reading broke off: the system gave an error instead of bytes. What came before is not all there is.
    #[error("{}: reading broke off at frame {frame}: {cause}; check its disk and the way to it", .path.display())]
    ReadInterrupted {
        /// The file.
        path: PathBuf,
        /// The frame that did not come.
        frame: FrameIndex,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The decoder got no memory. What came before is not all there is.
    #[error("{}: out of memory at frame {frame}; lower input.max_pixels or run.workers, or leave it out", .path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// The frame that did not come.
        frame: FrameIndex,
    },
    /// The GPU that decodes failed. What came before is not all there is.
    #[error(
        "{}: the GPU failed at frame {frame}: {cause}; look at `nvidia-smi` and the kernel's log, run fewer workers on it \
         (run.workers), or set [input] decode = \"cpu\", which makes another dataset",
        .path.display()
    )]
    Gpu {
        /// The file.
        path: PathBuf,
        /// The frame that did not come.
        frame: FrameIndex,
        /// What CUDA said.
        cause: String,
    },
    /// NVDEC failed at the video, and the GPU is well. What comes after is not to be trusted; the CPU may decode it all.
    #[error("{}: NVDEC failed at frame {frame}: {cause}; set [input] decode = \"cpu\", which makes another dataset", .path.display())]
    Nvdec {
        /// The file.
        path: PathBuf,
        /// The frame that did not come.
        frame: FrameIndex,
        /// What FFmpeg said.
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
    /// Its pictures are Dolby Vision's own.
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

impl DecodeError {
    /// What kind of trouble it is.
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

    /// The disk or the network share failed while the video was opened, and may work again in a moment.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreadable { cause, .. } | Self::Folder { cause, .. } => passes(cause),
            _ => false,
        }
    }

    /// The machine broke off, not the video: frames that came before must not be taken for the whole, and another attempt
    /// may give more. The frame that did not come.
    pub fn read_interrupted(&self) -> Option<FrameIndex> {
        match self {
            Self::ReadInterrupted { frame, .. } | Self::Memory { frame, .. } | Self::Gpu { frame, .. } => {
                Some(*frame)
            }
            _ => None,
        }
    }
}
