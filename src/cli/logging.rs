//! The diagnostic log: messages of the libraries for the store, the queue and the network, and the events of a run. It is off by
//! default.

use super::Failure;
use std::fs::OpenOptions;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

/// Filter: `debug`, or `warn,aws_smithy_runtime=debug`.
const FILTER: &str = "AFFECTMILL_LOG";
/// Log file; all processes of a run append to it.
const FILE: &str = "AFFECTMILL_LOG_FILE";
/// Format: `json` or `text`.
const FORMAT: &str = "AFFECTMILL_LOG_FORMAT";

/// The help text.
pub const HELP: &str = "\
Log, for looking into trouble with a store or a queue (credentials are never in it):
  AFFECTMILL_LOG         what: error, warn, info or debug, also by part: warn,async_nats=debug
  AFFECTMILL_LOG_FILE    a file to append to, by every process of a run (default: standard error)
  AFFECTMILL_LOG_FORMAT  json, or text (default)";

/// Starts the log configured in the environment.
pub fn start() -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(wanted) = set(FILTER) else {
        return Ok(());
    };
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        Failure::usage(format!(
            "{FILTER} cannot be {wanted:?}: {error}; write a level (error, warn, info, debug) or part=level with commas between"
        ))
    })?;
    let json = match set(FORMAT).as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::usage(format!(
                "{FORMAT} cannot be {other:?}; write json or text"
            )));
        }
    };
    let layer = tracing_subscriber::fmt::layer();
    let layer = match set(FILE) {
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(&path);
            let file = file.map_err(|error| Failure::usage(format!("{FILE}: {path}: {error}")))?;
            let layer = layer.with_ansi(false).with_writer(Mutex::new(file));
            if json { layer.json().boxed() } else { layer.boxed() }
        }
        None => {
            let layer = layer.with_ansi(console::colors_enabled_stderr());
            let layer = layer.with_writer(std::io::stderr);
            if json { layer.json().boxed() } else { layer.boxed() }
        }
    };
    // A finer level would log requests with their headers.
    let layer = layer.with_filter(LevelFilter::DEBUG);
    tracing_subscriber::registry().with(filter).with(layer).init();
    Ok(())
}
