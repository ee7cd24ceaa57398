//! Recovery points (ITU-T H.264, D.2.8): after them an H.264 stream without key frames is intact again. Encoders with intra
//! refresh write them (video calls, drones, `x264 --intra-refresh`).
//!
//! FFmpeg's decoder exposes only those that take effect at once, as key frames. So they are parsed from the packets here.

use super::native;
use ffmpeg_next::codec::Id;
use ffmpeg_next::{Packet, Stream};

/// Types of NAL units (ITU-T H.264, table 7-1).
const SLICE: u8 = 1;
const SLICE_OF_IDR: u8 = 5;
const SEI: u8 = 6;
/// Type of the recovery point message.
const RECOVERY_POINT: usize = 6;

/// Finds recovery points in the packets of a progressive H.264 stream.
pub(super) struct Recovery {
    /// Bytes of a unit's length in front of it; without, units begin with start codes.
    length: Option<usize>,
    /// Reference pictures so far.
    references: u64,
    /// Number of reference pictures after which pictures are intact.
    due: Option<u64>,
    /// Presentation time from which they are intact, in ticks.
    from: Option<i64>,
}

impl Recovery {
    /// `None` for other streams. Interlaced streams count pictures differently and are ignored.
    pub(super) fn of(stream: &Stream) -> Option<Self> {
        let header = native::codec_header(stream);
        let progressive = native::is_progressive(stream);
        (stream.parameters().id() == Id::H264 && progressive).then(|| Self {
            length: (header.len() > 4 && header[0] == 1).then(|| usize::from(header[4] & 3) + 1),
            references: 0,
            due: None,
            from: None,
        })
    }

    /// Records a packet, which is one picture, before it goes to the decoder.
    pub(super) fn see(&mut self, packet: &Packet) {
        let (mut reference, mut point) = (false, None);
        for unit in units(packet.data().unwrap_or_default(), self.length) {
            match unit[0] & 31 {
                SLICE | SLICE_OF_IDR => reference |= unit[0] >> 5 & 3 != 0,
                SEI => point = point.or(recovery_point(&unit[1..])),
                _ => {}
            }
        }
        // The recovery point is the picture whose frame_num is so much greater; frame_num counts reference pictures.
        if let Some(frames) = point {
            self.due.get_or_insert(self.references + frames);
        }
        if self.due.is_some_and(|due| self.references >= due) {
            self.due = None;
            self.from = self.from.or(packet.pts());
        }
        self.references += u64::from(reference);
    }

    /// Discards recovery points before new damage.
    pub(super) fn forget(&mut self) {
        (self.due, self.from) = (None, None);
    }

    /// Whether a picture of this presentation time is intact, despite damage before the recovery point.
    pub(super) fn reached(&self, time: Option<i64>) -> bool {
        matches!((self.from, time), (Some(from), Some(time)) if time >= from)
    }
}

/// The NAL units of a packet, none of them empty.
fn units(bytes: &[u8], length: Option<usize>) -> Vec<&[u8]> {
    let mut units = Vec::new();
    let mut rest = bytes;
    match length {
        Some(length) => {
            while let Some((size, after)) = rest.split_at_checked(length) {
                let size = size.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
                let Some((unit, after)) = after.split_at_checked(size) else {
                    break;
                };
                units.push(unit);
                rest = after;
            }
        }
        None => {
            let starts = rest
                .windows(3)
                .enumerate()
                .filter(|(_, three)| *three == [0, 0, 1]);
            let starts: Vec<usize> = starts.map(|(at, _)| at + 3).collect();
            let ends = starts.iter().skip(1).map(|start| start - 3).chain([rest.len()]);
            units.extend(starts.iter().zip(ends).map(|(start, end)| &rest[*start..end]));
        }
    }
    units.retain(|unit| !unit.is_empty());
    units
}

/// Frames until the pictures are exactly those of an undamaged stream, where an SEI unit says so.
fn recovery_point(unit: &[u8]) -> Option<u64> {
    let bytes = unescaped(unit);
    let mut rest = bytes.as_slice();
    // At least a type, a size and the bits that end a unit.
    while rest.len() > 2 {
        let (kind, after) = number(rest)?;
        let (size, after) = number(after)?;
        let (payload, after) = after.split_at_checked(size)?;
        if kind == RECOVERY_POINT {
            let mut bits = Bits {
                bytes: payload,
                at: 0,
            };
            let frames = bits.exp_golomb()?;
            let (exact, broken) = (bits.bit()?, bits.bit()?);
            return (exact && !broken).then_some(frames);
        }
        rest = after;
    }
    None
}

/// A unit without its emulation prevention bytes: each 3 after two zeros.
fn unescaped(unit: &[u8]) -> Vec<u8> {
    let (mut bytes, mut zeros) = (Vec::with_capacity(unit.len()), 0);
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    bytes
}

/// A type or a size of a message: bytes of 255 are added up, and the first other one.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|byte| **byte == 255).count();
    let last = bytes.get(full)?;
    Some((255 * full + usize::from(*last), &bytes[full + 1..]))
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        self.at += 1;
        Some(byte >> (7 - (self.at - 1) % 8) & 1 == 1)
    }

    /// ue(v): so many zeros, a one, and as many bits.
    fn exp_golomb(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
        }
        if zeros > 31 {
            return None;
        }
        let mut value = 1;
        for _ in 0..zeros {
            value = value << 1 | u64::from(self.bit()?);
        }
        Some(value - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_point_is_read_from_among_other_messages() {
        // Three bytes of type 5, one of them escaped. Then type 6: 9 is 0001010 in ue(v), exact is 1, broken 0, two bits more.
        let unit = [5, 3, 0, 0, 3, 1, 6, 2, 0b0001_0101, 0b0001_0000, 0x80];
        assert_eq!(recovery_point(&unit), Some(9));
        let broken = [6, 1, 0b1111_0000, 0x80];
        assert_eq!(recovery_point(&broken), None);
        let inexact = [6, 1, 0b1000_0000, 0x80];
        assert_eq!(recovery_point(&inexact), None);
        assert_eq!(recovery_point(&[6, 9, 1]), None);
        assert_eq!(recovery_point(&[255, 255]), None);
    }

    #[test]
    fn units_are_found_by_lengths_and_by_start_codes() {
        let by_length = [0, 2, 0x67, 1, 0, 0, 0, 1, 0x41];
        assert_eq!(units(&by_length, Some(2)), [&[0x67, 1][..], &[0x41]]);
        let by_code = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x41, 9];
        assert_eq!(units(&by_code, None), [&[0x67, 1][..], &[0x41, 9]]);
        assert!(units(&[0, 9, 1], Some(2)).is_empty());
        assert!(units(&[], None).is_empty());
    }
}
