//! FFmpeg functions that `ffmpeg-next` does not wrap. All `unsafe` of the decoder is here.
//!
//! In: paths, contexts and packets that `ffmpeg-next` owns. Out: plain numbers, and slices that borrow from them. It never keeps a
//! pointer beyond a call.

mod frame;

pub(super) use frame::{
    ComponentBytes, Descriptor, buffer_bytes, colour_space, descriptor, descriptor_of, pixel_aspect, plane,
    primaries, stride, transfer, transfer_number,
};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::context::Input;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Silences FFmpeg's log and loads its error texts; cheap to call again.
pub(super) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only for components that are not built in.
        let _ = ffmpeg::init();
        // SAFETY: the callback lives as long as the process.
        #[allow(unsafe_code)]
        unsafe {
            ffi::av_log_set_callback(Some(log_callback));
        }
    });
}

/// FFmpeg's log callback. It prints nothing, but some decoders report damage only in the log.
///
/// It records errors of decoders that [`listen`] registered. `A` is C's `va_list`, whose type depends on the platform.
#[allow(unsafe_code)]
unsafe extern "C" fn log_callback<A>(source: *mut c_void, level: c_int, _: *const c_char, _: A) {
    if source.is_null() || level > ffi::AV_LOG_ERROR {
        return;
    }
    // SAFETY: a log source is null or starts with a pointer to its class, which for every decoder's context is this one.
    // `opaque` is null or what `listen` stored there, which outlives the context.
    unsafe {
        if *source.cast::<*const ffi::AVClass>() == ffi::avcodec_get_class()
            && let Some(complained) = (*source.cast::<ffi::AVCodecContext>())
                .opaque
                .cast::<AtomicBool>()
                .as_ref()
        {
            complained.store(true, Ordering::Relaxed);
        }
    }
}

/// Registers a decoder, before it is opened, so that `complained` becomes true when it logs an error.
#[allow(unsafe_code)]
pub(super) fn listen(context: &mut ffmpeg::codec::Context, complained: &Complaint) {
    // SAFETY: the context is valid and borrowed mutably; one field is written, which FFmpeg leaves to its user.
    unsafe { (*context.as_mut_ptr()).opaque = std::ptr::from_ref(&*complained.0).cast_mut().cast() };
}

/// Whether a decoder logged an error. It must be dropped after the decoder.
#[derive(Default)]
pub(super) struct Complaint(Box<AtomicBool>);

impl Complaint {
    /// Whether it logged an error since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// How far FFmpeg reads to learn of a file's streams.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ProbeDepth {
    /// As ffprobe does: 5 MB or 5 seconds.
    Usual,
    /// Past minutes of sound; what is read meanwhile stays in memory.
    Far,
}

/// A stream's data in the container's header, before any packet is read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Header {
    /// Entries of its index.
    pub entries: u64,
    /// Time of the last entry that is not empty, in ticks.
    pub last: Option<i64>,
    /// Its duration in ticks.
    pub duration: Option<i64>,
    /// Its number of frames; 0 when unknown.
    pub frames: u64,
}

/// Opens a file and probes its streams; also returns the header's data on the streams that it lists.
///
/// The `file:` prefix keeps FFmpeg from interpreting the name as a protocol, an option or a pattern; the whitelist
/// keeps the file from loading anything over the network.
#[allow(unsafe_code)]
pub(super) fn open_input(
    path: &Path,
    max_pixels: u64,
    depth: ProbeDepth,
) -> Result<(Input, Vec<Header>), ffmpeg::Error> {
    let url = [b"file:", path.as_os_str().as_bytes()].concat();
    let url = CString::new(url).map_err(|_| ffmpeg::Error::Other { errno: libc::EINVAL })?;
    let mut options = ffmpeg::Dictionary::new();
    options.set("protocol_whitelist", "file");
    // As ffprobe and ffmpeg do: transport streams whose tables change are read through.
    options.set("scan_all_pmts", "1");
    if depth == ProbeDepth::Far {
        options.set("probesize", "268435456");
        options.set("analyzeduration", "7200000000");
    }
    let mut context = std::ptr::null_mut();
    // SAFETY: `url` is NUL-terminated and outlives the call; `context` and `options` are owned here; on failure
    // FFmpeg frees the context itself; what it leaves of the options goes back to an owner.
    let result = unsafe {
        let mut options = options.disown();
        let result = ffi::avformat_open_input(&mut context, url.as_ptr(), std::ptr::null(), &mut options);
        drop(ffmpeg::Dictionary::own(options));
        result
    };
    if result < 0 {
        return Err(result.into());
    }
    // SAFETY: a successful open gives a valid context that nothing else owns; `Input` closes it when dropped.
    let mut input = unsafe { Input::wrap(context) };
    let headers = input.streams().map(|stream| header(&stream)).collect();
    // Probing decodes some frames, within the same limit.
    let limit = decoders_limit(max_pixels).to_string();
    // SAFETY: the context is valid and not shared; FFmpeg reads one dictionary for each stream there is at the call, and
    // what it leaves of them goes back to owners.
    let result = unsafe {
        let streams = (*input.as_ptr()).nb_streams as usize;
        let mut options: Vec<_> = (0..streams)
            .map(|_| {
                let mut options = ffmpeg::Dictionary::new();
                options.set("max_pixels", &limit);
                options.disown()
            })
            .collect();
        let result = ffi::avformat_find_stream_info(input.as_mut_ptr(), options.as_mut_ptr());
        for left in options {
            drop(ffmpeg::Dictionary::own(left));
        }
        result
    };
    if result < 0 {
        Err(result.into())
    } else {
        Ok((input, headers))
    }
}

#[allow(unsafe_code)]
fn header(stream: &ffmpeg::Stream) -> Header {
    let known = |ticks: i64| (ticks != ffi::AV_NOPTS_VALUE && ticks > 0).then_some(ticks);
    // SAFETY: the stream is valid while borrowed; FFmpeg only reads its index, whose entries are null or valid until it changes.
    unsafe {
        let raw = stream.as_ptr();
        let entries = ffi::avformat_index_get_entries_count(raw);
        let entry = |at| ffi::avformat_index_get_entry(raw.cast_mut(), at).as_ref();
        let last = (0..entries)
            .rev()
            .filter_map(entry)
            .find(|entry| entry.size() > 0);
        Header {
            entries: entries.max(0) as u64,
            last: last.map(|entry| entry.timestamp),
            duration: known((*raw).duration),
            frames: (*raw).nb_frames.max(0) as u64,
        }
    }
}

/// The container's declared duration in microseconds; `None` when FFmpeg derived it from the times at the file's end or from the
/// bit rate.
#[allow(unsafe_code)]
pub(super) fn declared_duration(input: &Input) -> Option<i64> {
    // SAFETY: `input` holds a valid context; an enum and an integer are read.
    let (method, duration) = unsafe {
        (
            (*input.as_ptr()).duration_estimation_method,
            (*input.as_ptr()).duration,
        )
    };
    let declared = method == ffi::AVDurationEstimationMethod::AVFMT_DURATION_FROM_STREAM;
    (declared && duration > 0).then_some(duration)
}

/// The decoder's limit. It counts whole blocks and padding, so it is wider, and only protects memory; each picture is checked
/// against the precise limit.
fn decoders_limit(max_pixels: u64) -> i64 {
    let wider = max_pixels.saturating_mul(2).saturating_add(1 << 20);
    wider.min(i32::MAX as u64) as i64
}

/// Sets the limit in a decoder, before it is opened.
#[allow(unsafe_code)]
pub(super) fn limit_pixels(context: &mut ffmpeg::codec::Context, max_pixels: u64) {
    // SAFETY: the context is valid and borrowed mutably; one field is written.
    unsafe { (*context.as_mut_ptr()).max_pixels = decoders_limit(max_pixels) };
}

/// Whether the container has no list of its streams, so that more may appear.
#[allow(unsafe_code)]
pub(super) fn streams_may_follow(input: &Input) -> bool {
    // SAFETY: `input` holds a valid context; one integer is read.
    let flags = unsafe { (*input.as_ptr()).ctx_flags };
    flags & ffi::AVFMTCTX_NOHEADER as c_int != 0
}

/// The I/O error of the input, if any. Demuxers report it as damage or as the end.
#[allow(unsafe_code)]
pub(super) fn read_error(input: &Input) -> Option<std::io::Error> {
    // SAFETY: `input` holds a valid context; its byte stream is null or valid, and one integer of it is read.
    let error = unsafe { (*input.as_ptr()).pb.as_ref() }.map_or(0, |bytes| bytes.error);
    (error < 0).then(|| std::io::Error::from_raw_os_error(-error))
}

/// The container's start time in microseconds, 0 when it has none.
#[allow(unsafe_code)]
pub(super) fn start_time(input: &Input) -> i64 {
    // SAFETY: `input` holds a valid context; one integer is read.
    match unsafe { (*input.as_ptr()).start_time } {
        ffi::AV_NOPTS_VALUE => 0,
        time => time,
    }
}

/// Seeks to the last key frame at or before a time, in ticks of the stream's time base, as far as the container knows; `false` on
/// failure.
#[allow(unsafe_code)]
pub(super) fn seek(input: &mut Input, stream: usize, ticks: i64) -> bool {
    let Ok(stream) = c_int::try_from(stream) else {
        return false;
    };
    // SAFETY: the context is valid and borrowed mutably; the stream's index is one of its own.
    unsafe { ffi::av_seek_frame(input.as_mut_ptr(), stream, ticks, ffi::AVSEEK_FLAG_BACKWARD) >= 0 }
}

/// Seeks to a byte of the file; `false` on failure.
#[allow(unsafe_code)]
pub(super) fn seek_byte(input: &mut Input, place: isize) -> bool {
    // SAFETY: the context is valid and borrowed mutably.
    unsafe { ffi::av_seek_frame(input.as_mut_ptr(), -1, place as i64, ffi::AVSEEK_FLAG_BYTE) >= 0 }
}

/// Lets the demuxer discard the packets of some streams.
#[allow(unsafe_code)]
pub(super) fn discard(input: &mut Input, which: impl Fn(&ffmpeg::Stream) -> bool) {
    for mut stream in input.streams_mut() {
        if which(&stream) {
            // SAFETY: the stream belongs to the context that is borrowed mutably; one field is written.
            unsafe { (*stream.as_mut_ptr()).discard = ffi::AVDiscard::AVDISCARD_ALL };
        }
    }
}

/// The streams of each program, by the latest tables.
#[allow(unsafe_code)]
pub(super) fn programs(input: &Input) -> Vec<(c_int, Vec<usize>)> {
    // SAFETY: `input` holds a valid context; its programs are valid while it is borrowed, and their lists of streams are copied.
    unsafe {
        let raw = input.as_ptr();
        (0..(*raw).nb_programs as usize)
            .map(|at| {
                let program = *(*raw).programs.add(at);
                let streams = (0..(*program).nb_stream_indexes as usize)
                    .map(|at| *(*program).stream_index.add(at) as usize);
                ((*program).id, streams.collect())
            })
            .collect()
    }
}

/// The encryption scheme of a packet (`cenc`, `cbcs`), when the demuxer has no key for it.
#[allow(unsafe_code)]
pub(super) fn encryption(packet: &ffmpeg::Packet) -> Option<String> {
    use ffmpeg::packet::Ref;
    let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_ENCRYPTION_INFO;
    let mut size = 0;
    // SAFETY: the packet is valid while borrowed; FFmpeg returns null or `size` readable bytes owned by it. They begin with
    // the scheme, which is copied out at once.
    let scheme = unsafe {
        let data = ffi::av_packet_get_side_data(packet.as_ptr(), kind, &mut size);
        if data.is_null() || size < 4 {
            return None;
        }
        std::slice::from_raw_parts(data, 4)
    };
    Some(String::from_utf8_lossy(scheme).into_owned())
}

/// Whether the codec is intra-only.
#[allow(unsafe_code)]
pub(super) fn intra_only(codec: ffmpeg::codec::Id) -> bool {
    // SAFETY: descriptors are static tables of libavcodec; null is checked.
    let descriptor = unsafe { ffi::avcodec_descriptor_get(codec.into()).as_ref() };
    descriptor.is_some_and(|descriptor| descriptor.props & ffi::AV_CODEC_PROP_INTRA_ONLY != 0)
}

/// The stream's display matrix: nine 16.16 fixed-point numbers, row by row.
#[allow(unsafe_code)]
pub(super) fn display_matrix(stream: &ffmpeg::Stream) -> Option<[i32; 9]> {
    let mut size = 0;
    // SAFETY: the stream is valid while borrowed; FFmpeg returns null or `size` readable bytes owned by it,
    // which are copied out at once.
    let bytes = unsafe {
        let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX;
        let data = ffi::av_stream_get_side_data(stream.as_ptr(), kind, &mut size);
        if data.is_null() {
            return None;
        }
        std::slice::from_raw_parts(data, size)
    };
    matrix_from(bytes)
}

/// The container's pixel aspect of a stream; 0 when it is unknown.
#[allow(unsafe_code)]
pub(super) fn container_aspect(stream: &ffmpeg::Stream) -> ffmpeg::Rational {
    // SAFETY: the stream is valid while borrowed; two integers are read.
    unsafe { (*stream.as_ptr()).sample_aspect_ratio }.into()
}

/// Width and height of a stream's pictures by the header; 0 when they are unknown.
#[allow(unsafe_code)]
pub(super) fn declared_size(stream: &ffmpeg::Stream) -> (u32, u32) {
    // SAFETY: the stream and its parameters are valid while borrowed; two integers are read.
    let (width, height) = unsafe {
        let parameters = (*stream.as_ptr()).codecpar;
        ((*parameters).width, (*parameters).height)
    };
    (width.max(0) as u32, height.max(0) as u32)
}

/// Whether the pictures are Dolby Vision without a compatible base layer: profile 5, and others that declare none.
#[allow(unsafe_code)]
pub(super) fn is_dolby_vision_only(stream: &ffmpeg::Stream) -> bool {
    let mut size = 0;
    let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_DOVI_CONF;
    // SAFETY: the stream is valid while borrowed; FFmpeg returns null or `size` readable bytes owned by it, which are read at
    // once. They are an `AVDOVIDecoderConfigurationRecord`: two of version, profile, level, three flags, compatibility.
    let record = unsafe {
        let data = ffi::av_stream_get_side_data(stream.as_ptr(), kind, &mut size);
        if data.is_null() || size < 8 {
            return false;
        }
        std::slice::from_raw_parts(data, 8)
    };
    record[7] == 0
}

/// Sets a decoder's reorder delay, before it is opened, to the maximum of H.264. For a stream that was not probed it would guess,
/// and drop late pictures.
#[allow(unsafe_code)]
pub(super) fn expect_reordering(context: &mut ffmpeg::codec::Context) {
    // SAFETY: the context is valid and borrowed mutably; one field is written.
    unsafe { (*context.as_mut_ptr()).has_b_frames = MOST_REORDERED };
}

/// Maximum reorder delay of H.264 in pictures (ITU-T H.264, table A-1: `MaxDpbFrames`).
const MOST_REORDERED: c_int = 16;

/// The codec's header in the container.
#[allow(unsafe_code)]
pub(super) fn codec_header<'a>(stream: &'a ffmpeg::Stream<'_>) -> &'a [u8] {
    // SAFETY: the stream and its parameters are valid while borrowed; FFmpeg never changes the header of an open stream, and
    // null is checked.
    unsafe {
        let parameters = (*stream.as_ptr()).codecpar;
        let (data, size) = ((*parameters).extradata, (*parameters).extradata_size);
        if data.is_null() || size <= 0 {
            &[]
        } else {
            std::slice::from_raw_parts(data, size as usize)
        }
    }
}

/// Whether the pictures of a stream are known to be whole frames, not pairs of fields.
#[allow(unsafe_code)]
pub(super) fn is_progressive(stream: &ffmpeg::Stream) -> bool {
    // SAFETY: the stream and its parameters are valid while borrowed; an enum is read.
    let order = unsafe { (*(*stream.as_ptr()).codecpar).field_order };
    order == ffi::AVFieldOrder::AV_FIELD_PROGRESSIVE
}

/// Reads nine native-endian integers.
pub(super) fn matrix_from(bytes: &[u8]) -> Option<[i32; 9]> {
    let (numbers, _) = bytes.as_chunks::<4>();
    let numbers: &[[u8; 4]; 9] = numbers.get(..9)?.try_into().ok()?;
    Some(numbers.map(i32::from_ne_bytes))
}
