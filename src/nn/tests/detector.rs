//! Compares the face detector with the published weights run by ONNX Runtime (`tests/golden/make_centerface_golden.py`).

use crate::{DETECTOR_BATCH, Detection, Detector, Device, Pictures, WeightFile, import_detector};
use affectmill_testing::media::{cached, output, video};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Golden {
    min_score: f32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    video: String,
    frame: u32,
    width: usize,
    height: usize,
    faces: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    corners: [f32; 4],
    score: f32,
    landmarks: [f32; 10],
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../tests/golden/centerface.json")).unwrap()
}

fn onnx() -> PathBuf {
    cached("detector/centerface.onnx")
}

fn detector() -> Detector {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("centerface.safetensors");
    import_detector(&onnx(), &weights).unwrap();
    Detector::load(&WeightFile::read(&weights).unwrap(), Device::cpu()).unwrap()
}

/// The frame as planes R, G, B, converted and scaled by ffmpeg as for the golden faces.
fn picture(case: &Case) -> Vec<f32> {
    let (width, height) = (case.width, case.height);
    let filter = format!(
        "select=eq(n\\,{}),scale={width}:{height}:flags=bilinear+accurate_rnd+full_chroma_int",
        case.frame
    );
    let file = video(&case.video);
    let mut arguments = vec!["-v", "error", "-i", file.to_str().unwrap(), "-vf", &filter];
    arguments.extend(["-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]);
    let packed = output(Path::new("ffmpeg"), &arguments);
    assert_eq!(packed.len(), 3 * width * height);
    let plane = |channel: usize| packed[channel..].iter().step_by(3).map(|&value| f32::from(value));
    (0..3).flat_map(plane).collect()
}

fn detect(detector: &Detector, pictures: &[f32], case: &Case) -> Vec<Vec<Detection>> {
    detector
        .detect(
            &Pictures::Host(pictures),
            case.width,
            case.height,
            golden().min_score,
        )
        .unwrap()
}

#[test]
fn faces_are_those_of_the_published_network() {
    let detector = detector();
    let mut faces = 0;
    for case in golden().cases {
        let found = detect(&detector, &picture(&case), &case).remove(0);
        let place = format!("{} frame {}", case.video, case.frame);
        assert_eq!(found.len(), case.faces.len(), "{place}");
        for (found, expected) in found.iter().zip(&case.faces) {
            // Same weights, same pixels: what is left is rounding. A tenth of a pixel is 1/1000 of these boxes.
            let numbers = found.corners.iter().chain(&found.landmarks);
            let wanted = expected.corners.iter().chain(&expected.landmarks);
            for (a, b) in numbers.zip(wanted) {
                assert!((a - b).abs() < 0.1, "{place}: {found:?}");
            }
            assert!((found.score - expected.score).abs() < 1e-3, "{place}: {found:?}");
            faces += 1;
        }
    }
    assert_eq!(faces, 7);
}

#[test]
fn a_face_depends_on_its_picture_alone() {
    let detector = detector();
    let cases: Vec<Case> = golden().cases.into_iter().take(5).collect();
    let pictures: Vec<Vec<f32>> = cases.iter().map(picture).collect();
    let alone: Vec<_> = pictures
        .iter()
        .map(|picture| detect(&detector, picture, &cases[0]).remove(0))
        .collect();
    for count in [2, 5] {
        let together = detect(&detector, &pictures[..count].concat(), &cases[0]);
        assert_eq!(together, alone[..count]);
    }
    let full: Vec<f32> = pictures
        .iter()
        .cycle()
        .take(DETECTOR_BATCH)
        .flatten()
        .copied()
        .collect();
    for (n, faces) in detect(&detector, &full, &cases[0]).iter().enumerate() {
        assert_eq!(*faces, alone[n % cases.len()], "place {n}");
    }
}

#[test]
fn what_is_no_centerface_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (broken, out) = (
        folder.path().join("broken.onnx"),
        folder.path().join("out.safetensors"),
    );
    let whole = std::fs::read(onnx()).unwrap();
    let cut = &whole[..whole.len() / 2];
    for (bytes, cause) in [
        (&b""[..], "holds no graph"),
        (&b"\xff\xff\xff"[..], "begins no field"),
        (cut, "begins no field"),
        (&b"\x3a\x00"[..], "holds 0 convolutions"),
    ] {
        std::fs::write(&broken, bytes).unwrap();
        let error = import_detector(&broken, &out).unwrap_err().to_string();
        assert!(error.contains(cause) && error.contains("broken.onnx"), "{error}");
        assert!(!out.exists());
    }
    // Any damage is an error or another tensor, never a panic.
    let mut damaged = whole.clone();
    for at in (0..whole.len().min(20_000)).step_by(97) {
        damaged[at] ^= 0x5A;
        std::fs::write(&broken, &damaged).unwrap();
        let _ = import_detector(&broken, &out);
        damaged[at] = whole[at];
    }
}
