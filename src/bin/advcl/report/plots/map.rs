//! Points on a plane, over the regions of their classes.

use anyhow::Result;
use plotters::prelude::*;

use super::{FINE, colour, drawn, mark};

/// A point of a map.
pub struct Dot {
    /// Colour and shape.
    pub style: usize,
    /// Where.
    pub at: (f64, f64),
    /// An outline only.
    pub hollow: bool,
}

/// Cells of a map's background, along each side.
const CELLS: usize = 64;
/// Neighbours that decide a cell's class.
const VOTES: usize = 5;

/// Dots over the regions of the classes: each cell has the colour of most of the nearest of `anchors`.
pub fn map(
    alt: &str,
    anchors: &[Dot],
    dots: &[Dot],
    square: ((f64, f64), (f64, f64)),
) -> Result<String> {
    drawn(400, alt, |area| {
        let ((x0, x1), (y0, y1)) = square;
        let mut chart = ChartBuilder::on(area)
            .margin(6 * FINE)
            .build_cartesian_2d(x0..x1, y0..y1)?;
        let cell = |i: usize, from: f64, to: f64| from + (to - from) * i as f64 / CELLS as f64;
        for row in 0..CELLS {
            let (bottom, top) = (cell(row, y0, y1), cell(row + 1, y0, y1));
            let y = (bottom + top) / 2.0;
            let said = |column: usize| {
                let x = (cell(column, x0, x1) + cell(column + 1, x0, x1)) / 2.0;
                nearest(anchors, (x, y))
            };
            let mut start = 0;
            let styles: Vec<usize> = (0..CELLS).map(said).collect();
            for run in styles.chunk_by(|a, b| a == b) {
                let ends = (cell(start, x0, x1), cell(start + run.len(), x0, x1));
                start += run.len();
                let fill = colour(run[0]).mix(0.16).filled();
                let corners = [(ends.0, bottom), (ends.1, top)];
                chart.draw_series(std::iter::once(Rectangle::new(corners, fill)))?;
            }
        }
        dots.iter()
            .try_for_each(|dot| mark(&mut chart, dot.at, dot.style, 3.4, dot.hollow))
    })
}

/// The style of most of the nearest dots; the nearest one's, where several are as many.
fn nearest(anchors: &[Dot], at: (f64, f64)) -> usize {
    let squared = |dot: &Dot| (dot.at.0 - at.0).powi(2) + (dot.at.1 - at.1).powi(2);
    let mut near: Vec<(f64, usize)> = anchors
        .iter()
        .map(|dot| (squared(dot), dot.style))
        .collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    near.truncate(VOTES);
    let votes = |style: usize| near.iter().filter(|(_, other)| *other == style).count();
    // The first of equals: the nearest.
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
