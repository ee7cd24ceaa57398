//! `affectmill train`: what was labelled is learnt from, whatever is killed whenever.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Crops of two synthetic videos with the labels of mini-Xception, and a train job over them that takes seconds: the pyramid
/// alone learns.
fn project() -> Project {
    let project = Project::new().synthetic(2, 12);
    project.run("labelled", &["output.crops=webdataset"], 0);
    fs::write(
        project.output("train.toml"),
        "[train]\nrecipe = \"teacher\"\ntask = \"expr\"\nepochs = 2\nepoch_share = 1.0\nbatch = 4\ntrainable_layers = 0\n\
         [data]\ncrops = \"labelled/crops\"\nexpr_teacher = \"mini_xception\"\n[validation]\nshare = 0.5\n\
         [output]\npath = \"model\"\n[run]\ndevice = \"cpu\"\nthreads = 1\ncheckpoint_steps = 2\n",
    )
    .unwrap();
    project
}

fn command(project: &Project, output: &str, sets: &[&str]) -> Command {
    let mut command = project.program();
    command.arg("train").arg(project.output("train.toml"));
    command
        .arg("--set")
        .arg(format!("output.path={:?}", project.output(output)));
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

fn train(project: &Project, output: &str, sets: &[&str], code: i32) -> Output {
    let done = command(project, output, sets)
        .output()
        .expect("affectmill starts");
    assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
    done
}

fn files(project: &Project, output: &str) -> Vec<(PathBuf, Vec<u8>)> {
    [
        "best.safetensors",
        "checkpoint.safetensors",
        "curves.jsonl",
        "curves.svg",
    ]
    .into_iter()
    .map(|name| {
        let path = project.output(output).join(name);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (PathBuf::from(name), bytes)
    })
    .collect()
}

fn assert_same(project: &Project, calm: &[(PathBuf, Vec<u8>)], output: &str) {
    for ((name, calm), (_, stormy)) in calm.iter().zip(files(project, output)) {
        assert!(*calm == stormy, "{} differs", name.display());
    }
}

#[test]
fn killed_at_random_and_gone_on_with_it_ends_in_the_same_weights() {
    let project = project();
    let began = Instant::now();
    train(&project, "calm", &[], 0);
    let longest = began.elapsed().as_millis() as u64;
    let calm = files(&project, "calm");
    let lines = String::from_utf8(calm[2].1.clone()).unwrap();
    assert_eq!(
        lines.lines().count(),
        2 * 3 + 2,
        "a line a step and a line an epoch:\n{lines}"
    );

    let mut dice = Dice::new();
    let times = if soak() { 40 } else { 3 };
    let (mut kills, mut round) = (0, 0);
    while kills < times {
        let output = format!("stormy{round}");
        let mut child = command(&project, &output, &["run.loaders=1"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(dice.roll(longest)));
        if child.try_wait().unwrap().is_none() {
            signal(child.id(), "KILL");
            kills += 1;
        }
        if child.wait().unwrap().success() {
            assert_same(&project, &calm, &output);
            round += 1;
        }
    }
    let output = format!("stormy{round}");
    train(&project, &output, &[], 0);
    assert_same(&project, &calm, &output);

    // The weights are what `run` takes, and say how the faces were cropped.
    let weights = project.output("calm").join("best.safetensors");
    let weights = weights.to_str().unwrap();
    let job = fs::read_to_string(project.job()).unwrap();
    let models =
        format!("[[models]]\nname = \"ours\"\nkind = \"teacher_expr\"\nweights = {weights:?}\n[output]");
    let (before, rest) = job.split_once("[[models]]").unwrap();
    let (_, after) = rest.split_once("[output]").unwrap();
    fs::write(project.job(), format!("{before}{models}{after}")).unwrap();
    project.run("again", &[], 0);
    let summary = succeed(affectmill().arg("summary").arg(project.output("again")));
    assert!(!summary.contains("UNTRAINED"), "{summary}");
}

#[test]
fn a_stop_is_gone_on_with_and_what_cannot_be_is_refused() {
    let project = project();
    let mut run = Running::start(command(&project, "model", &[]));
    run.until("step");
    run.signal("TERM");
    assert_eq!(run.wait(), Some(75));
    let said = |output: &Output| stderr(output).replace(&format!("{}/", project.dir.path().display()), "");

    // Another job, or other data, into the same folder.
    let other = train(&project, "model", &["train.batch=6"], 2);
    assert!(said(&other).contains("another train.batch"), "{}", said(&other));
    let other = train(
        &project,
        "model",
        &[
            "validation.by=videos",
            "validation.videos=[\"clip01\", \"clip00\"]",
        ],
        2,
    );
    assert!(
        said(&other).contains("no video is trained on"),
        "{}",
        said(&other)
    );

    let mut run = Running::start(command(&project, "model", &[]));
    let started = run.until("started");
    assert!(started["resumed"].as_u64().unwrap() >= 1, "{started}");
    assert_eq!(run.wait(), Some(0));
    let more = train(&project, "model", &["train.epochs=3", "train.patience=1"], 0);
    assert!(said(&more).contains("done, "), "{}", said(&more));

    let lost = train(&project, "lost", &["optimiser.lr=1e30"], 4);
    for words in [
        "the loss is",
        "epoch 1, step 2, of a batch of 4 faces that begins with `clip0",
        "frame",
        "optimiser.lr",
    ] {
        assert!(said(&lost).contains(words), "{words}: {}", said(&lost));
    }
    let unknown = train(&project, "lost", &["train.epoch=4"], 2);
    assert!(
        said(&unknown).contains("did you mean `epochs`?"),
        "{}",
        said(&unknown)
    );
    let needless = train(&project, "lost", &["data.image_crop=square"], 2);
    assert!(
        said(&needless).contains("`data.image_crop` has no effect without `data.images`"),
        "{}",
        said(&needless)
    );
    let unknown = train(&project, "lost", &["data.expr_teacher=fer"], 2);
    assert!(
        said(&unknown).contains("is `fer` a model of that run? It has mini_xception"),
        "{}",
        said(&unknown)
    );
}

#[test]
fn parts_of_a_batch_and_half_precision_learn_the_same() {
    let project = project();
    let losses = |output: &str, sets: &[&str]| -> Vec<f64> {
        train(
            &project,
            output,
            &[sets, &["train.epochs=1", "train.trainable_layers=1"]].concat(),
            0,
        );
        let lines = fs::read_to_string(project.output(output).join("curves.jsonl")).unwrap();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|line| line["loss"].as_f64()).collect()
    };
    let whole = losses("whole", &[]);
    assert_eq!(whole.len(), 3);
    for (loss, expected) in losses("parts", &["train.accumulate=3"]).iter().zip(&whole) {
        assert!(
            (loss - expected).abs() < 1e-4 * expected,
            "{loss} is not {expected}"
        );
    }
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    if ["avx512bw", "avx512vl", "avx512dq"]
        .iter()
        .all(|flag| flags.contains(flag))
    {
        for (loss, expected) in losses("half", &["train.precision=bf16"]).iter().zip(&whole) {
            assert!(
                (loss - expected).abs() < 0.05 * expected,
                "{loss} is not near {expected}"
            );
        }
    }
}

/// Lines of the curves that are epochs.
fn epochs(project: &Project, output: &str) -> Vec<Value> {
    let lines = fs::read_to_string(project.output(output).join("curves.jsonl")).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["score"].is_number()).collect()
}

/// Names of the weights in a training's folder, in order.
fn kept(project: &Project, output: &str) -> Vec<String> {
    let files = fs::read_dir(project.output(output)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    names.sort();
    names
}

/// One step an epoch, which is as fast as an epoch gets.
const SHORT: &str = "train.batch=12";

#[test]
fn the_best_epochs_are_kept_and_the_others_removed() {
    let project = project();
    // Large steps, so that later is not always better.
    let sets = [SHORT, "train.epochs=5", "output.keep=2", "optimiser.lr=0.02"];
    train(&project, "model", &sets, 0);
    let epochs = epochs(&project, "model");
    assert_eq!(epochs.len(), 5);
    let mut ranked: Vec<(f64, u64)> = epochs
        .iter()
        .map(|line| (line["score"].as_f64().unwrap(), line["epoch"].as_u64().unwrap()))
        .collect();
    // Of equal ones the earlier is the better.
    ranked.sort_by(|(a, first), (b, second)| b.total_cmp(a).then(first.cmp(second)));
    println!("{ranked:?}");
    let mut expected = vec!["best.safetensors".to_owned(), "checkpoint.safetensors".to_owned()];
    expected.extend(
        ranked[..2]
            .iter()
            .map(|(_, epoch)| format!("epoch-{epoch:04}.safetensors")),
    );
    expected.sort();
    assert_eq!(kept(&project, "model"), expected, "{ranked:?}");
    let read = |name: &str| fs::read(project.output("model").join(name)).unwrap();
    let best = format!("epoch-{:04}.safetensors", ranked[0].1);
    assert!(read("best.safetensors") == read(&best), "the best is not {best}");

    // Where one is kept, it is the best alone.
    train(&project, "one", &[SHORT, "train.epochs=3"], 0);
    assert_eq!(
        kept(&project, "one"),
        ["best.safetensors", "checkpoint.safetensors"]
    );
}

#[test]
fn patience_ends_a_training_that_gets_no_better() {
    let project = project();
    // Weights that do not change are as good in every epoch. (Such a number is another one when it is read back, which must not
    // keep the training from going on.)
    let idle = [SHORT, "train.epochs=9", "optimiser.lr=1e-30"];
    let done = train(&project, "model", &[&idle[..], &["train.patience=2"]].concat(), 0);
    let said = stderr(&done);
    assert!(
        said.contains("no better score for `train.patience` epochs; the best is epoch 1 "),
        "{said}"
    );
    assert_eq!(epochs(&project, "model").len(), 3);
    // With more of it, it goes on from there.
    train(&project, "model", &[&idle[..], &["train.patience=4"]].concat(), 0);
    assert_eq!(epochs(&project, "model").len(), 5);
}

#[test]
fn somebody_elses_files_are_never_trained_over() {
    let project = project();
    fs::create_dir(project.output("model")).unwrap();
    for name in [
        "epoch-0001.safetensors",
        "best.safetensors",
        "curves.jsonl",
        "curves.svg",
    ] {
        let path = project.output("model").join(name);
        fs::write(&path, "mine").unwrap();
        let refused = train(&project, "model", &[SHORT], 2);
        let said = stderr(&refused);
        assert!(
            said.contains(&format!("holds a `{name}` and no checkpoint")) && said.contains("another folder"),
            "{said}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_file(path).unwrap();
    }
    assert_eq!(fs::read_dir(project.output("model")).unwrap().count(), 0);
    // What training never writes is in nobody's way.
    fs::write(project.output("model/notes.txt"), "mine").unwrap();
    train(&project, "model", &[SHORT, "train.epochs=1"], 0);
    assert_eq!(fs::read(project.output("model/notes.txt")).unwrap(), b"mine");
}

#[test]
fn weights_that_say_no_number_are_never_the_best() {
    let project = project();
    // One step makes them huge, and what they say of the held-out faces overflows.
    let lost = train(&project, "model", &[SHORT, "optimiser.lr=1e30"], 4);
    let said = stderr(&lost);
    for words in [
        "at epoch 1, step 1, of the 12 faces that are held out",
        "no weights were kept yet",
        "optimiser.lr",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(kept(&project, "model"), ["checkpoint.safetensors"]);
    assert!(epochs(&project, "model").is_empty());
}

/// What weights state of themselves.
fn metadata(weights: &std::path::Path) -> Value {
    let bytes = fs::read(weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    serde_json::from_slice::<Value>(&bytes[8..8 + length]).unwrap()["__metadata__"].clone()
}

#[test]
fn pictures_that_were_replaced_are_not_gone_on_with_and_their_crop_is_stated_or_none() {
    let project = Project::new();
    let folder = |name: &str| project.output("faces").join(name);
    let pictures = |video: &str, hue: &str| {
        fs::create_dir_all(folder(video)).unwrap();
        let source = format!("testsrc2=s=112x112:r=4:d=1,hue=h={hue}");
        // Every one has the same size.
        ffmpeg(&[
            "-f",
            "lavfi",
            "-i",
            &source,
            folder(video).join("%05d.bmp").to_str().unwrap(),
        ]);
    };
    fs::create_dir(project.output("annotations")).unwrap();
    for (video, hue) in [("a", "0"), ("b", "90")] {
        pictures(video, hue);
        let text = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n0\n1\n2\n3\n";
        fs::write(project.output(&format!("annotations/{video}.txt")), text).unwrap();
    }
    let job = "[train]\nrecipe = \"teacher\"\ntask = \"expr\"\nepochs = 1\nepoch_share = 1.0\nbatch = 4\ntrainable_layers = 0\n\
               [data]\nimages = \"faces\"\nannotations = \"annotations\"\n[validation]\nshare = 0.5\n\
               [output]\npath = \"model\"\n[run]\ndevice = \"cpu\"\nthreads = 1\n";
    fs::write(project.output("train.toml"), job).unwrap();
    let told = stderr(&train(&project, "model", &[], 0));
    assert!(
        told.contains("how these faces were cropped is not stated"),
        "{told}"
    );
    let crop = || metadata(&project.output("model/best.safetensors"))["affectmill.crop"].clone();
    assert_eq!(crop(), Value::Null);
    let more = train(
        &project,
        "model",
        &["train.epochs=2", "data.image_crop=square"],
        0,
    );
    assert!(!stderr(&more).contains("is not stated"), "{}", stderr(&more));

    let one = folder("a").join("00002.bmp");
    let (bytes, changed) = (
        fs::read(&one).unwrap(),
        fs::metadata(&one).unwrap().modified().unwrap(),
    );
    pictures("a", "180");
    let refused = stderr(&train(&project, "model", &["train.epochs=3"], 2));
    assert!(
        refused.contains("sizes or dates of files in `data.images` have changed"),
        "{refused}"
    );
    // One that is as it was, among others of today.
    fs::write(&one, &bytes).unwrap();
    fs::File::open(&one).unwrap().set_modified(changed).unwrap();
    train(&project, "model", &["train.epochs=3"], 2);
    // Into another folder they are as good as any.
    train(&project, "other", &["data.image_crop=arcface112"], 0);
    assert_eq!(
        metadata(&project.output("other/best.safetensors"))["affectmill.crop"],
        "arcface112"
    );

    // A checkpoint of an affectmill that did not look at pictures.
    let checkpoint = project.output("model/checkpoint.safetensors");
    let (before, bytes) = (metadata(&checkpoint), fs::read(&checkpoint).unwrap());
    let mut record: Value = serde_json::from_str(before["affectmill.training"].as_str().unwrap()).unwrap();
    let pictures = record.as_object_mut().unwrap().remove("pictures").unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&rest[..length]).unwrap();
    header["__metadata__"]["affectmill.training"] = record.to_string().into();
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    fs::write(
        &checkpoint,
        [
            &(header.len() as u64).to_le_bytes(),
            header.as_bytes(),
            &rest[length..],
        ]
        .concat(),
    )
    .unwrap();
    train(&project, "model", &["train.epochs=3"], 0);
    let after = metadata(&checkpoint);
    let record: Value = serde_json::from_str(after["affectmill.training"].as_str().unwrap()).unwrap();
    assert!(
        record["pictures"].is_string() && record["pictures"] != pictures,
        "{record}"
    );
}
