//! `affectmill retry`.

use super::run::{Shown, carry_out, failure};
use super::{Failure, block_on, existing};
use crate::coordinator::{self, Signals, Wanted};
use crate::dataset::{ErrorClass, paths};
use crate::domain::VideoKey;
use crate::spec;
use std::ffi::OsString;
use std::path::PathBuf;

/// Label again the videos that failed or were quarantined, and no other; rows are never doubled.
///
/// `videos.parquet`, `affectmill status` and the end of a run tell each video's class of error. A file that changed or was
/// mended since is taken as it is now. Videos that are `partial` have rows and stay as they are. What an earlier run left
/// undone is done as well; a retry that was stopped or killed goes on with `affectmill run` or `affectmill retry`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix, reached as the environment says; the retry itself goes by the recorded job.
    output: OsString,
    /// Only these classes of error: corrupt, unsupported, timeout, crash, io, changed; separated by commas.
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',', value_parser = class)]
    class: Vec<ErrorClass>,
    /// Only this video, by its path within the input; may be repeated.
    #[arg(long, value_name = "KEY", value_parser = key)]
    video: Vec<VideoKey>,
    /// Override a value of the recorded job, such as run.video_timeout=7200; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    shown: Shown,
}

fn class(text: &str) -> Result<ErrorClass, String> {
    let known = ErrorClass::ALL.map(ErrorClass::as_str).join(", ");
    ErrorClass::ALL
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| format!("the classes are {known}"))
}

fn key(text: &str) -> Result<VideoKey, String> {
    VideoKey::new(text).map_err(|error| error.to_string())
}

pub fn run(args: Args) -> Result<u8, Failure> {
    block_on(again(args))?
}

async fn again(args: Args) -> Result<u8, Failure> {
    let mut signals = Signals::hear().map_err(failure)?;
    let store = existing(&args.output)?;
    let recorded = coordinator::read_job(&store).map_err(failure)?;
    let record = PathBuf::from(store.path(paths::JOB).to_string());
    let mut job = spec::amend(&recorded.job, &args.set, &record).map_err(Failure::usage)?;
    // The folder may have been moved since.
    job.output.uri = store.root().clone();
    let wanted = Wanted {
        classes: args.class,
        videos: args.video,
    };
    let metrics = job.run.metrics;
    carry_out(args.shown, metrics, &mut signals, async |signals, sink| {
        coordinator::prepare_retry(job, wanted, signals, sink).await
    })
    .await
}
