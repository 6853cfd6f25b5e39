//! Points on a plane, over the regions of their classes.

use std::collections::BTreeMap;

use maud::Markup;

use super::axes::Frame;
use super::drawing::Drawing;
use super::style::colour;

/// A point of a map.
pub struct Dot {
    /// Colour and shape.
    pub style: usize,
    /// Position on the map.
    pub at: (f64, f64),
    /// Whether it is an outline only.
    pub hollow: bool,
}

/// Number of cells along each side of a map's background.
const CELLS: usize = 64;
/// Number of neighbours that determine a cell's class.
const VOTES: usize = 5;
const HEIGHT: f64 = 400.0;

/// Dots over the regions of the classes: each cell has the colour of most of the nearest of
/// `anchors`. `alt` describes the plot in words.
pub fn map(alt: &str, anchors: &[Dot], dots: &[Dot], (x, y): ((f64, f64), (f64, f64))) -> Markup {
    let frame = Frame::bare(x, y, HEIGHT);
    let mut regions = Drawing::default();
    let cell = |i: usize, (from, to): (f64, f64)| from + (to - from) * i as f64 / CELLS as f64;
    let mut cells: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for row in 0..CELLS {
        let (bottom, top) = (cell(row, y), cell(row + 1, y));
        let style = |column: usize| {
            let middle = (cell(column, x) + cell(column + 1, x)) / 2.0;
            nearest(anchors, (middle, (bottom + top) / 2.0))
        };
        let styles: Vec<usize> = (0..CELLS).map(style).collect();
        let mut start = 0;
        for run in styles.chunk_by(|a, b| a == b) {
            let corner = frame.place((cell(start, x), bottom));
            start += run.len();
            let opposite = frame.place((cell(start, x), top));
            cells.entry(run[0]).or_default().push((corner, opposite));
        }
    }
    for (style, cells) in &cells {
        regions.cells(cells, &colour(*style));
    }
    let mut drawing = Drawing::default();
    drawing.translucent(regions, 0.16);
    for dot in dots {
        drawing.marker(frame.place(dot.at), dot.style, 3.4, dot.hollow);
    }
    drawing.finish(HEIGHT, alt)
}

/// The most frequent style among the nearest dots; of equally frequent ones, that of the nearest
/// dot.
fn nearest(anchors: &[Dot], at: (f64, f64)) -> usize {
    let squared = |dot: &Dot| (dot.at.0 - at.0).powi(2) + (dot.at.1 - at.1).powi(2);
    let mut near: Vec<(f64, usize)> = anchors
        .iter()
        .map(|dot| (squared(dot), dot.style))
        .collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    near.truncate(VOTES);
    let votes = |style: usize| near.iter().filter(|(_, other)| *other == style).count();
    // `max_by_key` returns the last of equals, here the nearest.
    let best = near.iter().rev().max_by_key(|(_, style)| votes(*style));
    best.map_or(0, |(_, style)| *style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_belong_to_most_of_the_nearest() {
        let dot = |style: usize, x: f64| Dot {
            style,
            at: (x, 0.0),
            hollow: false,
        };
        let anchors = [
            dot(1, 0.0),
            dot(2, 1.0),
            dot(2, 1.1),
            dot(2, 1.2),
            dot(1, 5.0),
            dot(1, 6.0),
        ];
        assert_eq!(nearest(&anchors, (0.1, 0.0)), 2);
        assert_eq!(nearest(&anchors, (6.0, 0.0)), 2);
        assert_eq!(nearest(&anchors[..2], (0.1, 0.0)), 1);
    }
}
