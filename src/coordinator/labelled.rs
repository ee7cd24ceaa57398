//! What a run did, and which side of the pipeline it waited for.

use affectmill_base::Precision;
use affectmill_labelset::StageSeconds;
use affectmill_labelset::events::Event;
use affectmill_spec::{Decode, Job};

/// What this run labelled, over all its shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labelled {
    /// Shards committed.
    pub shards: usize,
    /// Frames decoded.
    pub frames: u64,
    seconds: StageSeconds,
    /// A worker had a GPU.
    on_gpus: bool,
}

impl Labelled {
    /// Takes into account what a worker did.
    pub(super) fn add(&mut self, event: &Event) {
        match event {
            Event::ShardDone { frames, seconds, .. } => {
                self.shards += 1;
                self.frames += frames;
                self.seconds.add(seconds);
            }
            Event::WorkerStarted { device, .. } => self.on_gpus |= device.starts_with("cuda"),
            _ => {}
        }
    }

    /// One sentence on which side of the pipeline was the busier one, and of runs on GPUs on what would help.
    pub fn bottleneck(&self, job: &Job) -> Option<String> {
        let s = &self.seconds;
        (s.total > 0.0).then(|| {
            let share = |seconds: f64| 100.0 * seconds / s.total;
            let (who, remedy) = if s.fetch_blocked > s.infer + s.faces && s.fetch_blocked > s.decode {
                ("fetching videos", "")
            } else if s.decode > s.infer + s.faces {
                ("decoding", faster_decoding(job))
            } else if s.faces > s.infer {
                ("finding faces", "")
            } else {
                ("the models", faster_models(job))
            };
            let remedy = if self.on_gpus { remedy } else { "" };
            let faces = if s.faces > 0.0 {
                format!(", finding faces took {:.0} %", share(s.faces))
            } else {
                String::new()
            };
            let fetching = if s.fetch > 0.0 {
                format!(
                    ", fetching took {:.0} % beside it and was waited for {:.0} %",
                    share(s.fetch),
                    share(s.fetch_blocked)
                )
            } else {
                String::new()
            };
            format!(
                "{who} set the pace: of the workers' time the models were busy {:.0} % and waited for frames {:.0} %{faces}, \
                 the decoder was busy {:.0} % and waited for the models {:.0} %{fetching}{remedy}",
                share(s.infer),
                share(s.infer_blocked),
                share(s.decode),
                share(s.decode_blocked)
            )
        })
    }
}

/// What helps where GPUs wait for frames.
fn faster_decoding(job: &Job) -> &'static str {
    match job.input.decode {
        Decode::Nvdec => {
            "; more workers on each GPU ([run] workers) would help, as one decoding session cannot exceed one engine"
        }
        Decode::Cpu | Decode::Auto => {
            "; [input] decode = \"nvdec\", which makes another dataset, or more workers ([run] workers) would help"
        }
    }
}

/// What helps where frames wait for GPUs.
fn faster_models(job: &Job) -> &'static str {
    if job.models.iter().any(|model| model.precision == Precision::Fp32) {
        "; precision = \"bf16\" or \"fp16\", which makes another dataset, or more GPUs would help"
    } else {
        "; more GPUs would help"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use affectmill_base::ShardId;

    /// What a run says of itself whose workers were busy so many seconds out of ten.
    fn said(device: &str, job: &str, decode: f64, infer: f64) -> String {
        let text = format!(
            r#"{{"input": {{"uri": "/in"{job}, "output": {{"uri": "/out"}}}}"#,
            job = job.replace('\'', "\"")
        );
        let job: Job = serde_json::from_str(&text).unwrap();
        let mut labelled = Labelled::default();
        labelled.add(&Event::WorkerStarted {
            worker: 0,
            pid: 1,
            device: device.into(),
            gpu: None,
            host: None,
        });
        labelled.add(&Event::ShardDone {
            worker: 0,
            shard: ShardId::from_digest(&[1; 8]),
            planned_frames: 1,
            frames: 1,
            rows: 1,
            ok: 1,
            seconds: StageSeconds {
                decode,
                infer,
                total: 10.0,
                ..StageSeconds::default()
            },
            fetched_bytes: 0,
            adopted: false,
        });
        labelled.bottleneck(&job).unwrap()
    }

    const MODEL: &str = "'models': [{'name': 's', 'kind': 'student', 'weights': '/w'";

    #[test]
    fn a_run_on_gpus_says_what_would_help_and_one_on_the_cpu_only_what_was() {
        let fp32 = |decode: &str| format!("{decode}}}, {MODEL}}}]");
        let fp16 = format!("}}, {MODEL}, 'precision': 'fp16'}}]");
        for (device, job, decode, infer, words) in [
            ("cpu", fp32(""), 9.0, 1.0, vec![]),
            ("cpu", fp32(""), 1.0, 9.0, vec![]),
            (
                "cuda:0",
                fp32(""),
                9.0,
                1.0,
                vec!["decode = \"nvdec\"", "[run] workers"],
            ),
            (
                "cuda:1",
                fp32(", 'decode': 'nvdec'"),
                9.0,
                1.0,
                vec!["workers on each GPU", "one engine"],
            ),
            (
                "cuda:0",
                fp32(""),
                1.0,
                9.0,
                vec!["\"bf16\" or \"fp16\"", "more GPUs"],
            ),
            ("cuda:0", fp16, 1.0, 9.0, vec!["more GPUs"]),
        ] {
            let said = said(device, &job, decode, infer);
            let pace = if decode > infer { "decoding" } else { "the models" };
            assert!(said.starts_with(&format!("{pace} set the pace")), "{said}");
            assert!(said.contains("busy 90 %") && said.contains("busy 10 %"), "{said}");
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert_eq!(said.contains("would help"), !words.is_empty(), "{said}");
            assert_eq!(
                said.contains("fp16"),
                words.iter().any(|word| word.contains("fp16")),
                "{said}"
            );
        }
    }
}
