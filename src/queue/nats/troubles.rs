//! What is held against the videos of a shard that was delivered more than once. It lies with the queue, so that it
//! counts whichever host gets the shard next, and whether or not a coordinator is there.
//!
//! A host that sees a video take its worker down says so (a strike). A host that is lost with everything on it says
//! nothing: so from the second delivery on, the video in hand is noted, and whoever gets the next delivery finds the note.
//! Hosts are mostly lost for reasons of their own (preempted, cut off, asleep), so it takes several such losses to
//! make a strike.

use super::{Connection, NatsError};
use crate::dataset::{ErrorClass, Trouble};
use crate::domain::VideoKey;
use crate::queue::Strikes;
use async_nats::jetstream::kv::{Operation, UpdateErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Losses of a whole host with the same video in hand that make one strike.
const LOSSES_PER_STRIKE: u64 = 4;

/// What is held against the videos of one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Troubles {
    /// Strikes.
    pub strikes: Strikes,
    /// The video that was opened last, and in which delivery, unless that ended with a word.
    in_hand: Option<(VideoKey, u64)>,
    /// How often hosts were lost with a video in hand.
    losses: BTreeMap<VideoKey, u64>,
}

impl Troubles {
    /// A delivery begins. The one before may have been lost without a word.
    pub fn delivered(&mut self, delivery: u64) {
        let Some((video, noted)) = self.in_hand.take() else {
            return;
        };
        if noted + 1 != delivery {
            return;
        }
        let losses = self.losses.entry(video.clone()).or_default();
        *losses += 1;
        if losses.is_multiple_of(LOSSES_PER_STRIKE) {
            let error = format!("{losses} hosts were lost or cut off with it in hand");
            let trouble = Trouble {
                error,
                class: ErrorClass::Crash,
                frame: None,
            };
            self.strikes.add(&video, trouble);
        }
    }

    /// A video was opened.
    pub fn opened(&mut self, video: &VideoKey, delivery: u64) {
        self.in_hand = Some((video.clone(), delivery));
    }

    /// The delivery ended with a word.
    pub fn ended(&mut self, strike: Option<(VideoKey, Trouble)>) {
        self.in_hand = None;
        if let Some((video, trouble)) = strike {
            self.strikes.add(&video, trouble);
        }
    }
}

impl Connection {
    /// Changes what is held against the videos of a shard; returns what is held now.
    pub(super) async fn change_troubles(
        &self,
        shard: &str,
        change: impl Fn(&mut Troubles),
    ) -> Result<Troubles, NatsError> {
        const WHAT: &str = "note what befell a shard";
        let (bucket, key) = (self.bucket().await?, super::posting::shard_key(shard));
        loop {
            let entry = bucket.entry(&key).await.map_err(self.failed(WHAT))?;
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let entry = entry.filter(|entry| entry.operation == Operation::Put);
            let before: Troubles = match entry {
                Some(entry) => serde_json::from_slice(&entry.value).map_err(self.failed(WHAT))?,
                None => Troubles::default(),
            };
            let mut now = before.clone();
            change(&mut now);
            if now == before {
                return Ok(now);
            }
            let text = serde_json::to_vec(&now).map_err(self.failed(WHAT))?;
            match bucket.update(&key, text.into(), revision).await {
                Ok(_) => return Ok(now),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(self.failed(WHAT)(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_losses_in_a_row_with_one_video_in_hand_make_a_strike() {
        let (bad, good) = (VideoKey::new("bad").unwrap(), VideoKey::new("good").unwrap());
        let both = || [&bad, &good].into_iter();
        let mut troubles = Troubles::default();
        for delivery in 2..2 + LOSSES_PER_STRIKE {
            troubles.delivered(delivery);
            assert!(troubles.strikes.quarantined(both(), 1).is_empty());
            troubles.opened(&good, delivery);
            troubles.opened(&bad, delivery);
        }
        // The last of them ends with a word: no loss.
        let mut told = troubles.clone();
        told.ended(None);
        told.delivered(2 + LOSSES_PER_STRIKE);
        assert!(told.strikes.quarantined(both(), 1).is_empty());
        // Another delivery, of which no note is left, lies between: no loss of this video.
        let mut other = troubles.clone();
        other.delivered(3 + LOSSES_PER_STRIKE);
        assert!(other.strikes.quarantined(both(), 1).is_empty());

        troubles.delivered(2 + LOSSES_PER_STRIKE);
        let struck = troubles.strikes.quarantined(both(), 1);
        assert_eq!(struck.len(), 1);
        assert_eq!(struck[0].key, bad);
        assert!(struck[0].trouble.error.contains("4 hosts were lost"));
        assert!(troubles.strikes.quarantined(both(), 2).is_empty());
    }
}
