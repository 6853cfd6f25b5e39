//! Pieces of the page: figures, tables, legends, pictures.

use advcl::interval::Interval;
use maud::{Markup, html};

use super::plots;
use super::png::png;
use crate::format::{self, Align, NONE, Table};

/// A share in percent that no line breaks: "76.8 %".
pub fn percent(share: f64) -> String {
    format::percent(share).replace(' ', "\u{a0}")
}

/// A count with commas: "2,000".
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<&str> = groups
        .iter()
        .filter_map(|g| std::str::from_utf8(g).ok())
        .collect();
    groups.join(",")
}

/// Images that were classified correctly: "76.8 % of 2,000 (74.9–78.6)".
pub fn share(hits: usize, images: usize) -> String {
    match Interval::wilson(hits, images) {
        Some(ends) => {
            let (percent, range) = (percent(ends.share), format::range(&ends));
            format!("{percent} of\u{a0}{} ({range})", count(images))
        }
        None => NONE.to_owned(),
    }
}

/// A measured share with its interval: "76.8 % (74.9–78.6)".
pub fn with_range(share: f64, images: usize) -> String {
    match format::interval(share, images) {
        Some(ends) => format!("{} ({})", percent(share), format::range(&ends)),
        None => percent(share),
    }
}

/// A cell of a table in colours: a share, and its interval below.
pub fn heat_cell(share: f64, images: usize, own: bool) -> Markup {
    html! {
        td.own[own] style=(format!("--v:{share:.2}")) {
            (format!("{:.1}", 100.0 * share))
            @if let Some(ends) = format::interval(share, images) { span.range { (format::range(&ends)) } }
        }
    }
}

/// A table in colours with its caption outside of the frame in which it scrolls.
pub fn heat(caption: &str, content: &Markup) -> Markup {
    html! {
        figure {
            figcaption { (caption) }
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table.heat aria-label=(caption) { (content) }
            }
        }
    }
}

/// A table: caption, heads of its columns, rows whose first cell is their head.
pub fn table(caption: &str, table: &Table) -> Markup {
    let words = |column: usize| column > 0 && table.aligns()[column] == Align::Left;
    // The words stand outside of the frame that scrolls, or a narrow screen would cut them.
    html! {
        // One element, since it may stand in a grid.
        div {
            p.caption { (caption) }
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table aria-label=(caption) {
                    thead { tr {
                        @for (column, head) in table.heads().iter().enumerate() {
                            th.words[words(column)] scope="col" { (head) }
                        }
                    } }
                    tbody {
                        @for row in table.rows() {
                            tr {
                                @for (column, cell) in row.iter().enumerate() {
                                    @if column == 0 { th scope="row" { (cell) } } @else { td.words[words(column)] { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A table that is shown on demand.
pub fn folded(caption: &str, rows: &Table) -> Markup {
    html! {
        details {
            summary { "Table: " (caption) }
            (table(caption, rows))
        }
    }
}

/// A plot with its caption, and the table of what it shows.
pub fn figure(caption: Markup, svg: Markup, below: Markup) -> Markup {
    html! {
        figure {
            figcaption { (caption) }
            (svg)
            (below)
        }
    }
}

/// Names of styles.
pub fn legend<'a>(items: impl IntoIterator<Item = (usize, &'a str)>) -> Markup {
    html! {
        ul.legend {
            @for (style, name) in items { li { (symbol(style)) (name) } }
        }
    }
}

fn symbol(style: usize) -> Markup {
    let corners: Vec<String> = plots::shape(style)
        .into_iter()
        .map(|(x, y)| format!("{:.2},{:.2}", 5.0 * x, 5.0 * y))
        .collect();
    html! {
        svg viewBox="-7.5 -7.5 15 15" aria-hidden="true" {
            polygon points=(corners.join(" ")) fill=(plots::colour(style)) {}
        }
    }
}

/// Pixels along a side of a picture, at most: larger images are reduced, so that the page stays
/// small.
const SIDE: usize = 64;

/// An image, `[channels, height, width]`, inside the page; values are clamped into [0, 1].
pub fn picture(values: &[f32], shape: [usize; 3], alt: &str) -> Markup {
    let (values, [channels, height, width]) = reduced(values, shape);
    let plane = height * width;
    let mut bytes = Vec::with_capacity(values.len());
    for at in 0..plane {
        let pixel = (0..channels).map(|c| values[c * plane + at]);
        bytes.extend(pixel.map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8));
    }
    match png(&bytes, width, height) {
        Some(uri) => html! { img src=(uri) alt=(alt) width=(width) height=(height); },
        None => html! {},
    }
}

/// Every n-th pixel of every n-th row, with n such that a side has at most [`SIDE`].
fn reduced(values: &[f32], [channels, height, width]: [usize; 3]) -> (Vec<f32>, [usize; 3]) {
    let every = height.max(width).div_ceil(SIDE).max(1);
    let mut kept = Vec::new();
    for row in values
        .chunks_exact(width)
        .collect::<Vec<_>>()
        .chunks_exact(height)
    {
        for row in row.iter().step_by(every) {
            kept.extend(row.iter().step_by(every));
        }
    }
    let shape = [channels, height.div_ceil(every), width.div_ceil(every)];
    (kept, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_numbers_grouped() {
        let mut rows = Table::new().left("<i>").right("n");
        rows.row(["<b>\"x\"", "1"]);
        let table = table("a & b", &rows).into_string();
        assert!(
            table.contains("&lt;b&gt;") && table.contains("&lt;i&gt;"),
            "{table}"
        );
        assert!(
            table.contains("a &amp; b") && !table.contains("<b>"),
            "{table}"
        );
        assert_eq!(
            [0, 999, 2000, 1234567].map(count),
            ["0", "999", "2,000", "1,234,567"]
        );
    }

    #[test]
    fn large_images_are_made_smaller() {
        let values: Vec<f32> = (0..2 * 100 * 130).map(|i| i as f32).collect();
        let (kept, shape) = reduced(&values, [2, 100, 130]);
        assert_eq!((shape, kept.len()), ([2, 34, 44], 2 * 34 * 44));
        assert_eq!(kept[1], 3.0);
        assert_eq!(kept[44], 390.0);
        assert_eq!(kept[34 * 44], 13000.0);
        assert_eq!(reduced(&values[..784], [1, 28, 28]).0, values[..784]);
    }
}
