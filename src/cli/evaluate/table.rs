//! An evaluation as tables on a terminal.

use super::Report;
use affectmill_base::{Task, escaped};
use affectmill_evaluation::annotations::PassedOver;
use affectmill_evaluation::calibration::TEMPERATURES;
use affectmill_evaluation::evaluate::{By, Group};
use affectmill_evaluation::metrics::Figure;
use affectmill_evaluation::pairing::Account;
use affectmill_progress::text::{count, plural};

/// Maximum names shown of a list.
const MOST_NAMES: usize = 5;
/// Shown when a number is undefined.
const NONE: &str = "–";

/// Heading and value of a column about annotated frames.
type Column = (&'static str, fn(&Account) -> u64);

/// Renders all tables.
pub fn render(report: &Report) -> String {
    let mut lines = vec![format!(
        "{} in {} against {} ({}), profile {}",
        report.model,
        report.labels,
        report.annotations,
        report.against,
        text(&report.profile)
    )];
    if let Some(file) = &report.calibration {
        lines.push(format!(
            "temperature {:.4} and thresholds of {file}",
            report.temperature
        ));
    } else if let [first, ..] = report.au_thresholds
        && first != 0.0
    {
        lines.push(format!("action units are active above logit {first}"));
    }
    lines.push(format!("\n{}", figures(report)));
    lines.push(format!("\n{}", frames(report)));
    let passed_over: Vec<String> = report.passed_over.iter().map(PassedOver::to_string).collect();
    for (names, what) in [
        (&report.without_labels, "annotated without labels"),
        (&report.without_annotations, "labelled without annotations"),
        (&report.unknown_units, "annotated units that no model has"),
        (&passed_over, "passed over, no annotations"),
    ] {
        if !names.is_empty() {
            lines.push(format!("{what}: {}", few(names)));
        }
    }
    for (set, files) in &report.left_out {
        lines.push(format!(
            "not read, --split {set}: {}",
            plural(*files as u64, "file")
        ));
    }
    if report.other_expressions > 0 {
        lines.push(format!(
            "{} annotated Other, a class that the model does not have",
            plural(report.other_expressions, "face")
        ));
    }
    if !report.groups.is_empty() {
        lines.push(format!("\n{}", groups(report)));
    }
    lines.extend(tuned(report));
    if !report.finished {
        lines.push("not finished: only what is committed of the label sets was compared".into());
    }
    if report.untrained {
        lines.push(format!(
            "UNTRAINED weights, labels that mean nothing: {}",
            report.model
        ));
    }
    lines.join("\n")
}

fn figures(report: &Report) -> String {
    let mut rows = vec![
        ["", "", "value", "95 % interval", "faces", "videos"]
            .map(String::from)
            .to_vec(),
    ];
    let mut last = None;
    for overall in &report.figures {
        let figure = &overall.figure;
        let task = if last.replace(figure.task) == Some(figure.task) {
            ""
        } else {
            task(figure.task)
        };
        let interval = overall
            .interval
            .map(|[low, high]| format!("{low:.4} to {high:.4}"));
        rows.push(vec![
            task.into(),
            name(figure),
            number(figure.value),
            interval.unwrap_or_else(|| NONE.into()),
            count(figure.count),
            count(overall.videos as u64),
        ]);
    }
    aligned(&rows, 2)
}

fn frames(report: &Report) -> String {
    let columns: [Column; 9] = [
        ("annotated", |account| account.annotated),
        ("invalid", |account| account.invalid),
        ("no row", |account| account.no_row),
        ("no face", |account| account.no_face),
        ("ambiguous", |account| account.ambiguous),
        ("no value", |account| account.no_value),
        ("scored", |account| account.scored),
        ("repeated", |account| account.repeated),
        ("of several faces", |account| account.several_faces),
    ];
    let heads = columns.iter().map(|(head, _)| (*head).into());
    let mut rows: Vec<Vec<String>> = vec![std::iter::once("frames".into()).chain(heads).collect()];
    for (which, account) in &report.frames {
        let values = columns.iter().map(|(_, value)| count(value(account)));
        rows.push(std::iter::once(task(Some(*which)).into()).chain(values).collect());
    }
    aligned(&rows, 1)
}

/// Only the scores of each group: those of single classes are too noisy there.
fn groups(report: &Report) -> String {
    let shown = |figure: &&Figure| figure.of.is_none() || figure.name == "ccc";
    let first = report.groups.iter().take(1);
    let heads = first.flat_map(|group| group.figures.iter().filter(shown));
    let heads = heads.map(|figure| {
        format!("{} {}", task(figure.task), name(figure))
            .trim()
            .to_owned()
    });
    let fixed = |video: &str, person: &str, track: String| -> Vec<String> {
        let track = (report.by == Some(By::Track)).then_some(track);
        [video.into(), person.into()].into_iter().chain(track).collect()
    };
    let values = |group: &Group| -> Vec<String> {
        let shown = group.figures.iter().filter(shown);
        shown.map(|figure| number(figure.value)).collect()
    };
    let mut rows = vec![fixed("video", "annotations", "track".into())];
    rows[0].extend(heads);
    for group in &report.groups {
        let track = group.track.map_or_else(|| NONE.into(), |track| track.to_string());
        let fixed = fixed(&group.video, &group.person, track);
        rows.push(fixed.into_iter().chain(values(group)).collect());
    }
    aligned(&rows, 2)
}

fn tuned(report: &Report) -> Vec<String> {
    let Some(tuned) = &report.tuned else {
        return Vec::new();
    };
    let mut rows = vec![
        ["tuned", "value", "before", "after", "faces"]
            .map(String::from)
            .to_vec(),
    ];
    if let Some(expression) = &tuned.record.expression {
        let [before, after] = expression.nll.map(|nll| number(Some(nll)));
        let value = number(Some(expression.temperature));
        let at_bound = TEMPERATURES.contains(&expression.temperature);
        let bound = if at_bound { ", at its bound" } else { "" };
        rows.push(vec![
            format!("temperature (NLL){bound}"),
            value,
            before,
            after,
            count(expression.faces),
        ]);
    }
    for (unit, threshold) in &tuned.record.units {
        let [before, after] = threshold.f1.map(|f1| number(Some(f1)));
        let value = number(Some(threshold.logit));
        rows.push(vec![
            format!("{unit} above logit (F1)"),
            value,
            before,
            after,
            count(threshold.faces),
        ]);
    }
    vec![
        format!("\n{}", aligned(&rows, 1)),
        format!(
            "written to {}; use it on other annotations with --apply",
            tuned.file
        ),
    ]
}

fn task(task: Option<Task>) -> &'static str {
    match task {
        Some(Task::Va) => "VA",
        Some(Task::Expr) => "EXPR",
        Some(Task::Au) => "AU",
        None => "",
    }
}

fn name(figure: &Figure) -> String {
    let name = match figure.name {
        "ccc" => "CCC",
        "f1" => "F1",
        "macro_f1" => "macro-F1",
        "mean_f1" => "mean F1",
        "ece" => "ECE",
        "nll" => "NLL",
        name => name,
    };
    format!("{name} {}", figure.of.unwrap_or_default()).trim().into()
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.into(), |value| format!("{value:.4}"))
}

/// The name that a choice has on the command line and in JSON.
fn text(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().into()
}

fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    let shown = escaped(&shown);
    match names.len() {
        n if n > MOST_NAMES => format!("{shown}, … ({n} in all; --json lists them)"),
        _ => shown.into_owned(),
    }
}

/// Columns of equal width: the first `left` flush left, the others flush right.
fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let shown = |row: &Vec<String>| {
        row.iter()
            .map(|cell| escaped(cell).into_owned())
            .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| {
            if column < left {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
