//! oneDNN's convolution on the CPU, with the ReLU and the addition after it fused in, and weights in the layout that it
//! wants: the one thing that `tch` does not wrap. `shim.cpp` calls libtorch's operators of that name.

use std::ffi::{CStr, c_char};
use tch::{TchError, Tensor};

/// The binding's handle to a tensor, a pointer to a C++ `at::Tensor`.
type Handle = *mut std::ffi::c_void;

const ROOM: usize = 1024;

#[allow(unsafe_code)]
unsafe extern "C" {
    fn affectmill_be_exact();
    fn affectmill_pack(
        weight: Handle,
        padding: i64,
        stride: i64,
        groups: i64,
        input: *const i64,
        error: *mut c_char,
        room: usize,
    ) -> Handle;
    fn affectmill_conv(
        x: Handle,
        weight: Handle,
        bias: Handle,
        padding: i64,
        stride: i64,
        groups: i64,
        relu: bool,
        error: *mut c_char,
        room: usize,
    ) -> Handle;
    fn affectmill_conv_add_relu(
        sum: Handle,
        x: Handle,
        weight: Handle,
        bias: Handle,
        padding: i64,
        stride: i64,
        groups: i64,
        error: *mut c_char,
        room: usize,
    ) -> Handle;
}

/// Disables, for the whole process, inexact (TF32) and non-deterministic GPU algorithms. Cheap to call again.
#[allow(unsafe_code)]
pub(super) fn set_deterministic() {
    // SAFETY: it takes nothing and sets four flags of libtorch's context, which it guards itself.
    unsafe { affectmill_be_exact() };
}

/// A convolution's geometry, alike in both directions.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub padding: i64,
    pub stride: i64,
    /// Groups of independent channels.
    pub groups: i64,
}

/// The weight `[C′, C ÷ groups, k, k]` in the layout that oneDNN wants for inputs `[N, C, H, W]`; good for any N.
#[allow(unsafe_code)]
pub(super) fn pack(weight: &Tensor, geometry: Geometry, input: [i64; 4]) -> Result<Tensor, TchError> {
    // SAFETY: the handle is valid while `weight` is borrowed, the array has the 4 numbers that are read.
    called(|error| unsafe {
        affectmill_pack(
            handle(weight),
            geometry.padding,
            geometry.stride,
            geometry.groups,
            input.as_ptr(),
            error,
            ROOM,
        )
    })
}

/// `conv(x)`, or `relu(conv(x))`.
#[allow(unsafe_code)]
pub(super) fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    relu: bool,
) -> Result<Tensor, TchError> {
    // SAFETY: the handles are valid while the tensors are borrowed.
    called(|error| unsafe {
        affectmill_conv(
            handle(x),
            handle(weight),
            handle(bias),
            geometry.padding,
            geometry.stride,
            geometry.groups,
            relu,
            error,
            ROOM,
        )
    })
}

/// `relu(conv(x) + sum)`, in the memory of `sum`, which nothing else may read any more.
#[allow(unsafe_code)]
pub(super) fn conv_add_relu(
    sum: Tensor,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
) -> Result<Tensor, TchError> {
    // SAFETY: the handles are valid while the tensors live.
    called(|error| unsafe {
        affectmill_conv_add_relu(
            handle(&sum),
            handle(x),
            handle(weight),
            handle(bias),
            geometry.padding,
            geometry.stride,
            geometry.groups,
            error,
            ROOM,
        )
    })
}

fn handle(tensor: &Tensor) -> Handle {
    tensor.as_ptr().cast_mut().cast()
}

#[allow(unsafe_code)]
fn called(call: impl FnOnce(*mut c_char) -> Handle) -> Result<Tensor, TchError> {
    let mut error = [0; ROOM];
    let made = call(error.as_mut_ptr().cast());
    if made.is_null() {
        let text = CStr::from_bytes_until_nul(&error).unwrap_or_default();
        return Err(TchError::Torch(text.to_string_lossy().into_owned()));
    }
    // SAFETY: a new `at::Tensor` that the shim made for us and forgot.
    Ok(unsafe { Tensor::from_ptr(made.cast()) })
}
