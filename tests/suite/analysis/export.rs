//! Exports read back by those who read such files: py-feat's and OpenFace's users' readers, webdataset, pandas, Polars.

use super::labels::{LabelSet, Line, Seen, Shown, Video, check};
use super::query::wandering_set;
use affectmill_base::ModelKind;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FORMATS: [&str; 6] = ["openface", "fex", "abaw", "webdataset", "csv", "jsonl"];

/// Every file of a folder with its bytes.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap();
            (name.to_owned(), fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn export(set: &LabelSet, format: &str, folder: &Path, more: &[&str]) -> String {
    let arguments = [&["--format", format, "-o", folder.to_str().unwrap()][..], more].concat();
    set.answer("export", &arguments)
}

#[test]
fn every_format_reads_back_as_what_the_labels_say() {
    let set = wandering_set("[output]\ncrops = \"webdataset\"\n");
    let exports = set.beside("exports");
    fs::create_dir(&exports).unwrap();
    for format in FORMATS {
        let told = match format {
            "csv" | "jsonl" => export(&set, format, &exports.join(format), &[]),
            _ => export(&set, format, &exports.join(format), &["--model", "student"]),
        };
        assert!(told.contains(&format!("of {format}, in ")), "{told}");
    }
    check(&[Path::new("export"), &set.output(), &exports]);

    // Again: the same bytes. Not over another export, and not over somebody's files.
    let before = tree(&exports.join("abaw"));
    export(&set, "abaw", &exports.join("abaw"), &["--model", "student"]);
    assert!(before == tree(&exports.join("abaw")));
    assert!(
        before
            .keys()
            .all(|name| !name.contains("..") && !name.contains(".tmp"))
    );
    let into = |folder: &Path, format: &str| {
        let arguments = [
            "--format",
            format,
            "-o",
            folder.to_str().unwrap(),
            "--model",
            "student",
        ];
        set.refusal("export", &arguments)
    };
    let told = into(&exports.join("fex"), "openface");
    assert!(
        told.contains("holds another export: fex of") && told.contains("choose another folder"),
        "{told}"
    );
    let told = into(&set.output(), "csv");
    assert!(
        told.contains("holds files that are no export of affectmill's"),
        "{told}"
    );
    let told = into(&set.output().join("_affectmill/job.json"), "csv");
    assert!(told.contains("is no folder to export into"), "{told}");
    assert!(into(Path::new("s3://bucket/x"), "csv").contains("copy it to S3 afterwards"));
}

/// A video that comes later and wants the same file name changes the names of both; the file of before goes, other people's stay.
#[test]
fn an_export_written_again_leaves_no_file_of_the_one_before() {
    let set = LabelSet::new(&[("au", ModelKind::TeacherAu)], "");
    let video = |key| {
        let shown = Shown {
            track: None,
            score: None,
            outputs: vec![vec![-1.0; 12]],
        };
        let line = Line {
            frame: 0,
            time: None,
            seen: Seen::Faces(vec![shown]),
        };
        Video {
            key,
            decoded: 1,
            lines: Box::new(std::iter::once(line)),
        }
    };
    set.shard(1, vec![video("x.avi")]);
    let (openface, abaw) = (set.beside("openface"), set.beside("abaw"));
    let names = |folder: &Path| tree(folder).into_keys().collect::<Vec<String>>();
    export(&set, "openface", &openface, &[]);
    export(&set, "abaw", &abaw, &[]);
    assert_eq!(names(&openface), ["export.json", "files.jsonl", "x.csv"]);
    assert!(abaw.join("annotations/AU_Set/x.txt").exists());
    fs::write(openface.join("mine.csv"), "mine").unwrap();

    set.shard(2, vec![video("x.mp4")]);
    for _ in 0..2 {
        export(&set, "openface", &openface, &[]);
        export(&set, "abaw", &abaw, &[]);
        let found = names(&openface);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(!openface.join("x.csv").exists() && openface.join("mine.csv").exists());
        let list = fs::read_to_string(openface.join("files.jsonl")).unwrap();
        for line in list.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                found.contains(&line["file"].as_str().unwrap().to_owned()),
                "{line}"
            );
        }
        assert!(!abaw.join("annotations/AU_Set/x.txt").exists());
        assert_eq!(fs::read_dir(abaw.join("annotations/AU_Set")).unwrap().count(), 2);
    }
    // A note that was meddled with removes nothing outside.
    let outside = set.beside("outside.csv");
    fs::write(&outside, "mine").unwrap();
    let note = fs::read_to_string(openface.join("export.json")).unwrap();
    let meddled = note.replace(
        "\"files.jsonl\"",
        "\"../outside.csv\", \"/etc/none\", \"files.jsonl\"",
    );
    assert_ne!(note, meddled);
    fs::write(openface.join("export.json"), meddled).unwrap();
    export(&set, "openface", &openface, &[]);
    assert!(outside.exists());
}

#[test]
fn what_a_format_cannot_hold_is_refused_and_names_why() {
    let set = wandering_set("");
    let refused = |format: &str, model: &[&str]| {
        let folder = set.beside("none");
        let arguments = [&["--format", format, "-o", folder.to_str().unwrap()][..], model].concat();
        let told = set.refusal("export", &arguments);
        assert!(!folder.exists(), "{told}");
        told
    };
    assert!(
        refused("fex", &[])
            .contains("several models have expressions: student, fer; choose with --model NAME")
    );
    assert!(
        refused("openface", &["--model", "fer"])
            .contains("openface holds action units, and no model in question has them")
    );
    assert!(refused("webdataset", &["--model", "fer"]).contains("crops = \"webdataset\""));
    assert!(refused("csv", &["--model", "nobody"]).contains("no model `nobody`; it has student, fer"));
}

/// What single-task teachers say stands together where no other model has the task; frames between those sampled repeat, and a
/// file name that claims a huge frame is no reason to fill the disk.
#[test]
fn folders_of_teachers_sampled_now_and_then() {
    let models = [
        ("va", ModelKind::TeacherVa),
        ("expr", ModelKind::TeacherExpr),
        ("au", ModelKind::TeacherAu),
    ];
    let set = LabelSet::new(&models, "[sampling]\nmode = \"stride\"\nstride = 3\n");
    let line = |frame: u64| {
        let mut expression = vec![0.0; 7];
        expression[frame as usize % 7] = 4.0;
        let outputs = vec![
            vec![frame as f32 / 8.0, -2.0],
            expression,
            vec![if frame == 6 { 1.0 } else { -1.0 }; 12],
        ];
        let shown = Shown {
            track: None,
            score: None,
            outputs,
        };
        Line {
            frame,
            time: None,
            seen: Seen::Faces(vec![shown]),
        }
    };
    let video = |key, decoded, frames: &'static [u64]| Video {
        key,
        decoded,
        lines: Box::new(frames.iter().map(move |&frame| line(frame))),
    };
    set.shard(1, vec![video("x.mp4", 8, &[0, 3, 6])]);
    let folder = set.beside("abaw");
    export(&set, "abaw", &folder, &[]);
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let (no, yes) = ([["0"; 12].join(",")], [["1"; 12].join(",")]);
    assert_eq!(
        text("annotations/VA_Set/x.txt"),
        "valence,arousal\n0,-1\n-5,-5\n-5,-5\n0.375,-1\n-5,-5\n-5,-5\n0.75,-1\n-5,-5\n"
    );
    assert_eq!(
        text("submission/VA_Set/x.txt"),
        "valence,arousal\n0,-1\n0,-1\n0,-1\n0.375,-1\n0.375,-1\n0.375,-1\n0.75,-1\n0.75,-1\n"
    );
    assert!(text("submission/EXPR_Set/x.txt").ends_with("Surprise\n0\n0\n0\n3\n3\n3\n6\n6\n"));
    let units = text("submission/AU_Set/x.txt");
    assert!(units.ends_with(&format!(
        "AU26\n{}{}",
        format!("{}\n", no[0]).repeat(6),
        format!("{}\n", yes[0]).repeat(2)
    )));
    assert_eq!(text("submission/videos.txt"), "x 8\n");

    // A picture that is taken for the face, without times and confidence.
    export(&set, "openface", &set.beside("openface"), &[]);
    let openface = fs::read_to_string(set.beside("openface/x.csv")).unwrap();
    assert!(
        openface.lines().nth(2).unwrap().starts_with("4,0,,1.000,1,"),
        "{openface}"
    );

    set.shard(2, vec![video("z.mp4", 1, &[1 << 40])]);
    let told = set.refusal(
        "export",
        &["--format", "abaw", "-o", set.beside("huge").to_str().unwrap()],
    );
    assert!(
        told.contains("`z.mp4` has no label between frames 0 and 1099511627776"),
        "{told}"
    );
}
