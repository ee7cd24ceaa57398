//! Networks of people's own, as TorchScript: the numbers are PyTorch's, and what is no such network is refused with its name.

use super::common::*;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What the modules give, by the names of the columns' ends; see `tests/golden/make_script_golden.py`.
const SCORES: [&str; 10] = [
    "arousal",
    "expr_Happiness",
    "_",
    "expr_Surprise",
    "expr_Neutral",
    "valence",
    "expr_Sadness",
    "expr_Fear",
    "expr_Anger",
    "expr_Disgust",
];
const UNITS: [&str; 14] = [
    "valence", "arousal", "AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25",
    "AU26",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The pictures of `make_script_golden.py`, 128×128, so that nothing is resized: more than a module sees at once.
fn pictures(folder: &Path, count: usize) {
    fs::create_dir_all(folder).unwrap();
    for frame in 0..count {
        let n = frame % 7;
        let value = |c: usize, y: usize, x: usize| (30 * n * (c + 1) + x * (n + 2) + y / (c + 2)) as u8;
        let pixels = (0..128 * 128).flat_map(|at| [0, 1, 2].map(|c| value(c, at / 128, at % 128)));
        let file = File::create(folder.join(format!("{:03}.png", frame + 1))).unwrap();
        let mut encoder = png::Encoder::new(file, 128, 128);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&pixels.collect::<Vec<u8>>()).unwrap();
    }
}

/// A job over one folder of pictures, with these `[[models]]`.
fn project(models: &str) -> Project {
    let project = Project::new();
    pictures(&project.videos().join("faces"), 40);
    write(&project, models);
    project
}

fn write(project: &Project, models: &str) {
    let job = format!(
        "[input]\nuri = \"videos\"\n[faces]\nmode = \"full_frame\"\n{models}[output]\nuri = \"out\"\n"
    );
    fs::write(project.job(), job).unwrap();
}

/// A `[[models]]` section.
fn model(name: &str, file: &Path, outputs: &[&str], more: &str) -> String {
    let outputs: Vec<&str> = outputs
        .iter()
        .map(|name| name.trim_start_matches("expr_"))
        .collect();
    format!(
        "[[models]]\nname = \"{name}\"\nkind = \"torchscript\"\nweights = {file:?}\noutputs = {outputs:?}\n{more}\n"
    )
}

fn near(found: f32, expected: f64, what: &str) {
    assert!(
        (f64::from(found) - expected).abs() < 2e-5 * (1.0 + expected.abs()),
        "{what}: {found}, not {expected}"
    );
}

#[test]
fn the_numbers_of_a_module_are_those_of_pytorch() {
    let [a, b, units] = ["scores_a.pt", "scores_b.pt", "units.pt"].map(golden);
    let student = format!(
        "[[models]]\nname = \"student\"\nkind = \"student\"\nweights = {:?}\n",
        weights("student")
    );
    let models = [
        model("scores", &a, &SCORES, ""),
        student,
        model("units", &units, &["va", "au"], ""),
        model("all", &a, &SCORES, &format!("also = [{b:?}]\nflip = true")),
    ];
    let project = project(&models.concat());
    project.run("out", &[], 0);
    let (out, columns) = (project.output("out"), columns(&project.output("out")));
    let golden: Value = serde_json::from_slice(&fs::read(golden("script.json")).unwrap()).unwrap();
    let number = |module: &str, side: &str, frame: usize, at: usize| {
        golden[module][side][frame % 7][at].as_f64().unwrap()
    };

    for (name, module, names) in [
        ("scores", "scores_a", &SCORES[..]),
        ("units", "units", &UNITS[..]),
    ] {
        for (at, output) in names.iter().enumerate().filter(|(_, output)| **output != "_") {
            let found = floats(&out, &format!("{name}_{output}"));
            assert_eq!(found.len(), 40);
            for (frame, found) in found.into_iter().enumerate() {
                near(
                    found.unwrap(),
                    number(module, "faces", frame, at),
                    &format!("{name}, frame {frame}, {output}"),
                );
            }
        }
    }
    for (at, output) in SCORES.iter().enumerate().filter(|(_, output)| **output != "_") {
        let (means, deviations) = (
            floats(&out, &format!("all_{output}")),
            floats(&out, &format!("all_{output}_sd")),
        );
        for frame in 0..40 {
            let looks = [
                ("scores_a", "faces"),
                ("scores_a", "mirrored"),
                ("scores_b", "faces"),
                ("scores_b", "mirrored"),
            ];
            let looks = looks.map(|(module, side)| number(module, side, frame, at));
            let mean = looks.iter().sum::<f64>() / 4.0;
            let variance = looks.iter().map(|look| (look - mean).powi(2)).sum::<f64>() / 4.0;
            near(means[frame].unwrap(), mean, output);
            near(deviations[frame].unwrap(), variance.sqrt(), output);
        }
    }
    // The columns are those of any model with these tasks.
    let of = |name: &str| -> Vec<&str> {
        columns
            .iter()
            .filter_map(|column| column.strip_prefix(&format!("{name}_")))
            .collect()
    };
    let student = of("student");
    let expressions = |column: &&str| !column.starts_with("AU");
    assert_eq!(
        of("scores"),
        student.iter().copied().filter(expressions).collect::<Vec<_>>()
    );
    assert_eq!(of("units").len(), 2 + 24);

    // What reads a label set asks no further.
    let ask = |arguments: &[&str]| succeed(affectmill().current_dir(project.dir.path()).args(arguments));
    ask(&["summary", "out"]);
    ask(&["query", "out", "means", "--model", "scores"]);
    ask(&["query", "out", "top", "AU12", "--model", "units"]);
    ask(&["report", "out", "-o", "report.html"]);
    ask(&[
        "evaluate",
        "out",
        "--model",
        "student",
        "--annotations",
        "out",
        "--reference",
        "units",
    ]);

    // The same bytes again; where batches are cut elsewhere, the same numbers but for their last bits.
    project.run("again", &["run.threads=1"], 0);
    assert_same_labels(&out, &project.output("again"));
    project.run("cut", &["run.batch=7"], 0);
    for ((row, numbers), (other, others)) in outputs(&out).iter().zip(outputs(&project.output("cut"))) {
        assert_eq!((row, numbers.len()), (&other, others.len()));
        for (a, b) in numbers.iter().zip(others) {
            near(b, f64::from(*a), "in another batch");
        }
    }
    // Other names are another label set.
    let refused = project.run("out", &["models.units.outputs=[\"au\", \"va\"]"], 2);
    assert!(
        stderr(&refused).contains("models.units.outputs"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn what_is_no_such_module_is_refused_by_name() {
    let project = project("");
    let refusal = |file: &str, outputs: &[&str], code: i32, words: &[&str]| {
        write(&project, &model("own", &golden(file), outputs, ""));
        let output = format!("{file}-{}", outputs.len());
        let refused = project.run(&output, &[], code);
        for word in words.iter().chain([&file]) {
            assert!(stderr(&refused).contains(word), "{word}: {}", stderr(&refused));
        }
        // No video suffers for it; and what is known beforehand leaves nothing behind.
        assert!(!project.output(&output).join("labels").exists());
        assert_eq!(project.output(&output).exists(), code == 4);
    };
    let va = ["valence", "arousal"];
    for file in ["tiny.pt", "script.json"] {
        refusal(file, &va, 2, &["is no TorchScript file", "torch.jit.save"]);
    }
    refusal("none.pt", &va, 2, &["No such file"]);
    refusal(
        "other_size.pt",
        &va,
        4,
        &[
            "cannot be run on 32 faces",
            "invalid for input of size",
            "[N, 3, 128, 128]",
        ],
    );
    refusal(
        "crowd.pt",
        &va,
        4,
        &["other numbers for the same face", "network.eval()"],
    );
    refusal(
        "units.pt",
        &va,
        4,
        &["gives 14 numbers a face", "names 2 outputs", "\"_\""],
    );
    refusal(
        "units.pt",
        &["va", "au", "_"],
        4,
        &["gives 14 numbers a face", "names 15 outputs"],
    );
}
