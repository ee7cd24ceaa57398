//! What a run's workers compute on, and whether the output was begun on that.

use super::RunError;
use affectmill_labelset::DeviceClass;
use affectmill_labelset::commit;
use affectmill_nn::Device;
use affectmill_spec::{DeviceChoice, Job};
use affectmill_store::Store;

/// GPUs of this machine that the job's workers may use.
pub fn gpus(job: &Job) -> usize {
    match job.run.device {
        DeviceChoice::Cpu => 0,
        DeviceChoice::Auto | DeviceChoice::Cuda => Device::cuda_count(),
    }
}

/// Refuses a machine without a GPU where the job wants one.
pub fn has_device(job: &Job) -> Result<(), RunError> {
    match job.run.device {
        DeviceChoice::Cuda if gpus(job) == 0 => {
            let cause = Device::missing_gpu().unwrap_or("libtorch sees no GPU");
            Err(RunError::NoGpu(cause.into()))
        }
        _ => Ok(()),
    }
}

/// Refuses to go on in an output that was begun on another class of device than this machine's workers would use.
pub fn as_begun(store: &Store, job: &Job) -> Result<(), RunError> {
    let class = match gpus(job) {
        0 => DeviceClass::Cpu,
        _ => DeviceClass::Cuda,
    };
    Ok(commit::check_device(store, class, job.run.allow_device_change)?)
}

/// What people should know where the CPU labels although the machine seems to have a GPU.
pub fn device_warning(job: &Job) -> Option<String> {
    let cause = Device::missing_gpu().filter(|_| job.run.device == DeviceChoice::Auto)?;
    Some(format!(
        "the models run on the CPU, far slower than on a GPU: {cause}; [run] device = \"cuda\" refuses that, \"cpu\" says that \
         it is meant"
    ))
}
