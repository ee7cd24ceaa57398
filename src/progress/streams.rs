//! Standard output and standard error, which may be full, closed, or a terminal that is gone: the one place that writes to
//! them, and never panics over it.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes a line to standard error. Where that fails, there is nobody left to tell.
pub fn to_stderr(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes bytes to standard output, all of them. A reader that went away (`| head`) is no error.
///
/// # Errors
/// They could not be written, such as to a full disk.
pub fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
