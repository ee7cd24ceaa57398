//! The main job on real and synthetic videos.

use super::common::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What ffprobe says: (frames it decodes, their times in µs after the container's start).
fn ffprobe(path: &Path) -> Vec<Option<i64>> {
    let out = succeed(
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-select_streams",
                "v:0",
                "-show_frames",
                "-of",
                "json",
                "-show_entries",
            ])
            .arg("frame=best_effort_timestamp_time:format=start_time")
            .arg(path),
    );
    let out: Value = serde_json::from_str(&out).expect("ffprobe prints JSON");
    let start = micros(&out["format"]["start_time"]).unwrap_or(0);
    let frames = out["frames"].as_array().expect("frames");
    frames
        .iter()
        .map(|frame| micros(&frame["best_effort_timestamp_time"]).map(|time| time - start))
        .collect()
}

fn count_frames(path: &Path) -> usize {
    let out = succeed(
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-count_frames",
                "-select_streams",
                "v:0",
                "-of",
                "csv=p=0",
            ])
            .args(["-show_entries", "stream=nb_read_frames"])
            .arg(path),
    );
    out.trim()
        .trim_end_matches(',')
        .parse()
        .expect("a number of frames")
}

#[test]
fn exactly_one_row_per_frame_at_the_times_ffprobe_gives() {
    let project = Project::new();
    for name in ["carphone_pristine.mp4", "no_face.mp4", "face_noface.mov"] {
        fs::copy(video(name), project.videos().join(name)).unwrap();
    }
    project.run("out", &[], 0);
    let mut by_video: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows(&project.output("out")) {
        by_video.entry(row.video.clone()).or_default().push(row);
    }
    assert_eq!(by_video.len(), 3);
    for (name, rows) in by_video {
        let path = video(&name);
        assert_eq!(rows.len(), count_frames(&path), "{name}: one row per frame");
        let frames: Vec<i64> = rows.iter().map(|row| row.frame).collect();
        assert_eq!(
            frames,
            (0..rows.len() as i64).collect::<Vec<_>>(),
            "{name}: numbered from 0 without gaps"
        );
        let times: Vec<Option<i64>> = rows.iter().map(|row| row.timestamp_us).collect();
        assert_eq!(times, ffprobe(&path), "{name}: times to the microsecond");
        assert!(rows.iter().all(|row| row.status == "ok"), "{name}");
    }
}

#[test]
fn the_same_bytes_with_one_two_and_three_workers_and_then_nothing_to_do() {
    let project = Project::with_models(&["student"]).synthetic(4, 20);
    project.run("one", &["run.workers=1"], 0);
    for (name, workers) in [("two", "run.workers=2"), ("three", "run.workers=3")] {
        project.run(name, &[workers], 0);
        assert_same_labels(&project.output("one"), &project.output(name));
    }
    project.run("batch", &["run.batch=7", "run.threads=1"], 0);
    assert_same_labels(&project.output("one"), &project.output("batch"));

    let before = tree(&project.output("one"));
    let again = project.run("one", &[], 0);
    assert!(stderr(&again).contains("nothing to do"), "{}", stderr(&again));
    let after = tree(&project.output("one"));
    let lasting = |files: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        files
            .iter()
            .filter(|(name, _)| !name.contains("/events/"))
            .map(|(n, b)| (n.clone(), b.clone()))
            .collect()
    };
    assert!(
        lasting(&before) == lasting(&after),
        "a run with nothing to do changes nothing but its event log"
    );
    for name in [
        "_SUCCESS",
        "videos.parquet",
        "_affectmill/manifest.json",
        "_affectmill/job.json",
    ] {
        assert!(after.contains_key(name), "{name}");
    }
}

#[test]
fn videos_added_later_get_a_plan_of_their_own_and_old_parts_stay() {
    let project = Project::new().synthetic(2, 20);
    project.run("out", &[], 0);
    let before = tree(&project.output("out").join("labels"));
    synthetic(&project.videos().join("added.mp4"), 20, 9);
    project.run("out", &[], 0);
    let after = tree(&project.output("out").join("labels"));
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|(name, bytes)| after[name] == *bytes));
    let videos: BTreeSet<String> = rows(&project.output("out"))
        .into_iter()
        .map(|row| row.video)
        .collect();
    assert_eq!(
        videos.into_iter().collect::<Vec<_>>(),
        ["added.mp4", "clip00.mp4", "clip01.mp4"]
    );
}

#[test]
fn image_folders_take_the_frame_number_from_the_file_name() {
    let project = Project::new();
    let folder = project.videos().join("cropped_aligned/12-24-1920x1080");
    fs::create_dir_all(&folder).unwrap();
    let pattern = folder.join("%05d.jpg");
    ffmpeg(&[
        "-i",
        video("carphone_pristine.mp4").to_str().unwrap(),
        "-frames:v",
        "9",
        pattern.to_str().unwrap(),
    ]);
    fs::remove_file(folder.join("00004.jpg")).unwrap();
    fs::remove_file(folder.join("00005.jpg")).unwrap();
    project.run("out", &["input.image_fps=25.0"], 0);
    let rows = rows(&project.output("out"));
    assert!(
        rows.iter()
            .all(|row| row.video == "cropped_aligned/12-24-1920x1080")
    );
    // Label row i (from 0) of Aff-Wild2 belongs to image i + 1.
    assert_eq!(
        rows.iter().map(|row| row.frame).collect::<Vec<_>>(),
        [0, 1, 2, 5, 6, 7, 8]
    );
    assert_eq!(rows[3].timestamp_us, Some(200_000));
    assert_eq!(rows[0].box_, Some([0.0, 0.0, 176.0, 144.0]));
}

#[test]
fn sampling_keeps_the_frames_it_names() {
    let project = Project::new();
    fs::copy(video("carphone_pristine.mp4"), project.videos().join("c.mp4")).unwrap();
    let frames = |output: &str, sets: &[&str]| -> Vec<i64> {
        project.run(output, sets, 0);
        rows(&project.output(output))
            .iter()
            .map(|row| row.frame)
            .collect()
    };
    let every_seventh: Vec<i64> = (0..120).filter(|frame| frame % 7 == 0).collect();
    assert_eq!(
        frames("stride", &["sampling.mode=stride", "sampling.stride=7"]),
        every_seventh
    );

    // The first frame at or after each half second, from ffprobe's times.
    let mut next = 0;
    let mut expected = Vec::new();
    for (frame, time) in ffprobe(&video("carphone_pristine.mp4")).into_iter().enumerate() {
        let time = time.expect("every frame has a time");
        if time >= next {
            expected.push(frame as i64);
            next = (time / 500_000 + 1) * 500_000;
        }
    }
    assert_eq!(
        frames("fps", &["sampling.mode=fps", "sampling.fps=2.0"]),
        expected
    );

    let out = succeed(
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-select_streams",
                "v:0",
                "-show_entries",
                "frame=key_frame",
                "-of",
                "csv=p=0",
            ])
            .arg(video("carphone_pristine.mp4")),
    );
    let key = |line: (usize, &str)| line.1.starts_with('1').then_some(line.0 as i64);
    let expected: Vec<i64> = out.lines().enumerate().filter_map(key).collect();
    assert_eq!(frames("key", &["sampling.mode=keyframes"]), expected);
}

#[test]
fn a_plan_shows_what_would_run_and_writes_nothing() {
    let project = Project::new().synthetic(2, 20);
    fs::write(project.videos().join("broken.mp4"), b"this is no video").unwrap();
    let out = succeed(affectmill().arg("plan").arg(project.job()).arg("--json"));
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["videos"], 3);
    assert_eq!(plan["frames"], 40);
    assert_eq!(plan["duration_us"], 1_600_000);
    assert_eq!(plan["unreadable"][0][0], "broken.mp4");
    assert!(!project.output("out").exists(), "plan writes nothing");

    project.run("out", &[], 3);
    let plan = succeed(affectmill().arg("plan").arg(project.job()));
    assert!(plan.contains("done)") && plan.contains("UNTRAINED"), "{plan}");
}

#[test]
fn status_tells_running_from_finished() {
    let project = Project::new().synthetic(3, 300);
    let mut run = project.start("out", &["run.workers=1"]);
    run.until("shard_done");
    let status = || -> Value {
        let out = succeed(
            affectmill()
                .arg("status")
                .arg(project.output("out"))
                .arg("--json"),
        );
        serde_json::from_str(&out).unwrap()
    };
    let during = status();
    assert_eq!(during["state"], "running", "{during}");
    assert_eq!(during["totals"]["videos"], 3);
    assert!(during["totals"]["shards_done"].as_u64() >= Some(1));
    assert_eq!(run.wait(), Some(0));
    let after = status();
    assert_eq!(after["state"], "finished");
    assert_eq!(after["rows"], 900);
}
