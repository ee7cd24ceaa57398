//! Texts that somebody else wrote: each place in each message is given what has no place there. What is not free text is refused
//! when it is read, so that nothing later makes a path, a subject or a pause of it; and nothing panics.

use super::{posting, shard, trouble};
use crate::nats::{HostEvent, PostedJob, ShardMessage};
use crate::{EarlierVideo, FromWorker, Lease, ToWorker};
use affectmill_base::{Fingerprint, FrameIndex, Location, VideoKey};
use affectmill_labelset::{
    CheckpointRecord, CommitRecord, PartInfo, Plan, Quarantined, RECORD_VERSION, StageSeconds, VideoOutcome,
    VideoStatus,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;

/// Texts that become names of files, parts of subjects or columns nowhere unchecked.
const HOSTILE: [&str; 9] = [
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    "",
    "a\0b",
    "a/../../b",
    "s3://",
    "file:///etc/passwd",
    "evil.>",
];

/// Keys of texts that people read or that are only compared; and of those whose every value is a file of its own host.
const FREE: [&str; 14] = [
    "error",
    "reason",
    "message",
    "host",
    "device",
    "gpu",
    "cause",
    "etag",
    "affectmill",
    "unreadable",
    "decode_fallback",
    "architecture",
    "preprocessing",
    "set",
];

/// Keys of names of videos and of places, with what they may be of the hostile.
const NAMES: [(&str, &str); 8] = [
    ("key", "evil.>"),
    ("video", "evil.>"),
    ("archive", "evil.>"),
    ("uri", "/etc/passwd"),
    ("input_root", "/etc/passwd"),
    ("weights", "/etc/passwd"),
    ("also", "/etc/passwd"),
    ("scratch", "/etc/passwd"),
];

/// Every leaf of a value, as a JSON pointer, and the key it lies under.
fn leaves(value: &Value, at: String, key: &str, found: &mut Vec<(String, String)>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(entries) => {
            for (name, entry) in entries {
                leaves(entry, format!("{at}/{}", escaped(name)), name, found);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                leaves(item, format!("{at}/{n}"), key, found);
            }
        }
        _ => found.push((at, key.to_owned())),
    }
}

/// Tries every hostile value at every leaf; returns how many were refused.
fn attack<T: DeserializeOwned + serde::Serialize>(what: &str, message: &T) -> usize {
    let good = serde_json::to_value(message).unwrap();
    serde_json::from_value::<T>(good.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut found = Vec::new();
    leaves(&good, String::new(), "", &mut found);
    let mut refused = 0;
    for (pointer, key) in &found {
        let leaf = good.pointer(pointer).unwrap();
        let mut attempts: Vec<Value> = HOSTILE.map(Value::from).to_vec();
        attempts.extend([
            json!(-1),
            json!(u64::MAX),
            json!(1e308),
            json!([]),
            json!({}),
            json!(null),
        ]);
        for attempt in attempts {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = attempt.clone();
            let taken = serde_json::from_value::<T>(bad).is_ok();
            refused += usize::from(!taken);
            let (Some(text), true) = (attempt.as_str(), leaf.is_string()) else {
                continue;
            };
            let may_be = NAMES.contains(&(key.as_str(), text));
            assert!(
                !taken || FREE.contains(&key.as_str()) || may_be,
                "{what}: {pointer} may be {text:?}"
            );
        }
    }
    // Names of entries are texts too.
    let text = good.to_string();
    let bad = text.replace("\"clip 0/0.mp4\":", "\"../../x\":");
    assert!(bad == text || serde_json::from_str::<T>(&bad).is_err(), "{what}");
    refused
}

fn part() -> PartInfo {
    PartInfo {
        rows: 1,
        bytes: 1,
        sha256: "0".repeat(64),
    }
}

fn earlier() -> BTreeMap<VideoKey, EarlierVideo> {
    let video = EarlierVideo {
        key: Some(shard(0).videos[0].key.clone()),
        shard: shard(1).id,
        sha256: "a".repeat(64),
        bytes: 1,
        status: VideoStatus::Ok,
    };
    BTreeMap::from([(shard(0).videos[0].key.clone(), video)])
}

fn order() -> ShardMessage {
    let mut shard = shard(0);
    shard.videos[1].archive = Some("crops/a.tar".to_owned().try_into().unwrap());
    ShardMessage {
        set: "0".repeat(32),
        shard,
        earlier: earlier(),
    }
}

/// A posted job with everything in it that may be named.
fn full() -> PostedJob {
    let mut posting = posting("/out");
    posting.record.identity = json!({ "faces": { "detector": "b".repeat(64) } });
    posting.record.models[0].also = vec!["d".repeat(64)];
    let job = &mut posting.record.job;
    job.models[0].also = vec![Location::Local("/w2".into())];
    job.run.name = Some("job".into());
    job.run.queue = "nats://127.0.0.1:4222".into();
    job.run.scratch = Some("/scratch".into());
    job.nats.inbox_prefix = Some("mine".into());
    posting
}

#[test]
fn texts_of_others_are_checked_when_they_are_read() {
    let key = shard(0).videos[0].key.clone();
    let outcome = VideoOutcome {
        error: Some("e".into()),
        ..VideoOutcome::new(key.clone())
    };
    let commit = CommitRecord {
        device: None,
        retired: None,
        version: RECORD_VERSION,
        shard: shard(0).id,
        fingerprint: Fingerprint::from_digest(&[1; 32]),
        part: part(),
        crops: Some(part()),
        videos: vec![outcome.clone()],
        seconds: StageSeconds::default(),
    };
    let lease = Lease {
        shard: order().shard,
        quarantined: vec![Quarantined {
            key: key.clone(),
            trouble: trouble(),
        }],
        next: Some(shard(1)),
        earlier: earlier(),
    };
    let told = HostEvent {
        host: "h".into(),
        pid: 1,
        event: affectmill_labelset::events::Event::ShardDone {
            worker: 0,
            shard: shard(0).id,
            planned_frames: 1,
            frames: 1,
            rows: 1,
            ok: 1,
            seconds: StageSeconds::default(),
            fetched_bytes: 0,
            adopted: false,
        },
    };
    let done = FromWorker::Done {
        shard: shard(0).id,
        rows: 1,
        videos: vec![outcome],
        seconds: StageSeconds::default(),
        fetched_bytes: 0,
        adopted: false,
    };
    let opened = FromWorker::Resumed {
        video: key,
        frame: FrameIndex(0),
        again: 1,
    };
    let plan = Plan {
        input: None,
        version: RECORD_VERSION,
        shards: vec![order().shard],
    };
    let span = CheckpointRecord {
        device: None,
        version: RECORD_VERSION,
        shard: shard(0).id,
        fingerprint: Fingerprint::from_digest(&[1; 32]),
        number: 0,
        follows: None,
        part: part(),
        crops: None,
        resume_point: serde_json::from_value(json!({
            "frame": 1, "frames": 1, "foothold": { "frame": 0, "ticks": 0, "seek": null, "sha256": "0".repeat(64) }
        }))
        .unwrap(),
    };
    let refused = [
        attack("a posted job", &full()),
        attack("a shard in the queue", &order()),
        attack("a lease", &ToWorker::Lease(Box::new(lease))),
        attack("what a host tells", &told),
        attack("done", &done),
        attack("resumed", &opened),
        attack("a commit", &commit),
        attack("a plan", &plan),
        attack("a span", &span),
    ];
    assert!(refused.iter().all(|refused| *refused > 5), "{refused:?}");
}

/// What a job file may not say, a posted job may not either: a pause of no length, a lease of a million years.
#[test]
fn a_posted_job_keeps_the_ranges_of_a_job_file() {
    let good = serde_json::to_value(full()).unwrap();
    for (pointer, values) in [
        (
            "/record/job/nats/lease_seconds",
            [json!(0), json!(-1), json!(1e300)],
        ),
        (
            "/record/job/run/outage_timeout",
            [json!(0), json!(-5.0), json!(1e300)],
        ),
        (
            "/record/job/run/stall_timeout",
            [json!(0), json!(-5.0), json!(1e300)],
        ),
        (
            "/record/job/run/drain_seconds",
            [json!(-1), json!(1e9), json!(1e300)],
        ),
        ("/record/job/run/batch", [json!(0), json!(-1), json!(1e300)]),
        ("/record/job/models", [json!([]), json!({}), json!(1)]),
        (
            "/record/job/output/uri",
            [json!("out"), json!("/a/./../\u{0}"), json!("gs://b")],
        ),
        ("/input_root", [json!("videos"), json!("/a\u{0}"), json!("s3://")]),
    ] {
        for value in values {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value.clone();
            assert!(
                serde_json::from_value::<PostedJob>(bad).is_err(),
                "{pointer} may be {value}"
            );
        }
    }
}

#[test]
fn a_shard_that_inflates_beyond_measure_is_none() {
    let bomb = |blanks: usize| {
        let mut bomb = zstd::Encoder::new(Vec::new(), 3).unwrap();
        let blank = [b' '; 1 << 20];
        (0..blanks).for_each(|_| bomb.write_all(&blank).unwrap());
        bomb.write_all(&serde_json::to_vec(&order()).unwrap()).unwrap();
        bomb.finish().unwrap()
    };
    assert_eq!(ShardMessage::read(&bomb(1)), Some(order()));
    assert_eq!(ShardMessage::read(&bomb(100)), None);
}
