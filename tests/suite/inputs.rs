//! Nothing of an input is passed over in silence: a file is a video that gets its rows or fails with a reason, or it is
//! counted by kind, or it is told to be unseen.

use super::common::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

fn json_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

/// `affectmill plan --json` of the project's job.
fn plan(project: &Project) -> Value {
    json_of(succeed(project.program().arg("plan").arg(project.job()).arg("--json")).as_bytes())
}

fn status(project: &Project) -> Value {
    let mut command = affectmill();
    json_of(succeed(command.arg("status").arg(project.output("out")).arg("--json")).as_bytes())
}

/// `kind name` → count.
pub fn counts(passed_over: &Value) -> BTreeMap<String, u64> {
    let all = passed_over.as_array().unwrap().iter();
    let name = |one: &Value| {
        format!(
            "{} {}",
            one["kind"].as_str().unwrap(),
            one["name"].as_str().unwrap()
        )
    };
    all.map(|one| (name(one), one["count"].as_u64().unwrap()))
        .collect()
}

/// Files below a folder, as `find` sees them.
fn found(folder: &Path, arguments: &[&str]) -> usize {
    let mut find = Command::new("find");
    succeed(find.arg(folder).args(arguments).args(["-printf", "x\n"]))
        .lines()
        .count()
}

/// The project's videos with everything that systems, people and programs leave beside them.
pub fn cluttered() -> Project {
    let project = Project::new();
    let videos = project.videos();
    let clip = project.dir.path().join("clip.mp4");
    synthetic(&clip, 5, 1);
    let copies = [
        "b.mp4",
        "_Zx9.mp4",
        "-Zx9.mp4",
        "id00012/_raOc3x/00110.MP4",
        "#recycle/old.mp4",
        "$RECYCLE.BIN/old.mp4",
        "a/@eaDir/b.mp4/SYNOVIDEO.mp4",
        "@eaDir/b.mp4",
        ".Trashes/501/old.mp4",
        "._b.mp4",
        "intro.bik",
        "labelled/labels/x.mp4",
    ];
    for copy in copies {
        fs::create_dir_all(videos.join(copy).parent().unwrap()).unwrap();
        fs::copy(&clip, videos.join(copy)).unwrap();
    }
    fs::create_dir_all(videos.join("labelled/_affectmill")).unwrap();
    for (name, content) in [
        ("notes.txt", "x"),
        ("a/more.TXT", "x"),
        ("LICENSE", "x"),
        ("code.ts", "export const a: number = 1;\n"),
        ("go.mod", "module example.com/a\n"),
        ("labelled/_affectmill/job.json", "{}"),
        ("labelled/_SUCCESS", ""),
    ] {
        fs::write(videos.join(name), content).unwrap();
    }
    project
}

/// What [`cluttered`] holds beside its four videos.
pub fn clutter() -> BTreeMap<String, u64> {
    let counts = [
        ("deleted #recycle", 1),
        ("deleted $RECYCLE.BIN", 1),
        ("deleted .Trashes", 1),
        ("extension ", 1),
        ("extension txt", 2),
        ("hidden ", 1),
        ("labels ", 1),
        ("no_video mod", 1),
        ("no_video ts", 1),
        ("preview @eaDir", 2),
        ("video bik", 1),
    ];
    counts.map(|(kind, count)| (kind.to_owned(), count)).into()
}

#[test]
fn every_file_is_labelled_or_counted_by_kind_wherever_one_looks() {
    let project = cluttered();
    let planned = plan(&project);
    assert_eq!((&planned["videos"], &planned["frames"]), (&json!(4), &json!(20)));
    assert_eq!(counts(&planned["passed_over"]), clutter());
    // Every file that `find` sees is a video, is counted, or lies in a folder that is.
    let in_folders: usize = [
        "#recycle",
        "$RECYCLE.BIN",
        ".Trashes",
        "a/@eaDir",
        "@eaDir",
        "labelled",
    ]
    .iter()
    .map(|folder| found(&project.videos().join(folder), &["-type", "f"]))
    .sum();
    let alone: u64 = clutter()
        .iter()
        .filter(|(kind, _)| {
            !["deleted", "preview", "labels"]
                .iter()
                .any(|folder| kind.starts_with(folder))
        })
        .map(|(_, count)| count)
        .sum();
    assert_eq!(
        found(&project.videos(), &["-type", "f"]),
        4 + in_folders + alone as usize
    );

    let mut run = project.start("out", &[]);
    let first = run.until("run_started");
    let last = run.until("finished");
    assert_eq!(run.wait(), Some(0));
    assert_eq!(counts(&first["passed_over"]), clutter());
    assert_eq!(counts(&last["summary"]["passed_over"]), clutter());
    assert_eq!(last["summary"]["unseen"]["count"], 0);
    assert_eq!(rows(&project.output("out")).len(), 20);
    assert_eq!(counts(&status(&project)["passed_over"]), clutter());
    let mut report = affectmill();
    report
        .arg("report")
        .arg(project.output("out"))
        .args(["--json", "-o"])
        .arg(project.output("r.html"));
    assert_eq!(
        counts(&json_of(succeed(&mut report).as_bytes())["passed_over"]),
        clutter()
    );

    // In words: the first lines, the last ones, `status`, the page.
    let words = [
        "1 file of .bik (videos that [input] extensions does not name)",
        "1 file of .ts without a video in it (code.ts)",
        "2 folders of a NAS's thumbnails (@eaDir)",
        "2 files of .txt",
    ];
    let told = stderr(&project.run("words", &[], 0));
    let text = succeed(affectmill().arg("status").arg(project.output("out")));
    let page = fs::read_to_string(project.output("r.html")).unwrap();
    for words in words {
        assert_eq!(told.matches(words).count(), 2, "{words}:\n{told}");
        assert!(text.contains(words), "{words}:\n{text}");
        let words = words.replace('\'', "&#39;");
        assert!(
            page.contains(&words) || page.contains(&words.replace("&#39;", "'")),
            "{words}"
        );
    }
}

/// Where the container cannot be made here, another one of its family stands for it.
#[rustfmt::skip]
const CONTAINERS: &[(&str, &[&str])] = &[
    ("mts", &["-f", "mpegts"]), ("m2t", &["-f", "mpegts"]), ("tod", &["-f", "mpegts"]), ("tp", &["-f", "mpegts"]),
    ("trp", &["-f", "mpegts"]), ("m2ts", &["-f", "mpegts", "-mpegts_m2ts_mode", "1"]),
    ("vob", &["-c:v", "mpeg2video", "-f", "vob"]), ("mod", &["-c:v", "mpeg2video", "-f", "vob"]),
    ("vro", &["-c:v", "mpeg2video", "-f", "vob"]), ("m2p", &["-c:v", "mpeg2video", "-f", "vob"]),
    ("dat", &["-c:v", "mpeg1video", "-f", "vcd"]), ("mpe", &["-c:v", "mpeg1video", "-f", "mpeg"]),
    ("dv", &["-s", "720x576", "-f", "dv"]), ("mxf", &["-c:v", "mpeg2video", "-f", "mxf"]),
    ("gxf", &["-s", "720x576", "-c:v", "mpeg2video", "-pix_fmt", "yuv422p", "-f", "gxf"]),
    ("asf", &["-c:v", "msmpeg4", "-f", "asf"]), ("dvr-ms", &["-c:v", "mpeg2video", "-f", "asf"]),
    ("wtv", &["-c:v", "mpeg2video", "-f", "wtv"]), ("f4v", &["-f", "f4v"]), ("qt", &["-f", "mov"]), ("3g2", &["-f", "3g2"]),
    ("insv", &["-f", "mp4"]), ("360", &["-f", "mp4"]), ("divx", &["-c:v", "mpeg4", "-f", "avi"]), ("ogg", &["-c:v", "libtheora", "-f", "ogg"]),
    ("ogm", &["-c:v", "libtheora", "-f", "ogg"]), ("m1v", &["-c:v", "mpeg1video", "-f", "mpeg1video"]),
    ("m2v", &["-c:v", "mpeg2video", "-f", "mpeg2video"]), ("h264", &["-f", "h264"]), ("264", &["-f", "h264"]),
    ("hevc", &["-c:v", "libx265", "-x265-params", "log-level=none", "-f", "hevc"]),
    ("h265", &["-c:v", "libx265", "-x265-params", "log-level=none", "-f", "hevc"]),
    ("mjpg", &["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-f", "mjpeg"]), ("y4m", &["-f", "yuv4mpegpipe"]), ("nut", &["-f", "nut"]),
    ("ivf", &["-c:v", "libvpx", "-f", "ivf"]), ("rm", &["-c:v", "rv10", "-f", "rm"]), ("amv", &["-s", "160x128", "-f", "amv"]),
    ("mj2", &["-c:v", "jpeg2000", "-f", "mov"]), ("mk3d", &["-f", "matroska"]), ("ismv", &["-f", "ismv"]),
];

#[test]
fn files_of_cameras_discs_and_broadcasters_are_videos_by_default() {
    let project = Project::new();
    let mut expected = BTreeMap::new();
    for (extension, arguments) in CONTAINERS {
        let path = project
            .videos()
            .join(format!("clip.{}", extension.to_uppercase()));
        // `amv` wants sound.
        let source = ["-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=0.4"];
        let sound = [
            "-f",
            "lavfi",
            "-i",
            "sine=d=0.4:r=22050",
            "-ac",
            "1",
            "-block_size",
            "882",
        ];
        let sound = if *extension == "amv" { &sound[..] } else { &["-an"] };
        let common = ["-pix_fmt", "yuv420p", "-r", "25"];
        ffmpeg(&[&source[..], sound, &common, arguments, &[path.to_str().unwrap()]].concat());
        let mut probe = Command::new("ffprobe");
        probe.args([
            "-v",
            "error",
            "-count_frames",
            "-select_streams",
            "v",
            "-show_entries",
        ]);
        let frames = succeed(probe.args(["stream=nb_read_frames", "-of", "csv=p=0"]).arg(&path));
        // A program's stream is told twice.
        let first = frames.lines().next().unwrap_or_default().trim_matches(',');
        let frames: usize = first.parse().unwrap_or_else(|_| panic!("{extension}: {frames}"));
        expected.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), frames);
    }
    fs::write(
        project.videos().join("sound.ogg"),
        b"OggS\0\x02\0\0\0\0\0\0\0\0\x01vorbis\0",
    )
    .unwrap();
    let told = stderr(&project.run("out", &[], 0));
    let mut labelled: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows(&project.output("out")) {
        *labelled.entry(row.video).or_default() += 1;
    }
    assert_eq!(labelled, expected, "{told}");
    assert!(expected.values().all(|frames| *frames >= 8), "{expected:?}");
    assert!(
        told.contains("passed over: 1 file of .ogg without a video in it"),
        "{told}"
    );
}

/// Runs the program without the rights of root to read everything.
fn unprivileged(command: &Command) -> Output {
    let is_root = succeed(Command::new("id").arg("-u")).trim() == "0";
    let mut dropped = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        let rights = "-dac_override,-dac_read_search";
        dropped.args([format!("--bounding-set={rights}"), format!("--inh-caps={rights}")]);
    }
    dropped
        .arg(command.get_program())
        .args(command.get_args())
        .output()
        .unwrap()
}

#[test]
fn what_cannot_be_looked_at_ends_with_3_and_is_named_last() {
    let project = Project::new().synthetic(1, 5);
    let videos = project.videos();
    fs::create_dir(videos.join("locked")).unwrap();
    let chmod = |mode: &str, name: &str| succeed(Command::new("chmod").arg(mode).arg(videos.join(name)));
    // Its names may be read, and no more.
    fs::create_dir(videos.join("blind")).unwrap();
    fs::copy(videos.join("clip00.mp4"), videos.join("blind/x.mp4")).unwrap();
    symlink("nowhere", videos.join("unmounted")).unwrap();
    fs::write(videos.join(OsString::from_vec(b"caf\xe9.mp4".to_vec())), b"x").unwrap();
    chmod("000", "locked");
    chmod("444", "blind");
    let done = unprivileged(&project.command("out", &[]));
    let planned = unprivileged(project.program().arg("plan").arg(project.job()).arg("--json"));
    chmod("755", "locked");
    chmod("755", "blind");
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(3), "{told}");
    let last = told.split("finished").last().unwrap();
    for (name, why) in [
        ("locked", "cannot be listed: Permission denied"),
        ("blind/x.mp4", "cannot be looked at: Permission denied"),
        ("unmounted", "what is not there"),
        ("caf\u{fffd}.mp4", "not UTF-8"),
    ] {
        let line = format!("{}: ", videos.join(name).display());
        for text in [told.split("labelling").next().unwrap(), last] {
            let line = text
                .lines()
                .find(|told| told.contains(&line))
                .unwrap_or_else(|| panic!("{name}: {told}"));
            assert!(line.contains(why), "{line}");
        }
    }
    assert!(
        last.contains("1 ok") && last.contains("4 places of the input could not be looked at"),
        "{last}"
    );
    assert_eq!(json_of(&planned.stdout)["unseen"]["count"], 4);
    assert_eq!(status(&project)["unseen"]["count"], 4);
    let text = succeed(affectmill().arg("status").arg(project.output("out")));
    assert!(text.contains("locked: cannot be listed"), "{text}");
    // Quiet runs say what matters.
    let quiet = project
        .command("out", &["run.workers=1"])
        .arg("--quiet")
        .output()
        .unwrap();
    assert_eq!(quiet.status.code(), Some(3), "{}", stderr(&quiet));
    assert!(
        stderr(&quiet).contains("2 places of the input"),
        "{}",
        stderr(&quiet)
    );

    fs::remove_file(videos.join("unmounted")).unwrap();
    fs::remove_file(videos.join(OsString::from_vec(b"caf\xe9.mp4".to_vec()))).unwrap();
    project.run("out", &[], 0);
    assert_eq!(
        status(&project)["unseen"]["count"],
        0,
        "what was seen since is told no more"
    );
}

#[test]
fn a_folder_that_fails_in_passing_is_listed_again_and_one_that_stays_broken_is_told() {
    let mut project = Project::new().synthetic(1, 5);
    for name in ["flaky", "broken"] {
        fs::create_dir(project.videos().join(name)).unwrap();
        fs::copy(
            project.videos().join("clip00.mp4"),
            project.videos().join(name).join("x.mp4"),
        )
        .unwrap();
    }
    project.faults = "list-flaky:0:0:/flaky;list-eio:0:0:/broken".into();
    let told = stderr(&project.run("out", &[], 3));
    let broken = project.videos().join("broken");
    assert!(
        told.contains(&format!(
            "{}: cannot be listed: Input/output error",
            broken.display()
        )),
        "{told}"
    );
    assert!(!told.contains("flaky"), "{told}");
    let labelled: Vec<String> = videos(&project.output("out")).into_keys().collect();
    assert_eq!(labelled, ["clip00.mp4", "flaky/x.mp4"]);
    project.faults = "list-flaky:0:0:/videos".into();
    project.run("out", &[], 0);
}

/// Takes from the plans what older ones do not say.
fn make_old(output: &Path) {
    let plans = fs::read_dir(output.join("_affectmill/plans")).unwrap();
    for plan in plans.map(|entry| entry.unwrap().path()) {
        let mut record = json_of(&zstd::decode_all(fs::read(&plan).unwrap().as_slice()).unwrap());
        assert!(record.as_object_mut().unwrap().remove("input").is_some());
        fs::write(&plan, zstd::encode_all(record.to_string().as_bytes(), 3).unwrap()).unwrap();
    }
    fs::remove_file(output.join("_affectmill/input.json")).unwrap();
}

#[test]
fn videos_of_another_place_are_refused_with_both_places_named() {
    let project = Project::new();
    let days = ["day1", "day2"].map(|day| project.dir.path().join(day));
    for (n, day) in days.iter().enumerate() {
        fs::create_dir(day).unwrap();
        synthetic(&day.join("cam1.mp4"), 5, n as u32);
        synthetic(&day.join("cam2.mp4"), 5, n as u32 + 2);
    }
    let from = |day: &Path, name: &str| format!("input.uri={:?}", day.join(name));
    let refused = |set: &str, output: &str| {
        let told = stderr(&project.run(output, &[set], 2));
        for words in [
            days[0].to_str().unwrap(),
            days[1].to_str().unwrap(),
            "--input-moved",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
    };
    for old in [false, true] {
        let output = format!("out{old}");
        project.run(&output, &[&from(&days[0], "cam1.mp4")], 0);
        if old {
            make_old(&project.output(&output));
        }
        let before = tree(&project.output(&output));
        refused(&from(&days[1], "cam1.mp4"), &output);
        refused(&from(&days[1], ""), &output);
        let mut plan = project.program();
        plan.arg("plan")
            .arg(project.job())
            .args(["--set", &from(&days[1], "")]);
        let set = format!("output.uri={:?}", project.output(&output));
        let planned = plan.args(["--set", &set]).output().unwrap();
        assert_eq!(planned.status.code(), Some(2), "{}", stderr(&planned));
        assert!(before == tree(&project.output(&output)), "nothing was written");
        // Another file of the same folder, the folder, and a link to it are no other place.
        project.run(&output, &[&from(&days[0], "cam2.mp4")], 0);
        project.run(&output, &[&from(&days[0], "../day1/.")], 0);
        let link = project.dir.path().join("link");
        let _ = symlink(&days[0], &link);
        let again = stderr(&project.run(&output, &[&from(&link, "")], 0));
        assert!(again.contains("nothing to do: all 2 video"), "{again}");
    }
}

#[test]
fn a_collection_that_was_moved_is_accepted_once_for_all() {
    let project = Project::new().synthetic(2, 5);
    fs::write(project.videos().join("bad.mp4"), "no video").unwrap();
    project.run("out", &[], 3);
    let before = tree(&project.output("out").join("labels"));
    let moved = project.dir.path().join("moved");
    fs::rename(project.videos(), &moved).unwrap();
    let here = format!("input.uri={moved:?}");

    // The recorded input is gone, and the new one is another place until somebody says so.
    project.retry("out", &[], 2);
    project.run("out", &[&here], 2);
    let accept = |command: &mut Command, code: i32| {
        let done = command.arg("--input-moved").output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
    };
    accept(&mut project.command("out", &[&here]), 3);
    assert!(before == tree(&project.output("out").join("labels")));

    // From now on nobody need say it: not to run, retry, or render.
    synthetic(&moved.join("clip02.mp4"), 5, 2);
    let told = stderr(&project.run("out", &[&here], 3));
    assert!(told.contains("3 ok, 1 failed"), "{told}");
    synthetic(&moved.join("bad.mp4"), 5, 3);
    project.retry("out", &[], 0);
    assert_eq!(rows(&project.output("out")).len(), 20);
    let mut render = affectmill();
    render
        .args(["render", "clip00.mp4", "--labels"])
        .arg(project.output("out"));
    succeed(render.arg("--sheet").arg(project.output("sheet.png")));

    // Hosts may mount it in both places.
    fs::rename(&moved, project.videos()).unwrap();
    let told = stderr(&project.run("out", &[], 0));
    assert!(told.contains("nothing to do: all 4 videos"), "{told}");
    succeed(render.arg("--frames").arg("2"));
}

#[test]
fn a_video_whose_name_begins_with_a_dash_is_drawn_as_the_message_says() {
    let project = Project::new();
    synthetic(&project.videos().join("-Zx9.mp4"), 5, 1);
    project.run("out", &[], 0);
    let render = |arguments: &[&str]| {
        let mut command = affectmill();
        command
            .arg("render")
            .args(arguments)
            .current_dir(project.dir.path());
        command.output().unwrap()
    };
    let refused = render(&["-Zx9.mp4", "--labels", "out", "-o", "drawn.mp4"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    let line = told
        .split("write: affectmill render ")
        .nth(1)
        .unwrap_or_else(|| panic!("{told}"));
    let words: Vec<&str> = line.lines().next().unwrap().split(' ').collect();
    assert_eq!(words, ["--labels", "out", "-o", "drawn.mp4", "--", "-Zx9.mp4"]);
    let done = render(&words);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(project.output("drawn.mp4").exists());
}
