//! `affectmill report`: its figures are those of an independent count, and its page is quiet in a real browser.

use super::common::*;
use base64::Engine;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs a script of `tests/suite/report/`.
fn script(name: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suite/report")
        .join(name);
    succeed(Command::new(python()).arg("-B").arg(path).args(arguments))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn close(ours: &Value, theirs: &Value) {
    let (ours, theirs) = (
        ours.as_f64().expect("a number"),
        theirs.as_f64().expect("a number"),
    );
    assert!((ours - theirs).abs() < 1e-6, "{ours} is not {theirs}");
}

/// The same value of each entry of a list.
fn each(list: &Value, field: &str) -> Value {
    let entries = list.as_array().expect("a list").iter();
    entries.map(|entry| entry[field].clone()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Two parts, of which one is longer than what is read at once; names of videos as an enemy would choose them.
#[test]
fn figures_are_those_of_an_independent_count_and_the_page_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    for values in ["both", "logits"] {
        let labels = folder.path().join(values);
        let labels = labels.to_str().unwrap();
        script("label_set.py", &["make", labels, "75000", values]);
        let page = folder.path().join("page.html");
        let mut command = affectmill();
        command.args(["report", labels, "--json", "-o"]).arg(&page);
        let ours = json(&succeed(&mut command));
        let shown = ours["timelines"][0]["video"].as_str().unwrap();
        let theirs = json(&script("label_set.py", &["count", labels, shown]));

        let corpus = &ours["corpus"];
        for field in ["rows", "faces", "frames"] {
            assert_eq!(corpus[field], theirs[field], "{field}");
        }
        for (field, status) in [
            ("frames_labelled", "ok"),
            ("no_face", "no_face"),
            ("decode_error", "decode_error"),
        ] {
            assert_eq!(corpus[field], theirs["statuses"][status], "{status}");
        }
        assert_eq!(ours["failures"]["classes"]["corrupt"], 2);
        let planes = list(&ours["valence_arousal"]).iter().zip(list(&theirs["planes"]));
        for (plane, counted) in planes {
            for (at, axis) in ["valence", "arousal"].into_iter().enumerate() {
                close(&plane[axis]["mean"], &counted["mean"][at]);
                close(&plane[axis]["deviation"], &counted["deviation"][at]);
            }
            assert_eq!(plane["density"], counted["density"]);
        }
        for (model, counted) in list(&ours["expressions"])
            .iter()
            .zip(list(&theirs["expressions"]))
        {
            assert_eq!(model["faces"], counted["faces"]);
            close(&model["mean_confidence"], &counted["mean_confidence"]);
        }
        assert_eq!(
            each(&ours["action_units"], "active"),
            each(&theirs["units"], "active")
        );
        let agreement = &ours["agreement"];
        let concordance = list(&agreement["valence_arousal"])
            .iter()
            .zip(list(&theirs["ccc"]));
        for (pair, counted) in concordance {
            close(&pair["valence"], &counted[0]);
            close(&pair["arousal"], &counted[1]);
        }
        assert_eq!(each(&agreement["expressions"], "faces"), theirs["confusion"]);
        for (pair, counted) in list(&agreement["expressions"]).iter().zip(list(&theirs["kappa"])) {
            close(&pair["kappa"], counted);
        }
        for (pair, counted) in list(&agreement["action_units"])
            .iter()
            .zip(list(&theirs["unit_kappa"]))
        {
            for (unit, counted) in list(&pair["units"]).iter().zip(list(counted)) {
                close(&unit["kappa"], counted);
            }
        }
        let videos: u64 = list(&ours["drift"])
            .iter()
            .filter_map(|stretch| stretch["videos"].as_u64())
            .sum();
        assert_eq!(Value::from(videos), theirs["videos_with_faces"]);
        close(&ours["faces"]["most"][0]["confidence"], &theirs["most"]);
        close(&ours["faces"]["least"][0]["confidence"], &theirs["least"]);
        assert!(list(&ours["timelines"][0]["points"]).len() > 200);
    }

    let page = folder.path().join("page.html");
    let seen = json(&script("browser.py", &[page.to_str().unwrap()]));
    for (view, seen) in seen.as_object().unwrap() {
        assert_eq!(seen["errors"], Value::Array(Vec::new()), "{view}");
        assert_eq!(seen["requests"], Value::Array(Vec::new()), "{view}");
        assert_eq!(seen["beyond"], 0, "{view}: wider than the window");
        assert_eq!(seen["unfilled"], 0, "{view}: a colour is unknown");
        assert_eq!(seen["figures"], 75_000, "{view}");
        // The figures, which are data. A name that became markup would add to either.
        assert_eq!(seen["scripts"], 1, "{view}");
        assert_eq!(seen["pictures"], 0, "{view}");
    }
    assert_ne!(seen["desk"]["background"], seen["desk-dark"]["background"]);
}

#[test]
fn crops_are_those_of_the_faces_and_choices_are_heeded() {
    let project = Project::new().synthetic(2, 12);
    project.run("out", &["output.crops=webdataset", "output.shard_frames=12"], 0);
    let out = project.output("out");
    let report = |arguments: &[&str]| {
        let mut command = affectmill();
        command.arg("report").arg(&out).args(arguments);
        command
    };
    let page = project.output("page.html");
    let page = page.to_str().unwrap();
    let figures = json(&succeed(&mut report(&[
        "--faces",
        "3",
        "--video",
        "clip01.mp4",
        "--json",
        "-o",
        page,
    ])));
    assert_eq!(
        each(&figures["timelines"], "video"),
        Value::from(vec!["clip01.mp4"])
    );
    let html = fs::read_to_string(page).unwrap();
    let faces = ["most", "least"].map(|end| list(&figures["faces"][end]));
    for face in faces.into_iter().flatten() {
        let shard = face["shard"].as_str().unwrap();
        let name = format!(
            "{}/{:09}-{:03}.jpg",
            face["video"].as_str().unwrap(),
            face["frame"].as_i64().unwrap(),
            face["face"].as_i64().unwrap()
        );
        let tar = out.join(format!("crops/part-{shard}.tar"));
        let member = Command::new("tar")
            .arg("-xOf")
            .arg(tar)
            .arg(&name)
            .output()
            .unwrap();
        let picture = base64::engine::general_purpose::STANDARD.encode(member.stdout);
        assert!(
            html.contains(&format!("data:image/jpeg;base64,{picture}")),
            "{name}"
        );
    }
    for (arguments, code, says) in [
        (
            &["--video", "other.mp4", "--json"][..],
            2,
            "has no rows of a video `other.mp4`",
        ),
        (&[][..], 2, "--out <FILE.html>"),
        (&["-o", "/nowhere/page.html"][..], 2, "make its folder first"),
    ] {
        let output = report(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}
