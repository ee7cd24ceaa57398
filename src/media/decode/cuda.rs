//! NVDEC, NVIDIA's decoder, through FFmpeg: the device, the decoder's format negotiation, the planes of its frames. All its
//! `unsafe` is in this file.
//!
//! FFmpeg uses the GPU's primary context and default stream, as libtorch does. So pictures stay on the GPU, and all work on them
//! is in order.

use crate::decode::native;
use crate::decode::native::Descriptor;
use affectmill_nn::{Device, GpuPicture, PlaneMemory};
use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

/// FFmpeg's context of a GPU. It lives as long as the process, because decoders and frames refer to it.
struct Gpu {
    /// A reference to an `AVHWDeviceContext` that is never released.
    context: *mut ffi::AVBufferRef,
}

/// `AVCUDADeviceContext` of hwcontext_cuda.h, which the binding lacks because the header needs CUDA's.
#[repr(C)]
struct CudaContext {
    context: *mut c_void,
    stream: *mut c_void,
    internal: *mut c_void,
}

impl Gpu {
    /// The GPU with this index in CUDA's numbering for this process.
    ///
    /// # Errors
    /// Why not, in words.
    fn open(index: usize) -> Result<Self, String> {
        /// Addresses of the contexts, which are valid in any thread.
        static OPENED: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, address)) = opened.iter().find(|(other, _)| *other == index) {
            let context = *address as *mut ffi::AVBufferRef;
            return Ok(Self { context });
        }
        let context = device_context(primary_context(index)?)?;
        opened.push((index, context as usize));
        Ok(Self { context })
    }
}

/// The primary context of a GPU, retained for the life of the process.
#[allow(unsafe_code)]
fn primary_context(index: usize) -> Result<*mut c_void, String> {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Retain = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
    let library = c"libcuda.so.1";
    // SAFETY: the driver's library has these functions with these signatures in every version since CUDA 7; it stays loaded.
    unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        if handle.is_null() {
            return Err("libcuda.so.1 cannot be loaded: install NVIDIA's driver".into());
        }
        let function = |name: &CStr| {
            let address = libc::dlsym(handle, name.as_ptr());
            let missing = || format!("libcuda.so.1 has no {}", name.to_string_lossy());
            (!address.is_null()).then_some(address).ok_or_else(missing)
        };
        let init = std::mem::transmute::<*mut c_void, Init>(function(c"cuInit")?);
        let get = std::mem::transmute::<*mut c_void, Get>(function(c"cuDeviceGet")?);
        let retain = std::mem::transmute::<*mut c_void, Retain>(function(c"cuDevicePrimaryCtxRetain")?);
        let (mut device, mut context) = (0, null_mut());
        let number = c_int::try_from(index).unwrap_or(c_int::MAX);
        for (doing, result) in [
            ("cuInit", init(0)),
            ("cuDeviceGet", get(&mut device, number)),
            ("cuDevicePrimaryCtxRetain", retain(&mut context, device)),
        ] {
            if result != 0 {
                return Err(format!("{doing} of GPU {index} failed with CUDA error {result}"));
            }
        }
        Ok(context)
    }
}

/// An `AVHWDeviceContext` over a borrowed CUDA context.
#[allow(unsafe_code)]
fn device_context(cuda: *mut c_void) -> Result<*mut ffi::AVBufferRef, String> {
    // SAFETY: a new device context is written before it is initialised, as FFmpeg asks; its `hwctx` is an
    // `AVCUDADeviceContext`, whose first two fields are FFmpeg's user's to set. What fails is given back.
    unsafe {
        let mut context = ffi::av_hwdevice_ctx_alloc(ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_CUDA);
        if context.is_null() {
            return Err("this FFmpeg is built without CUDA".into());
        }
        let device = (*context).data.cast::<ffi::AVHWDeviceContext>();
        let inner = (*device).hwctx.cast::<CudaContext>();
        (*inner).context = cuda;
        (*inner).stream = null_mut();
        let result = ffi::av_hwdevice_ctx_init(context);
        if result < 0 {
            ffi::av_buffer_unref(&mut context);
            let error = ffmpeg::Error::from(result);
            return Err(format!("FFmpeg cannot use the GPU's context: {error}"));
        }
        Ok(context)
    }
}

/// Codecs with bit-exact decoding, so that every GPU and the CPU give the same pictures.
const EXACT: [ffmpeg::codec::Id; 4] = [
    ffmpeg::codec::Id::H264,
    ffmpeg::codec::Id::HEVC,
    ffmpeg::codec::Id::VP8,
    ffmpeg::codec::Id::VP9,
];
/// Extra surfaces, because some streams understate how many they need. NVDEC allows at most 32 per stream.
const EXTRA_SURFACES: c_int = 2;

/// Configures a decoder, before it is opened, to use a GPU when possible.
///
/// # Errors
/// Why the GPU cannot decode this stream.
#[allow(unsafe_code)]
pub(super) fn configure(context: &mut ffmpeg::codec::Context, gpu: usize) -> Result<(), String> {
    let name = context.id().name();
    if !EXACT.contains(&context.id()) {
        return Err(format!(
            "of {name}, decoders may differ in their last bits, so it is left to the CPU"
        ));
    }
    let gpu = Gpu::open(gpu)?;
    // SAFETY: the context is valid and borrowed mutably; configurations are static tables that end with null; the reference is
    // a new one, which the context gives back when it is freed.
    unsafe {
        let raw = context.as_mut_ptr();
        let codec = ffi::avcodec_find_decoder((*raw).codec_id);
        let configured = !codec.is_null()
            && (0..)
                .map_while(|n| ffi::avcodec_get_hw_config(codec, n).as_ref())
                .any(|config| {
                    config.device_type == ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_CUDA
                        && config.methods & ffi::AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX as c_int != 0
                });
        if !configured {
            let decoder = codec.as_ref().map_or("none", |codec| {
                CStr::from_ptr(codec.name).to_str().unwrap_or("the one here")
            });
            return Err(format!(
                "FFmpeg's decoder of {name}, {decoder}, does not use NVDEC"
            ));
        }
        if (*raw).height % 2 == 1 {
            return Err("NVDEC gives no usable picture of an odd height".into());
        }
        (*raw).hw_device_ctx = ffi::av_buffer_ref(gpu.context);
        (*raw).get_format = Some(choose);
        (*raw).extra_hw_frames = EXTRA_SURFACES;
    }
    Ok(())
}

/// Selects CUDA frames when the decoder offers them, else its preferred format. FFmpeg calls it again without them when the GPU
/// refuses. 4:2:2 and 4:4:0 are excluded, because FFmpeg treats them as 4:2:0 there.
#[allow(unsafe_code)]
unsafe extern "C" fn choose(
    context: *mut ffi::AVCodecContext,
    formats: *const ffi::AVPixelFormat,
) -> ffi::AVPixelFormat {
    // SAFETY: FFmpeg passes a list that ends with NONE, and a valid context.
    unsafe {
        let halved_once = native::descriptor_of((*context).sw_pix_fmt)
            .is_some_and(|software| software.chroma_shift.0 != software.chroma_shift.1);
        let mut format = formats;
        while *format != ffi::AVPixelFormat::AV_PIX_FMT_NONE {
            if *format == ffi::AVPixelFormat::AV_PIX_FMT_CUDA && !halved_once {
                return *format;
            }
            format = format.add(1);
        }
        ffi::avcodec_default_get_format(context, formats)
    }
}

/// Whether the frame is in GPU memory.
pub(super) fn on_gpu(frame: &Video) -> bool {
    frame.format() == ffmpeg::format::Pixel::CUDA
}

/// Whether a GPU frame has no picture. FFmpeg returns such frames when it could not start decoding one.
#[allow(unsafe_code)]
pub(super) fn is_empty(frame: &Video) -> bool {
    // SAFETY: the frame is valid; a pointer is read.
    unsafe { (*frame.as_ptr()).data[0].is_null() }
}

/// Rejects GPU frames whose planes differ from FFmpeg's description: there it crops only at the right and the bottom, and assumes
/// an even height.
#[allow(unsafe_code)]
pub(super) fn is_supported(frame: &Video) -> Result<(), String> {
    // SAFETY: the frame is valid; two integers are read.
    let (left, top) = unsafe { ((*frame.as_ptr()).crop_left, (*frame.as_ptr()).crop_top) };
    if (left, top) == (0, 0) && frame.height().is_multiple_of(2) {
        return Ok(());
    }
    Err("NVDEC gives no usable picture where the stream crops it at the left or the top, or of an odd height; set decode = \"cpu\"".into())
}

/// Checks that this process can decode on a GPU.
///
/// # Errors
/// Why not, in words.
pub fn check_gpu(gpu: usize) -> Result<(), String> {
    native::init();
    Gpu::open(gpu).map(|_| ())
}

/// Checks that a GPU still computes.
///
/// # Errors
/// CUDA's error.
pub(super) fn is_responsive(gpu: usize) -> Result<(), String> {
    Device::cuda(gpu)
        .is_responsive()
        .map_err(|error| error.to_string())
}

/// The pixel format of a GPU frame.
#[allow(unsafe_code)]
pub(super) fn descriptor(frame: &Video) -> Option<Descriptor> {
    // SAFETY: a frame on a GPU has a frames context, whose format of the pixels is an integer that was set when it was made.
    let format = unsafe {
        let frames = (*frame.as_ptr()).hw_frames_ctx.as_ref()?;
        (*frames.data.cast::<ffi::AVHWFramesContext>()).sw_format
    };
    native::descriptor_of(format)
}

/// Copies the planes of a GPU frame within GPU memory. `planes` gives rows and samples of each plane, `bytes` the size of a sample.
///
/// # Errors
/// In words.
#[allow(unsafe_code)]
pub(super) fn copy_planes(
    frame: &Video,
    gpu: usize,
    planes: &[(usize, usize)],
    bytes: usize,
) -> Result<GpuPicture, String> {
    // SAFETY: the frame is valid; an array of pointers is copied.
    let addresses = unsafe { (*frame.as_ptr()).data };
    let memory = planes
        .iter()
        .enumerate()
        .map(|(n, &(rows, samples))| PlaneMemory {
            address: addresses[n],
            rows,
            samples,
            bytes,
            stride: native::stride(frame, n).unsigned_abs(),
        });
    let memory: Vec<_> = memory.collect();
    if memory
        .iter()
        .any(|plane| plane.address.is_null() || plane.stride < plane.samples * bytes)
    {
        return Err("a picture on the GPU lacks a plane".into());
    }
    // SAFETY: the decoder laid so many rows of at least so many samples into the memory of this GPU; the frame lives until the
    // copy stands in the order of the default stream, in which the decoder will write the memory again.
    unsafe { GpuPicture::copied(Device::cuda(gpu), &memory) }.map_err(|error| error.to_string())
}
