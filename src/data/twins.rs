//! Duplicates and near duplicates among images, by a perceptual hash and a small copy of each image.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;

use super::fit::{Fit, Interpolation, Picture};
use super::reading::Channels;

/// Side of the small copy in pixels.
const SIDE: usize = 16;
/// Bits in which the hashes of near duplicates differ at most. There is one more band than bits, so that
/// two such hashes agree in one band at least.
const MAX_BITS: u32 = 7;
/// Parts of a hash that candidates are looked up by.
const BANDS: u32 = MAX_BITS + 1;
/// Candidates of an image in each band. Images of one scene without end share a band; comparing each with all
/// others would take time that grows with the square of their number.
const MAX_CANDIDATES: usize = 400;
/// Largest mean difference of the small copies of near duplicates, as a share of their deviation.
const MAX_DIFFERENCE: f32 = 0.05;
/// Deviation in levels below which an image shows nothing that could be compared.
const FLAT: f32 = 4.0;

/// What is kept of an image to find its duplicates.
#[derive(Clone)]
pub(super) struct Print {
    /// Hash of size, channels and pixels.
    exact: u64,
    /// Whether each pixel of an 8 × 8 grid is darker than its right neighbour (dHash), bits in an order that mixes rows.
    hash: u64,
    small: [u8; SIDE * SIDE],
    deviation: f32,
}

impl Print {
    /// The print of a decoded image.
    pub(super) fn of(picture: &Picture) -> Self {
        let mut hasher = DefaultHasher::new();
        (picture.height, picture.width, picture.channels).hash(&mut hasher);
        picture.pixels.hash(&mut hasher);
        let stretched =
            |picture: Picture, size| picture.fitted(size, Fit::Stretch, Interpolation::Bilinear);
        // Scaled first: a photograph has a thousand times as many pixels.
        let small = stretched(picture.clone(), [SIDE, SIDE]).with_channels(Channels::Gray);
        let grid = stretched(small.clone(), [8, 9]).pixels;
        let mut hash = 0;
        for (row, pixels) in grid.chunks_exact(9).enumerate() {
            for (column, pair) in pixels.windows(2).enumerate() {
                // Every band gets bits of all rows: an upper edge that is black everywhere would fill one otherwise.
                let place = column * 8 + row;
                hash |= u64::from(pair[0] < pair[1]) << place;
            }
        }
        let small: [u8; SIDE * SIDE] = small.pixels.try_into().expect("the size asked for");
        let count = small.len() as f32;
        let mean = small.iter().map(|&value| f32::from(value)).sum::<f32>() / count;
        let squares = small.iter().map(|&value| (f32::from(value) - mean).powi(2));
        let deviation = (squares.sum::<f32>() / count).sqrt();
        Self {
            exact: hasher.finish(),
            hash,
            small,
            deviation,
        }
    }

    fn is_near(&self, other: &Self) -> bool {
        if (self.hash ^ other.hash).count_ones() > MAX_BITS || self.exact == other.exact {
            return false;
        }
        let pairs = self.small.iter().zip(&other.small);
        let sum: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        let mean = sum as f32 / self.small.len() as f32;
        mean <= MAX_DIFFERENCE * self.deviation.min(other.deviation)
    }

    fn band(&self, band: u32) -> u64 {
        let width = 64 / BANDS;
        self.hash >> (band * width) & ((1 << width) - 1)
    }
}

/// Images that have a duplicate, each by its index and that of the first image that it repeats.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Twins {
    /// Same size and pixels.
    pub(super) exact: Vec<(usize, usize)>,
    /// Other pixels that look the same: scaled, saved again, slightly changed.
    pub(super) near: Vec<(usize, usize)>,
}

/// Finds images among `new` that repeat one of `old` or, where `among_themselves`, an earlier one of `new`; `old` and `new`
/// are indices into `prints`. An exact duplicate is no near one. Takes time in proportion to the number of images.
pub(super) fn twins(prints: &[Print], old: &[usize], new: &[usize]) -> Twins {
    let among_themselves = old.is_empty();
    let pool = if among_themselves { new } else { old };
    let mut first: HashMap<u64, usize> = HashMap::new();
    for &index in pool {
        first.entry(prints[index].exact).or_insert(index);
    }
    let mut exact: Vec<(usize, usize)> = Vec::new();
    for &index in new {
        if let Some(&original) = first.get(&prints[index].exact)
            && original != index
        {
            exact.push((index, original));
        }
    }
    // Copies would be found once more by every near duplicate of their original.
    let is_first = |index: &usize| first.get(&prints[*index].exact) == Some(index);
    let has_content = |index: &usize| prints[*index].deviation >= FLAT;
    let pool: Vec<usize> = pool
        .iter()
        .copied()
        .filter(is_first)
        .filter(has_content)
        .collect();
    let mut bands: Vec<HashMap<u64, Vec<usize>>> = Vec::new();
    for band in 0..BANDS {
        let mut buckets: HashMap<u64, Vec<usize>> = HashMap::new();
        for &index in &pool {
            buckets
                .entry(prints[index].band(band))
                .or_default()
                .push(index);
        }
        // In the order of their hashes, so that the candidates nearest to an image are beside it.
        buckets.par_iter_mut().for_each(|(_, bucket)| {
            bucket.sort_unstable_by_key(|&index| (prints[index].hash, index));
        });
        bands.push(buckets);
    }
    let known: HashMap<usize, ()> = exact.iter().map(|&(index, _)| (index, ())).collect();
    let near = new
        .par_iter()
        .filter(|index| !known.contains_key(index) && has_content(index))
        .filter_map(|&index| {
            let print = &prints[index];
            let mut best: Option<usize> = None;
            for (band, buckets) in (0..).zip(&bands) {
                let Some(bucket) = buckets.get(&print.band(band)) else {
                    continue;
                };
                let at = bucket.partition_point(|&other| prints[other].hash < print.hash);
                let from = at.saturating_sub(MAX_CANDIDATES / 2);
                for &other in bucket[from..].iter().take(MAX_CANDIDATES) {
                    let earlier = !among_themselves || other < index;
                    if earlier
                        && best.is_none_or(|best| other < best)
                        && print.is_near(&prints[other])
                    {
                        best = Some(other);
                    }
                }
            }
            best.map(|original| (index, original))
        })
        .collect();
    Twins { exact, near }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of waves, `side` pixels wide, different for each `number`.
    fn waves(side: usize, number: usize) -> Picture {
        let (a, b) = ((number % 97) as f32 * 0.13, (number / 97) as f32 * 0.21);
        let pixel = |i: usize| {
            let (y, x) = (
                (i / side) as f32 / side as f32,
                (i % side) as f32 / side as f32,
            );
            let value = ((3.0 + a) * x + b).sin() + ((2.0 + b) * y + a).cos() * (5.0 * x * y).sin();
            (128.0 + 60.0 * value) as u8
        };
        Picture {
            pixels: (0..side * side).map(pixel).collect(),
            height: side,
            width: side,
            channels: 1,
        }
    }

    #[test]
    fn copies_and_scaled_copies_are_found_and_others_are_not() {
        let mut noisy = waves(40, 3);
        let changed = noisy.pixels.iter_mut().enumerate();
        changed.for_each(|(i, pixel)| *pixel = pixel.saturating_add((i * 7 % 3) as u8));
        let flat = |value: u8| Picture {
            pixels: vec![value; 1600],
            ..waves(40, 0)
        };
        let pictures = [
            waves(40, 3),
            waves(40, 3000),
            waves(40, 3),
            waves(64, 3),
            noisy,
            flat(10),
            flat(12),
        ];
        let prints: Vec<Print> = pictures.iter().map(Print::of).collect();
        let all: Vec<usize> = (0..prints.len()).collect();
        let found = twins(&prints, &[], &all);
        assert_eq!(found.exact, [(2, 0)]);
        assert_eq!(found.near, [(3, 0), (4, 0)]);
        let between = twins(&prints, &[0, 1], &[2, 3, 5]);
        assert_eq!((between.exact, between.near), (vec![(2, 0)], vec![(3, 0)]));
    }

    #[test]
    fn time_does_not_grow_with_the_square() {
        // 50,000 images of one hash and one small copy each, different in their pixels.
        let print = Print::of(&waves(40, 3));
        let prints: Vec<Print> = (0..50_000)
            .map(|exact| Print {
                exact,
                ..print.clone()
            })
            .collect();
        let all: Vec<usize> = (0..prints.len()).collect();
        let started = std::time::Instant::now();
        let found = twins(&prints, &[], &all);
        assert!(found.near.len() > 49_000, "{}", found.near.len());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
