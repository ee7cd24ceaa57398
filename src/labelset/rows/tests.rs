use super::*;
use crate::schema::column;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use affectmill_base::{Fingerprint, ModelKind, Rect};
use affectmill_spec::ModelRecord;
use affectmill_spec::Values;
use sha2::{Digest, Sha256};
use std::fs::File;

fn schema() -> LabelSchema {
    let model = ModelRecord {
        name: "m".into(),
        kind: ModelKind::TeacherVa.into(),
        outputs: Vec::new(),
        sha256: "00".into(),
        also: Vec::new(),
        flip: false,
        architecture: "a".into(),
        preprocessing: "p".into(),
        precision: Default::default(),
        untrained: true,
    };
    LabelSchema::new(&[model], Values::Both, &Fingerprint::from_digest(&[7; 32]))
}

fn key(text: &str) -> VideoKey {
    VideoKey::new(text).unwrap()
}

fn face(index: i32) -> Face {
    Face {
        index,
        track: None,
        rect: Rect {
            x: 0.0,
            y: 0.0,
            w: 4.0,
            h: 4.0,
        },
        score: None,
        landmarks: None,
    }
}

/// Pushes rows of (video, frame, face) until one is refused.
fn push(rows: &[(&str, u64, Option<i32>)]) -> Result<PartInfo, RowError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = RowWriter::create(file.path(), &schema())?;
    for (video, frame, index) in rows {
        let face = index.map(face);
        let content = match &face {
            Some(face) => Content::Face {
                face,
                outputs: &[&[0.5, -0.5]],
            },
            None => Content::NoFace,
        };
        writer.push(&Row {
            video: &key(video),
            frame: FrameIndex(*frame),
            timestamp: None,
            content,
        })?;
    }
    writer.finish()
}

#[test]
fn rows_come_in_order_and_once() {
    let good = [
        ("a", 0, Some(0)),
        ("a", 0, Some(1)),
        ("a", 1, None),
        ("a", 5, Some(3)),
        ("a/b", 0, None),
        ("b", 0, Some(0)),
    ];
    assert_eq!(push(&good).unwrap().rows, 6);
    let bad = [
        [("a", 1, Some(0)), ("a", 1, Some(0))],
        [("a", 1, Some(1)), ("a", 1, Some(0))],
        [("a", 1, None), ("a", 1, None)],
        [("a", 1, None), ("a", 1, Some(0))],
        [("a", 1, Some(0)), ("a", 1, None)],
        [("a", 1, Some(0)), ("a", 0, Some(0))],
        [("b", 0, Some(0)), ("a", 9, Some(0))],
    ];
    for rows in bad {
        let error = push(&rows).unwrap_err();
        assert!(matches!(error, RowError::Order { .. }), "{rows:?}: {error}");
    }
    let message = push(&bad[5]).unwrap_err().to_string();
    assert!(message.contains("`a`, frame 0, face 0"), "{message}");
    assert!(message.contains("(`a`, frame 1, face 0)"), "{message}");
}

#[test]
fn what_cannot_be_stored_is_refused_by_name() {
    let refused = |face: &Face, outputs: &[&[f32]], frame: u64, expected: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = RowWriter::create(file.path(), &schema()).unwrap();
        let row = Row {
            video: &key("clip.mp4"),
            frame: FrameIndex(frame),
            timestamp: None,
            content: Content::Face { face, outputs },
        };
        let message = writer.push(&row).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(
            message.contains("`clip.mp4`") && message.contains(&frame.to_string()),
            "{message}"
        );
        assert_eq!(writer.finish().unwrap().rows, 0);
    };
    let good: &[f32] = &[0.0, 0.0];
    refused(&face(0), &[&[0.0]], 12, "1 outputs, not 2");
    refused(&face(0), &[], 12, "outputs of 0 models, not 1");
    refused(&face(0), &[good, good], 12, "outputs of 2 models, not 1");
    refused(&face(-1), &[good], 12, "negative index");
    refused(&face(0), &[good], u64::MAX, "2⁶³");
    let mut lost = face(0);
    lost.landmarks = Some([f32::NAN; 10]);
    refused(&lost, &[good], 12, "not finite");
}

#[test]
fn row_groups_are_of_a_fixed_size_and_the_checksum_is_the_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = RowWriter::create(file.path(), &schema()).unwrap();
    let video = key("v");
    for frame in 0..70_000 {
        let row = Row {
            video: &video,
            frame: FrameIndex(frame),
            timestamp: None,
            content: Content::DecodeError,
        };
        writer.push(&row).unwrap();
    }
    let info = writer.finish().unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(info.bytes, bytes.len() as u64);
    assert_eq!(info.sha256, affectmill_base::hex(&Sha256::digest(&bytes)));
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file.path()).unwrap()).unwrap();
    let groups: Vec<_> = reader
        .metadata()
        .row_groups()
        .iter()
        .map(|group| group.num_rows())
        .collect();
    assert_eq!(groups, [65_536, 4_464]);
}

#[test]
fn a_range_of_rows_is_read_across_row_groups() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = RowWriter::create(file.path(), &schema()).unwrap();
    let (first, second, face) = (key("a"), key("b"), face(0));
    for frame in 0..70_000 {
        let outputs = [frame as f32, -1.0];
        let content = if frame % 2 == 0 {
            Content::Face {
                face: &face,
                outputs: &[&outputs],
            }
        } else {
            Content::NoFace
        };
        let row = Row {
            video: if frame < 66_000 { &first } else { &second },
            frame: FrameIndex(frame),
            timestamp: None,
            content,
        };
        writer.push(&row).unwrap();
    }
    writer.finish().unwrap();
    for rows in [
        0..70_000,
        65_530..65_540,
        65_536..70_000,
        66_001..66_002,
        69_999..70_000,
    ] {
        let part = File::open(file.path()).unwrap();
        let columns = [column::VIDEO, column::FRAME, "m_valence"];
        let mut expected = rows.clone();
        for batch in RowReader::open_range(part, columns, rows, 1_000).unwrap() {
            let batch = batch.unwrap();
            let videos = batch.texts(column::VIDEO).unwrap();
            let frames = batch.longs(column::FRAME).unwrap();
            let valence = batch.floats("m_valence").unwrap();
            assert!(matches!(batch.floats("m_arousal"), Err(ReadError::Missing(_))));
            assert!(matches!(batch.floats(column::FRAME), Err(ReadError::Unlike(_))));
            for at in 0..batch.rows() {
                let frame = expected.next().unwrap();
                assert_eq!(frames.value(at), frame as i64);
                assert_eq!(videos.get(at), Some(if frame < 66_000 { "a" } else { "b" }));
                let said = (frame % 2 == 0).then_some(frame as f32);
                assert_eq!(valence.iter().nth(at).flatten(), said);
            }
        }
        assert!(expected.is_empty());
    }
}

#[test]
fn a_disk_that_refuses_is_told_apart_from_a_bad_row() {
    // Every write to it fails with ENOSPC.
    let error = match RowWriter::create(Path::new("/dev/full"), &schema()) {
        Ok(writer) => writer.finish().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, RowError::Io { .. }), "{error:?}");
    assert!(
        error.to_string().contains("/dev/full") && error.to_string().contains("disk is full"),
        "{error}"
    );
    let missing = RowWriter::create(Path::new("/nowhere/part"), &schema())
        .err()
        .unwrap();
    assert!(missing.to_string().contains("/nowhere/part"), "{missing}");
}
