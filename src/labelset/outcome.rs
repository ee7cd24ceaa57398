//! What became of a video, and what was wrong with it.

use super::records::is_none;
use affectmill_base::{ErrorClass, FrameIndex, Trouble, VideoKey, escaped};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of one video.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct VideoOutcome {
    /// Key.
    #[schemars(with = "String")]
    pub key: VideoKey,
    /// Status.
    pub status: VideoStatus,
    /// Frames decoded (before sampling).
    pub frames: u64,
    /// Rows written.
    pub rows: u64,
    /// Rows that carry a face.
    pub faces: u64,
    /// Of these, rows with status `not_finite`: a model gave NaN or an infinity for the face.
    #[serde(default, skip_serializing_if = "is_none")]
    pub not_finite: u64,
    /// Seconds of worker time spent decoding it.
    pub seconds: f64,
    /// What was wrong: the first damage, or why it failed. Null for `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What kind of trouble `error` is. Null for `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<ErrorClass>,
    /// Where: the first frame that was not labelled as it should, or the last one that was reached. Null when no frame
    /// was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub error_frame: Option<FrameIndex>,
    /// Why it was decoded on the CPU though the job decodes on GPUs. Null where it was decoded as the job says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode_fallback: Option<String>,
    /// Frames without a picture: damaged, predicted from damaged ones, or left out. Null where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Transfer characteristics of its pictures, by ffprobe's name. Null where it does not say, or nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<String>,
    /// How its pictures were brought from HDR to SDR. Null where they were labelled as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tone_mapping: Option<String>,
}

impl VideoOutcome {
    /// A video that is to be opened: nothing is known yet.
    pub fn new(key: VideoKey) -> Self {
        Self {
            key,
            status: VideoStatus::Ok,
            frames: 0,
            rows: 0,
            faces: 0,
            not_finite: 0,
            seconds: 0.0,
            error: None,
            error_class: None,
            error_frame: None,
            decode_fallback: None,
            lost: None,
            transfer: None,
            tone_mapping: None,
        }
    }

    /// The trouble that was noted.
    pub fn trouble(&self) -> Option<Trouble> {
        Some(Trouble {
            error: self.error.clone()?,
            class: self.error_class?,
            frame: self.error_frame,
        })
    }

    /// Notes trouble; what was noted first stays. Its text is for people: a path in it acts on no terminal, and breaks no line.
    pub fn note(&mut self, trouble: Trouble) {
        if self.error.is_none() {
            self.error = Some(escaped(&trouble.error).into_owned());
            self.error_class = Some(trouble.class);
            self.error_frame = trouble.frame;
        }
    }

    /// Notes what is to be told besides what was noted first.
    pub fn note_also(&mut self, trouble: Trouble) {
        match &mut self.error {
            Some(error) => *error = format!("{error}; {}", escaped(&trouble.error)),
            None => self.note(trouble),
        }
    }
}

/// Outcome of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoStatus {
    /// Every frame has its row.
    Ok,
    /// Damaged, or without numbers for some of its faces: the good frames have their rows.
    Partial,
    /// No row.
    Failed,
    /// It took its worker down too often, or was beyond reading each time; no row.
    Quarantined,
}

impl VideoStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Partial, Self::Failed, Self::Quarantined];

    /// The text in `videos.parquet`.
    pub fn as_str(self) -> &'static str {
        match self {
            VideoStatus::Ok => "ok",
            VideoStatus::Partial => "partial",
            VideoStatus::Failed => "failed",
            VideoStatus::Quarantined => "quarantined",
        }
    }
}
