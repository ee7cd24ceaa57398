//! The lease contract, held by both queues: in the coordinator's memory, and on a real NATS server, which is also killed,
//! wiped, and asked by hosts that fall silent.

use crate::local::LocalQueue;
use crate::nats::{Address, Connection, NatsError, NatsLeases, PostedJob, ShardMessage, ShardStream, State};
use crate::{Answer, Arrival, Lease, Leases};
use affectmill_base::sha256_hex;
use affectmill_base::{ErrorClass, SourceKind, Trouble};
use affectmill_base::{FrameIndex, Location, ModelKind, Precision, ShardId, VideoKey};
use affectmill_labelset::{JobRecord, PlannedVideo, RECORD_VERSION, ShardPlan};
use affectmill_spec as spec;
use affectmill_spec::ModelRecord;
use affectmill_spec::NatsSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

mod hostile;
use affectmill_testing::nats;
mod scale;
use nats::Server;

const LEASE: Duration = Duration::from_secs(2);

fn shard(number: u32) -> ShardPlan {
    let video = |part: u32| PlannedVideo {
        key: VideoKey::new(format!("clip {number}/{part}.mp4")).unwrap(),
        kind: SourceKind::File,
        bytes: 1,
        etag: String::new(),
        frames: 10,
        duration_us: 0,
        archive: None,
        unreadable: None,
    };
    let mut digest = [0; 8];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    ShardPlan {
        id: ShardId::from_digest(&digest),
        attempt: 0,
        copy_of: None,
        videos: vec![video(0), video(1)],
    }
}

fn shards(count: u32) -> Vec<ShardPlan> {
    (0..count).map(shard).collect()
}

fn trouble() -> Trouble {
    Trouble {
        error: "signal 11".into(),
        class: ErrorClass::Crash,
        frame: Some(FrameIndex(7)),
    }
}

/// A job record; of the job only name and lease time matter to the queue.
fn record(output: &str) -> JobRecord {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[input]\nuri = \"/videos\"\n[[models]]\nname = \"m\"\nkind = \"mini_xception\"\nweights = \"/w\"\n\
         [faces]\nmode = \"full_frame\"\n[output]\nuri = {output:?}\n"
    );
    let path = folder.path().join("job.toml");
    std::fs::write(&path, text).unwrap();
    let lease = format!("nats.lease_seconds={}", LEASE.as_secs_f64());
    let job = spec::load(&path, &[lease]).unwrap();
    let identity = serde_json::json!({ "of": output });
    JobRecord {
        version: RECORD_VERSION,
        affectmill: env!("CARGO_PKG_VERSION").into(),
        fingerprint: spec::fingerprint(&identity),
        identity,
        models: vec![found()],
        job,
    }
}

/// The model of these jobs as a coordinator found it.
fn found() -> ModelRecord {
    ModelRecord {
        name: "m".into(),
        kind: ModelKind::MiniXception.into(),
        outputs: vec![],
        sha256: "c".repeat(64),
        also: vec![],
        flip: false,
        architecture: "a".into(),
        preprocessing: "p".into(),
        precision: Precision::Fp32,
        untrained: false,
    }
}

fn posting(output: &str) -> PostedJob {
    PostedJob::new(record(output), Location::Local("/videos".into()))
}

fn address(server: &Server, job: &str) -> Address {
    Address {
        servers: vec![server.url()],
        job: job.into(),
        settings: NatsSettings {
            lease_seconds: LEASE.as_secs_f64(),
            ..NatsSettings::default()
        },
    }
}

async fn connect(address: Address) -> Connection {
    let (told, _) = mpsc::channel(1);
    Connection::open(address, Duration::from_secs(20), told)
        .await
        .unwrap()
}

/// A posted job, and the coordinator's side of it.
async fn post(server: &Server, job: &str) -> (Connection, ShardStream) {
    let connection = connect(address(server, job)).await;
    connection.post(&posting("/out")).await.unwrap();
    let stream = ShardStream::open(connection.clone()).await.unwrap();
    (connection, stream)
}

/// Says that the posted job is finished.
async fn finish(connection: &Connection) {
    let posting = connection.posting().await.unwrap().unwrap();
    connection.finished(&posting, &mut None).await.unwrap();
}

async fn publish(stream: &ShardStream, shards: &[ShardPlan]) -> usize {
    let orders = shards.iter().map(|shard| ShardMessage {
        set: posting("/out").set(),
        shard: shard.clone(),
        earlier: BTreeMap::new(),
    });
    stream.publish(orders).await.unwrap().new
}

/// Leases of the job that these tests post.
fn pulled(connection: Connection) -> Leases {
    let posting = posting("/out");
    assert_eq!(posting.record.job.run.max_strikes, 3);
    Leases::Nats(NatsLeases::new(connection, &posting, mpsc::channel(1).1))
}

/// A further host.
async fn host(server: &Server, job: &str) -> Leases {
    let connection = connect(address(server, job)).await;
    pulled(connection)
}

/// The next lease of this worker, if one comes within `patience`.
async fn lease(leases: &mut Leases, worker: usize, patience: Duration) -> Option<Lease> {
    match leases.ask(worker) {
        Answer::Lease(lease) => return Some(*lease),
        Answer::Nothing => return None,
        Answer::Later => {}
    }
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, leases.arrival()).await {
            Ok(Arrival::Lease(who, lease)) => {
                assert_eq!(who, worker);
                return Some(*lease);
            }
            Ok(Arrival::Trouble(_) | Arrival::Word(_)) => {}
            Ok(Arrival::Finished | Arrival::Lost(_)) | Err(_) => return None,
        }
    }
}

const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_millis(700);

/// The contract. `make` gives a queue over these shards.
async fn conforms(mut make: impl AsyncFnMut(Vec<ShardPlan>) -> Leases) {
    // Each shard once; nothing while all are in somebody's hands; nothing when all are done.
    let mut leases = make(shards(5)).await;
    let mut ids = BTreeSet::new();
    for worker in 0..5 {
        let lease = lease(&mut leases, worker, SOON).await.expect("a shard");
        assert_eq!(lease.quarantined, []);
        assert!(ids.insert(lease.shard.id));
    }
    assert_eq!(ids, shards(5).into_iter().map(|shard| shard.id).collect());
    assert_eq!(leases.leased(), 5);
    assert!(lease(&mut leases, 9, AT_ONCE).await.is_none());
    leases.give_back(9, None);
    for (worker, id) in ids.iter().enumerate() {
        // Whoever holds it: of the wrong worker an acknowledgement does no harm.
        let _ = leases.done(worker, id);
    }
    leases.close(None).await;

    // What is given back comes again; what is done does not, and a second acknowledgement finds nothing.
    let mut leases = make(shards(2)).await;
    let first = lease(&mut leases, 0, SOON).await.unwrap().shard;
    assert_eq!(leases.give_back(0, None), None);
    let again = lease(&mut leases, 1, SOON).await.unwrap().shard;
    let other = lease(&mut leases, 2, SOON).await.unwrap().shard;
    assert_eq!(BTreeSet::from([&again.id, &other.id]).len(), 2);
    assert!(first == again || first == other);
    assert_eq!(leases.done(1, &again.id), Some(again.clone()));
    assert_eq!(leases.done(1, &again.id), None);
    assert_eq!(leases.done(2, &other.id), Some(other));
    assert!(lease(&mut leases, 3, AT_ONCE).await.is_none());
    assert_eq!(leases.leased(), 0);
    leases.close(None).await;

    // Three strikes quarantine the video, and no other one of its shard.
    let mut leases = make(shards(1)).await;
    let bad = shard(0).videos[1].key.clone();
    for strike in 1..=3 {
        let held = lease(&mut leases, strike, SOON).await.expect("it comes again");
        assert_eq!(held.quarantined, []);
        let strikes = leases.give_back(strike, Some((bad.clone(), trouble())));
        assert_eq!(strikes, Some(strike));
    }
    let last = lease(&mut leases, 4, SOON).await.expect("it comes again");
    assert_eq!(last.quarantined.len(), 1);
    assert_eq!(last.quarantined[0].key, bad);
    let told = &last.quarantined[0].trouble;
    assert_eq!((told.class, told.frame), (ErrorClass::Crash, Some(FrameIndex(7))));
    for words in ["3 attempts", "signal 11", "frame reached was 7"] {
        assert!(told.error.contains(words), "{}", told.error);
    }
    assert!(leases.done(4, &last.shard.id).is_some());
    leases.close(None).await;
}

#[tokio::test]
async fn the_queue_in_memory_keeps_the_contract() {
    conforms(async |shards| Leases::Local(LocalQueue::new(shards, 3))).await;
}

#[tokio::test]
async fn the_queue_on_nats_keeps_the_contract() {
    let server = Server::start();
    let mut jobs = 0;
    conforms(async |shards| {
        jobs += 1;
        let job = format!("job{jobs}");
        let (_, stream) = post(&server, &job).await;
        assert_eq!(publish(&stream, &shards).await, shards.len());
        host(&server, &job).await
    })
    .await;
}

#[tokio::test]
async fn what_a_silent_host_held_goes_to_another_one_and_what_a_living_one_holds_does_not() {
    let server = Server::start();
    let (_, stream) = post(&server, "silent").await;
    publish(&stream, &shards(1)).await;
    let (mut one, mut other) = (host(&server, "silent").await, host(&server, "silent").await);
    let held = lease(&mut one, 0, SOON).await.unwrap();
    assert!(
        lease(&mut other, 0, 4 * LEASE).await.is_none(),
        "a host that lives keeps its lease, however long it takes"
    );
    // Gone without a word: nothing of it runs any more.
    drop(one);
    let taken = lease(&mut other, 0, SOON).await.expect("it goes to another host");
    assert_eq!(taken.shard, held.shard);
    assert_eq!(taken.quarantined, []);
}

#[tokio::test]
async fn a_shard_is_in_the_queue_once_however_often_it_is_put_there() {
    let server = Server::start();
    let (_, stream) = post(&server, "once").await;
    let all = shards(700);
    assert_eq!(publish(&stream, &all).await, 700);
    assert_eq!(publish(&stream, &all).await, 0);
    let standing = stream.standing().await.unwrap();
    assert_eq!((standing.waiting, standing.leased), (700, 0));
    let mut leases = host(&server, "once").await;
    let held = lease(&mut leases, 0, SOON).await.unwrap().shard;
    assert_eq!(publish(&stream, &all).await, 0, "what is in hand counts too");
    assert_eq!(leases.done(0, &held.id).as_ref(), Some(&held));
    leases.close(None).await;
    let standing = stream.standing().await.unwrap();
    assert_eq!((standing.waiting, standing.leased), (699, 0));
}

#[tokio::test]
async fn a_server_that_is_killed_or_wiped_costs_no_shard() {
    let mut server = Server::start();
    let (connection, stream) = post(&server, "killed").await;
    publish(&stream, &shards(3)).await;
    let mut leases = host(&server, "killed").await;
    let held = lease(&mut leases, 0, SOON).await.unwrap().shard;
    server.kill();
    // Asked for while nobody answers; the shard in hand is done meanwhile.
    assert!(lease(&mut leases, 1, AT_ONCE).await.is_none());
    assert!(leases.done(0, &held.id).is_some());
    server.run();
    // Late as the acknowledgement is, that shard may come again: the commit would tell. None may be missing.
    let mut seen = BTreeSet::from([held.id.clone()]);
    let mut last = held;
    let began = Instant::now();
    while seen.len() < 3 {
        assert!(began.elapsed() < 2 * SOON, "{seen:?}");
        if let Some(next) = lease(&mut leases, 1, SOON).await {
            last = next.shard;
            assert!(leases.done(1, &last.id).is_some());
            seen.insert(last.id.clone());
        }
    }
    leases.close(None).await;

    // All it kept is lost: what is not committed is put back.
    server.kill();
    server.wipe();
    server.run();
    let began = Instant::now();
    while connection.post(&posting("/out")).await.is_err() || stream.standing().await.is_err() {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(publish(&stream, std::slice::from_ref(&last)).await, 1);
    let mut other = host(&server, "killed").await;
    assert_eq!(lease(&mut other, 0, SOON).await.unwrap().shard, last);
}

#[tokio::test]
async fn workers_learn_that_the_job_is_finished() {
    let server = Server::start();
    let (connection, stream) = post(&server, "ends").await;
    publish(&stream, &shards(1)).await;
    let mut leases = host(&server, "ends").await;
    let held = lease(&mut leases, 0, SOON).await.unwrap().shard;
    leases.done(0, &held.id);
    assert!(matches!(leases.ask(0), Answer::Later));
    finish(&connection).await;
    assert!(matches!(
        timeout(SOON, leases.arrival()).await,
        Ok(Arrival::Finished)
    ));
    assert!(!leases.is_open());
    // It can be posted and worked on again.
    let (_, stream) = post(&server, "ends").await;
    assert_eq!(publish(&stream, &shards(2)).await, 2);
    let mut leases = host(&server, "ends").await;
    assert!(lease(&mut leases, 0, SOON).await.is_some());
}

/// A server came back with nothing after the last commit: nobody will post the job there again, and hosts wait.
#[tokio::test]
async fn workers_learn_from_an_emptied_server_that_the_job_is_finished() {
    for by_its_poster in [true, false] {
        let mut server = Server::start();
        let connection = connect(address(&server, "emptied")).await;
        let revision = connection.post(&posting("/out")).await.unwrap();
        let mut leases = host(&server, "emptied").await;
        assert!(matches!(leases.ask(0), Answer::Later));
        server.kill();
        server.wipe();
        server.run();
        let mut revision = by_its_poster.then_some(revision);
        let began = Instant::now();
        while let Err(error) = connection.finished(&posting("/out"), &mut revision).await {
            assert!(began.elapsed() < 2 * SOON, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let found = connection.posting().await.unwrap().unwrap();
        assert_eq!(found.state, State::Finished);
        let told = async { while !matches!(leases.arrival().await, Arrival::Finished) {} };
        timeout(2 * SOON, told).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_belongs_to_one_job_until_that_is_finished() {
    let server = Server::start();
    let (connection, _) = post(&server, "name").await;
    connection.post(&posting("/out")).await.unwrap();
    let taken = connection.post(&posting("/elsewhere")).await;
    assert!(matches!(taken, Err(NatsError::Taken { .. })), "{taken:?}");
    let text = taken.unwrap_err().to_string();
    assert!(text.contains("/out") && text.contains("[run] name"), "{text}");
    finish(&connection).await;
    connection.post(&posting("/elsewhere")).await.unwrap();
    let found = connection.posting().await.unwrap().unwrap();
    assert_eq!(found.state, State::Running);
    assert_eq!(found.record.job.output.uri, Location::Local("/elsewhere".into()));

    let nobody = connect(address(&server, "nobody")).await;
    assert_eq!(nobody.posting().await.unwrap(), None);
    let none = nobody
        .await_posting(Duration::from_millis(600))
        .await
        .unwrap_err();
    assert!(none.to_string().contains("no job `nobody` is posted"), "{none}");
}

#[tokio::test]
async fn only_whoever_posted_last_says_that_a_job_is_finished() {
    let server = Server::start();
    let connection = connect(address(&server, "last")).await;
    let first = connection.post(&posting("/out")).await.unwrap();
    let second = connection.post(&posting("/out")).await.unwrap();
    connection
        .finished(&posting("/out"), &mut Some(first))
        .await
        .unwrap();
    let state = async || connection.posting().await.unwrap().unwrap().state;
    assert_eq!(state().await, State::Running, "there may be new videos");
    connection
        .finished(&posting("/out"), &mut Some(second))
        .await
        .unwrap();
    assert_eq!(state().await, State::Finished);
    // A job of another label set by that name is not ours to end.
    connection.post(&posting("/elsewhere")).await.unwrap();
    connection.finished(&posting("/out"), &mut None).await.unwrap();
    assert_eq!(state().await, State::Running);
}

#[tokio::test]
async fn a_host_of_an_earlier_job_of_that_name_takes_nothing_of_the_new_one() {
    let server = Server::start();
    let (connection, stream) = post(&server, "reused").await;
    let mut stale = host(&server, "reused").await;
    finish(&connection).await;
    // The same labels, into another place.
    connection.post(&posting("/elsewhere")).await.unwrap();
    drop(stream);
    let stream = ShardStream::open(connection).await.unwrap();
    let orders = shards(3).into_iter().map(|shard| ShardMessage {
        set: posting("/elsewhere").set(),
        shard,
        earlier: BTreeMap::new(),
    });
    assert_eq!(stream.publish(orders).await.unwrap().new, 3);
    assert!(lease(&mut stale, 0, SOON).await.is_none());
    assert!(!stale.is_open(), "it may go");
    let standing = stream.standing().await.unwrap();
    assert_eq!(standing.waiting + standing.leased, 3);
}

#[tokio::test]
async fn a_host_gives_up_when_the_servers_stay_away() {
    let mut server = Server::start();
    let (connection, _) = post(&server, "gone").await;
    let mut posting = posting("/out");
    posting.record.job.run.outage_timeout = 1.0;
    let (told, words) = mpsc::channel(16);
    drop(connection);
    let connection = Connection::open(address(&server, "gone"), SOON, told)
        .await
        .unwrap();
    let mut leases = Leases::Nats(NatsLeases::new(connection, &posting, words));
    assert!(matches!(leases.ask(0), Answer::Later));
    server.kill();
    let (mut word, mut trouble) = (false, false);
    loop {
        match timeout(Duration::from_secs(120), leases.arrival())
            .await
            .expect("it gives up")
        {
            Arrival::Word(text) => word |= text.contains("out of reach"),
            Arrival::Trouble(_) => trouble = true,
            Arrival::Lost(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(word && trouble, "and says so before: {word} {trouble}");
}

#[tokio::test]
async fn what_is_held_against_videos_is_forgotten_when_a_finished_job_is_run_again() {
    let server = Server::start();
    let (connection, stream) = post(&server, "again").await;
    publish(&stream, &shards(1)).await;
    let mut leases = host(&server, "again").await;
    let bad = shard(0).videos[0].key.clone();
    for worker in 0..3 {
        lease(&mut leases, worker, SOON).await.unwrap();
        leases.give_back(worker, Some((bad.clone(), trouble())));
    }
    let held = lease(&mut leases, 3, SOON).await.unwrap();
    assert_eq!(held.quarantined.len(), 1);
    leases.done(3, &held.shard.id);
    leases.close(None).await;
    finish(&connection).await;

    let (_, stream) = post(&server, "again").await;
    publish(&stream, &shards(1)).await;
    let mut leases = host(&server, "again").await;
    lease(&mut leases, 0, SOON).await.unwrap();
    leases.give_back(0, None);
    let second = lease(&mut leases, 1, SOON).await.unwrap();
    assert_eq!(second.quarantined, []);
}

#[tokio::test]
async fn weights_travel_with_the_job() {
    let server = Server::start();
    let (connection, _) = post(&server, "weights").await;
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    std::fs::write(folder.path().join("w"), &bytes).unwrap();
    let path = folder.path().join("w");
    let sha256 = sha256_hex(&bytes);
    for _ in 0..2 {
        connection.post_weights(&[(&sha256, &path)]).await.unwrap();
    }
    let copy = folder.path().join("copy");
    connection.fetch_weights(&sha256, &copy).await.unwrap();
    let replaced = connection.post_weights(&[("cafe", &path)]).await.unwrap_err();
    assert!(
        replaced.to_string().contains("was replaced since the run began"),
        "{replaced}"
    );
    assert!(std::fs::read(&copy).unwrap() == bytes);
    let missing = connection.fetch_weights("beef", &copy).await.unwrap_err();
    assert!(missing.to_string().contains("give the weights"), "{missing}");
}

#[tokio::test]
async fn a_cluster_of_three_outlives_any_one_of_its_servers() {
    let ports = nats::free_ports(6);
    let routes: Vec<String> = ports[3..]
        .iter()
        .map(|port| format!("\"nats://127.0.0.1:{port}\""))
        .collect();
    let mut servers: Vec<Server> = (0..3)
        .map(|n| {
            let configuration = format!(
                "server_name: s{n}\ncluster {{ name: three, listen: \"127.0.0.1:{}\", routes: [{}] }}",
                ports[3 + n],
                routes.join(", ")
            );
            Server::configured(&configuration, ([127, 0, 0, 1], ports[n]).into(), None)
        })
        .collect();
    let address = || Address {
        servers: servers.iter().map(Server::url).collect(),
        job: "three".into(),
        settings: NatsSettings {
            replicas: 3,
            lease_seconds: LEASE.as_secs_f64(),
            ..NatsSettings::default()
        },
    };
    let (ours, theirs) = (connect(address()).await, connect(address()).await);
    let began = Instant::now();
    while let Err(error) = ours.post(&posting("/out")).await {
        assert!(began.elapsed() < Duration::from_secs(60), "no leader: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let stream = ShardStream::open(ours).await.unwrap();
    let all = shards(30);
    assert_eq!(publish(&stream, &all).await, 30);
    let mut leases = pulled(theirs);
    let mut done = BTreeSet::new();
    for n in 0..30 {
        // One after the other is killed, and comes back before the next one goes.
        if n % 10 == 5 {
            servers[n / 10].kill();
        }
        if n % 10 == 9 {
            servers[n / 10].run();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let held = lease(&mut leases, 0, Duration::from_secs(60))
            .await
            .expect("the other two go on")
            .shard;
        // An acknowledgement that was lost with a server brings a shard again; the commit would tell.
        done.insert(held.id.clone());
        leases.done(0, &held.id);
    }
    let began = Instant::now();
    while done.len() < 30 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of 30", done.len());
        if let Some(held) = lease(&mut leases, 0, SOON).await {
            done.insert(held.shard.id.clone());
            leases.done(0, &held.shard.id);
        }
    }
    leases.close(None).await;
}

/// Runs openssl in a folder; it must succeed.
fn openssl(folder: &std::path::Path, arguments: &[&str]) {
    let mut command = std::process::Command::new("openssl");
    let done = command
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("openssl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn tls_needs_the_certificates_it_was_signed_by() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"];
    let authority = [
        "-x509",
        "-subj",
        "/CN=test authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ];
    openssl(folder.path(), &[&["req"], &new[..], &authority].concat());
    let request = [
        "-subj",
        "/CN=localhost",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ];
    openssl(folder.path(), &[&["req"], &new[..], &request].concat());
    std::fs::write(at("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
    let sign = [
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
    ];
    let to = ["-days", "2", "-extfile", "names", "-out", "server.pem"];
    openssl(folder.path(), &[&sign[..], &to].concat());
    let configuration = format!(
        "tls {{ cert_file: {:?}, key_file: {:?} }}",
        at("server.pem"),
        at("server.key")
    );
    let port = nats::free_ports(1)[0];
    let server = Server::configured(&configuration, ([127, 0, 0, 1], port).into(), None);

    let open = async |ca: Option<std::path::PathBuf>| {
        let address = Address {
            servers: vec![format!("tls://localhost:{port}")],
            job: "tls".into(),
            settings: NatsSettings {
                ca,
                ..NatsSettings::default()
            },
        };
        let (told, _) = mpsc::channel(1);
        Connection::open(address, Duration::from_millis(600), told).await
    };
    let trusted = open(Some(at("ca.pem"))).await.unwrap();
    trusted.post(&posting("/out")).await.unwrap();
    let stranger = open(None).await.map(drop).unwrap_err().to_string();
    assert!(stranger.contains("no NATS server can be reached"), "{stranger}");
    let missing = open(Some(at("none.pem")))
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("none.pem") && missing.contains("[nats] ca"),
        "{missing}"
    );
    drop(server);
}

#[tokio::test]
async fn what_cannot_be_reached_or_entered_is_told_with_the_remedy() {
    let open = async |address: Address| {
        let (told, _) = mpsc::channel(1);
        let opened = Connection::open(address, Duration::from_millis(600), told).await;
        opened.map(drop).unwrap_err().to_string()
    };
    let nowhere = Address {
        servers: vec![format!("nats://127.0.0.1:{}", nats::free_ports(1)[0])],
        job: "x".into(),
        settings: NatsSettings::default(),
    };
    let text = open(nowhere).await;
    assert!(
        text.contains("nats-server -js") && text.contains("[run] queue"),
        "{text}"
    );

    let users = "authorization { users: [{ user: somebody, password: secret }] }";
    let port = nats::free_ports(1)[0];
    let closed = Server::configured(users, ([127, 0, 0, 1], port).into(), None);
    let text = open(address(&closed, "x")).await;
    assert!(
        text.contains("NATS_USER") && text.contains("[nats] credentials"),
        "{text}"
    );
}
