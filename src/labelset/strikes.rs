//! What is held against videos: each attempt that ended badly with one in hand. The one count of it, wherever it is kept.
//!
//! A worker that is lost is told by whoever watched it: a strike with its reason. Where everybody who could have told died at
//! once (a container that ran out of memory as a whole, a machine that went down), only later it is found what was in hand: a
//! silent loss. It may befall the innocent: those videos are then labelled one at a time, and one that is met in hand again counts
//! them all as strikes.

use crate::{Quarantined, RECORD_VERSION};
use affectmill_base::{ErrorClass, Trouble};
use affectmill_base::{FrameIndex, ShardId, VideoKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is held against the videos of a shard.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Strikes {
    /// What each attempt at a video ended with, where that was told.
    #[schemars(with = "BTreeMap<String, Vec<Trouble>>")]
    told: BTreeMap<VideoKey, Vec<Trouble>>,
    /// Losses of which nobody could tell.
    silent: Vec<Silent>,
    /// Those of which it is not known which video was in hand.
    unclaimed: u32,
}

/// Everybody who could have told died with the video in hand.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
struct Silent {
    #[schemars(with = "String")]
    video: VideoKey,
    /// Nothing else may have been the reason: it alone was in hand, or alone of the suspects.
    alone: bool,
    /// Where the next attempt at it went on.
    #[schemars(with = "Option<u64>")]
    next: Option<FrameIndex>,
}

impl Strikes {
    /// Counts a strike; returns how many the video has now.
    pub fn add(&mut self, video: &VideoKey, trouble: Trouble) -> usize {
        self.told.entry(video.clone()).or_default().push(trouble);
        self.count(video)
    }

    /// Counts a silent loss with this video in hand, or one of the shard's. Those of which that is not known fall to the video
    /// that is met in hand next. `alone`: nothing else that was in hand may have been the reason.
    pub fn lost(&mut self, video: Option<&VideoKey>, alone: bool) {
        let Some(video) = video else {
            self.unclaimed += 1;
            return;
        };
        for _ in 0..=std::mem::take(&mut self.unclaimed) {
            self.silent.push(Silent {
                video: video.clone(),
                alone,
                next: None,
            });
        }
    }

    /// An attempt at a long video goes on at this frame. Silent losses that were not at one place are not its doing: it is past
    /// where the attempt after them began.
    pub fn resumed(&mut self, video: &VideoKey, frame: FrameIndex) {
        let is_past = |silent: &mut Silent| *silent.next.get_or_insert(frame) < frame;
        self.silent
            .retain_mut(|silent| silent.video != *video || !is_past(silent));
    }

    /// How many strikes the video has.
    pub fn count(&self, video: &VideoKey) -> usize {
        let told = self.told.get(video).map_or(0, Vec::len);
        let silent = || self.silent.iter().filter(|silent| silent.video == *video);
        // Among others it may be innocent.
        if told > 0 || silent().any(|silent| silent.alone) {
            told + silent().count()
        } else {
            0
        }
    }

    /// Whether a silent loss is held against a video: which of those in hand at the time was the reason shows when they are
    /// labelled one at a time.
    pub fn is_suspect(&self) -> bool {
        !self.silent.is_empty() || self.unclaimed > 0
    }

    /// The quarantine entries of those of `videos` that have used up their strikes.
    pub fn quarantined<'a>(
        &self,
        videos: impl Iterator<Item = &'a VideoKey>,
        max_strikes: u32,
    ) -> Vec<Quarantined> {
        let given_up = videos.filter_map(|video| {
            let count = self.count(video);
            (count >= max_strikes as usize && count > 0).then(|| Quarantined {
                key: video.clone(),
                trouble: self.given_up(video, count),
            })
        });
        given_up.collect()
    }

    fn given_up(&self, video: &VideoKey, count: usize) -> Trouble {
        let last = self.told.get(video).and_then(|told| told.last()).cloned();
        let last = last.unwrap_or_else(|| Trouble {
            error:
                "the whole run, or its host, died with it in hand and left no word, as where memory runs out"
                    .into(),
            class: ErrorClass::Crash,
            frame: None,
        });
        let times = if count == 1 { "attempt" } else { "attempts" };
        let place = match (last.class, last.frame) {
            // What broke off says itself where.
            (ErrorClass::Io | ErrorClass::Changed, _) | (_, None) => String::new(),
            (_, Some(frame)) => format!(", the last frame reached was {frame}"),
        };
        Trouble {
            error: format!(
                "given up after {count} {times}; the last one: {}{place}",
                last.error
            ),
            ..last
        }
    }
}

/// `strikes.json`: what earlier runs held against videos of shards that are not committed. Each run rewrites it when it begins,
/// by the event logs of the runs since.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct StrikesRecord {
    /// Format version.
    pub version: u32,
    /// The last run that is counted in: the name of its event log, without the numbers of its pieces.
    pub counted: String,
    /// What is held against the videos of each shard.
    #[schemars(with = "BTreeMap<String, Strikes>")]
    pub shards: BTreeMap<ShardId, Strikes>,
}

impl Default for StrikesRecord {
    fn default() -> Self {
        Self {
            version: RECORD_VERSION,
            counted: String::new(),
            shards: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (VideoKey, VideoKey) {
        (VideoKey::new("bad").unwrap(), VideoKey::new("good").unwrap())
    }

    fn given_up(strikes: &Strikes, max: u32) -> Vec<String> {
        let (bad, good) = keys();
        let entries = strikes.quarantined([&bad, &good].into_iter(), max);
        entries.into_iter().map(|entry| entry.key.to_string()).collect()
    }

    #[test]
    fn silent_losses_count_as_strikes_and_those_of_nobody_fall_to_the_next() {
        let (bad, good) = keys();
        let mut strikes = Strikes::default();
        assert!(!strikes.is_suspect());
        strikes.lost(None, false);
        assert!(strikes.is_suspect());
        assert_eq!((strikes.count(&bad), strikes.count(&good)), (0, 0));
        strikes.lost(Some(&bad), true);
        assert_eq!((strikes.count(&bad), strikes.count(&good)), (2, 0));
        assert_eq!(given_up(&strikes, 3), [""; 0]);
        strikes.lost(Some(&bad), true);
        assert_eq!(given_up(&strikes, 3), ["bad"], "three deaths in all");
        let trouble = strikes.quarantined([&bad].into_iter(), 3).remove(0).trouble;
        assert_eq!(trouble.class, ErrorClass::Crash);
        assert!(
            trouble.error.contains("3 attempts") && trouble.error.contains("left no word"),
            "{trouble:?}"
        );
        assert_eq!(Strikes::default().quarantined([&bad].into_iter(), 0), []);
    }

    #[test]
    fn a_death_among_others_counts_once_the_video_is_met_in_hand_again() {
        let (bad, good) = keys();
        let mut strikes = Strikes::default();
        strikes.lost(Some(&bad), false);
        strikes.lost(Some(&good), false);
        assert!(strikes.is_suspect());
        assert_eq!(given_up(&strikes, 1), [""; 0], "it may have been any of them");
        strikes.lost(Some(&bad), true);
        assert_eq!((strikes.count(&bad), strikes.count(&good)), (2, 0));
    }

    #[test]
    fn deaths_at_one_place_of_a_long_video_count_and_deaths_anywhere_do_not() {
        let (bad, _) = keys();
        // It dies past frame 12,000 each time; checkpoints end every 5,000 frames.
        let mut strikes = Strikes::default();
        for death in 1..=3 {
            assert_eq!(strikes.count(&bad), death - 1);
            if death > 1 {
                strikes.resumed(&bad, FrameIndex(10_000));
            }
            strikes.lost(Some(&bad), true);
        }
        assert_eq!(strikes.count(&bad), 3);
        // A machine that goes down now and then.
        let mut strikes = Strikes::default();
        for death in 1..=9 {
            strikes.lost(Some(&bad), true);
            strikes.resumed(&bad, FrameIndex(death * 20_000));
            assert_eq!(strikes.count(&bad), 1);
        }
    }
}
