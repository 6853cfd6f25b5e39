//! Pieces of the page: figures, tables, legends, pictures.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use maud::{Markup, PreEscaped, html};

use super::plots;

/// "76.8 %".
pub fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * share)
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

/// A table: caption, heads of its columns, rows whose first cell is their head.
pub fn table(caption: &str, head: &[String], rows: &[Vec<String>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for cell in head { th scope="col" { (cell) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (place, cell) in row.iter().enumerate() {
                                @if place == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A table that is shown when asked for.
pub fn folded(caption: &str, head: &[String], rows: &[Vec<String>]) -> Markup {
    html! {
        details {
            summary { "Table: " (caption) }
            (table(caption, head, rows))
        }
    }
}

/// A plot with its caption, and the table of what it shows.
pub fn figure(caption: Markup, svg: String, below: Markup) -> Markup {
    html! {
        figure {
            figcaption { (caption) }
            (PreEscaped(svg))
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
    let fill = format!("var(--k{})", style % plots::STYLES);
    html! {
        svg viewBox="-7.5 -7.5 15 15" aria-hidden="true" {
            polygon points=(corners.join(" ")) fill=(fill) {}
        }
    }
}

/// Pixels along a side of a picture: of larger images some are left out, so that the page stays small.
const SIDE: usize = 64;

/// An image, `[channels, height, width]` in [0, 1], inside the page; what is outside is clamped.
pub fn picture(values: &[f32], shape: [usize; 3], alt: &str) -> Markup {
    let (values, [channels, height, width]) = reduced(values, shape);
    let plane = height * width;
    let mut bytes = Vec::with_capacity(values.len());
    for at in 0..plane {
        let pixel = (0..channels).map(|c| values[c * plane + at]);
        bytes.extend(pixel.map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8));
    }
    let kind = match channels {
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::L8,
    };
    let mut png = Vec::new();
    let size = (width as u32, height as u32);
    let written = PngEncoder::new(&mut png).write_image(&bytes, size.0, size.1, kind);
    // A vector takes all that is written; an image of no pixels is no picture.
    if written.is_err() {
        return html! {};
    }
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(png));
    html! { img src=(uri) alt=(alt) width=(width) height=(height); }
}

/// Each so many-th pixel of each so many-th row.
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
        let rows = [vec!["<b>\"x\"".to_owned(), "1".to_owned()]];
        let table = table("a & b", &["<i>".to_owned(), "n".to_owned()], &rows).into_string();
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
