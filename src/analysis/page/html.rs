//! The page: its sections in order, and what keeps it to itself.

use super::figures::{Expressions, Figures, Moments, Plane, Units};
use super::tables::{percent, plural};
use super::{curves, tables};
use crate::page::plots;
use crate::page::plots::{Bars, series, variable};
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, visible};
use affectmill_labelset::PassedOver;
use affectmill_progress::text;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::style::RGBColor;
use std::time::Duration;

const STYLE: &str = include_str!("style.css");
/// Nothing is loaded, nothing runs: styles and pictures are those in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// The page.
///
/// # Errors
/// The figures cannot be written as JSON.
pub fn render(figures: &Figures) -> Result<String, serde_json::Error> {
    // In JSON `<` stands in strings only, where it has another spelling: no text ends the block.
    let json = serde_json::to_string(figures)?.replace('<', "\\u003c");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { "Labels of " (figures.output) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(figures))
                main {
                    (section("Collection", collection(figures)))
                    @if figures.failures.videos > 0 { (section("Videos that failed", failures(figures))) }
                    (section("Models", tables::models(&figures.models)))
                    @if figures.corpus.faces > 0 { (labels(figures)) }
                    (section("Where the time went", stages(figures)))
                }
                footer {
                    "Made by affectmill " (figures.affectmill) ". The figures of this page are in it as JSON: "
                    code { "script#figures" } "."
                }
                script type="application/json" id="figures" { (PreEscaped(json)) }
            }
        }
    };
    // Markup holds no name; in text and JSON alike a name is shown and acts on nothing.
    Ok(visible(&page.into_string()).into_owned())
}

fn labels(figures: &Figures) -> Markup {
    let pairs = &figures.agreement;
    let has_pairs =
        !(pairs.valence_arousal.is_empty() && pairs.expressions.is_empty() && pairs.action_units.is_empty());
    html! {
        @if !figures.valence_arousal.is_empty() { (section("Valence and arousal", planes(&figures.valence_arousal))) }
        @if !figures.expressions.is_empty() { (section("Expressions", expressions(figures))) }
        @if !figures.action_units.is_empty() { (section("Action units", units(figures))) }
        @if has_pairs { (section("Agreement of the models", tables::agreement(pairs))) }
        (section("Drift over the videos", curves::drift(figures)))
        (section("Timelines", curves::timelines(figures)))
        @if figures.followed.is_some() { (section("Most and least confident faces", faces(figures))) }
    }
}

fn section(title: &str, content: Markup) -> Markup {
    html! { section { h2 { (title) } (content) } }
}

/// A line of explanation.
pub fn section_note(note: &str) -> Markup {
    html! { p.note { (note) } }
}

/// Which colour is what.
pub fn legend<'a>(entries: impl Iterator<Item = (RGBColor, &'a str)>) -> Markup {
    html! {
        ul.legend {
            @for (colour, name) in entries { li { i style=(format!("background:{}", variable(colour))) {} (name) } }
        }
    }
}

fn header(figures: &Figures) -> Markup {
    let untrained: Vec<&str> = figures
        .models
        .iter()
        .filter(|model| model.untrained)
        .map(|model| model.name.as_str())
        .collect();
    let open = figures.corpus.videos_planned - figures.corpus.videos;
    html! {
        header {
            h1 { "Labels of " bdi { (figures.output) } }
            p.muted { "fingerprint " code { (figures.fingerprint.get(..16).unwrap_or(&figures.fingerprint)) "…" } }
            @if !untrained.is_empty() {
                p.warning {
                    b { "Untrained weights." }
                    " The labels of " (untrained.join(", ")) " mean nothing: they show the format and the speed."
                }
            }
            @if open > 0 {
                p.warning {
                    b { "Not finished." }
                    " " (plural(open as u64, "video")) " of " (text::count(figures.corpus.videos_planned as u64))
                    " have no labels yet; " code { "affectmill run" } " with the same job goes on."
                }
            }
            @if !figures.unseen.is_empty() {
                div.warning {
                    b { "Not everything was seen." }
                    " " (plural(figures.unseen.count, "place")) " of the input could not be looked at:"
                    ul { @for place in &figures.unseen.first { li { (tables::name(&place.to_string())) } } }
                }
            }
        }
    }
}

fn collection(figures: &Figures) -> Markup {
    let corpus = &figures.corpus;
    let frames = corpus.frames.max(1) as f64;
    let tile = |value: String, name: &str| html! { div.tile { b { (value) } span { (name) } } };
    let parts = [
        (series(0), "labelled", corpus.frames_labelled),
        (series(5), "no face", corpus.no_face),
        (series(3), "could not be decoded", corpus.decode_error),
    ];
    let statuses = [
        (corpus.ok, "ok"),
        (corpus.partial, "partial"),
        (corpus.failed, "failed"),
        (corpus.quarantined, "quarantined"),
    ];
    let statuses = statuses.iter().filter(|(videos, _)| *videos > 0);
    let statuses: Vec<String> = statuses
        .map(|(videos, status)| format!("{videos} {status}"))
        .collect();
    html! {
        div.tiles {
            (tile(text::count(corpus.videos as u64), "videos"))
            (tile(text::count(corpus.frames), "frames with rows"))
            (tile(percent(corpus.frames_labelled as f64 / frames), "of them labelled"))
            (tile(text::count(corpus.faces), "faces"))
            (tile(text::count(corpus.rows), "rows"))
            (tile(text::bytes(corpus.bytes), &format!("in {}", plural(corpus.parts as u64, "part"))))
        }
        div.share role="img" aria-label="shares of frames" {
            @for (colour, name, count) in parts {
                @if count > 0 {
                    i title=(format!("{name}: {}", percent(count as f64 / frames)))
                        style=(format!("flex:{count};background:{}", variable(colour))) {}
                }
            }
        }
        ul.legend {
            @for (colour, name, count) in parts {
                li {
                    i style=(format!("background:{}", variable(colour))) {}
                    (name) " " b { (text::count(count)) } " (" (percent(count as f64 / frames)) ")"
                }
            }
        }
        p.note {
            "Videos: " (statuses.join(", ")) ". "
            (text::count(corpus.frames_decoded)) " frames were decoded, before sampling."
            @if corpus.not_finite > 0 {
                " For " (plural(corpus.not_finite, "face")) " a model gave no finite number: they are in none of its figures."
            }
        }
        @if let Some(list) = PassedOver::list(&figures.passed_over) {
            p.note { "Passed over in the input: " (tables::name(&list)) "." }
        }
    }
}

fn failures(figures: &Figures) -> Markup {
    let line = |(class, videos): (&&'static str, &usize)| Bars {
        name: (*class).to_owned(),
        bars: vec![vec![(series(3), 1.0, *videos as f64)]],
        ends: vec![text::count(*videos as u64)],
    };
    let lines: Vec<Bars> = figures.failures.classes.iter().map(line).collect();
    html! {
        figure {
            figcaption { "Videos by class of their error" }
            div.chart { (plots::bars("failed videos by class", 96, &lines)) }
        }
        (tables::failures(&figures.failures))
    }
}

fn planes(planes: &[Plane]) -> Markup {
    let moments = |name: &str, moments: &Moments| {
        let Moments {
            mean,
            deviation,
            min,
            max,
        } = moments;
        html! {
            tr {
                th { (name) }
                td.n { (format!("{mean:.3}")) }
                td.n { (format!("{deviation:.3}")) }
                td.n { (format!("{min:.2} … {max:.2}")) }
            }
        }
    };
    html! {
        p.note { "Faces on the plane, on a logarithmic scale; the circle is their mean." }
        div.grid {
            @for plane in planes {
                figure {
                    figcaption { b { (plane.model) } }
                    div.chart { (plots::density(plane)) }
                    table.narrow {
                        thead { tr { th { "" } th.n { "mean" } th.n { "deviation" } th.n { "range" } } }
                        tbody { (moments("valence", &plane.valence)) (moments("arousal", &plane.arousal)) }
                    }
                    @if plane.outside > 0 { p.note { (plural(plane.outside, "face")) " outside the plane." } }
                }
            }
        }
    }
}

fn expressions(figures: &Figures) -> Markup {
    let models = &figures.expressions;
    let names = || {
        models
            .iter()
            .enumerate()
            .map(|(n, model)| (series(n), model.model.as_str()))
    };
    let share = |model: &Expressions, class: usize| {
        model.faces[class] as f64 / model.faces.iter().sum::<u64>().max(1) as f64
    };
    let line = |(class, name): (usize, &&str)| Bars {
        name: (*name).to_owned(),
        bars: models
            .iter()
            .enumerate()
            .map(|(n, model)| vec![(series(n), 1.0, share(model, class))])
            .collect(),
        ends: models.iter().map(|model| percent(share(model, class))).collect(),
    };
    let lines: Vec<Bars> = EXPRESSIONS.iter().enumerate().map(line).collect();
    html! {
        div.grid {
            figure {
                figcaption { "Share of faces by expression" }
                @if models.len() > 1 { (legend(names())) }
                div.chart { (plots::bars("share of faces by expression", 78, &lines)) }
            }
            @for model in models {
                figure {
                    figcaption { "Confidence of " b { (model.model) } ", " (percent(model.mean_confidence)) " on average" }
                    div.chart { (plots::histogram(&format!("confidence of {}", model.model), &model.confidence)) }
                }
            }
        }
    }
}

fn units(figures: &Figures) -> Markup {
    let models = &figures.action_units;
    let lines = |share: &dyn Fn(&Units, usize) -> f64| -> Vec<Bars> {
        let line = |(unit, name): (usize, &&str)| Bars {
            name: (*name).to_owned(),
            bars: models
                .iter()
                .enumerate()
                .map(|(n, model)| vec![(series(n), 1.0, share(model, unit))])
                .collect(),
            ends: models.iter().map(|model| percent(share(model, unit))).collect(),
        };
        ACTION_UNITS.iter().enumerate().map(line).collect()
    };
    let names = models
        .iter()
        .enumerate()
        .map(|(n, model)| (series(n), model.model.as_str()));
    let active = lines(&|model, unit| model.active[unit] as f64 / model.faces.max(1) as f64);
    let mean = lines(&|model, unit| model.mean[unit]);
    html! {
        @if models.len() > 1 { (legend(names)) }
        div.grid {
            figure {
                figcaption { "Share of faces on which a unit is active: its probability is above 0.5" }
                div.chart { (plots::bars("share of faces on which an action unit is active", 52, &active)) }
            }
            figure {
                figcaption { "Mean probability" }
                div.chart { (plots::bars("mean probability of the action units", 52, &mean)) }
            }
        }
    }
}

fn faces(figures: &Figures) -> Markup {
    let model = figures.followed.as_deref().unwrap_or_default();
    let shown = &figures.faces;
    let crops = shown
        .most
        .iter()
        .chain(&shown.least)
        .any(|face| face.jpeg.is_some());
    html! {
        p.note {
            "By " b { (model) } ": the probability of the expression it chose. "
            "At most one face of each track and expression."
        }
        h3 { "Most confident" }
        (tables::faces(&shown.most, crops))
        h3 { "Least confident" }
        (tables::faces(&shown.least, crops))
        @if !crops {
            p.note { "Faces show here where the run kept them: " code { "[output] crops = \"webdataset\"" } "." }
        }
    }
}

fn stages(figures: &Figures) -> Markup {
    let stages = &figures.stages;
    let line = |name: &str, busy: f64, waited: f64| Bars {
        name: name.into(),
        bars: vec![vec![(series(0), 1.0, busy), (series(0), 0.3, waited)]],
        ends: vec![short(busy + waited)],
    };
    let mut lines = vec![
        line(
            "decode",
            stages.decode,
            stages.decode_blocked + stages.fetch_blocked,
        ),
        line("faces", stages.faces, 0.0),
        line("models", stages.infer, stages.infer_blocked),
        line("rows", stages.rows, 0.0),
    ];
    if stages.fetch > 0.0 {
        lines.insert(0, line("fetch", stages.fetch, 0.0));
    }
    html! {
        figure {
            figcaption { "Seconds of all workers in each stage" }
            ul.legend {
                li { i style=(format!("background:{}", variable(series(0)))) {} "at work" }
                li { i style=(format!("background:{};opacity:.3", variable(series(0)))) {} "waiting for its neighbour" }
            }
            div.chart { (plots::bars("seconds by stage", 60, &lines)) }
        }
        p.note {
            "Stages work beside one another; " (short(stages.total)) " from the first to the last of every shard, added up."
        }
    }
}

fn short(seconds: f64) -> String {
    text::duration(Duration::from_secs_f64(seconds.max(0.0)))
}
