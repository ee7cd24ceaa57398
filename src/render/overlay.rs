//! What is drawn on a frame: for each face its box, track, expression bars, a dot on the plane of valence and arousal, and
//! its active action units.

use super::canvas::Canvas;
use super::labels::{FaceLabel, FrameLabels};
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task};
use embedded_graphics::pixelcolor::{Rgb888, WebColors};
use embedded_graphics::prelude::RgbColor;

/// Probability above which an action unit is active.
const ACTIVE: f32 = 0.5;
/// Boxes of neighbouring tracks differ.
const TRACKS: [Rgb888; 6] = [
    Rgb888::new(90, 200, 250),
    Rgb888::new(255, 179, 64),
    Rgb888::new(120, 220, 120),
    Rgb888::new(255, 120, 140),
    Rgb888::new(190, 150, 255),
    Rgb888::new(240, 230, 90),
];
/// As in the report.
const COLOURS: [Rgb888; EXPRESSIONS.len()] = [
    Rgb888::new(154, 163, 173),
    Rgb888::new(223, 90, 100),
    Rgb888::new(146, 189, 96),
    Rgb888::new(169, 142, 224),
    Rgb888::new(236, 192, 95),
    Rgb888::new(104, 169, 210),
    Rgb888::new(234, 152, 99),
];
/// Characters of an expression's name beside its bar.
const NAME: usize = 3;
/// Drawn pixels of the longest bar.
const BAR: i32 = 44;
/// Drawn pixels of the plane's side.
const PLANE: i32 = 45;
const GAP: i32 = 3;
/// Stands over figures that mean nothing.
const UNTRAINED: &str = "UNTRAINED";

/// The colour of a face's box: that of its track, else of its index.
pub fn colour(face: &FaceLabel) -> Rgb888 {
    let identity = face.track.unwrap_or(face.index).unsigned_abs() as usize;
    TRACKS[identity % TRACKS.len()]
}

/// Draws the labels of a frame, and `note` in its corner.
pub fn draw(canvas: &mut Canvas, labels: &FrameLabels, note: &str) {
    // The largest face first in the labels; drawn last, it is never covered.
    for face in labels.faces.iter().rev() {
        draw_face(canvas, face);
    }
    let margin = 2 * canvas.scale;
    let y = canvas.size().height as i32 - canvas.text_height() - 2 * margin;
    if !note.is_empty() {
        plate(canvas, margin, y, note, Rgb888::CSS_WHITE);
    }
}

/// Text on a dark plate.
fn plate(canvas: &mut Canvas, x: i32, y: i32, text: &str, colour: Rgb888) {
    let scale = canvas.scale;
    canvas.shade(
        x,
        y,
        canvas.text_width(text) + 3 * scale,
        canvas.text_height() + scale,
        0.65,
    );
    canvas.text(x + 2 * scale, y + scale, text, colour);
}

fn draw_face(canvas: &mut Canvas, face: &FaceLabel) {
    let scale = canvas.scale;
    let colour = colour(face);
    let [x, y, w, h] = [face.rect.x, face.rect.y, face.rect.w, face.rect.h].map(|side| side.round() as i32);
    canvas.frame(x, y, w, h, colour, 2 * scale);
    let mut title = match face.track {
        Some(track) => format!("#{track}"),
        None => format!("face {}", face.index),
    };
    if let Some(class) = face.class {
        title += &format!(" {}", EXPRESSIONS[usize::from(class)]);
        if face.untrained[Task::Expr as usize] {
            title += &format!(" {UNTRAINED}");
        }
    }
    let above = y - canvas.text_height() - 2 * scale;
    plate(canvas, x, above.max(0), &title, colour);
    let panel = Panel::of(canvas, face);
    if panel.height > 0 {
        let (left, top) = panel.place(canvas, (x, y, w));
        panel.draw(canvas, face, left, top);
    }
}

/// The figures of a face, beside its box.
struct Panel {
    width: i32,
    height: i32,
    plane: i32,
    /// Names of active action units, three to a line.
    units: Vec<String>,
    /// The blocks over which a word says that they mean nothing: expressions, plane, units.
    untrained: [bool; 3],
}

impl Panel {
    fn of(canvas: &Canvas, face: &FaceLabel) -> Self {
        let scale = canvas.scale;
        let row = canvas.text_height();
        let width = (canvas.text_width("Neu ") + BAR * scale)
            .max(PLANE * scale + GAP * scale + canvas.text_width("V +0.00"));
        let bars = face
            .expressions
            .map_or(0, |_| EXPRESSIONS.len() as i32 * row + GAP * scale);
        let plane = face.valence_arousal.map_or(0, |_| (PLANE + GAP) * scale);
        let units = face.units.map_or(Vec::new(), |units| {
            let active = ACTION_UNITS.iter().zip(units).filter(|(_, p)| *p > ACTIVE);
            let names: Vec<&str> = active.map(|(name, _)| *name).collect();
            names.chunks(3).map(|pair| pair.join(" ")).collect()
        });
        let blocks = [
            (bars > 0, Task::Expr),
            (plane > 0, Task::Va),
            (!units.is_empty(), Task::Au),
        ];
        let untrained = blocks.map(|(shown, task)| shown && face.untrained[task as usize]);
        let words = untrained.iter().filter(|untrained| **untrained).count();
        let rows = (units.len() + words) as i32 * row;
        Self {
            width: width + 2 * GAP * scale,
            height: bars + plane + rows + if bars + plane > 0 { GAP * scale } else { 0 },
            plane,
            units,
            untrained,
        }
    }

    /// Right of the box where there is room, else left of it, else in the picture's corner nearest to it.
    fn place(&self, canvas: &Canvas, (x, y, w): (i32, i32, i32)) -> (i32, i32) {
        let size = canvas.size();
        let (most_x, most_y) = (size.width as i32 - self.width, size.height as i32 - self.height);
        let (right, left) = (x + w + canvas.scale, x - self.width - canvas.scale);
        let x = if right <= most_x || left < 0 {
            right.min(most_x)
        } else {
            left
        };
        (x.max(0), y.min(most_y).max(0))
    }

    fn draw(&self, canvas: &mut Canvas, face: &FaceLabel, left: i32, top: i32) {
        let scale = canvas.scale;
        let row = canvas.text_height();
        canvas.shade(left, top, self.width, self.height, 0.65);
        let x = left + GAP * scale;
        let mut y = top + GAP * scale;
        let word = |canvas: &mut Canvas, y: &mut i32, untrained: bool| {
            if untrained {
                canvas.text(x, *y, UNTRAINED, Rgb888::new(255, 120, 120));
                *y += row;
            }
        };
        word(canvas, &mut y, self.untrained[0]);
        if let Some(probabilities) = face.expressions {
            let bars = x + canvas.text_width("Neu ");
            for (class, probability) in probabilities.into_iter().enumerate() {
                let chosen = face.class.map(usize::from) == Some(class);
                let ink = if chosen {
                    Rgb888::WHITE
                } else {
                    Rgb888::new(190, 196, 202)
                };
                canvas.text(x, y, &EXPRESSIONS[class][..NAME], ink);
                let length = (probability * (BAR * scale) as f32).round() as i32;
                canvas.bar(
                    bars,
                    y + 2 * scale,
                    length.max(scale),
                    row - 4 * scale,
                    COLOURS[class],
                );
                y += row;
            }
            y += GAP * scale;
        }
        word(canvas, &mut y, self.untrained[1]);
        if let Some(point) = face.valence_arousal {
            self.plane(canvas, point, (x, y));
            y += self.plane;
        }
        word(canvas, &mut y, self.untrained[2]);
        for line in &self.units {
            canvas.text(x, y, line, Rgb888::new(240, 240, 240));
            y += row;
        }
    }

    /// The plane of valence (right) and arousal (up), each over [−1, 1].
    fn plane(&self, canvas: &mut Canvas, [valence, arousal]: [f32; 2], (x, y): (i32, i32)) {
        let scale = canvas.scale;
        let side = PLANE * scale;
        let grey = Rgb888::new(120, 126, 132);
        canvas.frame(x, y, side, side, grey, scale);
        canvas.line((x + side / 2, y), (x + side / 2, y + side - 1), grey);
        canvas.line((x, y + side / 2), (x + side - 1, y + side / 2), grey);
        let at = |number: f32| ((number.clamp(-1.0, 1.0) + 1.0) / 2.0 * (side - 1) as f32).round() as i32;
        canvas.dot(
            x + at(valence),
            y + side - 1 - at(arousal),
            3 * scale,
            Rgb888::new(255, 214, 90),
        );
        let beside = x + side + GAP * scale;
        canvas.text(beside, y + scale, &format!("V {valence:+.2}"), Rgb888::WHITE);
        canvas.text(
            beside,
            y + scale + canvas.text_height(),
            &format!("A {arousal:+.2}"),
            Rgb888::WHITE,
        );
    }
}
