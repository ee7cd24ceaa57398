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
/// The folder is new or empty, or holds an earlier export of the same, which is written again; files that only that one had are
/// removed, and others that lie there stay. Each file is there whole or not at all; `export.json` says what is exported and, where
/// each video has a file, `files.jsonl` which is whose. The set may be unfinished: what is committed is exported.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix, reached as the environment says.
    output: OsString,
    /// The format.
    #[arg(long, value_enum)]
    format: Told,
    /// The folder to write into.
    #[arg(short, long = "out", value_name = "DIR")]
    out: PathBuf,
    /// Export what this model says; may be repeated. Needed where several have the same: a label in these formats has one author.
    /// csv and jsonl hold all models unless some are named.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// With csv: write text as it is, also where a spreadsheet would take it for a formula (= + - @ at its beginning).
    #[arg(long)]
    raw: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Told {
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
        Told::Openface => Format::Openface,
        Told::Fex => Format::Fex,
        Told::Abaw => Format::Abaw,
        Told::Webdataset => Format::Webdataset,
        Told::Csv => Format::Csv,
        Told::Jsonl => Format::Jsonl,
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
    if let Some(told) = table::quoted_cells(exported.quoted_cells) {
        to_stderr(told);
    }
    if !exported.untrained.is_empty() {
        to_stderr(format!(
            "UNTRAINED weights, labels that mean nothing: {}",
            exported.untrained.join(", ")
        ));
    }
    Ok(exit::OK)
}
