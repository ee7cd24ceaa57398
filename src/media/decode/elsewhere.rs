//! Other video streams of the file: broadcast recordings may switch to another stream.

use super::native;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::Input;
use std::collections::BTreeMap;

/// A switch to another stream: its index and the byte offset of its first packet.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub stream: usize,
    pub place: isize,
}

/// The other streams seen so far.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// Program of the stream that is read, in a transport stream.
    program: Option<i32>,
    /// Byte offset of its last packet.
    last: Option<isize>,
    others: BTreeMap<usize, Other>,
}

struct Other {
    /// Byte offset of its first packet.
    place: isize,
    /// Time of its first packet, in ticks.
    begins: Option<i64>,
    packets: u64,
}

impl Elsewhere {
    /// The state after a switch to another stream of the same program.
    pub(super) fn moved(&self) -> Self {
        Self {
            program: self.program,
            ..Self::default()
        }
    }

    /// Records a packet of the stream that is read.
    pub(super) fn own(&mut self, input: &Input, stream: usize, packet: &ffmpeg::Packet) {
        if self.program.is_none() && self.last.is_none() {
            let programs = native::programs(input);
            let mine = programs.iter().find(|(_, streams)| streams.contains(&stream));
            self.program = mine.map(|(program, _)| *program);
        }
        self.last = self.last.max(Some(packet.position()));
    }

    /// Records a packet of another stream. Returns a switch to it when the program's table no longer lists the stream that is read,
    /// and lists this one as its only video.
    pub(super) fn other(&mut self, input: &Input, stream: usize, packet: &ffmpeg::Packet) -> Option<Move> {
        let (index, place) = (packet.stream(), packet.position());
        if place < 0 || !is_video(input, index) {
            return None;
        }
        let other = self.others.entry(index).or_insert(Other {
            place,
            begins: packet.pts().or(packet.dts()),
            packets: 0,
        });
        other.packets += 1;
        let program = self.program?;
        let programs = native::programs(input);
        let (_, listed) = programs.iter().find(|(id, _)| *id == program)?;
        let alone = listed.iter().all(|at| *at == index || !is_video(input, *at));
        let moved = Move { stream: index, place };
        (alone && listed.contains(&index) && !listed.contains(&stream)).then_some(moved)
    }

    /// The first stream that starts after the end of the one that is read: its start in ticks, and its packets.
    pub(super) fn later(&self) -> Option<(Option<i64>, u64)> {
        let end = self.last?;
        let later = self.others.values().find(|other| other.place > end);
        later.map(|other| (other.begins, other.packets))
    }
}

fn is_video(input: &Input, index: usize) -> bool {
    input.stream(index).is_some_and(|stream| {
        let cover = ffmpeg::format::stream::Disposition::ATTACHED_PIC;
        stream.parameters().medium() == ffmpeg::media::Type::Video && !stream.disposition().contains(cover)
    })
}
