//! The paper's models on libtorch: weights in, batches of faces in, rows of outputs out.
//!
//! ```text
//!  .pt .pth .ckpt .safetensors ─► import ─► safetensors ─► StateDict ─► Network { Body ─► Readout, or Xception } ─► rows
//!           .hdf5 (mini-Xception) ─┘   │     describe: sha256, fit         ▲ Batch
//!                                    init                  TorchScript ─► Script, instead of layers of ours ─┘
//! ```
//!
//! `Trainable` is the same network with its weights apart and their gradients, for [`affectmill_evaluation`], the other room where
//! `tch` is named. Depends on [`affectmill_base`] alone. It never decides where rows go, never opens a
//! video, starts no thread and prints nothing; libtorch is called through its fallible methods only, so that a bad
//! tensor is an error and never a panic.

mod batch;
mod body;
mod centerface;
mod checkpoint;
mod describe;
mod device;
mod dtype;
mod error;
mod file;
#[cfg(any(test, feature = "testing"))]
pub mod golden;
mod gpus;
mod import;
#[cfg(test)]
mod import_tests;
mod init;
mod keras;
mod layout;
mod network;
mod onednn;
mod onnx;
mod pickle;
#[cfg(test)]
mod pyramid;
mod readout;
mod resnet;
mod script;
mod state;
mod surface;
#[cfg(test)]
mod tests;
mod toner;
mod trainable;
mod xception;

pub use batch::{Batch, GpuSample, Sample};
pub use centerface::{
    DETECTOR_ARCHITECTURE, DETECTOR_BATCH, DETECTOR_GRID, Detection, Detector, Pictures, import_detector,
};
pub use describe::{WeightsInfo, describe, describe_detector, stated_crop};
pub use device::{Device, libtorch_version, set_threads};
pub use error::ModelError;
pub use file::WeightFile;
pub use gpus::{Gpu, Gpus, Load};
pub use import::{Imported, import_weights};
pub use init::init_weights;
pub use network::Network;
pub use script::describe_script;
pub use state::{Array, StateDict};
pub use surface::{Affine, Colours, ComponentLayout, GpuPicture, PlaneMemory, Resampler, Warper, Weights};
pub use trainable::{BODY_LAYERS, Trainable, batch_tensor, values};

use affectmill_base::ModelKind;

/// Id of the architecture of a kind: `resnet50-fpn256-mean5` is ResNet-50, a pyramid of 256 channels, the mean of each of
/// its 5 levels.
pub fn architecture(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Student | ModelKind::TeacherVa | ModelKind::TeacherExpr | ModelKind::TeacherAu => {
            "resnet50-fpn256-mean5"
        }
        ModelKind::MiniXception => "mini_xception",
    }
}

/// What a kind makes of the values of a crop, as the end of its preprocessing id: `imagenet`, normalised as for
/// ImageNet; `grey64`, luma (BT.601) of 64×64 pixels in −1…1, each the mean of 2×2.
pub fn input_id(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Student | ModelKind::TeacherVa | ModelKind::TeacherExpr | ModelKind::TeacherAu => {
            "imagenet"
        }
        ModelKind::MiniXception => "grey64",
    }
}

/// As [`input_id`], of a TorchScript module.
pub const SCRIPT_INPUT_ID: &str = "imagenet";
