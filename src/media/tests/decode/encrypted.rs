//! What cannot be seen without a key, or without a decoder of its own, is said to be so.

use super::OPTIONS;
use super::boxes::{add, boxed, boxes};
use crate::decode::{DecodeError, VideoReader};
use affectmill_base::{ErrorClass, SourceKind};
use affectmill_testing::media::ffmpeg;
use std::fs;
use std::path::{Path, PathBuf};

const PICTURE: &str = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2";
const H264: &str = "-c:v libx264 -preset ultrafast -g 25 -threads 1";
const KEY: &str = "-encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb \
                   -encryption_kid a7e61c373e219033c21091fa607bf3b8";

fn made(folder: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(arguments, &path);
    path
}

/// What is wrong with a file of which nothing can be seen.
fn refusal(path: &Path) -> DecodeError {
    match VideoReader::open(path, SourceKind::File, &OPTIONS) {
        Ok(mut reader) => reader.next().err().expect("it gives no frame"),
        Err(error) => error,
    }
}

#[test]
fn encrypted_files_are_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let cenc = made(folder, "cenc.mp4", &format!("{PICTURE} {H264} {KEY}"));
    let mut bytes = fs::read(&cenc).unwrap();
    let scheme = bytes
        .windows(8)
        .position(|window| window == b"schm\0\0\0\0")
        .unwrap()
        + 8;
    assert_eq!(&bytes[scheme..scheme + 4], b"cenc");
    bytes[scheme..scheme + 4].copy_from_slice(b"cbcs");
    let cbcs = folder.join("cbcs.mp4");
    fs::write(&cbcs, bytes).unwrap();
    let webm = encrypted_webm(folder);
    for (path, scheme) in [(cenc, "cenc"), (cbcs, "cbcs"), (webm, "webm")] {
        let error = refusal(&path);
        assert_eq!(error.class(), ErrorClass::Unsupported, "{error}");
        let said = format!("{}: is encrypted ({scheme}); decrypt it", path.display());
        assert!(error.to_string().starts_with(&said), "{error}");
    }
}

/// A WebM whose track says that it is encrypted (Matroska, ContentEncodings; WebM's own encryption guide).
fn encrypted_webm(folder: &Path) -> PathBuf {
    let element = |id: &[u8], content: &[u8]| [id, &[0x80 | content.len() as u8], content].concat();
    let encryption = [element(&[0x47, 0xe1], &[5]), element(&[0x47, 0xe2], &[7; 16])].concat();
    let encoding = [element(&[0x50, 0x33], &[1]), element(&[0x50, 0x35], &encryption)].concat();
    let encodings = element(&[0x6d, 0x80], &element(&[0x62, 0x40], &encoding));
    let path = made(
        folder,
        "a.webm",
        &format!("{PICTURE} -c:v libvpx -deadline realtime -f webm -live 1"),
    );
    let bytes = fs::read(&path).unwrap();
    // Of a live recording nothing points behind its tracks, so that they may grow. Its table of contents (`84`: four bytes) names
    // them too.
    let mut tracks = bytes.windows(5).enumerate();
    let tracks = tracks.find(|(_, id)| id[0] != 0x84 && id[1..] == [0x16, 0x54, 0xae, 0x6b]);
    let tracks = tracks.unwrap().0 + 1;
    let content = |at: usize| {
        let length = bytes[at].leading_zeros() as usize + 1;
        let size = bytes[at..at + length]
            .iter()
            .fold(0, |size, byte| size << 8 | usize::from(*byte));
        at + length..at + length + (size & ((1 << (7 * length)) - 1))
    };
    let all = content(tracks + 4);
    let first = if bytes[all.start] == 0xbf {
        all.start + 6
    } else {
        all.start
    };
    assert_eq!(bytes[first], 0xae, "a track, behind a checksum");
    let one = content(first + 1);
    let long = |id: &[u8], content: &[u8]| {
        let size = (1u64 << 56 | content.len() as u64).to_be_bytes();
        [id, &size, content].concat()
    };
    let track = long(&[0xae], &[&bytes[one.clone()], &encodings].concat());
    let all_tracks = long(
        &[0x16, 0x54, 0xae, 0x6b],
        &[&track, &bytes[one.end..all.end]].concat(),
    );
    let bytes = [&bytes[..tracks], &all_tracks, &bytes[all.end..]].concat();
    let path = folder.join("encrypted.webm");
    fs::write(&path, bytes).unwrap();
    path
}

/// A clear beginning, as broadcasters leave it for quick starts.
#[test]
fn a_file_of_which_a_part_is_encrypted_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    // With an index in front FFmpeg reads one fragment after the other; else it takes the last one's protection for that of all.
    let fragments = "-movflags dash+global_sidx+frag_keyframe+empty_moov+default_base_moof";
    let made = |name: &str, more: &str| {
        let path = made(
            folder.path(),
            name,
            &format!("{PICTURE} {H264} {more} {fragments}"),
        );
        let bytes = fs::read(path).unwrap();
        let places = boxes(&bytes, 0..bytes.len());
        places
            .iter()
            .map(|(name, place)| (*name, bytes[place.clone()].to_vec()))
            .collect::<Vec<_>>()
    };
    let (clear, locked) = (made("clear.mp4", ""), made("locked.mp4", KEY));
    // Header, one fragment (`moof`, `mdat`) without protection, then the second one with it.
    let fragment = |file: &[([u8; 4], Vec<u8>)], number: usize| {
        let at = file
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| name == b"moof")
            .nth(number)
            .unwrap()
            .0;
        (file[at].1.clone(), file[at + 1].1.clone())
    };
    let mut header: Vec<u8> = locked[..2].iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let mut index = locked[2].1.clone();
    assert_eq!(&locked[2].0, b"sidx");
    let (first, first_data) = fragment(&clear, 0);
    let (mut second, second_data) = fragment(&locked, 1);
    // ffmpeg says how samples are protected at the place for files without fragments alone. There it goes, and to the fragment
    // comes a `senc` (ISO/IEC 23001-7, 7.2): flags, samples, eight bytes for each.
    for name in [b"senc", b"saio", b"saiz"] {
        while let Some(at) = header.windows(4).position(|window| window == name) {
            header[at..at + 4].copy_from_slice(b"free");
        }
    }
    // By default samples are clear (`tenc`, 8.2: flags, two bytes, then this one).
    let default = header.windows(4).position(|window| window == b"tenc").unwrap() + 4 + 6;
    assert_eq!(std::mem::replace(&mut header[default], 0), 1);
    let senc = boxed(
        b"senc",
        &[&[0; 4][..], &25u32.to_be_bytes(), &[7; 25 * 8]].concat(),
    );
    add(&mut second, &[(b"moof", 0), (b"traf", 0)], &senc);
    // The pictures lie so much further behind the `moof` now (ISO/IEC 14496-12, 8.8.8: flags, samples, offset).
    let run = second.windows(4).position(|window| window == b"trun").unwrap() + 4 + 8;
    let offset = u32::from_be_bytes(second[run..run + 4].try_into().unwrap()) + senc.len() as u32;
    second[run..run + 4].copy_from_slice(&offset.to_be_bytes());
    // So much longer is the second of the two that the index lists (8.16.3: twelve bytes each, the size first).
    let listed = index.len() - 12;
    let size = u32::from_be_bytes(index[listed..listed + 4].try_into().unwrap()) + senc.len() as u32;
    index[listed..listed + 4].copy_from_slice(&size.to_be_bytes());
    let path = folder.path().join("partly.mp4");
    fs::write(
        &path,
        [header, index, first, first_data, second, second_data].concat(),
    )
    .unwrap();
    let mut reader = VideoReader::open(&path, SourceKind::File, &OPTIONS).unwrap();
    let mut frames = 0;
    while let Some(frame) = reader.next().unwrap() {
        assert!(frame.picture.is_some());
        frames += 1;
    }
    assert_eq!(frames, 25);
    let damage = reader.damage().expect("it is not all");
    assert_eq!(damage.class, ErrorClass::Unsupported);
    let said = "from here on it is encrypted (cenc); decrypt it with its key";
    assert_eq!(damage.error, format!("left out at frame 25 (0.960 s): {said}"));
}

#[test]
fn dolby_vision_without_a_base_layer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hevc = "-c:v libx265 -preset ultrafast -x265-params log-level=none -tag:v hvc1 -frames:v 3";
    let path = made(folder.path(), "hevc.mp4", &format!("{PICTURE} {hevc}"));
    let plain = fs::read(&path).unwrap();
    // Profile and compatibility with base layers: 5 has none, 8.4 shows as HLG (Dolby Vision streams in ISO base media files).
    for (profile, compatibility, refused) in [(5u8, 0u8, true), (8, 4, false), (8, 1, false)] {
        let mut record = [0; 24];
        record[..5].copy_from_slice(&[1, 0, profile << 1, 4 << 3 | 0b101, compatibility << 4]);
        let mut bytes = plain.clone();
        let entry = [
            (b"moov", 0),
            (b"trak", 0),
            (b"mdia", 0),
            (b"minf", 0),
            (b"stbl", 0),
            (b"stsd", 8),
            (b"hvc1", 78),
        ];
        add(
            &mut bytes,
            &entry,
            &boxed(if profile > 7 { b"dvvC" } else { b"dvcC" }, &record),
        );
        fs::write(&path, bytes).unwrap();
        if refused {
            let error = refusal(&path);
            assert_eq!(error.class(), ErrorClass::Unsupported, "{error}");
            assert!(
                error.to_string().contains("Dolby Vision without a base layer"),
                "{error}"
            );
        } else {
            let mut reader = VideoReader::open(&path, SourceKind::File, &OPTIONS).unwrap();
            assert!(
                reader.next().unwrap().unwrap().picture.is_some(),
                "profile {profile}"
            );
        }
    }
}
