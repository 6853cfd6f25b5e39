//! Plots as SVG. plotters lays them out; its colours are then replaced by the page's variables, so that a plot follows light
//! and dark, and its fonts by the page's.

mod heat;
mod map;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub use heat::{Heat, viridis};
pub use map::{Dot, map};

/// plotters puts everything on whole pixels: it draws on a canvas that is so many times finer.
const FINE: i32 = 4;
/// Width of every plot, in the page's pixels before it is scaled.
const WIDTH: i32 = 420;
/// Colours and shapes of series and classes; beyond, they begin anew.
pub const STYLES: usize = 10;

// Stand-ins, which `finish` replaces.
const INK: RGBColor = RGBColor(2, 0, 0);
const MUTED: RGBColor = RGBColor(2, 0, 1);
const GRID: RGBColor = RGBColor(2, 0, 2);
const PAPER: RGBColor = RGBColor(2, 0, 3);

fn colour(style: usize) -> RGBColor {
    RGBColor(1, 0, (style % STYLES) as u8)
}

/// The corners of a style's shape, for a radius of 1, y downwards.
pub fn shape(style: usize) -> Vec<(f64, f64)> {
    let regular = |corners: usize, from: f64, radii: &[f64]| -> Vec<(f64, f64)> {
        (0..corners)
            .map(|i| {
                let angle = (from + i as f64 * 360.0 / corners as f64).to_radians();
                let radius = radii[i % radii.len()];
                (radius * angle.cos(), radius * angle.sin())
            })
            .collect()
    };
    let cross = |turn: f64| -> Vec<(f64, f64)> {
        let arms = [
            (-0.35, -1.1),
            (0.35, -1.1),
            (0.35, -0.35),
            (1.1, -0.35),
            (1.1, 0.35),
            (0.35, 0.35),
            (0.35, 1.1),
            (-0.35, 1.1),
            (-0.35, 0.35),
            (-1.1, 0.35),
            (-1.1, -0.35),
            (-0.35, -0.35),
        ];
        let (sin, cos) = turn.to_radians().sin_cos();
        arms.iter()
            .map(|(x, y)| (x * cos - y * sin, x * sin + y * cos))
            .collect()
    };
    match style % STYLES {
        0 => regular(12, 0.0, &[1.0]),
        1 => regular(4, 45.0, &[1.2]),
        2 => regular(3, -90.0, &[1.3]),
        3 => regular(4, 0.0, &[1.3]),
        4 => regular(3, 90.0, &[1.3]),
        5 => cross(0.0),
        6 => cross(45.0),
        7 => regular(10, -90.0, &[1.35, 0.55]),
        8 => vec![(-1.1, -1.1), (1.1, -1.1), (-1.1, 1.1), (1.1, 1.1)],
        _ => vec![(-1.3, -0.5), (1.3, -0.5), (1.3, 0.5), (-1.3, 0.5)],
    }
}

/// Draws a marker; a hollow one is an outline.
fn mark(chart: &mut Chart, at: (f64, f64), style: usize, radius: f64, hollow: bool) -> Result<()> {
    let scale = radius * f64::from(FINE);
    let corner = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
    let mut corners: Vec<(i32, i32)> = shape(style).into_iter().map(corner).collect();
    if hollow {
        corners.push(corners[0]);
        let outline = PathElement::new(corners, colour(style).stroke_width(5));
        chart.draw_series(std::iter::once(EmptyElement::at(at) + outline))?;
    } else {
        let whole = Polygon::new(corners, colour(style).filled());
        chart.draw_series(std::iter::once(EmptyElement::at(at) + whole))?;
    }
    Ok(())
}

fn font(size: i32, ink: &RGBColor) -> TextStyle<'static> {
    // The backend divides by 1.24.
    let size = f64::from(size * FINE) * 1.24;
    ("sans-serif", size).into_font().color(ink)
}

/// One axis.
#[derive(Clone)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: String,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// How its ticks are written.
    pub ticks: Ticks,
}

/// How ticks are written.
#[derive(Clone, Copy, PartialEq)]
pub enum Ticks {
    /// As numbers.
    Number,
    /// Counts: only whole ones.
    Whole,
    /// Shares, in percent.
    Percent,
}

impl Axis {
    /// From 0 to 100 %.
    pub fn share(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            from: 0.0,
            to: 1.0,
            ticks: Ticks::Percent,
        }
    }

    /// Around counts: epochs, steps.
    pub fn whole(label: &str, values: impl Iterator<Item = f64>) -> Self {
        Self {
            ticks: Ticks::Whole,
            ..Self::around(label, values)
        }
    }

    /// Around all of the values.
    pub fn around(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let ends = values
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let (from, to) = match ends {
            (low, high) if low < high => (low, high),
            (low, _) if low.is_finite() => (low - 0.5, low + 0.5),
            _ => (0.0, 1.0),
        };
        Self {
            label: label.to_owned(),
            from,
            to,
            ticks: Ticks::Number,
        }
    }

    fn write(&self, value: f64) -> String {
        // Ticks are sums of steps: no -0.
        let value = if value.abs() < 1e-9 { 0.0 } else { value };
        match self.ticks {
            Ticks::Percent => return format!("{:.0} %", 100.0 * value),
            Ticks::Whole if (value - value.round()).abs() < 1e-6 => return format!("{value:.0}"),
            Ticks::Whole => return String::new(),
            Ticks::Number => {}
        }
        let digits = match self.to - self.from {
            range if range > 8.0 => 0,
            range if range > 0.8 => 1,
            range if range > 0.08 => 2,
            _ => 3,
        };
        format!("{value:.digits$}")
    }
}

/// A line of a plot.
pub struct Series {
    /// Its colour and shape; none for a faint reference line without markers.
    pub style: Option<usize>,
    /// Its points, by rising x.
    pub points: Vec<(f64, f64)>,
}

/// A plot, and what it shows in words, for those who do not see it.
fn drawn(height: i32, alt: &str, draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let size = ((WIDTH * FINE) as u32, (height * FINE) as u32);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    Ok(finish(svg, height, alt))
}

/// Takes out of plotters' SVG what belongs to the page.
fn finish(svg: String, height: i32, alt: &str) -> String {
    let start = svg.find('>').map_or(0, |end| end + 1);
    let (w, h) = (WIDTH * FINE, height * FINE);
    let mut text = maud::html! { (alt) }.into_string();
    text = text.replace('\n', " ");
    let mut body = svg[start..].replace(" font-family=\"sans-serif\"", "");
    for plain in [" opacity=\"1\"", " stroke=\"none\"", " stroke-width=\"1\""] {
        body = body.replace(plain, "");
    }
    for style in 0..STYLES {
        let RGBColor(r, g, b) = colour(style);
        body = body.replace(
            &format!("#{r:02X}{g:02X}{b:02X}"),
            &format!("var(--k{style})"),
        );
    }
    for (RGBColor(r, g, b), name) in [
        (INK, "--ink"),
        (MUTED, "--muted"),
        (GRID, "--grid"),
        (PAPER, "--card"),
    ] {
        body = body.replace(&format!("#{r:02X}{g:02X}{b:02X}"), &format!("var({name})"));
    }
    format!(
        "<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{text}\">{}",
        body.replace(" \"", "\"")
    )
}

/// Axes and grid.
fn chart<'a, 'b>(area: &'a Area<'b>, x: &Axis, y: &Axis) -> Result<Chart<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin(8 * FINE)
        .margin_right(14 * FINE)
        .x_label_area_size(38 * FINE)
        .y_label_area_size(52 * FINE)
        .build_cartesian_2d(x.from..x.to, y.from..y.to)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(4))
        .axis_style(MUTED.stroke_width(4))
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|v| x.write(*v))
        .y_label_formatter(&|v| y.write(*v))
        .label_style(font(11, &MUTED))
        .axis_desc_style(font(12, &INK))
        .x_desc(x.label.clone())
        .y_desc(y.label.clone())
        .set_all_tick_mark_size(4 * FINE)
        .draw()?;
    Ok(chart)
}

/// Lines with markers.
pub fn lines(alt: &str, x: &Axis, y: &Axis, series: &[Series]) -> Result<String> {
    drawn(280, alt, |area| {
        let mut chart = chart(area, x, y)?;
        for one in series {
            let (ink, width) = match one.style {
                Some(style) => (colour(style), 8),
                None => (MUTED, 4),
            };
            let path = PathElement::new(one.points.clone(), ink.stroke_width(width));
            chart.draw_series(std::iter::once(path))?;
        }
        for one in series {
            // Few enough to be told apart.
            let Some(style) = one.style else { continue };
            let every = one.points.len().div_ceil(12).max(1);
            let last = one.points.len().saturating_sub(1);
            let some = one.points.iter().enumerate();
            let some = some.filter(|(i, _)| (last - i).is_multiple_of(every));
            for (_, &at) in some {
                mark(&mut chart, at, style, 3.6, false)?;
            }
        }
        Ok(())
    })
}

/// A value with its interval, or with a line to another value.
pub struct Whisker {
    /// Colour and shape.
    pub style: usize,
    /// All in [0, 1].
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Rows of values on one scale from 0 to 100 %, each below its name.
pub fn whiskers(alt: &str, rows: &[(String, Vec<Whisker>)]) -> Result<String> {
    let each = if rows.len() > 8 { 36 } else { 44 };
    let height = each * rows.len() as i32 + 40;
    drawn(height, alt, |area| {
        let x = Axis::share("");
        let (left, right) = (10 * FINE, (WIDTH - 22) * FINE);
        let place = |share: f64| left + (share * f64::from(right - left)).round() as i32;
        let bottom = (each * rows.len() as i32 + 6) * FINE;
        for tenth in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let at = place(tenth);
            area.draw(&PathElement::new(
                vec![(at, 4 * FINE), (at, bottom)],
                GRID.stroke_width(4),
            ))?;
            let anchor = match tenth {
                0.0 => HPos::Left,
                _ => HPos::Center,
            };
            let style = font(11, &MUTED).pos(Pos::new(anchor, VPos::Top));
            area.draw(&Text::new(x.write(tenth), (at, bottom + 6 * FINE), style))?;
        }
        for (number, (name, values)) in rows.iter().enumerate() {
            let top = each * number as i32 * FINE;
            let style = font(12, &INK).pos(Pos::new(HPos::Left, VPos::Top));
            area.draw(&Text::new(name.clone(), (left, top + 6 * FINE), style))?;
            let y = top + (each - 13) * FINE;
            area.draw(&PathElement::new(
                vec![(left, y), (right, y)],
                GRID.stroke_width(4),
            ))?;
            for one in values {
                let ends = vec![(place(one.low), y), (place(one.high), y)];
                area.draw(&PathElement::new(ends, colour(one.style).stroke_width(12)))?;
            }
            for one in values {
                let corner = |(dx, dy): (f64, f64)| {
                    let scale = 5.0 * f64::from(FINE);
                    (
                        place(one.value) + (dx * scale) as i32,
                        y + (dy * scale) as i32,
                    )
                };
                let corners: Vec<_> = shape(one.style).into_iter().map(corner).collect();
                let mut edge = corners.clone();
                edge.push(corners[0]);
                area.draw(&PathElement::new(edge, PAPER.stroke_width(5)))?;
                area.draw(&Polygon::new(corners, colour(one.style).filled()))?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_belong_to_the_page() {
        let series = [Series {
            style: Some(3),
            points: vec![(0.0, 0.2), (1.0, 0.9)],
        }];
        let x = Axis::around("epochs < 3", [0.0, 1.0].into_iter());
        let svg = lines("a \"line\" & more", &x, &Axis::share("right"), &series).expect("a plot");
        assert!(svg.starts_with("<svg viewBox="), "{svg}");
        assert!(
            svg.contains("aria-label=\"a &quot;line&quot; &amp; more\""),
            "{svg}"
        );
        assert!(
            svg.contains("epochs &lt; 3") && svg.contains("var(--k3)"),
            "{svg}"
        );
        for word in ["http", "font-family", "#0", "NaN"] {
            assert!(!svg.contains(word), "{word} in {svg}");
        }
    }
}
