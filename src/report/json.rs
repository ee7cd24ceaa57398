//! `--json`: one event a line on standard output.

use super::Sink;
use crate::domain::visible;
use crate::events::Event;
use std::io::Write;

/// Writes events as JSON lines.
pub struct Json;

impl Sink for Json {
    fn event(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // Nobody reads any more: the run itself goes on.
            let _ = writeln!(std::io::stdout(), "{}", visible(&line));
        }
    }
}
