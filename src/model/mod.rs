//! The paper's models on libtorch: weights in, batches of faces in, rows of outputs out.
//!
//! ```text
//!  .pt .pth .ckpt .safetensors ─► import ─► safetensors ─► StateDict ─► Network { Body ─► Readout } ─► rows
//!                          init ───────────────┘  describe: sha256, fit                ▲ Batch
//! ```
//!
//! The only room where `tch` is named. Depends on [`crate::domain`] alone. It never decides where rows go, never opens a
//! video, starts no thread and prints nothing; libtorch is called through its fallible methods only, so that a bad
//! tensor is an error and never a panic.

mod centerface;
mod checkpoint;
mod describe;
mod device;
mod dtype;
mod error;
mod import;
#[cfg(test)]
mod import_tests;
mod init;
mod layout;
mod network;
mod onednn;
mod onnx;
mod pickle;
#[cfg(test)]
mod pyramid;
mod readout;
mod resnet;
mod state;
#[cfg(test)]
mod tests;

pub use centerface::{
    DETECTOR_ARCHITECTURE, DETECTOR_BATCH, DETECTOR_GRID, Detection, Detector, import_detector,
};
pub use describe::{WeightsInfo, describe, describe_detector};
pub use device::{Device, libtorch_version, self_test, set_threads};
pub use error::ModelError;
pub use import::{Imported, import_weights};
pub use init::init_weights;
pub use network::{Batch, Network};
pub use state::{Array, StateDict};

/// Id of the architecture: ResNet-50, a pyramid of 256 channels, the mean of each of its 5 levels.
pub const ARCHITECTURE: &str = "resnet50-fpn256-mean5";
/// Id of the preprocessing the models expect: the whole picture, resized to 128×128 by antialiased bilinear
/// interpolation, normalised as for ImageNet.
pub const PREPROCESSING: &str = "full_frame-128x128-bilinear_aa-imagenet";
/// Height and width of the input in pixels.
pub const INPUT_SIZE: usize = 128;
/// Values of one sample: `[3, 128, 128]`, planes R, G, B, normalised.
pub const INPUT_LEN: usize = 3 * INPUT_SIZE * INPUT_SIZE;
/// Mean of R, G, B over ImageNet, of values in [0, 1] (torchvision's reference training).
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of R, G, B over ImageNet, of values in [0, 1] (torchvision's reference training).
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
