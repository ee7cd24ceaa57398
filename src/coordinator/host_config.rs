//! The workers of one host, and what each of them is told of the job.

use super::Earlier;
use affectmill_base::InputFolders;
use affectmill_base::Location;
use affectmill_labelset::JobRecord;
use affectmill_nn::{Device, Gpus};
use affectmill_queue::{Assignment, PROTOCOL};
use std::collections::BTreeMap;

/// What the dispatcher of a host needs to know, wherever its shards come from.
#[derive(Clone, Debug)]
pub struct HostConfig<'a> {
    /// The job, with its models' checksums.
    pub record: &'a JobRecord,
    /// What the video keys are relative to.
    pub input_root: &'a Location,
    /// Which folder that was when the run began; of a bucket nothing.
    pub folders: InputFolders,
    /// Where the faces are that the job takes over, as far as leases do not say.
    pub earlier: &'a Earlier,
    /// The device of each worker.
    pub devices: Vec<String>,
    /// What kind of GPU a device is, as far as its driver tells.
    pub gpus: BTreeMap<String, String>,
    /// Threads each worker may keep busy.
    pub threads: usize,
    /// Bytes of scratch space that each worker may fill with videos from S3.
    pub fetch_bytes: u64,
}

/// The names of those devices that are GPUs.
pub fn gpu_names(devices: &[String]) -> BTreeMap<String, String> {
    let gpus = Gpus::open();
    let name = |text: &String| Some((text.clone(), gpus.name_of(Device::parse(text).ok()?)?));
    devices.iter().filter_map(name).collect()
}

impl HostConfig<'_> {
    /// What the workers compute on, each once: `cuda:0 (NVIDIA H100 80GB HBM3)`, `cpu, 8 threads`.
    pub fn devices_in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for device in &self.devices {
            let said = match (self.gpus.get(device), device.starts_with("cuda")) {
                (Some(gpu), _) => format!("{device} ({gpu})"),
                (None, true) => device.clone(),
                (None, false) => {
                    let each = if self.devices.len() > 1 { " each" } else { "" };
                    let threads = if self.threads == 1 { "thread" } else { "threads" };
                    format!("{device}, {} {threads}{each}", self.threads)
                }
            };
            if !words.contains(&said) {
                words.push(said);
            }
        }
        words
    }

    /// What a worker on this device is told.
    pub fn assignment(&self, device: &str) -> Assignment {
        Assignment {
            protocol: PROTOCOL,
            job: self.record.clone(),
            input_root: self.input_root.clone(),
            folders: self.folders.clone(),
            device: device.to_owned(),
            threads: self.threads,
            fetch_bytes: self.fetch_bytes,
        }
    }
}
