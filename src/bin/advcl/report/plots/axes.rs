//! Axes: ticks, their labels, and places on a plot.

use super::WIDTH;
use super::drawing::{Anchor, Drawing, GRID, INK, MUTED};

/// One axis.
#[derive(Clone)]
pub struct Axis {
    /// The measured quantity, with its unit.
    pub label: String,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// The format of its ticks.
    ticks: Ticks,
}

/// Formats of ticks.
#[derive(Clone, Copy, PartialEq)]
enum Ticks {
    /// As numbers.
    Number,
    /// As counts: only whole ones.
    Whole,
    /// As shares, in percent.
    Percent,
}

/// Largest number of tick intervals.
const MOST: f64 = 6.0;

impl Axis {
    /// An axis from 0 to 100 %.
    pub fn share(label: &str) -> Self {
        Self {
            ticks: Ticks::Percent,
            ..Self::between(label, 0.0, 1.0)
        }
    }

    /// An axis between two numbers.
    pub fn between(label: &str, from: f64, to: f64) -> Self {
        Self {
            label: label.to_owned(),
            from,
            to,
            ticks: Ticks::Number,
        }
    }

    /// An axis around counts, such as epochs or steps.
    pub fn whole(label: &str, values: impl Iterator<Item = f64>) -> Self {
        Self {
            ticks: Ticks::Whole,
            ..Self::around(label, values)
        }
    }

    /// An axis around all of the values.
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
        Self::between(label, from, to)
    }

    /// The distance of ticks: 1, 2 or 5 times a power of ten, such that there are few of them.
    fn step(&self) -> f64 {
        // A part of the smallest numbers is rounded to 0, which is no distance.
        let least = ((self.to - self.from) / MOST).max(f64::MIN_POSITIVE);
        let power = 10f64.powf(least.log10().floor());
        let times = [1.0, 2.0, 5.0, 10.0].into_iter();
        let step = times.map(|times| times * power).find(|step| *step >= least);
        let step = step.unwrap_or(10.0 * power);
        if self.ticks == Ticks::Whole {
            step.max(1.0)
        } else {
            step
        }
    }

    /// Values with a tick, and their text.
    fn ticks(&self) -> Vec<(f64, String)> {
        let step = self.step();
        let digits = (-step.log10().floor()).max(0.0) as usize;
        // Rounding must not lose a tick at an end.
        let (first, last) = (self.from / step - 1e-9, self.to / step + 1e-9);
        let numbers = (first.ceil() as i64)..=(last.floor() as i64);
        numbers
            .map(|number| {
                let value = number as f64 * step;
                let text = match self.ticks {
                    Ticks::Percent => format!("{:.0} %", 100.0 * value),
                    Ticks::Whole | Ticks::Number => format!("{value:.digits$}"),
                };
                (value, text)
            })
            .collect()
    }
}

/// The area of a plot inside its axes.
pub struct Frame {
    x: Axis,
    y: Axis,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    /// An area with room for the labels of both axes.
    pub fn new(x: Axis, y: Axis, height: f64) -> Self {
        Self {
            x,
            y,
            left: 60.0,
            right: WIDTH - 20.0,
            top: 8.0,
            bottom: height - 46.0,
        }
    }

    /// An area without axes.
    pub fn bare(x: (f64, f64), y: (f64, f64), height: f64) -> Self {
        let edge = 6.0;
        Self {
            x: Axis::between("", x.0, x.1),
            y: Axis::between("", y.0, y.1),
            left: edge,
            right: WIDTH - edge,
            top: edge,
            bottom: height - edge,
        }
    }

    /// Position of a point of the plot in the picture.
    pub fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |axis: &Axis, value: f64| (value - axis.from) / (axis.to - axis.from);
        (
            self.left + share(&self.x, x) * (self.right - self.left),
            self.bottom - share(&self.y, y) * (self.bottom - self.top),
        )
    }

    /// Positions of points.
    pub fn places(&self, points: impl IntoIterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
        points.into_iter().map(|point| self.place(point)).collect()
    }

    /// Draws grid lines, ticks and labels.
    pub fn draw(&self, drawing: &mut Drawing) {
        for (value, text) in self.y.ticks() {
            let (_, y) = self.place((self.x.from, value));
            drawing.line(&[(self.left, y), (self.right, y)], GRID, 1.0, 1.0);
            drawing.text((self.left - 8.0, y + 4.0), &text, 11.0, MUTED, Anchor::End);
        }
        let corner = (self.left, self.bottom);
        let axis = [(self.left, self.top), corner, (self.right, self.bottom)];
        drawing.line(&axis, MUTED, 1.0, 1.0);
        for (value, text) in self.x.ticks() {
            let (x, _) = self.place((value, self.y.from));
            let tick = [(x, self.bottom), (x, self.bottom + 4.0)];
            drawing.line(&tick, MUTED, 1.0, 1.0);
            let below = (x, self.bottom + 17.0);
            drawing.text(below, &text, 11.0, MUTED, Anchor::Middle);
        }
        let middle = (self.left + self.right) / 2.0;
        let below = (middle, self.bottom + 37.0);
        drawing.text(below, &self.x.label, 12.0, INK, Anchor::Middle);
        let beside = (14.0, (self.top + self.bottom) / 2.0);
        drawing.upwards(beside, &self.y.label, 12.0, INK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_within_the_axis() {
        let texts = |axis: Axis| -> Vec<String> {
            axis.ticks().into_iter().map(|(_, text)| text).collect()
        };
        let percent = ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"];
        assert_eq!(texts(Axis::share("")), percent);
        let around = |from, to| texts(Axis::around("", [from, to].into_iter()));
        assert_eq!(around(0.0, 0.4), ["0.0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(around(-0.2, 0.2), ["-0.2", "-0.1", "0.0", "0.1", "0.2"]);
        assert_eq!(
            around(3.1, 3.4),
            ["3.10", "3.15", "3.20", "3.25", "3.30", "3.35", "3.40"]
        );
        let whole = |from, to| texts(Axis::whole("", [from, to].into_iter()));
        assert_eq!(whole(1.0, 3.0), ["1", "2", "3"]);
        assert_eq!(whole(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        // A single value, and none.
        assert_eq!(whole(1.0, 1.0), ["1"]);
        assert!(!texts(Axis::around("", std::iter::empty())).is_empty());
        // The smallest distance that there is.
        assert_eq!(around(0.0, 5e-324).len(), 1);
    }
}
