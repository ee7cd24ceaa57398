//! A lost packet: which of the pictures after it are whole is what the undamaged file says.

use super::{OPTIONS, read};
use crate::decode::VideoReader;
use affectmill_base::SourceKind;
use affectmill_testing::media::{ffmpeg, output};
use std::fs;
use std::path::Path;

const SOURCE: &str = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=4 -c:v libx264 -preset ultrafast -bf 0 -sc_threshold 0";
const REFRESHED: &str = "-g 30 -intra-refresh 1";
const ENDLESS: &str = "-g 100000 -keyint_min 100000";

/// Overwrites the middle of one packet, as a network or a disk does.
fn damage(path: &Path, packet: usize) {
    let arguments = "-v quiet -select_streams v:0 -show_entries packet=pos,size -of csv=p=0";
    let mut arguments: Vec<&str> = arguments.split(' ').collect();
    arguments.push(path.to_str().unwrap());
    let text = String::from_utf8(output(Path::new("ffprobe"), &arguments)).unwrap();
    let line = text.lines().filter(|line| !line.is_empty()).nth(packet).unwrap();
    let numbers: Vec<usize> = line.split(',').filter_map(|number| number.parse().ok()).collect();
    let (size, place) = (numbers[0], numbers[1]);
    let mut bytes = fs::read(path).unwrap();
    let middle = place + size / 2;
    bytes[middle..middle + 30.min(size / 4)].fill(0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn pictures_are_whole_again_where_a_stream_was_refreshed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, more) in [
        ("a.mp4", ""),
        ("a.mkv", ""),
        ("b.mp4", "-slices 4"),
        ("a.ts", "-f mpegts"),
    ] {
        let path = folder.path().join(name);
        ffmpeg(&format!("{SOURCE} {REFRESHED} {more}"), &path);
        let (whole, _) = read(&path, SourceKind::File, &OPTIONS);
        // A transport stream splits packets; the reported position is that of the first piece.
        damage(&path, 21);
        let (torn, said) = read(&path, SourceKind::File, &OPTIONS);
        assert_eq!(torn.len(), 100, "{name}");
        let said = said.unwrap_or_else(|| panic!("{name}: nothing was damaged"));
        let lost: Vec<usize> = (0..100).filter(|at| torn[*at].3.is_none()).collect();
        println!(
            "{name}: {} pictures lost, {:?} to {:?}; {said}",
            lost.len(),
            lost.first(),
            lost.last()
        );
        // The next refresh begins at frame 30 and goes over 20 columns of blocks.
        assert!((40..60).contains(lost.last().unwrap()), "{name}");
        for (torn, whole) in torn.iter().zip(&whole).filter(|(torn, _)| torn.3.is_some()) {
            assert_eq!(torn.3, whole.3, "{name}: frame {}", torn.0);
        }
    }
}

#[test]
fn nothing_is_whole_again_where_nothing_refreshes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endless.mp4");
    ffmpeg(&format!("{SOURCE} {ENDLESS}"), &path);
    damage(&path, 20);
    let mut reader = VideoReader::open(&path, SourceKind::File, &OPTIONS).unwrap();
    let mut whole = 0;
    while let Some(frame) = reader.next().unwrap() {
        whole += u64::from(frame.picture.is_some());
    }
    assert_eq!(whole, 20);
    assert!(reader.awaiting_keyframe());
}

/// Pictures that are shown before one of their reference pictures.
#[test]
fn no_picture_leans_on_a_damaged_one_that_comes_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=4";
    for (name, codec) in [
        (
            "a.mp4",
            "-c:v libx264 -preset ultrafast -bf 3 -b-pyramid normal -g 25 -sc_threshold 0",
        ),
        ("a.mpg", "-c:v mpeg2video -bf 2 -g 15 -q:v 3 -f mov"),
        ("a.avi", "-c:v mpeg4 -bf 2 -g 15 -q:v 3"),
    ] {
        let path = folder.path().join(name);
        ffmpeg(&format!("{source} {codec}"), &path);
        let (whole, _) = read(&path, SourceKind::File, &OPTIONS);
        let bytes = fs::read(&path).unwrap();
        let (mut noticed, mut wrong) = (0, Vec::new());
        for packet in 30..46 {
            damage(&path, packet);
            let (torn, said) = read(&path, SourceKind::File, &OPTIONS);
            fs::write(&path, &bytes).unwrap();
            // Damage that the decoder does not report cannot be detected.
            if said.is_none() {
                continue;
            }
            noticed += 1;
            let shown = torn.iter().filter(|torn| torn.3.is_some());
            let shown = shown.filter(|torn| torn.3 != whole[torn.0 as usize].3);
            wrong.extend(shown.map(|torn| (packet, torn.0)));
        }
        println!("{name}: {noticed} of 16 noticed; {wrong:?}");
        assert!(wrong.is_empty() && noticed > 8, "{name}: {noticed}, {wrong:?}");
    }
}
