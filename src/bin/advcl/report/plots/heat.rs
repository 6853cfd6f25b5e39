//! A square of values as colours.

use anyhow::Result;
use plotters::prelude::*;

use super::{Axis, FINE, Ticks, chart, drawn};

const WHITE_INK: RGBColor = RGBColor(255, 255, 255);

/// A colour of viridis (Smith and van der Walt, matplotlib), by nine of its points.
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
    /// Along either axis, evenly.
    pub at: &'a [f64],
    /// `[y][x]`.
    pub values: &'a [Vec<f32>],
    /// The value of the last colour; the first is 0.
    pub most: f64,
    /// Where these are 0 a heavy line is drawn.
    pub border: &'a [Vec<f32>],
    /// Half the side of the marked square.
    pub radius: f64,
}

impl Heat<'_> {
    /// Of both axes' labels.
    pub fn draw(&self, alt: &str, x: &str, y: &str) -> Result<String> {
        let (Some(&first), Some(&last)) = (self.at.first(), self.at.last()) else {
            return Ok(String::new());
        };
        let half = (last - first) / (self.at.len() - 1) as f64 / 2.0;
        let axis = |label: &str| Axis {
            label: label.to_owned(),
            from: first - half,
            to: last + half,
            ticks: Ticks::Number,
        };
        drawn(392, alt, |area| {
            let mut chart = chart(area, &axis(x), &axis(y))?;
            for (row, &bottom) in self.values.iter().zip(self.at) {
                let level =
                    |value: f32| (f64::from(value) / self.most * 40.0).clamp(0.0, 40.0) as u32;
                let levels: Vec<u32> = row.iter().map(|&value| level(value)).collect();
                let mut start = 0;
                for run in levels.chunk_by(|a, b| a == b) {
                    let [r, g, b] = viridis(f64::from(run[0]) / 40.0);
                    let left = self.at[start] - half;
                    let right = self.at[start + run.len() - 1] + half;
                    start += run.len();
                    let corners = [(left, bottom - half), (right, bottom + half)];
                    let cell = Rectangle::new(corners, RGBColor(r, g, b).filled());
                    chart.draw_series(std::iter::once(cell))?;
                }
            }
            for part in 1..8 {
                let level = self.most * f64::from(part) / 8.0;
                let fine = WHITE_INK.mix(0.45).stroke_width(3);
                for line in contour(self.at, self.values, level) {
                    chart.draw_series(std::iter::once(PathElement::new(line.to_vec(), fine)))?;
                }
            }
            for line in contour(self.at, self.border, 0.0) {
                let heavy = WHITE_INK.stroke_width(10);
                chart.draw_series(std::iter::once(PathElement::new(line.to_vec(), heavy)))?;
            }
            let r = self.radius;
            let corners = vec![(-r, -r), (r, -r), (r, r), (-r, r), (-r, -r)];
            for (ink, width) in [(RGBColor(0, 0, 0), 9), (WHITE_INK, 4)] {
                let square = PathElement::new(corners.clone(), ink.stroke_width(width));
                chart.draw_series(std::iter::once(square))?;
                let size = if width > 4 { 5 } else { 3 };
                let dot = Circle::new((0.0, 0.0), size * FINE, ink.filled());
                chart.draw_series(std::iter::once(dot))?;
            }
            Ok(())
        })
    }
}

/// Where the values, linear between the points, cross `level`: marching squares.
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
