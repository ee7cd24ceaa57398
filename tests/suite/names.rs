//! Names of videos as people, other tools and other systems write them.

use super::common::*;
use serde_json::Value;
use std::fs;

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
