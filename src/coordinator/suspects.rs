//! What earlier runs of an output hold against videos: strikes that were told, and what was in hand when a run died and left no
//! word, as where a container runs out of memory and is killed as a whole. Both are read from the runs' event logs.

use super::RunError;
use affectmill_base::OomRecord;
use affectmill_base::Trouble;
use affectmill_base::{ShardId, VideoKey};
use affectmill_labelset::events::{Event, Line, last_pieces, run_of};
use affectmill_labelset::{RECORD_VERSION, ShardPlan, Strikes, StrikesRecord, paths};
use affectmill_store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// A longer piece of a log is none of ours, or an older affectmill's, which did not tell enough.
const LONGEST: u64 = 16 << 20;

/// What is held against the videos of shards that are not committed.
#[derive(Debug, Default)]
pub struct SuspectVideos {
    /// Of each shard.
    pub strikes: BTreeMap<ShardId, Strikes>,
    /// What is to be said of them.
    pub words: Vec<String>,
}

impl SuspectVideos {
    /// Reads what earlier runs left, and keeps it for the next one.
    ///
    /// # Errors
    /// The store fails.
    pub fn read(store: &Store, shards: &[ShardPlan], done: &BTreeSet<ShardId>) -> Result<Self, RunError> {
        let open = shards.iter().filter(|shard| !done.contains(&shard.id));
        let open: BTreeMap<&ShardId, &ShardPlan> = open.map(|shard| (&shard.id, shard)).collect();
        let mut suspects = Self::default();
        if open.is_empty() {
            return Ok(suspects);
        }
        let mut record = match store.get(paths::STRIKES)?.map(|text| read(&text)) {
            None => StrikesRecord::default(),
            Some(Ok(record)) => record,
            Some(Err(cause)) => {
                let path = store.path(paths::STRIKES);
                suspects.words.push(format!(
                    "{path} cannot be read ({cause}); strikes of earlier runs are forgotten"
                ));
                StrikesRecord::default()
            }
        };
        let before = record.clone();
        let logs = store.list(paths::EVENTS)?;
        let sizes: BTreeMap<&str, u64> = logs.iter().map(|log| (log.key.as_str(), log.bytes)).collect();
        // A file has every line, an object only those that were in time.
        let is_whole = store.root().as_local().is_some();
        let here = OomRecord::now();
        let mut lost = BTreeSet::new();
        for piece in last_pieces(sizes.keys().copied()) {
            let run = run_of(piece);
            if run <= record.counted.as_str() || sizes[piece] > LONGEST {
                continue;
            }
            record.counted = run.to_owned();
            let Some(text) = store.get(piece)? else { continue };
            let ended = Ended::read(Line::read(&text), is_whole);
            for (shard, video, trouble) in ended.strikes {
                if open.contains_key(&shard) {
                    record.shards.entry(shard).or_default().add(&video, trouble);
                }
            }
            let among_others = ended.in_hand.len() > 1;
            for in_hand in ended.in_hand {
                let Some(shard) = open.get(&in_hand.shard) else {
                    continue;
                };
                if in_hand.machine.excludes(&here) {
                    continue;
                }
                let video = match (&in_hand.video, shard.videos.as_slice()) {
                    (Opened::Known(video), _) => Some(video),
                    (Opened::Unknown, [only]) => Some(&only.key),
                    (Opened::Unknown, _) => None,
                    (Opened::Nothing, _) => continue,
                };
                let strikes = record.shards.entry(in_hand.shard.clone()).or_default();
                strikes.lost(video, in_hand.again || !among_others);
                lost.extend(video.cloned());
            }
        }
        record.shards.retain(|shard, _| open.contains_key(shard));
        if record != before {
            let text = serde_json::to_vec_pretty(&record).map_err(|error| RunError::Record {
                path: store.path(paths::STRIKES).to_string(),
                cause: error.to_string(),
            })?;
            store.replace(paths::STRIKES, &text)?;
        }
        if !lost.is_empty() {
            let videos: Vec<String> = lost.iter().map(|video| format!("`{video}`")).collect();
            suspects.words.push(format!(
                "an earlier run died without a word, as where memory runs out, with {} in hand; such videos are labelled one at a \
                 time, and each further death is a strike",
                videos.join(", ")
            ));
        }
        suspects.strikes = record.shards;
        Ok(suspects)
    }
}

/// Why the strikes of earlier runs cannot be read.
#[derive(Debug, thiserror::Error)]
enum StrikesError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("it has version {0}, this affectmill reads {RECORD_VERSION}")]
    Version(u32),
}

fn read(text: &[u8]) -> Result<StrikesRecord, StrikesError> {
    let record: StrikesRecord = serde_json::from_slice(text)?;
    match record.version {
        RECORD_VERSION => Ok(record),
        other => Err(StrikesError::Version(other)),
    }
}

/// How a run ended, as far as its log tells.
#[derive(Debug, Default, PartialEq)]
struct Ended {
    /// Strikes that it told.
    strikes: Vec<(ShardId, VideoKey, Trouble)>,
    /// What its workers had in hand when it died without a word.
    in_hand: Vec<InHand>,
}

#[derive(Debug, PartialEq)]
struct InHand {
    shard: ShardId,
    /// It had been in hand in a death before: what is opened of it is told at once.
    again: bool,
    video: Opened,
    machine: OomRecord,
}

/// What a worker had opened last.
#[derive(Debug, PartialEq)]
enum Opened {
    Nothing,
    Known(VideoKey),
    Unknown,
}

impl Ended {
    fn read(lines: impl Iterator<Item = Line>, is_whole: bool) -> Self {
        let mut strikes = Vec::new();
        let mut in_hand: BTreeMap<usize, InHand> = BTreeMap::new();
        let (mut committed, mut failed, mut over) = (0, false, false);
        for Line { at_ms, event, .. } in lines {
            match event {
                // A coordinator of workers elsewhere: these go on without it, and keep strikes with their queue.
                Event::RunStarted { workers: 0, .. } => return Self::default(),
                Event::Leased {
                    worker,
                    shard,
                    again,
                    machine: Some(machine),
                    ..
                } => {
                    let video = if is_whole || again {
                        Opened::Nothing
                    } else {
                        Opened::Unknown
                    };
                    let held = InHand {
                        shard,
                        again,
                        video,
                        machine,
                    };
                    in_hand.insert(worker, held);
                }
                Event::Opened { worker, video } => {
                    if let Some(held) = in_hand.get_mut(&worker).filter(|held| is_whole || held.again) {
                        held.video = Opened::Known(video);
                    }
                }
                Event::ShardDone { worker, frames, .. } => {
                    in_hand.remove(&worker);
                    if frames > 0 {
                        committed = at_ms;
                    }
                }
                Event::WorkerLost { worker, .. } | Event::GaveBack { worker } => {
                    drop(in_hand.remove(&worker))
                }
                Event::Strike {
                    video,
                    shard: Some(shard),
                    trouble: Some(trouble),
                    ..
                } => strikes.push((at_ms, shard, video, trouble)),
                Event::Stopped { failed: why, .. } => (over, failed) = (true, why),
                Event::Finished { .. } => over = true,
                _ => {}
            }
        }
        // A machine on which whatever is tried fails strikes one video after the other, for nothing.
        strikes.retain(|(at_ms, ..)| !failed || *at_ms <= committed);
        Self {
            strikes: strikes
                .into_iter()
                .map(|(_, shard, video, trouble)| (shard, video, trouble))
                .collect(),
            in_hand: if over {
                Vec::new()
            } else {
                in_hand.into_values().collect()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use affectmill_base::ErrorClass;
    use affectmill_base::{Fingerprint, Location};
    use affectmill_labelset::StageSeconds;
    use affectmill_labelset::events::Totals;

    fn key(name: &str) -> VideoKey {
        VideoKey::new(name).unwrap()
    }

    fn shard(n: u8) -> ShardId {
        ShardId::from_digest(&[n; 8])
    }

    fn started(workers: usize) -> Event {
        Event::RunStarted {
            devices: Vec::new(),
            process: None,
            passed_over: Vec::new(),
            unseen: Default::default(),
            affectmill: String::new(),
            pid: 1,
            host: String::new(),
            fingerprint: Fingerprint::from_digest(&[1; 32]),
            output: Location::Local("/out".into()),
            workers,
            totals: Totals::default(),
        }
    }

    fn leased(worker: usize, n: u8, again: bool) -> Event {
        Event::Leased {
            unknown: 0,
            worker,
            shard: shard(n),
            videos: 1,
            frames: 1,
            again,
            machine: Some(OomRecord::default()),
        }
    }

    fn opened(worker: usize, video: &str) -> Event {
        Event::Opened {
            worker,
            video: key(video),
        }
    }

    fn done(worker: usize, n: u8, frames: u64) -> Event {
        Event::ShardDone {
            worker,
            shard: shard(n),
            planned_frames: 1,
            frames,
            rows: frames,
            ok: 1,
            seconds: StageSeconds::default(),
            fetched_bytes: 0,
            adopted: false,
        }
    }

    fn strike(n: u8, video: &str) -> Event {
        Event::Strike {
            video: key(video),
            strikes: 1,
            of: 3,
            shard: Some(shard(n)),
            trouble: Some(Trouble {
                error: "signal 11".into(),
                class: ErrorClass::Crash,
                frame: None,
            }),
        }
    }

    fn stopped(failed: bool) -> Event {
        Event::Stopped {
            reason: String::new(),
            shards_done: 0,
            shards: 0,
            planned: None,
            failed,
        }
    }

    fn read(events: &[Event], is_whole: bool) -> Ended {
        let line = |(n, event): (usize, &Event)| Line {
            at_ms: n as u64,
            recap: false,
            event: event.clone(),
        };
        Ended::read(events.iter().enumerate().map(line), is_whole)
    }

    fn in_hand(ended: &Ended) -> Vec<(&ShardId, &Opened)> {
        ended
            .in_hand
            .iter()
            .map(|held| (&held.shard, &held.video))
            .collect()
    }

    #[test]
    fn what_was_in_hand_is_known_by_a_whole_log_and_by_parts_only_of_suspects() {
        let events = [
            started(3),
            leased(0, 1, false),
            opened(0, "a"),
            opened(0, "b"),
            leased(1, 2, true),
            opened(1, "c"),
            leased(2, 3, false),
        ];
        let known = |name| Opened::Known(key(name));
        let whole = read(&events, true);
        let expected = [
            (shard(1), known("b")),
            (shard(2), known("c")),
            (shard(3), Opened::Nothing),
        ];
        assert_eq!(
            in_hand(&whole),
            expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
        );
        let parts = read(&events, false);
        let expected = [
            (shard(1), Opened::Unknown),
            (shard(2), known("c")),
            (shard(3), Opened::Unknown),
        ];
        assert_eq!(
            in_hand(&parts),
            expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
        );
        for last in [stopped(false), stopped(true)] {
            let ended = [&events[..], &[last]].concat();
            assert_eq!(read(&ended, true).in_hand, []);
        }
        let back = [done(0, 1, 5), Event::GaveBack { worker: 1 }];
        let ended = [&events[..], &back].concat();
        assert_eq!(in_hand(&read(&ended, true)), [(&shard(3), &Opened::Nothing)]);
        let elsewhere = [&[started(0)], &events[1..]].concat();
        assert_eq!(read(&elsewhere, true), Ended::default());
    }

    #[test]
    fn strikes_of_a_machine_on_which_nothing_works_are_void() {
        let events = [
            started(1),
            strike(1, "a"),
            done(0, 2, 5),
            strike(1, "b"),
            done(0, 3, 0),
            strike(1, "c"),
        ];
        let struck = |ended: Ended| -> Vec<String> {
            ended
                .strikes
                .iter()
                .map(|(_, video, _)| video.to_string())
                .collect()
        };
        assert_eq!(struck(read(&events, true)), ["a", "b", "c"]);
        let stopped_by_signal = [&events[..], &[stopped(false)]].concat();
        assert_eq!(struck(read(&stopped_by_signal, true)), ["a", "b", "c"]);
        let given_up = [&events[..], &[stopped(true)]].concat();
        assert_eq!(struck(read(&given_up, true)), ["a"]);
    }
}
