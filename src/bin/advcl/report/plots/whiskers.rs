//! Values with intervals on one scale from 0 to 100 %.

use maud::Markup;

use super::WIDTH;
use super::drawing::{Anchor, Drawing, GRID, INK, MUTED};
use super::style::colour;

/// A value with its interval, or with a line to another value.
pub struct Whisker {
    /// Colour and shape.
    pub style: usize,
    /// The value, in [0, 1].
    pub value: f64,
    /// Lower end of the line.
    pub low: f64,
    /// Upper end of the line.
    pub high: f64,
}

/// Rows of values, each below its name. `alt` describes the plot in words.
pub fn whiskers(alt: &str, rows: &[(String, Vec<Whisker>)]) -> Markup {
    let each = if rows.len() > 8 { 38.0 } else { 46.0 };
    let bottom = each * rows.len() as f64 + 6.0;
    let (left, right) = (10.0, WIDTH - 22.0);
    let place = |share: f64| left + share * (right - left);
    let mut drawing = Drawing::default();
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let x = place(share);
        drawing.line(&[(x, 4.0), (x, bottom)], GRID, 1.0, 1.0);
        let anchor = if share == 0.0 {
            Anchor::Start
        } else {
            Anchor::Middle
        };
        let text = format!("{:.0} %", 100.0 * share);
        drawing.text((x, bottom + 16.0), &text, 11.0, MUTED, anchor);
    }
    for (number, (name, values)) in rows.iter().enumerate() {
        let top = each * number as f64;
        drawing.text((left, top + 15.0), name, 12.0, INK, Anchor::Start);
        let y = top + each - 13.5;
        drawing.line(&[(left, y), (right, y)], GRID, 1.0, 1.0);
        for one in values {
            let ends = [(place(one.low), y), (place(one.high), y)];
            drawing.line(&ends, &colour(one.style), 3.0, 1.0);
        }
        for one in values {
            drawing.edged_marker((place(one.value), y), one.style, 5.0);
        }
    }
    drawing.finish(bottom + 34.0, alt)
}
