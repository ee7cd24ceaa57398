//! What the GPUs of the coordinator's machine are at, as figures and as a table; nothing at all where there is none.

use crate::text;
use affectmill_nn::Load;
use maud::{Markup, html};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

type Labels = [(&'static str, String); 3];
type Figure = Family<Labels, Gauge<f64, AtomicU64>>;
/// Name, help, unit, and what it is of a GPU that tells it.
type Told = (&'static str, &'static str, Unit, fn(&Load) -> Option<f64>);

/// The figures as they are now. They are made anew each time: a GPU that is gone leaves none behind.
pub fn figures(loads: &[Load]) -> Registry {
    let mut registry = Registry::with_prefix("affectmill");
    let ratio = || Unit::Other("ratio".into());
    let all: [Told; 4] = [
        (
            "gpu_busy",
            "Share of the last moments in which the GPU computed",
            ratio(),
            |load| load.busy,
        ),
        (
            "gpu_decoding",
            "Share of the last moments in which the GPU's NVDEC decoded",
            ratio(),
            |load| load.decoding,
        ),
        (
            "gpu_memory_used",
            "The GPU's memory that is taken, by all processes together",
            Unit::Bytes,
            |load| load.memory_used.map(|bytes| bytes as f64),
        ),
        ("gpu_memory", "The GPU's memory", Unit::Bytes, |load| {
            Some(load.gpu.memory as f64)
        }),
    ];
    for (name, help, unit, value) in all {
        let figure = Figure::default();
        for (index, load) in loads.iter().enumerate() {
            let labels = [
                ("gpu", index.to_string()),
                ("name", load.gpu.name.clone()),
                ("uuid", load.gpu.uuid.clone()),
            ];
            if let Some(value) = value(load) {
                figure.get_or_create(&labels).set(value);
            }
        }
        registry.register_with_unit(name, help, unit, figure);
    }
    registry
}

/// The table for people.
pub fn table(loads: &[Load]) -> Markup {
    let percent = |share: Option<f64>| share.map(|share| format!("{:.0} %", 100.0 * share));
    html! {
        @if !loads.is_empty() {
            h2 { (text::plural(loads.len() as u64, "GPU")) " of this machine" }
            table {
                tr { th { "device" } th { "kind" } th { "computes" } th { "decodes" } th { "memory taken" } }
                @for (index, load) in loads.iter().enumerate() {
                    tr {
                        td.word { "cuda:" (index) }
                        td { (load.gpu.name) }
                        td.number { @if let Some(busy) = percent(load.busy) { (busy) } }
                        td.number { @if let Some(decoding) = percent(load.decoding) { (decoding) } }
                        td.number {
                            @if let Some(used) = load.memory_used { (text::bytes(used)) " of " (text::bytes(load.gpu.memory)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use affectmill_nn::Gpu;
    use prometheus_client::encoding::text::encode;

    /// One GPU as an H100 tells of itself, and an instance of a partitioned one, which tells of its memory alone.
    fn two() -> [Load; 2] {
        let gpu = |name: &str, uuid: &str, memory| Gpu {
            name: name.into(),
            uuid: uuid.into(),
            memory,
        };
        [
            Load {
                gpu: gpu("NVIDIA H100", "GPU-1", 85_899_345_920),
                busy: Some(0.75),
                decoding: Some(0.5),
                memory_used: Some(1_073_741_824),
            },
            Load {
                gpu: gpu("MIG <1g>", "MIG-2", 10_737_418_240),
                busy: None,
                decoding: None,
                memory_used: Some(0),
            },
        ]
    }

    fn told(loads: &[Load]) -> String {
        let mut text = String::new();
        encode(&mut text, &figures(loads)).unwrap();
        text
    }

    #[test]
    fn what_a_gpu_tells_is_shown_and_what_it_does_not_is_left_out() {
        let text = told(&two());
        let first = r#"{gpu="0",name="NVIDIA H100",uuid="GPU-1"}"#;
        let second = r#"{gpu="1",name="MIG <1g>",uuid="MIG-2"}"#;
        for line in [
            format!("affectmill_gpu_busy_ratio{first} 0.75"),
            format!("affectmill_gpu_decoding_ratio{first} 0.5"),
            format!("affectmill_gpu_memory_used_bytes{first} 1073741824.0"),
            format!("affectmill_gpu_memory_bytes{first} 85899345920.0"),
            format!("affectmill_gpu_memory_used_bytes{second} 0.0"),
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
        assert!(!text.contains(&format!("busy_ratio{second}")), "{text}");
        let page = table(&two()).into_string();
        for words in ["2 GPUs", "75 %", "50 %", "1.0 GiB of 80.0 GiB", "MIG &lt;1g&gt;"] {
            assert!(page.contains(words), "{words}\n{page}");
        }
    }

    #[test]
    fn without_gpus_there_are_no_figures_and_no_table() {
        assert_eq!(told(&[]), "# EOF\n");
        assert_eq!(table(&[]).into_string(), "");
    }

    #[test]
    fn the_dashboard_asks_for_each() {
        let dashboard = include_str!("../../../jobs/grafana.json");
        let text = told(&two());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        for name in names {
            assert!(dashboard.contains(&format!("{name}{{job")), "{name}");
        }
    }
}
