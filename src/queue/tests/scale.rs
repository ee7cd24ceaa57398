//! The queue at scale, against a real nats-server: shards that cost nothing to label, so that all the time is the queue's.
//! Prints what it measures; what it asserts is that every shard was leased and acknowledged once.

use crate::nats::{Address, Connection, NatsLeases, PostedJob, ShardMessage, ShardStream};
use crate::{Answer, Arrival, Leases};
use affectmill_base::SourceKind;
use affectmill_base::{Location, ShardId, VideoKey};
use affectmill_labelset::{PlannedVideo, ShardPlan};
use affectmill_spec::NatsSettings;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use affectmill_testing::nats::Server;

/// The `n`-th shard of a large collection: a dozen videos with names as people have them.
fn order(n: u32, set: &str) -> ShardMessage {
    let video = |part: u32| PlannedVideo {
        key: VideoKey::new(format!(
            "footage/2024/camera-{:03}/recording {n:07}-{part:02}.mp4",
            n % 500
        ))
        .unwrap(),
        kind: SourceKind::File,
        bytes: 123_456_789 + u64::from(n),
        etag: format!("\"{:032x}\"", u128::from(n) * 0x9e37_79b9_7f4a_7c15),
        frames: 420,
        duration_us: 14_000_000,
        archive: None,
        unreadable: None,
    };
    let mut digest = [0; 8];
    digest[..4].copy_from_slice(&n.to_be_bytes());
    ShardMessage {
        set: set.into(),
        shard: ShardPlan {
            id: ShardId::from_digest(&digest),
            attempt: 0,
            copy_of: None,
            videos: (0..12).map(video).collect(),
        },
        earlier: BTreeMap::new(),
    }
}

/// A job; what it says does not matter here.
fn posting() -> PostedJob {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    let text = "[input]\nuri = \"/v\"\n[[models]]\nname = \"m\"\nkind = \"mini_xception\"\nweights = \"/w\"\n\
                [faces]\nmode = \"full_frame\"\n[output]\nuri = \"/o\"\n";
    std::fs::write(&path, text).unwrap();
    let identity = serde_json::json!({});
    let record = affectmill_labelset::JobRecord {
        version: affectmill_labelset::RECORD_VERSION,
        affectmill: env!("CARGO_PKG_VERSION").into(),
        fingerprint: affectmill_spec::fingerprint(&identity),
        identity,
        models: vec![super::found()],
        job: affectmill_spec::load(&path, &[]).unwrap(),
    };
    PostedJob::new(record, Location::Local("/v".into()))
}

async fn connect(server: &Server) -> Connection {
    let address = Address {
        servers: vec![server.url()],
        job: "scale".into(),
        settings: NatsSettings::default(),
    };
    let (told, _) = mpsc::channel(1);
    Connection::open(address, Duration::from_secs(60), told)
        .await
        .unwrap()
}

fn memory(pid: &str, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The next shard of a host's only worker, and how long it took to come.
async fn next(leases: &mut Leases) -> Option<(ShardId, Duration)> {
    let began = Instant::now();
    assert!(matches!(leases.ask(0), Answer::Later));
    loop {
        match leases.arrival().await {
            Arrival::Lease(_, lease) => return Some((lease.shard.id, began.elapsed())),
            Arrival::Finished => return None,
            Arrival::Trouble(_) | Arrival::Word(_) => {}
            Arrival::Lost(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shard_of_a_large_job_is_leased_once() {
    let soak = std::env::var_os("AFFECTMILL_SOAK").is_some();
    let (shards, hosts, talkers) = if soak {
        (1_000_000, 1_000, 1_000)
    } else {
        (6_000, 40, 100)
    };
    let server = Server::start();
    let posting = posting();
    let set = posting.set();
    let connection = connect(&server).await;
    let revision = connection.post(&posting).await.unwrap();
    let stream = ShardStream::open(connection.clone()).await.unwrap();

    let before = memory("self", "VmRSS");
    let began = Instant::now();
    let new = stream
        .publish((0..shards).map(|n| order(n, &set)))
        .await
        .unwrap()
        .new;
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(new, shards as usize);
    println!(
        "{shards} shards put into the queue in {seconds:.1} s ({:.0}/s); coordinator {before} → {} MiB, server {} MiB",
        f64::from(shards) / seconds,
        memory("self", "VmHWM"),
        memory(&server.pid().to_string(), "VmRSS"),
    );

    // Queue talk of one worker among nothing else: from done to the next lease.
    let mut leases = Leases::Nats(NatsLeases::new(
        connect(&server).await,
        &posting,
        mpsc::channel(1).1,
    ));
    let mut seen = HashSet::new();
    let mut talk = Duration::ZERO;
    for _ in 0..talkers {
        let (shard, took) = next(&mut leases).await.unwrap();
        talk += took;
        leases.done(0, &shard);
        assert!(seen.insert(shard));
    }
    leases.close(None).await;
    let each = talk.as_secs_f64() / f64::from(talkers);
    println!(
        "a worker waits {:.2} ms for its next shard: {:.3} % of a shard of 10 s",
        each * 1e3,
        each * 10.0
    );

    let mut all = Vec::new();
    for _ in 0..hosts {
        all.push(Leases::Nats(NatsLeases::new(
            connect(&server).await,
            &posting,
            mpsc::channel(1).1,
        )));
    }
    let began = Instant::now();
    let mut working = JoinSet::new();
    for mut leases in all {
        working.spawn(async move {
            let mut seen = Vec::new();
            while let Some((shard, _)) = next(&mut leases).await {
                leases.done(0, &shard);
                seen.push(shard);
            }
            leases.close(None).await;
            seen
        });
    }
    let rest = u64::from(shards) - talkers as u64;
    loop {
        let standing = stream.standing().await.unwrap();
        if standing.waiting + standing.leased == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{hosts} hosts: {rest} leases in {seconds:.1} s, {:.0}/s, server and hosts together on this machine; server {} MiB",
        rest as f64 / seconds,
        memory(&server.pid().to_string(), "VmRSS"),
    );
    connection.finished(&posting, &mut Some(revision)).await.unwrap();
    while let Some(done) = working.join_next().await {
        for shard in done.unwrap() {
            assert!(seen.insert(shard.clone()), "{shard} was leased twice");
        }
    }
    assert_eq!(seen.len(), shards as usize);
}
