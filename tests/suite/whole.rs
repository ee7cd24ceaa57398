//! A video is `ok` only if all of it was seen, and each frame that was asked for has its row.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const X264: [&str; 6] = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];

/// A test pattern of some seconds at 25 frames a second.
fn clip(path: &Path, seconds: u32, more: &[&str]) {
    let source = format!("testsrc2=size=96x64:rate=25:duration={seconds}");
    let source = ["-f", "lavfi", "-i", &source];
    ffmpeg(&[&source[..], &X264, more, &[path.to_str().unwrap()]].concat());
}

fn ffprobe(path: &Path, arguments: &str) -> Value {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-of", "json", "-select_streams", "v:0"]);
    let out = succeed(command.args(arguments.split(' ')).arg(path));
    serde_json::from_str(&out).unwrap()
}

/// Times of a video's frames in microseconds, as ffprobe tells them.
fn times(path: &Path) -> Vec<i64> {
    let told = ffprobe(path, "-show_entries frame=best_effort_timestamp_time");
    let frames = told["frames"].as_array().unwrap().iter();
    frames
        .map(|frame| micros(&frame["best_effort_timestamp_time"]).unwrap())
        .collect()
}

/// Places and sizes of the packets of a file.
fn packets(path: &Path) -> Vec<(usize, usize)> {
    let told = ffprobe(path, "-show_entries packet=pos,size");
    let number = |packet: &Value, name: &str| packet[name].as_str().unwrap().parse().unwrap();
    let packets = told["packets"].as_array().unwrap().iter();
    packets
        .map(|packet| (number(packet, "pos"), number(packet, "size")))
        .collect()
}

fn rows_of(project: &Project, name: &str) -> Vec<Row> {
    let rows = rows(&project.output("out")).into_iter();
    rows.filter(|row| row.video == name).collect()
}

/// The same recording twice, one behind the other.
fn twice(path: &Path) {
    let once = fs::read(path).unwrap();
    fs::write(path, [&once[..], &once].concat()).unwrap();
}

#[test]
fn what_is_missing_of_a_video_is_said_and_counted() {
    let project = Project::new();
    let at = |name: &str| project.videos().join(name);
    clip(&at("cut.mp4"), 4, &["-bf", "0", "-movflags", "+faststart"]);
    let bytes = fs::read(at("cut.mp4")).unwrap();
    let places = packets(&at("cut.mp4")).into_iter();
    let mut ends: Vec<usize> = places.map(|(place, size)| place + size).collect();
    ends.sort();
    fs::write(at("cut.mp4"), &bytes[..ends[49]]).unwrap();

    let endless = [
        "-bf",
        "0",
        "-g",
        "9999",
        "-keyint_min",
        "9999",
        "-sc_threshold",
        "0",
    ];
    clip(&at("endless.mp4"), 4, &endless);
    let (place, size) = packets(&at("endless.mp4"))[20];
    let mut bytes = fs::read(at("endless.mp4")).unwrap();
    bytes[place + size / 2..][..30].fill(0);
    fs::write(at("endless.mp4"), bytes).unwrap();

    let key = "76a6c65c5ea762046bd749a2e632ccbb";
    let scheme = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key];
    clip(
        &at("encrypted.mp4"),
        1,
        &[&scheme[..], &["-encryption_kid", key]].concat(),
    );

    clip(&at("moved.ts"), 2, &["-streamid", "0:256"]);
    let mut joined = fs::read(at("moved.ts")).unwrap();
    let moved = [
        "-streamid",
        "0:512",
        "-tables_version",
        "1",
        "-output_ts_offset",
        "2",
    ];
    clip(&at("moved.ts"), 2, &moved);
    joined.extend(fs::read(at("moved.ts")).unwrap());
    fs::write(at("moved.ts"), joined).unwrap();

    let done = project.run("out", &["input.extensions=['mp4','ts']"], 3);
    let told = videos(&project.output("out"));
    let of = |name: &str| {
        let video = &told[name];
        let class = video.class.clone().unwrap_or_default();
        let error = video.error.clone().unwrap_or_default();
        (video.status.clone(), class, video.rows, video.lost, error)
    };
    let (status, class, rows, lost, error) = of("cut.mp4");
    assert_eq!(
        (&*status, &*class, rows, lost),
        ("partial", "corrupt", 50, Some(0))
    );
    let wanted = "ends at 2.000 s of 4.000 s: 50 of the 100 frames in its index came";
    assert!(error.starts_with(wanted), "{error}");
    assert_eq!(told["cut.mp4"].frame, Some(50));
    let (status, class, rows, lost, error) = of("endless.mp4");
    assert_eq!(
        (&*status, &*class, rows, lost),
        ("partial", "corrupt", 100, Some(80))
    );
    assert!(error.starts_with("damaged at frame 20 (0.800 s): "), "{error}");
    let wanted = "; no key frame follows: 80 of 100 frames are lost";
    assert!(error.ends_with(wanted), "{error}");
    let labelled = rows_of(&project, "endless.mp4");
    assert_eq!(labelled.iter().filter(|row| row.status == "ok").count(), 20);
    let (status, class, rows, _, error) = of("encrypted.mp4");
    assert_eq!((&*status, &*class, rows), ("failed", "unsupported", 0));
    assert!(
        error.contains("encrypted.mp4: is encrypted (cenc); decrypt it"),
        "{error}"
    );
    let whole = ("ok".into(), String::new(), 100, Some(0), String::new());
    assert_eq!(of("moved.ts"), whole);
    assert!(stderr(&done).contains("encrypted.mp4"), "{}", stderr(&done));
}

#[test]
fn sampling_by_time_misses_nothing_in_silence() {
    let project = Project::new();
    let at = |name: &str| project.videos().join(name);
    clip(&at("twice.ts"), 4, &["-bf", "0"]);
    twice(&at("twice.ts"));
    // A raw stream has no times.
    clip(&at("raw.h264"), 1, &[]);
    let by_time = ["sampling.mode='fps'", "sampling.fps=2.0"];
    project.run(
        "out",
        &[&by_time[..], &["input.extensions=['ts','h264']"]].concat(),
        3,
    );
    // ffprobe's frames at or after each half second, in each half of the file.
    let times = times(&at("twice.ts"));
    assert_eq!((times.len(), times[0]), (200, times[100]));
    let halves = [0, 100].into_iter().flat_map(|from| {
        let times = &times[from..from + 100];
        let at = |half: i64| times.iter().position(|time| time - times[0] >= half * 500_000);
        (0..8).map(move |half| (from + at(half).unwrap()) as i64)
    });
    let kept: Vec<i64> = rows_of(&project, "twice.ts")
        .iter()
        .map(|row| row.frame)
        .collect();
    assert_eq!(kept, halves.collect::<Vec<_>>());
    let told = videos(&project.output("out"));
    assert_eq!(told["twice.ts"].status, "ok");
    let raw = &told["raw.h264"];
    let class = raw.class.as_deref();
    assert_eq!(
        (&*raw.status, class, raw.rows),
        ("failed", Some("unsupported"), 0)
    );
    let error = raw.error.as_deref().unwrap();
    assert!(
        error.contains("its frames have no times") && error.contains("stride"),
        "{error}"
    );
}

#[test]
fn images_without_times_are_refused_before_the_run() {
    let project = Project::new();
    let faces = project.videos().join("faces");
    fs::create_dir(&faces).unwrap();
    let source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=1"];
    ffmpeg(&[&source[..], &[faces.join("%05d.png").to_str().unwrap()]].concat());
    let by_time = ["sampling.mode='fps'", "sampling.fps=2.0"];
    let refused = project.run("out", &by_time, 2);
    let said = stderr(&refused);
    assert!(
        said.contains(faces.to_str().unwrap()) && said.contains("image_fps"),
        "{said}"
    );
    assert!(!project.output("out").exists());
    project.run("out", &[&by_time[..], &["input.image_fps=25.0"]].concat(), 0);
    assert_eq!(rows(&project.output("out")).len(), 2);
    // Frames 1, 2, 3, of which each tenth is asked for: none, and that is not ok.
    for image in 4..26 {
        fs::remove_file(faces.join(format!("{image:05}.png"))).unwrap();
    }
    let tenth = [
        "sampling.mode='stride'",
        "sampling.stride=10",
        "input.image_base=0",
    ];
    project.run("none", &tenth, 3);
    let told = videos(&project.output("none"));
    assert_eq!((&*told["faces"].status, told["faces"].rows), ("failed", 0));
}

#[test]
fn key_frames_minutes_apart_are_warned_of() {
    let project = Project::new();
    let source = "testsrc2=size=64x64:rate=5:duration=130";
    let path = project.videos().join("endless.mp4");
    let keys = ["-g", "9999", "-sc_threshold", "0", path.to_str().unwrap()];
    ffmpeg(&[&["-f", "lavfi", "-i", source][..], &X264, &keys].concat());
    let done = project.run("out", &["sampling.mode='keyframes'"], 0);
    assert_eq!(rows(&project.output("out")).len(), 1);
    let said = stderr(&done);
    assert!(
        said.contains("endless.mp4: 1 key frames in 2.2 minutes"),
        "{said}"
    );
}

#[test]
fn hdr_is_brought_to_sdr_and_said_to_be() {
    let project = Project::new();
    for (name, transfer) in [
        ("hlg.mp4", "arib-std-b67"),
        ("pq.mp4", "smpte2084"),
        ("sdr.mp4", "bt2020-10"),
    ] {
        let path = project.videos().join(name);
        let params = format!("log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc");
        let source = [
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=96x64:rate=25",
            "-frames:v",
            "5",
        ];
        let codec = [
            "-pix_fmt",
            "yuv420p10le",
            "-c:v",
            "libx265",
            "-x265-params",
            &params,
        ];
        ffmpeg(&[&source[..], &codec, &[path.to_str().unwrap()]].concat());
    }
    clip(&project.videos().join("plain.mp4"), 1, &[]);
    project.run("out", &["output.values=logits"], 0);
    let told = videos(&project.output("out"));
    let said = |name: &str| (told[name].transfer.clone(), told[name].tone_mapping.as_deref());
    let probed = |name: &str| {
        let told = ffprobe(
            &project.videos().join(name),
            "-show_entries stream=color_transfer",
        );
        told["streams"][0]["color_transfer"].as_str().map(str::to_owned)
    };
    for hdr in ["hlg.mp4", "pq.mp4"] {
        assert_eq!(said(hdr), (probed(hdr), Some("bt2390-1000-203")));
    }
    for sdr in ["sdr.mp4", "plain.mp4"] {
        assert_eq!(said(sdr), (probed(sdr), None));
    }
    let labels = outputs(&project.output("out"));
    let of = |name: &str| -> Vec<f32> {
        let own = labels.iter().filter(|((video, ..), _)| video == name);
        own.flat_map(|(_, values)| values.clone()).collect()
    };
    // The same codes, which mean three different pictures.
    for (a, b) in [
        ("hlg.mp4", "sdr.mp4"),
        ("pq.mp4", "sdr.mp4"),
        ("hlg.mp4", "pq.mp4"),
    ] {
        let (one, other) = (of(a), of(b));
        let apart = one.iter().zip(other).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max);
        assert!(apart > 0.01, "{a} {b}: {apart}");
    }
}

#[test]
fn a_film_goes_on_where_the_clock_steps_back() {
    let project = Project::new();
    let path = project.videos().join("twice.ts");
    let inputs = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=96x64:rate=25:duration=2",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=2",
    ];
    let codecs = ["-bf", "0", "-c:a", "aac", path.to_str().unwrap()];
    ffmpeg(&[&inputs[..], &X264, &codecs].concat());
    twice(&path);
    project.run("out", &["input.extensions=['ts']"], 0);
    let film = project.output("film.mp4");
    let mut render = project.program();
    render.arg("render").arg(&path).arg("--labels");
    succeed(render.arg(project.output("out")).arg("-o").arg(&film));
    let times = times(&film);
    assert_eq!(times.len(), 100);
    for two in times.windows(2) {
        assert!((two[1] - two[0] - 40_000).abs() <= 5_000, "{two:?}");
    }
    let mut probe = Command::new("ffprobe");
    probe.args("-v error -select_streams a -show_entries stream=duration -of csv=p=0".split(' '));
    let sound = succeed(probe.arg(&film));
    assert!(
        (sound.trim().parse::<f64>().unwrap() - 4.0).abs() < 0.2,
        "{sound}"
    );
}
