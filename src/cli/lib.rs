//! The command line: one file per subcommand, and the meaning of the exit codes.

mod bench;
mod completions;
mod dashes;
mod doctor;
mod evaluate;
mod export;
mod import_weights;
mod init_weights;
mod logging;
mod plan;
mod query;
mod render;
mod report;
mod retry;
mod run;
mod schema;
mod status;
mod summary;
mod train;
mod worker;

use affectmill_base::{Location, visible};
use affectmill_base::{name_this_process, outlive};
use affectmill_labelset::LabelSet;
use affectmill_progress::{to_stderr, to_stdout};
use affectmill_store::{Access, Store};
use clap::{Parser, Subcommand};
use std::ffi::OsStr;
use std::process::ExitCode;

/// Exit codes, as the help and the README state them.
pub mod exit {
    /// Everything is labelled.
    pub const OK: u8 = 0;
    /// The command or the job file is wrong; nothing was started.
    pub const USAGE: u8 = 2;
    /// The run is finished, but some videos failed or are partial, or parts of the input could not be read; they are listed.
    pub const VIDEOS_FAILED: u8 = 3;
    /// The run stopped on an error; committed labels stay.
    pub const STOPPED: u8 = 4;
    /// Drained on SIGTERM: preempted, run again.
    pub const PREEMPTED: u8 = 75;
    /// Drained on Ctrl-C.
    pub const INTERRUPTED: u8 = 130;

    /// The code after a signal stopped the run.
    pub fn stopped(signal: affectmill_coordinator::Signal) -> u8 {
        use affectmill_coordinator::Signal;
        match signal {
            Signal::Interrupt => INTERRUPTED,
            Signal::Terminate => PREEMPTED,
        }
    }
}

const FIRST_STEPS_AND_EXIT_CODES: &str = "\
First steps: copy jobs/demo.toml, name your videos and weights in it; `affectmill plan JOB.toml` shows what it
would do, `affectmill run JOB.toml` does it; `affectmill report OUTPUT -o labels.html` draws what came out.

Exit codes:
  0    all labelled
  2    the command or the job file is wrong; nothing was begun
  3    finished, some videos failed or are partial, or places could not be looked at (listed)
  4    the run could not go on; what is committed stays, run again
  75   preempted (SIGTERM), run again
  130  interrupted (Ctrl-C), run again";

/// Labels faces in very large video collections: one trustworthy row per frame and face, in Parquet.
///
/// A first job: write JOB.toml (jobs/demo.toml is a commented example), look at what it would do with
/// `affectmill plan JOB.toml`, then `affectmill run JOB.toml`. After a stop or a crash, `run` again resumes.
#[derive(Debug, Parser)]
#[command(
    name = "affectmill",
    version,
    after_help = FIRST_STEPS_AND_EXIT_CODES,
    after_long_help = format!("{FIRST_STEPS_AND_EXIT_CODES}\n\n{}", logging::HELP),
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Retry(retry::Args),
    Status(status::Args),
    Summary(summary::Args),
    Query(query::Args),
    Report(report::Args),
    Render(render::Args),
    Export(export::Args),
    Evaluate(evaluate::Args),
    Train(train::Args),
    Bench(bench::Args),
    ImportWeights(import_weights::Args),
    InitWeights(init_weights::Args),
    Doctor(doctor::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Worker(worker::Args),
    /// Render a task from standard input; started by `render`.
    #[command(hide = true)]
    Draw,
}

/// How a command failed: what to print and the exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl ToString) -> Self {
        Self {
            code: exit::USAGE,
            message: message.to_string(),
        }
    }

    fn stopped(message: impl ToString) -> Self {
        Self {
            code: exit::STOPPED,
            message: message.to_string(),
        }
    }
}

/// Parses the arguments of this process; on an error, prints it and exits.
pub fn parse() -> Cli {
    dashes::parse().unwrap_or_else(|error| error.exit())
}

/// Runs the command.
pub fn run(cli: Cli) -> ExitCode {
    name_this_process();
    // Exceeding the file size limit then gives an I/O error instead of ending the process.
    let begun = outlive(&[libc::SIGXFSZ]).map_err(Failure::stopped);
    let done = begun
        .and_then(|()| logging::start())
        .and_then(|()| carry_out(cli.command));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            to_stderr(format!(
                "{}: {}",
                console::style("error").red().bold().for_stderr(),
                visible(&failure.message)
            ));
            ExitCode::from(failure.code)
        }
    }
}

fn carry_out(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Retry(args) => retry::run(args),
        Command::Status(args) => status::run(args),
        Command::Summary(args) => summary::run(args),
        Command::Query(args) => query::run(args),
        Command::Report(args) => report::run(args),
        Command::Render(args) => render::run(args),
        Command::Export(args) => export::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Train(args) => train::run(args),
        Command::Bench(args) => bench::run(args),
        Command::ImportWeights(args) => import_weights::run(args),
        Command::InitWeights(args) => init_weights::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Draw => render::draw(),
        Command::Worker(args) => worker::run(args),
    }
}

/// Prints to standard output, with control characters escaped.
fn print(text: impl AsRef<str>) -> Result<(), Failure> {
    print_bytes(format!("{}\n", visible(text.as_ref().trim_end())).as_bytes())
}

/// Prints bytes unchanged.
fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    to_stdout(bytes).map_err(|error| {
        Failure::stopped(format!(
            "cannot write to standard output: {error}; free space where it goes, and run the command again"
        ))
    })
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print(serde_json::to_string_pretty(value).map_err(Failure::stopped)?)
}

/// Opens an existing label set by its location.
fn existing(output: &OsStr) -> Result<Store, Failure> {
    let location = match output.to_str() {
        Some(text) => Location::parse(text).map_err(Failure::usage)?,
        None => Location::Local(output.into()),
    };
    Store::connect_existing(&location, &Access::of_environment()).map_err(Failure::usage)
}

/// The label set that a person names, opened.
fn opened(output: &OsStr) -> Result<LabelSet, Failure> {
    LabelSet::open(existing(output)?).map_err(Failure::stopped)
}

/// The coordinator's runtime: one thread, which owns all run state.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::stopped)?;
    let done = runtime.block_on(future);
    // A store that does not respond must not block the end of a stopped run.
    runtime.shutdown_background();
    Ok(done)
}
