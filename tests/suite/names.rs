//! Names of videos as people, other tools and other systems write them.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::process::Command;

const COMPOSED: &str = "caf\u{e9}.mp4";
/// As macOS stores it.
const DECOMPOSED: &str = "cafe\u{301}.mp4";

#[test]
fn a_video_is_found_however_its_accents_are_stored() {
    let project = Project::new();
    synthetic(&project.videos().join(DECOMPOSED), 6, 1);
    fs::write(project.videos().join("nai\u{308}f.mp4"), "no video").unwrap();
    project.run("out", &[], 3);
    let out = project.output("out");

    let annotations = project.output("annotations");
    fs::create_dir(&annotations).unwrap();
    fs::write(
        annotations.join("caf\u{e9}.txt"),
        format!("Neutral,Anger\n{}", "1\n".repeat(6)),
    )
    .unwrap();
    let mut evaluate = affectmill();
    evaluate
        .arg("evaluate")
        .arg(&out)
        .arg("--annotations")
        .arg(&annotations);
    let report: Value = serde_json::from_str(&succeed(evaluate.args(["--samples", "0", "--json"]))).unwrap();
    assert_eq!(report["frames"]["expr"]["scored"], 6, "{report}");
    assert_eq!(report["without_labels"], Value::Array(Vec::new()));

    let mut page = affectmill();
    page.arg("report").arg(&out).args(["--json", "--video", COMPOSED]);
    assert!(succeed(&mut page).contains(DECOMPOSED));
    let copy = project.output(COMPOSED);
    fs::copy(project.videos().join(DECOMPOSED), &copy).unwrap();
    for video in [COMPOSED.as_ref(), copy.as_os_str()] {
        let mut render = affectmill();
        render.arg("render").arg(video).arg("--labels").arg(&out);
        assert!(succeed(render.arg("-o").arg(project.output("film.mp4"))).contains("(6 frames)"));
    }
    let told = stderr(&project.retry("out", &["--video", "na\u{ef}f.mp4"], 3));
    assert!(told.contains("labelling 1 video again"), "{told}");

    // Another output of the same videos, copied from a system that stores names composed, takes their faces over and is held
    // against the first.
    let job = fs::read_to_string(project.job()).unwrap();
    fs::create_dir(project.output("copied")).unwrap();
    fs::rename(copy, project.output("copied").join(COMPOSED)).unwrap();
    let job = job
        .replace("uri = \"videos\"", "uri = \"copied\"")
        .replace(
            "mode = \"full_frame\"",
            "mode = \"from_labels\"\nlabels = \"out\"\ncrop = \"box\"",
        )
        .replace(
            "kind = \"mini_xception\"",
            "kind = \"mini_xception\"\ncrop = \"box\"",
        );
    fs::write(project.job(), job).unwrap();
    let weights = project.output("box.safetensors");
    let mut import = affectmill();
    import
        .arg("import-weights")
        .arg(self::weights("mini_xception"))
        .args(["--crop", "box", "-o"])
        .arg(&weights);
    succeed(&mut import);
    project.run(
        "again",
        &[&format!("models.mini_xception.weights={weights:?}")],
        0,
    );
    assert_eq!(rows(&project.output("again")).len(), 6);
    let mut evaluate = affectmill();
    evaluate
        .arg("evaluate")
        .arg(&out)
        .arg("--annotations")
        .arg(project.output("again"));
    let report: Value = serde_json::from_str(&succeed(evaluate.args(["--samples", "0", "--json"]))).unwrap();
    assert_eq!(report["frames"]["expr"]["annotated"], 6, "{report}");
    assert_eq!(report["without_labels"], Value::Array(Vec::new()));
}

/// Clears a screen, colours it, begins a line of its own, and turns the writing about.
const HOSTILE: &str = "esc\u{1b}[2J\u{9b}31m\nfinished: 9 rows\u{202e}4pm.mp4";
const FORMULAS: [&str; 3] = ["=1+1.mp4", "+SUM(A1).mp4", "@x/-y.mp4"];

/// What was printed, without anything that acts but line breaks.
fn harmless(output: std::process::Output) -> String {
    let printed = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .concat();
    for c in printed.chars() {
        let acts = c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!acts, "{c:?} in {printed:?}");
    }
    assert!(
        !printed.contains("\nfinished: 9 rows"),
        "a name begins a line: {printed}"
    );
    printed
}

#[test]
fn names_act_on_no_terminal() {
    let project = Project::new();
    synthetic(&project.videos().join("a.mp4"), 2, 1);
    fs::copy(project.videos().join("a.mp4"), project.videos().join(HOSTILE)).unwrap();
    let bad = HOSTILE.replace("esc", "bad");
    fs::write(project.videos().join(&bad), "no video").unwrap();
    let out = project.output("out");
    let planned = harmless(affectmill().arg("plan").arg(project.job()).output().unwrap());
    assert!(
        planned.contains("\\u001b[2J\\u009b31m\\nfinished: 9 rows\\u202e4pm.mp4"),
        "{planned}"
    );
    let told = harmless(project.run("out", &[], 3));
    assert!(told.contains("failed (corrupt): bad\\u001b[2J"), "{told}");
    let events = harmless(
        project
            .command("again", &["run.workers=1"])
            .arg("--json")
            .output()
            .unwrap(),
    );
    let names = events.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        Some(event["video"].as_str()?.to_owned())
    });
    assert!(
        names.collect::<Vec<_>>().contains(&bad),
        "JSON names the videos as they are: {events}"
    );
    let annotations = project.output("annotations");
    fs::create_dir(&annotations).unwrap();
    fs::write(
        annotations.join(HOSTILE.replace("mp4", "txt")),
        "Neutral,Anger\n1\n0\n",
    )
    .unwrap();
    fs::write(annotations.join("stray\u{1b}[2J.txt"), "\u{1b}[31m\n").unwrap();
    let page = project.output("page.html");
    for (command, rest) in [
        ("status", vec![]),
        ("summary", vec![]),
        ("query", vec!["means"]),
        ("query", vec!["curve", "Anger"]),
        ("report", vec!["-o", page.to_str().unwrap()]),
        ("report", vec!["--json"]),
        ("report", vec!["--json", "--video", "no\u{1b}[2J"]),
        (
            "evaluate",
            vec![
                "--samples",
                "0",
                "--by",
                "video",
                "--annotations",
                annotations.to_str().unwrap(),
            ],
        ),
        ("retry", vec!["--video", "no\u{1b}[2J"]),
        ("retry", vec![]),
    ] {
        let printed = harmless(affectmill().arg(command).arg(&out).args(rest).output().unwrap());
        assert!(!printed.is_empty(), "{command}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("\\u001b[2J") && !page.contains(['\u{1b}', '\u{9b}', '\u{202e}']));
    let mut render = affectmill();
    render
        .args(["render", &bad, "-o", "film.mp4", "--labels"])
        .arg(&out);
    harmless(render.output().unwrap());
    // The labels have the names themselves.
    assert!(rows(&out).iter().any(|row| row.video == HOSTILE));
}

/// Reads a CSV as Python's `csv` and a spreadsheet's user do.
const READ: &str = r#"
import csv, sys
rows = list(csv.reader(open(sys.argv[1], newline="")))
formulas = numbers = 0
for row in rows[1:]:
    for cell in row:
        if cell[:1] in tuple("=+-@\t\r"):
            try:
                float(cell)
                numbers += 1
            except ValueError:
                formulas += 1
column = rows[0].index(sys.argv[2])
print(formulas, numbers > 0, *sorted({row[column] for row in rows[1:]}), sep="|")
"#;

#[test]
fn names_are_no_formulas_in_spreadsheets() {
    let project = Project::new();
    fs::create_dir(project.videos().join("@x")).unwrap();
    for name in FORMULAS {
        synthetic(&project.videos().join(name), 2, 1);
    }
    project.run("out", &[], 0);
    let table = |name: &str, column: &str| {
        let mut python = Command::new(python());
        succeed(python.args(["-c", READ]).arg(project.output(name)).arg(column))
            .trim()
            .to_owned()
    };
    let export = |format: &str, raw: &[&str]| {
        let mut export = affectmill();
        export
            .arg("export")
            .arg(project.output("out"))
            .args(["--format", format])
            .args(raw);
        let folder = format!("{format}{}", raw.len());
        let done = export.arg("-o").arg(project.output(&folder)).output().unwrap();
        (done.status.code(), stderr(&done))
    };
    let quoted = FORMULAS.map(|name| format!("'{name}"));
    let (code, told) = export("csv", &[]);
    assert!(
        code == Some(0) && told.contains("6 cells have a ' before them"),
        "{told}"
    );
    // Logits below 0 stay numbers.
    let [plus, equals, at] = [&quoted[1], &quoted[0], &quoted[2]];
    assert_eq!(
        table("csv0/labels.csv", "video"),
        format!("0|True|{plus}|{equals}|{at}")
    );
    let (_, told) = export("csv", &["--raw"]);
    assert!(!told.contains("'"), "{told}");
    let [plus, equals, at] = [FORMULAS[1], FORMULAS[0], FORMULAS[2]];
    assert_eq!(
        table("csv1/labels.csv", "video"),
        format!("6|True|{plus}|{equals}|{at}")
    );

    let query = |arguments: &[&str]| {
        let mut query = affectmill();
        query
            .arg("query")
            .arg(project.output("out"))
            .args(["means", "Anger"])
            .args(arguments);
        query.output().unwrap()
    };
    let file = project.output("means.csv");
    let told = stderr(&query(&["-o", file.to_str().unwrap()]));
    assert!(told.contains("3 cells have"), "{told}");
    assert!(table("means.csv", "video").starts_with("0|"));
    query(&["-o", file.to_str().unwrap(), "--raw"]);
    assert!(table("means.csv", "video").starts_with("3|"));
    // Which is for CSV alone.
    assert_eq!(query(&["--raw"]).status.code(), Some(2));
    assert_eq!(export("jsonl", &["--raw"]).0, Some(2));

    // py-feat opens what `input` names.
    assert_eq!(export("fex", &[]).0, Some(0));
    for entry in fs::read_dir(project.output("fex0")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            let read = table(
                path.strip_prefix(project.dir.path()).unwrap().to_str().unwrap(),
                "input",
            );
            let (formulas, input) = (read.split('|').next().unwrap(), read.rsplit('|').next().unwrap());
            assert_eq!(formulas, "0", "{read}");
            assert!(
                input.starts_with("./") && project.videos().join(input).is_file(),
                "{read}"
            );
        }
    }
}
