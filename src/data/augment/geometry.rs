//! Crops, resizing and flips of one image, with given parameters.
//!
//! Images are f32 planes `[channels, height, width]` with values in [0, 1]. The results are those
//! of torchvision's transforms on float tensors.

/// Rectangle in an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Window {
    /// Whether the window is not empty and lies inside an image of this size.
    pub fn fits(&self, height: usize, width: usize) -> bool {
        let inside =
            |first: usize, len: usize, all: usize| len > 0 && first <= all && len <= all - first;
        inside(self.top, self.height, height) && inside(self.left, self.width, width)
    }
}

/// Crops `window` out of an image and resizes it to `size` (height, width): bilinear, with
/// antialiasing if it shrinks.
///
/// # Shapes
/// Input: `[channels, height, width]` = `shape`. Output: `[channels, size[0], size[1]]`.
///
/// # Panics
/// If the window does not fit into the image ([`Window::fits`]), the image does not have its shape,
/// or a size is 0.
pub fn resized_crop(
    image: &[f32],
    shape: [usize; 3],
    window: Window,
    size: [usize; 2],
) -> Vec<f32> {
    let mut output = vec![0.0; shape[0] * size[0] * size[1]];
    Resizer::default().run(image, shape, window, size, &mut output);
    output
}

/// Buffers of [`resized_crop`], reused from image to image.
#[derive(Default)]
pub(super) struct Resizer {
    across: Taps,
    down: Taps,
    /// Rows of the window at their new width.
    rows: Vec<f32>,
}

impl Resizer {
    /// Writes the result of [`resized_crop`] into `output`.
    pub(super) fn run(
        &mut self,
        image: &[f32],
        [channels, height, width]: [usize; 3],
        window: Window,
        size: [usize; 2],
        output: &mut [f32],
    ) {
        assert_eq!(image.len(), channels * height * width, "image and shape");
        assert!(window.fits(height, width), "{window:?} leaves the image");
        self.across.set(window.width, size[1]);
        self.down.set(window.height, size[0]);
        self.rows.resize(window.height * size[1], 0.0);
        let planes = image.chunks_exact(height * width);
        for (plane, output) in planes.zip(output.chunks_exact_mut(size[0] * size[1])) {
            let lines = plane.chunks_exact(width).skip(window.top);
            for (line, row) in lines.zip(self.rows.chunks_exact_mut(size[1])) {
                let line = &line[window.left..][..window.width];
                for (value, (first, weights)) in row.iter_mut().zip(self.across.iter()) {
                    let near = &line[first..][..weights.len()];
                    *value = near.iter().zip(weights).map(|(v, w)| v * w).sum();
                }
            }
            for (row, (first, weights)) in output.chunks_exact_mut(size[1]).zip(self.down.iter()) {
                row.fill(0.0);
                let near = self.rows.chunks_exact(size[1]).skip(first);
                for (line, &weight) in near.zip(weights) {
                    for (value, v) in row.iter_mut().zip(line) {
                        *value += weight * v;
                    }
                }
            }
        }
    }
}

/// Interpolation weights of one axis: for each output position the first input position and the
/// weights from there on.
#[derive(Default)]
struct Taps {
    /// First input position, and end of the weights in `weights`, for each output position.
    spans: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Taps {
    /// Computes the weights for a triangle kernel as wide as an input pixel, or as an output pixel
    /// if that is larger. Pixel `i` covers `[i, i + 1]`, with its centre at `i + 0.5`
    /// ("align_corners = false").
    fn set(&mut self, input: usize, output: usize) {
        self.spans.clear();
        self.weights.clear();
        let scale = input as f64 / output as f64;
        let reach = scale.max(1.0);
        for i in 0..output {
            let centre = scale * (i as f64 + 0.5);
            // Inputs whose centre may lie within reach. Casts of negative numbers give 0.
            let first = (centre - reach + 0.5) as usize;
            let end = ((centre + reach + 0.5) as usize).min(input);
            let weight = |j: usize| (1.0 - (j as f64 + 0.5 - centre).abs() / reach).max(0.0);
            let total: f64 = (first..end).map(weight).sum();
            self.weights
                .extend((first..end).map(|j| (weight(j) / total) as f32));
            self.spans.push((first, self.weights.len()));
        }
    }

    /// First input position and weights of each output position.
    fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let mut start = 0;
        self.spans.iter().map(move |&(first, end)| {
            let weights = &self.weights[start..end];
            start = end;
            (first, weights)
        })
    }
}

/// Flips an image with rows of `width` pixels from left to right.
pub fn hflip(image: &mut [f32], width: usize) {
    image.chunks_exact_mut(width).for_each(<[f32]>::reverse);
}

/// Crops `window` out of an image with `padding` zeros on each side. The coordinates of the window
/// count from the padded corner; beyond the padding there are zeros too.
///
/// # Shapes
/// Input: `[channels, height, width]` = `shape`. Output: `[channels, window.height, window.width]`.
pub fn pad_crop(image: &[f32], shape: [usize; 3], padding: usize, window: Window) -> Vec<f32> {
    let mut output = vec![0.0; shape[0] * window.height * window.width];
    pad_crop_into(image, shape, padding, window, &mut output);
    output
}

/// Writes the result of [`pad_crop`] into `output`, which must be zero.
pub(super) fn pad_crop_into(
    image: &[f32],
    [_, height, width]: [usize; 3],
    padding: usize,
    window: Window,
    output: &mut [f32],
) {
    // Columns of the output that show the image, and the image column of the first.
    let begin = padding.saturating_sub(window.left);
    let from = window.left.saturating_sub(padding);
    let shown = window
        .width
        .saturating_sub(begin)
        .min(width.saturating_sub(from));
    if shown == 0 {
        return;
    }
    let planes = image.chunks_exact(height * width);
    for (plane, output) in planes.zip(output.chunks_exact_mut(window.height * window.width)) {
        for (y, row) in output.chunks_exact_mut(window.width).enumerate() {
            // None above the image (`checked_sub`) and below it (`nth`).
            let source = (y + window.top).checked_sub(padding);
            if let Some(line) = source.and_then(|y| plane.chunks_exact(width).nth(y)) {
                row[begin..][..shown].copy_from_slice(&line[from..][..shown]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colourful() -> Vec<f32> {
        (0..3 * 4 * 5)
            .map(|i| (i * 37 % 60) as f32 / 59.0)
            .collect()
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f - e).abs() < 1e-6, "{i}: {f} against {e}");
        }
    }

    fn window(top: usize, left: usize, height: usize, width: usize) -> Window {
        Window {
            top,
            left,
            height,
            width,
        }
    }

    #[test]
    fn a_crop_at_its_own_size_is_exact() {
        let image = colourful();
        let whole = resized_crop(&image, [3, 4, 5], window(0, 0, 4, 5), [4, 5]);
        assert_eq!(whole, image);
        let pixel = resized_crop(&image, [3, 4, 5], window(2, 3, 1, 1), [1, 1]);
        assert_eq!(pixel, [image[13], image[33], image[53]]);
    }

    #[test]
    fn resizing_up_interpolates_and_down_averages() {
        let row = [9.0, 0.0, 1.0, 9.0];
        let up = resized_crop(&row, [1, 1, 4], window(0, 1, 1, 2), [1, 4]);
        assert_close(&up, &[0.0, 0.25, 0.75, 1.0]);
        // Triangles of reach 2 around 1 and 3: weights .75, .75, .25 over their sum, and mirrored.
        let row = [0.7, 0.0, 0.0, 1.4];
        let down = resized_crop(&row, [1, 4, 1], window(0, 0, 4, 1), [2, 1]);
        assert_close(&down, &[0.3, 0.6]);
    }

    #[test]
    fn windows_know_where_they_fit() {
        assert!(window(1, 2, 3, 3).fits(4, 5));
        assert!(!window(2, 2, 3, 3).fits(4, 5));
        assert!(!window(0, usize::MAX, 1, 1).fits(4, 5));
        assert!(!window(0, 0, 0, 1).fits(4, 5));
    }

    #[test]
    fn flipping_twice_is_the_identity() {
        let mut image = colourful();
        hflip(&mut image, 5);
        assert_eq!(image[..5], [4, 3, 2, 1, 0].map(|i| colourful()[i]));
        hflip(&mut image, 5);
        assert_eq!(image, colourful());
    }

    #[test]
    fn padding_is_zero_and_the_rest_stays_in_place() {
        let image = [1.0, 2.0, 3.0, 4.0];
        let crop = |top, left| pad_crop(&image, [1, 2, 2], 1, window(top, left, 2, 2));
        assert_eq!(crop(0, 0), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(crop(1, 1), image);
        assert_eq!(crop(2, 1), [3.0, 4.0, 0.0, 0.0]);
        assert_eq!(crop(1, 2), [2.0, 0.0, 4.0, 0.0]);
        assert_eq!(crop(7, 9), [0.0; 4]);
        let wide = pad_crop(&image, [1, 2, 2], 1, window(0, 0, 3, 4));
        assert_eq!(wide[4..], [0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0]);
    }
}
