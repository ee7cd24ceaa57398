//! A picture to draw on: rows of R, G, B, and text that grows with it.

use affectmill_base::Size;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, ascii};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Circle, Line, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use std::convert::Infallible;

/// One more picture pixel to one pixel of the drawing for each so many of the picture's shorter side.
const SIDE_OF_ONE: u32 = 300;

/// A picture and what can be drawn on it. Drawing outside it draws nothing.
pub struct Canvas {
    size: Size,
    rgb: Vec<u8>,
    /// Picture pixels to one pixel of text and lines.
    pub scale: i32,
}

impl Canvas {
    /// A black picture.
    pub fn new(size: Size) -> Self {
        Self {
            size,
            rgb: vec![0; size.width as usize * size.height as usize * 3],
            scale: ((size.height.min(size.width) + SIDE_OF_ONE * 2 / 5) / SIDE_OF_ONE).max(1) as i32,
        }
    }

    /// Size in pixels.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The bytes, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Takes planes of R, G, B of 0 … 255, of the canvas' size.
    pub fn fill(&mut self, planes: &[f32]) {
        let pixels = planes.len() / 3;
        for (pixel, to) in self.rgb.chunks_exact_mut(3).enumerate().take(pixels) {
            for (channel, to) in to.iter_mut().enumerate() {
                *to = planes[channel * pixels + pixel].round() as u8;
            }
        }
    }

    /// Makes a rectangle darker, so that what is written on it can be read; 0 leaves it, 1 blackens it.
    pub fn shade(&mut self, x: i32, y: i32, w: i32, h: i32, by: f32) {
        let clip = |from: i32, length: i32, most: u32| {
            let most = most as i32;
            (
                from.clamp(0, most) as usize,
                (from + length.max(0)).clamp(0, most) as usize,
            )
        };
        let (left, right) = clip(x, w, self.size.width);
        let (top, bottom) = clip(y, h, self.size.height);
        let row = self.size.width as usize * 3;
        for y in top..bottom {
            for byte in &mut self.rgb[y * row + left * 3..y * row + right.max(left) * 3] {
                *byte = (f32::from(*byte) * (1.0 - by)) as u8;
            }
        }
    }

    /// A filled rectangle.
    pub fn bar(&mut self, x: i32, y: i32, w: i32, h: i32, colour: Rgb888) {
        let place = Rectangle::new(Point::new(x, y), Size2::new(w.max(0) as u32, h.max(0) as u32));
        let Ok(()) = place.into_styled(PrimitiveStyle::with_fill(colour)).draw(self);
    }

    /// The outline of a rectangle, drawn on its inner edge.
    pub fn frame(&mut self, x: i32, y: i32, w: i32, h: i32, colour: Rgb888, thick: i32) {
        self.bar(x, y, w, thick, colour);
        self.bar(x, y + h - thick, w, thick, colour);
        self.bar(x, y, thick, h, colour);
        self.bar(x + w - thick, y, thick, h, colour);
    }

    /// A filled circle about a point.
    pub fn dot(&mut self, x: i32, y: i32, radius: i32, colour: Rgb888) {
        let circle = Circle::with_center(Point::new(x, y), (2 * radius + 1).max(1) as u32);
        let Ok(()) = circle.into_styled(PrimitiveStyle::with_fill(colour)).draw(self);
    }

    /// A thin line.
    pub fn line(&mut self, from: (i32, i32), to: (i32, i32), colour: Rgb888) {
        let line = Line::new(from.into(), to.into());
        let Ok(()) = line
            .into_styled(PrimitiveStyle::with_stroke(colour, self.scale as u32))
            .draw(self);
    }

    /// Text whose upper left corner is at a point; what has no glyph becomes `?`.
    pub fn text(&mut self, x: i32, y: i32, text: &str, colour: Rgb888) {
        let scale = self.scale;
        let mut scaled = Scaled {
            canvas: self,
            scale,
            origin: Point::new(x, y),
        };
        let style = MonoTextStyle::new(&FONT, colour);
        let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut scaled);
    }

    /// Width of a text.
    pub fn text_width(&self, text: &str) -> i32 {
        text.chars().count() as i32 * FONT.character_size.width as i32 * self.scale
    }

    /// Height of a line of text.
    pub fn text_height(&self) -> i32 {
        FONT.character_size.height as i32 * self.scale
    }
}

const FONT: MonoFont<'static> = ascii::FONT_6X10;

/// `embedded_graphics` has a `Size` of its own.
type Size2 = embedded_graphics::geometry::Size;

impl OriginDimensions for Canvas {
    fn size(&self) -> Size2 {
        Size2::new(self.size.width, self.size.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let inside =
                (0..self.size.width as i32).contains(&x) && (0..self.size.height as i32).contains(&y);
            if inside {
                let at = (y as usize * self.size.width as usize + x as usize) * 3;
                self.rgb[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

/// Draws each pixel as a square of `scale` pixels.
struct Scaled<'a> {
    canvas: &'a mut Canvas,
    scale: i32,
    origin: Point,
}

impl OriginDimensions for Scaled<'_> {
    fn size(&self) -> Size2 {
        OriginDimensions::size(&*self.canvas)
    }
}

impl DrawTarget for Scaled<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            let corner = self.origin + at * self.scale;
            self.canvas
                .bar(corner.x, corner.y, self.scale, self.scale, colour);
        }
        Ok(())
    }
}
