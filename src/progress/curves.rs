//! Curves as a picture: one panel under the other, points over a common axis, as SVG.

use plotters::prelude::*;

/// A line of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Its points, x rising.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one another, on one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What the y axis counts.
    pub title: String,
    /// The curves; the first ones stand out.
    pub curves: Vec<Curve>,
}

const WIDTH: u32 = 900;
const HEIGHT: u32 = 320;

/// Draws the panels over an x axis called `x`.
///
/// # Errors
/// The drawing library's words.
pub fn svg(panels: &[Panel], x: &str) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, panels, x).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw(text: &mut String, panels: &[Panel], x: &str) -> Result<(), Box<dyn std::error::Error>> {
    let height = HEIGHT * panels.len().max(1) as u32;
    let root = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(root.split_evenly((panels.len().max(1), 1))) {
        let points = || panel.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let (left, right) = range(points().map(|(x, _)| x));
        let (low, high) = range(points().map(|(_, y)| y));
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .caption(&panel.title, ("sans-serif", 16))
            .x_label_area_size(34)
            .y_label_area_size(60)
            .build_cartesian_2d(left..right, low..high)?;
        chart.configure_mesh().x_desc(x).light_line_style(WHITE).draw()?;
        for (n, curve) in panel.curves.iter().enumerate() {
            let colour = Palette99::pick(n).to_rgba();
            let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        if !panel.curves.is_empty() {
            chart
                .configure_series_labels()
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
        }
    }
    root.present()?;
    Ok(())
}

/// Least and greatest finite value with a margin; something sane where there is none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return (0.0, 1.0);
    }
    let margin = if low == high { 0.5 } else { 0.04 * (high - low) };
    (low - margin, high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_its_curves_and_survives_what_is_no_number() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve {
            name: name.into(),
            points: points.to_vec(),
        };
        let panel = Panel {
            title: "loss".into(),
            curves: vec![
                curve("training", &[(1.0, 2.0), (2.0, 1.0)]),
                curve("held out", &[]),
            ],
        };
        let text = svg(&[panel], "step").unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for word in ["loss", "training", "held out", "step"] {
            assert!(text.contains(word), "{word}");
        }
        assert_eq!(range([f64::NAN, 3.0].into_iter()), (2.5, 3.5));
        assert_eq!(range(std::iter::empty()), (0.0, 1.0));
    }
}
