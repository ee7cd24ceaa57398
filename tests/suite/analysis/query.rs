//! Answers held against closed forms, and against NumPy and Polars in Python.

use super::labels::{LabelSet, Line, Numbers, Seen, Shown, Video, check};
use affectmill_base::ModelKind;
use affectmill_labelset::VideoStatus;
use std::path::Path;

/// A frame with faces of one model, each with its track and outputs.
fn faces(frame: u64, time: i64, faces: &[(i32, &[f32])]) -> Line {
    let shown = |(track, outputs): &(i32, &[f32])| Shown {
        track: Some(*track),
        score: Some(0.9),
        outputs: vec![outputs.to_vec()],
    };
    Line {
        frame,
        time: Some(time),
        seen: Seen::Faces(faces.iter().map(shown).collect()),
    }
}

fn without_face(frame: u64, time: i64, seen: Seen) -> Line {
    Line {
        frame,
        time: Some(time),
        seen,
    }
}

fn video(key: &'static str, lines: Vec<Line>) -> Video {
    Video {
        key,
        decoded: lines.len() as u64,
        lines: Box::new(lines.into_iter()),
    }
}

/// Outputs of a model of valence and arousal.
const HIGH: &[f32] = &[0.75, 0.0];
const LOW: &[f32] = &[0.25, 0.0];

fn rows(csv: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.split(',').map(String::from).collect();
    csv.lines().skip(1).map(cells).collect()
}

#[test]
fn a_segment_ends_at_a_drop_a_gap_damage_a_missing_face_and_a_jump_back_in_time() {
    let set = LabelSet::new(&[("va", ModelKind::TeacherVa)], "");
    // Frame rate varies: time is what counts. Track 1 is high throughout, but for what ends a segment.
    let lines = vec![
        faces(0, 0, &[(1, HIGH)]),
        faces(1, 900_000, &[(1, HIGH), (2, HIGH)]),
        faces(2, 1_000_000, &[(1, HIGH), (2, HIGH)]),
        faces(3, 1_100_000, &[(1, LOW), (2, HIGH)]),
        faces(4, 1_200_000, &[(2, HIGH), (1, HIGH)]),
        faces(5, 1_300_000, &[(1, HIGH)]),
        without_face(6, 1_400_000, Seen::Damage),
        faces(7, 1_500_000, &[(1, HIGH)]),
        faces(8, 1_600_000, &[(1, HIGH)]),
        // Frame 9 is missing altogether.
        faces(10, 1_800_000, &[(1, HIGH)]),
        faces(11, 1_900_000, &[(1, HIGH)]),
        without_face(12, 2_000_000, Seen::Nothing),
        faces(13, 2_100_000, &[(1, HIGH)]),
        faces(14, 2_050_000, &[(1, HIGH)]),
        faces(15, 2_250_000, &[(1, &[0.5, 0.0])]),
    ];
    set.shard(1, vec![video("a.mp4", lines)]);
    let found = rows(&set.answer("query", &["segments", "valence", "--format", "csv"]));
    let told: Vec<String> = found
        .iter()
        .map(|row| {
            [&row[1], &row[3], &row[4], &row[6], &row[7]]
                .map(String::as_str)
                .join(" ")
        })
        .collect();
    // Track, start, end, first and last frame, by hand.
    let wanted = [
        "1 0.0 1.0 0 2",
        "2 0.9 1.2 1 4",
        "1 1.2 1.3 4 5",
        "1 1.5 1.6 7 8",
        "1 1.8 1.9 10 11",
        "1 2.05 2.25 14 15",
        "1 2.1 2.1 13 13",
    ];
    assert_eq!(told, wanted);
    assert_eq!(found[5][8..10], ["0.625", "0.75"], "mean and peak");
    assert!(
        found
            .iter()
            .all(|row| row[0] == "a.mp4" && row[10] == "va_valence")
    );

    let longer = set.answer(
        "query",
        &["segments", "valence", "--min-seconds", "0.2", "--format", "csv"],
    );
    assert_eq!(rows(&longer).len(), 3);
    let none = set.answer("query", &["segments", "valence", "--threshold", "0.76"]);
    assert!(
        none.contains("0 rows: segments where va_valence is 0.76 or more"),
        "{none}"
    );

    // The same frames, where every second is sampled: the gaps are elsewhere.
    let set = LabelSet::new(
        &[("va", ModelKind::TeacherVa)],
        "[sampling]\nmode = \"stride\"\nstride = 2\n",
    );
    let lines = [0, 2, 4, 8, 10].map(|frame| faces(frame, frame as i64 * 40_000, &[(1, HIGH)]));
    set.shard(1, vec![video("a.mp4", lines.into())]);
    let found = rows(&set.answer("query", &["segments", "valence", "--format", "csv"]));
    assert_eq!(
        found.iter().map(|row| row[7].as_str()).collect::<Vec<_>>(),
        ["4", "10"]
    );
}

/// Packets that are lost leave no frame behind: the numbers go on, the time jumps. In a video that is whole the picture lasted.
#[test]
fn in_a_damaged_video_a_segment_ends_where_time_jumps() {
    let set = LabelSet::new(&[("va", ModelKind::TeacherVa)], "");
    let times = [0, 40, 80, 120, 2_120, 2_160, 2_240, 2_281];
    let lines = || {
        let times = times.iter().zip(0..);
        times
            .map(|(time, frame)| faces(frame, time * 1000, &[(1, HIGH)]))
            .collect()
    };
    set.shard_of(1, vec![video("lost.ts", lines())], VideoStatus::Partial);
    set.shard(2, vec![video("whole.mp4", lines())]);
    let found = rows(&set.answer("query", &["segments", "valence", "--format", "csv"]));
    let told: Vec<[&str; 3]> = found
        .iter()
        .map(|row| [&row[0], &row[6], &row[7]].map(String::as_str))
        .collect();
    let wanted = [
        ["lost.ts", "0", "3"],
        ["lost.ts", "4", "5"],
        ["lost.ts", "6", "7"],
        ["whole.mp4", "0", "7"],
    ];
    assert_eq!(told, wanted);
}

#[test]
fn a_median_drops_a_spike_a_gaussian_keeps_a_level_and_neither_sees_past_a_gap() {
    let set = LabelSet::new(&[("va", ModelKind::TeacherVa)], "");
    let mut lines: Vec<Line> = (0..20)
        .map(|frame| {
            faces(
                frame,
                frame as i64 * 40_000,
                &[(1, if frame == 10 { HIGH } else { LOW })],
            )
        })
        .collect();
    // After a frame without a face somebody else's level.
    lines.push(without_face(20, 800_000, Seen::Nothing));
    lines.extend((21..40).map(|frame| faces(frame, frame as i64 * 40_000, &[(1, HIGH)])));
    set.shard(1, vec![video("a.mp4", lines)]);
    let ask = |smooth: &str| {
        rows(&set.answer(
            "query",
            &[
                "top", "valence", "-n", "100", "--smooth", smooth, "--format", "csv",
            ],
        ))
    };
    let level = |rows: &[Vec<String>], from: i64, to: i64| {
        let inside = rows
            .iter()
            .filter(|row| (from..to).contains(&row[3].parse().unwrap()));
        let mut levels: Vec<String> = inside.map(|row| row[6].clone()).collect();
        levels.sort();
        levels.dedup();
        levels
    };
    let median = ask("median:0.12s");
    assert_eq!(level(&median, 0, 20), ["0.25"]);
    assert_eq!(level(&median, 21, 40), ["0.75"]);
    assert!(
        median
            .iter()
            .all(|row| row[7] == "\"va_valence" && row[8] == " smoothed by median:0.12s\""),
        "{median:?}"
    );
    let gaussian = ask("gaussian:0.2s");
    assert_eq!(level(&gaussian, 21, 40), ["0.75"]);
    // Of a spike in the midst of frames at equal distances what is left is its weight: 0.5 · 1 ÷ Σ exp(−t² ÷ 2σ²), here over the 20
    // frames of the stretch.
    let weights: f64 = (0..20)
        .map(|frame| (-0.5 * (f64::from(frame - 10) * 0.2).powi(2)).exp())
        .sum();
    let spike = gaussian.iter().find(|row| row[3] == "10").unwrap();
    assert!(
        (spike[6].parse::<f64>().unwrap() - (0.25 + 0.5 / weights)).abs() < 1e-6,
        "{spike:?}"
    );
}

/// Faces that come and go at times without a pattern, in videos of odd names.
fn wandering(models: usize, outputs: &'static [usize]) -> Vec<Video> {
    assert_eq!(models, outputs.len());
    let keys = ["a/b.mp4", "a_b.mp4", "late.mp4", "ü, \"x\".mov"];
    let video = |(at, key): (usize, &'static str)| {
        let mut numbers = Numbers(at as u64 + 1);
        let mut time = 1_000;
        let mut state = vec![0.0_f32; outputs.iter().sum::<usize>() * 2];
        let line = move |frame: u64| {
            time += 20_000 + (numbers.next().abs() * 40_000.0) as i64;
            state
                .iter_mut()
                .for_each(|value| *value = (*value + numbers.next()).clamp(-6.0, 6.0));
            let of = |track: usize, state: &[f32]| {
                let mut rest = &state[track * state.len() / 2..];
                let outputs = outputs.iter().map(|&count| {
                    let (own, after) = rest.split_at(count);
                    rest = after;
                    own.to_vec()
                });
                outputs.collect::<Vec<_>>()
            };
            let shown = |track: usize| Shown {
                track: Some(track as i32),
                score: frame.is_multiple_of(8).then_some(0.5 + track as f32 / 4.0),
                outputs: of(track, &state),
            };
            let seen = match frame {
                0..3 if key == "late.mp4" => Seen::Nothing,
                _ if frame % 37 == 5 => Seen::Nothing,
                _ if frame % 91 == 7 => Seen::Damage,
                100..250 if !frame.is_multiple_of(53) => Seen::Faces(vec![shown(1), shown(0)]),
                _ => Seen::Faces(vec![shown(0)]),
            };
            Line {
                frame,
                time: Some(time),
                seen,
            }
        };
        Video {
            key,
            decoded: 303,
            lines: Box::new((0..300).map(line)),
        }
    };
    keys.into_iter().enumerate().map(video).collect()
}

/// Two shards of them.
pub fn wandering_set(settings: &str) -> LabelSet {
    let models = [("student", ModelKind::Student), ("fer", ModelKind::MiniXception)];
    let set = LabelSet::new(&models, settings);
    let mut videos = wandering(2, &[21, 7]);
    let second = videos.split_off(2);
    set.shard(1, videos);
    set.shard(2, second);
    set
}

#[test]
fn answers_are_those_of_numpy_and_polars() {
    // Where only logits are stored, probabilities are worked out.
    for settings in ["", "[output]\nvalues = \"logits\"\n"] {
        let set = wandering_set(settings);
        let asked: &[(&str, &[&str])] = &[
            ("means.csv", &["means", "--model", "student"]),
            ("means.json", &["means", "Happiness", "--model", "fer"]),
            ("means.parquet", &["means", "AU12", "valence", "arousal"]),
            ("segments.json", &["segments", "AU01", "--min-seconds", "0.2"]),
            (
                "smooth.parquet",
                &[
                    "segments",
                    "Fear",
                    "--model",
                    "fer",
                    "--threshold",
                    "0.3",
                    "--smooth",
                    "gaussian:0.1s",
                ],
            ),
            (
                "median.csv",
                &[
                    "segments",
                    "AU4",
                    "--min-seconds",
                    "0.1",
                    "--smooth",
                    "median:0.15s",
                ],
            ),
            ("top.json", &["top", "Happiness", "-n", "7", "--model", "student"]),
            (
                "curve.parquet",
                &["curve", "arousal", "--smooth", "gaussian:0.2s"],
            ),
            ("raw.csv", &["curve", "Anger", "--model", "fer"]),
            (
                "apart.csv",
                &[
                    "top",
                    "AU25",
                    "-n",
                    "9",
                    "--apart",
                    "2",
                    "--smooth",
                    "gaussian:0.05s",
                ],
            ),
        ];
        for (file, arguments) in asked {
            let path = set.beside(file);
            let arguments = [arguments, &["-o", path.to_str().unwrap()][..]].concat();
            set.answer("query", &arguments);
        }
        check(&[Path::new("query"), &set.output(), &set.beside("")]);
        if settings.is_empty() {
            let summary = set.answer("summary", &[]);
            assert!(summary.contains("late.mp4"), "{summary}");
        }
    }
}

#[test]
fn what_cannot_be_answered_says_why() {
    let set = wandering_set("");
    let refusals: &[(&[&str], &str)] = &[
        (
            &["means"],
            "several models have expressions: student, fer; choose with --model NAME",
        ),
        (&["top", "Fear"], "several models have expressions"),
        (
            &["top", "Fear", "--model", "teacher"],
            "no model `teacher`; it has student, fer",
        ),
        (
            &["segments", "AU1", "--model", "fer"],
            "no model in question has action units",
        ),
        (&["segments", "AU3"], "there are valence, arousal, Neutral"),
        (&["top", "Fear", "--smooth", "box:1s"], "write gaussian:0.2s"),
        (
            &["segments", "AU1", "--min-seconds=-1"],
            "a number of seconds, 0 or more",
        ),
    ];
    for (arguments, why) in refusals {
        let told = set.refusal("query", arguments);
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
    let empty = LabelSet::new(&[("m", ModelKind::TeacherVa)], "");
    assert!(empty.refusal("query", &["means"]).contains("holds no labels yet"));

    // What the disk lost is no fault of the command's.
    let part = std::fs::read_dir(set.output().join("labels"))
        .unwrap()
        .next()
        .unwrap();
    std::fs::remove_file(part.unwrap().path()).unwrap();
    let output = set.ask("query", &["means", "AU1"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(
        told.contains("cannot read `") && told.contains("delete it and its commit record"),
        "{told}"
    );

    // Images without a rate have no times: segments want some, the largest values do not.
    let set = LabelSet::new(&[("va", ModelKind::TeacherVa)], "");
    let mut lines: Vec<Line> = (0..5).map(|frame| faces(frame, 0, &[(1, HIGH)])).collect();
    lines.iter_mut().for_each(|line| line.time = None);
    let clip = (0..5)
        .map(|frame| faces(frame, frame as i64 * 40_000, &[(1, LOW)]))
        .collect();
    set.shard(1, vec![video("clip.mp4", clip), video("images", lines)]);
    let output = set.ask(
        "query",
        &["segments", "valence", "--threshold", "0.2", "--format", "json"],
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("left out, without times to go by: 1 video (such as `images`)"),
        "{told}"
    );
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer.as_array().unwrap().len(), 1);
    assert_eq!(answer[0]["video"], "clip.mp4");
    let top = set.answer("query", &["top", "valence", "-n", "1", "--format", "json"]);
    let top: serde_json::Value = serde_json::from_str(&top).unwrap();
    assert_eq!(
        (&top[0]["video"], &top[0]["time"]),
        (&"images".into(), &serde_json::Value::Null)
    );
}
