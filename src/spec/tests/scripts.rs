//! Models of kind `torchscript`: what the job must say because their files do not.

use super::*;

/// [`GOOD`] with such a model, and more lines in its section, from line 7 on.
fn script(lines: &str) -> String {
    GOOD.replace("kind = \"student\"", "kind = \"torchscript\"")
        .replace("[output]", &format!("{lines}\n[output]"))
}

#[test]
fn outputs_are_named_and_make_the_tasks() {
    let job = load_text(
        &script("outputs = [\"_\", \"au\", \"arousal\", \"valence\"]"),
        &[],
    )
    .unwrap();
    let model = &job.models[0];
    assert_eq!(
        (model.kind.name(), model.tasks()),
        ("torchscript", &[Task::Va, Task::Au][..])
    );
    // As it is recorded, so it is read again.
    let recorded = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&recorded).unwrap(), job);
}

#[test]
fn what_such_a_file_does_not_say_the_job_must() {
    let detect = ["faces.mode=detect", "faces.detector=/d.safetensors"];
    let cases: [(&str, &[&str], &str); 9] = [
        (
            "",
            &[],
            "job.toml:5:8: `kind` is \"torchscript\", which needs `outputs`: what each number means",
        ),
        (
            "outputs = []",
            &[],
            "job.toml:5:8: `kind` is \"torchscript\", which needs `outputs`",
        ),
        (
            "outputs = ['va', 'Hapiness']",
            &[],
            "job.toml:7:18: `models.0.outputs.1` cannot be \"Hapiness\"; did you mean `Happiness`? (valid: `va`, `expr`, `au`, \
             `valence`, ",
        ),
        (
            "outputs = ['va', 'arousal']",
            &[],
            "job.toml:7:18: `outputs` holds \"arousal\" for the second time; write \"_\"",
        ),
        (
            "outputs = ['valence', 'au']",
            &[],
            "job.toml:7:11: `outputs` lacks `arousal`: of `va` all outputs are needed, or none",
        ),
        (
            "outputs = ['va']\nprecision = 'bf16'",
            &[],
            "job.toml:8:13: `precision` of a TorchScript file is its own; remove it",
        ),
        (
            "outputs = ['va']\ncrop = 'box'",
            &[],
            "job.toml:8:8: `crop` has no effect when `faces.mode` is \"full_frame\"",
        ),
        (
            "outputs = ['va']",
            &detect,
            "job.toml:5:8: `kind` is \"torchscript\", which needs `crop`: such a file does not say how the faces were cropped",
        ),
        (
            "kind = 'student'\noutputs = ['va']",
            &[],
            "job.toml:7:11: `outputs` has no effect unless `kind` is \"torchscript\"",
        ),
    ];
    for (lines, overrides, expected) in cases {
        let text = match lines.strip_prefix("kind = 'student'\n") {
            Some(lines) => GOOD.replace("[output]", &format!("{lines}\n[output]")),
            None => script(lines),
        };
        let message = load_text(&text, overrides).expect_err(&text);
        assert!(
            message.starts_with(expected),
            "\n{text}\nexpected: {expected}\nfound:    {message}"
        );
    }
    load_text(&script("outputs = ['va']\ncrop = 'square'"), &detect).unwrap();
}
