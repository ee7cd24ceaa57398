//! Seek anchors: key frames from which decoding can resume, and the proof that it gives the same frames.
//!
//! A seek may land elsewhere, a key frame may not be clean, and guessed times may differ after a seek. So the frames from the
//! key frame to the resume point are decoded again, and their times and pictures must equal those of the first time.

use super::{DecodeError, DecodedFrame, Picture, Source, VideoReader};
use affectmill_base::SeekAnchor;
use affectmill_base::{FrameIndex, hex};
use sha2::{Digest, Sha256};

/// Distance of hashed rows: no block that codecs predict is smaller.
const ROW_STEP: usize = 4;

/// Finds a seek anchor.
#[derive(Default)]
pub(super) struct Watch {
    active: bool,
    /// Ticks of the last clean key frame.
    last_key: Option<i64>,
    candidate: Option<Candidate>,
}

struct Candidate {
    frame: FrameIndex,
    ticks: Option<i64>,
    place: Option<i64>,
    seek: Option<i64>,
    hash: Sha256,
}

impl Watch {
    pub(super) fn see(&mut self, frame: &DecodedFrame, ordered: bool) {
        let clean_key = frame.key && frame.picture.is_some();
        if self.active && self.candidate.is_none() && clean_key && ordered {
            self.candidate = Some(Candidate {
                frame: frame.index,
                ticks: frame.ticks,
                place: frame.place,
                seek: self.last_key,
                hash: Sha256::new(),
            });
        }
        if let Some(candidate) = &mut self.candidate {
            add(&mut candidate.hash, frame);
        }
        if clean_key {
            self.last_key = frame.ticks;
        }
    }
}

/// Hashes a frame's times and picture.
fn add(hash: &mut Sha256, frame: &DecodedFrame) {
    hash.update([u8::from(frame.key), u8::from(frame.picture.is_some())]);
    hash.update(frame.ticks.map_or([0; 9], |ticks| {
        let mut bytes = [1; 9];
        bytes[1..].copy_from_slice(&ticks.to_le_bytes());
        bytes
    }));
    if let Some(picture) = &frame.picture {
        add_picture(hash, picture);
    }
}

fn add_picture(hash: &mut Sha256, picture: &Picture) {
    let size = picture.stored();
    hash.update(size.width.to_le_bytes());
    hash.update(size.height.to_le_bytes());
    if let Some(gpu_picture) = picture.gpu_picture() {
        // If the GPU fails here, the hash matches no frame, so no run resumes from it.
        gpu_picture
            .every_row(ROW_STEP)
            .unwrap_or_default()
            .iter()
            .for_each(|rows| hash.update(rows));
        return;
    }
    for component in picture.components() {
        let plane = picture.plane(component.plane);
        for y in (0..component.size.height as usize).step_by(ROW_STEP) {
            hash.update(plane.row(y));
        }
    }
}

/// Whether the times of frames ascend by libavcodec's own test. When they do not, its guessed times depend on all earlier frames.
pub(super) struct Clock {
    ordered: bool,
    last: [Option<i64>; 2],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            ordered: true,
            last: [None; 2],
        }
    }
}

impl Clock {
    /// Records the times of a frame.
    pub(super) fn read(&mut self, pts: Option<i64>, dts: Option<i64>) {
        for (last, (own, other)) in self.last.iter_mut().zip([(pts, dts), (dts, pts)]) {
            self.ordered &= own.is_none() || own > *last;
            *last = own.or(other);
        }
        self.ordered &= pts.is_some() || dts.is_some();
    }

    /// Whether they ascend so far, and each frame has one.
    pub(super) fn ordered(&self) -> bool {
        self.ordered
    }
}

impl VideoReader {
    /// Starts to record a seek anchor at the next key frame.
    pub fn watch(&mut self) {
        self.watch.active = true;
    }

    /// Stops recording a seek anchor.
    pub fn unwatch(&mut self) {
        (self.watch.active, self.watch.candidate) = (false, None);
    }

    /// The seek anchor for a resume point at the frame returned last; `None` without an earlier key frame, or when the stream's own
    /// times are not in order.
    pub fn seek_anchor(&self, resume_point: FrameIndex) -> Option<SeekAnchor> {
        let candidate = self
            .watch
            .candidate
            .as_ref()
            .filter(|it| it.frame < resume_point)?;
        self.source.ordered().then(|| SeekAnchor {
            frame: candidate.frame,
            ticks: candidate.ticks,
            place: candidate.place,
            seek: candidate.seek,
            sha256: hex(&candidate.hash.clone().finalize()),
        })
    }

    /// Skips the frames before this one, from the start; calls `seen` for each.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn pass(&mut self, before: FrameIndex, mut seen: impl FnMut(FrameIndex)) -> Result<(), DecodeError> {
        let mut next = FrameIndex(0);
        while next < before
            && let Some(frame) = self.next()?
        {
            seen(frame.index);
            next = FrameIndex(frame.index.0 + 1);
        }
        Ok(())
    }

    /// Resumes at a resume point: returns its frame, and the number of frames decoded up to and including it. Calls `seen` for every
    /// frame before it. `None` when the decoded frames differ from the recorded ones; then discard this reader.
    ///
    /// With `seek`, decoding starts at the key frame, else at the start of the video.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn resume(
        &mut self,
        seek_anchor: &SeekAnchor,
        resume_point: FrameIndex,
        seek: bool,
        mut seen: impl FnMut(&DecodedFrame),
    ) -> Result<Option<(DecodedFrame, u64)>, DecodeError> {
        if seek && !self.source.seek(seek_anchor) {
            return Ok(None);
        }
        let mut again = 0;
        let mut hash: Option<Sha256> = None;
        while let Some(mut frame) = self.next()? {
            again += 1;
            if hash.is_none() {
                let found = frame.ticks == seek_anchor.ticks && frame.key && frame.picture.is_some();
                // The same recording twice in one file has the same times and pictures twice.
                let elsewhere = frame.place.zip(seek_anchor.place).is_some_and(|(a, b)| a != b);
                let found = found && !elsewhere;
                if found && (seek || frame.index == seek_anchor.frame) {
                    self.source.set_position(seek_anchor.frame);
                    frame.index = seek_anchor.frame;
                    hash = Some(Sha256::new());
                } else if seek && frame.ticks > seek_anchor.ticks {
                    return Ok(None);
                }
            }
            let Some(hash) = &mut hash else {
                seen(&frame);
                continue;
            };
            add(hash, &frame);
            if frame.index >= resume_point {
                let same = frame.index == resume_point && hex(&hash.clone().finalize()) == seek_anchor.sha256;
                return Ok(same.then_some((frame, again)));
            }
            seen(&frame);
        }
        Ok(None)
    }
}

impl Source {
    /// Whether the stream's own times are in order so far, so that none was guessed.
    pub(super) fn ordered(&self) -> bool {
        match self {
            Source::File(reader) => reader.ordered(),
            Source::Images(_) => true,
            Source::Crops(_) => false,
        }
    }

    fn seek(&mut self, seek_anchor: &SeekAnchor) -> bool {
        match self {
            Source::File(reader) => seek_anchor.seek.is_some_and(|ticks| reader.seek(ticks)),
            Source::Images(reader) => {
                reader.seek(seek_anchor.frame);
                true
            }
            Source::Crops(_) => false,
        }
    }

    /// Sets the index of the frame returned last, and clears damage before it.
    fn set_position(&mut self, frame: FrameIndex) {
        if let Source::File(reader) = self {
            reader.set_position(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::DecodeOptions;
    use affectmill_base::Micros;
    use affectmill_base::SourceKind;
    use std::process::Command;

    /// The identity of a frame.
    fn identity(frame: &DecodedFrame) -> (u64, Option<Micros>, Option<i64>, bool, Vec<u8>) {
        let picture = frame.picture.as_ref().expect("a picture");
        let rows = (0..picture.size().height as usize).flat_map(|y| picture.plane(0).row(y).to_vec());
        (
            frame.index.0,
            frame.timestamp,
            frame.ticks,
            frame.key,
            rows.collect(),
        )
    }

    #[test]
    fn what_is_passed_over_changes_nothing_of_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b-frames.mp4");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args("-nostdin -v error -f lavfi -i testsrc2=s=96x64:d=2 -c:v libx264 -bf 3 -g 20".split(' '));
        assert!(ffmpeg.arg(&path).status().unwrap().success());
        let options = DecodeOptions {
            threads: 1,
            image_base: 1,
            image_fps: None,
            max_pixels: 1 << 20,
            max_frames: 45,
            nvdec: None,
        };
        let from = |first: u64| {
            let mut reader = VideoReader::open(&path, SourceKind::File, &options).unwrap();
            let mut passed = Vec::new();
            reader
                .pass(FrameIndex(first), |frame| passed.push(frame.0))
                .unwrap();
            assert_eq!(passed, Vec::from_iter(0..first.min(45)));
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().unwrap() {
                frames.push(identity(&frame));
            }
            (frames, reader.damage().cloned())
        };
        let (frames, damage) = from(0);
        // Of the 50 that there are, so many are let in.
        assert_eq!(frames.len(), 45);
        assert!(damage.is_some());
        for first in [1, 7, 19, 20, 21, 44, 45, 46] {
            let (rest, again) = from(first);
            assert!(rest == frames[(first as usize).min(45)..], "from frame {first}");
            assert_eq!(again, damage);
        }
    }
}
