//! Folders of numbered images: numbers make the order and the indices, damage stays with its image.

use crate::decode::{DecodeOptions, DecodedFrame, VideoReader, probe};
use affectmill_base::FrameIndex;
use affectmill_base::SourceKind;
use affectmill_testing::media::ffmpeg;
use std::path::Path;

const OPTIONS: DecodeOptions = DecodeOptions {
    threads: 1,
    image_base: 1,
    image_fps: None,
    max_pixels: u64::MAX,
    max_frames: u64::MAX,
    nvdec: None,
};

fn read(folder: &Path, options: &DecodeOptions) -> (Vec<DecodedFrame>, Option<String>) {
    let mut reader = VideoReader::open(folder, SourceKind::Images, options).unwrap();
    let frames = std::iter::from_fn(|| reader.next().unwrap()).collect();
    (frames, reader.damage().map(|damage| damage.error.clone()))
}

fn times(frames: &[DecodedFrame]) -> Vec<(u64, Option<i64>)> {
    let times = frames
        .iter()
        .map(|frame| (frame.index.0, frame.timestamp.map(|time| time.0)));
    times.collect()
}

#[test]
fn image_folders_keep_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a%02d: b");
    std::fs::create_dir(&folder).unwrap();
    for (name, level) in [
        ("00010.png", "282828"),
        ("00003.jpg", "1e1e1e"),
        ("7.BMP", "141414"),
        ("12.webp", "323232"),
    ] {
        let field = format!("-f lavfi -i color=size=32x24:color=0x{level} -frames:v 1 -update 1");
        ffmpeg(&field, &folder.join(name));
    }
    std::fs::write(folder.join("notes.txt"), "x").unwrap();
    std::fs::write(folder.join("cover.jpg"), "x").unwrap();
    std::fs::create_dir(folder.join("00004.jpg")).unwrap();

    let (frames, damage) = read(&folder, &OPTIONS);
    assert_eq!(damage, None);
    assert_eq!(times(&frames), [(2, None), (6, None), (9, None), (11, None)]);
    assert!(frames.iter().all(|frame| frame.key));
    let levels = frames
        .iter()
        .map(|frame| frame.picture.as_ref().unwrap().plane(0).row(0)[0]);
    let levels: Vec<u8> = levels.collect();
    for (level, expected) in levels.iter().zip([0x1e, 0x14, 0x28]) {
        assert!(
            level.abs_diff(expected) <= 2,
            "pictures lie with their numbers: {levels:?}"
        );
    }

    let timed = DecodeOptions {
        image_base: 0,
        image_fps: Some(30.0),
        ..OPTIONS
    };
    let expected = [(3, 100_000), (7, 233_333), (10, 333_333), (12, 400_000)];
    assert_eq!(
        times(&read(&folder, &timed).0),
        expected.map(|(index, time)| (index, Some(time)))
    );
    let header = probe(&folder, SourceKind::Images, &timed).unwrap();
    assert_eq!((header.frames, header.duration_us), (4, 433_333));

    // Damage stays with its image.
    let jpeg = std::fs::read(folder.join("00003.jpg")).unwrap();
    std::fs::write(folder.join("00003.jpg"), &jpeg[..jpeg.len() - 40]).unwrap();
    std::fs::write(folder.join("12.webp"), "no picture").unwrap();
    let (frames, damage) = read(&folder, &OPTIONS);
    let whole = frames.iter().map(|frame| (frame.index, frame.picture.is_some()));
    let expected = [(2, false), (6, true), (9, true), (11, false)];
    assert_eq!(
        whole.collect::<Vec<_>>(),
        expected.map(|(index, whole)| (FrameIndex(index), whole))
    );
    let damage = damage.unwrap();
    assert!(damage.starts_with("damaged at frame 2 (00003.jpg): "), "{damage}");
}

#[test]
fn image_folders_that_make_no_sense_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let refusal = |files: &[&str]| {
        let folder = tempfile::tempdir_in(&root).unwrap();
        files
            .iter()
            .for_each(|name| std::fs::write(folder.path().join(name), "x").unwrap());
        let error = VideoReader::open(folder.path(), SourceKind::Images, &OPTIONS)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        error
    };
    let zero = refusal(&["00000.jpg", "00001.jpg"]);
    assert!(
        zero.contains("00000.jpg") && zero.contains("image_base = 0"),
        "{zero}"
    );
    let twice = refusal(&["1.jpg", "0001.png"]);
    assert!(
        twice.contains("0001.png") && twice.contains("1.jpg") && twice.contains("number 1"),
        "{twice}"
    );
    assert!(refusal(&["readme.txt"]).contains("no image"));
    assert!(refusal(&["99999999999999999999999.jpg"]).contains("too large"));
    let missing = root.path().join("missing");
    let error = VideoReader::open(&missing, SourceKind::Images, &OPTIONS)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("missing"), "{error}");
}
