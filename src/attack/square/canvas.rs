//! The Square attack's changes of one image, given their random numbers.

use std::ops::Range;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// Square part of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub top: usize,
    pub left: usize,
    pub side: usize,
}

impl Window {
    /// Draws a window anywhere in the image, as in the paper's algorithm 2; the released code never reaches the last row and
    /// column.
    pub(super) fn draw(side: usize, [_, height, width]: [usize; 3], rng: &mut ChaCha8Rng) -> Self {
        Self {
            top: rng.random_range(0..=height - side),
            left: rng.random_range(0..=width - side),
            side,
        }
    }

    /// Rows of the window in each channel, as ranges of the image's values.
    pub(super) fn rows(
        self,
        [channels, height, width]: [usize; 3],
    ) -> impl Iterator<Item = (usize, Range<usize>)> {
        (0..channels).flat_map(move |channel| {
            (self.top..self.top + self.side).map(move |row| {
                let first = (channel * height + row) * width + self.left;
                (channel, first..first + self.side)
            })
        })
    }
}

/// An original image, and the changes that the attack can make to it. Signs are 1 or -1.
pub(crate) struct Canvas<'a> {
    /// Values of the original image.
    pub original: &'a [f32],
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Radius ε.
    pub radius: f64,
}

impl Canvas<'_> {
    fn moved(&self, place: usize, sign: f32) -> f32 {
        (self.original[place] + sign * self.radius as f32).clamp(0.0, 1.0)
    }

    /// Start of the search for L∞: each column of each channel is moved by ε. `signs`: `[channels, width]`.
    pub(crate) fn stripes(&self, signs: &[f32]) -> Vec<f32> {
        let [_, height, width] = self.shape;
        let sign = |place: usize| signs[place / (height * width) * width + place % width];
        let places = 0..self.original.len();
        places.map(|place| self.moved(place, sign(place))).collect()
    }

    /// Moves a window by ε, by the sign of each channel, and returns whether that changed anything.
    ///
    /// The paper adds ±2ε to the current values and clips, which is the same: every value is moved by ε already.
    pub(crate) fn paint(&self, x: &mut [f32], window: Window, signs: &[f32]) -> bool {
        let mut changed = false;
        for (channel, row) in window.rows(self.shape) {
            for place in row {
                let value = self.moved(place, signs[channel]);
                changed |= value != x[place];
                x[place] = value;
            }
        }
        changed
    }

    /// Tiles of the start for L2: five along the shorter side, as many as fit along the other, centred.
    pub(crate) fn tiles(&self) -> Vec<Window> {
        let [_, height, width] = self.shape;
        let side = (height.min(width) / 5).max(1);
        let (down, across) = (height / side, width / side);
        let (top, left) = ((height - down * side) / 2, (width - across * side) / 2);
        let tile = |at: usize| Window {
            top: top + at / across * side,
            left: left + at % across * side,
            side,
        };
        (0..down * across).map(tile).collect()
    }

    /// Start of the search for L2: a pattern in each tile. `turned`: `[tiles]`, `signs`: `[tiles, channels]`.
    pub(crate) fn tiled(&self, turned: &[bool], signs: &[f32]) -> Vec<f32> {
        let mut delta = vec![0.0; self.original.len()];
        let tiles = self.tiles();
        let channels = self.shape[0];
        let pattern = pattern(tiles[0].side);
        for (at, tile) in tiles.iter().enumerate() {
            let signs = &signs[at * channels..][..channels];
            draw(&mut delta, *tile, self.shape, &pattern, turned[at], signs);
        }
        self.stretched(&delta)
    }

    /// Change of the search for L2 (the paper's algorithm 3): zeroes the second window and adds a pattern to the first. Per
    /// channel, the first window's new L2 norm combines both windows' old norms and a share of the unused budget ε.
    pub(crate) fn reshape(
        &self,
        best: &[f32],
        [first, second]: [Window; 2],
        pattern: &[f32],
        turned: bool,
        signs: &[f32],
    ) -> Vec<f32> {
        let [channels, height, width] = self.shape;
        let difference = best.iter().zip(self.original).map(|(a, b)| a - b);
        let mut delta: Vec<f32> = difference.collect();
        let before = delta.clone();
        let mut lengths = vec![0.0; channels];
        for (channel, row) in first.rows(self.shape) {
            lengths[channel] += squares(&delta[row]);
        }
        for window in [second, first] {
            let rows = window.rows(self.shape);
            rows.for_each(|(_, row)| delta[row].fill(0.0));
        }
        let of_channels = |delta: &[f32]| -> Vec<f64> {
            let each = delta.chunks(height * width);
            each.map(squares).collect()
        };
        let (all, outside) = (of_channels(&before), of_channels(&delta));
        let left = (self.radius * self.radius - all.iter().sum::<f64>()).max(0.0);

        for (channel, row) in first.rows(self.shape) {
            let length = 1e-12 + lengths[channel].sqrt();
            let values = delta[row.clone()].iter_mut().zip(&before[row]);
            values.for_each(|(value, before)| *value = (f64::from(*before) / length) as f32);
        }
        draw(&mut delta, first, self.shape, pattern, turned, signs);
        lengths.fill(0.0);
        for (channel, row) in first.rows(self.shape) {
            lengths[channel] += squares(&delta[row]);
        }
        for (channel, row) in first.rows(self.shape) {
            let windows = (all[channel] - outside[channel]).max(0.0);
            let target = (left / channels as f64 + windows).sqrt();
            let scale = target / (1e-12 + lengths[channel].sqrt());
            let values = delta[row].iter_mut();
            values.for_each(|value| *value = (f64::from(*value) * scale) as f32);
        }
        self.stretched(&delta)
    }

    /// Moves the image along `delta` by ε in L2, then clamps it into [0, 1].
    fn stretched(&self, delta: &[f32]) -> Vec<f32> {
        let scale = (self.radius / (squares(delta).sqrt() + 1e-12)) as f32;
        let moved = self.original.iter().zip(delta);
        moved
            .map(|(x, d)| (x + d * scale).clamp(0.0, 1.0))
            .collect()
    }
}

/// Adds a pattern to a window, by the sign of each channel; `turned` swaps the pattern's rows and columns.
fn draw(
    delta: &mut [f32],
    window: Window,
    shape: [usize; 3],
    pattern: &[f32],
    turned: bool,
    signs: &[f32],
) {
    let side = window.side;
    for (at, (channel, row)) in window.rows(shape).enumerate() {
        let i = at % side;
        for (j, value) in delta[row].iter_mut().enumerate() {
            let place = if turned { j * side + i } else { i * side + j };
            *value += signs[channel] * pattern[place];
        }
    }
}

/// Pattern of an L2 window (the paper's η), `[side, side]`, of length 1: a positive mound above a negative one.
///
/// A mound is a sum of concentric squares around its middle, the k-th of height 1 / k²; a value in ring r is in the squares
/// from r on.
pub(crate) fn pattern(side: usize) -> Vec<f32> {
    let mound = |height: usize| {
        let (middle, across) = (height / 2, side / 2);
        let rings = middle.max(across) + 1;
        let place = |at: usize| {
            let ring = (at / side)
                .abs_diff(middle)
                .max((at % side).abs_diff(across));
            (ring..rings)
                .map(|k| ((k + 1) as f64).powi(-2))
                .sum::<f64>()
        };
        let values: Vec<f64> = (0..height * side).map(place).collect();
        let length = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.into_iter().map(move |v| v / length)
    };
    let (above, below) = (mound(side / 2), mound(side - side / 2));
    // Both have length 1, but a single row has only one of them.
    let length = if side > 1 { 2f64.sqrt() } else { 1.0 };
    let values = above.chain(below.map(|v| -v));
    values.map(|v| (v / length) as f32).collect()
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()
}
