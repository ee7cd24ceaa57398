//! The embedded queue: leases live in the coordinator's memory.
//!
//! A pure state machine: shards to do come in, leases go out, and each end of a lease (done, given back, worker
//! lost) comes back in. It starts no process and reads no clock.

use super::{Lease, WorkerId};
use affectmill_base::Trouble;
use affectmill_base::{FrameIndex, ShardId, VideoKey};
use affectmill_labelset::{ShardPlan, Strikes};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Shards to do, leases out, and strikes.
#[derive(Debug)]
pub struct LocalQueue {
    waiting: VecDeque<ShardPlan>,
    leased: HashMap<WorkerId, ShardPlan>,
    /// The shard that each worker was told to expect next, where that is of use.
    expected: Option<HashMap<WorkerId, ShardId>>,
    strikes: BTreeMap<ShardId, Strikes>,
    max_strikes: u32,
    /// Workers that wait until a suspect is done with.
    asking: VecDeque<WorkerId>,
}

impl LocalQueue {
    /// A queue over the shards that have no commit.
    pub fn new(mut shards: Vec<ShardPlan>, max_strikes: u32) -> Self {
        shards.sort_by(ShardPlan::longest_first);
        Self {
            waiting: shards.into(),
            leased: HashMap::new(),
            expected: None,
            strikes: BTreeMap::new(),
            max_strikes,
            asking: VecDeque::new(),
        }
    }

    /// The same queue, with what earlier runs held against videos.
    #[must_use]
    pub fn holding(self, strikes: BTreeMap<ShardId, Strikes>) -> Self {
        Self { strikes, ..self }
    }

    /// The same queue, telling each worker which shard to expect next, so that its videos can be fetched ahead. Shards then go
    /// out a little out of order.
    #[must_use]
    pub fn foretelling(self) -> Self {
        Self {
            expected: Some(HashMap::new()),
            ..self
        }
    }

    /// The next lease for this worker. `None` when nothing waits, or only suspects while one of them is in a worker's hands.
    pub fn lease(&mut self, worker: WorkerId) -> Option<Lease> {
        debug_assert!(
            !self.leased.contains_key(&worker),
            "a worker holds one lease at a time"
        );
        // What this worker was told to expect, else what nobody expects, else what another one does: expectations are
        // no rights.
        let expected = self.expected.as_mut().and_then(|all| all.remove(&worker));
        let at = self
            .first(|shard| expected.as_ref() == Some(&shard.id))
            .or_else(|| self.unexpected())
            .or_else(|| self.first(|_| true));
        let shard = self.waiting.remove(at?)?;
        let videos = shard.videos.iter().map(|video| &video.key);
        let strikes = self.strikes.get(&shard.id);
        let quarantined =
            strikes.map_or_else(Vec::new, |strikes| strikes.quarantined(videos, self.max_strikes));
        self.leased.insert(worker, shard.clone());
        let next = match &self.expected {
            Some(_) => self.unexpected().map(|at| self.waiting[at].clone()),
            None => None,
        };
        if let (Some(expected), Some(next)) = (&mut self.expected, &next) {
            expected.insert(worker, next.id.clone());
        }
        Some(Lease {
            shard,
            quarantined,
            next,
            earlier: BTreeMap::new(),
        })
    }

    /// Remembers a worker for which there is no lease yet.
    pub fn remember(&mut self, worker: WorkerId) {
        self.asking.push_back(worker);
    }

    /// A lease for a worker that is remembered, where there is one by now.
    pub fn next_asked(&mut self) -> Option<(WorkerId, Lease)> {
        let worker = *self.asking.front()?;
        let lease = self.lease(worker)?;
        self.asking.pop_front();
        Some((worker, lease))
    }

    /// Position of the first waiting shard like this that may be handed out: of the suspects only one at a time, so that it shows
    /// which of them takes the run down.
    fn first(&self, like: impl Fn(&ShardPlan) -> bool) -> Option<usize> {
        let taken = self.leased.values().any(|shard| self.is_suspect(&shard.id));
        let may = |shard: &&ShardPlan| like(shard) && !(taken && self.is_suspect(&shard.id));
        self.waiting.iter().position(|shard| may(&shard))
    }

    /// Whether a death of which nobody could tell is held against videos of the shard.
    pub fn is_suspect(&self, shard: &ShardId) -> bool {
        self.strikes.get(shard).is_some_and(Strikes::is_suspect)
    }

    /// Position of the first waiting shard that no worker expects.
    fn unexpected(&self) -> Option<usize> {
        self.first(|shard| !self.expected.iter().flatten().any(|(_, id)| *id == shard.id))
    }

    /// The shard in this worker's hands.
    pub fn held(&self, worker: WorkerId) -> Option<&ShardId> {
        self.leased.get(&worker).map(|shard| &shard.id)
    }

    /// The worker goes on with a video at this frame.
    pub fn resumed(&mut self, worker: WorkerId, video: &VideoKey, frame: FrameIndex) {
        if let Some(shard) = self.leased.get(&worker)
            && let Some(strikes) = self.strikes.get_mut(&shard.id)
        {
            strikes.resumed(video, frame);
        }
    }

    /// The worker committed its shard. Returns the shard, or `None` when it held no such lease.
    pub fn done(&mut self, worker: WorkerId, shard: &ShardId) -> Option<ShardPlan> {
        match self.leased.remove(&worker) {
            Some(plan) if plan.id == *shard => {
                self.strikes.remove(shard);
                Some(plan)
            }
            Some(other) => {
                self.waiting.push_front(other);
                None
            }
            None => None,
        }
    }

    /// The worker lost or gave back its lease; the shard waits again, first in line. A strike counts against its video; returns
    /// how many that has now.
    pub fn give_back(&mut self, worker: WorkerId, strike: Option<(VideoKey, Trouble)>) -> Option<usize> {
        if let Some(expected) = &mut self.expected {
            expected.remove(&worker);
        }
        self.asking.retain(|asking| *asking != worker);
        let shard = self.leased.remove(&worker)?;
        let struck = strike.map(|(video, trouble)| {
            let strikes = self.strikes.entry(shard.id.clone()).or_default();
            strikes.add(&video, trouble)
        });
        self.waiting.push_front(shard);
        struck
    }

    /// Shards that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Shards in a worker's hands.
    pub fn leased(&self) -> usize {
        self.leased.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use affectmill_base::FrameIndex;
    use affectmill_base::{ErrorClass, SourceKind};
    use affectmill_labelset::PlannedVideo;

    fn shard(name: &str, frames: u64) -> ShardPlan {
        let key = VideoKey::new(format!("{name}.mp4")).unwrap();
        let video = PlannedVideo {
            key,
            kind: SourceKind::File,
            bytes: 1,
            etag: String::new(),
            frames,
            duration_us: 0,
            archive: None,
            unreadable: None,
        };
        let mut digest = [0; 8];
        digest[0] = name.as_bytes()[0];
        ShardPlan {
            id: ShardId::from_digest(&digest),
            attempt: 0,
            copy_of: None,
            videos: vec![video],
        }
    }

    #[test]
    fn longest_first_and_each_shard_once() {
        let mut queue = LocalQueue::new(vec![shard("a", 10), shard("b", 30), shard("c", 20)], 3);
        let order: Vec<u64> = (0..3)
            .map(|worker| queue.lease(worker).unwrap().shard.frames())
            .collect();
        assert_eq!(order, [30, 20, 10]);
        assert!(queue.lease(3).is_none());
        assert!(queue.done(0, &shard("b", 30).id).is_some());
        assert!(
            queue.done(0, &shard("b", 30).id).is_none(),
            "a second ack finds nothing"
        );
        assert_eq!((queue.waiting(), queue.leased()), (0, 2));
    }

    #[test]
    fn workers_get_what_they_were_told_to_expect_unless_somebody_idles() {
        let shards = (1..=5).map(|n| shard(&n.to_string(), 10 * n)).collect();
        let mut queue = LocalQueue::new(shards, 3).foretelling();
        let mut lease = |worker| {
            let lease = queue.lease(worker)?;
            if let Some(done) = queue.done(worker, &lease.shard.id) {
                assert_eq!(done.id, lease.shard.id);
            }
            Some((lease.shard.frames(), lease.next.map(|next| next.frames())))
        };
        assert_eq!(lease(0), Some((50, Some(40))));
        assert_eq!(lease(1), Some((30, Some(20))), "not what another one expects");
        assert_eq!(lease(0), Some((40, Some(10))));
        assert_eq!(
            lease(2),
            Some((20, None)),
            "rather than nothing, what another one expects"
        );
        assert_eq!(lease(1), Some((10, None)));
        assert_eq!(lease(0), None);
    }

    #[test]
    fn a_lost_lease_comes_back_and_three_strikes_quarantine_the_video() {
        let mut queue = LocalQueue::new(vec![shard("a", 10), shard("b", 5)], 3);
        let video = VideoKey::new("a.mp4").unwrap();
        for attempt in 1..=3 {
            let lease = queue.lease(attempt).unwrap();
            assert_eq!(
                lease.shard.videos[0].key, video,
                "a lost shard is first in line again"
            );
            assert!(lease.quarantined.is_empty());
            let strike = Trouble {
                error: "signal 11".into(),
                class: ErrorClass::Crash,
                frame: Some(FrameIndex(7)),
            };
            assert_eq!(
                queue.give_back(attempt, Some((video.clone(), strike))),
                Some(attempt)
            );
        }
        let lease = queue.lease(9).unwrap();
        assert_eq!(lease.quarantined[0].key, video);
        let trouble = &lease.quarantined[0].trouble;
        assert_eq!(
            (trouble.frame, trouble.class),
            (Some(FrameIndex(7)), ErrorClass::Crash)
        );
        for words in ["3 attempts", "signal 11", "frame reached was 7"] {
            assert!(trouble.error.contains(words), "{}", trouble.error);
        }
    }

    #[test]
    fn suspects_go_out_one_at_a_time_and_others_beside_them() {
        let (a, b, c) = (shard("a", 30), shard("b", 20), shard("c", 10));
        let suspect = |shard: &ShardPlan| {
            let mut strikes = Strikes::default();
            strikes.lost(Some(&shard.videos[0].key), false);
            (shard.id.clone(), strikes)
        };
        let held = [suspect(&a), suspect(&b)].into_iter().collect();
        let mut queue = LocalQueue::new(vec![a.clone(), b.clone(), c.clone()], 3).holding(held);
        let mut lease = |worker| Some(queue.lease(worker)?.shard.id);
        assert_eq!(lease(0), Some(a.id.clone()));
        assert_eq!(
            lease(1),
            Some(c.id.clone()),
            "b waits until a is known to be good, or bad"
        );
        assert_eq!((lease(2), lease(3)), (None, None));
        (2..4).for_each(|worker| queue.remember(worker));
        assert!(queue.next_asked().is_none());
        queue.done(0, &a.id).unwrap();
        let (worker, lease) = queue.next_asked().expect("the one that asked first gets it");
        assert_eq!((worker, lease.shard.id), (2, b.id.clone()));
        assert!(queue.next_asked().is_none(), "nothing is left");
        assert_eq!(queue.give_back(2, None), None);
        let (worker, lease) = queue.next_asked().expect("the other one");
        assert_eq!((worker, lease.shard.id), (3, b.id));
        assert_eq!((queue.waiting(), queue.leased()), (0, 2));
    }
}
