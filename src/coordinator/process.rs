//! One worker process, seen from outside: orders in, reports out, and how it ended.

use super::RunError;

use affectmill_base::this_program;
use affectmill_queue::{FromWorker, ToWorker, WorkerId, read_message_async, write_message_async};
use affectmill_worker as worker;
use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

/// Lines of standard error kept of each worker.
const STDERR_LINES: usize = 12;

/// What a worker process sends to the dispatch loop.
#[derive(Debug)]
pub enum Signal {
    /// A report.
    Report(WorkerId, FromWorker),
    /// The process has ended; nothing more comes from it.
    Ended(WorkerId, Exit),
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status; `None` when even that could not be learned.
    pub status: Option<ExitStatus>,
    /// Its last lines on standard error.
    pub last_words: Vec<String>,
}

impl Exit {
    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }

    /// Whether an operator, a scheduler or a limit of the session may have ended it, or the kernel when out of memory: the signal
    /// is the same.
    pub fn is_from_outside(&self) -> bool {
        use libc::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGXCPU, SIGXFSZ};
        const OUTSIDE: [i32; 6] = [SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGXCPU, SIGXFSZ];
        self.signal().is_some_and(|signal| OUTSIDE.contains(&signal))
    }

    /// The end in words.
    pub fn describe(&self) -> String {
        match (self.signal(), self.status.and_then(|status| status.code())) {
            (Some(signal), _) => format!("killed by signal {signal} ({})", signal_name(signal)),
            (None, Some(code)) => format!("ended with exit code {code}"),
            (None, None) => "ended for an unknown reason".into(),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        24 => "SIGXCPU, the limit of its processor time",
        25 => "SIGXFSZ, the limit of a file's size",
        _ => "see signal(7)",
    }
}

/// A running worker. Dropping it closes the worker's standard input, which ends it.
#[derive(Debug)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    stdin: ChildStdin,
    kill: Option<oneshot::Sender<()>>,
}

impl Process {
    /// Starts `affectmill worker`; its reports and its end go to `signals`.
    pub fn start(id: WorkerId, signals: mpsc::Sender<Signal>) -> Result<Self, RunError> {
        let mut child = Command::from(this_program())
            .arg("worker")
            .envs(worker::lacking())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal is for the coordinator, which lets workers finish their shards.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(RunError::Spawn)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(RunError::Spawn(std::io::Error::other("its pipes are missing")));
        };
        let pid = child.id().unwrap_or_default();
        let (kill, killed) = oneshot::channel();
        let words = tokio::spawn(last_words(stderr));
        tokio::spawn(async move {
            let exit = watch(id, child, stdout, killed, &signals).await;
            let last_words = words.await.unwrap_or_default();
            let _ = signals
                .send(Signal::Ended(
                    id,
                    Exit {
                        status: exit,
                        last_words,
                    },
                ))
                .await;
        });
        Ok(Self {
            pid,
            stdin,
            kill: Some(kill),
        })
    }

    /// Sends an order. A broken pipe is no error here: the end of the process is on its way.
    pub async fn send(&mut self, order: &ToWorker) {
        let _ = write_message_async(&mut self.stdin, order).await;
    }

    /// Kills the process; its end is reported as always.
    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
    }
}

/// Forwards reports until the pipe closes or the worker is killed, then waits for the end.
async fn watch(
    id: WorkerId,
    mut child: Child,
    mut stdout: ChildStdout,
    mut killed: oneshot::Receiver<()>,
    signals: &mpsc::Sender<Signal>,
) -> Option<ExitStatus> {
    let mut kill_possible = true;
    loop {
        let report = read_message_async(&mut stdout);
        tokio::pin!(report);
        let report = loop {
            tokio::select! {
                report = &mut report => break Some(report),
                order = &mut killed, if kill_possible => {
                    kill_possible = false;
                    if order.is_ok() {
                        let _ = child.start_kill();
                        break None;
                    }
                }
            }
        };
        match report {
            Some(Ok(Some(report))) => {
                if signals.send(Signal::Report(id, report)).await.is_err() {
                    break;
                }
            }
            // The pipe closed, or what came is no message: either way this worker is of no more use.
            Some(Ok(None)) => break,
            Some(Err(_)) => {
                let _ = child.start_kill();
                break;
            }
            None => break,
        }
    }
    child.wait().await.ok()
}

async fn last_words(stderr: ChildStderr) -> Vec<String> {
    let mut lines = BufReader::new(stderr).split(b'\n');
    let mut kept = VecDeque::with_capacity(STDERR_LINES);
    while let Ok(Some(line)) = lines.next_segment().await {
        if kept.len() == STDERR_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).chars().take(400).collect());
    }
    kept.into()
}
