//! NATS as sites run it: servers that are too old, users with few rights, accounts with limits, and jobs that somebody else posts.

use super::cluster::{Cluster, Part};
use super::common::*;
use super::nats::Server;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

fn ended(command: Command) -> (Option<i32>, String) {
    Part::start(command).wait()
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

fn user(mut command: Command, name: &str, password: &str) -> Command {
    command.env("NATS_USER", name).env("NATS_PASSWORD", password);
    command
}

fn small(clips: u32) -> Project {
    Project::with_models(&["mini_xception"]).synthetic(clips, 20)
}

#[test]
fn a_server_that_is_too_old_is_named_with_the_version_needed() {
    // Debian 12's own.
    let program = cache().join("nats-2.9/nats-server");
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.contains("VERSION_CODENAME=bookworm") {
        return eprintln!("NOT TESTED, the old server is Debian 12's");
    }
    let cluster = Cluster::with(small(1), Server::of(program));
    for command in [cluster.run("out", &[]), cluster.worker("w1")] {
        let (code, words) = ended(command);
        assert_eq!(code, Some(2), "{words}");
        assert!(
            words.contains("has version 2.9.10, and 2.10 or newer is needed"),
            "{words}"
        );
    }
}

/// The server of `jobs/nats.conf`, with passwords `pc` and `pw`.
fn as_in_the_recipe() -> Server {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/nats.conf");
    let recipe = fs::read_to_string(path).unwrap();
    Server::with(&format!(
        "COORDINATOR_PASSWORD: pc\nWORKER_PASSWORD: pw\n{recipe}"
    ))
}

#[test]
fn the_rights_of_the_recipe_are_enough_and_workers_cannot_post() {
    let project = small(3);
    project.run("alone", &[], 0);
    let cluster = Cluster::with(project, as_in_the_recipe());
    let sets = ["nats.inbox_prefix=coordinator", "output.shard_frames=20"];
    let hidden = cluster.project.dir.path().join("scratch");
    // Weights come from the server.
    let scratch = hidden.to_str().unwrap();
    let (code, words) = ended(user(cluster.run("out", &sets), "worker", "pw"));
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("does not let this user")
            && (words.contains("publish to `$JS.API.") || words.contains("subscribe to `coordinator.")),
        "{words}"
    );
    let (code, words) = ended(cluster.worker("w1"));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("NATS_USER and NATS_PASSWORD"), "{words}");

    let run = Part::start(user(cluster.run("out", &sets), "coordinator", "pc"));
    let worker = || {
        let worker = cluster.worker("w1");
        let weights = weights("mini_xception");
        let script = format!("mount --bind /dev/null {weights:?} && exec \"$@\" --scratch {scratch:?}");
        let mut apart = Command::new("unshare");
        apart.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        apart.arg(worker.get_program()).args(worker.get_args());
        Part::start(user(apart, "worker", "pw"))
    };
    // What befell a shard is noted by whoever gets it next.
    let mut first = worker();
    first.until("opened");
    first.signal("KILL");
    let worker = worker();
    let (code, words) = run.wait();
    assert_eq!(
        (code, words.contains("does not let")),
        (Some(0), false),
        "{words}"
    );
    assert_eq!(worker.wait(), (Some(0), String::new()));
    assert_same_labels(&cluster.project.output("alone"), &cluster.project.output("out"));
}

#[test]
fn a_right_that_is_missing_is_named() {
    let lacking = |permissions: &str| {
        let users = format!(
            "authorization {{ users: [{{ user: u, password: p, permissions: {{ {permissions} }} }}] }}"
        );
        Cluster::with(small(1), Server::with(&users))
    };
    let cluster = lacking("publish: { deny: \"$JS.API.STREAM.CREATE.KV_affectmill-job\" }");
    let (code, words) = ended(user(cluster.run("out", &[]), "u", "p"));
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("publish to `$JS.API.STREAM.CREATE.KV_affectmill-job`")
            && words.contains("jobs/OPERATIONS.md"),
        "{words}"
    );
    // Answers come elsewhere.
    let cluster = lacking("subscribe: [\"mine.>\", \"affectmill.>\"]");
    let (code, words) = ended(user(cluster.run("out", &[]), "u", "p"));
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("subscribe to `_INBOX.") && words.contains("inbox_prefix"),
        "{words}"
    );
    let run = Part::start(user(
        cluster.run("out", &["nats.inbox_prefix=mine.own"]),
        "u",
        "p",
    ));
    let worker = with(cluster.worker("w1"), &["--inbox-prefix", "mine.too"]);
    let worker = Part::start(user(worker, "u", "p"));
    assert_eq!(run.wait().0, Some(0));
    assert_eq!(worker.wait(), (Some(0), String::new()));
}

#[test]
fn an_account_with_limits_gets_what_it_asks_for() {
    let accounts = "accounts { site { jetstream: { max_store: 6MB, max_bytes_required: true, max_ack_pending: 50 }, \
                    users: [{ user: u, password: p }] } }";
    let cluster = Cluster::with(small(12), Server::with(accounts));
    let run = |sets: &[&str]| user(cluster.run("out", sets), "u", "p");
    let (code, words) = ended(run(&[]));
    assert_eq!(code, Some(4), "{words}");
    assert!(
        words.contains("max bytes") && words.contains("[nats] max_bytes"),
        "{words}"
    );
    let (code, words) = ended(run(&["nats.max_bytes=5000000"]));
    assert_eq!(code, Some(4), "{words}");
    assert!(
        words.contains("storage") && words.contains("[nats] max_bytes"),
        "{words}"
    );

    let run = Part::start(run(&["nats.max_bytes=1000000"]));
    let worker = Part::start(user(cluster.worker("w1"), "u", "p"));
    let (code, words) = run.wait();
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(worker.wait().0, Some(0));
}

#[test]
fn shards_that_a_full_queue_has_no_room_for_are_labelled_all_the_same() {
    let project = small(1);
    let (clip, mut dice) = (project.videos().join("clip00.mp4"), Dice::new());
    // 3,500 letters that do not compress: 40 such names are more than the queue may hold.
    for _ in 1..40 {
        let mut path = project.videos();
        for _ in 0..14 {
            let letter = |dice: &mut Dice| {
                char::from(
                    b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[dice.roll(62) as usize],
                )
            };
            path.push((0..250).map(|_| letter(&mut dice)).collect::<String>());
        }
        fs::create_dir_all(&path).unwrap();
        fs::hard_link(&clip, path.join("clip.mp4")).unwrap();
    }
    let cluster = Cluster::with(project, Server::start());
    let mut run = Part::start(with(
        cluster.run("out", &["nats.max_bytes=65536", "output.shard_frames=20"]),
        &["--json"],
    ));
    run.until("queued");
    let queue = [
        "status",
        "--json",
        "--queue",
        &cluster.server.url(),
        "--job",
        "job",
    ];
    let status: Value = serde_json::from_str(&succeed(affectmill().args(queue))).unwrap();
    let waiting = status["queue"]["waiting"].as_u64().unwrap();
    assert!((5..35).contains(&waiting), "{status}");
    let worker = Part::start(cluster.worker("w1"));
    let (code, words) = run.wait();
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(worker.count("shard_done"), 40, "each once");
    assert_eq!(worker.wait().0, Some(0));
    assert_eq!(rows(&cluster.project.output("out")).len(), 800);
}

#[test]
fn programs_run_only_on_hosts_that_allow_them() {
    let project = small(1);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/units.pt");
    let job = fs::read_to_string(project.job()).unwrap();
    let model = format!(
        "[[models]]\nname = \"mine\"\nkind = \"torchscript\"\nweights = {script:?}\noutputs = [\"va\", \"au\"]\n\n[faces]"
    );
    fs::write(project.job(), job.replacen("[faces]", &model, 1)).unwrap();
    let cluster = Cluster::with(project, Server::start());
    let mut run = Part::start(with(cluster.run("out", &[]), &["--json"]));
    run.until("queued");
    let sum = succeed(Command::new("sha256sum").arg(&script));
    let sum = sum.split(' ').next().unwrap();
    let other = "0".repeat(64);
    for allowed in [vec![], vec![format!("--allow-torchscript={other}")]] {
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let (code, words) = ended(with(cluster.worker("w1"), &allowed));
        assert_eq!(code, Some(2), "{words}");
        assert!(
            words.contains("model `mine` is a TorchScript program")
                && words.contains(&format!("--allow-torchscript={sum}")),
            "{words}"
        );
    }
    let both = format!("--allow-torchscript={other},{sum}");
    let (code, words) = ended(with(cluster.worker("w1"), &[&both]));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(run.wait().0, Some(0));
}

#[test]
fn a_host_keeps_jobs_within_the_places_that_it_names() {
    let cluster = Cluster::with(small(1), Server::start());
    let mut run = Part::start(with(cluster.run("out", &[]), &["--json"]));
    run.until("queued");
    let (videos, out) = (cluster.project.videos(), cluster.project.output("out"));
    let (videos, out) = (videos.to_str().unwrap(), out.to_str().unwrap());
    let (code, words) = ended(with(cluster.worker("w1"), &["--within", videos]));
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("output") && words.contains(out) && words.contains("--within"),
        "{words}"
    );
    let (code, words) = ended(with(cluster.worker("w1"), &["--within", videos, "--within", out]));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(run.wait().0, Some(0));
}

/// Publishes a message as any client of the server may.
fn publish(server: &Server, subject: &str, messages: &[Vec<u8>]) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    for message in messages {
        stream
            .write_all(format!("PUB {subject} {}\r\n", message.len()).as_bytes())
            .unwrap();
        stream.write_all(message).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"PING\r\n").unwrap();
    let mut said = String::new();
    while !said.contains("PONG") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "{said}");
        said += &String::from_utf8_lossy(&bytes[..count]);
    }
}

#[test]
fn lies_on_the_subject_of_events_end_no_run() {
    let cluster = Cluster::with(small(2), Server::start());
    let mut run = Part::start(with(
        cluster.run("out", &["run.metrics=\"127.0.0.1:0\"", "output.shard_frames=20"]),
        &["--json"],
    ));
    run.until("queued");
    let seconds = json!({
        "decode": -1e308, "decode_blocked": 1e308, "infer": 1e308, "infer_blocked": 0, "rows": 0, "total": 1e-300
    });
    let events = [
        json!({"event": "worker_started", "worker": u64::MAX, "pid": 1, "device": "cuda:0", "gpu": "\u{1b}[2J"}),
        json!({"event": "leased", "worker": 3, "shard": "0123456789abcdef", "videos": 1, "frames": u64::MAX}),
        json!({"event": "progress", "worker": 3, "frames": u64::MAX, "rows": u64::MAX}),
        json!({"event": "shard_done", "worker": 3, "shard": "../../../../etc/x", "planned_frames": 1, "frames": 1,
               "rows": 1, "ok": 1, "seconds": seconds, "fetched_bytes": 0, "adopted": false}),
        json!({"event": "shard_done", "worker": 3, "shard": "0123456789abcdef", "planned_frames": u64::MAX,
               "frames": u64::MAX, "rows": u64::MAX, "ok": 1, "seconds": seconds, "fetched_bytes": u64::MAX, "adopted": true}),
        json!({"event": "finished"}),
    ];
    let mut messages = vec![b"no JSON".to_vec(), vec![0; 100_000], b"{}".to_vec()];
    for event in &events {
        let told = json!({"host": "h\u{0}st", "pid": 7, "event": event});
        messages.extend([(); 3].map(|()| told.to_string().into_bytes()));
    }
    publish(&cluster.server, "affectmill.job.events", &messages);
    let worker = Part::start(cluster.worker("w1"));
    let (code, words) = run.wait();
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(worker.wait(), (Some(0), String::new()));
    assert_eq!(rows(&cluster.project.output("out")).len(), 40);
}
