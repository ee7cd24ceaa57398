//! Drawing in a process of its own: the video's bytes meet FFmpeg there, and what they break is that process.

use super::{Task, draw};
use affectmill_base::escaped;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

/// Bytes kept of what the process wrote to standard error.
const LAST_WORDS: usize = 2_000;

/// What the process says, one a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// Frames drawn so far.
    Frames(u64),
    /// All are drawn.
    Done(u64),
    /// It could not go on.
    Failed(String),
}

/// Why nothing came out.
#[derive(Debug, thiserror::Error)]
pub enum ApartError {
    /// The process cannot be started, or not be given its task.
    #[error("cannot start a process to draw in: {0}")]
    Start(#[from] io::Error),
    /// The task cannot be put into words.
    #[error("cannot hand over the task: {0}; please report this")]
    Task(#[from] serde_json::Error),
    /// It says why.
    #[error("{0}")]
    Failed(String),
    /// It does not.
    #[error(
        "the process that reads the video {end} after frame {frames}; the file is likely damaged or hostile, and nothing was \
         written{words}"
    )]
    Crashed {
        /// How it ended.
        end: String,
        /// Frames drawn before.
        frames: u64,
        /// What it last wrote to standard error.
        words: String,
    },
}

/// Has the task drawn by `command`, which reads it from standard input as [`serve`] does; returns the number of frames.
///
/// # Errors
/// [`ApartError`]: the process could not be started, failed, or crashed.
pub fn have_drawn(task: &Task, mut command: Command) -> Result<u64, ApartError> {
    let json = serde_json::to_vec(task)?;
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let words = thread::Builder::new()
        .name("last words".into())
        .spawn(move || last_words(stderr))?;
    // One that died at once reads nothing: its end says more than this pipe's.
    let _ = stdin.map_or(Ok(()), |mut stdin| stdin.write_all(&json));
    let bar = ProgressBar::new(task.frames);
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos} of {len} frames {eta}") {
        bar.set_style(style);
    }
    let (mut frames, mut end) = (0, None);
    for line in stdout
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines)
        .map_while(Result::ok)
    {
        match serde_json::from_str(&line) {
            Ok(Said::Frames(drawn)) => {
                frames = drawn;
                bar.set_position(drawn);
            }
            Ok(said) => end = Some(said),
            // A library that prints.
            Err(_) => {}
        }
    }
    bar.finish_and_clear();
    let status = child.wait()?;
    let words = words.join().unwrap_or_default();
    match end {
        Some(Said::Done(frames)) => Ok(frames),
        Some(Said::Failed(cause)) => Err(ApartError::Failed(escaped(&cause).into_owned())),
        _ => Err(ApartError::Crashed {
            end: describe(status),
            frames,
            words: words.lines().map(|line| format!("\n  | {line}")).collect(),
        }),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended for an unknown reason".into(),
    }
}

fn last_words(stderr: Option<impl Read>) -> String {
    let mut words = Vec::new();
    if let Some(mut stderr) = stderr {
        // What cannot be read was not said.
        let _ = stderr.read_to_end(&mut words);
    }
    String::from_utf8_lossy(&words[words.len().saturating_sub(LAST_WORDS)..]).into_owned()
}

/// The process itself: a task from standard input, drawn, and what is said of it on standard output.
///
/// # Errors
/// The task is none, or nobody listens any more.
pub fn serve() -> Result<(), ApartError> {
    let task: Task = serde_json::from_reader(io::stdin().lock())?;
    let say = |said: &Said| -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(said)?)?;
        out.flush()
    };
    let mut heard = Ok(());
    let drawn = draw(&task, &mut |frames| {
        heard = say(&Said::Frames(frames));
        heard.is_ok()
    });
    heard?;
    Ok(say(&match drawn {
        Ok(frames) => Said::Done(frames),
        Err(error) => Said::Failed(error.to_string()),
    })?)
}
