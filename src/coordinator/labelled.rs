//! What a run did, and which side of the pipeline it waited for.

use crate::dataset::StageSeconds;
use crate::events::Event;

/// What this run labelled, over all its shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labelled {
    /// Shards committed.
    pub shards: usize,
    /// Frames decoded.
    pub frames: u64,
    seconds: StageSeconds,
}

impl Labelled {
    /// Takes a shard into account that is done.
    pub(super) fn add(&mut self, event: &Event) {
        if let Event::ShardDone { frames, seconds, .. } = event {
            self.shards += 1;
            self.frames += frames;
            self.seconds.add(seconds);
        }
    }

    /// One sentence on which side of the pipeline was the busier one.
    pub fn bottleneck(&self) -> Option<String> {
        let s = &self.seconds;
        (s.total > 0.0).then(|| {
            let share = |seconds: f64| 100.0 * seconds / s.total;
            let who = if s.fetch_blocked > s.infer + s.faces && s.fetch_blocked > s.decode {
                "fetching videos"
            } else if s.decode > s.infer + s.faces {
                "decoding"
            } else if s.faces > s.infer {
                "finding faces"
            } else {
                "the models"
            };
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
                 the decoder was busy {:.0} % and waited for the models {:.0} %{fetching}",
                share(s.infer),
                share(s.infer_blocked),
                share(s.decode),
                share(s.decode_blocked)
            )
        })
    }
}
