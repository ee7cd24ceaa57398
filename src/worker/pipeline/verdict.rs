//! What becomes of a video: counted while it is decoded, judged when it is through.
//!
//! A video is `ok` only if all of it was seen and each frame that the sampling asks for has its row.

use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{FrameIndex, Micros, TONE_MAPPING};
use affectmill_labelset::{ResumePoint, VideoOutcome, VideoStatus};
use affectmill_media::decode::{DecodedFrame, VideoReader};
use affectmill_spec::{Sampling, SamplingMode};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Key frames this far apart, in microseconds, are too few to go by.
const SPARSE: i64 = 60_000_000;

/// What was seen of a video.
#[derive(Default)]
pub(super) struct Course {
    /// Frames that got rows.
    pub kept: u64,
    /// Frames without a time.
    timeless: u64,
    first: Option<Micros>,
    last: Option<Micros>,
}

impl Course {
    /// Counts a frame.
    pub fn see(&mut self, frame: &DecodedFrame, outcome: &mut VideoOutcome) {
        outcome.frames += 1;
        let lost = frame.picture.is_none() && frame.faces.is_empty();
        *outcome.lost.get_or_insert(0) += u64::from(lost);
        if let Some(picture) = &frame.picture {
            if outcome.transfer.is_none() {
                outcome.transfer = picture.transfer().map(str::to_owned);
            }
            if picture.tone().is_some() && outcome.tone_mapping.is_none() {
                outcome.tone_mapping = Some(TONE_MAPPING.into());
            }
        }
        self.timeless += u64::from(frame.timestamp.is_none());
        self.first = self.first.min(frame.timestamp).or(frame.timestamp);
        self.last = self.last.max(frame.timestamp);
    }

    /// Says what became of the video that this reader is through with; `name` is what people know it by. Returns what they
    /// should hear besides.
    pub fn judge(
        &self,
        outcome: &mut VideoOutcome,
        name: &str,
        reader: &VideoReader,
        read_interrupted: Option<Trouble>,
        sampling: &Sampling,
    ) -> Option<String> {
        let damage = reader.damage().cloned();
        let first = match outcome.frames {
            0 => read_interrupted.or(damage),
            _ => damage.or(read_interrupted),
        };
        if let Some(first) = first {
            outcome.note(first);
        }
        if let Some(shortfall) = reader.shortfall() {
            outcome.note_also(shortfall.clone());
        }
        let (frames, lost) = (outcome.frames, outcome.lost.unwrap_or(0));
        let by_time = sampling.mode == SamplingMode::Fps;
        if frames == 0 {
            if outcome.error.is_none() {
                also(
                    outcome,
                    format!("{name}: no frame could be decoded"),
                    ErrorClass::Corrupt,
                );
            }
        } else if self.kept == 0 {
            also(outcome, self.nothing(sampling).into(), ErrorClass::Unsupported);
        } else if by_time && self.timeless > 0 {
            let timeless = self.timeless;
            let error = format!("{timeless} frames have no time, which mode = \"fps\" goes by, and no rows");
            also(outcome, error, ErrorClass::Unsupported);
        }
        if lost > 0 {
            let end = if reader.awaiting_keyframe() {
                "no key frame follows: "
            } else {
                ""
            };
            let error = format!("{end}{lost} of {frames} frames are lost");
            also(outcome, error, ErrorClass::Corrupt);
        }
        if self.kept == 0 {
            outcome.status = VideoStatus::Failed;
        } else if outcome.error.is_some() {
            outcome.status = VideoStatus::Partial;
        }
        let span = self.last?.0 - self.first?.0;
        let sparse = sampling.mode == SamplingMode::Keyframes && span / SPARSE >= self.kept.max(1) as i64;
        sparse.then(|| {
            format!(
                "{name}: {} key frames in {:.1} minutes, and mode = \"keyframes\" labels no others; mode = \"fps\" would",
                self.kept,
                span as f64 / 60e6
            )
        })
    }

    /// Why no frame got a row.
    fn nothing(&self, sampling: &Sampling) -> &'static str {
        match sampling.mode {
            SamplingMode::Fps if self.timeless > 0 => {
                "its frames have no times, which mode = \"fps\" goes by; set mode = \"stride\" or \"every\" in a new output, or give \
                 it times (`ffmpeg -r … -i …`; of images [input] image_fps)"
            }
            SamplingMode::Keyframes => "it has no key frame; set mode = \"fps\" in a new output",
            _ => "none of its frames is one that [sampling] asks for",
        }
    }
}

fn also(outcome: &mut VideoOutcome, error: String, class: ErrorClass) {
    outcome.note_also(Trouble {
        error,
        class,
        frame: None,
    });
}

/// Whether a frame is brought from HDR to SDR as those before the resume point were not: by a former version, or by another curve.
pub(super) fn is_toned_anew(frame: &DecodedFrame, resume_point: &ResumePoint) -> bool {
    let toned = frame
        .picture
        .as_ref()
        .is_some_and(|picture| picture.tone().is_some());
    toned && resume_point.tone_mapping.as_deref() != Some(TONE_MAPPING)
}

/// The message of a panic.
#[derive(Debug, PartialEq)]
pub(super) struct Panicked(pub String);

/// Runs the decoding of one video; catches its panic.
pub(super) fn shielded<T>(decode: impl FnOnce() -> T) -> Result<T, Panicked> {
    // The caller resets what a panic may leave half done.
    catch_unwind(AssertUnwindSafe(decode)).map_err(|panic| Panicked::of(&*panic))
}

impl Panicked {
    fn of(panic: &(dyn Any + Send)) -> Self {
        let literal = panic.downcast_ref::<&str>().copied();
        let formatted = || panic.downcast_ref::<String>().map(String::as_str);
        Self(literal.or_else(formatted).unwrap_or("no message").into())
    }
}

/// The outcome of a video on which the decode thread panicked; `rows` are those that it has left.
pub(super) fn panicked(outcome: &mut VideoOutcome, message: &str, rows: u64) {
    outcome.status = match rows {
        0 => VideoStatus::Failed,
        _ => VideoStatus::Partial,
    };
    outcome.note_also(Trouble {
        error: format!(
            "decoding broke off at frame {}: {message} (a panic); please report it",
            outcome.frames
        ),
        class: ErrorClass::Crash,
        frame: Some(FrameIndex(outcome.frames)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use affectmill_base::VideoKey;

    #[test]
    fn a_panic_is_that_videos_and_says_where() {
        let outcome = || VideoOutcome::new(VideoKey::new("a.mp4").unwrap());
        let Panicked(message) = shielded(|| {
            let empty: Vec<u32> = Vec::new();
            empty[7]
        })
        .unwrap_err();
        assert!(message.contains("index is 7"), "{message}");
        assert_eq!(shielded(|| panic!("at {}", 5)).unwrap_err().0, "at 5");
        assert_eq!(shielded(|| 5), Ok(5));
        let mut half = outcome();
        half.frames = 12;
        panicked(&mut half, &message, 3);
        assert_eq!(
            (half.status, half.error_class),
            (VideoStatus::Partial, Some(ErrorClass::Crash))
        );
        assert_eq!(half.error_frame, Some(FrameIndex(12)));
        let error = half.error.unwrap();
        assert!(
            error.contains("frame 12") && error.contains("index is 7"),
            "{error}"
        );
        let mut none = outcome();
        panicked(&mut none, &message, 0);
        assert_eq!(none.status, VideoStatus::Failed);
    }
}
