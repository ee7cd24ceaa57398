//! Recordings of broadcasts: pictures that move to another stream, and such that begin late.

use super::{OPTIONS, Seen, read};
use crate::decode::VideoReader;
use affectmill_base::SourceKind;
use affectmill_testing::media::{ffmpeg, output};
use std::fs;
use std::path::{Path, PathBuf};

const H264: &str = "-c:v libx264 -preset ultrafast -bf 3 -g 20";

fn made(folder: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(arguments, &path);
    path
}

/// Two seconds of one pattern in a transport stream.
fn part(folder: &Path, name: &str, source: &str, more: &str) -> PathBuf {
    let source = format!("-f lavfi -i {source}=size=160x120:rate=25:duration=2");
    made(folder, name, &format!("{source} {more} -f mpegts"))
}

fn join(folder: &Path, name: &str, parts: &[&Path]) -> PathBuf {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| fs::read(part).unwrap()).collect();
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn pictures(path: &Path) -> Vec<Option<u64>> {
    let (frames, damage) = read(path, SourceKind::File, &OPTIONS);
    assert_eq!(damage, None, "{}", path.display());
    frames
        .into_iter()
        .map(|(_, _, _, picture): Seen| picture)
        .collect()
}

/// Frames that ffprobe counts in each of the streams.
fn counted(path: &Path) -> Vec<usize> {
    let arguments =
        "-v quiet -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0";
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.push(path.to_str().unwrap());
    let text = String::from_utf8(output(Path::new("ffprobe"), &arguments)).unwrap();
    // Programs come first, and an empty line; then their streams once more.
    let streams = text.trim_end().rsplit("\n\n").next().unwrap();
    let numbers = streams.split(['\n', ',']);
    numbers.filter_map(|number| number.trim().parse().ok()).collect()
}

fn shortfall(path: &Path) -> Option<String> {
    let mut reader = VideoReader::open(path, SourceKind::File, &OPTIONS).unwrap();
    while reader.next().unwrap().is_some() {}
    reader.shortfall().map(|missing| missing.error.clone())
}

#[test]
fn a_picture_that_moves_to_another_stream_of_its_program_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let one = part(folder, "1.ts", "testsrc2", &format!("{H264} -streamid 0:256"));
    let moved = |version: u32, pid: u32| {
        format!(
            "-streamid 0:{pid} -tables_version {version} -output_ts_offset {}",
            2 * version
        )
    };
    let two = part(folder, "2.ts", "testsrc", &format!("{H264} {}", moved(1, 512)));
    let back = part(folder, "3.ts", "testsrc2", &format!("{H264} {}", moved(2, 256)));
    let other = part(
        folder,
        "4.ts",
        "testsrc2",
        &format!("-c:v mpeg2video -bf 2 -q:v 3 {}", moved(1, 512)),
    );
    for (name, parts) in [
        ("moved.ts", vec![&one, &two]),
        ("and-back.ts", vec![&one, &two, &back]),
        ("another-codec.ts", vec![&one, &other]),
    ] {
        let parts: Vec<&Path> = parts.into_iter().map(PathBuf::as_path).collect();
        let joined = join(folder, name, &parts);
        let wanted: Vec<_> = parts.iter().flat_map(|part| pictures(part)).collect();
        let found = pictures(&joined);
        assert_eq!(
            found.len(),
            counted(&joined).into_iter().sum::<usize>(),
            "{name}: ffprobe's frames"
        );
        assert!(found == wanted, "{name}: other pictures than those of its parts");
        assert_eq!(shortfall(&joined), None, "{name}");
    }
}

#[test]
fn a_video_of_another_program_that_follows_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let one = part(folder, "1.ts", "testsrc2", &format!("{H264} -streamid 0:256"));
    let service = "-mpegts_service_id 7 -mpegts_pmt_start_pid 4112 -streamid 0:512 -output_ts_offset 2 -tables_version 1";
    let two = part(folder, "2.ts", "testsrc", &format!("{H264} {service}"));
    let joined = join(folder, "joined.ts", &[&one, &two]);
    assert_eq!(pictures(&joined).len(), counted(&joined)[0]);
    let said = shortfall(&joined).expect("it says so");
    let words: Vec<&str> = said.split(' ').collect();
    assert!(said.starts_with("another video stream begins at "), "{said}");
    assert!((words[5].parse::<f64>().unwrap() - 2.0).abs() < 0.1, "{said}");
}

#[test]
fn streams_side_by_side_are_no_continuation() {
    let folder = tempfile::tempdir().unwrap();
    let both = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2 -f lavfi -i smptebars=size=96x64:rate=25:duration=2 -map 0 -map 1";
    let programs = "-program title=a:st=0 -program title=b:st=1";
    for (name, more) in [("one-program.ts", ""), ("two-programs.ts", programs)] {
        let path = made(folder.path(), name, &format!("{both} {H264} {more} -f mpegts"));
        assert_eq!(pictures(&path).len(), 50, "{name}");
        assert_eq!(shortfall(&path), None, "{name}");
    }
}

#[test]
fn a_picture_that_begins_after_minutes_of_sound_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let late = "-itsoffset 200 -f lavfi -i testsrc2=size=160x120:rate=25:duration=1 -f lavfi -i sine=duration=202 -map 0 -map 1";
    let cases = [
        ("late.flv", "-c:v flv1 -c:a pcm_s16le -ar 44100 -ac 1"),
        ("late.ts", "-c:v mpeg2video -c:a mp2 -b:a 384k"),
        ("late.mkv", "-c:v mpeg4 -c:a pcm_s16le"),
    ];
    for (name, codecs) in cases {
        let path = made(
            folder.path(),
            name,
            &format!("{late} {codecs} -fps_mode passthrough"),
        );
        assert!(
            fs::metadata(&path).unwrap().len() > 9_000_000,
            "{name}: longer than FFmpeg looks by itself"
        );
        assert_eq!(pictures(&path).len(), 25, "{name}");
    }
    // One without a picture at all is still none.
    let path = made(
        folder.path(),
        "sound.flv",
        "-f lavfi -i sine=duration=2 -c:a mp3 -ar 44100",
    );
    let error = VideoReader::open(&path, SourceKind::File, &OPTIONS)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no video stream"), "{error}");
}
