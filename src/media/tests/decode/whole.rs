//! What a file promises against what came: files cut off anywhere, and good files of every kind.

use super::boxes::{add, boxed, boxes};
use super::{OPTIONS, counted};
use crate::decode::{DecodeOptions, VideoReader};
use affectmill_base::SourceKind;
use affectmill_testing::media::{cache, ffmpeg, output};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PICTURE: &str = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4";
const SOUND: &str = "-f lavfi -i sine=duration=4";
const LONG_SOUND: &str = "-f lavfi -i sine=duration=9";
const H264: &str = "-c:v libx264 -preset ultrafast -g 25 -bf 2";
const FRAGMENTS: &str = "-movflags frag_keyframe+empty_moov+default_base_moof";

/// Frames, and what is missing in words.
fn read(path: &Path, options: &DecodeOptions) -> (u64, Option<String>) {
    let mut reader = VideoReader::open(path, SourceKind::File, options).unwrap();
    let mut frames = 0;
    while reader.next().unwrap().is_some() {
        frames += 1;
    }
    (frames, reader.shortfall().map(|missing| missing.error.clone()))
}

fn made(folder: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(arguments, &path);
    path
}

fn probed(path: &Path, entries: &str) -> Value {
    let arguments = [
        "-v",
        "quiet",
        "-select_streams",
        "v:0",
        "-show_entries",
        entries,
        "-of",
        "json",
    ];
    let file = format!("file:{}", path.display());
    serde_json::from_slice(&output(
        Path::new("ffprobe"),
        &[&arguments[..], &[&file]].concat(),
    ))
    .unwrap()
}

fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}

/// When ffprobe's last packet of a file ends.
fn end(path: &Path) -> f64 {
    let packets = probed(path, "packet=pts_time,dts_time,duration_time");
    let packets = packets["packets"].as_array().unwrap().iter();
    let lasts = |packet: &Value| seconds(&packet["duration_time"]).unwrap_or(0.0);
    let begins = |packet: &Value| seconds(&packet["pts_time"]).or(seconds(&packet["dts_time"]));
    let ends = packets.filter_map(|packet| Some(begins(packet)? + lasts(packet)));
    ends.fold(0.0, f64::max)
}

/// Places behind each picture of a file.
fn ends_of_pictures(path: &Path) -> Vec<usize> {
    let packets = probed(path, "packet=pos,size");
    let number = |packet: &Value, name: &str| packet[name].as_str().unwrap().parse::<usize>().unwrap();
    let packets = packets["packets"].as_array().unwrap().iter();
    let mut ends: Vec<usize> = packets
        .map(|packet| number(packet, "pos") + number(packet, "size"))
        .collect();
    ends.sort();
    ends
}

#[test]
fn a_file_cut_off_says_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let front = "-movflags +faststart";
    let cases = [
        ("a.mp4", format!("{PICTURE} {H264} {front}")),
        ("sound.mp4", format!("{PICTURE} {SOUND} {H264} -c:a aac {front}")),
        (
            "sound.mov",
            format!("{PICTURE} {SOUND} {H264} -c:a pcm_s16le {front}"),
        ),
        ("a.mkv", format!("{PICTURE} {H264}")),
        ("sound.mkv", format!("{PICTURE} {SOUND} {H264} -c:a aac")),
        ("a.webm", format!("{PICTURE} -c:v libvpx -deadline realtime")),
        (
            "sound.webm",
            format!("{PICTURE} {SOUND} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
        ),
        ("sound.avi", format!("{PICTURE} {SOUND} -c:v mjpeg -c:a mp3")),
        (
            "sound.flv",
            format!("{PICTURE} {SOUND} -c:v flv1 -ar 44100 -c:a mp3"),
        ),
        ("sound.wmv", format!("{PICTURE} {SOUND} -c:v wmv2 -c:a wmav2")),
        ("a.mxf", format!("{PICTURE} -s 720x576 -c:v mpeg2video -q:v 9")),
        ("a.ivf", format!("{PICTURE} -c:v libvpx -deadline realtime")),
        ("fragments.mp4", format!("{PICTURE} {H264} {FRAGMENTS}")),
        (
            "segments.mp4",
            format!("{PICTURE} {H264} -movflags dash+global_sidx+frag_keyframe+empty_moov"),
        ),
    ];
    for (name, arguments) in cases {
        let whole = made(folder, name, &arguments);
        assert_eq!(read(&whole, &OPTIONS), (100, None), "{name}");
        let promised = end(&whole);
        let bytes = fs::read(&whole).unwrap();
        let cut = folder.join(format!("cut-{name}"));
        for tenth in [3, 6] {
            fs::write(&cut, &bytes[..bytes.len() * tenth / 10]).unwrap();
            let (frames, missing) = read(&cut, &OPTIONS);
            assert_eq!(frames, counted(&cut), "{name}");
            assert!(frames < 100, "{name}: {frames}");
            let missing = missing.unwrap_or_else(|| panic!("{name}, {tenth}: {frames} frames are all"));
            // ends at 1.200 s of 4.000 s
            let numbers: Vec<f64> = missing
                .split([' ', ':', ','])
                .filter_map(|word| word.parse().ok())
                .collect();
            let ends = end(&cut);
            assert!((numbers[0] - ends).abs() < 0.002, "{name}: {missing}, not {ends}");
            // A tail of fragments that were never written is promised by nobody.
            if name != "fragments.mp4" {
                assert!(
                    (numbers[1] - promised).abs() < 0.1,
                    "{name}: {missing}, not {promised}"
                );
            }
        }
    }
}

#[test]
fn a_file_cut_exactly_behind_a_picture_or_in_its_sound_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = made(
        folder,
        "a.mp4",
        &format!("{PICTURE} {H264} -bf 0 -movflags +faststart"),
    );
    let (bytes, ends) = (fs::read(&path).unwrap(), ends_of_pictures(&path));
    for kept in [99, 98, 50, 1] {
        fs::write(&path, &bytes[..ends[kept - 1]]).unwrap();
        let (frames, missing) = read(&path, &OPTIONS);
        assert_eq!(frames, kept as u64);
        let (at, all) = (
            kept as f64 / 25.0,
            format!("{kept} of the 100 frames in its index came"),
        );
        let missing = missing.expect("it ends too early");
        assert!(
            missing.starts_with(&format!("ends at {at:.3} s of 4.000 s: {all}")),
            "{missing}"
        );
    }
    // The longest stretch between two pictures is sound: in it nothing of a picture is torn.
    let path = made(
        folder,
        "sound.mp4",
        &format!("{PICTURE} {SOUND} {H264} -bf 0 -c:a pcm_s16be -f mov -movflags +faststart"),
    );
    let (bytes, ends) = (fs::read(&path).unwrap(), ends_of_pictures(&path));
    let starts = probed(&path, "packet=pos");
    let mut starts: Vec<usize> = starts["packets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|packet| packet["pos"].as_str().unwrap().parse().unwrap())
        .collect();
    starts.sort();
    let gaps = ends.iter().zip(&starts[1..]).map(|(end, start)| start - end);
    let (before, gap) = gaps.enumerate().skip(20).max_by_key(|(_, gap)| *gap).unwrap();
    assert!(gap > 1_000, "{gap} bytes of sound");
    fs::write(&path, &bytes[..ends[before] + gap / 2]).unwrap();
    let (frames, missing) = read(&path, &OPTIONS);
    assert_eq!(frames, before as u64 + 1);
    assert!(missing.is_some_and(|missing| missing.contains("of 4.000 s")));
}

#[test]
fn fragments_that_are_promised_and_not_there_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path(), "a.mp4", &format!("{PICTURE} {H264} {FRAGMENTS}"));
    let mut bytes = fs::read(&path).unwrap();
    let movie = boxes(&bytes, 0..bytes.len())[1].1.clone();
    let scale = movie.start + 16 + 12;
    let scale = u32::from_be_bytes(bytes[scale..scale + 4].try_into().unwrap());
    // Version and flags, then the duration of all fragments (8.8.2).
    let promise = boxed(b"mehd", &[[0; 4], (4 * scale).to_be_bytes()].concat());
    add(&mut bytes, &[(b"moov", 0), (b"mvex", 0)], &promise);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(read(&path, &OPTIONS), (100, None));
    let places = boxes(&bytes, 0..bytes.len());
    let third = places
        .iter()
        .filter(|(name, _)| name == b"moof")
        .nth(2)
        .unwrap()
        .1
        .start;
    fs::write(&path, &bytes[..third]).unwrap();
    let (frames, missing) = read(&path, &OPTIONS);
    assert_eq!(frames, 50);
    assert!(
        missing
            .unwrap()
            .starts_with("ends at 2.080 s of 4.000 s, which its header promises")
    );
}

#[test]
fn a_fragment_whose_sound_is_cut_off_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(
        folder.path(),
        "a.mp4",
        &format!("{PICTURE} {SOUND} {H264} -c:a aac {FRAGMENTS}"),
    );
    assert_eq!(read(&path, &OPTIONS), (100, None));
    let bytes = fs::read(&path).unwrap();
    let places = boxes(&bytes, 0..bytes.len());
    let data = places.iter().filter(|(name, _)| name == b"mdat").nth(1).unwrap();
    // The sound of a fragment lies behind its pictures.
    fs::write(&path, &bytes[..data.1.end - 8]).unwrap();
    let (frames, missing) = read(&path, &OPTIONS);
    assert_eq!(frames, counted(&path));
    assert!(frames < 100);
    let missing = missing.unwrap();
    assert!(
        missing.contains("within a box that the file cuts off"),
        "{missing}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn good_files_keep_their_promise() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut all: Vec<PathBuf> = fs::read_dir(cache().join("videos"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let seldom = "-vf select='not(between(n,40,70))+eq(n,99)' -vsync vfr";
    let cases = [
        (
            "long-sound.mkv",
            format!("{PICTURE} {LONG_SOUND} {H264} -c:a aac"),
        ),
        (
            "long-sound.webm",
            format!("{PICTURE} {LONG_SOUND} -c:v libvpx -deadline realtime -c:a libopus"),
        ),
        (
            "long-sound.mp4",
            format!("{PICTURE} {LONG_SOUND} {H264} -c:a aac"),
        ),
        (
            "long-sound-fragments.mp4",
            format!("{PICTURE} {LONG_SOUND} {H264} -c:a aac {FRAGMENTS}"),
        ),
        (
            "long-sound.flv",
            format!("{PICTURE} {LONG_SOUND} -c:v flv1 -ar 44100 -c:a mp3"),
        ),
        (
            "long-sound.wmv",
            format!("{PICTURE} {LONG_SOUND} -c:v wmv2 -c:a wmav2"),
        ),
        (
            "long-sound.avi",
            format!("{PICTURE} {LONG_SOUND} -c:v mpeg4 -c:a mp3"),
        ),
        ("long-sound.ts", format!("{PICTURE} {LONG_SOUND} {H264} -c:a mp2")),
        (
            "long-sound.ogv",
            format!("{PICTURE} {LONG_SOUND} -c:v libtheora -c:a libvorbis"),
        ),
        (
            "late.mkv",
            format!("-itsoffset 3 {PICTURE} {SOUND} -map 0 -map 1 {H264} -c:a aac"),
        ),
        (
            "live.webm",
            format!("{PICTURE} -c:v libvpx -deadline realtime -f webm -live 1"),
        ),
        ("raw.h264", format!("{PICTURE} {H264}")),
        ("program.mpg", format!("{PICTURE} -c:v mpeg2video -bf 2")),
        ("gaps.avi", format!("{PICTURE} {seldom} -c:v mpeg4")),
        ("gaps.mp4", format!("{PICTURE} {seldom} {H264}")),
        ("gaps.mkv", format!("{PICTURE} {seldom} {H264}")),
        (
            "gaps.webm",
            format!("{PICTURE} {seldom} -c:v libvpx -deadline realtime"),
        ),
        ("hybrid.mp4", format!("{PICTURE} {H264} -movflags frag_keyframe")),
        (
            "fields.mov",
            format!("{PICTURE} -c:v mpeg2video -flags +ildct+ilme -q:v 5"),
        ),
        ("vc1.mkv", format!("{PICTURE} -c:v wmv2")),
        ("huffyuv.nut", format!("{PICTURE} -c:v huffyuv -pix_fmt yuv422p")),
    ];
    for (name, arguments) in cases {
        all.push(made(folder, name, &arguments));
    }
    let source = made(
        folder,
        "source.mp4",
        &format!("{PICTURE} {SOUND} {H264} -c:a aac"),
    );
    let source = source.display();
    all.push(made(
        folder,
        "edits.mp4",
        &format!("-ss 1.36 -i {source} -c copy"),
    ));
    all.push(made(
        folder,
        "edits-at-the-end.mov",
        &format!("-i {source} -t 1.4 -c copy"),
    ));
    all.push(made(
        folder,
        "edits-delay.mov",
        &format!("-itsoffset 0.5 -i {source} -c copy"),
    ));
    all.push(made(
        folder,
        "edits.mkv",
        &format!("-ss 1.36 -i {source} -c copy"),
    ));
    // An index beside a header that counts twice, or none, of the frames.
    let avi = fs::read(made(folder, "a.avi", &format!("{PICTURE} -c:v mpeg4"))).unwrap();
    for (name, count) in [("twice.avi", 200u32), ("none.avi", 0)] {
        let mut bytes = avi.clone();
        // Total frames of `avih`, length of `strh` (AVI RIFF file reference).
        for (tag, at) in [(b"avih", 8 + 16), (b"strh", 8 + 32)] {
            let tag = bytes.windows(4).position(|window| window == tag).unwrap();
            bytes[tag + at - 4..tag + at].copy_from_slice(&count.to_le_bytes());
        }
        all.push(folder.join(name));
        fs::write(folder.join(name), bytes).unwrap();
    }
    // A header that could not be gone back to, as of a pipe.
    let piped = output(
        Path::new("ffmpeg"),
        &format!("-v error -nostdin {PICTURE} -c:v libvpx -deadline realtime -f ivf -")
            .split(' ')
            .collect::<Vec<_>>(),
    );
    all.push(folder.join("piped.ivf"));
    fs::write(folder.join("piped.ivf"), piped).unwrap();
    for path in all {
        let (frames, missing) = read(&path, &OPTIONS);
        assert_eq!((frames, missing), (counted(&path), None), "{}", path.display());
    }
}

#[test]
fn a_recorder_that_was_killed_promised_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed.mkv");
    let endless = "-v error -nostdin -re -f lavfi -i testsrc2=size=160x120:rate=25 -c:v libx264 -preset ultrafast -tune zerolatency \
                   -g 10 -flush_packets 1 -cluster_time_limit 200";
    let mut recorder = Command::new("ffmpeg")
        .args(endless.split_whitespace())
        .arg(&path)
        .spawn()
        .unwrap();
    let grown = || fs::metadata(&path).is_ok_and(|file| file.len() > 40_000);
    while !grown() {
        std::thread::sleep(Duration::from_millis(20));
    }
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let (frames, missing) = read(&path, &OPTIONS);
    assert_eq!((frames, missing), (counted(&path), None));
}

#[test]
fn what_a_limit_leaves_out_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mkv", "a.mp4"] {
        let path = made(folder.path(), name, &format!("{PICTURE} {H264}"));
        let few = DecodeOptions {
            max_frames: 30,
            ..OPTIONS
        };
        assert_eq!(read(&path, &few), (30, None), "{name}");
    }
}
