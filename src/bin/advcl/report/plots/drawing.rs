//! Shapes of an SVG picture.

use maud::{Markup, PreEscaped, html};

use super::WIDTH;
use super::style::{colour, shape};

/// The page's colour of text.
pub const INK: &str = "var(--ink)";
/// The page's colour of secondary text and lines.
pub const MUTED: &str = "var(--muted)";
/// The page's colour of grids.
pub const GRID: &str = "var(--grid)";
/// The page's colour behind plots.
pub const CARD: &str = "var(--card)";

/// The part of a text that is at its position.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Opposite corners of a rectangle.
pub type Corners = ((f64, f64), (f64, f64));

/// Builder of a picture. Later shapes cover earlier ones. Positions are in the page's pixels, y
/// downwards.
#[derive(Default)]
pub struct Drawing {
    body: String,
}

/// A coordinate as text, to a hundredth of a pixel.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0" } else { text }.to_owned()
}

fn list(points: &[(f64, f64)]) -> String {
    let pair = |(x, y): &(f64, f64)| format!("{},{}", number(*x), number(*y));
    points.iter().map(pair).collect::<Vec<_>>().join(" ")
}

impl Drawing {
    fn push(&mut self, shape: Markup) {
        self.body += &shape.into_string();
    }

    /// Filled rectangles between opposite corners as one shape, so that there is no seam between them; each slightly larger, so that there is
    /// none to other shapes either.
    pub fn cells(&mut self, cells: &[Corners], fill: &str) {
        let mut path = String::new();
        for (a, b) in cells {
            let (x, y) = (a.0.min(b.0) - 0.3, a.1.min(b.1) - 0.3);
            let (width, height) = ((a.0 - b.0).abs() + 0.6, (a.1 - b.1).abs() + 0.6);
            let [x, y, width, height] = [x, y, width, height].map(number);
            path += &format!("M{x} {y}h{width}v{height}h-{width}z");
        }
        self.push(html! { path d=(path) fill=(fill) {} });
    }

    /// A picture of pixels between opposite corners; a whole one has no seams on paper.
    pub fn pixels(&mut self, a: (f64, f64), b: (f64, f64), uri: &str) {
        let (x, y) = (number(a.0.min(b.0)), number(a.1.min(b.1)));
        let (w, h) = (number((a.0 - b.0).abs()), number((a.1 - b.1).abs()));
        self.push(html! {
            image x=(x) y=(y) width=(w) height=(h) href=(uri) preserveAspectRatio="none" {}
        });
    }

    /// Another picture as a translucent layer.
    pub fn translucent(&mut self, other: Self, opacity: f64) {
        self.push(html! {
            g opacity=(number(opacity)) { (PreEscaped(other.body)) }
        });
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)], stroke: &str, width: f64, opacity: f64) {
        let opacity = (opacity < 1.0).then(|| number(opacity));
        self.push(html! {
            polyline points=(list(points)) fill="none" stroke=(stroke) stroke-width=(number(width)) opacity=[opacity] {}
        });
    }

    /// A filled disc.
    pub fn disc(&mut self, at: (f64, f64), radius: f64, fill: &str) {
        self.push(html! {
            circle cx=(number(at.0)) cy=(number(at.1)) r=(number(radius)) fill=(fill) {}
        });
    }

    /// The marker of a style. A hollow one is an outline.
    pub fn marker(&mut self, at: (f64, f64), style: usize, radius: f64, hollow: bool) {
        let corner = |(x, y): (f64, f64)| (at.0 + radius * x, at.1 + radius * y);
        let corners: Vec<(f64, f64)> = shape(style).into_iter().map(corner).collect();
        let ink = colour(style);
        self.push(if hollow {
            html! { polygon points=(list(&corners)) fill="none" stroke=(ink) stroke-width="1.25" {} }
        } else {
            html! { polygon points=(list(&corners)) fill=(ink) {} }
        });
    }

    /// The marker of a style with an edge in the page's colour, which keeps it apart from lines
    /// below it.
    pub fn edged_marker(&mut self, at: (f64, f64), style: usize, radius: f64) {
        let corner = |(x, y): (f64, f64)| (at.0 + radius * x, at.1 + radius * y);
        let corners: Vec<(f64, f64)> = shape(style).into_iter().map(corner).collect();
        self.push(html! {
            polygon points=(list(&corners)) fill=(colour(style)) stroke=(CARD) stroke-width="1.25" paint-order="stroke" {}
        });
    }

    /// A text on one line.
    pub fn text(&mut self, at: (f64, f64), text: &str, size: f64, fill: &str, anchor: Anchor) {
        self.push(html! {
            text x=(number(at.0)) y=(number(at.1)) font-size=(number(size)) fill=(fill) text-anchor=[anchored(anchor)] { (text) }
        });
    }

    /// A text that is read upwards, its middle at `at`.
    pub fn upwards(&mut self, at: (f64, f64), text: &str, size: f64, fill: &str) {
        let turn = format!("rotate(-90 {} {})", number(at.0), number(at.1));
        self.push(html! {
            text x=(number(at.0)) y=(number(at.1)) font-size=(number(size)) fill=(fill) text-anchor="middle" transform=(turn) { (text) }
        });
    }

    /// Finishes the picture, with its content in words for screen readers.
    pub fn finish(self, height: f64, alt: &str) -> Markup {
        let view = format!("0 0 {} {}", number(WIDTH), number(height));
        html! {
            svg viewBox=(view) role="img" aria-label=(alt.replace('\n', " ")) { (PreEscaped(self.body)) }
        }
    }
}

/// Value of the attribute `text-anchor`; none for its default.
fn anchored(anchor: Anchor) -> Option<&'static str> {
    match anchor {
        Anchor::Start => None,
        Anchor::Middle => Some("middle"),
        Anchor::End => Some("end"),
    }
}
