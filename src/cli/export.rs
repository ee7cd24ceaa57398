//! `affectmill export`.

use super::query::failure;
use super::{Failure, exit, opened, print, to_stderr};
use affectmill_analysis::export;
use affectmill_analysis::export::Format;
use affectmill_analysis::labels::Labels;
use affectmill_analysis::table;
use affectmill_analysis::table::Cells;
use affectmill_progress::text::plural;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;

/// Write a label set in a format that other tools read, into a folder on this machine.
///
/// The folder must be new or empty, or have an earlier export of the same label set, which is replaced: its outdated files are
/// removed, other files stay. Each file is written atomically. `export.json` describes the export; `files.jsonl` lists the file of
/// each video, if there is one per video. An unfinished set is exported as far as it is committed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix, reached by the settings in the environment.
    output: OsString,
    /// The format.
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// The folder to write into.
    #[arg(short, long = "out", value_name = "DIR")]
    out: PathBuf,
    /// Export this model's labels; may be repeated. Required if several models have the same outputs, because these formats have one
    /// value per label. Default for csv and jsonl: all models.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// With csv: write text unchanged, even if a spreadsheet would read it as a formula (= + - @ at its start).
    #[arg(long)]
    raw: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    /// A CSV for each video with OpenFace 2.2's columns frame (from 1), face_id (the track), timestamp, confidence, success, AUxx_c
    /// (1 where the probability is above 0.5). Intensities AUxx_r are empty: no model here estimates them.
    Openface,
    /// A CSV for each video as py-feat's first detector writes it: box, AUxx and emotions (probabilities), input, frame (from 0).
    Fex,
    /// annotations/ and submission/ of the ABAW competitions: VA_Set, EXPR_Set, AU_Set with a text file for each video and a row for
    /// each frame, of its largest face.
    Abaw,
    /// Tar shards of the crops with their labels (jpg, json, cls), for trainers. Needs `[output] crops = "webdataset"`.
    Webdataset,
    /// labels.csv: every row and column.
    Csv,
    /// labels.jsonl: every row and column, a JSON object a line.
    Jsonl,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    if args.out.to_string_lossy().starts_with("s3://") {
        return Err(Failure::usage(
            "an export goes into a folder on this machine; copy it to S3 afterwards",
        ));
    }
    let format = match args.format {
        ExportFormat::Openface => Format::Openface,
        ExportFormat::Fex => Format::Fex,
        ExportFormat::Abaw => Format::Abaw,
        ExportFormat::Webdataset => Format::Webdataset,
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Jsonl => Format::Jsonl,
    };
    let cells = match (args.raw, format) {
        (false, _) => Cells::Harmless,
        (true, Format::Csv) => Cells::Raw,
        (true, format) => {
            return Err(Failure::usage(format!(
                "--raw is for csv; {} has its names as they are",
                format.name()
            )));
        }
    };
    let set = opened(&args.output)?;
    let labels = Labels::of(&set).map_err(failure)?;
    let exported = export::export(&labels, format, &args.out, &args.model, cells).map_err(failure)?;
    print(format!(
        "{} in {} of {}, in {}",
        plural(exported.rows, "row"),
        plural(exported.files, "file"),
        format.name(),
        args.out.display()
    ))?;
    if let Some(note) = table::quoted_cells(exported.quoted_cells) {
        to_stderr(note);
    }
    if !exported.untrained.is_empty() {
        to_stderr(format!(
            "UNTRAINED weights, labels that mean nothing: {}",
            exported.untrained.join(", ")
        ));
    }
    Ok(exit::OK)
}
