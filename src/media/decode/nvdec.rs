//! Whether FFmpeg can use NVDEC, NVIDIA's decoder, on this machine, apart from the GPU itself.

use super::native;
use ffmpeg_next::ffi;
use std::ffi::{CStr, c_int};

/// The driver's decoder, which FFmpeg opens by this name when it first decodes on a GPU.
const LIBRARY: &CStr = c"libnvcuvid.so.1";

/// Checks that FFmpeg can use NVDEC here.
///
/// # Errors
/// What is missing and how to install it.
pub fn available() -> Result<(), String> {
    native::init();
    if !has_cuda() {
        return Err(
            "FFmpeg was built without NVIDIA's decoder; install a build with it, such as Debian's libavcodec59".into(),
        );
    }
    if !can_be_opened(LIBRARY) {
        return Err(format!(
            "the driver's decoder {} is missing; install it (Debian: libnvcuvid1; Ubuntu: libnvidia-decode of the driver's \
             version), and start containers with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video",
            LIBRARY.to_string_lossy()
        ));
    }
    Ok(())
}

/// Whether FFmpeg was built with CUDA among its hardware devices.
#[allow(unsafe_code)]
fn has_cuda() -> bool {
    let mut kind = ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_NONE;
    loop {
        // SAFETY: it reads a table of constants, and takes any kind that it gave, or none.
        kind = unsafe { ffi::av_hwdevice_iterate_types(kind) };
        match kind {
            ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_NONE => return false,
            ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_CUDA => return true,
            _ => {}
        }
    }
}

/// Whether the dynamic linker finds a library and its dependencies.
#[allow(unsafe_code)]
fn can_be_opened(library: &CStr) -> bool {
    const FLAGS: c_int = libc::RTLD_LAZY | libc::RTLD_LOCAL;
    // SAFETY: the name is NUL-terminated; a library's constructors run as they do when FFmpeg opens it; the handle is closed
    // once, and nothing of the library was kept.
    unsafe {
        let handle = libc::dlopen(library.as_ptr(), FLAGS);
        !handle.is_null() && libc::dlclose(handle) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_opened_where_it_is_and_missed_where_it_is_not() {
        assert!(can_be_opened(c"libc.so.6"));
        assert!(!can_be_opened(c"libaffectmill-has-none-such.so.1"));
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        if let Err(cause) = available() {
            assert!(cause.contains("install"), "{cause}");
        }
    }
}
