//! `affectmill retry`.

use super::run::{Input, Shown, carry_out, failure};
use super::{Failure, block_on, existing};
use affectmill_base::ErrorClass;
use affectmill_base::VideoKey;
use affectmill_coordinator as coordinator;
use affectmill_coordinator::{Signals, Wanted};
use affectmill_labelset::paths;
use affectmill_spec as spec;
use std::ffi::OsString;
use std::path::PathBuf;

/// Label again the videos that failed or were quarantined, and those that are partial and whose file has changed since; rows are
/// never doubled.
///
/// `videos.parquet`, `affectmill status` and the end of a run list each video's class of error. A file that changed or was repaired
/// is read as it is now; the earlier rows of a partial video are removed first. Work that an earlier run left undone is done too.
/// `affectmill run` or `affectmill retry` resumes a stopped or killed retry.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix, reached by the settings in the environment; the retry itself uses the recorded job.
    output: OsString,
    /// Only these classes of error: corrupt, unsupported, timeout, crash, io, changed, not_finite; separated by commas.
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',', value_parser = class)]
    class: Vec<ErrorClass>,
    /// Only this video, by its path within the input; may be repeated.
    #[arg(long, value_name = "KEY", value_parser = |text: &str| VideoKey::new(text))]
    video: Vec<VideoKey>,
    /// Override a value of the recorded job, such as run.video_timeout=7200; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Continue although the output was started on another class of device (GPU or CPU): rows may differ in their last bits, and
    /// each shard's commit record says what it was labelled on.
    #[arg(long)]
    allow_device_change: bool,
    #[command(flatten)]
    input: Input,
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

pub fn run(args: Args) -> Result<u8, Failure> {
    block_on(again(args))?
}

async fn again(args: Args) -> Result<u8, Failure> {
    let mut signals = Signals::hear().map_err(failure)?;
    let store = existing(&args.output)?;
    let recorded = coordinator::recorded_job(&store).map_err(failure)?;
    let record = PathBuf::from(store.path(paths::JOB).to_string());
    let mut job = spec::amend(&recorded, &args.set, &record).map_err(Failure::usage)?;
    job.run.allow_device_change |= args.allow_device_change;
    // The folder may have been moved since.
    job.output.uri = store.root().clone();
    let wanted = Wanted {
        classes: args.class,
        videos: args.video,
    };
    let (run, moved) = (job.run.clone(), args.input.moved);
    carry_out(args.shown, &run, &mut signals, async |signals, sink| {
        coordinator::prepare_retry(job, wanted, moved, signals, sink).await
    })
    .await
}
