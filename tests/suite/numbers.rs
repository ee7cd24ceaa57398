//! Numbers that are none: a model that gives NaN for a face costs that face its labels, and nothing else.

use super::common::*;
use super::spans::storm;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A TorchScript module as `torch.jit.save` lays it out: multiples of the logarithm of the picture's mean, which is NaN where
/// that is negative.
const MODULE: &str = r#"
import sys, zipfile
old = zipfile.ZipFile(sys.argv[1])
code = '''class Crowd(Module):
  __parameters__ = []
  __buffers__ = []
  training : bool
  _is_full_backward_hook : Optional[bool]
  def forward(self: __torch__.Crowd,
    x: Tensor) -> Tensor:
    log = torch.unsqueeze(torch.log(torch.mean(x, [1, 2, 3])), 1)
    return torch.cat([LIST], 1)
'''
multiples = [1, 2] + list(range(1, 8))
code = code.replace("LIST", ", ".join(f"torch.mul(log, {n})" for n in multiples))
with zipfile.ZipFile(sys.argv[2], "w") as new:
    for name in old.namelist():
        if not name.endswith(".debug_pkl"):
            new.writestr(name, code if name.endswith(".py") else old.read(name))
"#;

fn module(folder: &Path) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/crowd.pt");
    let path = folder.join("log.pt");
    succeed(Command::new(python()).args(["-c", MODULE]).arg(golden).arg(&path));
    path
}

/// Pictures of one grey each, as large as a model sees them.
fn pictures(folder: &Path, count: usize, grey: impl Fn(usize) -> u8) {
    fs::create_dir_all(folder).unwrap();
    for frame in 0..count {
        let file = File::create(folder.join(format!("{:05}.png", frame + 1))).unwrap();
        let mut encoder = png::Encoder::new(file, 128, 128);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[grey(frame); 128 * 128 * 3]).unwrap();
    }
}

/// A job with a network that gives NaN for dark pictures, and one that never does.
fn project() -> Project {
    let project = Project::new();
    let own = format!(
        "[[models]]\nname = \"own\"\nkind = \"torchscript\"\nweights = {:?}\noutputs = [\"va\", \"expr\"]\n[output]",
        module(project.dir.path())
    );
    let job = fs::read_to_string(project.job())
        .unwrap()
        .replace("[output]", &own);
    fs::write(project.job(), job).unwrap();
    project
}

/// Bright, with a dark second now and then.
fn clip(path: &Path, frames: u32) {
    let source = format!(
        "color=black:s=128x128:r=25,geq=lum='if(lt(mod(N,50),25),200,20)':cb=128:cr=128,trim=end_frame={frames}"
    );
    let to = path.to_str().unwrap();
    ffmpeg(&[
        "-f", "lavfi", "-i", &source, "-c:v", "ffv1", "-pix_fmt", "yuv444p", to,
    ]);
}

#[test]
fn a_face_without_numbers_has_its_row_and_every_reader_copes() {
    let project = project();
    let grey = |frame: usize| if frame % 4 == 1 { 20 } else { 130 + frame as u8 };
    pictures(&project.videos().join("faces"), 40, grey);
    clip(&project.videos().join("clip.mkv"), 100);
    let sets = ["output.crops=webdataset", "run.batch=8"];
    let done = project.run("out", &sets, 3);
    let told = [
        "partial (not_finite): faces",
        "60 faces for which a model gave no finite number",
        "half precision",
    ];
    assert!(
        told.iter().all(|words| stderr(&done).contains(words)),
        "{}",
        stderr(&done)
    );

    let folder = project.dir.path();
    let ask = |arguments: &[&str]| succeed(affectmill().current_dir(folder).args(arguments));
    let means = ask(&["query", "out", "means", "--model", "own", "--format", "csv"]);
    fs::write(folder.join("means.csv"), means).unwrap();
    let report = ask(&["report", "out", "--json", "--video", "faces"]);
    fs::write(folder.join("report.json"), report).unwrap();
    ask(&["report", "out", "-o", "report.html"]);
    let summary = ask(&["summary", "out"]);
    assert!(!summary.contains("NaN"), "{summary}");
    for format in ["abaw", "webdataset", "csv", "jsonl"] {
        ask(&[
            "export", "out", "--format", format, "--model", "own", "-o", format,
        ]);
    }
    ask(&[
        "query",
        "out",
        "segments",
        "Happiness",
        "--model",
        "own",
        "--smooth",
        "median:0.2s",
    ]);
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/no_numbers.py");
    let mut python = Command::new(python());
    python.current_dir(folder).arg(check);
    succeed(python.args(["out", "means.csv", "report.json", "abaw"]));
    ask(&[
        "render",
        "videos/clip.mkv",
        "--labels",
        "out",
        "--model",
        "own",
        "-o",
        "drawn.mp4",
    ]);

    // Held against annotations, a face without numbers was not compared.
    fs::create_dir(folder.join("truth")).unwrap();
    let truth = format!("valence,arousal\n{}", "0.5,0.5\n".repeat(40));
    fs::write(folder.join("truth/faces.txt"), truth).unwrap();
    let evaluated = ask(&[
        "evaluate",
        "out",
        "--model",
        "own",
        "--annotations",
        "truth",
        "--split",
        "all",
        "--json",
    ]);
    let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
    let frames = &evaluated["frames"]["va"];
    assert_eq!(
        (&frames["scored"], &frames["no_value"]),
        (&30.into(), &10.into()),
        "{evaluated}"
    );

    // The face itself is there for other models to take over.
    let weights = folder.join("square.safetensors");
    let kind = [
        "init-weights",
        "--kind",
        "mini_xception",
        "--seed",
        "1",
        "--crop",
        "square",
        "-o",
    ];
    succeed(affectmill().args(kind).arg(&weights));
    let later = format!(
        "[input]\nuri = \"videos\"\n[faces]\nmode = \"from_labels\"\nlabels = {:?}\ncrop = \"square\"\n\
         [[models]]\nname = \"later\"\nkind = \"mini_xception\"\nweights = {weights:?}\n[output]\nuri = \"later\"\n",
        project.output("out")
    );
    fs::write(project.job(), later).unwrap();
    project.run("later", &[], 0);
    let faces = |output: &str| -> Vec<_> {
        let rows = rows(&project.output(output)).into_iter();
        rows.map(|row| (row.video, row.frame, row.face)).collect()
    };
    assert_eq!(faces("later"), faces("out"));
    assert!(
        rows(&project.output("later"))
            .iter()
            .all(|row| row.status == "ok")
    );
}

#[test]
fn spans_keep_faces_without_numbers_as_they_are() {
    let project = project();
    clip(&project.videos().join("long.mkv"), 900);
    let sets = ["run.batch=8", "output.crops=webdataset"];
    project.run("calm", &sets, 3);
    let (calm, stormy) = (project.output("calm"), project.output("stormy"));
    let sets = [&sets[..], &["run.span_frames=30"]].concat();
    let resumed = storm(project.command("stormy", &sets), &stormy, 4);
    assert!(!resumed.is_empty());
    assert_same_labels(&calm, &stormy);
    assert!(
        tree(&calm.join("crops")) == tree(&stormy.join("crops")),
        "crops differ"
    );
    assert_eq!(videos(&calm), videos(&stormy));
    let dark = rows(&stormy)
        .iter()
        .filter(|row| row.status == "not_finite")
        .count();
    assert_eq!(dark, 450);
}

#[test]
fn a_model_that_gives_no_numbers_for_most_faces_ends_the_run() {
    let project = project();
    pictures(&project.videos().join("a"), 1_100, |_| 20);
    let one = project.run("one", &[], 3);
    assert!(
        stderr(&one).contains("1,100 faces for which"),
        "one video may be at fault: {}",
        stderr(&one)
    );
    pictures(&project.videos().join("b"), 10, |_| 20);
    let sets = ["output.shard_frames=5000", "run.workers=1"];
    let done = project.run("two", &sets, 4);
    let said = ["model `own` gave NaN or an infinity for", "check its weights"];
    assert!(
        said.iter().all(|words| stderr(&done).contains(words)),
        "{}",
        stderr(&done)
    );
    assert!(!project.output("two").join("_SUCCESS").exists());
}
