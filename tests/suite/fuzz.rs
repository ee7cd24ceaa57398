//! Bounded random tests of everything that is read from outside: job files, weight files, plans and commit records,
//! messages, and media through the workers. Nothing panics, nothing takes memory without bound, nothing is accepted
//! that is not whole. The seed is printed; `AFFECTMILL_SEED` repeats a run. `make soak` tries 100,000 inputs a target.

use super::common::*;
use affectmill_base::{Fingerprint, FrameIndex, Location, ModelKind, ShardId, VideoKey};
use affectmill_labelset::{
    CommitRecord, InputPlace, PartInfo, RECORD_VERSION, StageSeconds, VideoOutcome, paths,
};
use affectmill_labelset::{commit, plan};
use affectmill_nn as model;
use affectmill_queue::{AtWork, FromWorker, read_message, write_message};
use affectmill_spec as spec;
use affectmill_store::Store;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn inputs() -> u64 {
    if soak() { 100_000 } else { 1_500 }
}

/// Changes a few things about some bytes: single ones, numbers, pieces moved, left out or put in.
fn mutate(dice: &mut Dice, seed: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        if bytes.is_empty() {
            bytes.push(dice.roll(256) as u8);
        }
        let at = dice.roll(bytes.len() as u64) as usize;
        let end = (at + 1 + dice.roll(32) as usize).min(bytes.len());
        match dice.roll(8) {
            0 => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes[at] = dice.roll(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = dice.roll(bytes.len() as u64) as usize;
                bytes.splice(to..to, piece);
            }
            5 => {
                let number = [
                    0_u64,
                    1,
                    127,
                    255,
                    1 << 31,
                    u64::from(u32::MAX),
                    1 << 62,
                    u64::MAX,
                ][dice.roll(8) as usize];
                let width = [1, 2, 4, 8][dice.roll(4) as usize];
                let number = if dice.roll(2) == 0 {
                    number.to_le_bytes()
                } else {
                    number.to_be_bytes()
                };
                let piece = if dice.roll(2) == 0 {
                    &number[..width]
                } else {
                    &number[8 - width..]
                };
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
            6 if !words.is_empty() => {
                let word = words[dice.roll(words.len() as u64) as usize];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => bytes[at..end].fill(0),
        }
    }
    bytes
}

/// Peak resident memory of this process in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// Tries mutations of the seeds; `accepts` says whether an input was taken.
fn target(name: &str, seeds: &[Vec<u8>], words: &[&[u8]], mut accepts: impl FnMut(&[u8]) -> bool) {
    let mut dice = Dice::new();
    let (began, before) = (Instant::now(), peak());
    let mut accepted = 0_u64;
    for _ in 0..inputs() {
        let seed = &seeds[dice.roll(seeds.len() as u64) as usize];
        let bytes = mutate(&mut dice, seed, words);
        let tried = Instant::now();
        accepted += u64::from(accepts(&bytes));
        assert!(
            tried.elapsed() < Duration::from_secs(60),
            "{name}: an input of {} bytes took a minute",
            bytes.len()
        );
    }
    let grown = peak().saturating_sub(before) >> 20;
    println!(
        "{name}: {} inputs, {accepted} accepted, {:.1} s, {grown} MiB more",
        inputs(),
        began.elapsed().as_secs_f64()
    );
    assert!(grown < 1024, "{name}: {grown} MiB");
}

#[test]
fn job_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/demo.toml");
    let small = b"[input]\nuri='v'\n[faces]\nmode='full_frame'\n[[models]]\nname='a'\nkind='student'\nweights='w'\n[output]\nuri='o'\n";
    let words: [&[u8]; 9] = [
        b"[[",
        b"]]",
        b"\"\"\"",
        b"= 1e999",
        b"{",
        b"\xff",
        b"\n[run]\nworkers = 2\n",
        b"nan",
        b"= -1",
    ];
    target(
        "job files",
        &[fs::read(example).unwrap(), small.to_vec()],
        &words,
        |bytes| {
            fs::write(&file, bytes).unwrap();
            match spec::load(&file, &[]) {
                Ok(job) => !job.models.is_empty(),
                Err(error) => {
                    assert!(error.to_string().contains("job.toml"), "{error}");
                    false
                }
            }
        },
    );
}

#[test]
fn weight_files() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seeds: Vec<Vec<u8>> = ["tiny.pt", "tiny.pth", "tiny.ckpt"]
        .map(|name| fs::read(golden.join(name)).unwrap())
        .into();
    let header = br#"{"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    seeds.push([&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat());
    let words: [&[u8]; 8] = [
        b"cos\nsystem\n",
        b"(S'id'\ntR",
        b"\x80\x02",
        b"PK\x03\x04",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"}q\x00",
        b"\x8a\xff",
        b".",
    ];
    let (file, out) = (
        folder.path().join("weights"),
        folder.path().join("out.safetensors"),
    );
    target("weight files", &seeds, &words, |bytes| {
        fs::write(&file, bytes).unwrap();
        let described = model::WeightFile::read(&file).unwrap();
        let described = model::describe(&described, ModelKind::TeacherVa).is_ok();
        let imported = model::import_weights(&file, None, None, &out).is_ok();
        assert!(
            !described && !imported && !out.exists(),
            "no mutation of these is a whole model"
        );
        false
    });
}

fn record() -> CommitRecord {
    let mut outcome = VideoOutcome::new(VideoKey::new("a/b.mp4").unwrap());
    (outcome.frames, outcome.rows, outcome.error_frame) = (9, 9, Some(FrameIndex(3)));
    CommitRecord {
        version: RECORD_VERSION,
        shard: ShardId::from_digest(&[7; 32]),
        fingerprint: Fingerprint::from_digest(&[1; 32]),
        part: PartInfo {
            rows: 9,
            bytes: 100,
            sha256: "ab".repeat(32),
        },
        crops: None,
        videos: vec![outcome],
        device: None,
        retired: None,
        seconds: StageSeconds::default(),
    }
}

#[test]
fn commit_records_and_plans() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let record = record();
    let (commit_key, plan_key) = (paths::commit(&record.shard), paths::plan(1));
    let words: [&[u8]; 6] = [b"null", b"-1", b"1e400", b"\"../../x\"", b"[", b"{\"version\":1}"];
    let seeds = [serde_json::to_vec_pretty(&record).unwrap()];
    let (commit_file, plan_file) = (root.path().join(&commit_key), root.path().join(&plan_key));
    fs::create_dir_all(commit_file.parent().unwrap()).unwrap();
    target("commit records", &seeds, &words, |bytes| {
        fs::write(&commit_file, bytes).unwrap();
        match commit::read_all(&store) {
            Ok(records) => records.values().all(|found| found.shard == record.shard),
            Err(error) => {
                assert!(error.to_string().contains(&record.shard.to_string()), "{error}");
                false
            }
        }
    });
    let fresh = tempfile::tempdir().unwrap();
    let video = serde_json::json!({
        "key": "a.mp4", "kind": "file", "bytes": 10, "etag": "1", "frames": 5, "duration_us": 0
    });
    let video = serde_json::from_value(video).unwrap();
    let made = Store::open(fresh.path()).unwrap();
    let place: Location = fresh.path().into();
    let origin = plan::Origin {
        place: InputPlace {
            uri: place.clone(),
            root: place,
        },
        moved: false,
    };
    plan::append(&made, &origin, &[video], 100).unwrap();
    let packed = fs::read(fresh.path().join(&plan_key)).unwrap();
    let plain = zstd::decode_all(packed.as_slice()).unwrap();
    let seeds = [packed, plain];
    fs::create_dir_all(plan_file.parent().unwrap()).unwrap();
    target("plans", &seeds, &words, |bytes| {
        // Half of them are mutated inside of the compression.
        let bytes = match bytes.first() {
            Some(b'{') => zstd::encode_all(bytes, 1).unwrap(),
            _ => bytes.to_vec(),
        };
        fs::write(&plan_file, bytes).unwrap();
        plan::read_all(&store).is_ok()
    });
}

#[test]
fn messages() {
    let mut seed = Vec::new();
    let progress = FromWorker::Progress {
        frame: Some(FrameIndex(3)),
        frames: 7,
        rows: 9,
        at_work: AtWork::default(),
    };
    write_message(&mut seed, &FromWorker::Ready).unwrap();
    write_message(&mut seed, &progress).unwrap();
    target(
        "messages",
        &[seed],
        &[b"{\"type\":\"ready\"}", b"\x00\x00\x00\x04"],
        |bytes| {
            let mut input = bytes;
            while let Ok(Some(_)) = read_message::<FromWorker>(&mut input) {}
            input.is_empty()
        },
    );
}

/// Mutated media through the program: the run ends, every file has its outcome, every row is there once, and the
/// undamaged file beside them is labelled as ever.
#[test]
fn media_through_the_workers() {
    let (rounds, each) = if soak() { (1_000, 100) } else { (1, 40) };
    let until = Instant::now() + Duration::from_secs(3_600);
    let project = Project::with_models(&["mini_xception"]);
    let keep = tempfile::tempdir().unwrap();
    let source = "testsrc2=size=32x32:rate=25";
    let kinds = [
        (
            "mp4",
            "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -movflags +faststart",
        ),
        ("mkv", "-c:v libx264 -preset ultrafast -bf 2 -pix_fmt yuv420p"),
        ("ts", "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"),
        ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
        ("avi", "-c:v mpeg4 -q:v 4"),
        ("mov", "-c:v mjpeg -q:v 4 -pix_fmt yuvj420p"),
        ("mpg", "-c:v mpeg2video -q:v 4"),
        ("flv", "-c:v flv"),
        ("gif", ""),
    ];
    let seeds = kinds.map(|(extension, codec)| {
        let file = keep.path().join(format!("seed.{extension}"));
        let mut arguments = vec!["-f", "lavfi", "-i", source, "-frames:v", "3"];
        arguments.extend(codec.split_whitespace());
        arguments.push(file.to_str().unwrap());
        ffmpeg(&arguments);
        (extension, fs::read(file).unwrap())
    });
    synthetic(&project.videos().join("whole.mp4"), 5, 1);
    project.run("calm", &["sampling.mode=every"], 0);
    let calm = outputs(&project.output("calm"));
    let mut dice = Dice::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut tried = 0;
    for round in 0..rounds {
        if Instant::now() >= until {
            break;
        }
        for n in 0..each {
            let (extension, seed) = &seeds[dice.roll(seeds.len() as u64) as usize];
            fs::write(
                project.videos().join(format!("m{n:03}.{extension}")),
                mutate(&mut dice, seed, &[]),
            )
            .unwrap();
        }
        let output = format!("out{round}");
        let done = project
            .command(&output, &["run.stall_timeout=30.0", "output.shard_frames=500"])
            .output()
            .unwrap();
        let ended = done.status;
        assert!(matches!(ended.code(), Some(0 | 3)), "{ended}: {}", stderr(&done));
        let told = videos(&project.output(&output));
        let files = fs::read_dir(project.videos()).unwrap().count();
        assert_eq!(told.len(), files, "every file has its outcome");
        let labelled = outputs(&project.output(&output));
        for (key, video) in &told {
            let rows = labelled.keys().filter(|(video, ..)| video == key).count() as i64;
            assert_eq!(video.rows, rows, "{key}");
            assert_eq!(video.status == "ok", video.class.is_none(), "{key}: {video:?}");
            let class = video.class.as_deref().unwrap_or("none");
            *counts.entry(format!("{} {class}", video.status)).or_default() += 1;
        }
        let whole = labelled.iter().filter(|((video, ..), _)| video == "whole.mp4");
        assert!(whole.clone().count() == 5 && whole.clone().all(|(key, values)| calm[key] == *values));
        fs::remove_dir_all(project.output(&output)).unwrap();
        tried += each;
        if tried % 5_000 == 0 {
            println!("media: {tried} inputs, {counts:?}");
        }
        for n in 0..each {
            for (extension, _) in &seeds {
                let _ = fs::remove_file(project.videos().join(format!("m{n:03}.{extension}")));
            }
        }
    }
    println!("media: {tried} inputs, {counts:?}");
}
