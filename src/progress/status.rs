//! `affectmill status`: how far a label set is, read from its files alone; works while a run is on and after.

use super::log;
use super::progress::{Progress, UnderWay};
use super::text;
use affectmill_base::ProcessIdentity;
use affectmill_labelset::commit;
use affectmill_labelset::commit::{CommitError, Tally};
use affectmill_labelset::events::{Event, NotOk, Totals, now_ms};
use affectmill_labelset::{LabelSetError, PassedOver, Unseen, paths};
use affectmill_store::{Store, StoreError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A run whose process cannot be asked, and which says every [`ALIVE`](affectmill_labelset::events::ALIVE) that it goes on, counts as
/// stopped when nothing was heard of it for so long: time for an upload of its log to S3, and for clocks that differ.
const SILENCE: Duration = Duration::from_secs(60);

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The output cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Plans or commits cannot be read.
    #[error(transparent)]
    Set(#[from] LabelSetError),
    /// A checkpoint or the record of the input cannot be read.
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
    /// Rows of the committed parts.
    pub rows: u64,
    /// What is done beside them, in shards that are not committed: of a run that goes on, in its workers' hands; else what is
    /// kept of long videos.
    pub under_way: UnderWay,
    /// Shards by what they were labelled on, as far as that is known.
    pub devices: BTreeMap<String, usize>,
    /// Videos that were decoded on the CPU though the job decodes on GPUs.
    pub fell_back: usize,
    /// Videos that did not end `ok`.
    pub not_ok: Vec<NotOk>,
    /// What the last run's search of the input passed over, by kind.
    pub passed_over: Vec<PassedOver>,
    /// What it could not look at.
    pub unseen: Unseen,
    /// The last run, if its event log could be read.
    pub last_run: Option<LastRun>,
}

/// Where a label set stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// `_SUCCESS` is there.
    Finished,
    /// A coordinator is at work.
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
    /// Whether the state is known: its process was asked, or the run told its own end. Else it is on another host, or in
    /// another container, and goes by its last event.
    pub known: bool,
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
    let tally = Tally::read(store)?;
    let totals = tally.totals();
    let (last_run, under_way) = last_run(store)?;
    let state = if under_way.is_some() {
        State::Running
    } else if store.get(paths::SUCCESS)?.is_some() && totals.shards_done == totals.shards {
        State::Finished
    } else {
        State::Stopped
    };
    let input = commit::kept_input(store)?;
    let (passed_over, unseen) = input
        .map(|input| (input.passed_over, input.unseen))
        .unwrap_or_default();
    let under_way = match under_way {
        Some(under_way) => under_way,
        None => {
            let mut kept = UnderWay::default();
            let spans = commit::spans_kept(store)?.into_iter();
            for (_, (frames, rows)) in spans.filter(|(shard, _)| !tally.is_committed(shard)) {
                kept.shards += 1;
                kept.frames += frames;
                kept.rows += rows;
            }
            kept
        }
    };
    Ok(Status {
        state,
        totals,
        rows: tally.rows(),
        under_way,
        devices: tally.devices().clone(),
        fell_back: tally.fell_back(),
        not_ok: tally.into_not_ok(),
        passed_over,
        unseen,
        last_run,
    })
}

/// The last run, and what it has under way if it still goes on.
fn last_run(store: &Store) -> Result<(Option<LastRun>, Option<UnderWay>), StoreError> {
    let mut progress = Progress::new();
    let mut run = None;
    let (mut began, mut last, mut over) = (0, 0, false);
    for line in log::newest(store)? {
        progress.event(&line.event);
        last = line.at_ms.max(last);
        match line.event {
            Event::RunStarted {
                pid, host, process, ..
            } => {
                began = line.at_ms;
                run = Some((pid, host, process));
            }
            Event::Finished { .. } | Event::Stopped { .. } => over = true,
            _ => {}
        }
    }
    let Some((pid, host, process)) = run else {
        return Ok((None, None));
    };
    let silent = Duration::from_millis(now_ms().saturating_sub(last));
    let lives = if over {
        Some(false)
    } else {
        process.and_then(|process: ProcessIdentity| process.lives(pid))
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
        silent_seconds: silent.as_secs_f64(),
        known: lives.is_some(),
        frames_per_second: frames as f64 / seconds,
        workers,
    };
    let running = lives.unwrap_or(silent <= SILENCE);
    Ok((Some(last_run), running.then(|| progress.under_way())))
}

/// The state as text.
pub fn render(status: &Status) -> String {
    let totals = &status.totals;
    let unheard = status.last_run.as_ref().filter(|run| !run.known);
    let ago = |run: &LastRun| text::duration(Duration::from_secs_f64(run.silent_seconds));
    let mut shown = match (status.state, unheard) {
        (State::Finished, _) => "finished".to_owned(),
        (State::Running, None) => "running".to_owned(),
        (State::Running, Some(run)) => format!("running as of {} ago on {}", ago(run), run.host),
        (State::Stopped, None) => "stopped; `affectmill run` with the same job goes on".to_owned(),
        (State::Stopped, Some(run)) => format!(
            "stopped, it seems: nothing was heard from {} for {}; `affectmill run` with the same job goes on",
            run.host,
            ago(run)
        ),
    };
    let unknown = match totals.unknown as u64 {
        0 => String::new(),
        unknown => format!(" (the length of {} is unknown)", text::plural(unknown, "video")),
    };
    shown += &format!(
        "\ncommitted: {} of {}, {} of about {}{unknown}, {}",
        totals.shards_done,
        text::plural(totals.shards as u64, "shard"),
        text::count(totals.frames_done),
        text::plural(totals.frames, "frame"),
        text::plural(status.rows, "row")
    );
    let under_way = &status.under_way;
    if *under_way != UnderWay::default() {
        let what = match status.state {
            State::Running => "under way",
            State::Finished | State::Stopped => "kept of long videos",
        };
        shown += &format!(
            "\n{what}: {}, {}, {}",
            text::plural(under_way.shards as u64, "shard"),
            text::plural(under_way.frames, "frame"),
            text::plural(under_way.rows, "row")
        );
    }
    if let (State::Running, Some(run)) = (status.state, &status.last_run) {
        shown += &format!(
            "\nprocess {} on {}, {:.1} frames/s, last sign {} ago",
            run.pid,
            run.host,
            run.frames_per_second,
            ago(run)
        );
        for worker in &run.workers {
            shown += &format!("\n  {worker}");
        }
    }
    for line in text::devices(&status.devices)
        .into_iter()
        .chain(text::fell_back(status.fell_back))
        .chain(text::passed_over(&status.passed_over))
        .chain(text::unseen(&status.unseen))
    {
        shown += &format!("\n{line}");
    }
    for video in &status.not_ok {
        shown += &format!("\n{}", text::not_ok(video));
    }
    shown
}
