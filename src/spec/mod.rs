//! The job file: TOML in, a validated [`Job`] out, and the fingerprint of everything that can change a label.
//!
//! Flows in: the text of a job file and `--set` overrides. Flows out: a [`Job`] whose paths are absolute.
//! Never opens a video, a model or a device.

mod job;

pub use job::{FaceMode, Faces, Input, Job, ModelSpec, Output, Run, Sampling, SamplingMode, Values};
