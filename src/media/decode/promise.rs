//! Compares a video's declared length with what was read, because a truncated file reads like a complete one.

use super::native;
use crate::boxes::{BOX_HEADER, BoxHeader};
use crate::decode::container;
use crate::decode::container::{Container, time_base};
use affectmill_base::TimeBase;
use ffmpeg_next as ffmpeg;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Tolerance in short files: this fraction of the duration may be missing, and never more than [`SLACK`].
const SLACK_SHARE: i64 = 10;
/// Tolerance in microseconds: containers' durations are rounded and include audio padding.
const SLACK: i64 = 1_000_000;
/// Longer durations stand for an unknown one.
const LONGEST: i64 = 1_000_000 * 3_600 * 24 * 365;
/// Sound that reaches the end is searched in this many microseconds before it.
const TAIL: i64 = 10_000_000;
/// Bytes in which an ASF file has its properties.
const ASF_HEADER: u64 = 64 << 10;

/// The declared length of one file, and what was read so far.
pub(super) struct Promise {
    base: TimeBase,
    /// The header of the stream.
    header: native::Header,
    /// Declared duration in microseconds.
    duration: Option<i64>,
    /// Start time of the container, in microseconds.
    start: i64,
    /// Whether this is the only stream.
    alone: bool,
    /// The file is shorter than its container declares.
    cut: bool,
    /// An MP4 ends before its last box does.
    last_box_is_cut: bool,
    /// Packets were skipped by a seek, so their count is unknown.
    sought: bool,
    received: Received,
}

/// What received of the stream, in packets and ticks.
#[derive(Default)]
struct Received {
    packets: u64,
    /// The latest decoding time, and that packet's duration.
    last: Option<(i64, i64)>,
    /// End time of the last picture.
    end: Option<i64>,
    /// The longest interval between packets.
    step: i64,
}

impl Promise {
    /// For a container that was just opened.
    pub(super) fn of(path: &Path, container: &Container) -> Self {
        let Container {
            input,
            stream,
            header,
        } = container;
        let base = input.stream(*stream).map(|stream| time_base(&stream));
        let base = base.unwrap_or(TimeBase { num: 0, den: 0 });
        let rate = input.stream(*stream).map_or(0.0, |stream| {
            let rate = stream.avg_frame_rate();
            f64::from(rate.numerator()) / f64::from(rate.denominator().max(1))
        });
        // AVI counts its frames in front; that is all there is where the index, which comes behind, is lost.
        let counted = (header.entries == 0 && header.frames > 0 && rate > 0.0)
            .then(|| (header.frames as f64 * 1e6 / rate) as i64);
        let format = input.format();
        let format = format.name();
        let own = header.duration.and_then(|ticks| base.micros(ticks));
        let declared = [
            own.map(|time| time.0),
            native::declared_duration(input),
            counted,
            in_the_bytes(path, format),
        ];
        Self {
            base,
            header: *header,
            duration: declared
                .into_iter()
                .flatten()
                .filter(|declared| *declared < LONGEST)
                .max(),
            start: native::start_time(input),
            alone: input.nb_streams() == 1,
            cut: format.starts_with("matroska") && segment_is_cut(path),
            last_box_is_cut: format.starts_with("mov,") && last_box_is_cut(path).unwrap_or(false),
            sought: false,
            received: Received::default(),
        }
    }

    /// Records a seek.
    pub(super) fn seek(&mut self) {
        self.received = Received::default();
        self.sought = true;
    }

    /// Records a packet of the stream.
    pub(super) fn see(&mut self, packet: &ffmpeg::Packet) {
        let received = &mut self.received;
        received.packets += 1;
        let lasts = packet.duration().max(0);
        if let Some(time) = packet.dts().or(packet.pts()) {
            if let Some((last, _)) = received.last {
                received.step = received.step.max(time.saturating_sub(last));
            }
            if received.last.is_none_or(|(last, _)| time > last) {
                received.last = Some((time, lasts));
            }
        }
        let end = packet
            .pts()
            .or(packet.dts())
            .map(|time| time.saturating_add(lasts));
        received.end = received.end.max(end);
    }

    /// What is missing now that the file is at its end and gave so many frames, in words: `ends at 2.680 s of 5.280 s: …`.
    /// `None` when nothing is missing, or nothing was declared.
    ///
    /// * An **index** that was read with the header (MP4 and MOV, also of fragments; AVI) is a promise to the packet: its
    ///   last entry must have come. When it lists as many packets as the header counts frames, durations are ignored,
    ///   because those of edited and patched files are often wrong. Entries that the edit list hides
    ///   come as packets and count as such, so a file that shows fewer frames than it contains is complete.
    /// * A **count** of frames without an index, as of an AVI that lost its end, is a promise to the packet too.
    /// * Else a **duration** that the file declares (Matroska, FLV, ASF, MXF, RealMedia, IVF, fragmented MP4) is a promise of the
    ///   container: the video must end there, or some other stream must, as sound does that is longer than its picture. Tolerated: a second, or a tenth of a short file, because such durations are rounded and padded; and the longest
    ///   interval between frames, because the last frame's end is not always known. Where the file is shorter than its
    ///   container says in bytes (Matroska), only half that interval.
    /// * **Bytes**: a fragmented MP4 promises the whole of its last box, sound and all.
    /// * Values that FFmpeg derives from the packets **do not count**: durations from the last time stamps (MPEG-TS, MPEG-PS,
    ///   NUT, Ogg, GIF) or from the bit rate (raw streams, live recordings without a duration). Such files may be cut off
    ///   without a trace.
    pub(super) fn missing(&self, path: &Path, stream: usize, frames: u64) -> Option<String> {
        let header = &self.header;
        let whole_index =
            (self.received.packets..=header.frames).contains(&header.entries) && header.entries > 0;
        let duration = self.duration.filter(|_| !whole_index);
        if let Some(last) = header.last
            && self
                .received
                .last
                .is_none_or(|(time, lasts)| last > time && last >= time + lasts)
        {
            let lasts = self.received.last.map_or(0, |(_, lasts)| lasts);
            let promised = self.micros(last.saturating_add(lasts)).max(duration)?;
            return Some(format!(
                "{}: {frames} of the {} frames in its index came",
                self.ends_at(promised),
                header.entries
            ));
        }
        let cut_off = || {
            let end = self.received.end.and_then(|end| self.micros(end)).unwrap_or(0) as f64 / 1e6;
            format!("ends at {end:.3} s, within a box that the file cuts off")
        };
        let fragment_is_cut = self.last_box_is_cut && header.frames == 0;
        let Some(promised) = duration else {
            return fragment_is_cut.then(cut_off);
        };
        let end = self.received.end.and_then(|end| self.micros(end)).unwrap_or(0);
        // Some containers count from 0, others from their first time.
        let reached = end.max(end - self.start);
        let step = self.micros(self.received.step).unwrap_or(0);
        let slack = if self.cut {
            step / 2
        } else {
            SLACK.min(promised / SLACK_SHARE) + step
        };
        let counted = header.entries == 0 && !self.sought && self.received.packets < header.frames;
        if counted {
            let count = format!("{frames} of the {} frames in its header came", header.frames);
            return Some(format!("{}: {count}", self.ends_at(promised)));
        }
        if reached + slack >= promised || (!self.alone && another_reaches(path, stream, promised - slack)) {
            return fragment_is_cut.then(cut_off);
        }
        Some(format!("{}, which its header promises", self.ends_at(promised)))
    }

    fn ends_at(&self, promised: i64) -> String {
        let end = self.received.end.and_then(|end| self.micros(end)).unwrap_or(0);
        format!(
            "ends at {:.3} s of {:.3} s",
            end as f64 / 1e6,
            promised as f64 / 1e6
        )
    }

    fn micros(&self, ticks: i64) -> Option<i64> {
        self.base.micros(ticks).map(|time| time.0)
    }
}

/// Whether another stream has a packet that ends at or after `until`, in microseconds.
fn another_reaches(path: &Path, but: usize, until: i64) -> bool {
    let Ok(Container { mut input, .. }) = container::open(path, u64::MAX) else {
        return false;
    };
    let start = native::start_time(&input);
    native::discard(&mut input, |stream| stream.index() == but);
    // Without a seek it reads from the start.
    let _ = input.seek(until - TAIL, ..until);
    let bases: Vec<_> = input.streams().map(|stream| time_base(&stream)).collect();
    let ends = |packet: &ffmpeg::Packet| {
        let end = packet.pts().or(packet.dts())? + packet.duration().max(0);
        let end = bases.get(packet.stream())?.micros(end)?.0;
        Some(end.max(end - start))
    };
    let mut packet = ffmpeg::Packet::empty();
    while packet.read(&mut input).is_ok() {
        if packet.stream() != but && ends(&packet).is_some_and(|end| end >= until) {
            return true;
        }
    }
    false
}

/// Whether the last of the boxes that lie one behind the other ends beyond the file (ISO/IEC 14496-12, 4.2).
fn last_box_is_cut(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut at = 0;
    while at < length {
        let head = box_head(&mut file, at)?;
        let Some(found) = BoxHeader::read(&head) else {
            let is_long = head.starts_with(&1_u32.to_be_bytes());
            return Ok(head.len() < 8 || (is_long && head.len() < 16));
        };
        // To the end of the file; or bytes that are no box, as some writers leave behind.
        let (Some(size), true) = (
            found.length,
            found.kind.iter().all(|letter| (0x20..0x7F).contains(letter)),
        ) else {
            return Ok(false);
        };
        at = at.saturating_add(size);
    }
    Ok(at > length)
}

/// Whether a Matroska file ends before its segment does, which says its size in bytes unless it was recorded live.
fn segment_is_cut(path: &Path) -> bool {
    let ends = || {
        let mut file = File::open(path).ok()?;
        let (head, content) = element(&mut file, 0)?;
        let (segment, begins) = element(&mut file, content.checked_add(head)?)?;
        Some(begins.checked_add(segment)? > file.metadata().ok()?.len())
    };
    ends().unwrap_or(false)
}

/// The size of the EBML element at a place, and where its content begins (RFC 8794, 4 and 5). `None` where it has no size.
fn element(file: &mut File, at: u64) -> Option<(u64, u64)> {
    let mut bytes = [0; 12];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    let id = bytes[0].leading_zeros() as usize + 1;
    let length = bytes.get(id)?.leading_zeros() as usize + 1;
    let size = bytes.get(id..id + length)?;
    let size = size
        .iter()
        .fold(0, |size: u64, byte| size << 8 | u64::from(*byte));
    let unknown = (1 << (7 * length)) - 1;
    let size = size & unknown;
    (size != unknown).then_some((size, at + (id + length) as u64))
}

/// Durations that FFmpeg does not report, in microseconds: of all fragments of an MP4, and of a truncated ASF file.
fn in_the_bytes(path: &Path, format: &str) -> Option<i64> {
    let mut file = File::open(path).ok()?;
    match format {
        format if format.starts_with("mov,") => fragments(&mut file),
        "asf" => play_duration(&mut file),
        _ => None,
    }
}

/// The `mehd` of a fragmented MP4 (ISO/IEC 14496-12, 8.8.2), in the movie's time scale.
fn fragments(file: &mut File) -> Option<i64> {
    let movie = within(file, 0..u64::MAX, b"moov")?;
    let header = within(file, movie.clone(), b"mvhd")?;
    let extends = within(file, movie, b"mvex")?;
    let all = within(file, extends, b"mehd")?;
    // Version and flags; then two dates, of 4 bytes each, or of 8 in version 1, before the time scale.
    let number = |file: &mut File, at: u64, wide: bool| {
        let mut bytes = [0; 8];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut bytes[if wide { 0 } else { 4 }..]).ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let wide = |file: &mut File, at| Some(number(file, at, false)? >> 24 == 1);
    let dates = if wide(file, header.start)? { 16 } else { 8 };
    let scale = number(file, header.start + 4 + dates, false).filter(|scale| *scale > 0)?;
    let version_1 = wide(file, all.start)?;
    let units = number(file, all.start + 4, version_1)?;
    i64::try_from(u128::from(units) * 1_000_000 / u128::from(scale)).ok()
}

/// The bytes at a place in which the header of a box lies; fewer at the end of the file.
fn box_head(file: &mut File, at: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut head = Vec::new();
    file.take(BOX_HEADER).read_to_end(&mut head)?;
    Ok(head)
}

/// Where the content of the first box of a kind lies, among boxes that lie one behind the other.
fn within(file: &mut File, boxes: std::ops::Range<u64>, kind: &[u8; 4]) -> Option<std::ops::Range<u64>> {
    let mut at = boxes.start;
    while at < boxes.end {
        let found = BoxHeader::read(&box_head(file, at).ok()?)?;
        let end = at.checked_add(found.length.unwrap_or(boxes.end - at))?;
        if &found.kind == kind {
            return Some(at + found.header..end.min(boxes.end));
        }
        at = end;
    }
    None
}

/// The play duration without preroll in the file properties of an ASF file (its specification, 3.2); `None` of a broadcast,
/// whose properties are not filled in.
fn play_duration(file: &mut File) -> Option<i64> {
    const PROPERTIES: [u8; 16] = [
        0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11, 0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65,
    ];
    let mut bytes = Vec::new();
    file.take(ASF_HEADER).read_to_end(&mut bytes).ok()?;
    let at = bytes.windows(16).position(|window| window == PROPERTIES)?;
    // Size of the object, id, size of the file, date, packets; then what is looked for.
    let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (duration, preroll) = (number(at + 64)?, number(at + 80)?);
    let broadcast = number(at + 88)? & 1 == 1;
    let micros = (duration / 10).checked_sub(preroll.checked_mul(1_000)?)?;
    i64::try_from(micros).ok().filter(|_| !broadcast)
}
