//! Rules that a schema cannot express: combinations of values, and names that clash.

use super::error::listed;
use super::tree::Node;
use super::{Crops, FaceMode, Job, Problem, SamplingMode};
use affectmill_base::{BadOutputs, Location, NamedOutputs, NetworkKind, Precision};
use std::path::PathBuf;

/// All problems of a job whose types and ranges are valid and whose paths are absolute.
pub(super) fn check(job: &Job, tree: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |path: &[&str], message: String| {
        problems.push(Problem::new(tree.place_of(path), message));
    };
    sampling(job, &mut refuse);
    faces(job, &mut refuse);
    extensions(job, &mut refuse);
    models(job, &mut refuse);
    scripts(job, &mut refuse);
    s3(job, &mut refuse);
    queue(job, &mut refuse);
    if real(&job.input.uri) == real(&job.output.uri) {
        let place = &job.output.uri;
        let message =
            format!("`output.uri` is the input itself ({place}); choose another folder, such as one in it");
        refuse(&["output", "uri"], message);
    }
    problems
}

/// Keys of a job that have no effect. They are reported for hand-written files; a record has every key.
pub(super) fn idle(job: &Job, tree: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |path: &[&str], message: String| {
        problems.push(Problem::new(tree.place_of(path), message));
    };
    idle_faces(job, tree, &mut refuse);
    idle_output(job, tree, &mut refuse);
    problems
}

type Refuse<'a> = dyn FnMut(&[&str], String) + 'a;

fn sampling(job: &Job, refuse: &mut Refuse<'_>) {
    let sampling = &job.sampling;
    let pairs = [
        (
            "stride",
            SamplingMode::Stride,
            sampling.stride.is_some(),
            "stride = 5",
        ),
        ("fps", SamplingMode::Fps, sampling.fps.is_some(), "fps = 2.0"),
    ];
    for (key, mode, given, example) in pairs {
        if sampling.mode == mode && !given {
            let message =
                format!("`sampling.mode` is \"{key}\", which needs `{key}`; add it, such as {example}");
            refuse(&["sampling", "mode"], message);
        }
        if sampling.mode != mode && given {
            let message = format!(
                "`sampling.{key}` has no effect unless `mode` is \"{key}\"; write mode = \"{key}\" or remove it"
            );
            refuse(&["sampling", key], message);
        }
    }
}

fn faces(job: &Job, refuse: &mut Refuse<'_>) {
    match job.faces.mode {
        FaceMode::Detect if job.faces.detector.is_none() => {
            let message = "`faces.mode` is \"detect\", which needs `detector`; make the detector's weights with \
                 `affectmill import-weights centerface.onnx -o centerface.safetensors` and name them, or write \
                 mode = \"full_frame\" for footage that is cropped to one face";
            refuse(&["faces", "mode"], message.into());
        }
        FaceMode::FromLabels if job.faces.labels.is_none() => {
            let message = "`faces.mode` is \"from_labels\", which needs `labels`; name the output of the run that found the \
                 faces";
            refuse(&["faces", "mode"], message.into());
        }
        FaceMode::FromLabels if job.faces.labels.as_ref().map(real) == Some(real(&job.output.uri)) => {
            let message = "`faces.labels` is the output itself; choose another [output] uri";
            refuse(&["faces", "labels"], message.into());
        }
        _ => {}
    }
    for (index, model) in job.models.iter().enumerate() {
        if job.faces.mode == FaceMode::FullFrame && model.crop.is_some() {
            let message = "`crop` has no effect when `faces.mode` is \"full_frame\"; remove it";
            refuse(&["models", &index.to_string(), "crop"], message.into());
        }
    }
}

fn idle_faces(job: &Job, tree: &Node, refuse: &mut Refuse<'_>) {
    let (name, idle): (_, fn(&str) -> bool) = match job.faces.mode {
        FaceMode::Detect => ("detect", |key| key == "labels"),
        FaceMode::FromLabels => ("from_labels", |key| !["mode", "labels", "crop"].contains(&key)),
        FaceMode::FullFrame => ("full_frame", |key| key != "mode"),
    };
    let section = tree.table().and_then(|table| table.get("faces"));
    let keys = section.and_then(|entry| entry.node.table());
    for key in keys
        .into_iter()
        .flat_map(|table| table.keys())
        .filter(|key| idle(key))
    {
        let other = if key == "labels" { "from_labels" } else { "detect" };
        let message = format!(
            "`faces.{key}` has no effect when `mode` is \"{name}\"; write mode = \"{other}\" or remove it"
        );
        refuse(&["faces", key], message);
    }
}

fn idle_output(job: &Job, tree: &Node, refuse: &mut Refuse<'_>) {
    let section = tree.table().and_then(|table| table.get("output"));
    let given = |key| {
        section
            .and_then(|entry| entry.node.table())
            .is_some_and(|table| table.contains_key(key))
    };
    if job.output.crops == Crops::None && given("crop_quality") {
        let message =
            "`output.crop_quality` has no effect without crops; write crops = \"webdataset\" or remove it";
        refuse(&["output", "crop_quality"], message.into());
    }
}

fn extensions(job: &Job, refuse: &mut Refuse<'_>) {
    for (index, extension) in job.input.extensions.iter().enumerate() {
        if extension.is_empty() || !extension.chars().all(|c| c.is_alphanumeric() || c == '-') {
            let message = format!(
                "`input.extensions` holds {extension:?}; write the letters and digits after a file name's last dot, \
                 such as \"mp4\""
            );
            refuse(&["input", "extensions", &index.to_string()], message);
        }
    }
}

fn s3(job: &Job, refuse: &mut Refuse<'_>) {
    if let Some(endpoint) = &job.s3.endpoint {
        let host = endpoint
            .strip_prefix("http://")
            .or_else(|| endpoint.strip_prefix("https://"))
            .map(|rest| rest.split('/').next().unwrap_or_default());
        let cause = match host {
            None => "a server begins with http:// or https://",
            Some("") => "it names no server",
            // They would be visible in the job, its record in the output and error messages.
            Some(host) if host.contains('@') => {
                "credentials have no place in it; put them into the environment or a profile"
            }
            Some(_) => return,
        };
        let shown = if endpoint.contains('@') { "set" } else { endpoint };
        refuse(
            &["s3", "endpoint"],
            format!("`s3.endpoint` cannot be {shown:?}: {cause}"),
        );
    }
}

fn queue(job: &Job, refuse: &mut Refuse<'_>) {
    let queue = &job.run.queue;
    let Some(servers) = job.servers() else { return };
    // They would be visible in the job, its record in the output and error messages.
    if queue.contains('@') {
        let message = "`run.queue` cannot hold credentials; name a file as [nats] credentials, or set NATS_USER and \
                       NATS_PASSWORD";
        return refuse(&["run", "queue"], message.into());
    }
    for server in servers {
        let cause = match server.split_once("://") {
            Some(("nats" | "tls", "")) => "it names no server".into(),
            Some(("nats" | "tls", _)) => continue,
            Some((scheme, _)) => format!("there are no `{scheme}://` queues"),
            None => "there is no such queue".into(),
        };
        let message =
            format!("`run.queue` cannot be {queue:?}: {cause}; write \"local\" or \"nats://host:4222\"");
        return refuse(&["run", "queue"], message);
    }
    if let Some(prefix) = job
        .nats
        .inbox_prefix
        .as_ref()
        .filter(|prefix| !is_inbox_prefix(prefix))
    {
        let message = format!(
            "`nats.inbox_prefix` cannot be {prefix:?}; letters, digits, `-`, `_` and dots between them"
        );
        refuse(&["nats", "inbox_prefix"], message);
    }
    let rule = "letters, digits, `-` and `_`, at most 64";
    match &job.run.name {
        None => {
            let message =
                format!("`run.queue` is {queue:?}, which needs `name`: what workers ask for; {rule}");
            refuse(&["run", "queue"], message);
        }
        Some(name) if !is_job_name(name) => {
            refuse(&["run", "name"], format!("`run.name` cannot be {name:?}; {rule}"));
        }
        _ => {}
    }
}

/// Whether a job name is valid: it is part of subjects and stream names.
pub fn is_job_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Whether an inbox prefix is valid.
pub fn is_inbox_prefix(prefix: &str) -> bool {
    let mut parts = prefix.split('.');
    prefix.len() <= 256 && parts.all(is_job_name)
}

/// Names make columns: `<name>_valence`, `<name>_expr_Anger_p`, `<name>_AU1` … Names that differ give columns that
/// differ, because no column suffix ends with `_` and another suffix (a test checks that); but DuckDB and
/// Spark fold the case of columns, so names that differ only in case count as equal.
fn models(job: &Job, refuse: &mut Refuse<'_>) {
    for (index, model) in job.models.iter().enumerate() {
        let name = model.name.as_str();
        let at = &["models", &index.to_string(), "name"];
        let mut letters = name.chars();
        let good = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !good {
            let rule = "it begins the names of columns: ASCII letters, digits and `_`, a letter first";
            refuse(at, format!("`models.name` cannot be {name:?}; {rule}"));
        }
        let earlier = job.models[..index]
            .iter()
            .find(|other| other.name.eq_ignore_ascii_case(name));
        if let Some(other) = earlier {
            let other = &other.name;
            let message = format!(
                "the model name `{name}` clashes with the earlier `{other}` (upper and lower case count as the same); \
                 give each model its own name"
            );
            refuse(at, message);
        }
    }
}

/// A TorchScript file has no metadata, so the job must state its outputs and the crop of its training faces.
fn scripts(job: &Job, refuse: &mut Refuse<'_>) {
    for (index, model) in job.models.iter().enumerate() {
        let index = index.to_string();
        let mut refuse =
            |key: &[&str], message: String| refuse(&[&["models", &index], key].concat(), message);
        if model.kind != NetworkKind::TorchScript {
            if !model.outputs.is_empty() {
                let message = "`outputs` has no effect unless `kind` is \"torchscript\": the outputs of other kinds are known; \
                               remove it";
                refuse(&["outputs"], message.into());
            }
            continue;
        }
        if let Err(bad) = NamedOutputs::new(&model.outputs) {
            let (key, place, message) = unnamed(bad);
            let place = place.map(|place| place.to_string());
            let at: Vec<&str> = [key].into_iter().chain(place.as_deref()).collect();
            refuse(&at, message);
        }
        if model.crop.is_none() && job.faces.mode != FaceMode::FullFrame {
            let message = "`kind` is \"torchscript\", which needs `crop`: such a file does not say how the faces were cropped that \
                           it was trained on; add it, such as crop = \"arcface112\"";
            refuse(&["kind"], message.into());
        }
        if model.precision != Precision::Fp32 {
            let message = "`precision` of a TorchScript file is its own; remove it, and convert the network before it is saved";
            refuse(&["precision"], message.into());
        }
    }
}

/// Key, entry and message of an invalid list of outputs.
fn unnamed(bad: BadOutputs) -> (&'static str, Option<usize>, String) {
    match bad {
        BadOutputs::Nothing => {
            let message = "`kind` is \"torchscript\", which needs `outputs`: what each number means that it gives, such as outputs = \
                           [\"valence\", \"arousal\"]";
            ("kind", None, message.into())
        }
        BadOutputs::Unknown(place, name) => {
            let message = format!(
                "`outputs` holds {name:?}, which is no output; write \"_\" for a number that is left out"
            );
            ("outputs", Some(place), message)
        }
        BadOutputs::Twice(place, name) => {
            let message = format!(
                "`outputs` holds {name:?} for the second time; write \"_\" for a number that is left out"
            );
            ("outputs", Some(place), message)
        }
        BadOutputs::Missing(task, names) => {
            let message = format!(
                "`outputs` lacks {}: of `{}` all outputs are needed, or none",
                listed(names),
                task.name()
            );
            ("outputs", None, message)
        }
    }
}

/// The path with symbolic links followed where it exists, so that two spellings of one folder are equal.
fn real(location: &Location) -> Location {
    let real = |path: &PathBuf| {
        path.canonicalize()
            .unwrap_or_else(|_| path.components().collect())
    };
    match location {
        Location::Local(path) => Location::Local(real(path)),
        other => other.clone().without_slash(),
    }
}
