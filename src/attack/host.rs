//! Images under attack as values on the host: for attacks that treat every image by itself.

use burn::tensor::{Tensor, TensorData};

use super::{Found, Victim};
use crate::error::Result;
use crate::logits::require_finite;
use crate::tensor::to_vec;

/// Images of the victim's shape as one batch.
pub fn batch<'a>(images: impl Iterator<Item = &'a [f32]>, victim: &Victim) -> Tensor<4> {
    let [_, channels, height, width] = victim.images.dims();
    let values = images.collect::<Vec<_>>().concat();
    let count = values.len() / (channels * height * width);
    let data = TensorData::new(values, [count, channels, height, width]);
    Tensor::from_data(data, &victim.images.device())
}

/// The logits of those images of the victim, row by row; all of them must be finite.
///
/// # Errors
/// [`Error::Logits`](crate::Error::Logits).
pub fn finite(
    attack: &str,
    victim: &Victim,
    places: &[usize],
    logits: Tensor<2>,
) -> Result<Vec<Vec<f32>>> {
    let classes = logits.dims()[1];
    let rows: Vec<Vec<f32>> = to_vec(logits).chunks(classes).map(<[_]>::to_vec).collect();
    for (row, &place) in rows.iter().zip(places) {
        require_finite(attack, victim.indices[place], row)?;
    }
    Ok(rows)
}

/// Of each image the logit of its label less the largest other one: negative once it is misclassified, however ties are broken.
///
/// # Errors
/// [`Error::Logits`](crate::Error::Logits).
pub fn margins(
    attack: &str,
    victim: &Victim,
    places: &[usize],
    logits: Tensor<2>,
) -> Result<Vec<f32>> {
    let rows = finite(attack, victim, places, logits)?;
    let margin = |(row, &place): (&Vec<f32>, &usize)| {
        let label = victim.labels[place];
        let others = row.iter().enumerate().filter(|(class, _)| *class != label);
        let rival = others.map(|(_, z)| *z).fold(f32::NEG_INFINITY, f32::max);
        row[label] - rival
    };
    Ok(rows.iter().zip(places).map(margin).collect())
}

/// What was found, the originals elsewhere.
pub fn gather(victim: &Victim, mut images: Vec<f32>, found: Vec<Option<Vec<f32>>>) -> Found {
    let shape = victim.images.dims();
    let size: usize = shape[1..].iter().product();
    for (place, example) in found.iter().enumerate() {
        if let Some(example) = example {
            images[place * size..][..size].copy_from_slice(example);
        }
    }
    Found {
        broken: found.iter().map(Option::is_some).collect(),
        images: Tensor::from_data(TensorData::new(images, shape), &victim.images.device()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::attack::{Ball, Norm};
    use crate::{device, random};
    use rand::RngExt;

    /// A linear classifier.
    pub struct Linear {
        /// By class.
        pub weights: Vec<Vec<f32>>,
        pub offsets: Vec<f32>,
        /// Of an image.
        pub shape: [usize; 3],
    }

    impl Linear {
        /// Class by class as sums, not as a matrix product: whose rounding depends on the number of rows.
        fn logits(&self, x: Tensor<4>) -> Tensor<2> {
            let [channels, height, width] = self.shape;
            let logit = |(weights, offset): (&Vec<f32>, &f32)| {
                let data = TensorData::new(weights.clone(), [1, channels, height, width]);
                let weights = Tensor::<4>::from_data(data, &device::open("cpu").expect("the CPU"));
                let products = (x.clone() * weights).flatten::<2>(1, 3);
                products.sum_dim(1) + *offset
            };
            let logits = self.weights.iter().zip(&self.offsets).map(logit);
            Tensor::cat(logits.collect(), 1)
        }
    }

    /// An attack's outcome on images one after the other, all of class 0; what it broke must be where it may be, and wrong.
    pub fn attacked(
        linear: &Linear,
        images: &[f32],
        indices: &[usize],
        ball: Ball,
        attack: impl FnOnce(&Victim) -> Result<Found>,
    ) -> Found {
        let [channels, height, width] = linear.shape;
        let shape = [indices.len(), channels, height, width];
        let device = device::open("cpu").expect("the CPU");
        let originals = Tensor::from_data(TensorData::new(images.to_vec(), shape), &device);
        let labels = vec![0; indices.len()];
        let found = attack(&Victim {
            logits: &|x| linear.logits(x),
            images: &originals,
            labels: &labels,
            indices,
            ball,
            seed: 3,
        });
        let found = found.expect("finite logits");
        let moved = to_vec(found.images.clone());
        let logits = to_vec(linear.logits(found.images.clone()));
        let size = channels * height * width;
        for (row, _) in found
            .broken
            .iter()
            .enumerate()
            .filter(|(_, broken)| **broken)
        {
            let here = row * size..(row + 1) * size;
            assert!(moved[here.clone()].iter().all(|v| (0.0..=1.0).contains(v)));
            let delta = moved[here.clone()].iter().zip(&images[here]);
            let delta = delta.map(|(a, b)| f64::from(*a) - f64::from(*b));
            let distance = match ball.norm {
                Norm::Linf => delta.fold(0.0, |far: f64, d| far.max(d.abs())),
                Norm::L2 => delta.map(|d| d * d).sum::<f64>().sqrt(),
            };
            let limit = ball.radius * (1.0 + 1e-5) + f64::from(f32::EPSILON);
            assert!(distance <= limit, "{distance} of {}", ball.radius);
            let logits = &logits[row * linear.weights.len()..][..linear.weights.len()];
            assert!(logits[1..].iter().any(|z| *z > logits[0]), "{logits:?}");
        }
        found
    }

    /// Situations that every attack must get through.
    pub mod case {
        use super::*;

        fn random(classes: usize, shape: [usize; 3], count: usize) -> (Linear, Vec<f32>) {
            let size: usize = shape.iter().product();
            let mut rng = random::generator(1, "attack/case", size as u64);
            let mut values = |many: usize, low: f32| -> Vec<f32> {
                (0..many).map(|_| rng.random_range(low..=1.0)).collect()
            };
            let weights: Vec<Vec<f32>> = (0..classes).map(|_| values(size, -1.0)).collect();
            let images = values(count * size, 0.0);
            // Class 0 wins everywhere, by little for some images.
            let logit =
                |image: &[f32], w: &[f32]| image.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
            let lead = images.chunks(size).flat_map(|image| {
                let own = logit(image, &weights[0]);
                weights[1..].iter().map(move |w| logit(image, w) - own)
            });
            let most = lead.fold(0.0, f32::max);
            let mut offsets = vec![0.0; classes];
            offsets[0] = most + 0.01;
            let linear = Linear {
                weights,
                offsets,
                shape,
            };
            (linear, images)
        }

        /// The outcome for an image does not depend on the batch that it is in.
        pub fn same_alone(attack: impl Fn(&Victim) -> Result<Found>) {
            let (linear, images) = random(4, [3, 7, 6], 9);
            let (size, indices) = (3 * 7 * 6, [4, 7, 1, 0, 9, 33, 2, 5, 6]);
            for (norm, radius) in [(Norm::Linf, 0.02), (Norm::L2, 0.15)] {
                let ball = Ball { norm, radius };
                let together = attacked(&linear, &images, &indices, ball, &attack);
                let broken = together.broken.iter().filter(|broken| **broken).count();
                assert!((1..9).contains(&broken), "{norm:?}: {broken} broken");
                let moved = to_vec(together.images);
                for (row, image) in images.chunks(size).enumerate() {
                    let alone = attacked(&linear, image, &indices[row..=row], ball, &attack);
                    assert_eq!(alone.broken[0], together.broken[row], "{norm:?} {row}");
                    let same = to_vec(alone.images) == moved[row * size..][..size];
                    assert!(same, "{norm:?} {row}");
                }
            }
        }

        /// Tiny and narrow images, one and two classes, classifiers without slope, radii of 0 and 1: nothing that is not there
        /// is broken, and nothing panics.
        pub fn odd(attack: impl Fn(&Victim) -> Result<Found>) {
            for norm in [Norm::Linf, Norm::L2] {
                for shape in [[1, 1, 1], [3, 1, 1], [1, 1, 9], [2, 8, 3], [1, 3, 20]] {
                    for classes in [1, 2, 12] {
                        for radius in [0.0, 1e-9, 0.1, 1.0, 3.0] {
                            let (mut linear, images) = random(classes, shape, 3);
                            let ball = Ball { norm, radius };
                            let indices = [0, 1, 2];
                            let found = attacked(&linear, &images, &indices, ball, &attack);
                            if radius == 0.0 || classes == 1 {
                                assert_eq!(found.broken, [false; 3]);
                            }
                            linear.weights.iter_mut().for_each(|w| w.fill(0.0));
                            let found = attacked(&linear, &images, &indices, ball, &attack);
                            assert_eq!(found.broken, [false; 3]);
                        }
                    }
                }
                let (mut linear, images) = random(3, [1, 2, 2], 1);
                linear.offsets[1] = f32::NAN;
                let ball = Ball { norm, radius: 0.1 };
                attacked(&linear, &images, &[17], ball, |victim| {
                    let error = attack(victim).err().expect("a refusal").to_string();
                    assert!(
                        error.contains("image 17") && error.contains("NaN"),
                        "{error}"
                    );
                    Ok(Found {
                        broken: vec![false],
                        images: victim.images.clone(),
                    })
                });
            }
        }
    }
}
