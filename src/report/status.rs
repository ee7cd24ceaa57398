//! `affectmill status`: how far a label set is, read from its files alone; works while a run is on and after.

use super::log;
use super::progress::Progress;
use super::text;
use crate::commit::{self, CommitError};
use crate::dataset::paths;
use crate::events::{Event, NotOk, Totals, now_ms};
use crate::plan::{self, PlanError};
use crate::store::{Store, StoreError};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The output cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A commit cannot be read.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The state of a label set.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `finished`, `running` or `stopped`.
    pub state: State,
    /// Totals over all plans.
    pub totals: Totals,
    /// Rows of the committed parts, and of the spans of long videos under way.
    pub rows: u64,
    /// Videos that were decoded on the CPU though the job decodes on GPUs.
    pub fell_back: usize,
    /// Videos that did not end `ok`.
    pub not_ok: Vec<NotOk>,
    /// The last run, if its event log could be read.
    pub last_run: Option<LastRun>,
}

/// Where a label set stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// `_SUCCESS` is there.
    Finished,
    /// A coordinator on this host is at work.
    Running,
    /// Neither; run again to go on.
    Stopped,
}

/// What the newest event log tells.
#[derive(Debug, Serialize)]
pub struct LastRun {
    /// Process of the coordinator.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// Seconds since its last event.
    pub silent_seconds: f64,
    /// Frames a second over the run so far.
    pub frames_per_second: f64,
    /// Its workers and what they do.
    pub workers: Vec<String>,
}

/// Reads the state of the label set in `store`.
///
/// # Errors
/// [`StatusError`] when plans or commits cannot be read.
pub fn read(store: &Store) -> Result<Status, StatusError> {
    let shards = plan::read_all(store)?;
    let commits = commit::read_all(store)?;
    let totals = Totals::of(&shards, |shard| commits.contains_key(shard));
    let (mut fell_back, mut not_ok) = (0, Vec::new());
    for (_, outcome) in plan::outcomes(&shards, &commits)? {
        fell_back += usize::from(outcome.decode_fallback.is_some());
        not_ok.extend(NotOk::of(outcome));
    }
    let (last_run, running) = last_run(store)?;
    let state = if running {
        State::Running
    } else if store.get(paths::SUCCESS)?.is_some() && totals.shards_done == totals.shards {
        State::Finished
    } else {
        State::Stopped
    };
    let under_way = commit::span_rows(store)?.into_iter();
    let under_way = under_way.filter(|(shard, _)| !commits.contains_key(shard));
    let rows = commits.values().map(|record| record.part.rows).sum::<u64>()
        + under_way.map(|(_, rows)| rows).sum::<u64>();
    Ok(Status {
        state,
        totals,
        rows,
        fell_back,
        not_ok,
        last_run,
    })
}

fn last_run(store: &Store) -> Result<(Option<LastRun>, bool), StoreError> {
    let mut progress = Progress::new();
    let mut run = None;
    let (mut began, mut last, mut over) = (0, 0, false);
    for line in log::newest(store)? {
        progress.event(&line.event);
        last = line.at_ms.max(last);
        match line.event {
            Event::RunStarted { pid, host, .. } => {
                began = line.at_ms;
                run = Some((pid, host));
            }
            Event::Finished { .. } | Event::Stopped { .. } => over = true,
            _ => {}
        }
    }
    let Some((pid, host)) = run else {
        return Ok((None, false));
    };
    let seconds = (last.saturating_sub(began) as f64 / 1000.0).max(1e-3);
    let frames = progress.frames().saturating_sub(progress.totals.frames_done);
    let workers = progress
        .workers
        .iter()
        .map(|(number, state)| format!("worker {number} {}: {}", state.device, state.doing))
        .collect();
    let last_run = LastRun {
        pid,
        host,
        silent_seconds: now_ms().saturating_sub(last) as f64 / 1000.0,
        frames_per_second: frames as f64 / seconds,
        workers,
    };
    let running = !over && is_affectmill(pid);
    Ok((Some(last_run), running))
}

/// Whether that process still is a coordinator: process numbers are used again.
fn is_affectmill(pid: u32) -> bool {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().replace(" (deleted)", ""))
    };
    let theirs = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let ours = std::env::current_exe().ok();
    theirs
        .as_deref()
        .and_then(name)
        .is_some_and(|theirs| Some(theirs) == ours.as_deref().and_then(name))
}

/// The state as text.
pub fn render(status: &Status) -> String {
    let totals = &status.totals;
    let mut shown = match status.state {
        State::Finished => "finished".to_owned(),
        State::Running => "running".to_owned(),
        State::Stopped => "stopped; `affectmill run` with the same job goes on".to_owned(),
    };
    shown += &format!(
        "\n{} of {}, about {} of {}, {}",
        totals.shards_done,
        text::plural(totals.shards as u64, "shard"),
        text::count(totals.frames_done),
        text::plural(totals.frames, "frame"),
        text::plural(status.rows, "row")
    );
    if let (State::Running, Some(run)) = (status.state, &status.last_run) {
        shown += &format!(
            "\nprocess {} on {}, {:.1} frames/s, last sign {} ago",
            run.pid,
            run.host,
            run.frames_per_second,
            text::duration(Duration::from_secs_f64(run.silent_seconds))
        );
        for worker in &run.workers {
            shown += &format!("\n  {worker}");
        }
    }
    if let Some(line) = text::fell_back(status.fell_back) {
        shown += &format!("\n{line}");
    }
    for video in &status.not_ok {
        shown += &format!("\n{}", text::not_ok(video));
    }
    shown
}
