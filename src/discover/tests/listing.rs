//! Collections of a million videos: listed and planned in bounded memory.
//!
//! The listing is served by a real HTTP server of this test's own, page by page as `ListObjectsV2` has them, so that
//! nobody has to store a million objects first.

use crate::{Source, discover};
use affectmill_labelset::InputPlace;
use affectmill_labelset::plan;
use affectmill_spec::{Input, S3Settings};
use affectmill_store::{Access, Store};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Keys of a page, as S3 has them.
const PAGE: usize = 1_000;

/// The `n`-th key; keys ascend.
fn key(n: usize) -> String {
    format!("footage/2024/camera-{:03}/recording {n:07} (part).mp4", n / 5_000)
}

/// Answers `ListObjectsV2` over `count` keys, and says of every single object that there is none.
fn serve(count: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let accept = move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new()
                .name("listing".into())
                .spawn(move || answer(stream, count))
                .expect("a thread");
        }
    };
    thread::Builder::new()
        .name("listings".into())
        .spawn(accept)
        .expect("a thread");
    port
}

fn answer(stream: TcpStream, count: usize) {
    let mut input = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut output = stream;
    loop {
        let mut request = String::new();
        if input.read_line(&mut request).is_err() || request.is_empty() {
            return;
        }
        let mut line = String::new();
        while input.read_line(&mut line).is_ok() && line != "\r\n" {
            line.clear();
        }
        let answer = match request.split_once("list-type=2") {
            Some(_) => page(&request, count),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
        };
        if output.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn page(request: &str, count: usize) -> String {
    let from: usize = request
        .split_once("continuation-token=")
        .and_then(|(_, rest)| rest.split(['&', ' ']).next())
        .map_or(0, |token| token.parse().expect("a token of ours"));
    let to = (from + PAGE).min(count);
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
    );
    for n in from..to {
        xml += &format!(
            "<Contents><Key>{}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;{:032x}&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            key(n),
            n * 7,
            1_000_000 + n
        );
    }
    let more = if to < count {
        format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{to}</NextContinuationToken>")
    } else {
        "<IsTruncated>false</IsTruncated>".into()
    };
    let body = format!("{xml}{more}<KeyCount>{}</KeyCount></ListBucketResult>", to - from);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Peak resident memory of this process in MiB, as the kernel counts it.
fn peak() -> u64 {
    let mut status = String::new();
    std::fs::File::open("/proc/self/status")
        .and_then(|mut file| file.read_to_string(&mut status))
        .expect("/proc");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("VmHWM");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("kB");
    kib / 1024
}

#[test]
fn a_million_keys_are_listed_and_planned_within_a_gibibyte() {
    let count = match std::env::var_os("AFFECTMILL_SOAK") {
        Some(_) => 1_000_000,
        None => 50_000,
    };
    let settings = S3Settings {
        endpoint: Some(format!("http://127.0.0.1:{}", serve(count))),
        region: Some("us-east-1".into()),
        // No signature, so that this process needs no credentials in its environment.
        unsigned: vec!["bucket".into()],
        ..Default::default()
    };
    let access = Access::new(settings, None, Duration::from_secs(5));
    let input: Input = toml::from_str("uri = \"s3://bucket/footage\"").expect("an input");
    let began = Instant::now();
    let found = discover(&input, &|_| false, &access).expect("videos");
    let listed = began.elapsed();
    assert_eq!(found.sources.len(), count);
    assert!(found.passed_over.is_empty() && found.unseen.is_empty());
    assert_eq!(found.sources[0].key.as_str(), &key(0)["footage/".len()..]);
    assert_eq!(
        found.sources[count - 1].key.as_str(),
        &key(count - 1)["footage/".len()..]
    );
    assert_eq!(found.sources[count - 1].bytes, 1_000_000 + count as u64 - 1);

    let began = Instant::now();
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::open(folder.path()).expect("a store");
    let mut videos: Vec<_> = found.sources.iter().map(Source::unprobed).collect();
    let origin = plan::Origin {
        place: InputPlace {
            uri: input.uri.clone(),
            root: found.root.clone(),
        },
        moved: false,
    };
    // As if probed: ten seconds each.
    videos.iter_mut().for_each(|video| video.frames = 250);
    drop(found);
    let shards = plan::append(&store, &origin, &videos, 5_000)
        .expect("a plan")
        .shards;
    let planned = began.elapsed();
    drop(videos);
    let keys: BTreeSet<&str> = shards
        .iter()
        .flat_map(|shard| &shard.videos)
        .map(|video| video.key.as_str())
        .collect();
    assert_eq!(keys.len(), count);
    assert_eq!(shards.len(), count.div_ceil(20));
    let peak = peak();
    println!("{count} keys: listed in {listed:.1?}, planned in {planned:.1?}, peak memory {peak} MiB");
    assert!(peak <= 1024, "{peak} MiB");
}
