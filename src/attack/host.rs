//! Images under attack as values on the host: for attacks that treat every image by itself.

use burn::tensor::{Tensor, TensorData};

use super::{AttackResult, Victim};
use crate::error::Result;
use crate::logits::{LogitRows, margin};

/// Images of the victim's shape as one batch.
pub fn batch<'a>(images: impl Iterator<Item = &'a [f32]>, victim: &Victim) -> Tensor<4> {
    let [_, channels, height, width] = victim.images.dims();
    let values = images.collect::<Vec<_>>().concat();
    let count = values.len() / (channels * height * width);
    let data = TensorData::new(values, [count, channels, height, width]);
    Tensor::from_data(data, &victim.images.device())
}

/// Logits of the victim's images at `rows`, which must be finite; `attack` is for errors.
///
/// # Errors
/// [`Error::Logits`](crate::Error::Logits).
pub fn finite(
    attack: &str,
    victim: &Victim,
    rows: &[usize],
    logits: Tensor<2>,
) -> Result<LogitRows> {
    let logits = LogitRows::read(logits);
    let indices: Vec<usize> = rows.iter().map(|&row| victim.indices[row]).collect();
    logits.require_finite(attack, &indices)?;
    Ok(logits)
}

/// Margin of each of the victim's images at `rows`: negative once it is misclassified.
///
/// # Errors
/// [`Error::Logits`](crate::Error::Logits).
pub fn margins(
    attack: &str,
    victim: &Victim,
    rows: &[usize],
    logits: Tensor<2>,
) -> Result<Vec<f32>> {
    let logits = finite(attack, victim, rows, logits)?;
    let pairs = logits.rows().zip(rows);
    Ok(pairs
        .map(|(logits, &row)| margin(logits, victim.labels[row]))
        .collect())
}

/// Result with the adversarial examples that were found; the other rows keep their originals.
pub fn gather(victim: &Victim, mut images: Vec<f32>, found: Vec<Option<Vec<f32>>>) -> AttackResult {
    let shape = victim.images.dims();
    let size: usize = shape[1..].iter().product();
    for (row, example) in found.iter().enumerate() {
        if let Some(example) = example {
            images[row * size..][..size].copy_from_slice(example);
        }
    }
    AttackResult {
        broken: found.iter().map(Option::is_some).collect(),
        images: Tensor::from_data(TensorData::new(images, shape), &victim.images.device()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::attack::{Ball, Norm};
    use crate::tensor::to_vec;
    use crate::{device, random};
    use rand::RngExt;

    /// A linear classifier.
    pub struct Linear {
        /// Weights of each class.
        pub weights: Vec<Vec<f32>>,
        /// Offset of each class.
        pub offsets: Vec<f32>,
        /// Channels, height and width of an image.
        pub shape: [usize; 3],
    }

    impl Linear {
        /// Computed class by class as sums: the rounding of a matrix product may depend on the number of rows.
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

    /// Attacks images of class 0, one after the other in `images`, and checks that every adversarial example is inside ball
    /// and box and misclassified.
    pub fn attacked(
        linear: &Linear,
        images: &[f32],
        indices: &[usize],
        ball: Ball,
        attack: impl FnOnce(&Victim) -> Result<AttackResult>,
    ) -> AttackResult {
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
            let (example, original) = (&moved[here.clone()], &images[here]);
            let distance = ball.norm.distance(example, original);
            assert!(
                ball.contains(example, original),
                "{distance} of {}",
                ball.radius
            );
            let logits = &logits[row * linear.weights.len()..][..linear.weights.len()];
            assert!(logits[1..].iter().any(|z| *z > logits[0]), "{logits:?}");
        }
        found
    }

    /// Situations that every attack must handle.
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
        pub fn same_alone(attack: impl Fn(&Victim) -> Result<AttackResult>) {
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

        /// Tiny and narrow images, one and two classes, classifiers without slope, radii of 0 and 1: nothing is broken that
        /// cannot be, and nothing panics.
        pub fn odd(attack: impl Fn(&Victim) -> Result<AttackResult>) {
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
                    Ok(AttackResult {
                        broken: vec![false],
                        images: victim.images.clone(),
                    })
                });
            }
        }
    }
}
