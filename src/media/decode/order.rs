//! Frames in the order in which they are shown, held back until nothing that they lean on can turn out damaged.
//!
//! A picture may lean on one that is decoded before it and shown after it, and a decoder says what is damaged when it shows it.
//! So a frame waits for all whose packets came before its own: as many as the codec reorders, which the decoder holds too.

use super::DecodedFrame;
use ffmpeg_next::Packet;
use ffmpeg_next::frame::Video;
use ffmpeg_next::picture::Type;
use std::collections::VecDeque;

/// Frames held back at most: as many as H.264 and HEVC reorder.
const MOST_HELD: usize = 16;
/// Packets that are kept in mind: more than any decoder holds back.
const MOST_SENT: usize = 256;

/// Packets under way, and frames that wait.
#[derive(Default)]
pub(super) struct Order {
    sent: VecDeque<Sent>,
    packets: u64,
    held: VecDeque<Held>,
}

/// A packet that the decoder has and has not shown.
pub(super) struct Sent {
    /// Presentation time in ticks.
    time: i64,
    number: u64,
    /// Of a key frame: where it lies in the file.
    pub place: Option<i64>,
    /// The file breaks off in it.
    pub torn: bool,
}

struct Held {
    frame: DecodedFrame,
    /// Its packet's, where that is known.
    number: Option<u64>,
    /// Without a number: it may lean on what is shown later.
    between: bool,
}

impl Order {
    /// A packet on its way to the decoder.
    pub(super) fn see(&mut self, packet: &Packet) {
        self.packets += 1;
        let Some(time) = packet.pts() else { return };
        if self.sent.len() == MOST_SENT {
            self.sent.pop_front();
        }
        let place = packet.is_key().then_some(packet.position() as i64);
        self.sent.push_back(Sent {
            time,
            number: self.packets,
            place: place.filter(|place| *place >= 0),
            torn: packet.is_corrupt(),
        });
    }

    /// The packet of a frame that is shown now. Those of earlier times will not be shown any more.
    pub(super) fn packet_of(&mut self, frame: &Video) -> Option<Sent> {
        let time = frame.pts()?;
        let at = self.sent.iter().position(|sent| sent.time == time)?;
        let found = self.sent.remove(at);
        self.sent.retain(|sent| sent.time >= time);
        found
    }

    /// A damaged frame is shown, with this packet: pictures before it that were decoded after it may lean on it, and go. Returns
    /// the first of them.
    pub(super) fn spoil(&mut self, packet: Option<&Sent>) -> Option<&DecodedFrame> {
        let later = |held: &Held| match (held.number, packet) {
            (Some(number), Some(packet)) => number > packet.number,
            _ => true,
        };
        let mut first = None;
        for held in self.held.iter_mut().filter(|held| later(held)) {
            held.frame.picture = None;
            first = first.or(Some(&held.frame));
        }
        first
    }

    /// Adds a frame behind those that wait.
    pub(super) fn push(&mut self, frame: DecodedFrame, packet: Option<&Sent>, kind: Type) {
        self.held.push_back(Held {
            frame,
            number: packet.map(|packet| packet.number),
            between: kind == Type::B,
        });
    }

    /// Whether the next frame has waited long enough.
    pub(super) fn is_ready(&self) -> bool {
        let Some(next) = self.held.front() else {
            return false;
        };
        let waits = match next.number {
            Some(number) => self.sent.iter().any(|sent| sent.number < number),
            None => self.held.iter().all(|held| held.between),
        };
        !waits || self.held.len() > MOST_HELD
    }

    /// The next frame, ready or not.
    pub(super) fn pop(&mut self) -> Option<DecodedFrame> {
        self.held.pop_front().map(|held| held.frame)
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> u64 {
        self.held.len() as u64
    }

    /// The decoder has shown everything: nothing needs to be waited for.
    pub(super) fn end(&mut self) {
        self.sent.clear();
        self.held.iter_mut().for_each(|held| held.between = false);
    }

    /// Numbers the frames that wait anew, from this one on.
    pub(super) fn renumber(&mut self, first: u64) {
        for (held, index) in self.held.iter_mut().zip(first..) {
            held.frame.index.0 = index;
        }
    }
}
