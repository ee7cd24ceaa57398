//! The end of a stream: another one continues, or something is missing.

use super::super::container::{orientation, time_base};
use super::super::decoder::Decoder;
use super::super::elsewhere::Move;
use super::super::error::DecodeError;
use super::super::native;
use super::super::recovery::Recovery;
use super::{Phase, StreamReader};
use affectmill_base::FrameIndex;
use affectmill_base::{ErrorClass, Trouble};

impl StreamReader {
    /// Continues with another stream, from its first packet.
    pub(super) fn follow(&mut self, Move { stream, place }: Move) -> Result<(), DecodeError> {
        let missing = || DecodeError::NoVideo {
            path: self.path.clone(),
        };
        let own = self.input.stream(stream).ok_or_else(missing)?;
        let decoder = Decoder::open(&self.path, &own, false, &self.options);
        self.stream = stream;
        self.recovery = Recovery::of(&own);
        self.time_base = time_base(&own);
        self.aspect = native::container_aspect(&own);
        self.orientation = orientation(&own);
        self.elsewhere = self.elsewhere.moved();
        match decoder {
            Ok(decoder) if native::seek_byte(&mut self.input, place) => {
                self.decoder = decoder;
                // Frames before its first key frame refer to missing pictures.
                self.awaiting_keyframe = self.decoder.predicts;
                self.phase = Phase::Reading(None);
            }
            Ok(_) => self.note(
                ErrorClass::Corrupt,
                "the picture moves to another stream, which is not found",
            ),
            Err(error) => {
                let cause = format!("the picture moves to another stream: {error}");
                self.note(ErrorClass::Unsupported, &cause);
            }
        }
        Ok(())
    }

    /// What the file lacks.
    pub(super) fn find_shortfall(&self) -> Option<Trouble> {
        let frame = Some(FrameIndex(self.next_index));
        if let Some(missing) = self.promise.missing(&self.path, self.stream, self.next_index) {
            return Some(Trouble {
                error: format!("{missing}; the file was cut off, fetch it again"),
                class: ErrorClass::Corrupt,
                frame,
            });
        }
        let (begins, packets) = self.elsewhere.later()?;
        let begins = begins.and_then(|ticks| self.time_base.micros(ticks));
        let begins = begins.map_or(0, |time| time.0 - self.start) as f64 / 1e6;
        Some(Trouble {
            error: format!(
                "another video stream begins at {begins:.3} s, where this one has ended ({packets} packets); cut the file there \
                 to label it too"
            ),
            class: ErrorClass::Unsupported,
            frame,
        })
    }
}
