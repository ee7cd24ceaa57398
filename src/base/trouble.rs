//! Errors of a video.

use crate::FrameIndex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Class of a video's error; `affectmill retry --class` selects by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The bytes are not what the format says. The same file gives the same again.
    Corrupt,
    /// No video, no decoder for it, or beyond a limit of the job. The same file gives the same again.
    Unsupported,
    /// It hung its worker or took longer than it may.
    Timeout,
    /// It crashed its worker, or ran out of memory.
    Crash,
    /// It could not be read: missing, forbidden, or the disk failed.
    Io,
    /// The file changed after it was planned.
    Changed,
    /// A model returned NaN or an infinity for one of its faces. The same file gives the same again.
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

/// An error of a video: message, class and position.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Trouble {
    /// The message, with the remedy.
    pub error: String,
    /// Its class.
    pub class: ErrorClass,
    /// The frame of the error, or the last one reached.
    #[schemars(with = "Option<u64>")]
    pub frame: Option<FrameIndex>,
}
