//! `[run] metrics`: what a run shows of itself while it is on.

use super::common::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Head and body of an answer.
pub fn ask(address: &str, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

/// The samples as the Python package of Prometheus reads them: `name{label=value,…}` and the value.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let script = r#"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
named = lambda s: s.name + "".join("{%s=%s}" % label for label in sorted(s.labels.items()))
print(json.dumps({named(s): s.value for f in families(sys.stdin.read()) for s in f.samples if s.value == s.value}))
"#;
    let mut reader = Command::new(python())
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python");
    let mut input = reader.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = reader.wait_with_output().expect("it ends");
    assert!(output.status.success(), "no OpenMetrics:\n{text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn figures_and_page_tell_what_happened() {
    let project = Project::new().synthetic(4, 15);
    let hostile = "<script>alert(1)</script>.mp4".replace('/', "∕");
    fs::write(project.videos().join(&hostile), "no video").unwrap();
    let sets = [
        "run.metrics=\"127.0.0.1:0\"",
        "run.metrics_hosts=[\"metrics.example\"]",
        "run.workers=2",
        "output.shard_frames=1",
    ];
    let mut run = project.start("out", &sets);
    let address = run.until("shown")["address"].as_str().unwrap().to_owned();
    assert!(
        ask(&address, "GET", "/").1.contains("affectmill"),
        "from the beginning"
    );

    // One worker dies with clip01, the next one is held up by it; meanwhile everything else is labelled.
    let (mut pids, mut opened, mut done) = (BTreeMap::new(), 0, 0);
    let mut held = None;
    while held.is_none() || done < 4 {
        let event = run.event().expect("the run goes on");
        let worker = event["worker"].as_u64();
        match event["event"].as_str() {
            Some("worker_started") => drop(pids.insert(worker, event["pid"].as_u64().unwrap() as u32)),
            Some("opened") if event["video"] == "clip01.mp4" => {
                opened += 1;
                signal(pids[&worker], if opened == 1 { "ABRT" } else { "STOP" });
                held = (opened == 2).then(|| pids[&worker]);
            }
            Some("shard_done") => done += 1,
            _ => {}
        }
    }

    // An event is printed a moment before it is counted.
    let deadline = Instant::now() + Duration::from_secs(10);
    let (head, text) = loop {
        let answer = ask(&address, "GET", "/metrics");
        if answer.1.contains("affectmill_shards_done 4\n") || Instant::now() > deadline {
            break answer;
        }
        sleep(Duration::from_millis(20));
    };
    assert!(head.contains("application/openmetrics-text"), "{head}");
    let samples = samples(&text);
    let expected = json!({
        "affectmill_frames_total": 45.0,
        "affectmill_rows_total": 45.0,
        "affectmill_shards_total": 4.0,
        "affectmill_shards_planned": 5.0,
        "affectmill_shards_done": 4.0,
        "affectmill_videos_planned": 5.0,
        "affectmill_videos_total{status=ok}": 3.0,
        "affectmill_videos_total{status=failed}": 1.0,
        "affectmill_videos_total{status=partial}": 0.0,
        "affectmill_videos_total{status=quarantined}": 0.0,
        "affectmill_strikes_total": 1.0,
        "affectmill_workers_lost_total": 1.0,
        "affectmill_leases_total": 6.0,
        "affectmill_fetched_bytes_total": 0.0,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(
            samples.get(name).map(|value| json!(value)).as_ref(),
            Some(value),
            "{name}\n{text}"
        );
    }
    assert!(samples["affectmill_stage_seconds_total{stage=infer}{state=busy}"] > 0.0);
    // What GPUs tell is there where they are; of it the figures' own tests say the same.
    let of_gpus = |name: &String| name.starts_with("affectmill_gpu_");
    let [there, asked] = [known(&text), asked_for()].map(|names| {
        names
            .into_iter()
            .filter(|name| !of_gpus(name))
            .collect::<BTreeSet<_>>()
    });
    assert_eq!(there, asked, "the dashboard asks for what is there");

    let (head, page) = ask(&address, "GET", "/");
    assert!(head.contains("default-src 'none'"), "{head}");
    assert!(
        page.contains("strike 1 of 3") && page.contains(" of 60 frames"),
        "{page}"
    );
    assert!(
        page.contains("&lt;script&gt;alert") && !page.contains("<script"),
        "{page}"
    );
    assert!(ask(&address, "HEAD", "/").1.is_empty());
    assert!(
        ask(&address, "GET", "/../etc/passwd")
            .0
            .starts_with("HTTP/1.1 404")
    );
    assert!(ask(&address, "POST", "/").0.starts_with("HTTP/1.1 405"));

    // Who never finishes a request keeps nobody out, and is not waited for.
    let mut idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in idle.iter_mut().step_by(2) {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ");
    }
    let began = Instant::now();
    assert!(ask(&address, "GET", "/metrics").0.starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let slow = idle.last_mut().unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("it is closed");

    // A page elsewhere that calls this machine by a name of its own reads nothing.
    for (host, status) in [
        ("evil.example:80", 421),
        ("localhost:1", 200),
        ("metrics.example", 200),
    ] {
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{host}: {answer}"
        );
        assert_eq!(answer.contains("affectmill_frames"), status == 200, "{host}");
    }

    signal(held.unwrap(), "CONT");
    assert_eq!(run.wait(), Some(3), "one video is none");
}

/// The names of the figures that are told, without what the format appends to them.
fn known(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    names
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .filter(|name| name != "affectmill_build")
        .collect()
}

/// The names that the dashboard asks for.
fn asked_for() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/grafana.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let words = targets.flat_map(|target| {
        let query = target["expr"].as_str().unwrap();
        query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
    });
    words
        .filter(|word| word.starts_with("affectmill_"))
        .map(|word| word.trim_end_matches("_total").to_owned())
        .collect()
}

#[test]
fn an_address_that_is_taken_is_refused_with_the_remedy() {
    let project = Project::new().synthetic(1, 3);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = project.run("out", &[&format!("run.metrics=\"{address}\"")], 2);
    let told = stderr(&refused);
    assert!(
        told.contains(&address.to_string()) && told.contains("[run] metrics") && told.contains("free port"),
        "{told}"
    );
}
