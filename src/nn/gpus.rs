//! The GPUs of this machine by NVML, the library of NVIDIA's driver; only for messages and dashboards.
//!
//! Flows out: names, memory and load of the GPUs that CUDA shows to this process, in the order in which CUDA numbers them.
//! Nothing here is an error: without a driver there are no GPUs, and values that a GPU does not report are missing.

use super::Device;
use nvml_wrapper::{Device as Handle, Nvml};

/// NVML, where there is a driver.
#[derive(Debug)]
pub struct Gpus(Option<Nvml>);

/// A GPU, or an instance of one that is partitioned (MIG).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, such as `NVIDIA H100 80GB HBM3`; of an instance with its profile, such as `MIG 1g.10gb`.
    pub name: String,
    /// `GPU-…`, or `MIG-…` of an instance.
    pub uuid: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// Load of a GPU, as far as it is reported: an instance of a partitioned one reports only its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The GPU.
    pub gpu: Gpu,
    /// Share of the last moments in which it computed, 0 to 1.
    pub busy: Option<f64>,
    /// Share of the last moments in which NVDEC decoded, 0 to 1.
    pub decoding: Option<f64>,
    /// Bytes of memory used by all processes together.
    pub memory_used: Option<u64>,
}

/// A GPU before it is known what CUDA shows.
#[derive(Clone, Debug, Default)]
struct Found {
    name: String,
    uuid: String,
    /// UUIDs of its instances; `None` where it is not partitioned.
    instances: Option<Vec<String>>,
}

/// A GPU by its place among those found, and where it is partitioned an instance by its own.
type Choice = (usize, Option<usize>);

impl Gpus {
    /// Loads NVML, which takes some milliseconds.
    pub fn open() -> Self {
        Self(Nvml::init().ok())
    }

    /// The driver's version, such as `580.95.05`.
    pub fn driver(&self) -> Option<String> {
        self.0.as_ref()?.sys_driver_version().ok()
    }

    /// The GPUs that CUDA shows to a process in this environment, by its numbers.
    pub fn visible(&self) -> Vec<Gpu> {
        self.of_visible(|handle, name| {
            Some(Gpu {
                name,
                uuid: handle.uuid().ok()?,
                memory: handle.memory_info().ok()?.total,
            })
        })
    }

    /// The load of those GPUs.
    pub fn loads(&self) -> Vec<Load> {
        let share = |percent: u32| f64::from(percent) / 100.0;
        self.of_visible(|handle, name| {
            let memory = handle.memory_info().ok()?;
            Some(Load {
                gpu: Gpu {
                    name,
                    uuid: handle.uuid().ok()?,
                    memory: memory.total,
                },
                busy: handle.utilization_rates().ok().map(|rates| share(rates.gpu)),
                decoding: handle
                    .decoder_utilization()
                    .ok()
                    .map(|load| share(load.utilization)),
                memory_used: Some(memory.used),
            })
        })
    }

    /// The name of a GPU of libtorch's; `None` for the CPU, and where NVML and libtorch do not see the same GPUs.
    pub fn name_of(&self, device: Device) -> Option<String> {
        let index = device.gpu()?;
        let mut visible = self.visible();
        (visible.len() == Device::cuda_count() && index < visible.len())
            .then(|| visible.swap_remove(index).name)
    }

    fn of_visible<T>(&self, describe: impl Fn(&Handle<'_>, String) -> Option<T>) -> Vec<T> {
        let Some(nvml) = &self.0 else { return Vec::new() };
        let handles: Vec<Handle<'_>> = (0..nvml.device_count().unwrap_or(0))
            // GPUs hidden by a container or a scheduler are listed but not accessible; CUDA skips them too.
            .filter_map(|index| nvml.device_by_index(index).ok())
            .collect();
        let instances: Vec<Option<Vec<Handle<'_>>>> = handles.iter().map(instances).collect();
        let uuid = |handle: &Handle<'_>| handle.uuid().unwrap_or_default();
        let found: Vec<Found> = handles
            .iter()
            .zip(&instances)
            .map(|(handle, instances)| Found {
                name: handle.name().unwrap_or_default(),
                uuid: uuid(handle),
                instances: instances.as_ref().map(|all| all.iter().map(uuid).collect()),
            })
            .collect();
        let variable = |name| std::env::var(name).ok();
        if !in_order(&found, variable("CUDA_DEVICE_ORDER").as_deref()) {
            return Vec::new();
        }
        let described = shown(&found, variable("CUDA_VISIBLE_DEVICES").as_deref())
            .into_iter()
            .map(|(gpu, instance)| {
                let instance = instance.and_then(|instance| instances[gpu].as_ref()?.get(instance));
                let whole = &found[gpu].name;
                match instance {
                    None => describe(&handles[gpu], whole.clone()),
                    Some(handle) => {
                        let own = handle.name().unwrap_or_default();
                        let name = if own.contains("MIG") {
                            own
                        } else {
                            format!("{whole} MIG")
                        };
                        describe(handle, name)
                    }
                }
            });
        // A GPU without data would shift the numbers of later ones.
        described.collect::<Option<Vec<T>>>().unwrap_or_default()
    }
}

/// The instances of a GPU that is partitioned.
fn instances<'nvml>(gpu: &Handle<'nvml>) -> Option<Vec<Handle<'nvml>>> {
    const ENABLED: u32 = 1;
    gpu.mig_mode().ok().filter(|mode| mode.current == ENABLED)?;
    let most = gpu.mig_device_count().unwrap_or(0);
    // Places without an instance are skipped.
    Some(
        (0..most)
            .filter_map(|index| gpu.mig_device_by_index(index).ok())
            .collect(),
    )
}

/// Whether CUDA numbers the GPUs as NVML does, by their place on the bus: workers are started so, unless the user chose
/// `CUDA_DEVICE_ORDER` (`FASTEST_FIRST`), where it takes like GPUs not to matter.
fn in_order(found: &[Found], order: Option<&str>) -> bool {
    order.is_none_or(|order| order == "PCI_BUS_ID") || found.windows(2).all(|two| two[0].name == two[1].name)
}

/// The GPUs that CUDA shows, with this value of `CUDA_VISIBLE_DEVICES`: as the CUDA programming guide ("CUDA
/// environment variables") and the MIG user guide ("CUDA device enumeration") have it.
fn shown(found: &[Found], visible: Option<&str>) -> Vec<Choice> {
    let listed: Vec<Choice> = match visible {
        None => (0..found.len()).filter_map(|gpu| first_of(found, gpu)).collect(),
        // What is invalid ends the list.
        Some(list) => list
            .split(',')
            .map_while(|entry| named(found, entry.trim()))
            .collect(),
    };
    // A process is shown one instance at most, and no whole GPU beside it.
    match listed.iter().find(|(_, instance)| instance.is_some()) {
        Some(instance) => vec![*instance],
        None => listed,
    }
}

/// The GPU itself; of a partitioned one the first instance, and nothing where it has none.
fn first_of(found: &[Found], gpu: usize) -> Option<Choice> {
    match &found.get(gpu)?.instances {
        None => Some((gpu, None)),
        Some(instances) => (!instances.is_empty()).then_some((gpu, Some(0))),
    }
}

/// What one entry of the list means.
fn named(found: &[Found], entry: &str) -> Option<Choice> {
    if entry.starts_with("MIG-") {
        return found.iter().enumerate().find_map(|(gpu, one)| {
            let instances = one.instances.as_ref()?;
            let instance = instances.iter().position(|uuid| uuid == entry)?;
            Some((gpu, Some(instance)))
        });
    }
    if entry.starts_with("GPU-") {
        let mut fitting = (0..found.len()).filter(|gpu| found[*gpu].uuid.starts_with(entry));
        // An abbreviation must mean one GPU.
        return match (fitting.next(), fitting.next()) {
            (Some(gpu), None) => first_of(found, gpu),
            _ => None,
        };
    }
    first_of(found, entry.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUIDES: &str = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6";
    const OTHER: &str = "GPU-8932aaaa-0000-0000-0000-000000000000";
    const THIRD: &str = "GPU-01234567-0000-0000-0000-000000000000";
    const FIRST_HALF: &str = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f";
    const SECOND_HALF: &str = "MIG-63feeb45-94c6-5b9b-a3b3-5d3ee5a20bd9";

    fn gpu(uuid: &str, instances: Option<&[&str]>) -> Found {
        let instances = instances.map(|all| all.iter().map(|uuid| (*uuid).to_owned()).collect());
        Found {
            name: "NVIDIA A100".into(),
            uuid: uuid.into(),
            instances,
        }
    }

    fn check(found: &[Found], cases: &[(Option<&str>, &[Choice])]) {
        for (visible, expected) in cases {
            assert_eq!(
                shown(found, *visible),
                *expected,
                "CUDA_VISIBLE_DEVICES={visible:?}"
            );
        }
    }

    /// The sentences of the CUDA programming guide, one by one.
    #[test]
    fn whole_gpus_are_shown_as_the_programming_guide_says() {
        let three = [gpu(GUIDES, None), gpu(OTHER, None), gpu(THIRD, None)];
        let (zero, one, two) = ((0, None), (1, None), (2, None));
        check(
            &three,
            &[
                // "If the variable is not set, all GPU devices are visible." "… an empty string, no GPU devices …"
                (None, &[zero, one, two]),
                (Some(""), &[]),
                // "setting CUDA_VISIBLE_DEVICES=2,1 makes device 0 not visible and enumerates device 2 before device 1"
                (Some("2,1"), &[two, one]),
                // "setting CUDA_VISIBLE_DEVICES=0,2,-1,1 makes devices 0 and 2 visible, while device 1 is not"
                (Some("0,2,-1,1"), &[zero, two]),
                (Some("-1"), &[]),
                (Some("0,3,1"), &[zero]),
                (Some("all"), &[]),
                (Some("1, 0"), &[one, zero]),
                // "GPU UUID strings" "abbreviated forms are allowed … enough digits … to uniquely identify that GPU"
                (Some(GUIDES), &[zero]),
                (Some("GPU-8932f937"), &[zero]),
                (Some("GPU-01,GPU-8932a"), &[two, one]),
                (Some("GPU-8932"), &[]),
                (Some("2,GPU-8932,0"), &[two]),
                (Some("GPU-ffff"), &[]),
                (Some("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"), &[]),
            ],
        );
        check(&[], &[(None, &[]), (Some("0"), &[])]);
    }

    /// "CUDA can only enumerate a single compute instance", "will pick the first one available if several of them are
    /// visible", "will not enumerate non-MIG GPU if any compute instance is enumerated on any other GPU": MIG user guide.
    #[test]
    fn instances_are_shown_as_the_mig_guide_says() {
        let halved = [
            gpu(THIRD, None),
            gpu(GUIDES, Some(&[FIRST_HALF, SECOND_HALF])),
            gpu(OTHER, Some(&[])),
        ];
        let (whole, first, second) = ((0, None), (1, Some(0)), (1, Some(1)));
        let both = format!("{SECOND_HALF},{FIRST_HALF}");
        check(
            &halved,
            &[
                (None, &[first]),
                (Some(FIRST_HALF), &[first]),
                (Some(SECOND_HALF), &[second]),
                (Some(&both), &[second]),
                (Some("1"), &[first]),
                (Some("0"), &[whole]),
                (Some("0,1"), &[first]),
                (Some("GPU-8932f937"), &[first]),
                // Partitioned, and without an instance there is nothing to compute on.
                (Some("2"), &[]),
                (Some("MIG-00000000-0000-0000-0000-000000000000"), &[]),
            ],
        );
    }

    #[test]
    fn numbers_mean_the_same_to_cuda_and_nvml_or_nothing_is_told() {
        let mut two = [gpu(GUIDES, None), gpu(OTHER, None)];
        for order in [None, Some("PCI_BUS_ID"), Some("FASTEST_FIRST")] {
            assert!(in_order(&two, order), "two of a kind");
        }
        two[1].name = "NVIDIA T4".into();
        assert!(in_order(&two, None) && in_order(&two, Some("PCI_BUS_ID")));
        assert!(!in_order(&two, Some("FASTEST_FIRST")));
    }

    #[test]
    fn without_a_driver_there_is_no_gpu_and_no_error() {
        let none = Gpus(None);
        assert_eq!(
            (none.driver(), none.visible(), none.loads()),
            (None, vec![], vec![])
        );
        assert_eq!(none.name_of(Device::cuda(0)), None);
        assert_eq!(Gpus::open().name_of(Device::cpu()), None);
    }
}
