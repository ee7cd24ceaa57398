//! What is held against the videos of a shard that was delivered more than once. It lies with the queue, so that it
//! counts whichever host gets the shard next, and whether or not a coordinator is there.
//!
//! A host that sees a video take its worker down says so (a strike). A host that is lost with everything on it says
//! nothing: so from the second delivery on, the video in hand is noted, and whoever gets the next delivery finds the note. Of the
//! first delivery there is none, which spares the servers a word for each video; what was lost then falls to the video that
//! is met in hand next. A host that was merely killed, cut off or asleep, and not out of memory, is told by its
//! machine's counter, where the same machine gets the next delivery.

use super::{Connection, NatsError};
use affectmill_base::OomRecord;
use affectmill_base::Trouble;
use affectmill_base::{FrameIndex, VideoKey};
use affectmill_labelset::Strikes;
use async_nats::jetstream::kv::{Operation, UpdateErrorKind};
use serde::{Deserialize, Serialize};

/// What is held against the videos of one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardTroubles {
    /// Strikes.
    pub strikes: Strikes,
    /// The video that was opened last, unless its delivery ended with a word.
    in_hand: Option<InHand>,
    /// The last delivery that ended with a word.
    ended: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InHand {
    video: VideoKey,
    delivery: u64,
    machine: OomRecord,
}

impl ShardTroubles {
    /// A delivery begins on this machine. The one before may have been lost without a word. `only` is the video of a shard that
    /// has no other.
    pub fn delivered(&mut self, delivery: u64, only: Option<&VideoKey>, here: &OomRecord) {
        let before = delivery - 1;
        let noted = self.in_hand.take().filter(|noted| noted.delivery == before);
        match noted {
            _ if self.ended == before => {}
            Some(noted) if noted.machine.excludes(here) => {}
            // Of those that were lost before, a host holds one at a time; of the first delivery nobody knows what was beside it.
            Some(noted) => self.strikes.lost(Some(&noted.video), true),
            None if before == 1 => self.strikes.lost(only, false),
            None => {}
        }
    }

    /// A video was opened on this machine.
    pub fn opened(&mut self, video: &VideoKey, delivery: u64, here: &OomRecord) {
        self.in_hand = Some(InHand {
            video: video.clone(),
            delivery,
            machine: here.clone(),
        });
    }

    /// Labelling goes on at this frame.
    pub fn resumed(&mut self, video: &VideoKey, frame: FrameIndex) {
        self.strikes.resumed(video, frame);
    }

    /// The delivery ended with a word.
    pub fn ended(&mut self, delivery: u64, strike: Option<(VideoKey, Trouble)>) {
        self.in_hand = None;
        self.ended = delivery;
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
        change: impl Fn(&mut ShardTroubles),
    ) -> Result<ShardTroubles, NatsError> {
        const WHAT: &str = "note what befell a shard";
        let (bucket, key) = (self.bucket().await?, super::posted_job::shard_key(shard));
        loop {
            let entry = bucket.entry(&key).await.map_err(self.failed(WHAT))?;
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let entry = entry.filter(|entry| entry.operation == Operation::Put);
            let before: ShardTroubles = match entry {
                Some(entry) => serde_json::from_slice(&entry.value).map_err(self.failed(WHAT))?,
                None => ShardTroubles::default(),
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

    fn keys() -> (VideoKey, VideoKey) {
        (VideoKey::new("bad").unwrap(), VideoKey::new("good").unwrap())
    }

    /// Another machine each time.
    fn machine() -> OomRecord {
        OomRecord::default()
    }

    fn counts(troubles: &ShardTroubles) -> (usize, usize) {
        let (bad, good) = keys();
        (troubles.strikes.count(&bad), troubles.strikes.count(&good))
    }

    #[test]
    fn as_many_losses_in_a_row_with_one_video_in_hand_as_strikes_are_allowed_give_it_up() {
        let (bad, good) = keys();
        let mut troubles = ShardTroubles::default();
        for delivery in 2..=4 {
            troubles.delivered(delivery, None, &machine());
            // The one before, and the first, of which it was not known what was in hand.
            let known = if delivery == 2 { 0 } else { delivery as usize - 1 };
            assert_eq!(counts(&troubles), (known, 0));
            troubles.opened(&good, delivery, &machine());
            troubles.opened(&bad, delivery, &machine());
        }
        // The last of them ends with a word: no loss.
        let mut told = troubles.clone();
        told.ended(4, None);
        told.delivered(5, None, &machine());
        assert_eq!(counts(&told), (3, 0));
        // Another delivery, of which no note is left, lies between: no loss of this video.
        let mut other = troubles.clone();
        other.delivered(6, None, &machine());
        assert_eq!(counts(&other), (3, 0));
        troubles.delivered(5, None, &machine());
        assert_eq!(counts(&troubles), (4, 0));
    }

    #[test]
    fn a_shard_of_one_video_needs_no_note_and_one_given_back_with_a_word_is_no_loss() {
        let (bad, _) = keys();
        let mut troubles = ShardTroubles::default();
        troubles.delivered(2, Some(&bad), &machine());
        assert!(troubles.strikes.is_suspect());
        troubles.opened(&bad, 2, &machine());
        troubles.delivered(3, Some(&bad), &machine());
        assert_eq!(counts(&troubles), (2, 0));
        let mut told = ShardTroubles::default();
        told.ended(1, None);
        told.delivered(2, Some(&bad), &machine());
        assert!(!told.strikes.is_suspect());
    }

    #[test]
    fn a_host_that_was_not_out_of_memory_was_killed_for_reasons_of_its_own() {
        let (bad, _) = keys();
        let here = OomRecord::now();
        let mut troubles = ShardTroubles::default();
        troubles.ended(1, None);
        for delivery in 2..9 {
            troubles.delivered(delivery, None, &here);
            troubles.opened(&bad, delivery, &here);
        }
        assert_eq!(counts(&troubles), (0, 0));
        troubles.delivered(9, None, &machine());
        assert_eq!(counts(&troubles), (1, 0), "a machine that is not known");
    }
}
