//! Drift over videos and timelines of one: numbers along an axis as the runs and columns that charts draw.

use super::figures::{Figures, Point, Stretch, Timeline};
use super::html::{legend, section_note};
use super::tables;
use crate::page::plots;
use crate::page::plots::{Column, Runs, Span, expression, series};
use affectmill_base::{ACTION_UNITS, EXPRESSIONS};
use maud::{Markup, html};
use plotters::style::RGBColor;

/// Drift over the videos, and those that stand apart.
pub fn drift(figures: &Figures) -> Markup {
    let stretches = &figures.drift;
    if stretches.len() < 2 {
        return section_note("A drift shows where there are several videos with faces.");
    }
    let span = Span {
        x: 0.5..stretches.len() as f64 + 0.5,
        unit: if stretches.iter().all(|stretch| stretch.videos == 1) {
            "video"
        } else {
            "group"
        },
    };
    let grouped = stretches.iter().map(|stretch| stretch.videos).max().unwrap_or(1);
    let at = |n: usize| n as f64 + 1.0;
    let column = |(n, stretch): (usize, &Stretch)| Some((at(n) - 0.5, at(n) + 0.5, stretch.expressions?));
    let columns: Vec<Column<7>> = stretches.iter().enumerate().filter_map(column).collect();
    let means = |model: usize, axis: usize| -> Runs {
        let points = stretches.iter().enumerate();
        vec![
            points
                .filter_map(|(n, stretch)| Some((at(n), stretch.valence_arousal[model]?[axis])))
                .collect(),
        ]
    };
    html! {
        p.note {
            "Means of each video in the order of their names"
            @if grouped > 1 { ", " (grouped) " to a group" }
            "."
        }
        (affect(figures, "mean valence and arousal over the videos", &span, &means))
        @if let Some(model) = figures.followed.as_ref().filter(|_| !columns.is_empty()) {
            figure {
                figcaption { "Shares of expressions, by " b { (model) } }
                (legend(EXPRESSIONS.iter().enumerate().map(|(n, name)| (expression(n), *name))))
                div.wide { (plots::stack("shares of expressions over the videos", &span, &columns)) }
            }
            (tables::apart(&figures.apart, model))
        }
    }
}

/// Valence and arousal of every model that has them.
fn affect(figures: &Figures, says: &str, span: &Span, runs: &dyn Fn(usize, usize) -> Runs) -> Markup {
    let models = &figures.valence_arousal;
    let lines: Vec<(RGBColor, f64, Runs)> = (0..models.len())
        .flat_map(|model| [0, 1].map(|axis| (series(2 * model + axis), 1.0, runs(model, axis))))
        .collect();
    let names: Vec<String> = models
        .iter()
        .flat_map(|plane| ["valence", "arousal"].map(|axis| format!("{} {axis}", plane.model)))
        .collect();
    html! {
        @if !models.is_empty() {
            figure {
                figcaption { "Valence and arousal" }
                (legend(names.iter().enumerate().map(|(n, name)| (series(n), name.as_str()))))
                div.wide { (plots::lines(says, span, &lines)) }
            }
        }
    }
}

/// The timelines, one of them unfolded.
pub fn timelines(figures: &Figures) -> Markup {
    html! {
        p.note {
            "The largest face of each frame; gaps are where there was none. "
            "Other videos: " code { "affectmill report … --video NAME" } "."
        }
        @for (n, timeline) in figures.timelines.iter().enumerate() {
            // One name: opening one closes the others.
            details name="timeline" open[n == 0] {
                summary { (tables::name(&timeline.video)) " " span.muted { (tables::plural(timeline.faces, "face")) } }
                (curves(figures, timeline))
            }
        }
    }
}

fn curves(figures: &Figures, timeline: &Timeline) -> Markup {
    let points = &timeline.points;
    let edges = edges(points);
    let (Some(first), Some(last)) = (edges.first(), edges.last()) else {
        return section_note("No frame of it has a face.");
    };
    let span = Span {
        x: first.0..last.1,
        unit: if timeline.in_seconds { "s" } else { "frame" },
    };
    let runs = |model: usize, axis: usize| -> Runs {
        let numbered = points.iter().zip(&edges).collect::<Vec<_>>();
        numbered
            .chunk_by(|(_, a), (_, b)| a.1 == b.0)
            .map(|run| {
                run.iter()
                    .filter_map(|(point, _)| Some((point.x, f64::from(point.valence_arousal[model]?[axis]))))
                    .collect()
            })
            .collect()
    };
    let with =
        |(point, edge): (&Point, &(f64, f64))| Some((edge.0, edge.1, point.expressions?.map(f64::from)));
    let expressions: Vec<Column<7>> = points.iter().zip(&edges).filter_map(with).collect();
    let with =
        |(point, edge): (&Point, &(f64, f64))| Some((edge.0, edge.1, point.action_units?.map(f64::from)));
    let units: Vec<Column<12>> = points.iter().zip(&edges).filter_map(with).collect();
    html! {
        (affect(figures, "valence and arousal over time", &span, &runs))
        @if !expressions.is_empty() {
            figure {
                figcaption {
                    "Probabilities of the expressions, by " b { (figures.followed.as_deref().unwrap_or_default()) }
                }
                (legend(EXPRESSIONS.iter().enumerate().map(|(n, name)| (expression(n), *name))))
                div.wide { (plots::stack("probabilities of the expressions over time", &span, &expressions)) }
            }
        }
        @if let Some(model) = figures.followed_units.as_ref().filter(|_| !units.is_empty()) {
            figure {
                figcaption { "Probabilities of the action units, by " b { (model) } ": the stronger, the likelier" }
                div.wide { (plots::strips("action units over time", &span, &ACTION_UNITS, &units)) }
            }
        }
    }
}

/// From where to where each point stands: to the middle between it and its neighbours, unless there is a gap.
fn edges(points: &[Point]) -> Vec<(f64, f64)> {
    let mut steps: Vec<usize> = points.windows(2).map(|pair| pair[1].bin - pair[0].bin).collect();
    steps.sort_unstable();
    let usual = steps.get(steps.len() / 2).copied().unwrap_or(1);
    let touch = |a: &Point, b: &Point| 2 * (b.bin - a.bin) <= 3 * usual;
    let pairs = points.windows(2).filter(|pair| touch(&pair[0], &pair[1]));
    let mut widths: Vec<f64> = pairs.map(|pair| pair[1].x - pair[0].x).collect();
    widths.sort_by(f64::total_cmp);
    let half = widths
        .get(widths.len() / 2)
        .copied()
        .filter(|width| *width > 0.0)
        .unwrap_or(1.0)
        / 2.0;
    let between = |a: &Point, b: &Point| touch(a, b).then_some((a.x + b.x) / 2.0);
    let edge = |(n, point): (usize, &Point)| {
        let before = n.checked_sub(1).and_then(|n| between(&points[n], point));
        let after = points.get(n + 1).and_then(|next| between(point, next));
        (before.unwrap_or(point.x - half), after.unwrap_or(point.x + half))
    };
    points.iter().enumerate().map(edge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bin: usize, x: f64) -> Point {
        Point {
            bin,
            x,
            valence_arousal: Vec::new(),
            expressions: None,
            action_units: None,
        }
    }

    #[test]
    fn neighbours_touch_and_gaps_stay() {
        // Every second stretch has a frame, as with sampling; between 4 and 12 there was no face.
        let points = [0, 2, 4, 12, 14].map(|bin| point(bin, bin as f64));
        let expected = [(-1.0, 1.0), (1.0, 3.0), (3.0, 5.0), (11.0, 13.0), (13.0, 15.0)];
        assert_eq!(edges(&points), expected);
        assert_eq!(edges(&[point(3, 7.0)]), [(6.5, 7.5)]);
        assert!(edges(&[]).is_empty());
    }
}
