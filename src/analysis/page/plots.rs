//! Charts as inline SVG, drawn by plotters.
//!
//! Plotters knows fixed colours only. So each meaning has a stand-in, which becomes a variable of the page's style sheet
//! once the chart is drawn: light and dark pages show the same SVG.

use super::figures::{CELLS, CONFIDENCE_BINS, Plane};
use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// A chart under way.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Why plotters could not draw; into a string it always can.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Text.
const INK: RGBColor = RGBColor(0, 0, 1);
/// Text beside it.
const MUTED: RGBColor = RGBColor(0, 0, 2);
/// Grid and axes.
const LINE: RGBColor = RGBColor(0, 0, 3);
/// Series, in order.
const SERIES: u8 = 16;
/// Expressions, in order.
const EXPRESSION: u8 = 32;
/// How many variables of each kind the style sheet has.
const VARIABLES: u8 = 8;

/// Pixels of a chart across: one of a phone's, and one of a whole line's.
const NARROW: u32 = 372;
const WIDE: u32 = 760;
/// Text height in pixels. Plotters' own sizes are 1.24 times the font's.
const TEXT: f64 = 12.0 * 1.24;

/// The colour of a series.
pub fn series(n: usize) -> RGBColor {
    RGBColor(0, 0, SERIES + (n % usize::from(VARIABLES)) as u8)
}

/// The colour of an expression.
pub fn expression(n: usize) -> RGBColor {
    RGBColor(0, 0, EXPRESSION + n as u8)
}

/// What the style sheet calls a colour.
pub fn variable(colour: RGBColor) -> String {
    match colour.2 {
        1 => "var(--ink)".into(),
        2 => "var(--muted)".into(),
        3 => "var(--line)".into(),
        n if n >= EXPRESSION => format!("var(--e{})", n - EXPRESSION),
        n => format!("var(--s{})", n - SERIES),
    }
}

/// Draws a chart; `says` is what it is to those who do not see it.
fn chart(width: u32, height: u32, says: &str, draw: impl FnOnce(&Area) -> Drawn) -> Markup {
    let mut svg = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        draw(&root).and_then(|()| Ok(root.present()?))
    };
    if let Err(error) = drawn {
        return html! { p { "This chart could not be drawn: " (error) } };
    }
    let fixed = format!("width=\"{width}\" height=\"{height}\"");
    let named = format!("role=\"img\" aria-label=\"{}\"", html! { (says) }.into_string());
    let mut svg = svg.replacen(&fixed, &named, 1);
    let kinds = [SERIES, EXPRESSION]
        .into_iter()
        .flat_map(|first| first..first + VARIABLES);
    for colour in [1, 2, 3].into_iter().chain(kinds) {
        let variable = format!("\"{}\"", variable(RGBColor(0, 0, colour)));
        svg = svg.replace(&format!("\"#0000{colour:02X}\""), &variable);
    }
    // What a shape is anyway.
    PreEscaped(svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", ""))
}

fn text(colour: &RGBColor, across: HPos) -> TextStyle<'static> {
    let style = ("sans-serif", TEXT).into_font().color(colour);
    style.pos(Pos::new(across, VPos::Center))
}

/// Where the faces lie on the plane of valence and arousal: the more of them in a cell, the stronger its colour.
pub fn density(plane: &Plane) -> Markup {
    const SIDE: u32 = 8 * CELLS as u32;
    let says = format!("density of valence and arousal by {}", plane.model);
    chart(SIDE + 64, SIDE + 56, &says, |root| {
        let mut context = ChartBuilder::on(root)
            .margin_top(8)
            .margin_right(16)
            .margin_bottom(4)
            .x_label_area_size(44)
            .y_label_area_size(48)
            .build_cartesian_2d(-1.0..1.0, -1.0..1.0)?;
        context
            .configure_mesh()
            .x_labels(5)
            .y_labels(5)
            .max_light_lines(0)
            .bold_line_style(LINE)
            .axis_style(LINE)
            .label_style(text(&MUTED, HPos::Center))
            .axis_desc_style(text(&MUTED, HPos::Center))
            .x_desc("valence")
            .y_desc("arousal")
            .draw()?;
        let most = plane.density.iter().flatten().max().copied().unwrap_or(0) as f64;
        let edge = |at: usize| at as f64 * 2.0 / CELLS as f64 - 1.0;
        for (line, counts) in plane.density.iter().enumerate() {
            for (column, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let strength = 0.1 + 0.9 * (1.0 + *count as f64).ln() / (1.0 + most).ln();
                let corners = [(edge(column), edge(line)), (edge(column + 1), edge(line + 1))];
                let colour = series(0).mix((strength * 100.0).round() / 100.0);
                context.draw_series([Rectangle::new(corners, colour.filled())])?;
            }
        }
        let mean = (
            plane.valence.mean.clamp(-1.0, 1.0),
            plane.arousal.mean.clamp(-1.0, 1.0),
        );
        context.draw_series([Circle::new(mean, 5, INK.stroke_width(2))])?;
        Ok(())
    })
}

/// One line of bars: what it is called, and its bars from above to below, each of pieces from left to right.
pub struct Bars {
    /// Name.
    pub name: String,
    /// Bars; a piece is a colour, its strength, and its length in the unit of the longest.
    pub bars: Vec<Vec<(RGBColor, f64, f64)>>,
    /// What stands at the end of each.
    pub ends: Vec<String>,
}

/// Lying bars, each with its figure at its end; `room` pixels for the names.
pub fn bars(says: &str, room: i32, lines: &[Bars]) -> Markup {
    const BAR: i32 = 13;
    const GAP: i32 = 9;
    const END: i32 = 74;
    let most = lines.iter().map(|line| line.bars.len()).max().unwrap_or(0) as i32;
    let step = most * BAR + GAP;
    let length = |bar: &[(RGBColor, f64, f64)]| bar.iter().map(|(_, _, length)| length).sum::<f64>();
    let longest = lines
        .iter()
        .flat_map(|line| &line.bars)
        .map(|bar| length(bar))
        .fold(0.0, f64::max);
    let scale = f64::from(NARROW as i32 - room - END) / longest.max(f64::MIN_POSITIVE);
    chart(NARROW, (step * lines.len() as i32).max(1) as u32, says, |root| {
        for (n, line) in lines.iter().enumerate() {
            let top = n as i32 * step + GAP / 2;
            let middle = top + line.bars.len() as i32 * BAR / 2;
            root.draw(&Text::new(
                line.name.clone(),
                (room - 8, middle),
                text(&INK, HPos::Right),
            ))?;
            for (at, (bar, end)) in line.bars.iter().zip(&line.ends).enumerate() {
                let top = top + at as i32 * BAR;
                let (mut from, mut sum) = (room, 0.0);
                for (colour, strength, length) in bar {
                    sum += length;
                    let to = room + (sum * scale).round() as i32;
                    let place = [(from, top), (to.max(from), top + BAR - 2)];
                    root.draw(&Rectangle::new(place, colour.mix(*strength).filled()))?;
                    from = to;
                }
                let place = (from.max(room) + 5, top + BAR / 2);
                root.draw(&Text::new(end.clone(), place, text(&MUTED, HPos::Left)))?;
            }
        }
        Ok(())
    })
}

/// Faces by confidence, as shares of all.
pub fn histogram(says: &str, counts: &[u64; CONFIDENCE_BINS]) -> Markup {
    let all = counts.iter().sum::<u64>().max(1) as f64;
    let most = counts.iter().max().copied().unwrap_or(0).max(1) as f64 / all;
    chart(NARROW, 190, says, |root| {
        let mut context = ChartBuilder::on(root)
            .margin_top(6)
            .margin_right(16)
            .x_label_area_size(40)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..1.0, 0.0..most * 1.05)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(6)
            .y_labels(4)
            .max_light_lines(0)
            .bold_line_style(LINE)
            .axis_style(LINE)
            .label_style(text(&MUTED, HPos::Center))
            .axis_desc_style(text(&MUTED, HPos::Center))
            .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
            .x_desc("largest probability")
            .draw()?;
        let edge = |at: usize| at as f64 / CONFIDENCE_BINS as f64;
        context.draw_series(counts.iter().enumerate().filter(|(_, count)| **count > 0).map(
            |(at, count)| {
                let corners = [
                    (edge(at) + 0.004, 0.0),
                    (edge(at + 1) - 0.004, *count as f64 / all),
                ];
                Rectangle::new(corners, series(0).filled())
            },
        ))?;
        Ok(())
    })
}

/// Where the charts of one timeline stand beside one another: the same x for each.
pub struct Span {
    /// From the first to the last x.
    pub x: Range<f64>,
    /// What x counts; only the lowest chart says so.
    pub unit: &'static str,
}

/// Points of a line, broken where there is nothing.
pub type Runs = Vec<Vec<(f64, f64)>>;

/// Lines over the middle of [−1, 1] that they need.
pub fn lines(says: &str, span: &Span, runs: &[(RGBColor, f64, Runs)]) -> Markup {
    let points = runs.iter().flat_map(|(_, _, runs)| runs.iter().flatten());
    let reach = points.map(|(_, y)| y.abs()).fold(0.1, f64::max);
    // One of 0.1, 0.2, 0.5, 1, 2, …: charts of different videos stay comparable.
    let decade = 10_f64.powf(reach.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let reach = steps
        .into_iter()
        .find(|step| *step >= reach * 0.999)
        .unwrap_or(reach);
    chart(WIDE, 170, says, |root| {
        let mut context = ChartBuilder::on(root)
            .margin_right(24)
            .margin_top(8)
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(span.x.clone(), -reach..reach)?;
        context
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(8)
            .y_labels(5)
            .max_light_lines(0)
            .bold_line_style(LINE)
            .axis_style(LINE)
            .label_style(text(&MUTED, HPos::Center))
            .x_label_formatter(&|x| label(*x, span.unit))
            .y_label_formatter(&|y| format!("{:.2}", if y.abs() < 0.005 { 0.0 } else { *y }))
            .draw()?;
        for (colour, strength, runs) in runs {
            for run in runs {
                if let [point] = run[..] {
                    context.draw_series([Circle::new(point, 2, colour.mix(*strength).filled())])?;
                }
                let style = colour.mix(*strength).stroke_width(2);
                context.draw_series([PathElement::new(run.clone(), style)])?;
            }
        }
        Ok(())
    })
}

fn label(x: f64, unit: &str) -> String {
    match unit {
        "s" if x >= 600.0 => format!("{}:{:02} min", x as u64 / 60, x as u64 % 60),
        "s" => format!("{x} s"),
        // Between two of them stands nothing.
        _ if x.fract() != 0.0 => String::new(),
        unit => format!("{unit} {x}"),
    }
}

/// From x, to x, and shares there.
pub type Column<const N: usize> = (f64, f64, [f64; N]);

/// Shares stacked to 1.
pub fn stack<const N: usize>(says: &str, span: &Span, columns: &[Column<N>]) -> Markup {
    chart(WIDE, 130, says, |root| {
        let mut context = ChartBuilder::on(root)
            .margin_right(24)
            .margin_top(8)
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(span.x.clone(), 0.0..1.0)?;
        context
            .configure_mesh()
            .disable_mesh()
            .x_labels(8)
            .y_labels(3)
            .axis_style(LINE)
            .label_style(text(&MUTED, HPos::Center))
            .x_label_formatter(&|x| label(*x, span.unit))
            .y_label_formatter(&|y| format!("{:.0} %", y * 100.0))
            .draw()?;
        for (from, to, shares) in columns {
            let mut low = 0.0;
            for (n, share) in shares.iter().enumerate() {
                let corners = [(*from, low), (*to, (low + share).min(1.0))];
                low += share;
                // Thinner than half a pixel.
                if *share > 0.005 {
                    context.draw_series([Rectangle::new(corners, expression(n).filled())])?;
                }
            }
        }
        Ok(())
    })
}

/// A strip for each name, whose strength is its share.
pub fn strips<const N: usize>(says: &str, span: &Span, names: &[&str; N], columns: &[Column<N>]) -> Markup {
    const STRIP: u32 = 15;
    /// Grades of strength: neighbours of one grade are drawn at once.
    const GRADES: f64 = 10.0;
    chart(WIDE, STRIP * N as u32 + 32, says, |root| {
        let mut context = ChartBuilder::on(root)
            .margin_right(24)
            .margin_top(8)
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(span.x.clone(), 0.0..N as f64)?;
        context
            .configure_mesh()
            .disable_mesh()
            .x_labels(8)
            .disable_y_axis()
            .axis_style(LINE)
            .label_style(text(&MUTED, HPos::Center))
            .x_label_formatter(&|x| label(*x, span.unit))
            .draw()?;
        for (n, name) in names.iter().enumerate() {
            let place = (42, 8 + (n as u32 * STRIP + STRIP / 2) as i32);
            root.draw(&Text::new((*name).to_owned(), place, text(&MUTED, HPos::Right)))?;
            let grade = |column: &Column<N>| (column.2[n] * GRADES).round();
            let touching = |a: &Column<N>, b: &Column<N>| a.1 == b.0 && grade(a) == grade(b);
            for alike in columns.chunk_by(touching) {
                let (first, last) = (&alike[0], &alike[alike.len() - 1]);
                let top = (N - n) as f64;
                let corners = [(first.0, top - 0.92), (last.1, top - 0.08)];
                if grade(first) > 0.0 {
                    let colour = series(0).mix(grade(first) / GRADES);
                    context.draw_series([Rectangle::new(corners, colour.filled())])?;
                }
            }
        }
        Ok(())
    })
}
