//! Proof of attribution: every row is held against the picture it must have come from.
//!
//! Each frame of each video is a picture of its own, made from the video's number and the frame's, which it also carries as
//! bits. What the models must say of a picture is computed from that picture alone, without queue, shard, thread, batch
//! seam or codec. A row that was swapped with a neighbour, or with the same frame of another video, says something
//! else, by far.

use super::common::*;
use affectmill_base::SourceKind;
use affectmill_media::decode::{DecodeOptions, VideoReader};
use affectmill_nn::{Device, Sample, WeightFile};
use affectmill_spec as spec;
use affectmill_vision::{Preparer, full_frame};
use affectmill_worker::infer::Engine;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Pixels of a side; cells of a side.
const SIDE: usize = 64;
const CELLS: usize = 16;

/// Black and white cells of one frame of one video: 16 bits of its video, 16 of its frame, the rest scattered by both.
fn cells(video: u16, frame: u16) -> [bool; CELLS * CELLS] {
    let mut cells = [false; CELLS * CELLS];
    let (head, rest) = cells.split_at_mut(32);
    let number = u32::from(video) << 16 | u32::from(frame);
    head.iter_mut()
        .enumerate()
        .for_each(|(at, cell)| *cell = number >> at & 1 == 1);
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut state = u64::from(number);
    for cell in rest {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        *cell = (z ^ z >> 31) & 1 == 1;
    }
    cells
}

/// The picture as grey bytes, row by row.
fn picture(video: u16, frame: u16) -> Vec<u8> {
    let cells = cells(video, frame);
    let cell = SIDE / CELLS;
    (0..SIDE * SIDE)
        .map(|at| (at / SIDE / cell) * CELLS + at % SIDE / cell)
        .map(|at| if cells[at] { 255 } else { 0 })
        .collect()
}

/// Video and frame that a grey picture carries.
fn carried(picture: &[u8]) -> (u16, u16) {
    let cell = SIDE / CELLS;
    let middle = |at: usize| picture[(at / CELLS * cell + cell / 2) * SIDE + at % CELLS * cell + cell / 2];
    let number = (0..32).fold(0_u32, |number, at| number | u32::from(middle(at) > 127) << at);
    ((number >> 16) as u16, number as u16)
}

/// Lets ffmpeg make a file of the pictures of one video.
fn encode(video: u16, frames: u16, codec: &str, file: &Path) {
    let mut ffmpeg = Command::new("ffmpeg")
        .args("-v error -nostdin -y -f rawvideo -pix_fmt gray -s 64x64 -r 25 -i pipe:".split(' '))
        .args(codec.split_whitespace())
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("ffmpeg starts");
    let mut pipe = ffmpeg.stdin.take().unwrap();
    (0..frames).for_each(|frame| pipe.write_all(&picture(video, frame)).unwrap());
    drop(pipe);
    assert!(ffmpeg.wait().unwrap().success(), "{}", file.display());
}

/// Ways to keep the pictures exactly, with frames stored in another order than they are shown, hidden ones among them,
/// and none of that.
const CODECS: [(&str, &str); 7] = [
    (
        "mp4",
        "-c:v libx264 -preset veryfast -qp 0 -bf 3 -g 12 -pix_fmt yuv420p",
    ),
    ("mkv", "-c:v ffv1 -pix_fmt gray"),
    (
        "webm",
        "-c:v libvpx-vp9 -lossless 1 -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 12 -pix_fmt yuv420p",
    ),
    (
        "ts",
        "-c:v libx264 -preset veryfast -qp 0 -bf 2 -b-pyramid normal -g 9 -pix_fmt yuv420p",
    ),
    ("avi", "-c:v huffyuv -pix_fmt yuv422p"),
    ("mov", "-c:v png -pix_fmt gray"),
    (
        "mkv",
        "-c:v libx265 -preset ultrafast -x265-params lossless=1:bframes=3:log-level=none -pix_fmt yuv420p",
    ),
];

struct Corpus {
    /// Key → number of the video, the frames that get rows.
    videos: BTreeMap<String, (u16, Vec<u16>)>,
}

/// Makes `count` videos of mixed lengths, and a folder of images with gaps for every fourth.
fn make(project: &Project, count: u16, dice: &mut Dice) -> Corpus {
    let mut videos = BTreeMap::new();
    for video in 0..count {
        let frames = 1 + dice.roll(30) as u16;
        if video % 4 == 3 {
            let key = format!("v{video:03}");
            let folder = project.videos().join(&key);
            fs::create_dir(&folder).unwrap();
            encode(video, frames, "-start_number 1", &folder.join("%05d.png"));
            let kept: Vec<u16> = (0..frames).filter(|frame| frame % 5 != 2).collect();
            for frame in (0..frames).filter(|frame| frame % 5 == 2) {
                fs::remove_file(folder.join(format!("{:05}.png", frame + 1))).unwrap();
            }
            videos.insert(key, (video, kept));
        } else {
            let (extension, codec) = CODECS[(video - video / 4) as usize % CODECS.len()];
            let key = format!("v{video:03}.{extension}");
            encode(video, frames, codec, &project.videos().join(&key));
            videos.insert(key, (video, (0..frames).collect()));
        }
    }
    Corpus { videos }
}

/// ffmpeg's own reading of each file: the pictures carry the video's number and, one after the other, the frames'.
fn assert_ffmpeg_sees_the_patterns(project: &Project, corpus: &Corpus) {
    for (key, (video, frames)) in corpus.videos.iter().filter(|(key, _)| key.contains('.')) {
        let out = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(project.videos().join(key))
            .args([
                "-fps_mode",
                "passthrough",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "gray",
                "pipe:",
            ])
            .output()
            .unwrap();
        let seen: Vec<(u16, u16)> = out.stdout.chunks_exact(SIDE * SIDE).map(carried).collect();
        let expected: Vec<(u16, u16)> = frames.iter().map(|frame| (*video, *frame)).collect();
        assert_eq!(seen, expected, "{key}");
    }
}

/// What the model says of each picture on its own, by (video, frame).
fn said(project: &Project, corpus: &Corpus) -> BTreeMap<(u16, u16), Vec<f32>> {
    let job = spec::load(&project.job(), &["run.batch=16".into()]).unwrap();
    let mut engine = Engine::load(&job, Device::cpu(), |model| {
        WeightFile::read(model.weights.as_local().unwrap())
    })
    .unwrap();
    let options = DecodeOptions {
        threads: 1,
        image_base: 0,
        image_fps: None,
        max_pixels: u64::MAX,
        max_frames: u64::MAX,
        nvdec: None,
    };
    let mut said = BTreeMap::new();
    for (video, frames) in corpus.videos.values() {
        let folder = tempfile::tempdir().unwrap();
        encode(
            *video,
            frames.last().unwrap() + 1,
            "-start_number 0",
            &folder.path().join("%05d.png"),
        );
        let mut reader = VideoReader::open(folder.path(), SourceKind::Images, &options).unwrap();
        let mut batch = Vec::new();
        let mut next = reader.next().unwrap();
        while let Some(frame) = next {
            let picture = frame.picture.unwrap();
            let mut input = vec![0.0; 3 * 128 * 128];
            Preparer::new()
                .prepare(&picture, &full_frame(&picture), &mut input)
                .unwrap();
            engine.push(&Sample::Host(input)).unwrap();
            batch.push(frame.index.0 as u16);
            next = reader.next().unwrap();
            if engine.is_full() || next.is_none() {
                let outputs = engine.run(&|| {}).unwrap();
                for (at, frame) in batch.drain(..).enumerate() {
                    said.insert((*video, frame), outputs.face(at)[0].to_vec());
                }
            }
        }
    }
    said
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_row_belongs_to_its_picture_whatever_is_killed() {
    let project = Project::with_models(&["teacher_au"]);
    let mut dice = Dice::new();
    let (count, kills) = if soak() { (60, 40) } else { (16, 6) };
    let corpus = make(&project, count, &mut dice);
    assert_ffmpeg_sees_the_patterns(&project, &corpus);
    let said = said(&project, &corpus);

    // Random shards, several workers, kills of workers and of the whole run.
    let frames = format!("output.shard_frames={}", 5 + dice.roll(40));
    let sets = [
        &frames,
        "output.values=logits",
        "run.workers=3",
        "run.batch=7",
        "run.threads=1",
    ];
    let mut killed = 0;
    while killed < kills {
        let mut run = project.start("out", &sets);
        let mut workers = Vec::new();
        let whole = dice.roll(2) == 0;
        let moment = std::time::Instant::now() + Duration::from_millis(500 + dice.roll(4_000));
        while let Some(event) = run.event() {
            if event["event"] == "worker_started" {
                workers.push(event["pid"].as_u64().unwrap() as u32);
            }
            if std::time::Instant::now() >= moment && killed < kills {
                match workers.pop() {
                    Some(worker) if !whole => signal(worker, "KILL"),
                    _ => run.signal("KILL"),
                }
                killed += 1;
            }
        }
        if run.wait() == Some(0) {
            break;
        }
    }
    project.run("out", &sets, 0);

    let rows = outputs(&project.output("out"));
    let expected: Vec<(String, i64)> = corpus
        .videos
        .iter()
        .flat_map(|(key, (_, frames))| frames.iter().map(|frame| (key.clone(), i64::from(*frame))))
        .collect();
    let keys: Vec<(String, i64)> = rows
        .keys()
        .map(|(video, frame, _)| (video.clone(), *frame))
        .collect();
    assert_eq!(keys, expected, "every frame once, and nothing else");

    let (mut worst, mut nearest_other) = (0.0_f32, f32::MAX);
    for ((key, frame, _), values) in &rows {
        let own = (corpus.videos[key].0, *frame as u16);
        worst = worst.max(distance(values, &said[&own]));
        for (other, theirs) in said.iter().filter(|(other, _)| **other != own) {
            let apart = distance(values, theirs);
            nearest_other = nearest_other.min(apart);
            assert!(
                apart > 1e-4,
                "the row of {key}, frame {frame}, looks like {other:?}"
            );
        }
    }
    println!(
        "{} rows of {count} videos, {killed} kills: off by at most {worst:e} from their own pictures, by at least \
         {nearest_other:e} from any other",
        rows.len()
    );
    assert!(
        worst < 1e-5 && worst * 10.0 < nearest_other,
        "{worst:e} {nearest_other:e}"
    );
}
