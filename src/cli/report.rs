//! `affectmill report`.

use super::{Failure, exit, opened, print, print_json};
use affectmill_analysis::page;
use affectmill_analysis::page::Choice;
use affectmill_base::VideoKey;
use affectmill_base::write_atomic;
use std::ffi::OsString;
use std::path::PathBuf;

/// Draw a label set as one page of HTML.
///
/// The page shows the collection and what failed, how the labels are distributed, how far the models agree, drift over the
/// videos, timelines, the most and the least confident faces, and where the time went. It is one file that loads nothing and
/// runs no script: it can be mailed, or opened from a disk. The rows are read once; memory does not grow with them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  affectmill report out/ -o report.html
  affectmill report out/ -o report.html --video a/clip.mp4 --video b.mp4   timelines of these two
  affectmill report s3://labels/2024 --json                                the figures alone")]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix. S3 is reached by the settings in the environment: AWS_PROFILE, AWS_REGION,
    /// AWS_ENDPOINT_URL and the other variables of AWS tools.
    output: OsString,
    /// The page to write; an existing one is replaced.
    #[arg(
        short = 'o',
        long = "out",
        value_name = "FILE.html",
        required_unless_present = "json"
    )]
    file: Option<PathBuf>,
    /// Draw the timeline of this video, named as in videos.parquet; any number of times. Default: the six with the most
    /// faces.
    #[arg(long = "video", value_name = "NAME", value_parser = |name: &str| VideoKey::new(name))]
    videos: Vec<VideoKey>,
    /// Faces to show, of the most and of the least confident ones each.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(0..=500))]
    faces: u16,
    /// Print the page's figures as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let set = opened(&args.output)?;
    let choice = Choice {
        videos: args.videos,
        faces: args.faces.into(),
    };
    let figures = page::read(&set, &choice).map_err(|error| {
        if error.is_usage() {
            Failure::usage(error)
        } else {
            Failure::stopped(error)
        }
    })?;
    if let Some(file) = &args.file {
        let page = page::render(&figures).map_err(Failure::stopped)?;
        write_atomic(file, page.as_bytes()).map_err(Failure::usage)?;
        if !args.json {
            print(format!("report: {}", file.display()))?;
        }
    }
    if args.json {
        print_json(&figures)?;
    }
    Ok(exit::OK)
}
