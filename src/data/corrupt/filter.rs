//! Filters of one channel for the corruptions: blurs, zooms, warps.

/// Channel of an image: values in [0, 1], row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plane {
    pub values: Vec<f32>,
    pub height: usize,
    pub width: usize,
}

/// Channels of an image that is being corrupted.
pub(super) type Planes = Vec<Plane>;

/// Extension of an image beyond its edge: `aaa|abc|ccc`, `cba|abc|cba`, `.cb|abc|ba.`.
#[derive(Clone, Copy)]
pub(super) enum Border {
    Edge,
    Mirror,
    MirrorInside,
}

impl Border {
    /// Index of the value at any position on an axis of length `len`.
    fn fold(self, at: isize, len: usize) -> usize {
        let len = len as isize;
        let folded = match self {
            Self::Edge => at.clamp(0, len - 1),
            Self::Mirror => {
                let at = at.rem_euclid(2 * len);
                at.min(2 * len - 1 - at)
            }
            Self::MirrorInside => {
                let period = (2 * len - 2).max(1);
                let at = at.rem_euclid(period);
                at.min(period - at).min(len - 1)
            }
        };
        folded as usize
    }
}

/// Converts a value into a byte, rounding down. A rounding error of f32 does not lower the result.
pub(super) fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0 + 1e-3) as u8
}

/// Weights of a Gaussian from `-reach` to `reach`, with sum 1.
pub(super) fn gaussian(sigma: f32, reach: usize) -> Vec<f32> {
    let reach = reach as i32;
    let weight = |i: i32| {
        if sigma > 0.0 {
            (-0.5 * (f64::from(i) / f64::from(sigma)).powi(2)).exp()
        } else {
            f64::from(u8::from(i == 0))
        }
    };
    let total: f64 = (-reach..=reach).map(weight).sum();
    (-reach..=reach)
        .map(|i| (weight(i) / total) as f32)
        .collect()
}

/// Disc of uniform weight with an edge that is softened by a Gaussian. Both lengths are in pixels.
pub(super) fn disc(radius: f32, sigma: f32, soften: usize) -> Plane {
    // Wide enough that the softening does not reach the border.
    let middle = radius.floor() as isize + 2 * soften as isize;
    let side = 2 * middle as usize + 1;
    let inside = |y: usize, x: usize| {
        let (y, x) = (y as isize - middle, x as isize - middle);
        f32::from(u8::from((y * y + x * x) as f32 <= radius * radius))
    };
    let mut disc = Plane::from_fn(side, side, inside);
    let total: f32 = disc.values.iter().sum();
    disc.values.iter_mut().for_each(|value| *value /= total);
    disc.blurred(&gaussian(sigma, soften), Border::MirrorInside)
}

impl Plane {
    pub fn from_fn(height: usize, width: usize, value: impl FnMut(usize, usize) -> f32) -> Self {
        let mut value = value;
        let mut values = Vec::with_capacity(height * width);
        for y in 0..height {
            values.extend((0..width).map(|x| value(y, x)));
        }
        Self {
            values,
            height,
            width,
        }
    }

    pub fn at(&self, y: isize, x: isize, border: Border) -> f32 {
        self.values[border.fold(y, self.height) * self.width + border.fold(x, self.width)]
    }

    /// Value between four pixels, by bilinear interpolation.
    pub fn sample(&self, y: f64, x: f64, border: Border) -> f32 {
        let (top, left) = (y.floor(), x.floor());
        let (down, right) = ((y - top) as f32, (x - left) as f32);
        let (top, left) = (top as isize, left as isize);
        let row = |y| {
            let from = self.at(y, left, border);
            from + (self.at(y, left + 1, border) - from) * right
        };
        let (above, below) = (row(top), row(top + 1));
        above + (below - above) * down
    }

    /// Blurs along both axes with these weights; the middle weight is the pixel's own.
    pub fn blurred(&self, weights: &[f32], border: Border) -> Self {
        let reach = (weights.len() / 2) as isize;
        let sum = |plane: &Self, y: usize, x: usize, down: isize, right: isize| {
            let value = |(i, weight): (usize, &f32)| {
                let step = i as isize - reach;
                let (y, x) = (y as isize + step * down, x as isize + step * right);
                weight * plane.at(y, x, border)
            };
            weights.iter().enumerate().map(value).sum()
        };
        let across = Self::from_fn(self.height, self.width, |y, x| sum(self, y, x, 0, 1));
        Self::from_fn(self.height, self.width, |y, x| sum(&across, y, x, 1, 0))
    }

    /// Cross-correlation with a kernel: the weighted sum of the values around each pixel.
    pub fn correlated(&self, kernel: &Self) -> Self {
        let (up, left) = (kernel.height as isize / 2, kernel.width as isize / 2);
        let heavy: Vec<(isize, isize, f32)> = (0..kernel.values.len())
            .filter(|&i| kernel.values[i] != 0.0)
            .map(|i| {
                let (y, x) = ((i / kernel.width) as isize, (i % kernel.width) as isize);
                (y - up, x - left, kernel.values[i])
            })
            .collect();
        Self::from_fn(self.height, self.width, |y, x| {
            let value = |&(down, right, weight): &(isize, isize, f32)| {
                weight * self.at(y as isize + down, x as isize + right, Border::MirrorInside)
            };
            heavy.iter().map(value).sum()
        })
    }

    /// Motion blur to one side, in steps of whole pixels: the weights are half a Gaussian over `2 ·
    /// radius + 1` pixels.
    pub fn smeared(&self, radius: usize, sigma: f32, degrees: f64) -> Self {
        let weights = &gaussian(sigma, 2 * radius)[2 * radius..];
        let total: f32 = weights.iter().sum();
        let (sin, cos) = degrees.to_radians().sin_cos();
        // Halves are rounded down, as in the implementations that this is compared with.
        let round = |value: f64| (value - 0.5).ceil() as isize;
        let steps = (0..weights.len()).map(|i| (round(i as f64 * sin), round(i as f64 * cos)));
        let steps: Vec<(isize, isize)> = steps.collect();
        Self::from_fn(self.height, self.width, |y, x| {
            let value = |(weight, &(down, right)): (&f32, &(isize, isize))| {
                weight * self.at(y as isize + down, x as isize + right, Border::Edge)
            };
            weights.iter().zip(&steps).map(value).sum::<f32>() / total
        })
    }

    /// Zooms into the centre by `factor` (1 or more); the size stays the same.
    pub fn zoomed(&self, factor: f64) -> Self {
        // For one axis: the first visible pixel, and the distance between output pixels.
        let axis = |len: usize| {
            let seen = (len as f64 / factor).ceil() as usize;
            let grown = ((seen as f64 * factor).round_ties_even() as usize).max(len);
            let (first, trim) = ((len - seen) / 2, (grown - len) / 2);
            let step = match grown {
                0 | 1 => 0.0,
                _ => (seen - 1) as f64 / (grown - 1) as f64,
            };
            move |at: usize| first as f64 + (at + trim) as f64 * step
        };
        let (down, across) = (axis(self.height), axis(self.width));
        Self::from_fn(self.height, self.width, |y, x| {
            self.sample(down(y), across(x), Border::Edge)
        })
    }

    /// Resizes by box filtering: each pixel is the mean of those whose centres it covers, or the
    /// nearest one.
    pub fn boxed(&self, height: usize, width: usize) -> Self {
        let axis = |from: usize, to: usize| {
            let scale = from as f64 / to as f64;
            let support = 0.5 * scale.max(1.0);
            move |at: usize| {
                let centre = (at as f64 + 0.5) * scale;
                let first = (centre - support + 0.5).floor().max(0.0) as usize;
                let end = (((centre + support + 0.5).floor()) as usize).min(from);
                let covered = move |i: &usize| {
                    let off = (*i as f64 + 0.5 - centre) / (2.0 * support);
                    off > -0.5 && off <= 0.5
                };
                (first..end).filter(covered).collect::<Vec<usize>>()
            }
        };
        let (down, across) = (axis(self.height, height), axis(self.width, width));
        let columns: Vec<Vec<usize>> = (0..width).map(across).collect();
        let rows: Vec<Vec<usize>> = (0..height).map(down).collect();
        Self::from_fn(height, width, |y, x| {
            let (rows, columns) = (&rows[y], &columns[x]);
            let row = |&y: &usize| {
                let values = columns.iter().map(|&x| self.values[y * self.width + x]);
                values.sum::<f32>()
            };
            let total: f32 = rows.iter().map(row).sum();
            total / (rows.len() * columns.len()) as f32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Plane {
        Plane {
            values: values.to_vec(),
            height: 1,
            width: values.len(),
        }
    }

    #[test]
    fn borders_fold_as_their_pictures_say() {
        let seen = |border: Border, len: usize| -> Vec<usize> {
            (-4..7).map(|at| border.fold(at, len)).collect()
        };
        assert_eq!(seen(Border::Edge, 3), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]);
        assert_eq!(seen(Border::Mirror, 3), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert_eq!(
            seen(Border::MirrorInside, 3),
            [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
        );
        for border in [Border::Edge, Border::Mirror, Border::MirrorInside] {
            assert_eq!(seen(border, 1), [0; 11]);
        }
    }

    #[test]
    fn blurs_keep_a_constant_and_zooms_keep_the_middle() {
        let flat = Plane::from_fn(7, 9, |_, _| 0.25);
        let near = |plane: &Plane| plane.values.iter().all(|v| (v - 0.25).abs() < 1e-6);
        assert!(near(&flat.blurred(&gaussian(1.3, 5), Border::Mirror)));
        assert!(near(&flat.correlated(&disc(1.5, 0.1, 1))));
        assert!(near(&flat.smeared(6, 2.0, 30.0)));
        assert!(near(&flat.zoomed(1.3)) && near(&flat.boxed(3, 4)));
        let ramp = row(&[0.0, 0.1, 0.2, 0.3, 0.4]);
        assert_eq!(ramp.zoomed(1.0), ramp);
        // Three of five pixels are visible, stretched to six; none is cut off at the start.
        let zoomed = ramp.zoomed(2.0).values;
        let expected = [0.1, 0.14, 0.18, 0.22, 0.26];
        for (found, expected) in zoomed.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{zoomed:?}");
        }
        assert_eq!(row(&[0.0, 1.0, 0.5, 0.0]).boxed(1, 2).values, [0.5, 0.25]);
    }

    #[test]
    fn a_smear_goes_to_one_side() {
        let mut point = row(&[0.0; 9]);
        point.values[4] = 1.0;
        let smeared = point.smeared(1, 1.0, 0.0).values;
        let total = 1.0 + (-0.5f32).exp() + (-2.0f32).exp();
        let expected = [
            (-2.0f32).exp() / total,
            (-0.5f32).exp() / total,
            1.0 / total,
        ];
        for (found, expected) in smeared[2..5].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{smeared:?}");
        }
        assert_eq!(
            (&smeared[..2], &smeared[5..]),
            (&[0.0; 2][..], &[0.0; 4][..])
        );
    }
}
