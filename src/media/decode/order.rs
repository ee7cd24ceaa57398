//! Buffers frames in presentation order until none of their reference pictures can turn out damaged.
//!
//! A picture may refer to one that is decoded before it and shown after it, and a decoder reports damage when it shows a picture.
//! So a frame waits for all whose packets came before its own: at most the codec's reorder delay, as in the decoder itself.

use super::DecodedFrame;
use ffmpeg_next::Packet;
use ffmpeg_next::frame::Video;
use ffmpeg_next::picture::Type;
use std::collections::VecDeque;

/// Frames buffered back at most: as many as H.264 and HEVC reorder.
const MAX_BUFFERED: usize = 16;
/// Maximum packets remembered: more than any decoder buffers.
const MAX_SENT: usize = 256;

/// Packets in the decoder, and buffered frames.
#[derive(Default)]
pub(super) struct Order {
    sent: VecDeque<Sent>,
    packets: u64,
    buffered: VecDeque<BufferedFrame>,
}

/// A packet whose frame the decoder has not returned yet.
pub(super) struct Sent {
    /// Presentation time in ticks.
    time: i64,
    number: u64,
    /// Byte offset of a key frame.
    pub place: Option<i64>,
    /// The file ends inside it.
    pub truncated: bool,
}

struct BufferedFrame {
    frame: DecodedFrame,
    /// Number of its packet, when it is known.
    number: Option<u64>,
    /// Without a number: it may refer to later pictures.
    between: bool,
}

impl Order {
    /// Records a packet before it goes to the decoder.
    pub(super) fn see(&mut self, packet: &Packet) {
        self.packets += 1;
        let Some(time) = packet.pts() else { return };
        if self.sent.len() == MAX_SENT {
            self.sent.pop_front();
        }
        let place = packet.is_key().then_some(packet.position() as i64);
        self.sent.push_back(Sent {
            time,
            number: self.packets,
            place: place.filter(|place| *place >= 0),
            truncated: packet.is_corrupt(),
        });
    }

    /// Removes and returns the packet of a frame that the decoder returned, and drops packets of earlier times.
    pub(super) fn packet_of(&mut self, frame: &Video) -> Option<Sent> {
        let time = frame.pts()?;
        let at = self.sent.iter().position(|sent| sent.time == time)?;
        let found = self.sent.remove(at);
        self.sent.retain(|sent| sent.time >= time);
        found
    }

    /// Drops buffered pictures that were decoded after a damaged frame's packet, because they may refer to it. Returns the first.
    pub(super) fn discard_damaged(&mut self, packet: Option<&Sent>) -> Option<&DecodedFrame> {
        let later = |buffered: &BufferedFrame| match (buffered.number, packet) {
            (Some(number), Some(packet)) => number > packet.number,
            _ => true,
        };
        let mut first = None;
        for buffered in self.buffered.iter_mut().filter(|buffered| later(buffered)) {
            buffered.frame.picture = None;
            first = first.or(Some(&buffered.frame));
        }
        first
    }

    /// Appends a frame.
    pub(super) fn push(&mut self, frame: DecodedFrame, packet: Option<&Sent>, kind: Type) {
        self.buffered.push_back(BufferedFrame {
            frame,
            number: packet.map(|packet| packet.number),
            between: kind == Type::B,
        });
    }

    /// Whether the next frame can be returned.
    pub(super) fn is_ready(&self) -> bool {
        let Some(next) = self.buffered.front() else {
            return false;
        };
        let waits = match next.number {
            Some(number) => self.sent.iter().any(|sent| sent.number < number),
            None => self.buffered.iter().all(|buffered| buffered.between),
        };
        !waits || self.buffered.len() > MAX_BUFFERED
    }

    /// The next frame, ready or not.
    pub(super) fn pop(&mut self) -> Option<DecodedFrame> {
        self.buffered.pop_front().map(|buffered| buffered.frame)
    }

    /// Number of buffered frames.
    pub(super) fn len(&self) -> u64 {
        self.buffered.len() as u64
    }

    /// Marks the end of the decoder's frames: all buffered frames are ready.
    pub(super) fn end(&mut self) {
        self.sent.clear();
        self.buffered
            .iter_mut()
            .for_each(|buffered| buffered.between = false);
    }

    /// Renumbers the buffered frames from `first`.
    pub(super) fn renumber(&mut self, first: u64) {
        for (buffered, index) in self.buffered.iter_mut().zip(first..) {
            buffered.frame.index.0 = index;
        }
    }
}
