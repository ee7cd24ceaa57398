//! What people see: sinks over the event stream, and views of a label set.
//!
//! Flows in: [`Event`]s while a run goes on, or the files of a label set. Flows out: text. Nothing here changes a
//! run; only this room, `cli/` and `main.rs` print.

mod bars;
pub mod curves;
mod json;
pub mod log;
mod plain;
mod progress;
pub mod status;
mod streams;
pub mod text;
mod traced;
mod watch;

pub use streams::{to_stderr, to_stdout};

use affectmill_labelset::events::Event;
use affectmill_store::Store;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;

/// Something that listens to a run.
trait Sink {
    /// Takes one event.
    fn event(&mut self, event: &Event);
}

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bars on a terminal, plain lines elsewhere; on standard error.
    Human,
    /// One JSON event a line on standard output.
    Json,
    /// Failures and warnings only.
    Quiet,
}

/// All sinks of a run.
pub struct Reporter {
    sinks: Vec<Box<dyn Sink>>,
}

impl Reporter {
    /// The sinks for a style.
    pub fn new(style: Style) -> Self {
        let sink: Box<dyn Sink> = match style {
            Style::Json => Box::new(json::Json::new()),
            Style::Quiet => Box::new(plain::Plain::quiet()),
            Style::Human if std::io::stderr().is_terminal() => Box::new(bars::Bars::new()),
            Style::Human => Box::new(plain::Plain::new()),
        };
        Self { sinks: vec![sink] }
    }

    /// Also keeps the events in the label set's event log. A log that cannot be written is no reason to stop.
    pub fn log_into(&mut self, store: &Store) {
        self.sinks.push(Box::new(log::Log::create(store)));
    }

    /// Also shows the run at this address, as `[run] metrics` asks. Returns the address with its port.
    ///
    /// # Errors
    /// The address cannot be taken.
    pub fn serve(&mut self, address: SocketAddr, names: &[String]) -> io::Result<SocketAddr> {
        let watch = watch::Watch::start(address, names)?;
        let address = watch.address;
        self.sinks.push(Box::new(watch));
        Ok(address)
    }

    /// Passes an event to every sink.
    pub fn event(&mut self, event: &Event) {
        traced::event(event);
        for sink in &mut self.sinks {
            sink.event(event);
        }
    }
}
