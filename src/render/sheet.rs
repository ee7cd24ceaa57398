//! A contact sheet: some frames of a video side by side, as PNG.

use super::canvas::Canvas;
use affectmill_base::Size;

/// Pixels of a frame's longer side.
const LONGER: u32 = 480;
/// Pixels between frames.
const GAP: u32 = 8;

/// The size of a frame on a sheet: pixels made square.
pub fn tile(size: Size, pixel_aspect: f64) -> Size {
    let (width, height) = (f64::from(size.width) * pixel_aspect, f64::from(size.height));
    let scale = f64::from(LONGER) / width.max(height).max(1.0);
    let side = |pixels: f64| ((pixels * scale).round() as u32).max(1);
    Size {
        width: side(width),
        height: side(height),
    }
}

/// Frames of a video of `frames` frames, spread over it, each in the middle of its share.
pub fn chosen(frames: u64, count: u64) -> Vec<u64> {
    let count = count.min(frames).max(1);
    (0..count).map(|n| (2 * n + 1) * frames / (2 * count)).collect()
}

/// The tiles in rows, about half as wide again as high.
pub fn png(tiles: &[Canvas]) -> Result<Vec<u8>, png::EncodingError> {
    let first = tiles.first().map_or(Size { width: 1, height: 1 }, Canvas::size);
    let count = tiles.len().max(1) as u32;
    let wish = (f64::from(count) * 1.6 * f64::from(first.height) / f64::from(first.width)).sqrt();
    let columns = (wish.ceil() as u32).clamp(1, count);
    let rows = count.div_ceil(columns);
    let (width, height) = (
        columns * (first.width + GAP) + GAP,
        rows * (first.height + GAP) + GAP,
    );
    let line = width as usize * 3;
    let mut rgb = vec![24_u8; line * height as usize];
    for (n, tile) in tiles.iter().enumerate() {
        let (column, row) = (n as u32 % columns, n as u32 / columns);
        let (left, top) = (
            GAP + column * (first.width + GAP),
            GAP + row * (first.height + GAP),
        );
        let own = tile.size().width as usize * 3;
        for (y, from) in tile.rgb().chunks_exact(own).enumerate() {
            let at = (top as usize + y) * line + left as usize * 3;
            rgb[at..at + own].copy_from_slice(from);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&rgb)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spread_and_tiles_keep_their_shape() {
        assert_eq!(chosen(100, 4), [12, 37, 62, 87]);
        assert_eq!(chosen(2, 12), [0, 1]);
        assert_eq!(chosen(0, 3), [0]);
        let size = |width, height| Size { width, height };
        assert_eq!(tile(size(1920, 1080), 1.0), size(480, 270));
        assert_eq!(tile(size(720, 576), 64.0 / 45.0), size(480, 270));
        assert_eq!(tile(size(1080, 1920), 1.0), size(270, 480));
    }
}
