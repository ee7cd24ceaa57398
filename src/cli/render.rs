//! `affectmill render`, and the process that it renders in.

use super::{Failure, exit, opened, print, to_stderr};
use affectmill_analysis::labels::in_words;
use affectmill_base::this_program;
use affectmill_render as render;
use affectmill_render::{ApartError, FindError};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Extensions of containers that support H.264 and sound.
const ENDINGS: [&str; 4] = ["mp4", "m4v", "mov", "mkv"];

/// Draw labels into their video: boxes, tracks, expressions, valence and arousal, action units.
///
/// The output is H.264 in displayed orientation, with each frame at its own time and the sound copied; --sheet writes a contact
/// sheet. A frame that was not sampled shows the labels of the previous one. The labels are those of the first trained model of
/// each task, unless --model names another. Labels of untrained weights are drawn only if --model names them, and are marked. The
/// video must be the one that was labelled: its size and the time of each labelled frame are compared.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  affectmill render clip.mp4 --labels out/ -o labelled.mp4
  affectmill render folder/clip.mp4 --labels s3://labels/2024 --sheet sheet.png -n 20")]
pub struct Args {
    /// The video: its path, or its name in videos.parquet.
    video: OsString,
    /// The output that has its labels: a folder, or s3://bucket/prefix, reached by the settings in the environment.
    #[arg(long, value_name = "OUTPUT")]
    labels: OsString,
    /// The video to write: .mp4, .mov or .mkv (which supports any sound); an existing one is replaced.
    #[arg(short = 'o', long = "out", value_name = "FILE.mp4", required_unless_present = "sheet", value_parser = film)]
    film: Option<PathBuf>,
    /// Write a contact sheet.
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Frames on the contact sheet, spread over the video.
    #[arg(short = 'n', long = "frames", value_name = "N", default_value_t = 12, requires = "sheet", value_parser = clap::value_parser!(u16).range(1..=200))]
    frames: u16,
    /// Show this model's labels, in its tasks.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

fn film(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .map(str::to_ascii_lowercase);
    match ending {
        Some(ending) if ENDINGS.contains(&ending.as_str()) => Ok(path),
        _ => Err(format!("its name must end in one of .{}", ENDINGS.join(", ."))),
    }
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let set = opened(&args.labels)?;
    if let Some(model) = &args.model
        && set.model(model).is_none()
    {
        let known: Vec<&str> = set.job().models.iter().map(|model| model.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "--model {model}: {} has {}",
            set.store().root(),
            known.join(", ")
        )));
    }
    let mut found = render::find(&set, &args.video).map_err(|error| match error {
        FindError::Store(_) | FindError::Set(_) => Failure::stopped(error),
        error => Failure::usage(error),
    })?;
    spare(
        &[&found.task.video, Path::new(&args.video)],
        &args.film,
        &args.sheet,
    )?;
    let written = args.film.as_deref().map(beside).transpose()?;
    for (model, tasks) in render::left_out(&found.task.job, args.model.as_deref()) {
        let outputs: Vec<&str> = tasks.into_iter().map(in_words).collect();
        to_stderr(format!(
            "not drawn, because the weights of {model} are untrained: {}; --model {model} draws them, marked",
            outputs.join(", ")
        ));
    }
    found.task.model = args.model;
    found.task.film = written.as_ref().map(|file| file.path().to_owned());
    found.task.sheet = args.sheet.clone().map(|sheet| (sheet, args.frames.into()));
    let mut program = this_program();
    program.arg("draw");
    let frames =
        render::have_drawn(&found.task, program).map_err(|error| match (error, &written, &args.film) {
            // The error names the final file, not the temporary one.
            (ApartError::Failed(cause), Some(file), Some(film)) => Failure::stopped(
                cause.replace(&file.path().display().to_string(), &film.display().to_string()),
            ),
            (error, ..) => Failure::stopped(error),
        })?;
    if let (Some(file), Some(film)) = (written, &args.film) {
        file.persist(film)
            .map_err(|error| Failure::stopped(format!("{}: {}", film.display(), error.error)))?;
        print(format!("video: {} ({frames} frames)", film.display()))?;
    }
    if let Some(sheet) = &args.sheet {
        print(format!("contact sheet: {}", sheet.display()))?;
    }
    Ok(exit::OK)
}

/// Rejects outputs that would overwrite a source or each other.
fn spare(sources: &[&Path], film: &Option<PathBuf>, sheet: &Option<PathBuf>) -> Result<(), Failure> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    for written in [film, sheet].into_iter().flatten() {
        let there = real(written);
        if there.is_some() && sources.iter().any(|source| real(source) == there) {
            return Err(Failure::usage(format!(
                "{} is the video itself, and would be lost; write to another file",
                written.display()
            )));
        }
    }
    match (film, sheet) {
        (Some(film), Some(sheet)) if std::path::absolute(film).ok() == std::path::absolute(sheet).ok() => {
            Err(Failure::usage(format!(
                "{} cannot be both the film and the sheet; name two files",
                film.display()
            )))
        }
        _ => Ok(()),
    }
}

/// A temporary file in the same folder, renamed when it is complete, else deleted.
fn beside(film: &Path) -> Result<NamedTempFile, Failure> {
    let absolute = std::path::absolute(film).map_err(Failure::usage)?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let ending = format!(".part.{}", film.extension().unwrap_or_default().to_string_lossy());
    let mut builder = tempfile::Builder::new();
    let builder = builder
        .prefix(".")
        .suffix(&ending)
        .permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(folder).map_err(|error| {
        Failure::usage(format!(
            "{}: cannot be written: {error}; name a file in a folder that is there",
            film.display()
        ))
    })
}

/// Renders a task from standard input; started by `render`.
pub fn draw() -> Result<u8, Failure> {
    render::serve().map_err(Failure::usage)?;
    Ok(exit::OK)
}
