//! `affectmill summary`.

use super::{Failure, exit, print};
use crate::commit;
use crate::coordinator;
use crate::dataset::paths;
use crate::report::summary;
use crate::store::Store;
use std::path::PathBuf;

/// Print small tables of what is in a label set.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output folder.
    output: PathBuf,
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let store = Store::open_existing(&args.output).map_err(Failure::usage)?;
    let job = coordinator::read_job(&store).map_err(Failure::stopped)?;
    let committed = commit::read_all(&store).map_err(Failure::stopped)?;
    if committed.is_empty() {
        return Err(Failure::usage(format!(
            "{} holds no labels yet",
            store.root().display()
        )));
    }
    let tables = summary::read(&store, &job, &committed.into_keys().collect::<Vec<_>>())
        .map_err(|error| Failure::stopped(format!("{}: {error}", store.path(paths::LABELS).display())))?;
    print(summary::render(&tables));
    let untrained: Vec<&str> = job.untrained().collect();
    if !untrained.is_empty() {
        print(format!(
            "UNTRAINED weights, labels that mean nothing: {}",
            untrained.join(", ")
        ));
    }
    print(format!("labels: {}", store.path(paths::LABELS).display()));
    Ok(exit::OK)
}
