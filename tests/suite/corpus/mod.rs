//! A corpus of what the wild contains. One run of the program over all of it; each file's rows, times and size against
//! ffprobe, its number of frames against the closed form, its pictures against ffmpeg's conversion, and what became of
//! it against what is said here. Prints a line for each file: name, expected, got.

mod cases;
mod special;

use super::common::*;
use cases::{B, H, Look, MADE, S};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Labels of a frame and of ffmpeg's conversion of it to 8-bit RGB differ by less than this: by rounding, and because swscale
/// takes chroma to sit midway whatever the stream says. A frame that is turned or mirrored differs by more, which a control
/// checks. (Ranges and matrices are held to half a grey level by `preprocess.rs`, rows to their frames by the suite's
/// proof of attribution.)
const SAME_LOOK: f32 = 0.1;

/// A file, and what must become of it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) fate: Fate,
    /// Frames by closed form.
    pub(crate) frames: Option<u64>,
    /// The stream that must be taken, as ffprobe selects it.
    pub(crate) stream: &'static str,
    pub(crate) look: Look,
    /// The same video undamaged: what is labelled must be labelled alike.
    pub(crate) whole: Option<&'static str>,
}

/// What must become of a file.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    /// Every frame that ffprobe decodes has its row, and a label.
    Ok,
    /// Every frame that ffprobe decodes has its row; not each needs a label.
    Damaged,
    /// Broken off: as `Damaged` where ffprobe decodes a frame at all, else it fails.
    Cut,
    /// Broken off, and its header says so: as `Cut`, but never taken for whole.
    Short,
    /// No row, and this class.
    Failed(&'static str),
    /// No row, and this class.
    Quarantined(&'static str),
    /// Images with these frames; of frame 1 no label, where so.
    Images(&'static [i64], bool),
    /// Not taken for a video at all; the run says so in these words.
    Skipped(&'static str),
}

impl Fate {
    fn leaves_nothing(self, probed: &Probed) -> bool {
        let cut_off = matches!(self, Fate::Cut | Fate::Short) && probed.times.is_empty();
        cut_off || matches!(self, Fate::Failed(_) | Fate::Quarantined(_))
    }
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, fate: Fate) -> Self {
        Self {
            name: name.into(),
            fate,
            frames: None,
            stream: "v:0",
            look: Look::None("damaged, or no video"),
            whole: None,
        }
    }
}

/// Arguments with `S`, `H` and `B` spelt out.
pub(crate) fn words(arguments: &str) -> Vec<&str> {
    let spelt = |word| match word {
        "S" => S,
        "H" => H,
        "B" => B,
        word => word,
    };
    arguments
        .split_whitespace()
        .flat_map(|word| spelt(word).split_whitespace())
        .collect()
}

/// Runs the jobs on both cores.
pub(crate) fn in_parallel<T: Sync>(jobs: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(job);
                }
            });
        }
    });
}

fn make_all(project: &Project) -> Vec<Case> {
    let folder = project.videos();
    in_parallel(MADE, |made| {
        let file = folder.join(made.name);
        let mut arguments = words(made.arguments);
        arguments.push(file.to_str().unwrap());
        ffmpeg(&arguments);
    });
    let cases = MADE.iter().map(|made| Case {
        frames: Some(made.frames),
        look: made.look,
        ..Case::new(made.name, Fate::Ok)
    });
    cases.chain(special::make(&folder)).collect()
}

/// What ffprobe tells of a file: times after the container's start in µs, and the displayed size.
#[derive(Default)]
struct Probed {
    times: Vec<Option<i64>>,
    size: (i64, i64),
}

fn ffprobe(file: &Path, stream: &str) -> Probed {
    let entries = "frame=best_effort_timestamp_time,width,height:format=start_time:stream_side_data=rotation";
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "quiet",
        "-select_streams",
        stream,
        "-show_frames",
        "-show_streams",
    ]);
    command.args(["-of", "json", "-show_entries", entries]).arg(file);
    let out = command.output().expect("ffprobe starts").stdout;
    let out: Value = serde_json::from_slice(&out).unwrap_or_default();
    let start = micros(&out["format"]["start_time"]).unwrap_or(0);
    let frames = out["frames"].as_array().cloned().unwrap_or_default();
    let time = |frame: &Value| micros(&frame["best_effort_timestamp_time"]).map(|time| time - start);
    let turned = out["streams"][0]["side_data_list"][0]["rotation"]
        .as_i64()
        .unwrap_or(0)
        % 180
        != 0;
    let size = frames.first().map_or((0, 0), |frame| {
        let (width, height) = (
            frame["width"].as_i64().unwrap(),
            frame["height"].as_i64().unwrap(),
        );
        if turned { (height, width) } else { (width, height) }
    });
    Probed {
        times: frames.iter().map(time).collect(),
        size,
    }
}

/// Lets ffmpeg show the first and the last frame as images of a video `looks/<name>`; numbered from 1, as image folders are.
fn show(folder: &Path, case: &Case) {
    match case.look {
        Look::None(_) => return,
        Look::Shown | Look::First => {}
    }
    let last = match case.look {
        Look::First => 0,
        _ => case.frames.expect("a known number of frames") - 1,
    };
    let to_rgb = "scale=flags=accurate_rnd+full_chroma_int+bicubic,format=rgb24";
    let filter = format!("select=eq(n\\,0)+eq(n\\,{last}),{to_rgb}");
    // A folder whose name is no pattern.
    let keep = tempfile::tempdir().unwrap();
    let (file, images) = (folder.join(&case.name), keep.path().join("%d.png"));
    ffmpeg(&[
        "-i",
        file.to_str().unwrap(),
        "-map",
        &format!("0:{}", case.stream),
        "-vf",
        &filter,
        "-fps_mode",
        "passthrough",
        images.to_str().unwrap(),
    ]);
    let looks = folder.join("looks").join(&case.name);
    fs::create_dir_all(&looks).unwrap();
    for (number, frame) in [(1, 0), (2, last)]
        .into_iter()
        .take(if last == 0 { 1 } else { 2 })
    {
        let shown = keep.path().join(format!("{number}.png"));
        fs::copy(&shown, looks.join(format!("{:05}.png", frame + 1)))
            .unwrap_or_else(|error| panic!("{}, frame {frame}: {error}", case.name));
    }
}

/// What the run made of one video.
#[derive(Default)]
struct Got {
    times: Vec<Option<i64>>,
    frames: Vec<i64>,
    labelled: Vec<bool>,
    size: Option<(i64, i64)>,
}

type Labels = BTreeMap<(String, i64), Vec<f32>>;

fn apart(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The largest difference between labels of a video and of ffmpeg's pictures of it.
fn look(labels: &Labels, case: &Case) -> Option<f32> {
    let key = format!("looks/{}", case.name);
    let shown = labels.range((key.clone(), 0)..=(key, i64::MAX));
    let differences = shown.map(|((_, frame), theirs)| {
        labels
            .get(&(case.name.clone(), *frame))
            .map_or(f32::INFINITY, |ours| apart(ours, theirs))
    });
    differences.reduce(f32::max)
}

/// Labelled frames of a damaged video whose labels are not those of the undamaged one at the same time.
fn wrong(labels: &Labels, got: &Got, case: &Case, whole: &Got) -> usize {
    let name = case.whole.expect("an undamaged one");
    let at = |time: &Option<i64>| whole.times.iter().position(|other| other == time);
    let labelled = got.frames.iter().zip(&got.times).zip(&got.labelled);
    labelled
        .filter(|(_, labelled)| **labelled)
        .filter(|((frame, time), _)| {
            let ours = &labels[&(case.name.clone(), **frame)];
            let theirs = at(time).map(|at| &labels[&(name.to_owned(), at as i64)]);
            theirs.is_none_or(|theirs| apart(ours, theirs) > 1e-3)
        })
        .count()
}

#[test]
fn every_file_of_the_corpus_becomes_what_it_must() {
    let mut project = Project::with_models(&["teacher_expr"]);
    let cases = make_all(&project);
    let folder = project.videos();
    let probed = Mutex::new(BTreeMap::new());
    in_parallel(&cases, |case| {
        show(&folder, case);
        let file = folder.join(&case.name);
        // Opening a pipe would wait for a writer.
        if fs::metadata(&file).is_ok_and(|found| found.is_file()) {
            let seen = ffprobe(&file, case.stream);
            probed.lock().unwrap().insert(case.name.clone(), seen);
        }
    });
    let probed = probed.into_inner().unwrap();
    project.faults = special::FAULTS.into();
    let extensions = "input.extensions=['mp4','m4v','mov','mkv','webm','avi','mpg','ts','flv','wmv','3gp','ogv','gif','h264',\
                      'hevc','mjpeg','nut','ivf','vob','mxf','dv','asf','apng','rm','y4m']";
    let sets = [
        extensions,
        "output.values=logits",
        "output.shard_frames=150",
        "run.max_strikes=1",
        "run.stall_timeout=20.0",
        "run.batch=8",
    ];
    let done = project.run("out", &sets, 3);
    let said = stderr(&done);

    let told = videos(&project.output("out"));
    let mut all: BTreeMap<String, Got> = BTreeMap::new();
    for row in rows(&project.output("out")) {
        let got = all.entry(row.video).or_default();
        got.times.push(row.timestamp_us);
        got.frames.push(row.frame);
        got.labelled.push(row.status == "ok");
        let size = row
            .box_
            .map(|[_, _, width, height]| (width as i64, height as i64));
        got.size = got.size.or(size);
    }
    let labels: Labels = outputs(&project.output("out"))
        .into_iter()
        .map(|((video, frame, _), values)| ((video, frame), values))
        .collect();

    let nothing = Got::default();
    let (mut table, mut wrong_ones) = (String::new(), Vec::new());
    for case in &cases {
        let video = told.get(&case.name);
        let got = all.get(&case.name).unwrap_or(&nothing);
        let unread = Probed::default();
        let probed = probed.get(&case.name).unwrap_or(&unread);
        let (expected, found) = match case.fate {
            Fate::Skipped(words) => {
                let found = if said.contains(words) {
                    "skipped"
                } else {
                    "said nothing"
                };
                let found = if video.is_none() { found } else { "taken" };
                ("skipped".to_owned(), found.to_owned())
            }
            _ if case.fate.leaves_nothing(probed) => {
                let (status, class) = match case.fate {
                    Fate::Quarantined(class) => ("quarantined", class),
                    Fate::Failed(class) => ("failed", class),
                    _ => ("failed", "corrupt"),
                };
                let found = video.map_or("nothing".to_owned(), |video| {
                    let class = video.class.as_deref().unwrap_or("no class");
                    format!("{} ({class}), {} rows", video.status, got.frames.len())
                });
                (format!("{status} ({class}), 0 rows"), found)
            }
            Fate::Images(frames, damaged) => {
                let status = if damaged { "partial (corrupt)" } else { "ok" };
                let found = video.map_or("nothing".to_owned(), |video| {
                    let class = video
                        .class
                        .as_ref()
                        .map_or(String::new(), |class| format!(" ({class})"));
                    let gaps = got.labelled.iter().filter(|labelled| !**labelled).count();
                    format!(
                        "{}{class}, frames {:?}, {gaps} without label",
                        video.status, got.frames
                    )
                });
                (
                    format!(
                        "{status}, frames {frames:?}, {} without label",
                        usize::from(damaged)
                    ),
                    found,
                )
            }
            _ => {
                let line = |status: &str, times: &[Option<i64>], size: (i64, i64)| {
                    let ends = [times.first(), times.last()].map(|time| match time {
                        Some(Some(time)) => time.to_string(),
                        _ => "?".into(),
                    });
                    format!(
                        "{status}, {} rows, {}…{} µs, {}×{}",
                        times.len(),
                        ends[0],
                        ends[1],
                        size.0,
                        size.1
                    )
                };
                let class = video.and_then(|video| video.class.as_deref());
                let status = video.map_or("nothing", |video| &video.status);
                let wanted = match case.fate {
                    Fate::Ok => "ok".to_owned(),
                    Fate::Short => "partial (corrupt)".to_owned(),
                    // Whether the decoder notices is the decoder's; that rows are there is not.
                    _ => match status {
                        "ok" => "ok".to_owned(),
                        _ => "partial (corrupt)".to_owned(),
                    },
                };
                let status = class.map_or(status.to_owned(), |class| format!("{status} ({class})"));
                let mut expected = line(&wanted, &probed.times, probed.size);
                let mut found = line(&status, &got.times, got.size.unwrap_or(probed.size));
                if got.times != probed.times {
                    found += ", other times";
                }
                if got.frames != (0..got.frames.len() as i64).collect::<Vec<_>>() {
                    found += ", frames not numbered 0, 1, 2 …";
                }
                if let Some(frames) = case.frames.filter(|frames| *frames != probed.times.len() as u64) {
                    expected += &format!(", {frames} by closed form");
                }
                if case.fate == Fate::Ok && !got.labelled.iter().all(|labelled| *labelled) {
                    found += ", not all labelled";
                }
                if let Some(apart) = look(&labels, case) {
                    if apart < SAME_LOOK {
                        expected += &format!(", look within {SAME_LOOK}")
                    } else {
                        expected += &format!(", look within {SAME_LOOK}, not {apart}")
                    }
                    found += &format!(", look within {SAME_LOOK}");
                    println!("look {}: {apart:.5}", case.name);
                }
                if let Some(whole) = case.whole {
                    let whole = &all[whole];
                    let labelled = got.labelled.iter().filter(|labelled| **labelled).count();
                    expected += &format!(", {labelled} labelled, 0 of them wrong");
                    found += &format!(
                        ", {labelled} labelled, {} of them wrong",
                        wrong(&labels, got, case, whole)
                    );
                }
                (expected, found)
            }
        };
        let mark = if expected == found { " " } else { "✗" };
        writeln!(table, "{mark} {:32} | {expected} | {found}", case.name).unwrap();
        if expected != found {
            wrong_ones.push(case.name.clone());
        }
    }
    println!("{table}{} files", cases.len());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus.txt");
    fs::write(file, &table).unwrap();

    // The control: what must look different does.
    let other = |name: &str, frame: i64| &labels[&(name.to_owned(), frame)];
    for (a, b) in [
        (other("h264.mkv", 0), other("mirrored.mp4", 0)),
        (other("h264.mkv", 0), other("flipped.mp4", 0)),
        (other("h264.mkv", 0), other("rotated-90.mp4", 0)),
    ] {
        println!("control: {}", apart(a, b));
        assert!(apart(a, b) > SAME_LOOK, "{}", apart(a, b));
    }
    assert!(cases.len() >= 120, "{} files", cases.len());
    assert!(
        wrong_ones.is_empty(),
        "not what they must be: {}\n{table}",
        wrong_ones.join(", ")
    );
    let keys = told.keys().filter(|key| !key.starts_with("looks/"));
    let unknown: Vec<_> = keys
        .filter(|key| cases.iter().all(|case| case.name != **key))
        .collect();
    assert!(unknown.is_empty(), "videos that nobody made: {unknown:?}");
}
