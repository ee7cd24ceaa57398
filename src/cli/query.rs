//! `affectmill query`.

use super::{Failure, exit, opened, print_bytes, to_stderr};
use affectmill_analysis::labels::{LabelError, Labels, Quantity};
use affectmill_analysis::query;
use affectmill_analysis::query::{Answer, Question, Smooth};
use affectmill_analysis::table;
use affectmill_analysis::table::{Cells, Format};
use affectmill_base::escaped;
use affectmill_base::write_atomic;
use affectmill_progress::text::plural;
use clap::{Subcommand, ValueEnum};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Ask a label set a common question: means of videos, segments above a threshold, strongest frames.
///
/// A quantity is valence, arousal, an expression (Neutral, Anger, Disgust, Fear, Happiness, Sadness, Surprise) or an action unit
/// (AU1 AU2 AU4 AU6 AU7 AU10 AU12 AU15 AU23 AU24 AU25 AU26); of expressions and action units it is the probability. An
/// unfinished set answers as far as it is committed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  affectmill query out/ means                            every quantity, for each video
  affectmill query out/ segments AU12 --min-seconds 1    who smiled for a second or longer, when
  affectmill query out/ top Happiness -n 20 --apart 5    the twenty happiest moments
  affectmill query out/ segments Happiness --smooth median:0.2s -o happy.csv
  affectmill query out/ curve valence --smooth gaussian:0.5s -o valence.parquet")]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix, reached by the settings in the environment.
    output: OsString,
    #[command(subcommand)]
    question: QuestionArgs,
    /// The model to query, if several have the quantity.
    #[arg(long, value_name = "NAME", global = true)]
    model: Vec<String>,
    /// Format of the answer; default: by the file's extension, else a table.
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    format: Option<AnswerFormat>,
    /// Write the answer into this file instead of printing it.
    #[arg(short, long = "out", value_name = "FILE", global = true)]
    out: Option<PathBuf>,
    /// In CSV, write text unchanged, even if a spreadsheet would read it as a formula (= + - @ at its start).
    #[arg(long, global = true)]
    raw: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AnswerFormat {
    Table,
    Csv,
    Json,
    Parquet,
}

#[derive(Debug, Subcommand)]
enum QuestionArgs {
    /// Means of quantities over the faces of each video.
    Means {
        /// The quantities; default: all.
        quantities: Vec<Quantity>,
    },
    /// Segments in which a quantity is at or above a threshold, in successive frames of one track.
    ///
    /// A segment ends when the value falls below the threshold, when the face is missing from a sampled frame, when a frame is missing
    /// or damaged, or when time jumps in a `partial` video, because footage was lost. Its length is the presentation time from its
    /// first to its last frame, independent of the frame rate.
    Segments {
        /// The quantity.
        quantity: Quantity,
        /// The threshold.
        #[arg(
            long,
            default_value_t = 0.5,
            value_name = "VALUE",
            allow_negative_numbers = true,
            value_parser = finite
        )]
        threshold: f32,
        /// Minimum length in seconds.
        #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = seconds)]
        min_seconds: f64,
        #[command(flatten)]
        smoothing: Smoothing,
    },
    /// A quantity in every frame of every track, to plot or process, smoothed if wanted.
    Curve {
        /// The quantity.
        quantity: Quantity,
        #[command(flatten)]
        smoothing: Smoothing,
    },
    /// The frames where a quantity is largest, with their times.
    Top {
        /// The quantity.
        quantity: Quantity,
        /// How many frames.
        #[arg(short = 'n', long, default_value_t = 20)]
        count: usize,
        /// Minimum distance in seconds between frames of one track, best first, so that neighbouring frames count once.
        #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = seconds)]
        apart: f64,
        #[command(flatten)]
        smoothing: Smoothing,
    },
}

#[derive(Debug, clap::Args)]
struct Smoothing {
    /// Smooth the quantity first, over successive frames of one track: gaussian:0.2s (standard deviation) or median:0.2s (width of the
    /// window). The answer records it.
    #[arg(long, value_name = "KIND:TIME")]
    smooth: Option<Smooth>,
}

fn finite(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite());
    number.ok_or_else(|| "a number".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds, 0 or more".into())
}

impl QuestionArgs {
    fn question(self) -> (Question, Option<Smooth>) {
        match self {
            QuestionArgs::Means { quantities } => (Question::Means(quantities), None),
            QuestionArgs::Curve { quantity, smoothing } => (Question::Curve(quantity), smoothing.smooth),
            QuestionArgs::Segments {
                quantity,
                threshold,
                min_seconds,
                smoothing,
            } => {
                let question = Question::Segments {
                    quantity,
                    threshold,
                    min_seconds,
                };
                (question, smoothing.smooth)
            }
            QuestionArgs::Top {
                quantity,
                count,
                apart,
                smoothing,
            } => {
                let question = Question::Top {
                    quantity,
                    count,
                    apart_seconds: apart,
                };
                (question, smoothing.smooth)
            }
        }
    }
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let format = match (args.format, &args.out) {
        (Some(AnswerFormat::Table), _) | (None, None) => Format::Table,
        (Some(AnswerFormat::Csv), _) => Format::Csv,
        (Some(AnswerFormat::Json), _) => Format::Json,
        (Some(AnswerFormat::Parquet), _) => Format::Parquet,
        (None, Some(path)) => Format::of_name(path),
    };
    if format == Format::Parquet && args.out.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "Parquet is not for a terminal: say where it belongs with -o FILE",
        ));
    }
    if args.raw && format != Format::Csv {
        return Err(Failure::usage("--raw is for CSV; add --format csv"));
    }
    let cells = if args.raw { Cells::Raw } else { Cells::Harmless };
    let set = opened(&args.output)?;
    let labels = Labels::of(&set).map_err(failure)?;
    let (question, smooth) = args.question.question();
    let answer = query::ask(&labels, &question, &args.model, smooth).map_err(failure)?;
    write_answer(&answer, format, cells, args.out.as_deref())?;
    note(&answer);
    Ok(exit::OK)
}

/// The exit code of an error in reading or writing.
pub(super) fn failure(error: LabelError) -> Failure {
    if error.is_usage() {
        Failure::usage(error)
    } else {
        Failure::stopped(error)
    }
}

fn write_answer(answer: &Answer, format: Format, cells: Cells, out: Option<&Path>) -> Result<(), Failure> {
    let failed = |error| failure(LabelError::Table(error));
    let mut shown = answer.table.clone();
    if let Some(of) = answer.of.as_ref().filter(|_| format != Format::Table) {
        shown = query::with_constant(shown, "of", of).map_err(failed)?;
    }
    let wrapped = console::Term::stdout().size_checked().filter(|_| out.is_none());
    let width = wrapped.map(|(_, width)| width.into());
    let (mut bytes, quoted) = table::encode(&shown, format, cells, width).map_err(failed)?;
    if let Some(failed) = table::quoted_cells(quoted) {
        to_stderr(failed);
    }
    if format == Format::Table {
        let rows = plural(answer.table.height() as u64, "row");
        bytes.extend(format!("\n{rows}: {}\n", answer.caption).bytes());
    }
    match out {
        Some(path) => write_atomic(path, &bytes).map_err(Failure::stopped),
        None => print_bytes(&bytes),
    }
}

/// Notes beside the table.
fn note(answer: &Answer) {
    if let Some(first) = answer.without_times.first() {
        to_stderr(format!(
            "left out, without times to go by: {} (such as `{}`); images get times by `[input] image_fps`",
            plural(answer.without_times.len() as u64, "video"),
            escaped(first)
        ));
    }
    if !answer.untrained.is_empty() {
        to_stderr(format!(
            "UNTRAINED weights, labels that mean nothing: {}",
            answer.untrained.join(", ")
        ));
    }
}
