//! `device.json`: what a label set was begun on, and what each of its shards was labelled on.
//!
//! Rows differ in their last bits between classes of devices, and a GPU that is gone is no reason to go on at a hundredth of
//! the speed without a word.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `device.json`: what the first shard was labelled on. Create-only.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Format version.
    pub version: u32,
    /// The device.
    pub device: ShardDevice,
}

/// What a shard was labelled on.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ShardDevice {
    /// Its class.
    pub class: DeviceClass,
    /// The kind of GPU, such as `NVIDIA H100 80GB HBM3`, where its driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A class of devices. Within one of them, kinds of GPU may differ in the last bits of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceClass::Cpu => "cpu",
            DeviceClass::Cuda => "cuda",
        })
    }
}

impl fmt::Display for ShardDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.class),
            None => write!(f, "{}", self.class),
        }
    }
}
