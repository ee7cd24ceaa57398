//! The page for people. It loads nothing and runs nothing; it reloads itself.

use super::{Phase, Watched, gpus};
use crate::text;
use affectmill_base::visible;
use affectmill_labelset::StageSeconds;
use affectmill_nn::Load;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Workers that the page lists; a cluster has more than a screen.
const MOST_WORKERS: usize = 64;
/// Seconds between two looks.
const RELOAD: u32 = 5;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: light-dark(#1c2024, #e6e8ea); --dim: light-dark(#60666c, #9aa1a8);
  --paper: light-dark(#fff, #14171a); --line: light-dark(#dfe3e6, #2b3035); --fill: light-dark(#2f6fde, #6ea3ff);
  --wait: light-dark(#a9b4be, #4c565f); --bad: light-dark(#b3261e, #ff8a80); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; } .dim { color: var(--dim); }
.bar { display: flex; height: .7rem; border-radius: .35rem; background: var(--line); overflow: hidden; margin: .5rem 0; }
.bar i { background: var(--fill); } .bar i.wait { background: var(--wait); }
table { width: 100%; border-collapse: collapse; } th { text-align: left; font-weight: 600; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: baseline;
  overflow-wrap: anywhere; }
td.bar-cell { width: 40%; min-width: 6rem; } td.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; } th, td.word { white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0; font-size: .85rem; color: var(--bad); }
";

/// The page.
pub fn page(watched: &Watched, loads: &[Load]) -> String {
    let (state, detail) = state(&watched.phase);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(RELOAD);
                title { "affectmill: " (state) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "affectmill: " (state) }
                @if !watched.output.is_empty() { p.dim { (watched.output) } }
                (overall(watched))
                @for line in detail { p { (line) } }
                (workers(watched))
                (gpus::table(loads))
                (stages(&watched.seconds))
                (troubles(watched))
            }
        }
    };
    visible(&page.into_string()).into_owned()
}

fn state(phase: &Phase) -> (&str, Vec<String>) {
    match phase {
        Phase::Planning(_, 0) => ("planning", vec!["looking for videos".into()]),
        Phase::Planning(done, of) => {
            let line = format!(
                "reading headers: {} of {}",
                text::count(*done as u64),
                text::plural(*of as u64, "video")
            );
            ("planning", vec![line])
        }
        Phase::Labelling => ("labelling", vec![]),
        Phase::Draining(signal) => (
            "draining",
            vec![format!(
                "{signal}: the shards in hand are finished, then it stops"
            )],
        ),
        Phase::Stopped(reason) => (
            "stopped",
            vec![format!("stopped by {reason}; run again to go on")],
        ),
        Phase::Finished(summary) => {
            let kinds = [
                ("ok", summary.ok),
                ("partial", summary.partial),
                ("failed", summary.failed),
                ("quarantined", summary.quarantined),
            ];
            let kinds = kinds.iter().filter(|(_, number)| *number > 0);
            let kinds: Vec<String> = kinds.map(|(kind, number)| format!("{number} {kind}")).collect();
            let line = format!(
                "{}, {}; videos: {}",
                text::plural(summary.rows, "row"),
                text::plural(summary.faces, "face"),
                kinds.join(", ")
            );
            let lines = [
                Some(line),
                text::fell_back(summary.fell_back),
                summary.bottleneck.clone(),
            ];
            ("finished", lines.into_iter().flatten().collect())
        }
    }
}

fn overall(watched: &Watched) -> Markup {
    let progress = &watched.progress;
    let totals = &progress.totals;
    let share = progress.frames() as f64 / totals.frames.max(1) as f64;
    html! {
        @if totals.unknown == 0 { (bar(&[(share, "")])) }
        @if totals.shards > 0 {
            p { (progress.line()) }
            p.dim { (text::plural(totals.videos as u64, "video")) " in " (text::plural(totals.shards as u64, "shard")) }
        }
    }
}

fn workers(watched: &Watched) -> Markup {
    let workers = &watched.progress.workers;
    html! {
        @if !workers.is_empty() {
            h2 { (text::plural(workers.len() as u64, "worker")) }
            table {
                tr { th { "worker" } th { "device" } th { "does" } th { "shard in hand" } }
                @for (number, worker) in workers.iter().take(MOST_WORKERS) {
                    tr {
                        td { (number) }
                        td { (worker.device) }
                        td { (worker.doing) }
                        td.bar-cell { @if let Some(share) = worker.share() { (bar(&[(share, "")])) } }
                    }
                }
            }
            @if workers.len() > MOST_WORKERS { p.dim { "… and " (workers.len() - MOST_WORKERS) " more" } }
        }
    }
}

fn stages(seconds: &StageSeconds) -> Markup {
    let total = seconds.total.max(f64::MIN_POSITIVE);
    /// What a stage waited for, and how long.
    type Waits<'a> = &'a [(f64, &'a str)];
    let stages: [(&str, f64, Waits<'_>); 5] = [
        ("fetch", seconds.fetch, &[]),
        (
            "decode",
            seconds.decode,
            &[
                (seconds.fetch_blocked, "for videos to arrive"),
                (seconds.decode_blocked, "for the models"),
            ],
        ),
        ("faces", seconds.faces, &[]),
        ("models", seconds.infer, &[(seconds.infer_blocked, "for frames")]),
        ("rows", seconds.rows, &[]),
    ];
    html! {
        @if seconds.total > 0.0 {
            h2 { "Where the workers' time went" }
            table {
                tr { th { "stage" } th { "busy" } th { "waited" } th { } }
                @for (stage, busy, waits) in stages.iter().filter(|(_, busy, _)| *busy > 0.0) {
                    @let waited: f64 = waits.iter().map(|(seconds, _)| seconds).sum();
                    tr {
                        td.word { (stage) }
                        td.number { (percent(busy / total)) }
                        td {
                            @for (seconds, what) in waits.iter().filter(|(seconds, _)| *seconds > 0.0) {
                                div { (percent(seconds / total)) " " (what) }
                            }
                        }
                        td.bar-cell { (bar(&[(busy / total, ""), (waited / total, "wait")])) }
                    }
                }
            }
        }
    }
}

fn troubles(watched: &Watched) -> Markup {
    html! {
        @if !watched.troubles.is_empty() {
            h2 { "Last troubles" }
            @for (at, line) in watched.troubles.iter().rev() {
                p.dim { (text::duration(at.elapsed())) " ago" }
                pre { (line) }
            }
        }
    }
}

/// A bar of parts of a whole.
fn bar(parts: &[(f64, &str)]) -> Markup {
    html! {
        div.bar {
            @for (share, class) in parts {
                i class=(class) style=(format!("width:{:.2}%", 100.0 * share.clamp(0.0, 1.0))) {}
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
