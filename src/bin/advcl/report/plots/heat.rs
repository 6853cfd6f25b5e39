//! A square of values as colours.

use maud::Markup;

use super::axes::{Axis, Frame};
use super::drawing::Drawing;
use crate::report::png::png;

/// Height of the plot: a square inside its axes.
const HEIGHT: f64 = 392.0;
/// Number of colours.
const LEVELS: f64 = 40.0;

/// A colour of viridis (Smith and van der Walt, matplotlib), interpolated between nine of its
/// colours.
pub fn viridis(share: f64) -> [u8; 3] {
    const STOPS: [[u8; 3]; 9] = [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ];
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let below = (place as usize).min(STOPS.len() - 2);
    let part = place - below as f64;
    let mix = |c: usize| {
        let (a, b) = (f64::from(STOPS[below][c]), f64::from(STOPS[below + 1][c]));
        (a + part * (b - a)).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

/// A square of values `[y][x]` as colours, with lines of equal value.
pub struct Heat<'a> {
    /// Positions along either axis, at even distances.
    pub at: &'a [f64],
    /// Values, `[y][x]`.
    pub values: &'a [Vec<f32>],
    /// The value of the last colour; the first is 0.
    pub most: f64,
    /// Values whose zero line is drawn in bold.
    pub border: &'a [Vec<f32>],
    /// Half the side of the marked square.
    pub radius: f64,
}

impl Heat<'_> {
    /// Draws it, with the labels of both axes. `alt` describes the plot in words.
    pub fn draw(&self, alt: &str, x: &str, y: &str) -> Markup {
        let (Some(&first), Some(&last)) = (self.at.first(), self.at.last()) else {
            return Markup::default();
        };
        let half = (last - first) / (self.at.len() - 1) as f64 / 2.0;
        let axis = |label: &str| Axis::between(label, first - half, last + half);
        let frame = Frame::new(axis(x), axis(y), HEIGHT);
        let mut drawing = Drawing::default();
        frame.draw(&mut drawing);
        // The last row is the upmost.
        let colours = self.values.iter().rev().flatten().flat_map(|value| {
            let level = (f64::from(*value) / self.most * LEVELS).clamp(0.0, LEVELS);
            viridis(level.floor() / LEVELS)
        });
        let side = self.at.len();
        let ends = (
            frame.place((first - half, first - half)),
            frame.place((last + half, last + half)),
        );
        if let Some(uri) = png(&colours.collect::<Vec<u8>>(), side, side) {
            drawing.pixels(ends.0, ends.1, &uri);
        }
        for part in 1..8 {
            let level = self.most * f64::from(part) / 8.0;
            for line in contour(self.at, self.values, level) {
                drawing.line(&frame.places(line), "white", 0.75, 0.45);
            }
        }
        for line in contour(self.at, self.border, 0.0) {
            drawing.line(&frame.places(line), "white", 2.5, 1.0);
        }
        let r = self.radius;
        let square = frame.places([(-r, -r), (r, -r), (r, r), (-r, r), (-r, -r)]);
        // White on black is visible on every colour.
        for (ink, width, dot) in [("black", 2.25, 5.0), ("white", 1.0, 3.0)] {
            drawing.line(&square, ink, width, 1.0);
            drawing.disc(frame.place((0.0, 0.0)), dot, ink);
        }
        drawing.finish(HEIGHT, alt)
    }
}

/// Lines along which the values, linear between the points, cross `level`: marching squares.
fn contour(at: &[f64], values: &[Vec<f32>], level: f64) -> Vec<[(f64, f64); 2]> {
    let mut lines = Vec::new();
    for row in 0..at.len() - 1 {
        for column in 0..at.len() - 1 {
            let corner = |dy: usize, dx: usize| {
                let value = f64::from(values[row + dy][column + dx]) - level;
                ((at[column + dx], at[row + dy]), value)
            };
            let around = [
                corner(0, 0),
                corner(0, 1),
                corner(1, 1),
                corner(1, 0),
                corner(0, 0),
            ];
            let crossing = |pair: &[((f64, f64), f64)]| {
                let [(p, a), (q, b)] = [pair[0], pair[1]];
                ((a < 0.0) != (b < 0.0)).then(|| {
                    let part = a / (a - b);
                    (p.0 + part * (q.0 - p.0), p.1 + part * (q.1 - p.1))
                })
            };
            let found: Vec<_> = around.windows(2).filter_map(crossing).collect();
            lines.extend(found.chunks_exact(2).map(|ends| [ends[0], ends[1]]));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contour_is_where_the_level_is_crossed() {
        let at = [0.0, 1.0, 2.0];
        let values = vec![vec![0.0, 2.0, 4.0]; 3];
        let lines = contour(&at, &values, 1.0);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().flatten().all(|(x, _)| *x == 0.5), "{lines:?}");
        assert_eq!(contour(&at, &values, 9.0), [] as [[(f64, f64); 2]; 0]);
    }
}
