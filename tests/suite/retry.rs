//! `affectmill retry`: labels again what left no row, and nothing else; no row is ever there twice.

use super::common::*;
use std::fs;
use std::time::Duration;

/// Bytes of a noisy clip that lie behind its tables and its first frames, as `from:to`.
const MIDST: &str = "60000:61000";

fn noisy_clips(count: u32) -> Project {
    let project = Project::new();
    for n in 0..count {
        noisy(&project.videos().join(format!("clip{n:02}.mp4")), 40, n);
        let bytes = fs::metadata(project.videos().join(format!("clip{n:02}.mp4"))).unwrap();
        assert!(bytes.len() > 90_000, "{} bytes", bytes.len());
    }
    project
}

fn classes(project: &Project) -> Vec<(String, String, Option<String>, i64)> {
    let videos = videos(&project.output("out")).into_iter();
    videos
        .map(|(key, video)| (key, video.status, video.class, video.attempt))
        .collect()
}

fn expected(rows: &[(&str, &str, Option<&str>, i64)]) -> Vec<(String, String, Option<String>, i64)> {
    let owned = |&(key, status, class, attempt): &(&str, &str, Option<&str>, i64)| {
        (key.into(), status.into(), class.map(String::from), attempt)
    };
    rows.iter().map(owned).collect()
}

#[test]
fn classes_are_told_apart_and_retried_by_class_until_the_labels_are_whole() {
    let mut project = noisy_clips(5);
    project.run("calm", &[], 0);
    let sets = [
        "output.shard_frames=1000",
        "run.max_strikes=2",
        "run.stall_timeout=8.0",
        "run.batch=4",
    ];
    project.faults = format!(
        "eio:{MIDST}:clip00.mp4;hang:{MIDST}:clip01.mp4;crash:{MIDST}:clip02.mp4;nomem:{MIDST}:clip03.mp4"
    );
    let done = project.run("out", &sets, 3);
    assert_eq!(
        classes(&project),
        expected(&[
            ("clip00.mp4", "failed", Some("io"), 0),
            ("clip01.mp4", "quarantined", Some("timeout"), 0),
            ("clip02.mp4", "quarantined", Some("crash"), 0),
            ("clip03.mp4", "quarantined", Some("crash"), 0),
            ("clip04.mp4", "ok", None, 0),
        ])
    );
    let told = videos(&project.output("out"));
    let words = [
        ("clip00.mp4", "Input/output error"),
        ("clip01.mp4", "no progress for 8 s (run.stall_timeout)"),
        ("clip02.mp4", "SIGSEGV"),
        ("clip03.mp4", "out of memory"),
    ];
    for (key, cause) in words {
        let error = told[key].error.as_deref().unwrap();
        assert!(error.contains(cause) && error.contains("2 attempts"), "{error}");
        // A crash leaves no time to tell the very last one.
        if key != "clip02.mp4" {
            let frame = told[key].frame.expect("the last position");
            assert!(
                (1..40).contains(&frame),
                "{key}: broken in the midst, not at {frame}"
            );
        }
    }
    assert!(
        stderr(&done).contains("failed (io): clip00.mp4"),
        "{}",
        stderr(&done)
    );
    let whole = outputs(&project.output("calm"));
    let good = outputs(&project.output("out"));
    assert_eq!(good.len(), 40, "a video that is not labelled leaves no row");
    assert!(good.iter().all(|(key, values)| whole[key] == *values));

    project.faults.clear();
    let before = tree(&project.output("out").join("labels"));
    let nothing = project.retry("out", &["--class", "changed,corrupt"], 3);
    assert!(
        stderr(&nothing).contains("no video to label again"),
        "{}",
        stderr(&nothing)
    );
    assert!(before == tree(&project.output("out").join("labels")));

    let some = project.retry("out", &["--class", "timeout,io"], 3);
    assert!(
        stderr(&some).contains("labelling 2 videos again (1 timeout, 1 io)"),
        "{}",
        stderr(&some)
    );
    assert_eq!(
        classes(&project),
        expected(&[
            ("clip00.mp4", "ok", None, 1),
            ("clip01.mp4", "ok", None, 1),
            ("clip02.mp4", "quarantined", Some("crash"), 0),
            ("clip03.mp4", "quarantined", Some("crash"), 0),
            ("clip04.mp4", "ok", None, 0),
        ])
    );
    let after = tree(&project.output("out").join("labels"));
    assert!(
        before.iter().all(|(name, bytes)| after[name] == *bytes),
        "old parts stay"
    );

    project.retry("out", &["--video", "clip03.mp4"], 3);
    project.retry("out", &["--set", "run.max_strikes=1", "--quiet"], 0);
    assert_eq!(outputs(&project.output("out")), whole, "whole, and nothing twice");
    let again = project.run("out", &sets, 0);
    assert!(stderr(&again).contains("nothing to do"), "{}", stderr(&again));
    let again = project.retry("out", &[], 0);
    assert!(
        stderr(&again).contains("no video to label again"),
        "{}",
        stderr(&again)
    );
    let status = succeed(
        affectmill()
            .arg("status")
            .arg(project.output("out"))
            .arg("--json"),
    );
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["state"], &status["totals"]["videos"]),
        (&"finished".into(), &5.into())
    );
    assert_eq!(status["totals"]["frames"], 200);
}

#[test]
fn a_retry_that_is_killed_at_random_moments_ends_in_the_same_bytes() {
    let project = noisy_clips(4);
    let mut good = Vec::new();
    for n in 0..3 {
        let path = project.videos().join(format!("clip{n:02}.mp4"));
        good.push((fs::read(&path).unwrap(), path.clone()));
        fs::write(path, "not there yet").unwrap();
    }
    let outputs_of_one_run = ["calm", "stormy0", "stormy1", "stormy2"];
    for output in outputs_of_one_run {
        project.run(output, &[], 3);
    }
    // Mended files: the same names, other bytes.
    for (bytes, path) in good {
        fs::write(path, bytes).unwrap();
    }
    project.retry("calm", &["--class", "corrupt"], 0);
    assert_eq!(outputs(&project.output("calm")).len(), 160);

    let mut dice = Dice::new();
    let kills = if soak() { 40 } else { 6 };
    for round in 0..3 {
        let output = format!("stormy{round}");
        let mut finished = false;
        for n in 0..kills / 3 {
            // Begun by `retry`, gone on with by either.
            let command = match n % 2 {
                0 => project.retry_command(&output, &["--class", "corrupt"]),
                _ => project.command(&output, &[]),
            };
            let mut run = Running::start(command);
            std::thread::sleep(Duration::from_millis(dice.roll(3_000)));
            if run.child.try_wait().unwrap().is_none() {
                run.signal("KILL");
            }
            finished = run.wait() == Some(0);
        }
        if !finished {
            project.retry(&output, &[], 0);
        }
        project.run(&output, &[], 0);
        assert_same_labels(&project.output("calm"), &project.output(&output));
        assert_eq!(
            videos(&project.output("calm")),
            videos(&project.output(&output)),
            "one further attempt each"
        );
    }
}

#[test]
fn a_file_that_changes_under_a_run_fails_and_is_labelled_as_it_is_by_a_retry() {
    let project = Project::new().synthetic(4, 60);
    let mut run = project.start("out", &["output.shard_frames=1000"]);
    run.until("opened");
    synthetic(&project.videos().join("clip03.mp4"), 50, 9);
    assert_eq!(run.wait(), Some(3));
    let video = &videos(&project.output("out"))["clip03.mp4"];
    assert_eq!(
        (video.status.as_str(), video.class.as_deref(), video.rows),
        ("failed", Some("changed"), 0)
    );
    assert!(
        video.error.as_deref().unwrap().contains("retry --class changed"),
        "{video:?}"
    );
    project.retry("out", &["--class", "changed"], 0);
    let video = &videos(&project.output("out"))["clip03.mp4"];
    assert_eq!((video.status.as_str(), video.rows, video.attempt), ("ok", 50, 1));
    assert_eq!(outputs(&project.output("out")).len(), 3 * 60 + 50);
}

#[test]
fn a_partial_video_keeps_its_rows_and_bad_requests_are_refused() {
    let project = noisy_clips(2);
    let path = project.videos().join("clip01.mp4");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    project.run("out", &[], 3);
    let video = &videos(&project.output("out"))["clip01.mp4"];
    assert_eq!(
        (video.status.as_str(), video.class.as_deref()),
        ("partial", Some("corrupt"))
    );
    assert!(video.frame.is_some(), "{video:?}");
    let before = tree(&project.output("out").join("labels"));
    let kept = project.retry("out", &[], 3);
    for words in ["1 partial", "no video to label again"] {
        assert!(stderr(&kept).contains(words), "{}", stderr(&kept));
    }
    assert!(before == tree(&project.output("out").join("labels")));

    let refused = |output: &str, arguments: &[&str], says: &str| {
        let done = project.retry(output, arguments, 2);
        assert!(stderr(&done).contains(says), "{}", stderr(&done));
    };
    refused(
        "out",
        &["--class", "sad"],
        "corrupt, unsupported, timeout, crash, io, changed, not_finite",
    );
    refused(
        "out",
        &["--video", "nobody.mp4"],
        "no plan has the video `nobody.mp4`",
    );
    refused("out", &["--video", "../x"], "not a usable key");
    refused("out", &["--set", "run.workes=2"], "did you mean `workers`");
    refused("out", &["--set", "sampling.mode=keyframes"], "sampling.mode: was");
    refused("videos", &[], "videos");
}

/// Three clips of one shard, the second one cut in its midst, with crops; and what comes of them whole.
fn one_is_cut() -> (Project, Vec<u8>) {
    let project = noisy_clips(3);
    let path = project.videos().join("clip01.mp4");
    let whole = fs::read(&path).unwrap();
    project.run("calm", &TOGETHER, 0);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    project.run("out", &TOGETHER, 3);
    (project, whole)
}

const TOGETHER: [&str; 2] = ["output.shard_frames=1000", "output.crops=webdataset"];

/// The samples of all crops, by name; none is there twice.
fn samples(output: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut samples = std::collections::BTreeMap::new();
    for (shard, bytes) in tree(&output.join("crops")) {
        let mut archive = tar::Archive::new(bytes.as_slice());
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let name = member.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
            assert!(
                samples.insert(name.clone(), bytes).is_none(),
                "{name} is there twice: {shard}"
            );
        }
    }
    samples
}

fn assert_as_calm(project: &Project) {
    let (calm, out) = (project.output("calm"), project.output("out"));
    assert_eq!(
        outputs(&out),
        outputs(&calm),
        "each row once, as if nothing had been cut"
    );
    assert_eq!(samples(&out), samples(&calm));
    assert!(out.join("_SUCCESS").exists());
    let told = videos(&out);
    assert!(
        told.values()
            .all(|video| (&*video.status, video.rows) == ("ok", 40)),
        "{told:?}"
    );
}

#[test]
fn a_partial_video_is_labelled_again_once_its_file_has_changed() {
    let (project, whole) = one_is_cut();
    let out = project.output("out");
    let kept = project.retry("out", &[], 3);
    assert!(
        stderr(&kept).contains("1 partial: their files have not changed since"),
        "{}",
        stderr(&kept)
    );

    fs::write(project.videos().join("clip01.mp4"), &whole).unwrap();
    let done = project.retry("out", &[], 0);
    assert!(
        stderr(&done).contains("labelling 1 video again (1 corrupt)"),
        "{}",
        stderr(&done)
    );
    assert_as_calm(&project);
    // What stays as it is was copied to the byte: as a run over these videos alone writes it.
    let rest = project.output("rest");
    fs::remove_file(project.videos().join("clip01.mp4")).unwrap();
    project.run("rest", &TOGETHER, 0);
    for folder in ["labels", "crops"] {
        let (rest, out) = (tree(&rest.join(folder)), tree(&out.join(folder)));
        assert!(
            out.values().any(|part| part == rest.values().next().unwrap()),
            "{folder}"
        );
    }
    fs::write(project.videos().join("clip01.mp4"), &whole).unwrap();
    let again = project.retry("out", &[], 0);
    assert!(
        stderr(&again).contains("no video to label again"),
        "{}",
        stderr(&again)
    );
    let again = project.run("out", &TOGETHER, 0);
    assert!(stderr(&again).contains("nothing to do"), "{}", stderr(&again));
    let status = succeed(affectmill().arg("status").arg(&out));
    assert!(
        status.starts_with("finished") && status.contains("120 rows"),
        "{status}"
    );
    succeed(affectmill().arg("summary").arg(&out));

    // A copy of a copy, which holds no video in the end.
    let cut = &whole[..whole.len() / 2];
    for name in ["clip01.mp4", "clip02.mp4"] {
        fs::write(project.videos().join(name), cut).unwrap();
    }
    fs::remove_file(project.videos().join("clip00.mp4")).unwrap();
    project.run("two", &TOGETHER, 3);
    for (name, code) in [("clip01.mp4", 3), ("clip02.mp4", 0)] {
        fs::write(project.videos().join(name), &whole).unwrap();
        project.retry("two", &["--class", "corrupt"], code);
        let told = videos(&project.output("two"));
        assert_eq!(
            (&*told[name].status, told[name].rows, told[name].class.as_deref()),
            ("ok", 40, None)
        );
    }
    let two = outputs(&project.output("two"));
    assert_eq!((two.len(), samples(&project.output("two")).len()), (80, 160));
}

#[test]
fn moving_rows_may_be_killed_after_any_step() {
    let (project, whole) = one_is_cut();
    let out = project.output("out");
    let [before_labels, before_crops, before_commits] =
        ["labels", "crops", "_affectmill/commits"].map(|folder| tree(&out.join(folder)));
    fs::write(project.videos().join("clip01.mp4"), &whole).unwrap();
    project.retry("out", &[], 0);
    let commits = out.join("_affectmill/commits");
    let record = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(commits.join(name)).unwrap()).unwrap()
    };
    let old = before_commits.keys().next().unwrap().clone();
    let after = tree(&commits);
    let copy = after
        .keys()
        .find(|name| record(name)["videos"].as_array().unwrap().len() == 2)
        .unwrap();
    let retired = after[&old].clone();
    assert!(
        record(&old)["retired"]["held"]["part"]["rows"].as_u64() > Some(80),
        "what it held is kept"
    );
    let name = |commit: &str, ending: &str| format!("part-{}.{ending}", commit.trim_end_matches(".json"));
    let remove =
        |path: std::path::PathBuf| fs::remove_file(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let put_back = |folder: &str, files: &std::collections::BTreeMap<String, Vec<u8>>| {
        for (name, bytes) in files {
            fs::write(out.join(folder).join(name), bytes).unwrap();
        }
    };
    let steps = (0..5).flat_map(|step| [(step, false), (step, true)]);
    for (step, by_retry) in steps {
        // As a kill leaves it: after the plan; after the old record; after the copy's part; after its record; after the old part.
        put_back("crops", &before_crops);
        if step < 4 {
            put_back("labels", &before_labels);
        }
        if step < 3 {
            remove(commits.join(copy));
        }
        if step < 2 {
            remove(out.join("labels").join(name(copy, "parquet")));
            remove(out.join("crops").join(name(copy, "tar")));
        }
        match step {
            0 => put_back("_affectmill/commits", &before_commits),
            _ => fs::write(commits.join(&old), &retired).unwrap(),
        }
        if step % 2 == 0 {
            remove(out.join("_SUCCESS"));
        }
        if by_retry {
            project.retry("out", &[], 0);
        } else {
            project.run("out", &TOGETHER, 0);
        }
        assert_as_calm(&project);
    }

    // The old record is lost, and with it what there is to copy: the videos beside are labelled anew.
    remove(commits.join(&old));
    remove(commits.join(copy));
    remove(out.join("labels").join(name(copy, "parquet")));
    remove(out.join("crops").join(name(copy, "tar")));
    put_back("labels", &before_labels);
    put_back("crops", &before_crops);
    project.run("out", &TOGETHER, 0);
    assert_as_calm(&project);
}

#[test]
fn a_retry_of_partial_videos_that_is_killed_at_random_ends_as_if_nothing_had_been() {
    let (project, whole) = one_is_cut();
    fs::write(project.videos().join("clip01.mp4"), &whole).unwrap();
    let mut dice = Dice::new();
    for _ in 0..if soak() { 40 } else { 6 } {
        let retry = Running::start(project.retry_command("out", &[]));
        std::thread::sleep(Duration::from_millis(dice.roll(600)));
        retry.signal("KILL");
        if retry.wait() == Some(0) {
            break;
        }
    }
    project.retry("out", &[], 0);
    assert_as_calm(&project);
}
