//! The high-frequency view: an image without its low frequencies.
//!
//! Source: Wang, Wu, Huang, Xing, "High-frequency component helps explain the generalization of
//! convolutional neural networks" (CVPR 2020); a view of contrastive pretraining in AdvCL (Fan et
//! al., NeurIPS 2021, section 4).

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use rustfft::{Fft, FftPlanner, num_complex::Complex};

use crate::data::Batch;

/// High-pass filter for images of one size: drops every frequency nearer than a radius to the
/// spectrum's centre.
///
/// With the zero frequency shifted to index `n / 2` (rounded down), the distance of index `i` along
/// an axis is `i - n / 2` (not rounded), as in the released code. So for odd `n` the dropped disc
/// is off the centre by half a frequency; the view is the real part of the filtered image.
#[derive(Clone)]
pub struct HighFrequency {
    height: usize,
    width: usize,
    /// Factor of each frequency, `[width, height]`, including the 1 / (height · width) of the
    /// inverse transform.
    gain: Vec<f32>,
    across: Transform,
    down: Transform,
}

/// Forward and inverse transform along one axis.
#[derive(Clone)]
struct Transform {
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

/// Buffers that a thread uses again for its next image.
#[derive(Default)]
struct Scratch {
    rows: Vec<Complex<f32>>,
    columns: Vec<Complex<f32>>,
    fft: Vec<Complex<f32>>,
}

impl HighFrequency {
    /// A filter for `[height, width]` images; `radius` in units of the spectrum's grid (AdvCL: 8
    /// for 32 × 32). A radius of 0 keeps everything.
    pub fn new(height: usize, width: usize, radius: f32) -> Self {
        let mut planner = FftPlanner::new();
        let mut plan = |length| Transform {
            forward: planner.plan_fft_forward(length),
            inverse: planner.plan_fft_inverse(length),
        };
        Self {
            height,
            width,
            gain: gain(height, width, f64::from(radius)),
            across: plan(width),
            down: plan(height),
        }
    }

    /// Whether the filter drops every frequency: the radius exceeds the farthest one's distance.
    pub fn drops_everything(&self) -> bool {
        self.gain.iter().all(|&gain| gain == 0.0)
    }

    /// The largest radius that keeps a frequency of `[height, width]` images: the distance of the
    /// farthest one, in a corner of the spectrum.
    pub fn largest_radius(height: usize, width: usize) -> f64 {
        (height as f64 / 2.0).hypot(width as f64 / 2.0)
    }

    /// The high-frequency view of each image and channel. Not clamped: the values lie around 0.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`, in and out.
    ///
    /// # Panics
    /// If the images have another size than the filter.
    pub fn apply(&self, batch: &Batch) -> Batch {
        self.apply_at(0..batch.shape[0], batch)
    }

    /// Makes the views at the places `own` of the batch alone, with the bits that [`HighFrequency::apply`] gives them; the other rows are
    /// of no meaning. The images at the places [`HighFrequency::needed`] must be there.
    ///
    /// # Panics
    /// If the images have another size than the filter.
    pub fn apply_at(&self, own: Range<usize>, batch: &Batch) -> Batch {
        assert_eq!(
            batch.shape[2..],
            [self.height, self.width],
            "images of another size than the filter's"
        );
        let plane = self.gain.len().max(1);
        let pair = 2 * plane;
        // Pairs are the same whoever makes them, so that the views have the same bits.
        let values = |images: usize| images * batch.shape[1] * plane;
        let end = values(own.end).next_multiple_of(pair).min(batch.data.len());
        let own = values(own.start) / pair * pair..end;
        let mut data = vec![0.0; batch.data.len()];
        data[own.clone()].copy_from_slice(&batch.data[own.clone()]);
        // One complex transform filters two real planes, as real and imaginary part: the gain is
        // real and even, so it acts on both separately.
        data[own]
            .par_chunks_mut(pair)
            .with_min_len(8)
            .for_each_init(Scratch::default, |scratch, planes| {
                self.filter(planes, scratch)
            });
        Batch {
            data,
            shape: batch.shape,
        }
    }

    /// Places of a batch `[batch, channels, height, width]` whose images [`HighFrequency::apply_at`] reads for those at `own`. Planes are filtered in
    /// pairs, which of images with an odd number of channels may be from two of them.
    pub fn needed(own: Range<usize>, [batch, channels]: [usize; 2]) -> Range<usize> {
        match channels % 2 {
            0 => own,
            _ => own.start / 2 * 2..own.end.next_multiple_of(2).min(batch),
        }
    }

    /// Filters one or two planes in place.
    fn filter(&self, planes: &mut [f32], scratch: &mut Scratch) {
        let (first, second) = planes.split_at_mut(self.gain.len());
        let Scratch { rows, columns, fft } = scratch;
        rows.clear();
        rows.extend(first.iter().map(|&value| Complex::new(value, 0.0)));
        for (packed, &value) in rows.iter_mut().zip(second.iter()) {
            packed.im = value;
        }
        columns.resize(rows.len(), Complex::default());

        run(&self.across.forward, rows, fft);
        transpose(rows, columns, self.height, self.width);
        run(&self.down.forward, columns, fft);
        for (value, &gain) in columns.iter_mut().zip(&self.gain) {
            *value *= gain;
        }
        run(&self.down.inverse, columns, fft);
        transpose(columns, rows, self.width, self.height);
        run(&self.across.inverse, rows, fft);

        for (value, packed) in first.iter_mut().zip(rows.iter()) {
            *value = packed.re;
        }
        for (value, packed) in second.iter_mut().zip(rows.iter()) {
            *value = packed.im;
        }
    }
}

/// Real part of "keep where the distance is at least `radius`", as one even factor for each
/// frequency.
///
/// An image is real, so X(-k) is the conjugate of X(k), and the real part of the filtered image has
/// the spectrum (M(k) + M(-k)) / 2 · X(k). For even sizes M is even and this is M itself.
fn gain(height: usize, width: usize, radius: f64) -> Vec<f32> {
    // The shift moves frequency k to index (k + n / 2) mod n.
    let distance = |k: usize, n: usize| ((k + n / 2) % n) as f64 - n as f64 / 2.0;
    let kept = |x: usize, y: usize| {
        let far = distance(y, height).hypot(distance(x, width)) >= radius;
        f32::from(u8::from(far))
    };
    let scale = 0.5 / (height * width) as f32;
    (0..width)
        .flat_map(|x| (0..height).map(move |y| (x, y)))
        .map(|(x, y)| scale * (kept(x, y) + kept((width - x) % width, (height - y) % height)))
        .collect()
}

/// Transforms every row of `values` in place.
fn run(fft: &Arc<dyn Fft<f32>>, values: &mut [Complex<f32>], scratch: &mut Vec<Complex<f32>>) {
    let needed = fft.get_inplace_scratch_len();
    if scratch.len() < needed {
        scratch.resize(needed, Complex::default());
    }
    fft.process_with_scratch(values, scratch);
}

/// Transposes `[height, width]` into `[width, height]`.
fn transpose(from: &[Complex<f32>], to: &mut [Complex<f32>], height: usize, width: usize) {
    for (x, column) in to.chunks_exact_mut(height).enumerate() {
        for (value, row) in column.iter_mut().zip(from.chunks_exact(width)) {
            *value = row[x];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn batch(shape: [usize; 4], seed: usize) -> Batch {
        let len = shape.iter().product();
        let data = (0..len).map(|i| ((i * i * 7 + i * 13 + seed) % 101) as f32 / 100.0);
        Batch {
            data: data.collect(),
            shape,
        }
    }

    fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len());
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f - e).abs() <= tolerance, "{i}: {f} against {e}");
        }
    }

    /// The definition, term by term, in f64: DFT at every shifted index, mask, real part of the
    /// inverse.
    fn naive(plane: &[f32], height: usize, width: usize, radius: f64) -> Vec<f32> {
        let mut output = vec![0.0; plane.len()];
        for (row, column) in (0..height).flat_map(|r| (0..width).map(move |c| (r, c))) {
            let di = row as f64 - height as f64 / 2.0;
            let dj = column as f64 - width as f64 / 2.0;
            if (di * di + dj * dj).sqrt() < radius {
                continue;
            }
            let ky = row as f64 - (height / 2) as f64;
            let kx = column as f64 - (width / 2) as f64;
            let angle = |p: usize| {
                TAU * (ky * (p / width) as f64 / height as f64
                    + kx * (p % width) as f64 / width as f64)
            };
            let (mut re, mut im) = (0.0, 0.0);
            for (p, &value) in plane.iter().enumerate() {
                re += f64::from(value) * angle(p).cos();
                im -= f64::from(value) * angle(p).sin();
            }
            for (p, value) in output.iter_mut().enumerate() {
                *value += (re * angle(p).cos() - im * angle(p).sin()) / plane.len() as f64;
            }
        }
        output.into_iter().map(|value| value as f32).collect()
    }

    #[test]
    fn agrees_with_the_definition_at_even_odd_and_oblong_sizes() {
        for (height, width, radius) in [
            (8, 8, 3.0),
            (7, 7, 2.0),
            (7, 7, 2.6),
            (6, 9, 2.5),
            (5, 12, 3.1),
            (1, 5, 1.0),
        ] {
            // Three planes: a packed pair and a last one alone.
            let images = batch([1, 3, height, width], height);
            let found = HighFrequency::new(height, width, radius).apply(&images);
            assert_eq!(found.shape, images.shape);
            let planes = images.data.chunks(height * width);
            let expected: Vec<f32> = planes
                .flat_map(|plane| naive(plane, height, width, f64::from(radius)))
                .collect();
            assert_close(&found.data, &expected, 2e-6);
        }
    }

    #[test]
    fn a_part_of_a_batch_has_the_same_bits_as_in_the_whole() {
        let filter = HighFrequency::new(7, 6, 2.0);
        for channels in 1..=3 {
            let images = batch([7, channels, 7, 6], channels);
            let size = channels * 7 * 6;
            let whole = filter.apply(&images).data;
            for own in [0..3, 3..5, 5..7, 1..2, 2..6, 6..7] {
                let needed = HighFrequency::needed(own.clone(), [7, channels]);
                let mut given = images.clone();
                given.data[..needed.start * size].fill(0.0);
                given.data[needed.end * size..].fill(0.0);
                let found = filter.apply_at(own.clone(), &given).data;
                let rows = own.start * size..own.end * size;
                assert!(
                    found[rows.clone()] == whole[rows],
                    "{own:?} of {channels} channels"
                );
            }
        }
    }

    #[test]
    fn a_constant_image_has_no_high_frequencies() {
        let mut images = batch([2, 3, 8, 10], 0);
        images.data.fill(0.7);
        let found = HighFrequency::new(8, 10, 1.0).apply(&images);
        assert_close(&found.data, &[0.0; 480], 1e-6);
    }

    #[test]
    fn radius_zero_is_the_identity() {
        let images = batch([3, 1, 9, 6], 4);
        let found = HighFrequency::new(9, 6, 0.0).apply(&images);
        assert_close(&found.data, &images.data, 1e-6);
    }

    #[test]
    fn is_linear() {
        let filter = HighFrequency::new(8, 7, 2.0);
        let (a, b) = (batch([2, 1, 8, 7], 1), batch([2, 1, 8, 7], 50));
        let combine = |a: &Batch, b: &Batch| Batch {
            data: (a.data.iter().zip(&b.data))
                .map(|(a, b)| 2.0 * a - 0.5 * b)
                .collect(),
            shape: a.shape,
        };
        let whole = filter.apply(&combine(&a, &b));
        let parts = combine(&filter.apply(&a), &filter.apply(&b));
        assert_close(&whole.data, &parts.data, 2e-6);
    }

    #[test]
    fn an_empty_batch_stays_empty() {
        let found = HighFrequency::new(4, 4, 1.0).apply(&batch([0, 3, 4, 4], 0));
        assert!(found.data.is_empty());
    }
}
