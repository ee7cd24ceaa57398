//! Means and deviations over members and mirrored faces, from the numbers of the members themselves.

use super::common::*;
use std::fs;
use std::path::Path;

/// A job of two students, and of ensembles of them.
fn job(project: &Project, input: &str, models: &[&str]) {
    let folder = project.dir.path();
    let model = |name: &&str| {
        let rest = match *name {
            "a" => "weights = \"a.safetensors\"",
            "b" => "weights = \"b.safetensors\"",
            "both" => "weights = \"a.safetensors\"\nalso = [\"b.safetensors\"]",
            "mirrored" => "weights = \"a.safetensors\"\nflip = true",
            _ => "weights = \"a.safetensors\"\nalso = [\"b.safetensors\"]\nflip = true",
        };
        format!("[[models]]\nname = \"{name}\"\nkind = \"student\"\n{rest}\n")
    };
    let models: String = models.iter().map(model).collect();
    let job = format!(
        "[input]\nuri = \"{input}\"\n[faces]\nmode = \"full_frame\"\n{models}[output]\nuri = \"out\"\n[run]\nbatch = 7\n"
    );
    fs::write(folder.join("job.toml"), job).unwrap();
}

/// Every number of a model: its outputs' names, each with the values of all rows.
fn numbers(output: &Path, model: &str, suffix: &str) -> Vec<Vec<f32>> {
    let prefix = format!("{model}_");
    let ends = |name: &str| match suffix {
        "" => !name.ends_with("_p") && !name.ends_with("_sd") && !name.ends_with("_expression"),
        suffix => name.ends_with(suffix),
    };
    let names = columns(output).into_iter();
    let names = names.filter(|name| name.starts_with(&prefix) && ends(name));
    let values = names.map(|name| floats(output, &name).into_iter().flatten());
    values.map(Iterator::collect).collect()
}

#[test]
fn an_ensemble_is_the_mean_of_its_looks_and_says_how_they_differ() {
    let project = Project::new();
    fs::copy(weights("student"), project.output("a.safetensors")).unwrap();
    let init = [
        "init-weights",
        "--seed",
        "8",
        "--kind",
        "student",
        "--crop",
        "arcface112",
        "-o",
    ];
    succeed(affectmill().args(init).arg(project.output("b.safetensors")));
    fs::create_dir(project.output("mirror")).unwrap();
    let source = video("carphone_pristine.mp4");
    // Full chroma: where it is halved, its samples do not lie in the middle, and the mirrored video is not the mirrored face.
    let whole = "format=yuv444p";
    for (filter, path) in [
        (whole, "videos/clip.mkv"),
        ("format=yuv444p,hflip", "mirror/clip.mkv"),
    ] {
        let path = project.output(path);
        let lossless = ["-an", "-frames:v", "9", "-c:v", "ffv1", "-vf", filter];
        let mut arguments = vec!["-i", source.to_str().unwrap()];
        arguments.extend(lossless);
        arguments.push(path.to_str().unwrap());
        ffmpeg(&arguments);
    }
    job(&project, "videos", &["a", "b", "both", "mirrored", "all"]);
    project.run("out", &[], 0);
    job(&project, "mirror", &["a", "b"]);
    project.run("mirrored", &[], 0);

    let (out, mirror) = (project.output("out"), project.output("mirrored"));
    let [a, b] = ["a", "b"].map(|model| numbers(&out, model, ""));
    let [c, d] = ["a", "b"].map(|model| numbers(&mirror, model, ""));
    assert_eq!((a.len(), a[0].len()), (21, 9));
    for (model, looks) in [
        ("both", vec![&a, &b]),
        ("mirrored", vec![&a, &c]),
        ("all", vec![&a, &b, &c, &d]),
    ] {
        let (means, deviations) = (numbers(&out, model, ""), numbers(&out, model, "_sd"));
        assert_eq!((means.len(), deviations.len()), (21, 21), "{:?}", columns(&out));
        let mut apart = 0.0_f64;
        for output in 0..21 {
            for row in 0..9 {
                let values: Vec<f64> = looks.iter().map(|look| f64::from(look[output][row])).collect();
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                // The other form of the variance: mean of squares less square of the mean.
                let squares = values.iter().map(|value| value * value).sum::<f64>() / count;
                let deviation = (squares - mean * mean).max(0.0).sqrt();
                apart = apart.max((f64::from(means[output][row]) - mean).abs());
                apart = apart.max((f64::from(deviations[output][row]) - deviation).abs());
            }
        }
        println!("{model}: off by at most {apart:.1e}");
        // Mirrored samples are summed in another order.
        assert!(apart < 2e-5, "{model}: {apart}");
    }
    let columns = columns(&out);
    let at = |name: &str| columns.iter().position(|column| column == name).expect(name);
    assert_eq!(at("both_valence_sd"), at("both_arousal") + 1);
    assert_eq!(at("both_expr_Neutral_sd"), at("both_expr_Surprise_p") + 1);
    assert_eq!(at("both_AU1_sd"), at("both_AU26_p") + 1);
    assert!(!columns.contains(&"a_valence_sd".to_owned()));

    a_calibration_is_of_all_members(&project);

    // Spans keep the deviations; other members are another label set.
    job(&project, "videos", &["a", "b", "both", "mirrored", "all"]);
    project.run("spans", &["run.span_frames=4"], 0);
    assert_same_labels(&out, &project.output("spans"));
    let refused = project.run("out", &["models.mirrored.flip=false"], 2);
    assert!(
        stderr(&refused).contains("models.mirrored.flip"),
        "{}",
        stderr(&refused)
    );
    let missing = project.run("other", &["models.all.also=[\"none.safetensors\"]"], 2);
    assert!(
        stderr(&missing).contains("none.safetensors"),
        "{}",
        stderr(&missing)
    );
}

/// Each kept beside the first one's weights in a file of its own, and of no use to another one with those weights.
fn a_calibration_is_of_all_members(project: &Project) {
    let annotations = project.output("clip.txt");
    fs::write(
        &annotations,
        "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n0\n1\n2\n3\n4\n5\n6\n0\n0\n",
    )
    .unwrap();
    let evaluate = |model: &str, argument: &str| {
        let mut command = affectmill();
        command
            .arg("evaluate")
            .arg(project.output("out"))
            .arg("--annotations")
            .arg(&annotations);
        command.args(["--model", model, argument]).output().unwrap()
    };
    let calibrations = || -> Vec<String> {
        let files = fs::read_dir(project.dir.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".calibration.json")).collect()
    };
    let models = ["a", "both", "mirrored", "all"];
    for (before, model) in models.into_iter().enumerate() {
        let untuned = evaluate(model, "--apply");
        assert_eq!(untuned.status.code(), Some(2));
        assert!(
            stderr(&untuned).contains("--tune` makes one"),
            "{}",
            stderr(&untuned)
        );
        let tuned = evaluate(model, "--tune");
        assert!(tuned.status.success(), "{}", stderr(&tuned));
        assert_eq!(calibrations().len(), before + 1, "{:?}", calibrations());
    }
    assert!(project.output("a.calibration.json").exists());
    for model in models {
        let applied = evaluate(model, "--apply");
        assert!(applied.status.success(), "{model}: {}", stderr(&applied));
    }
    let single = format!("--apply={}", project.output("a.calibration.json").display());
    let refused = evaluate("both", &single);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("was tuned for other weights"),
        "{}",
        stderr(&refused)
    );
}
