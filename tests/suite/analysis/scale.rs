//! Very many rows: answers known in closed form, in memory that does not grow.

use super::labels::{LabelSet, Line, Seen, Shown, Video};
use affectmill_base::ModelKind;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Rows of a part: more than one piece of the reader, and no multiple of it.
const PART: u64 = 70_000;

/// A part of one video: valence rises from 0 to 1, and AU12 holds for 50 frames of every 200.
fn video(key: &'static str) -> Video {
    let line = |frame: u64| {
        let mut outputs = vec![0.0; 21];
        outputs[0] = frame as f32 / PART as f32;
        outputs[9 + 6] = if frame % 200 < 50 { 2.0 } else { -2.0 };
        let shown = Shown {
            track: Some(7),
            score: Some(0.5),
            outputs: vec![outputs],
        };
        Line {
            frame,
            time: Some(frame as i64 * 40_000),
            seen: Seen::Faces(vec![shown]),
        }
    };
    Video {
        key,
        decoded: PART,
        lines: Box::new((0..PART).map(line)),
    }
}

/// Runs the program; what it printed, how long it took and the most memory it had, in MiB.
fn measured(set: &LabelSet, command: &str, arguments: &[&str]) -> (String, Duration, u64) {
    let out = set.beside("answer");
    let file = std::fs::File::create(&out).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_affectmill"));
    program.arg(command).arg(set.output()).args(arguments);
    let began = Instant::now();
    let mut child = program.stdout(Stdio::from(file)).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or_default() / 1024);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{command} {arguments:?}");
    (std::fs::read_to_string(out).unwrap(), began.elapsed(), peak)
}

#[test]
fn ten_million_rows_are_summarised_and_asked_in_bounded_memory() {
    let parts: u64 = if std::env::var_os("AFFECTMILL_SOAK").is_some() {
        143
    } else {
        2
    };
    let set = LabelSet::new(&[("student", ModelKind::Student)], "");
    for part in 0..parts {
        let key: &'static str = format!("video {part:03}.mp4").leak();
        set.shard(part as u8, vec![video(key)]);
    }
    let rows = parts * PART;
    let ask = |command: &str, arguments: &[&str]| {
        let (told, time, peak) = measured(&set, command, arguments);
        println!("{rows} rows: {command} {arguments:?}: {time:.1?}, peak memory {peak} MiB");
        assert!(peak <= 2048, "{peak} MiB");
        told
    };
    let summary = ask("summary", &[]);
    assert_eq!(
        summary
            .lines()
            .filter(|line| line.contains(".mp4") && line.contains("70000"))
            .count() as u64,
        parts.min(10)
    );

    let answer = |told: String| serde_json::from_str::<Vec<serde_json::Value>>(&told).unwrap();
    let means = answer(ask("query", &["means", "--format", "json"]));
    assert_eq!(means.len() as u64, parts);
    // Logits of ±2 are probabilities of 1 ÷ (1 + e^∓2).
    let high = 1.0 / (1.0 + (-2.0_f64).exp());
    for mean in &means {
        let near = |name: &str, wanted: f64| {
            let found = mean[name].as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-6, "{name}: {found}, not {wanted}");
        };
        assert_eq!((&mean["rows"], &mean["faces"]), (&PART.into(), &PART.into()));
        near("student_valence", (PART - 1) as f64 / (2 * PART) as f64);
        near("student_AU12_p", 0.25 * high + 0.75 * (1.0 - high));
    }

    let segments = answer(ask(
        "query",
        &["segments", "AU12", "--min-seconds", "1.96", "--format", "json"],
    ));
    assert_eq!(segments.len() as u64, rows / 200);
    for (n, segment) in segments.iter().enumerate() {
        let first = n as u64 % (PART / 200) * 200;
        assert_eq!(segment["first_frame"], first);
        assert_eq!(segment["last_frame"], first + 49);
        assert!((segment["seconds"].as_f64().unwrap() - 1.96).abs() < 1e-9);
    }

    let top = answer(ask(
        "query",
        &["top", "valence", "-n", "3", "--apart", "10", "--format", "json"],
    ));
    let found: Vec<u64> = top.iter().map(|row| row["frame"].as_u64().unwrap()).collect();
    let wanted = if parts > 2 {
        [PART - 1; 3]
    } else {
        [PART - 1, PART - 1, PART - 251]
    };
    assert_eq!(found, wanted);

    let curve = set.beside("curve.parquet");
    let curve = curve.to_str().unwrap();
    ask(
        "query",
        &["curve", "AU12", "--smooth", "gaussian:0.2s", "-o", curve],
    );

    // No row is lost or doubled where pieces meet.
    let folder = set.beside("openface");
    ask(
        "export",
        &["--format", "openface", "-o", folder.to_str().unwrap()],
    );
    let text = std::fs::read_to_string(folder.join("video_001.csv")).unwrap();
    let frames = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap().parse::<u64>().unwrap());
    assert!(frames.eq(1..=PART));
    let csv = set.beside("csv");
    ask("export", &["--format", "csv", "-o", csv.to_str().unwrap()]);
    let lines = std::io::BufRead::lines(std::io::BufReader::new(
        std::fs::File::open(csv.join("labels.csv")).unwrap(),
    ));
    let headed = lines
        .map(|line| line.unwrap())
        .enumerate()
        .filter(|(_, line)| line.starts_with("video,"))
        .map(|(n, _)| n);
    assert!(headed.eq([0]));
}
