//! Holds the design's house rules by reading the source text: who may import whom, which vendor is named where, who
//! may print, how long a file may be. The tables below are the rules; everything after them is the reading.
//!
//! What is read is code: comments and the content of literals are blanked before. Test modules (`#[cfg(test)]` items,
//! `tests.rs`, `tests/` folders) may import what they need.

use std::fs;
use std::path::Path;

/// Rooms of `src/`, lowest first. A room imports rooms of lower layers, never another one of its own layer.
const LAYERS: &[&[&str]] = &[
    &["domain"],
    &["runtime", "spec"],
    &["dataset"],
    &["store", "model", "events"],
    &["discover", "plan", "commit", "queue", "stages"],
    &["worker", "report", "train"],
    &["coordinator"],
    &["cli"],
];

/// Imports that the layers would allow and the design does not: execution speaks to people through events alone.
const FORBIDDEN: &[(&str, &str)] = &[("coordinator", "report"), ("coordinator", "train")];

/// Crates and the only places that may name them.
const VENDORS: &[(&str, &[&str])] = &[
    ("tch", &["src/model/", "src/train/"]),
    ("nvml_wrapper", &["src/model/"]),
    ("ffmpeg_next", &["src/stages/decode/", "src/stages/encode/"]),
    ("ffmpeg", &["src/stages/decode/", "src/stages/encode/"]),
    ("polars", &["src/report/", "src/train/"]),
    ("plotters", &["src/report/"]),
    ("maud", &["src/report/"]),
    ("embedded_graphics", &["src/report/"]),
    ("prometheus_client", &["src/report/"]),
    ("hyper", &["src/report/"]),
    ("tracing", &["src/report/", "src/cli/"]),
    ("tracing_subscriber", &["src/cli/"]),
    ("aws_config", &["src/store/"]),
    ("aws_sdk_s3", &["src/store/"]),
    ("aws_smithy_http_client", &["src/store/"]),
    ("rustls", &["src/store/"]),
    ("async_nats", &["src/queue/nats/"]),
    ("unicode_normalization", &["src/runtime/"]),
    ("indicatif", &["src/report/"]),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("parquet", COLUMNAR),
    ("arrow", COLUMNAR),
];
const COLUMNAR: &[&str] = &[
    "src/dataset/",
    "src/stages/rows",
    "src/commit",
    "src/coordinator/finish.rs",
];

/// Words of code and the only places in `src/` that may hold them.
const WORDS: &[(&str, &[&str])] = &[
    ("println!", BUILD),
    // They panic where the stream is full or closed: `report::{to_stderr, to_stdout}` do not.
    ("eprintln!", &[]),
    ("print!", &[]),
    ("eprint!", &[]),
    ("dbg!", &[]),
    (
        "unsafe",
        &[
            "src/stages/decode/",
            "src/stages/encode/",
            "src/model/onednn/",
            "src/model/surface.rs",
        ],
    ),
];
/// A build script talks to cargo by printing.
const BUILD: &[&str] = &["src/model/onednn/build.rs"];

/// Words that no code holds, tests included.
const NOWHERE: &[&str] = &["todo!", "unimplemented!", "#[ignore"];

/// Words that have no place in `src/stages/`: its functions are plain and synchronous.
const NOT_IN_STAGES: &[&str] = &["std::thread", "mpsc", "tokio", "async fn"];

/// What `src/domain` may use beside itself.
const DOMAIN_USES: &[&str] = &["std", "serde", "crate", "self", "super"];

/// Lines of a file in `src/`.
const MAX_LINES: usize = 500;

/// Entries of the repository's top level, beside dot files.
#[rustfmt::skip]
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml", "Cargo.lock", "src", "jobs", "schemas", "tests", "Makefile", "README.md", "LICENSE", "clippy.toml",
    "rustfmt.toml", "target",
];

#[test]
fn the_house_rules_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    read_tree(root, "src", &mut files);
    read_tree(root, "tests", &mut files);
    assert!(files.len() > 10, "the source was not found");
    let broken: Vec<String> = files.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_top_level_holds_nothing_else() {
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()),
            "{name} does not belong here"
        );
    }
}

fn read_tree(root: &Path, folder: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_tree(root, &path, files);
        } else if path.ends_with(".rs") {
            files.push((path, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// Everything that is wrong with one file, as `path:line: what`.
fn check(path: &str, text: &str) -> Vec<String> {
    let code = blank_literals(text);
    let mut broken = Vec::new();
    let mut report = |offset: usize, what: String| {
        broken.push(format!(
            "{path}:{}: {what}",
            code[..offset].matches('\n').count() + 1
        ));
    };
    for word in NOWHERE {
        find_words(&code, word).for_each(|at| report(at, format!("`{word}`")));
    }
    if !path.starts_with("src/") {
        return broken;
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        report(
            code.len(),
            format!("{lines} lines; split it, {MAX_LINES} is the most"),
        );
    }
    let is_room = path.matches('/').count() == 1 && path != "src/main.rs";
    if (is_room || path.ends_with("/mod.rs")) && !text.starts_with("//!") {
        report(0, "has no `//!` doc that says what it is for".into());
    }
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return broken;
    }

    let code = blank_test_items(&code);
    let allowed = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    for (word, _) in WORDS.iter().filter(|(_, places)| !allowed(places)) {
        find_words(&code, word).for_each(|at| report(at, format!("`{word}` has no place here")));
    }
    if path.starts_with("src/stages/") {
        for word in NOT_IN_STAGES {
            find_words(&code, word).for_each(|at| report(at, format!("`{word}` in stages/")));
        }
    }
    let module = module_of(path);
    for (at, names) in paths_in(&code) {
        let head = names[0].as_str();
        if let Some((vendor, places)) = VENDORS.iter().find(|(vendor, _)| *vendor == head)
            && !allowed(places)
        {
            report(at, format!("`{vendor}` is named outside {}", places.join(", ")));
        }
        if let Some((room, target)) = import(&module, &names) {
            refusal(room, &target)
                .into_iter()
                .for_each(|what| report(at, what));
        }
    }
    if path.starts_with("src/domain/") {
        let own = |head: &str| text.contains(&format!("mod {head};"));
        for (at, names) in used_paths(&code) {
            if !DOMAIN_USES.contains(&names[0].as_str()) && !own(&names[0]) {
                report(at, format!("domain uses `{}`: std and serde only", names[0]));
            }
        }
    }
    // A path in a `use` is met twice: as an import and as a path.
    broken.sort();
    broken.dedup();
    broken
}

/// `src/stages/decode/mod.rs` is the module `["stages", "decode"]`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod");
    match inner {
        "lib" | "main" => Vec::new(),
        inner => inner.split('/').map(String::from).collect(),
    }
}

/// The room of a module and the room that a path of it leads to, when that is another one.
fn import<'a>(module: &'a [String], names: &[String]) -> Option<(&'a str, String)> {
    let room = module.first()?;
    let ups = names.iter().take_while(|name| *name == "super").count();
    let target = match names[0].as_str() {
        "crate" | "affectmill" => names.get(1)?,
        "super" if ups >= module.len() => names.get(ups)?,
        _ => return None,
    };
    (target != room).then(|| (room.as_str(), target.clone()))
}

/// Why `room` may not import `target`.
fn refusal(room: &str, target: &str) -> Option<String> {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    match (layer(room), layer(target)) {
        (None, _) => Some(format!(
            "`{room}` has no layer; add it to the table in tests/architecture.rs"
        )),
        (_, None) => Some(format!(
            "`crate::{target}` is no room of the table in tests/architecture.rs"
        )),
        (Some(own), Some(other)) if own < other => Some(format!("`{room}` imports upwards: `{target}`")),
        (Some(own), Some(other)) if own == other => {
            Some(format!("`{room}` imports its neighbour `{target}`"))
        }
        _ if FORBIDDEN.contains(&(room, target)) => Some(format!("`{room}` may not import `{target}`")),
        _ => None,
    }
}

/// Offsets of a word that is no part of a longer name.
fn find_words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let ends_in_name = word.ends_with(is_name);
        !(before.is_some_and(is_name) || ends_in_name && after.is_some_and(is_name))
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every path of the code: those of `use`, written out one by one, and those in expressions and types.
fn paths_in(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = used_paths(code);
    for (at, _) in code.match_indices("::") {
        let head = code[..at].trim_end_matches(is_name).len();
        let before = code[..head].strip_suffix("::");
        let continues = before.is_some_and(|before| before.ends_with(|c| is_name(c) || c == '>'));
        if head < at && !continues {
            let whole = code[head..]
                .split(|c| !is_name(c) && c != ':')
                .next()
                .unwrap_or("");
            let names = whole
                .split("::")
                .filter(|name| !name.is_empty())
                .map(String::from);
            paths.push((head, names.collect()));
        }
    }
    paths
}

/// The paths of all `use` items, groups written out: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
fn used_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for at in find_words(code, "use") {
        let body = &code[at + "use".len()..];
        // `use<'a>` in a type is no import.
        if let Some(end) = body.find(';').filter(|_| body.starts_with(char::is_whitespace)) {
            let mut flat = Vec::new();
            expand(&body[..end], &[], &mut flat);
            paths.extend(flat.into_iter().map(|names| (at, names)));
        }
    }
    paths
}

fn expand(tree: &str, prefix: &[String], into: &mut Vec<Vec<String>>) {
    let Some(open) = tree.find('{') else {
        let names = tree
            .split("::")
            .map(|name| name.split_whitespace().next().unwrap_or("").to_string());
        into.push(
            prefix
                .iter()
                .cloned()
                .chain(names.filter(|name| !name.is_empty()))
                .collect(),
        );
        return;
    };
    let outer = tree[..open]
        .split("::")
        .map(|name| name.trim().to_string())
        .filter(|name| !name.is_empty());
    let prefix: Vec<String> = prefix.iter().cloned().chain(outer).collect();
    let group = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&group[start..at], &prefix, into);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The code with comments and the content of string and character literals turned into blanks; lines stay lines.
fn blank_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, blank) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), true),
            '/' if rest.starts_with("/*") => (block_comment(rest), true),
            '"' => (string(rest), true),
            'r' if !out.ends_with(is_name) || out.ends_with(['b', 'c']) => match raw_string(rest) {
                Some(length) => (length, true),
                None => (1, false),
            },
            '\'' => match character(rest) {
                Some(length) => (length, true),
                None => (1, false),
            },
            other => (other.len_utf8(), false),
        };
        let (piece, tail) = rest.split_at(length);
        if blank {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(piece);
        }
        rest = tail;
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match text[at..].find(['/', '*']) {
            None => return text.len(),
            Some(next) => at += next,
        }
        match text.get(at..at + 2) {
            Some("/*") => (depth, at) = (depth + 1, at + 2),
            Some("*/") if depth == 1 => return at + 2,
            Some("*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&close).map_or(body.len(), |at| at + close.len()))
}

/// A character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    match chars.next()? {
        (_, '\\') => chars
            .nth(1)
            .and_then(|(at, _)| text[at..].find('\'').map(|end| at + end + 1)),
        _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1),
    }
}

/// The code with every `#[cfg(test)]` item blanked: up to its `;`, or to the end of its braces.
fn blank_test_items(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_string();
    while let Some(start) = out.find(MARK) {
        let mut depth = 0;
        let ends = |c: char| {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            depth == 0 && matches!(c, '}' | ';')
        };
        let after = start + MARK.len();
        let end = out[after..].find(ends).map_or(out.len(), |at| after + at + 1);
        let blank: String = out[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// The checker can fail: each snippet breaks one rule, at the line given, or breaks none.
#[test]
fn the_checker_finds_what_it_looks_for() {
    let doc = "//! Doc.\n";
    #[rustfmt::skip]
    let cases: &[(&str, &str, Option<&str>)] = &[
        // Imports.
        ("src/plan.rs", "use crate::store::Store;", None),
        ("src/plan.rs", "use crate::queue::Lease;", Some("2: `plan` imports its neighbour `queue`")),
        ("src/plan.rs", "use crate::{domain::VideoKey,\n    cli};", Some("2: `plan` imports upwards: `cli`")),
        ("src/plan.rs", "\nuse crate::{domain::{A, B}, stages::{rows, decode}};", Some("3: `plan` imports its")),
        ("src/plan.rs", "use super::commit;", Some("2: `plan` imports its neighbour `commit`")),
        ("src/plan.rs", "fn f() { crate::worker::run() }", Some("2: `plan` imports upwards: `worker`")),
        ("src/plan.rs", "fn f() -> Vec<crate::worker::X>", Some("2: `plan` imports upwards: `worker`")),
        ("src/plan.rs", "pub use crate::worker as w;", Some("2: `plan` imports upwards: `worker`")),
        ("src/plan.rs", "// use crate::cli;\n/* crate::cli */ const A: &str = \"crate::cli\";", None),
        ("src/plan.rs", "const A: &str = r#\"crate::cli \" \"#; const Q: char = '\"'; use crate::cli;", Some("2: `plan`")),
        ("src/plan.rs", "#[cfg(test)]\nmod tests {\n    use crate::stages::rows;\n    fn f() { println!() }\n}", None),
        ("src/plan.rs", "#[cfg(test)]\nmod tests;\nuse crate::cli;", Some("4: `plan` imports upwards: `cli`")),
        ("src/plan.rs", "use crate::helpers::x;", Some("2: `crate::helpers` is no room")),
        ("src/helpers.rs", "use crate::domain::x;", Some("2: `helpers` has no layer")),
        ("src/stages/rows.rs", "use super::faces::Face;", None),
        ("src/stages/decode/mod.rs", "use super::super::queue;", Some("2: `stages` imports its neighbour `queue`")),
        ("src/stages/decode/sampling.rs", "use super::super::faces;", None),
        ("src/spec/mod.rs", "use crate::dataset::Plan;", Some("2: `spec` imports upwards: `dataset`")),
        ("src/dataset/mod.rs", "use crate::spec::Job;", None),
        ("src/model/tests.rs", "use crate::store::Store;", None),
        ("src/coordinator/mod.rs", "use crate::worker::X;", None),
        ("src/coordinator/mod.rs", "use crate::report::X;", Some("2: `coordinator` may not import `report`")),
        ("src/main.rs", "use affectmill::cli;", None),
        // Vendors.
        ("src/model/body.rs", "use tch::Tensor;", None),
        ("src/stages/infer/run.rs", "use tch::Tensor;", Some("2: `tch` is named outside src/model/")),
        ("src/stages/infer/run.rs", "fn f(x: &tch::Tensor) {}", Some("2: `tch` is named outside")),
        ("src/stages/infer/run.rs", "use crate::model::tch_version; let arrow = 1;", None),
        ("src/worker/run.rs", "use ffmpeg_next as av;", Some("2: `ffmpeg_next` is named outside src/stages/decode/")),
        ("src/plan.rs", "use {std::fmt, polars::prelude::*};", Some("2: `polars` is named outside src/report/")),
        ("src/stages/rows.rs", "use parquet::file; use arrow::array;", None),
        ("src/store/local.rs", "let x = ::parquet::file::new();", Some("2: `parquet` is named outside")),
        ("src/domain/ids.rs", "use serde::Serialize; use std::fmt; use super::Face;", None),
        ("src/domain/ids.rs", "use serde_json::Value;", Some("2: domain uses `serde_json`")),
        // Words.
        ("src/plan.rs", "fn f() { println!(\"x\") }", Some("2: `println!` has no place here")),
        ("src/plan.rs", "fn f() { my_println!(\"x\") }", None),
        ("src/cli/run.rs", "fn f() { eprintln!(\"x\") }", Some("2: `eprintln!` has no place here")),
        ("src/store/s3.rs", "fn f() { unsafe { g() } }", Some("2: `unsafe` has no place here")),
        ("src/stages/decode/frame.rs", "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }", None),
        ("src/stages/decode/frame.rs", "fn f() { std::thread::sleep(d) }", Some("2: `std::thread` in stages/")),
        ("src/cli/run.rs", "fn f() { todo!() }", Some("2: `todo!`")),
        ("tests/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", Some("3: `#[ignore`")),
        ("src/plan.rs", "#[cfg(test)]\nmod tests {\n#[test]\n#[ignore]\nfn f() {} }", Some("5: `#[ignore`")),
        ("tests/x.rs", "use tch::Tensor; fn f() { println!(\"todo!\") }", None),
        // Lifetimes and characters are told apart, or what follows would be taken for a literal.
        ("src/plan.rs", "fn f<'a>(x: &'a str) -> char { '\\'' } use crate::cli;", Some("2: `plan` imports")),
        ("src/plan.rs", "const A: [char; 3] = ['\\u{e9}', 'é', '/']; use crate::cli;", Some("2: `plan` imports")),
    ];
    for (path, snippet, expected) in cases {
        let found = check(path, &format!("{doc}{snippet}\n"));
        match expected {
            None => assert!(found.is_empty(), "{path}: {snippet}\n{found:?}"),
            Some(expected) => {
                let expected = format!("{path}:{expected}");
                assert!(
                    found.iter().any(|line| line.starts_with(&expected)),
                    "{snippet}\n{found:?}"
                );
            }
        }
    }
    assert!(check("src/plan.rs", "use std::fmt;\n")[0].contains("no `//!` doc"));
    assert!(check("src/queue/mod.rs", "use std::fmt;\n")[0].contains("no `//!` doc"));
    assert!(check("src/queue/local.rs", "use std::fmt;\n").is_empty());
    assert!(check("src/plan.rs", &format!("//! Doc.\n{}", "\n".repeat(500)))[0].contains("501 lines"));
}
