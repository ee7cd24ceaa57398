//! The paper's training, and how well labels agree with what people annotated.
//!
//! Flows in: committed labels, crops, annotations. Flows out: measures, calibrations, weights. Nothing here prints.

pub mod annotations;
pub mod calibration;
pub mod evaluate;
pub mod labels;
pub mod metrics;
pub mod names;
pub mod pairing;
