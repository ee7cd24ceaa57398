//! What is held against videos: each attempt that ended badly with one in hand.

use crate::dataset::{ErrorClass, Quarantined, Trouble};
use crate::domain::VideoKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What each attempt at a video ended with, where it did not end well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Strikes(BTreeMap<VideoKey, Vec<Trouble>>);

impl Strikes {
    /// Counts a strike; returns how many the video has now.
    pub fn add(&mut self, video: &VideoKey, trouble: Trouble) -> usize {
        let strikes = self.0.entry(video.clone()).or_default();
        strikes.push(trouble);
        strikes.len()
    }

    /// The quarantine entries of those of `videos` that have used up their strikes.
    pub fn quarantined<'a>(
        &self,
        videos: impl Iterator<Item = &'a VideoKey>,
        max_strikes: u32,
    ) -> Vec<Quarantined> {
        videos
            .filter_map(|video| {
                let strikes = self.0.get(video)?;
                let last = strikes.last()?;
                (strikes.len() >= max_strikes as usize).then(|| Quarantined {
                    key: video.clone(),
                    trouble: Trouble {
                        error: given_up(strikes.len(), last),
                        class: last.class,
                        frame: last.frame,
                    },
                })
            })
            .collect()
    }
}

fn given_up(attempts: usize, last: &Trouble) -> String {
    let times = if attempts == 1 { "attempt" } else { "attempts" };
    let place = match (last.class, last.frame) {
        // What broke off says itself where.
        (ErrorClass::Io | ErrorClass::Changed, _) | (_, None) => String::new(),
        (_, Some(frame)) => format!(", the last frame reached was {frame}"),
    };
    format!(
        "given up after {attempts} {times}; the last one: {}{place}",
        last.error
    )
}
