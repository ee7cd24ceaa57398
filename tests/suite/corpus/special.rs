//! Files of the corpus that take more than one call of ffmpeg: joined, patched, damaged, hostile, or no files at all.

use super::cases::{B, H, Look, S};
use super::{Case, Fate, in_parallel, words};
use crate::common::{Dice, ffmpeg, noisy};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// What breaks while some of them are read; see `faults.c`.
pub const FAULTS: &str = "hang:60000:61000:/hangs.mp4;crash:60000:61000:/crashes.mp4;nomem:60000:61000:/starves.mp4;\
                          eio:60000:61000:/breaks-off.mp4;eio:0:100000000:/unreadable.mp4";

/// Twenty frames with a key frame in five: what is damaged in its midst has an end.
const TWENTY: &str = "-f lavfi -i testsrc2=size=160x120:rate=25 -frames:v 20";
const KEYS: &str = "-g 5";

fn run(folder: &Path, name: &str, arguments: &str) {
    let file = folder.join(name);
    let mut arguments = words(arguments);
    arguments.push(file.to_str().unwrap());
    ffmpeg(&arguments);
}

fn looked(name: &str, frames: u64) -> Case {
    Case {
        frames: Some(frames),
        look: Look::Shown,
        ..Case::new(name, Fate::Ok)
    }
}

/// Makes them all.
pub fn make(folder: &Path) -> Vec<Case> {
    let groups: [fn(&Path) -> Vec<Case>; 7] = [edited, turned, joined, streams, images, damaged, hostile];
    let cases = std::sync::Mutex::new(Vec::new());
    in_parallel(&[0, 1, 2, 3, 4, 5, 6], |at| {
        let made = groups[*at](folder);
        cases.lock().unwrap().push((*at, made));
    });
    let mut cases = cases.into_inner().unwrap();
    cases.sort_by_key(|(at, _)| *at);
    cases.into_iter().flat_map(|(_, made)| made).collect()
}

/// Edit lists, and time stamps that are there twice.
fn edited(folder: &Path) -> Vec<Case> {
    let keep = tempfile::tempdir().unwrap();
    let source = keep.path().join("source.mp4");
    run(keep.path(), "source.mp4", &format!("{TWENTY} {B}"));
    let source = source.display();
    // Cut between key frames: the list of edits leaves out what is decoded before.
    run(folder, "edit-list.mp4", &format!("-ss 0.36 -i {source} -c copy"));
    run(
        folder,
        "edit-list-ends.mov",
        &format!("-i {source} -t 0.4 -c copy"),
    );
    run(
        folder,
        "edit-list-delays.mov",
        &format!("-itsoffset 0.5 -i {source} -c copy"),
    );
    run(
        folder,
        "duplicate-pts.nut",
        &format!("{S} -c:v ffv1 -bsf:v setts=pts=2*floor(N/2)*DURATION:dts=2*floor(N/2)*DURATION"),
    );
    let times = |name: &str| Case::new(name, Fate::Ok);
    vec![
        times("edit-list.mp4"),
        times("edit-list-ends.mov"),
        Case {
            frames: Some(20),
            ..times("edit-list-delays.mov")
        },
        Case {
            frames: Some(6),
            ..times("duplicate-pts.nut")
        },
    ]
}

/// The display matrix of an MP4 track: nine numbers of which four turn and mirror (ISO/IEC 14496-12, 8.3.2).
fn turned(folder: &Path) -> Vec<Case> {
    let keep = tempfile::tempdir().unwrap();
    run(keep.path(), "flat.mp4", &format!("{S} {H}"));
    let flat = fs::read(keep.path().join("flat.mp4")).unwrap();
    let track = flat.windows(4).position(|tag| tag == b"tkhd").unwrap();
    let matrix = track + 4 + 40;
    let turns = [
        ("rotated-90.mp4", [0, 1, -1, 0]),
        ("rotated-180.mp4", [-1, 0, 0, -1]),
        ("rotated-270.mp4", [0, -1, 1, 0]),
        ("mirrored.mp4", [-1, 0, 0, 1]),
        ("flipped.mp4", [1, 0, 0, -1]),
        ("transposed.mp4", [0, 1, 1, 0]),
        ("anti-transposed.mp4", [0, -1, -1, 0]),
    ];
    let made = turns.map(|(name, [a, b, c, d])| {
        let mut bytes = flat.clone();
        // Rows of three: a, b, u; c, d, v; x, y, w.
        for (at, number) in [(0, a), (1, b), (3, c), (4, d)] {
            let fixed: i32 = number << 16;
            bytes[matrix + 4 * at..][..4].copy_from_slice(&fixed.to_be_bytes());
        }
        fs::write(folder.join(name), bytes).unwrap();
        looked(name, 6)
    });
    made.into()
}

/// Streams whose pictures change in their midst.
fn joined(folder: &Path) -> Vec<Case> {
    let keep = tempfile::tempdir().unwrap();
    let small = "-f lavfi -i testsrc2=size=96x64:rate=25 -frames:v 6";
    let join = |name: &str, codec: [&str; 2], sources: [&str; 2], extension: &str| {
        let mut bytes = Vec::new();
        for (at, (codec, source)) in codec.iter().zip(sources).enumerate() {
            let part = format!("{at}-{name}.{extension}");
            run(keep.path(), &part, &format!("{source} {codec}"));
            bytes.extend(fs::read(keep.path().join(part)).unwrap());
        }
        fs::write(folder.join(name), bytes).unwrap();
        Case {
            look: Look::First,
            frames: Some(12),
            ..Case::new(name, Fate::Ok)
        }
    };
    let mpeg2 = "-c:v mpeg2video -q:v 3";
    let deep = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le";
    let full = "-c:v libx264 -preset ultrafast -pix_fmt yuv444p";
    vec![
        join("size-changes.ts", [H, H], [S, small], "ts"),
        Case {
            // A program stream's end swallows the picture before the seam.
            frames: None,
            ..join("size-changes.mpg", [mpeg2, mpeg2], [S, small], "mpg")
        },
        join("format-changes.ts", [H, full], [S, S], "ts"),
        join("depth-changes.ts", [H, deep], [S, S], "ts"),
        join("size-changes.h264", [H, H], [S, small], "h264"),
    ]
}

/// More streams than one.
fn streams(folder: &Path) -> Vec<Case> {
    let keep = tempfile::tempdir().unwrap();
    let path = |name: &str| keep.path().join(name).display().to_string();
    run(keep.path(), "cover.jpg", &format!("{S} -frames:v 1 -update 1"));
    run(keep.path(), "clip.mp4", &format!("{S} {B}"));
    run(
        keep.path(),
        "other.mp4",
        &format!("-f lavfi -i smptebars=size=96x64:rate=25 -frames:v 6 {H}"),
    );
    run(keep.path(), "tone.m4a", "-f lavfi -i sine=duration=0.3 -c:a aac");
    fs::write(
        keep.path().join("words.srt"),
        "1\n00:00:00,000 --> 00:00:00,200\nhello\n",
    )
    .unwrap();
    let (clip, other, cover) = (path("clip.mp4"), path("other.mp4"), path("cover.jpg"));
    let (tone, words) = (path("tone.m4a"), path("words.srt"));
    let two = format!("-i {clip} -i {other} -map 0 -map 1 -c copy");
    run(
        folder,
        "two-streams.mkv",
        &format!("{two} -disposition:v:0 default -disposition:v:1 0"),
    );
    run(
        folder,
        "second-is-default.mkv",
        &format!("{two} -disposition:v:0 0 -disposition:v:1 default"),
    );
    run(
        folder,
        "cover-last.mp4",
        &format!("-i {clip} -i {cover} -map 0 -map 1 -c copy -disposition:v:1 attached_pic"),
    );
    run(
        folder,
        "cover-first.mp4",
        &format!("-i {clip} -i {cover} -map 1 -map 0 -c copy -disposition:v:0 attached_pic"),
    );
    run(
        folder,
        "cover-and-sound.mp4",
        &format!("-i {tone} -i {cover} -map 0 -map 1 -c copy -disposition:v:0 attached_pic"),
    );
    run(folder, "sound.mp4", &format!("-i {tone} -c copy"));
    run(folder, "sound.mkv", &format!("-i {tone} -c copy"));
    run(
        folder,
        "subtitles.mkv",
        &format!("-i {clip} -i {words} -c:v copy -c:s srt"),
    );
    run(folder, "only-subtitles.mkv", &format!("-i {words} -c:s srt"));
    run(
        folder,
        "sound-first.mp4",
        &format!("-i {tone} -i {clip} -map 0 -map 1 -c copy"),
    );
    let second = |name: &str| Case {
        stream: "v:1",
        ..looked(name, 6)
    };
    let none = |name: &str| Case::new(name, Fate::Failed("unsupported"));
    vec![
        looked("two-streams.mkv", 6),
        second("second-is-default.mkv"),
        looked("cover-last.mp4", 6),
        // The container keeps covers apart, behind the streams.
        looked("cover-first.mp4", 6),
        none("cover-and-sound.mp4"),
        none("sound.mp4"),
        none("sound.mkv"),
        looked("subtitles.mkv", 6),
        none("only-subtitles.mkv"),
        looked("sound-first.mp4", 6),
    ]
}

/// Folders of numbered images.
fn images(folder: &Path) -> Vec<Case> {
    let make = |name: &str, pattern: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        run(&folder.join(name), pattern, S);
        folder.join(name)
    };
    make("images-jpg", "%05d.jpg");
    make("images-png", "%03d.png");
    make("images-bmp", "%d.bmp");
    let gaps = make("images-with-gaps", "%05d.jpg");
    fs::remove_file(gaps.join("00003.jpg")).unwrap();
    let cut = make("images-damaged", "%05d.jpg");
    let whole = fs::read(cut.join("00002.jpg")).unwrap();
    fs::write(cut.join("00002.jpg"), &whole[..whole.len() / 2]).unwrap();
    let strange = make("images-of-0-and-1", "%05d.jpg");
    fs::copy(strange.join("00001.jpg"), strange.join("00000.jpg")).unwrap();
    const ALL: &[i64] = &[0, 1, 2, 3, 4, 5];
    vec![
        Case::new("images-jpg", Fate::Images(ALL, false)),
        Case::new("images-png", Fate::Images(ALL, false)),
        Case::new("images-bmp", Fate::Images(ALL, false)),
        Case::new("images-with-gaps", Fate::Images(&[0, 1, 3, 4, 5], false)),
        Case::new("images-damaged", Fate::Images(ALL, true)),
        Case::new("images-of-0-and-1", Fate::Failed("unsupported")),
    ]
}

/// Cut, flipped, zeroed, beheaded.
fn damaged(folder: &Path) -> Vec<Case> {
    let whole = |name: &'static str, arguments: &str| -> (Vec<u8>, Case) {
        run(folder, name, &format!("{TWENTY} {arguments}"));
        let bytes = fs::read(folder.join(name)).unwrap();
        (
            bytes,
            Case {
                frames: Some(20),
                ..Case::new(name, Fate::Ok)
            },
        )
    };
    let h264 = format!("{B} {KEYS}");
    let (mp4, mp4_case) = whole("whole.mp4", &format!("{h264} -movflags +faststart"));
    let (ts, ts_case) = whole("whole.ts", &h264);
    let (mkv, mkv_case) = whole("whole.mkv", "-c:v ffv1 -slicecrc 1");
    let (mpg, mpg_case) = whole("whole.mpg", &format!("-c:v mpeg2video -bf 2 -q:v 3 {KEYS}"));
    let (avi, avi_case) = whole("whole.avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p");
    let (webm, webm_case) = whole(
        "whole.webm",
        &format!("-c:v libvpx-vp9 -deadline realtime -cpu-used 8 {KEYS}"),
    );
    let mut cases = vec![mp4_case, ts_case, mkv_case, mpg_case, avi_case, webm_case];
    let mut write = |name: String, bytes: &[u8], fate: Fate, whole: Option<&'static str>| {
        fs::write(folder.join(&name), bytes).unwrap();
        cases.push(Case {
            whole,
            ..Case::new(name, fate)
        });
    };
    for tenth in 1..10 {
        let cut = |bytes: &[u8]| bytes[..bytes.len() * tenth / 10].to_vec();
        for (name, bytes, fate, whole) in [
            ("mp4", &mp4, Fate::Short, "whole.mp4"),
            ("mkv", &mkv, Fate::Short, "whole.mkv"),
            ("webm", &webm, Fate::Short, "whole.webm"),
            ("avi", &avi, Fate::Short, "whole.avi"),
            ("ts", &ts, Fate::Cut, "whole.ts"),
        ] {
            write(format!("cut-{tenth}.{name}"), &cut(bytes), fate, Some(whole));
        }
    }
    let mut dice = Dice::seeded(20_211);
    for (name, bytes) in [
        ("flips.ts", &ts),
        ("flips.mkv", &mkv),
        ("flips.mpg", &mpg),
        ("flips.avi", &avi),
        ("flips.webm", &webm),
        ("flips.mp4", &mp4),
    ] {
        let mut flipped = bytes.clone();
        let header = bytes.len() / 4;
        for _ in 0..6 {
            let at = header + dice.roll((bytes.len() - header) as u64) as usize;
            flipped[at] ^= 1 << dice.roll(8);
        }
        // A decoder may take a flipped bit for a true one, so pictures are compared only where there are checksums: of FFV1.
        let whole = (name == "flips.mkv").then_some("whole.mkv");
        write(name.into(), &flipped, Fate::Damaged, whole);
        let mut zeroed = bytes.clone();
        let at = bytes.len() / 2;
        zeroed[at..at + 400].fill(0);
        write(name.replace("flips", "zeroed"), &zeroed, Fate::Damaged, whole);
    }
    let packets = ts.len() / 188;
    write(
        "beheaded.ts".into(),
        &ts[packets * 3 / 10 * 188..],
        Fate::Damaged,
        // Its times count from another start.
        None,
    );
    write(
        "first-key-frame-lost.h264".into(),
        &without_first_key(folder),
        Fate::Damaged,
        None,
    );

    let late = Path::new("moov-last.mp4");
    run(folder, "moov-last.mp4", &format!("{S} {H}"));
    let bytes = fs::read(folder.join(late)).unwrap();
    write(
        "moov-lost.mp4".into(),
        &bytes[..bytes.len() - 400],
        Fate::Failed("corrupt"),
        None,
    );
    cases.push(looked("moov-last.mp4", 6));
    cases.push(ten_hours(folder));
    cases
}

fn without_first_key(folder: &Path) -> Vec<u8> {
    let keep = tempfile::tempdir_in(folder.parent().unwrap()).unwrap();
    run(keep.path(), "whole.h264", &format!("{TWENTY} {H} {KEYS}"));
    let bytes = fs::read(keep.path().join("whole.h264")).unwrap();
    // NAL units of type 5 are slices of IDR pictures (ITU-T H.264, table 7-1); the first picture is one.
    let units: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| bytes[*at..].starts_with(&[0, 0, 1]))
        .collect();
    let first = units.iter().position(|at| bytes[at + 3] & 31 == 5).unwrap();
    [&bytes[..units[first]], &bytes[units[first + 1]..]].concat()
}

/// A header that promises ten hours of a file that holds a quarter of a second.
fn ten_hours(folder: &Path) -> Case {
    let keep = tempfile::tempdir().unwrap();
    run(keep.path(), "short.mp4", &format!("{S} {H}"));
    let mut bytes = fs::read(keep.path().join("short.mp4")).unwrap();
    for tag in [b"mvhd", b"mdhd"] {
        // Version and flags, creation, modification, units a second, duration: 4 bytes each (ISO/IEC 14496-12).
        let at = bytes.windows(4).position(|window| window == tag).unwrap() + 4;
        let scale = u32::from_be_bytes(bytes[at + 12..at + 16].try_into().unwrap());
        bytes[at + 16..at + 20].copy_from_slice(&(36_000_u32.saturating_mul(scale)).to_be_bytes());
    }
    fs::write(folder.join("ten-hours.mp4"), bytes).unwrap();
    looked("ten-hours.mp4", 6)
}

/// What only looks like a video, breaks under the reader, or is no file.
fn hostile(folder: &Path) -> Vec<Case> {
    let corrupt = Fate::Failed("corrupt");
    let mut cases = Vec::new();
    let mut write = |name: &str, bytes: &[u8], fate: Fate| {
        fs::write(folder.join(name), bytes).unwrap();
        cases.push(Case::new(name, fate));
    };
    write("empty.mp4", b"", corrupt);
    write("one-byte.mkv", b"x", corrupt);
    write(
        "text.mp4",
        &b"This is no video, whatever its name says.\n".repeat(50),
        corrupt,
    );
    write("zeros.mkv", &[0; 5_000], corrupt);
    let no_video = Fate::Skipped("1 file of .ts without a video in it (script.ts)");
    write("script.ts", b"#!/bin/sh\nexit 1\n", no_video);
    let mut dice = Dice::seeded(7);
    let noise: Vec<u8> = (0..20_000).map(|_| dice.roll(256) as u8).collect();
    write("noise.avi", &noise, corrupt);
    write(
        "archive.mp4",
        &[b"PK\x03\x04".as_slice(), &noise].concat(),
        corrupt,
    );
    let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nh264.mkv\n#EXT-X-ENDLIST\n";
    write("playlist.mp4", playlist.as_bytes(), Fate::Failed("unsupported"));
    write(
        "concat.mp4",
        b"ffconcat version 1.0\nfile 'h264.mkv'\n",
        Fate::Failed("unsupported"),
    );

    let keep = tempfile::tempdir().unwrap();
    run(keep.path(), "a.mkv", &format!("{S} {B}"));
    run(keep.path(), "b.mp4", &format!("{S} {B}"));
    run(keep.path(), "c.png", &format!("{S} -frames:v 1 -update 1"));
    let mut copy = |from: &str, name: &str, frames| {
        fs::copy(keep.path().join(from), folder.join(name)).unwrap();
        cases.push(looked(name, frames));
    };
    copy("a.mkv", "matroska-named.mp4", 6);
    copy("b.mp4", "mp4-named.avi", 6);
    copy("c.png", "png-named.mp4", 1);
    copy("b.mp4", "100% %03d *?[a] #1 é.mp4", 6);
    copy("b.mp4", "-i blank .mp4", 6);

    for name in [
        "hangs.mp4",
        "crashes.mp4",
        "starves.mp4",
        "breaks-off.mp4",
        "unreadable.mp4",
    ] {
        noisy(&folder.join(name), 40, 1);
    }
    let fate = |name: &str, fate| Case::new(name, fate);
    cases.push(fate("hangs.mp4", Fate::Quarantined("timeout")));
    cases.push(fate("crashes.mp4", Fate::Quarantined("crash")));
    cases.push(fate("starves.mp4", Fate::Quarantined("crash")));
    cases.push(fate("breaks-off.mp4", Fate::Failed("io")));
    cases.push(fate("unreadable.mp4", Fate::Failed("io")));

    symlink(keep.path().join("gone.mp4"), folder.join("dangling.mp4")).unwrap();
    cases.push(fate(
        "dangling.mp4",
        Fate::Skipped("dangling.mp4: a symbolic link to what is not there"),
    ));
    symlink(folder, folder.join("loop.mp4")).unwrap();
    cases.push(fate(
        "loop.mp4",
        Fate::Skipped("1 link to a folder above it (loop.mp4)"),
    ));
    let pipe = folder.join("pipe.mp4");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    cases.push(fate(
        "pipe.mp4",
        Fate::Skipped("1 pipe, socket or device (pipe.mp4)"),
    ));
    fs::copy(
        keep.path().join("b.mp4"),
        folder.parent().unwrap().join("elsewhere.mp4"),
    )
    .unwrap();
    symlink(
        folder.parent().unwrap().join("elsewhere.mp4"),
        folder.join("linked.mp4"),
    )
    .unwrap();
    cases.push(looked("linked.mp4", 6));
    cases
}
