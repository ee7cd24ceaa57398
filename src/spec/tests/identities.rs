//! The fingerprint and what goes into it.

use super::*;
use serde_json::Value;

fn model(name: &str) -> ModelRecord {
    ModelRecord {
        name: name.into(),
        kind: ModelKind::Student.into(),
        outputs: Vec::new(),
        sha256: "00ff".into(),
        also: Vec::new(),
        flip: false,
        architecture: "arch".into(),
        preprocessing: "prep".into(),
        precision: Default::default(),
        untrained: false,
    }
}

#[test]
fn the_fingerprint_is_the_sha256_of_canonical_json() {
    let overrides = ["sampling.mode=fps", "sampling.fps=2.5"];
    let job = load_text(GOOD, &overrides).unwrap();
    let identity = identity(&job, &[model("student")], None, "libavcodec 59.37.100");
    // Python: json.dumps(identity, sort_keys=True, separators=(",", ":")) written out, then hashlib.sha256.
    assert_eq!(
        fingerprint(&identity).as_str(),
        "411aa620a3689f29d8b1323d1d577b14af326e61dedce0c23d9659a4ecb100e0"
    );
    let unsorted: Value = serde_json::from_str(r#"{"b":[{"d":1,"c":null}],"a":"é"}"#).unwrap();
    // printf '{"a":"é","b":[{"c":null,"d":1}]}' | sha256sum
    assert_eq!(
        fingerprint(&unsorted).as_str(),
        "4ad1c67a1e74b167570872a7ef466264cee5014917c4ab1e85adff407cd2745c"
    );
}

#[test]
fn the_identity_holds_what_changes_labels_and_nothing_else() {
    let base = identity(&load_text(GOOD, &[]).unwrap(), &[model("student")], None, "d");
    let changed = |text: &str| {
        differences(
            &base,
            &identity(&load_text(GOOD, &[text]).unwrap(), &[model("student")], None, "d"),
        )
    };
    for unchanged in [
        "input.uri=/elsewhere",
        "input.extensions=['mp4']",
        "output.uri=/elsewhere",
        "output.shard_frames=7",
        "models.0.weights=/elsewhere",
        "run={workers = 7, batch = 7, threads = 7, stall_timeout = 7, video_timeout = 7, max_strikes = 7, span_frames = 7}",
        "run={scratch = '/s', fetch_bytes = 9999999, outage_timeout = 7}",
        "s3={endpoint = 'http://elsewhere', region = 'r', profile = 'p', path_style = true, unsigned = ['b']}",
        "input.uri=s3://b/elsewhere",
        "output.uri=s3://b/labels",
    ] {
        assert!(changed(unchanged).is_empty(), "{unchanged}");
    }
    assert_eq!(
        changed("sampling.mode=keyframes"),
        [r#"sampling.mode: was "every", is "keyframes""#]
    );
    assert_eq!(
        changed("sampling={mode = 'stride', stride = 10}"),
        [
            r#"sampling.mode: was "every", is "stride""#,
            "sampling.stride: was unset, is 10"
        ]
    );
    assert_eq!(changed("input.image_base=0"), ["input.image_base: was 1, is 0"]);
    assert_eq!(
        changed("input.max_frames=5"),
        ["input.max_frames: was 10000000, is 5"]
    );
    assert_eq!(
        changed("input.max_pixels=5"),
        ["input.max_pixels: was 100000000, is 5"]
    );
    assert_eq!(
        changed("input.image_fps=25"),
        ["input.image_fps: was unset, is 25.0"]
    );
    assert_eq!(
        changed("output.values=logits"),
        [r#"output.values: was "both", is "logits""#]
    );
}

#[test]
fn differences_name_the_model() {
    let job = load_text(GOOD, &[]).unwrap();
    let of = |models: &[ModelRecord]| identity(&job, models, None, "d");
    let base = of(&[model("a"), model("b")]);
    let retrained = ModelRecord {
        sha256: "11".into(),
        ..model("b")
    };
    assert_eq!(
        differences(&base, &of(&[model("a"), retrained])),
        [r#"models.b.sha256: was "00ff", is "11""#]
    );
    assert_eq!(
        differences(&base, &of(&[model("b"), model("a")])),
        [r#"models: was "a, b", is "b, a""#],
        "the order of the models is the order of the columns"
    );
    let added = differences(&of(&[model("a")]), &base);
    assert_eq!(added.len(), 7, "{added:?}");
    assert_eq!(added[1], r#"models.b.architecture: was unset, is "arch""#);
    let other = identity(&job, &[model("a"), model("b")], None, "e");
    assert_eq!(differences(&base, &other), [r#"decode_backend: was "d", is "e""#]);
    assert_ne!(fingerprint(&base), fingerprint(&other));
}
