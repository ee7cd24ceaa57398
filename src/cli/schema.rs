//! `affectmill schema`.

use super::{Failure, exit, print};
use affectmill_labelset::schema_files;
use std::path::PathBuf;

/// Print the JSON Schema of job files, or write all schemas into a folder with a page about every file and column.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the schemas of job files and of every record, and the page about them, into this folder.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    for (name, text) in schema_files() {
        match &args.output {
            Some(folder) => {
                let path = folder.join(name);
                std::fs::create_dir_all(folder)
                    .and_then(|()| std::fs::write(&path, text))
                    .map_err(|error| Failure::stopped(format!("{}: {error}", path.display())))?;
                print(path.display().to_string())?;
            }
            None if name == "job.schema.json" => print(text)?,
            None => {}
        }
    }
    Ok(exit::OK)
}
