//! What goes wrong with a video.

use crate::FrameIndex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of trouble a video had; what `affectmill retry --class` chooses by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The bytes are not what the format says. The same file gives the same again.
    Corrupt,
    /// No video, no decoder for it, or beyond a limit of the job. The same file gives the same again.
    Unsupported,
    /// It hung its worker or took longer than it may.
    Timeout,
    /// It took its worker down, or was too much for the memory.
    Crash,
    /// It could not be read: missing, forbidden, or the disk failed.
    Io,
    /// It is not the file any more that was planned.
    Changed,
    /// A model gave NaN or an infinity for faces of it. The same file gives the same again.
    NotFinite,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [ErrorClass; 7] = [
        ErrorClass::Corrupt,
        ErrorClass::Unsupported,
        ErrorClass::Timeout,
        ErrorClass::Crash,
        ErrorClass::Io,
        ErrorClass::Changed,
        ErrorClass::NotFinite,
    ];

    /// The text in `videos.parquet` and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Corrupt => "corrupt",
            ErrorClass::Unsupported => "unsupported",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Crash => "crash",
            ErrorClass::Io => "io",
            ErrorClass::Changed => "changed",
            ErrorClass::NotFinite => "not_finite",
        }
    }
}

/// What was wrong with a video: in words, of which class, and where.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Trouble {
    /// In words, with the remedy.
    pub error: String,
    /// Its class.
    pub class: ErrorClass,
    /// The frame it was met at, or the last one reached.
    #[schemars(with = "Option<u64>")]
    pub frame: Option<FrameIndex>,
}
