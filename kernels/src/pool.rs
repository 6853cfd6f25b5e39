//! Pooling: the mean over all pixels, and the maxima of 3 × 3 pixels.

use rayon::prelude::*;

use crate::shape::Activation;

fn check(shape: &Activation, values: &[f32]) {
    assert_eq!(
        values.len(),
        shape.len(),
        "the values do not have the length of their shape: {shape:?}"
    );
}

/// The mean over the pixels: `[height, width, batch, channels]` to `[batch, channels]`.
///
/// # Panics
/// If `x` does not have `shape`'s length.
pub fn mean_pool(shape: &Activation, x: &[f32]) -> Vec<f32> {
    check(shape, x);
    let row = shape.batch * shape.channels;
    let mut sum = vec![0.0; row];
    for pixel in x.chunks_exact(row.max(1)) {
        for (sum, value) in sum.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
    let scale = 1.0 / (shape.height * shape.width) as f32;
    sum.iter_mut().for_each(|sum| *sum *= scale);
    sum
}

/// The gradient of [`mean_pool`]'s input of shape `shape`.
///
/// # Panics
/// If `dy` is not `[batch, channels]`.
pub fn mean_pool_backward(shape: &Activation, dy: &[f32]) -> Vec<f32> {
    assert_eq!(
        dy.len(),
        shape.batch * shape.channels,
        "the gradient is not [batch, channels] of {shape:?}"
    );
    let pixels = shape.height * shape.width;
    let scale = 1.0 / pixels as f32;
    let pixel: Vec<f32> = dy.iter().map(|value| value * scale).collect();
    pixel.repeat(pixels)
}

/// Height and width of the windows whose maxima are taken.
const WINDOW: usize = 3;
/// Distance of two windows.
const STRIDE: usize = 2;

/// The input rows, or columns, under a window, each with its place in the window; `length` is the number of
/// them in the input, which is padded by one on each side.
fn under(window: usize, length: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let place = move |at: usize| {
        (window * STRIDE + at)
            .checked_sub(1)
            .map(|pixel| (pixel, at))
    };
    (0..WINDOW)
        .filter_map(place)
        .filter(move |(pixel, _)| *pixel < length)
}

fn pooled(shape: &Activation) -> Activation {
    Activation {
        height: shape.height.div_ceil(STRIDE),
        width: shape.width.div_ceil(STRIDE),
        ..*shape
    }
}

/// The maxima of 3 × 3 pixels, two apart, padded by one: `[height, width, batch, channels]` to
/// `[⌈height / 2⌉, ⌈width / 2⌉, batch, channels]`. A NaN is larger than any number.
///
/// # Panics
/// If `x` does not have `shape`'s length.
pub fn max_pool(shape: &Activation, x: &[f32]) -> Vec<f32> {
    check(shape, x);
    let (out, row) = (pooled(shape), shape.batch * shape.channels);
    let mut y = vec![f32::NEG_INFINITY; out.len()];
    let rows = y.par_chunks_mut((out.width * row).max(1)).enumerate();
    rows.for_each(|(window_row, y)| {
        for (pixel_row, _) in under(window_row, shape.height) {
            for (window, y) in y.chunks_exact_mut(row).enumerate() {
                for (pixel, _) in under(window, shape.width) {
                    let x = &x[(pixel_row * shape.width + pixel) * row..][..row];
                    for (y, x) in y.iter_mut().zip(x) {
                        // A maximum that is NaN stays: no comparison with it is true.
                        *y = if *x <= *y || y.is_nan() { *y } else { *x };
                    }
                }
            }
        }
    });
    y
}

/// The gradient of [`max_pool`]'s input `x` of shape `shape`, whose output was `y`: that of each maximum goes to the
/// first of the pixels that have its value.
///
/// # Panics
/// If a slice does not have the length of its shape.
pub fn max_pool_backward(shape: &Activation, x: &[f32], y: &[f32], dy: &[f32]) -> Vec<f32> {
    let (out, row) = (pooled(shape), shape.batch * shape.channels);
    check(shape, x);
    check(&out, y);
    check(&out, dy);
    let mut dx = vec![0.0; x.len()];
    if dx.is_empty() {
        return dx;
    }
    // Where in its window each maximum is, found once for the up to two input rows that ask.
    let mut places = vec![u8::MAX; y.len()];
    let rows = places.par_chunks_mut(out.width * row).enumerate();
    rows.for_each(|(window_row, places)| {
        for (window, places) in places.chunks_exact_mut(row).enumerate() {
            let y = &y[(window_row * out.width + window) * row..][..row];
            // The last first: an earlier one replaces it.
            for (pixel_row, down) in under(window_row, shape.height).rev() {
                for (pixel, across) in under(window, shape.width).rev() {
                    let x = &x[(pixel_row * shape.width + pixel) * row..][..row];
                    let place = place(down, across);
                    for ((own, x), y) in places.iter_mut().zip(x).zip(y) {
                        *own = if x == y { place } else { *own };
                    }
                }
            }
        }
    });
    let rows = dx.par_chunks_mut(shape.width * row).enumerate();
    rows.for_each(|(pixel_row, dx)| {
        // A row at the edge of two windows is in both.
        let above = pixel_row / STRIDE..=pixel_row.div_ceil(STRIDE);
        for window_row in above.filter(|window_row| *window_row < out.height) {
            let inside = under(window_row, shape.height).find(|(row, _)| *row == pixel_row);
            let Some((_, down)) = inside else { continue };
            for window in 0..out.width {
                let at = (window_row * out.width + window) * row;
                let (places, dy) = (&places[at..][..row], &dy[at..][..row]);
                for (pixel, across) in under(window, shape.width) {
                    let place = place(down, across);
                    let dx = &mut dx[pixel * row..][..row];
                    for ((dx, own), dy) in dx.iter_mut().zip(places).zip(dy) {
                        *dx += if *own == place { *dy } else { 0.0 };
                    }
                }
            }
        }
    });
    dx
}

/// The number of a place in a window.
fn place(down: usize, across: usize) -> u8 {
    (down * WINDOW + across) as u8
}
