//! The devices for a job's models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `run.device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// GPUs where there are any, else the CPU.
    #[default]
    Auto,
    /// The CPU, though there are GPUs.
    Cpu,
    /// NVIDIA GPUs, and nothing else.
    Cuda,
}
