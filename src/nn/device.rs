//! Devices of tensors, and the machine as libtorch sees it.

use super::ModelError;
use super::error::tells_of_memory;
use std::fmt;
use std::path::Path;

/// The CPU or one CUDA GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(tch::Device);

impl Device {
    /// The CPU.
    pub fn cpu() -> Self {
        Self(tch::Device::Cpu)
    }

    /// The GPU with this index, counted from 0 among those the process can see.
    pub fn cuda(index: usize) -> Self {
        Self(tch::Device::Cuda(index))
    }

    /// Reads `cpu`, `cuda` (the first GPU) or `cuda:N`. Says nothing about whether the device exists.
    ///
    /// # Errors
    /// [`ModelError::Device`] for any other text.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let index = match text {
            "cpu" => return Ok(Self::cpu()),
            "cuda" => Some(0),
            _ => text
                .strip_prefix("cuda:")
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse::<u16>().ok()),
        };
        index
            .map(|index| Self::cuda(index.into()))
            .ok_or_else(|| ModelError::Device {
                device: text.to_owned(),
                cause: "no such kind of device".to_owned(),
            })
    }

    /// The GPU's index; `None` for the CPU.
    pub fn gpu(self) -> Option<usize> {
        match self.0 {
            tch::Device::Cuda(index) => Some(index),
            _ => None,
        }
    }

    /// Number of CUDA GPUs libtorch can use; 0 with a CPU-only libtorch.
    pub fn cuda_count() -> usize {
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    }

    /// Why libtorch cannot see a GPU, although the machine seems to have one.
    pub fn missing_gpu() -> Option<&'static str> {
        let driver = Path::new("/proc/driver/nvidia/version").exists();
        (driver && Self::cuda_count() == 0).then_some(
            "an NVIDIA driver is loaded but libtorch sees no GPU: build with `TORCH=cuda make setup`, and look at \
             CUDA_VISIBLE_DEVICES",
        )
    }

    /// The device of each worker, as text: the GPUs in turn, or the CPU without any.
    pub fn in_turn(workers: usize, gpus: usize) -> Vec<String> {
        let device = |n| match gpus {
            0 => Self::cpu(),
            gpus => Self::cuda(n % gpus),
        };
        (0..workers).map(|n| device(n).to_string()).collect()
    }

    /// Rejects a missing GPU, and sets an existing one to deterministic computation.
    pub(super) fn require(self) -> Result<(), ModelError> {
        let count = Self::cuda_count();
        if count > 0 {
            super::onednn::set_deterministic();
        }
        match self.0 {
            tch::Device::Cuda(index) if index >= count => Err(ModelError::Device {
                device: self.to_string(),
                cause: format!("libtorch sees {count} GPUs"),
            }),
            _ => Ok(()),
        }
    }

    /// Whether it computes in bf16. On x86 oneDNN requires these three; elsewhere libtorch decides.
    pub(super) fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.0 == tch::Device::Cpu {
            return is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
        }
        true
    }

    pub(super) fn tch(self) -> tch::Device {
        self.0
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            tch::Device::Cuda(index) => write!(f, "cuda:{index}"),
            _ => f.write_str("cpu"),
        }
    }
}

/// The libtorch release this program is bound to. The binding does not build against another one, and libtorch
/// has no call for the version of the loaded library.
pub fn libtorch_version() -> String {
    "2.11.0".to_owned()
}

/// Sets how many threads libtorch uses inside one operation on the CPU, for the whole process. Labels do not
/// depend on it. Zero counts as one.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

impl Device {
    /// Copies a number to the device and back. This fails when the GPU is lost or its context in this process is broken; a GPU that
    /// is out of memory responds.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn is_responsive(self) -> Result<(), ModelError> {
        let there_and_back = || {
            tch::Tensor::f_from_slice(&[1.0_f32])?
                .f_to_device(self.0)?
                .f_double_value(&[])
        };
        match there_and_back() {
            Err(cause) if !tells_of_memory(&cause) => Err(ModelError::torch("reaching the device")(cause)),
            _ => Ok(()),
        }
    }

    /// Multiplies two small matrices on the device, which fails when the device or libtorch is broken.
    ///
    /// # Errors
    /// [`ModelError::Torch`] when libtorch refuses; [`ModelError::Device`] when the product is wrong.
    pub fn check(self) -> Result<(), ModelError> {
        let product = || {
            let matrix = tch::Tensor::f_from_slice(&[1.0_f32, 2.0, 3.0, 4.0])?
                .f_view([2, 2])?
                .f_to_device(self.0)?;
            matrix
                .f_matmul(&matrix)?
                .f_sum(tch::Kind::Float)?
                .f_double_value(&[])
        };
        match product().map_err(ModelError::torch("multiplying two matrices"))? {
            // [[7, 10], [15, 22]]
            54.0 => Ok(()),
            other => Err(ModelError::Device {
                device: self.to_string(),
                cause: format!("7 + 10 + 15 + 22 gave {other}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["cpu", "cuda:0", "cuda:7"] {
            assert_eq!(Device::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Device::parse("cuda").unwrap(), Device::cuda(0));
        for bad in [
            "",
            "gpu",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:1 ",
            "CPU",
            "cuda:70000",
        ] {
            let error = Device::parse(bad).unwrap_err().to_string();
            assert!(error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_device_that_is_there_answers() {
        Device::cpu().is_responsive().unwrap();
        if Device::cuda_count() == 0 {
            assert!(Device::cuda(0).is_responsive().is_err());
        }
    }

    #[test]
    fn an_absent_gpu_is_refused_by_name() {
        let absent = Device::cuda(Device::cuda_count());
        let error = absent.require().unwrap_err().to_string();
        assert!(error.contains(&absent.to_string()), "{error}");
        Device::cpu().require().unwrap();
        Device::cpu().check().unwrap();
    }
}
