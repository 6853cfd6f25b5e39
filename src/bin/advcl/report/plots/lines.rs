//! Lines with markers, and the interval of each point.

use maud::Markup;

use super::axes::{Axis, Frame};
use super::drawing::{Drawing, MUTED};
use super::style::colour;

/// Largest number of markers on a line, so that they do not overlap.
const MARKERS: usize = 12;
const HEIGHT: f64 = 280.0;

/// A point of a line.
#[derive(Clone, Copy)]
pub struct PlotPoint {
    /// Along the horizontal axis.
    pub x: f64,
    /// Along the vertical axis.
    pub y: f64,
    /// The ends of its interval, where it has one.
    pub interval: Option<(f64, f64)>,
}

/// A line of a plot.
pub struct Series {
    /// Its colour and shape; none for a faint reference line without markers.
    pub style: Option<usize>,
    /// Its points, by rising x.
    pub points: Vec<PlotPoint>,
}

/// Lines with markers. `alt` describes the plot in words.
pub fn lines(alt: &str, x: Axis, y: Axis, series: &[Series]) -> Markup {
    let mut drawing = Drawing::default();
    let frame = Frame::new(x, y, HEIGHT);
    frame.draw(&mut drawing);
    for one in series {
        let ink = one.style.map(colour);
        for point in &one.points {
            if let (Some(ink), Some((low, high))) = (&ink, point.interval) {
                let ends = frame.places([(point.x, low), (point.x, high)]);
                drawing.line(&ends, ink, 1.0, 0.55);
            }
        }
        let path = frame.places(one.points.iter().map(|point| (point.x, point.y)));
        match &ink {
            Some(ink) => drawing.line(&path, ink, 2.0, 1.0),
            None => drawing.line(&path, MUTED, 1.0, 1.0),
        }
    }
    for one in series {
        let Some(style) = one.style else { continue };
        let every = one.points.len().div_ceil(MARKERS).max(1);
        let last = one.points.len().saturating_sub(1);
        let some = one.points.iter().enumerate();
        for (_, point) in some.filter(|(i, _)| (last - i).is_multiple_of(every)) {
            drawing.marker(frame.place((point.x, point.y)), style, 3.6, false);
        }
    }
    drawing.finish(HEIGHT, alt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_belong_to_the_page() {
        let point = |x, y| PlotPoint {
            x,
            y,
            interval: Some((y - 0.1, y + 0.1)),
        };
        let series = [Series {
            style: Some(3),
            points: vec![point(0.0, 0.2), point(1.0, 0.9)],
        }];
        let x = Axis::around("epochs < 3", [0.0, 1.0].into_iter());
        let svg = lines("a \"line\" & more", x, Axis::share("right"), &series).into_string();
        assert!(svg.starts_with("<svg viewBox="), "{svg}");
        assert!(
            svg.contains("aria-label=\"a &quot;line&quot; &amp; more\""),
            "{svg}"
        );
        assert!(
            svg.contains("epochs &lt; 3") && svg.contains("var(--k3)"),
            "{svg}"
        );
        // The interval of the first point, from 10 % to 30 % of a height of 226 pixels.
        assert!(svg.contains("points=\"60,211.4 60,166.2\""), "{svg}");
        for word in ["http", "font-family", "#", "NaN"] {
            assert!(!svg.contains(word), "{word} in {svg}");
        }
    }
}
