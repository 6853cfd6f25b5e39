//! Batches that pass the encoder in parts.
//!
//! A loss that compares all images of a batch with each other needs the features of all of them at once, but not what the
//! encoder computed on the way to them. So features are computed shard by shard without a graph, the loss is
//! differentiated with respect to the features, and then each shard passes the encoder again, now with a graph, through
//! which its part of that gradient goes back: GradCache (Gao, Zhang, Han, Callan: "Scaling Deep Contrastive Learning Batch
//! Size under Memory Limited Setup", RepL4NLP 2021). The gradient is that of the whole batch's loss; BatchNorm alone sees
//! each shard for itself.

use std::ops::Range;

use burn::tensor::{Gradients, Tensor};

use crate::tensor::gradient;

/// Cut of a batch into shards: ranges of its images, whose views pass the encoder together.
///
/// Several views of a batch may be stacked into one pass: rows `0..batch` are the first view of all images,
/// `batch..2 · batch` the second one. A shard has all views of its images, as if there were no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// The batch as a whole, in one graph.
    #[default]
    Whole,
    /// Parts that are as equal as they can be.
    Cut {
        /// Images of the batch.
        batch: usize,
        /// Number of shards.
        count: usize,
    },
}

impl Shards {
    /// Cuts a batch into as few shards as there can be with at most `micro_batch` images each; without one, not at all.
    pub fn new(batch: usize, micro_batch: Option<usize>) -> Self {
        match micro_batch {
            None => Self::Whole,
            Some(most) => Self::Cut {
                batch,
                count: batch.div_ceil(most.max(1)).max(1),
            },
        }
    }

    /// The shards' ranges of the batch's images, in order; none of the whole.
    pub fn ranges(self) -> Vec<Range<usize>> {
        match self {
            Self::Whole => Vec::new(),
            Self::Cut { batch, count } => (0..count)
                .map(|shard| shard * batch / count..(shard + 1) * batch / count)
                .collect(),
        }
    }

    /// Rows of a shard, of all views that are stacked in `rows`.
    ///
    /// # Panics
    /// Where the rows are not those of whole views.
    fn part<const D: usize>(self, rows: &Tensor<D>, images: &Range<usize>) -> Tensor<D> {
        let views = self.views(rows.dims()[0]);
        let batch = rows.dims()[0] / views;
        let of_view = |view| {
            rows.clone()
                .narrow(0, view * batch + images.start, images.len())
        };
        concatenated((0..views).map(of_view).collect())
    }

    /// Number of views in so many rows.
    fn views(self, rows: usize) -> usize {
        match self {
            Self::Whole => 1,
            Self::Cut { batch, .. } => {
                assert_eq!(rows % batch, 0, "rows of whole views pass together");
                rows / batch
            }
        }
    }

    /// Rows of all shards in the order of the batch, view after view.
    fn joined<const D: usize>(self, parts: Vec<Tensor<D>>) -> Tensor<D> {
        let views = self.views(parts.iter().map(|part| part.dims()[0]).sum());
        let of_view = |view| {
            parts.iter().map(move |part| {
                let images = part.dims()[0] / views;
                part.clone().narrow(0, view * images, images)
            })
        };
        concatenated((0..views).flat_map(of_view).collect())
    }

    /// `compute` of every shard's rows, joined; of all at once for the whole.
    pub fn map<const D: usize, const E: usize>(
        self,
        rows: Tensor<D>,
        mut compute: impl FnMut(Tensor<D>) -> Tensor<E>,
    ) -> Tensor<E> {
        match self {
            Self::Whole => compute(rows),
            Self::Cut { .. } => {
                let parts = self.ranges().into_iter();
                let parts = parts.map(|images| compute(self.part(&rows, &images)));
                self.joined(parts.collect())
            }
        }
    }

    /// The function from images to the gradient, with respect to them, of `loss` of their `features`. For attacks: the
    /// network's part goes shard by shard, the loss compares the whole batch. Zero where the loss does not depend on the
    /// images.
    ///
    /// # Shapes
    /// `[rows, channels, height, width]`, kept; features `[rows, any]`, the loss `[1]`.
    pub fn gradient_of(
        self,
        features: impl Fn(Tensor<4>) -> Tensor<2>,
        loss: impl Fn(Tensor<2>) -> Tensor<1>,
    ) -> impl Fn(Tensor<4>) -> Tensor<4> {
        move |images| {
            if self == Self::Whole || share_one_graph() {
                return gradient(&mut |x| loss(self.map(x, &features)), images);
            }
            let images = images.inner();
            let wanted = gradient(&mut |z| loss(z), self.map(images.clone(), &features));
            let parts = self.ranges().into_iter().map(|shard| {
                let wanted = self.part(&wanted, &shard);
                let back = &mut |x| towards(features(x), wanted.clone());
                gradient(back, self.part(&images, &shard))
            });
            self.joined(parts.collect())
        }
    }
}

/// Whether all shards share one graph: what the two passes are held against in tests.
pub(super) fn share_one_graph() -> bool {
    #[cfg(test)]
    return ONE_GRAPH.get();
    #[cfg(not(test))]
    false
}

#[cfg(test)]
thread_local! {
    static ONE_GRAPH: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Does `work` with all shards in one graph: the same losses, differentiated in one pass.
#[cfg(test)]
pub(crate) fn in_one_graph<R>(work: impl FnOnce() -> R) -> R {
    ONE_GRAPH.set(true);
    let result = work();
    ONE_GRAPH.set(false);
    result
}

fn concatenated<const D: usize>(mut parts: Vec<Tensor<D>>) -> Tensor<D> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 0),
    }
}

/// The beginning of a graph, whose gradient is kept.
pub(super) fn leaf<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    values.inner().autodiff().require_grad()
}

/// A number whose gradient with respect to the features is `gradient`.
fn towards(features: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    (features * gradient.autodiff()).sum()
}

/// Forward pass of a view whose way back is still to be gone, shard by shard.
pub struct Deferred {
    /// What passed the encoder.
    images: Tensor<4>,
    /// What came out, as the beginning of the loss's graph.
    features: Tensor<2>,
    /// The encoder, with gradients of its weights.
    encoder: Box<dyn Fn(Tensor<4>) -> Tensor<2>>,
}

impl Deferred {
    /// A pass of `images`, of which `features` is the leaf that the loss is computed from.
    pub(super) fn new(
        images: Tensor<4>,
        features: Tensor<2>,
        encoder: impl Fn(Tensor<4>) -> Tensor<2> + 'static,
    ) -> Self {
        Self {
            images: images.inner(),
            features,
            encoder: Box::new(encoder),
        }
    }

    /// Gradients of the encoder's weights by way of one shard, given those of the loss; none where the loss does not
    /// depend on the features.
    pub fn backward(
        &self,
        shards: Shards,
        images: &Range<usize>,
        of_loss: &Gradients,
    ) -> Option<Gradients> {
        let gradient = self.features.grad(of_loss)?;
        let features = (self.encoder)(shards.part(&self.images, images));
        Some(towards(features, shards.part(&gradient, images)).backward())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::device;
    use crate::tensor::to_vec;

    fn cpu() -> Device {
        device::open("cpu").expect("the CPU")
    }

    /// Rows that count up from 0.
    fn rows(count: usize, width: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..count * width).map(|value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, [count, width]), &cpu())
    }

    #[test]
    fn shards_are_few_and_nearly_equal_and_have_every_image_once() {
        for (batch, most) in [(10, 4), (9, 4), (8, 4), (5, 5), (3, 8), (7, 1), (2, 2)] {
            let ranges = Shards::new(batch, Some(most)).ranges();
            assert_eq!(ranges.len(), batch.div_ceil(most));
            let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(all, (0..batch).collect::<Vec<_>>());
            let sizes = ranges.iter().map(ExactSizeIterator::len);
            let (least, largest) = (sizes.clone().min(), sizes.max());
            assert!(largest <= Some(most.min(batch)), "{ranges:?}");
            assert!(least.map(|least| least + 1) >= largest, "{ranges:?}");
        }
        assert_eq!(Shards::new(8, None), Shards::Whole);
    }

    #[test]
    fn a_shard_has_every_stacked_view_of_its_images_and_joining_restores_the_order() {
        let shards = Shards::new(5, Some(2));
        for views in 1..=3 {
            let all = rows(5 * views, 2);
            let mut seen: Vec<Vec<usize>> = Vec::new();
            let joined = shards.map(all.clone(), |part| {
                let firsts: Vec<f32> = to_vec(part.clone().narrow(1, 0, 1));
                seen.push(firsts.iter().map(|value| *value as usize / 2).collect());
                part * 3.0
            });
            let expected: Vec<Vec<usize>> = (shards.ranges().into_iter())
                .map(|images| {
                    let of_view = |view| images.clone().map(move |image| view * 5 + image);
                    (0..views).flat_map(of_view).collect()
                })
                .collect();
            assert_eq!(seen, expected);
            assert_eq!(to_vec(joined), to_vec(all * 3.0));
        }
    }

    #[test]
    fn the_gradient_in_shards_is_that_of_the_whole() {
        let images = rows(10, 3).reshape([10, 3, 1, 1]) / 30.0;
        let features = |x: Tensor<4>| {
            let [count, width, _, _] = x.dims();
            x.clone().square().sin().reshape([count, width]) + x.mean_dim(1).reshape([count, 1])
        };
        // Every row against every other.
        let loss = |z: Tensor<2>| z.clone().matmul(z.transpose()).cos().mean();
        let whole = to_vec(Shards::Whole.gradient_of(features, loss)(images.clone()));
        assert!(whole.iter().any(|value| value.abs() > 1e-3));
        for (batch, most) in [(10, 10), (10, 4), (5, 2), (5, 1)] {
            let cut = Shards::new(batch, Some(most)).gradient_of(features, loss);
            for (found, expected) in to_vec(cut(images.clone())).into_iter().zip(&whole) {
                assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
            }
        }
        let constant = |z: Tensor<2>| (z * 0.0).sum();
        let none = Shards::new(10, Some(3)).gradient_of(features, constant)(images);
        assert!(to_vec(none).iter().all(|value| *value == 0.0));
    }
}
