//! The few doors to FFmpeg that `ffmpeg-next` leaves shut. All `unsafe` of the decoder is in this file.
//!
//! Flows in: paths, contexts and frames that `ffmpeg-next` owns. Flows out: plain numbers and slices that borrow
//! from them. Never keeps a pointer beyond a call.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Silences FFmpeg's log and loads its error texts; cheap to call again.
pub(super) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only for parts that are not built in.
        let _ = ffmpeg::init();
        // SAFETY: the callback lives as long as the process.
        #[allow(unsafe_code)]
        unsafe {
            ffi::av_log_set_callback(Some(heard));
        }
    });
}

/// What FFmpeg says: nothing of it is printed, but some decoders tell damage in no other way.
///
/// Errors of decoders that are listened to (see [`listen`]) are noted. `A` is C's list of arguments, another type on each
/// kind of machine.
#[allow(unsafe_code)]
unsafe extern "C" fn heard<A>(speaker: *mut c_void, level: c_int, _: *const c_char, _: A) {
    if speaker.is_null() || level > ffi::AV_LOG_ERROR {
        return;
    }
    // SAFETY: whatever FFmpeg logs for is null or begins with a pointer to its class; that of every decoder's context is this
    // one. `opaque` is null or what `listen` put there, which outlives the context.
    unsafe {
        if *speaker.cast::<*const ffi::AVClass>() == ffi::avcodec_get_class()
            && let Some(complained) = (*speaker.cast::<ffi::AVCodecContext>())
                .opaque
                .cast::<AtomicBool>()
                .as_ref()
        {
            complained.store(true, Ordering::Relaxed);
        }
    }
}

/// Lets `complained` become true whenever this decoder, which is not open yet, speaks of an error.
#[allow(unsafe_code)]
pub(super) fn listen(context: &mut ffmpeg::codec::Context, complained: &Complaint) {
    // SAFETY: the context is valid and borrowed mutably; one field is written, which FFmpeg leaves to its user.
    unsafe { (*context.as_mut_ptr()).opaque = std::ptr::from_ref(&*complained.0).cast_mut().cast() };
}

/// Whether a decoder spoke of an error. To be dropped after it.
#[derive(Default)]
pub(super) struct Complaint(Box<AtomicBool>);

impl Complaint {
    /// Whether it did since this was last asked.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Opens a file and reads as much as tells its streams.
///
/// The `file:` prefix keeps FFmpeg from reading a protocol, an option or a pattern into the name; the whitelist
/// keeps the file from drawing in anything over the network.
#[allow(unsafe_code)]
pub(super) fn open_input(path: &Path, max_pixels: u64) -> Result<Input, ffmpeg::Error> {
    let url = [b"file:", path.as_os_str().as_bytes()].concat();
    let url = CString::new(url).map_err(|_| ffmpeg::Error::Other { errno: libc::EINVAL })?;
    let mut options = ffmpeg::Dictionary::new();
    options.set("protocol_whitelist", "file");
    // As ffprobe and ffmpeg do: transport streams whose tables change are read through.
    options.set("scan_all_pmts", "1");
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
    // It decodes some frames to learn about them: within the same limit.
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
    if result < 0 { Err(result.into()) } else { Ok(input) }
}

/// Decoders count whole blocks and padding, so theirs is a wider limit, for what would fill the memory; the precise one is
/// held against each picture.
fn decoders_limit(max_pixels: u64) -> i64 {
    let wider = max_pixels.saturating_mul(2).saturating_add(1 << 20);
    wider.min(i32::MAX as u64) as i64
}

/// Tells a decoder that is not open yet to refuse pictures far larger than this.
#[allow(unsafe_code)]
pub(super) fn limit_pixels(context: &mut ffmpeg::codec::Context, max_pixels: u64) {
    // SAFETY: the context is valid and borrowed mutably; one field is written.
    unsafe { (*context.as_mut_ptr()).max_pixels = decoders_limit(max_pixels) };
}

/// The error that the system gave instead of bytes, if it ever did. Demuxers report it as damage, or as the end.
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

/// Goes to the last key frame at or before a time, in ticks of the stream's time base, as far as the container knows; `false`
/// when it cannot.
#[allow(unsafe_code)]
pub(super) fn seek(input: &mut Input, stream: usize, ticks: i64) -> bool {
    let Ok(stream) = c_int::try_from(stream) else {
        return false;
    };
    // SAFETY: the context is valid and borrowed mutably; the stream's index is one of its own.
    unsafe { ffi::av_seek_frame(input.as_mut_ptr(), stream, ticks, ffi::AVSEEK_FLAG_BACKWARD) >= 0 }
}

/// Tells the demuxer to throw away every stream but one.
#[allow(unsafe_code)]
pub(super) fn discard_others(input: &mut Input, keep: usize) {
    for mut stream in input.streams_mut() {
        if stream.index() != keep {
            // SAFETY: the stream belongs to the context that is borrowed mutably; one field is written.
            unsafe { (*stream.as_mut_ptr()).discard = ffi::AVDiscard::AVDISCARD_ALL };
        }
    }
}

/// Whether every frame of the codec stands on its own.
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

/// Width ÷ height of a pixel as the container tells it, else as the decoder does for this frame; 1 when neither does. The
/// container goes first, as in FFmpeg's `av_guess_sample_aspect_ratio`.
pub(super) fn pixel_aspect(container: ffmpeg::Rational, frame: &Video) -> f64 {
    let known = |ratio: &ffmpeg::Rational| ratio.numerator() > 0 && ratio.denominator() > 0;
    let ratio = [container, frame.aspect_ratio()].into_iter().find(known);
    ratio.map_or(1.0, |ratio| {
        f64::from(ratio.numerator()) / f64::from(ratio.denominator())
    })
}

/// What the container says of a stream's pixel aspect; 0 when nothing.
#[allow(unsafe_code)]
pub(super) fn container_aspect(stream: &ffmpeg::Stream) -> ffmpeg::Rational {
    // SAFETY: the stream is valid while borrowed; two integers are read.
    unsafe { (*stream.as_ptr()).sample_aspect_ratio }.into()
}

/// Width and height of a stream's pictures as the header tells them; 0 when it does not.
#[allow(unsafe_code)]
pub(super) fn declared_size(stream: &ffmpeg::Stream) -> (u32, u32) {
    // SAFETY: the stream and its parameters are valid while borrowed; two integers are read.
    let (width, height) = unsafe {
        let parameters = (*stream.as_ptr()).codecpar;
        ((*parameters).width, (*parameters).height)
    };
    (width.max(0) as u32, height.max(0) as u32)
}

/// Reads nine native-endian integers.
pub(super) fn matrix_from(bytes: &[u8]) -> Option<[i32; 9]> {
    let (numbers, _) = bytes.as_chunks::<4>();
    let numbers: &[[u8; 4]; 9] = numbers.get(..9)?.try_into().ok()?;
    Some(numbers.map(i32::from_ne_bytes))
}

/// The frame's colour matrix as numbered by ITU-T H.273, read as a number because a stream may hold one that the
/// binding's enum does not know.
#[allow(unsafe_code)]
pub(super) fn colour_space(frame: &Video) -> u32 {
    // SAFETY: the frame is valid; the field is a C enum of 4 bytes, read as an integer.
    unsafe { (&raw const (*frame.as_ptr()).colorspace).cast::<u32>().read() }
}

/// Where one component of a pixel lies, in the terms of `AVComponentDescriptor`.
#[derive(Clone, Copy)]
pub(super) struct ComponentBytes {
    /// Plane.
    pub plane: usize,
    /// Bytes from one pixel to the next.
    pub step: usize,
    /// Bytes before the first.
    pub offset: usize,
    /// Low bits that are no part of the value.
    pub shift: u32,
    /// Bits of the value.
    pub depth: u32,
}

/// A pixel format, in the terms of `AVPixFmtDescriptor`.
pub(super) struct Descriptor {
    /// Components, alpha last.
    pub components: Vec<ComponentBytes>,
    /// Powers of two by which chroma is subsampled, across and down.
    pub chroma_shift: (u32, u32),
    /// `AV_PIX_FMT_FLAG_…`.
    pub flags: u64,
}

/// Describes the frame's pixel format; `None` for a format FFmpeg has no description of.
pub(super) fn descriptor(frame: &Video) -> Option<Descriptor> {
    descriptor_of(frame.format().into())
}

/// Describes a pixel format.
#[allow(unsafe_code)]
pub(super) fn descriptor_of(format: ffi::AVPixelFormat) -> Option<Descriptor> {
    // SAFETY: descriptors are static tables of libavutil; null is checked.
    let raw = unsafe { ffi::av_pix_fmt_desc_get(format).as_ref() }?;
    let components = raw.comp.iter().take(raw.nb_components.into());
    let components = components.map(|c| ComponentBytes {
        plane: c.plane as usize,
        step: c.step as usize,
        offset: c.offset as usize,
        shift: c.shift as u32,
        depth: c.depth as u32,
    });
    Some(Descriptor {
        components: components.collect(),
        chroma_shift: (raw.log2_chroma_w.into(), raw.log2_chroma_h.into()),
        flags: raw.flags,
    })
}

/// Bytes from one row of a plane to the next; negative when the rows lie bottom up, 0 when there is no plane.
#[allow(unsafe_code)]
pub(super) fn stride(frame: &Video, plane: usize) -> isize {
    // SAFETY: the frame is valid; an array of integers is copied.
    let strides = unsafe { (*frame.as_ptr()).linesize };
    strides.get(plane).map_or(0, |&bytes| bytes as isize)
}

/// The bytes of a plane from its first sample to its last: `rows − 1` strides and one row of `row_bytes`. Empty
/// when the plane is missing or its rows lie bottom up.
#[allow(unsafe_code)]
pub(super) fn plane(frame: &Video, plane: usize, rows: usize, row_bytes: usize) -> &[u8] {
    let stride = usize::try_from(stride(frame, plane)).unwrap_or(0);
    // SAFETY: the frame is valid; an array of pointers is copied.
    let data = unsafe { (*frame.as_ptr()).data };
    let data = data.get(plane).copied().unwrap_or(std::ptr::null_mut());
    if data.is_null() || rows == 0 || stride < row_bytes {
        return &[];
    }
    let length = (rows - 1) * stride + row_bytes;
    // SAFETY: a frame of this size and format holds `rows` rows of at least `row_bytes` bytes, `stride` apart;
    // they live as long as the frame, which is borrowed and never written while it is a picture.
    unsafe { std::slice::from_raw_parts(data, length) }
}

/// Bytes of memory the frame holds on to.
#[allow(unsafe_code)]
pub(super) fn buffer_bytes(frame: &Video) -> usize {
    // SAFETY: the frame is valid; an array of pointers is copied.
    let buffers = unsafe { (*frame.as_ptr()).buf };
    buffers
        .iter()
        // SAFETY: buffers are null or valid while the frame lives.
        .filter_map(|buffer| unsafe { buffer.as_ref() })
        .map(|buffer| buffer.size)
        .sum()
}
