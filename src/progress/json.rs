//! `--json`: one event a line on standard output.

use super::{Sink, to_stderr, to_stdout};
use affectmill_base::visible;
use affectmill_labelset::events::Event;

/// Writes events as JSON lines.
pub struct Json {
    /// It was said that they cannot be written.
    told: bool,
}

impl Json {
    /// Before the first event.
    pub fn new() -> Self {
        Self { told: false }
    }
}

impl Sink for Json {
    fn event(&mut self, event: &Event) {
        let Ok(line) = serde_json::to_string(event) else {
            return;
        };
        // Labels matter more than what is told of them: the run goes on.
        if let Err(error) = to_stdout(format!("{}\n", visible(&line)).as_bytes())
            && !std::mem::replace(&mut self.told, true)
        {
            to_stderr(format_args!(
                "warning: events cannot be written to standard output: {error}; the run goes on without"
            ));
        }
    }
}
