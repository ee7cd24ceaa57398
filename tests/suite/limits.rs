//! The limits of a job: `max_frames`, `max_pixels`, `video_timeout`. What is beyond them costs only itself and is told.

use super::common::*;
use std::fs;

#[test]
fn frames_beyond_max_frames_are_left_out_and_the_video_is_partial() {
    let project = Project::new().synthetic(1, 30);
    synthetic(&project.videos().join("short.mp4"), 12, 5);
    let done = project.run("out", &["input.max_frames=12"], 3);
    let frames: Vec<(String, i64)> = rows(&project.output("out"))
        .into_iter()
        .map(|row| (row.video, row.frame))
        .collect();
    let expected = |key: &str| (0..12).map(|frame| (key.to_owned(), frame)).collect::<Vec<_>>();
    assert_eq!(frames, [expected("clip00.mp4"), expected("short.mp4")].concat());
    let videos = videos(&project.output("out"));
    let long = &videos["clip00.mp4"];
    assert_eq!(
        (long.status.as_str(), long.class.as_deref(), long.frame),
        ("partial", Some("unsupported"), Some(12))
    );
    assert!(
        long.error.as_deref().unwrap().contains("input.max_frames = 12"),
        "{long:?}"
    );
    assert_eq!(
        videos["short.mp4"].status, "ok",
        "as many as allowed are not too many"
    );
    assert!(
        stderr(&done).contains("partial (unsupported): clip00.mp4"),
        "{}",
        stderr(&done)
    );
}

#[test]
fn pictures_beyond_max_pixels_are_not_decoded() {
    let project = Project::new();
    // 96 × 64 and, in one stream after it, 96 × 82.
    let (small, large) = (
        project.dir.path().join("small.ts"),
        project.dir.path().join("large.ts"),
    );
    synthetic(&small, 10, 0);
    synthetic(&large, 10, 9);
    let both = [fs::read(&small).unwrap(), fs::read(&large).unwrap()].concat();
    fs::write(project.videos().join("grows.ts"), both).unwrap();
    synthetic(&project.videos().join("exact.mp4"), 10, 0);
    synthetic(&project.videos().join("large.mp4"), 10, 9);
    let folder = project.videos().join("images");
    fs::create_dir(&folder).unwrap();
    for (number, size) in [(1, "96x64"), (2, "96x66"), (3, "4000x4000")] {
        let source = format!("color=size={size}:color=gray");
        let file = folder.join(format!("{number:05}.png"));
        ffmpeg(&[
            "-f",
            "lavfi",
            "-i",
            &source,
            "-frames:v",
            "1",
            file.to_str().unwrap(),
        ]);
    }
    project.run("out", &[&format!("input.max_pixels={}", 96 * 64)], 3);
    let rows = rows(&project.output("out"));
    let statuses = |key: &str| -> Vec<&str> {
        rows.iter()
            .filter(|row| row.video == key)
            .map(|row| row.status.as_str())
            .collect()
    };
    assert_eq!(statuses("exact.mp4"), ["ok"; 10]);
    assert_eq!(statuses("large.mp4"), [""; 0]);
    assert_eq!(statuses("images"), ["ok", "decode_error", "decode_error"]);
    assert_eq!(statuses("grows.ts"), [["ok"; 10], ["decode_error"; 10]].concat());
    let videos = videos(&project.output("out"));
    let told = |key: &str| {
        (
            videos[key].status.as_str(),
            videos[key].class.as_deref(),
            videos[key].frame,
        )
    };
    assert_eq!(told("large.mp4"), ("failed", Some("unsupported"), None));
    assert_eq!(told("grows.ts"), ("partial", Some("unsupported"), Some(10)));
    assert_eq!(told("images").1, Some("unsupported"));
    let error = videos["large.mp4"].error.as_deref().unwrap();
    assert!(
        error.contains("96×82") && error.contains("input.max_pixels = 6144"),
        "{error}"
    );
    let plan = project.command("out", &[]).get_program().to_owned();
    let plan = succeed(
        std::process::Command::new(plan)
            .args(["plan", "--set", "input.max_pixels=6144", "--set"])
            .arg(format!("output.uri={:?}", project.output("fresh")))
            .arg(project.job()),
    );
    assert!(
        plan.contains("unreadable  large.mp4") && plan.contains("max_pixels"),
        "{plan}"
    );
}

#[test]
fn a_video_that_goes_on_for_too_long_is_quarantined_though_it_makes_progress() {
    let mut project = Project::new().synthetic(1, 20);
    noisy(&project.videos().join("slow.mp4"), 120, 1);
    // Three seconds for each 32 kB: progress all the time, and no end within twelve.
    project.faults = "slow:0:100000000:slow.mp4".into();
    let sets = [
        "output.shard_frames=1000",
        "run.video_timeout=12.0",
        "run.max_strikes=1",
    ];
    project.run("out", &sets, 3);
    let videos = videos(&project.output("out"));
    let slow = &videos["slow.mp4"];
    assert_eq!(
        (slow.status.as_str(), slow.class.as_deref(), slow.rows),
        ("quarantined", Some("timeout"), 0)
    );
    assert!(
        slow.error
            .as_deref()
            .unwrap()
            .contains("not done after 12 s (run.video_timeout)"),
        "{slow:?}"
    );
    assert_eq!(videos["clip00.mp4"].status, "ok");
    project.faults.clear();
    project.retry("out", &["--set", "run.video_timeout=600.0"], 0);
    assert_eq!(outputs(&project.output("out")).len(), 140);
}

/// The command under a limit of its session.
fn limited(limit: &str, command: &std::process::Command) -> std::process::Output {
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.output().expect("sh")
}

#[test]
fn a_limit_of_file_sizes_is_an_error_that_says_so_and_no_video_suffers() {
    let project = Project::new().synthetic(2, 60);
    // In blocks of 512 bytes: room for the job's record, not for a part; and for neither.
    for blocks in [16, 4] {
        let done = limited(&format!("-f {blocks}"), &project.command("out", &[]));
        let told = stderr(&done);
        assert_eq!(done.status.code(), Some(4), "{told}");
        assert!(
            told.contains("File too large") && told.contains("`ulimit -f`"),
            "{told}"
        );
        assert!(!told.contains("strike") && !told.contains("lost"), "{told}");
    }
    project.run("out", &[], 0);
    assert_eq!(rows(&project.output("out")).len(), 120);
}

#[test]
fn a_disk_that_fails_for_a_moment_while_a_video_is_opened_costs_the_video_nothing() {
    let mut project = Project::with_models(&["mini_xception"]).synthetic(2, 6);
    project.faults = "flaky:0:4096:clip00.mp4".into();
    let done = project.run("out", &["output.shard_frames=1000"], 0);
    assert!(!stderr(&done).contains("starts again"), "{}", stderr(&done));
    let videos = videos(&project.output("out"));
    assert_eq!(
        (videos["clip00.mp4"].status.as_str(), videos["clip00.mp4"].rows),
        ("ok", 6)
    );
}
