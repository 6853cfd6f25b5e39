//! Batches that pass the encoder in parts.
//!
//! A loss that compares all images of a batch with each other needs the features of all of them at once, but not what the
//! encoder computed on the way to them. So features are computed shard by shard without a graph, the loss is
//! differentiated with respect to the features, and then each shard passes the encoder again, now with a graph, through
//! which its part of that gradient goes back: GradCache (Gao, Zhang, Han, Callan: "Scaling Deep Contrastive Learning Batch
//! Size under Memory Limited Setup", RepL4NLP 2021). Where there is memory for it, the first pass has a graph and there is no
//! second one. The gradient is that of the whole batch's loss; BatchNorm alone sees each shard for itself.
//!
//! The shards of a batch may be on several ranks ([`crate::ranks`]). Every rank has the features of all images, and with them
//! the same loss; images, and what the encoder computes on the way, it has of its own shards alone. In tensors of images the
//! other rows are of no meaning.

use std::collections::HashMap;
use std::ops::Range;

use burn::module::ParamId;
use burn::tensor::{Gradients, Tensor};
use serde::{Deserialize, Serialize};

use super::side_by_side;
use crate::ranks;
use crate::tensor::{cut, gradient, to_vec};

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
        /// How the shards pass the encoder.
        passes: Passes,
    },
}

/// How shards pass an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// One after the other, each with its own graph and its own BatchNorm.
    Once,
    /// One after the other, and a second time for the way back, so that one at a time is in memory.
    Twice,
    /// Side by side, with one BatchNorm over all of them.
    Together,
}

/// Images that share BatchNorm's statistics, in a batch that is cut into shards.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BatchNormOver {
    /// Each shard by itself, as PyTorch's `DataParallel` and `DistributedDataParallel` do.
    #[default]
    Shard,
    /// The whole batch, as `SyncBatchNorm` does: what one process without shards computes, to rounding. On the CPU alone.
    Global,
}

/// How training batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// Shards of a batch.
    pub count: usize,
    /// Images that share BatchNorm's statistics.
    pub batchnorm: BatchNormOver,
}

impl Default for Sharding {
    fn default() -> Self {
        Self {
            count: 1,
            batchnorm: BatchNormOver::default(),
        }
    }
}

impl Shards {
    /// Cuts a batch into `shards`, and each of them into as few as there can be with at most `micro_batch` images each;
    /// one shard without a `micro_batch` is the whole.
    pub fn new(batch: usize, sharding: Sharding, micro_batch: Option<usize>) -> Self {
        let shards = sharding.count.max(1);
        let largest = batch.div_ceil(shards);
        match micro_batch {
            None if shards == 1 => Self::Whole,
            None => Self::Cut {
                batch,
                count: shards,
                passes: match sharding.batchnorm {
                    BatchNormOver::Shard => Passes::Once,
                    BatchNormOver::Global => Passes::Together,
                },
            },
            Some(most) => Self::Cut {
                batch,
                count: shards * largest.div_ceil(most.max(1)).max(1),
                passes: Passes::Twice,
            },
        }
    }

    /// The shards' ranges of the batch's images, in order; none of the whole.
    pub fn ranges(self) -> Vec<Range<usize>> {
        self.ranges_of(|count| 0..count)
    }

    /// The ranges of the shards that this rank has.
    pub fn own_ranges(self) -> Vec<Range<usize>> {
        self.ranges_of(ranks::own_part)
    }

    fn ranges_of(self, shards: impl Fn(usize) -> Range<usize>) -> Vec<Range<usize>> {
        match self {
            Self::Whole => Vec::new(),
            Self::Cut { batch, count, .. } => shards(count)
                .map(|shard| shard * batch / count..(shard + 1) * batch / count)
                .collect(),
        }
    }

    /// The images of a batch that this rank has.
    pub fn own_images(self, batch: usize) -> Range<usize> {
        match self.own_ranges().as_slice() {
            [] => 0..batch,
            [first, .., last] => first.start..last.end,
            [only] => only.clone(),
        }
    }

    /// Number of shards; 1 for the whole.
    pub fn count(self) -> usize {
        match self {
            Self::Whole => 1,
            Self::Cut { count, .. } => count,
        }
    }

    /// How the shards pass an encoder; none of the whole.
    pub(super) fn passes(self) -> Option<Passes> {
        match self {
            Self::Whole => None,
            Self::Cut { passes, .. } => Some(passes),
        }
    }

    /// Results of `work` for each of the own shards, given its place among them and its images. Where the shards pass one after
    /// the other, a result is computed when it is asked for: a caller that needs no two at once has one at a time in memory.
    pub fn each_own<'a, T: Send + 'a>(
        self,
        work: impl Fn(usize, &Range<usize>) -> T + Sync + 'a,
    ) -> Box<dyn Iterator<Item = T> + 'a> {
        let own = self.own_ranges();
        match self {
            Self::Cut {
                passes: Passes::Together,
                batch,
                ..
            } => {
                let images: Vec<usize> = own.iter().map(ExactSizeIterator::len).collect();
                let all = side_by_side::each(&images, batch, &|place| work(place, &own[place]));
                Box::new(all.into_iter())
            }
            _ => {
                let own = own.into_iter().enumerate();
                Box::new(own.map(move |(place, images)| work(place, &images)))
            }
        }
    }

    /// Rows of a shard, of all views that are stacked in `rows`.
    ///
    /// # Panics
    /// Where the rows are not those of whole views.
    pub(super) fn part<const D: usize>(self, rows: &Tensor<D>, images: &Range<usize>) -> Tensor<D> {
        let views = self.views(rows.dims()[0]);
        let batch = rows.dims()[0] / views;
        let of_view = |view| {
            rows.clone()
                .narrow(0, view * batch + images.start, images.len())
        };
        concatenated((0..views).map(of_view).collect())
    }

    /// Number of views in so many rows.
    pub(super) fn views(self, rows: usize) -> usize {
        match self {
            Self::Whole => 1,
            Self::Cut { batch, .. } => {
                assert_eq!(rows % batch, 0, "rows of whole views pass together");
                rows / batch
            }
        }
    }

    /// Rows of all shards in the order of the batch, view after view; `parts` are those of this rank.
    pub(super) fn joined<const D: usize>(self, views: usize, parts: Vec<Tensor<D>>) -> Tensor<D> {
        match ranks::count() {
            1 => by_view(views, &parts),
            _ => by_view(views, &self.gathered(views, parts)),
        }
    }

    /// The parts of all ranks, without gradients.
    fn gathered<const D: usize>(self, views: usize, own: Vec<Tensor<D>>) -> Vec<Tensor<D>> {
        let (device, row) = (own[0].device(), own[0].dims());
        let of_own: Vec<f32> = own
            .into_iter()
            .map(Tensor::inner)
            .flat_map(to_vec)
            .collect();
        let values = ranks::gather("features", &of_own);
        let shapes = self.ranges().into_iter().map(|images| {
            let mut shape = row;
            shape[0] = views * images.len();
            shape
        });
        cut(&values, shapes, &device)
    }

    /// Rows of the own shards in the order of the batch, view after view, and zeros in the others.
    fn own_rows<const D: usize>(self, views: usize, parts: Vec<Tensor<D>>) -> Tensor<D> {
        let Self::Cut { batch, .. } = self else {
            return by_view(views, &parts);
        };
        let own = self.own_images(batch);
        let (device, row) = (parts[0].device(), parts[0].dims());
        let zeros = |images: usize| {
            let mut shape = row;
            shape[0] = views * images;
            (images > 0).then(|| Tensor::zeros(shape, &device))
        };
        let all = zeros(own.start).into_iter().chain(parts);
        let all: Vec<Tensor<D>> = all.chain(zeros(batch - own.end)).collect();
        by_view(views, &all)
    }

    /// `compute` of every shard's rows, joined; of all at once for the whole.
    pub fn map<const D: usize, const E: usize>(
        self,
        rows: Tensor<D>,
        compute: impl Fn(Tensor<D>) -> Tensor<E> + Sync,
    ) -> Tensor<E> {
        match self {
            Self::Whole => compute(rows),
            Self::Cut { .. } => {
                let parts = self.each_own(|_, images| compute(self.part(&rows, images)));
                self.joined(self.views(rows.dims()[0]), parts.collect())
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
        features: impl Fn(Tensor<4>) -> Tensor<2> + Sync,
        loss: impl Fn(Tensor<2>) -> Tensor<1>,
    ) -> impl Fn(Tensor<4>) -> Tensor<4> {
        move |images| {
            if self == Self::Whole || share_one_graph() {
                return gradient(&mut |x| loss(self.map(x, &features)), images);
            }
            let images = images.inner();
            let views = self.views(images.dims()[0]);
            if self.passes() == Some(Passes::Twice) {
                let wanted = gradient(&mut |z| loss(z), self.map(images.clone(), &features));
                let parts = self.each_own(|_, shard| {
                    let wanted = self.part(&wanted, shard);
                    let back = &mut |x| towards(features(x), wanted.clone());
                    gradient(back, self.part(&images, shard))
                });
                return self.own_rows(views, parts.collect());
            }
            let passes = self.each_own(|_, shard| {
                let x = leaf(self.part(&images, shard));
                (x.clone(), features(x))
            });
            let passes: Vec<_> = passes.collect();
            let of_shards = passes.iter().map(|(_, z)| z.clone().inner()).collect();
            let wanted = gradient(&mut |z| loss(z), self.joined(views, of_shards));
            let parts = self.each_own(|place, shard| {
                let (x, z) = &passes[place];
                let gradients = towards(z.clone(), self.part(&wanted, shard)).backward();
                let gradient = x.grad(&gradients);
                gradient.unwrap_or_else(|| x.clone().inner().zeros_like())
            });
            self.own_rows(views, parts.collect())
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

/// Rows of all parts, one view after the other; each part has all views of its images.
fn by_view<const D: usize>(views: usize, parts: &[Tensor<D>]) -> Tensor<D> {
    let of_view = |view| {
        parts.iter().map(move |part| {
            let images = part.dims()[0] / views;
            part.clone().narrow(0, view * images, images)
        })
    };
    concatenated((0..views).flat_map(of_view).collect())
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
pub(super) fn towards(features: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    (features * gradient.autodiff()).sum()
}

/// Gradients of an encoder's weights by way of one of the own shards, given the shard's place among them, its images and the
/// gradient of its features.
pub(super) type WayBack =
    Box<dyn Fn(usize, &Range<usize>, Tensor<2>) -> HashMap<ParamId, Tensor<1>> + Send + Sync>;

/// Forward pass of a view whose way back is still to be gone, shard by shard.
pub struct Deferred {
    /// What came out, as the beginning of the loss's graph.
    features: Tensor<2>,
    way: WayBack,
}

impl Deferred {
    /// A pass of which `features` is the leaf that the loss is computed from.
    pub(super) fn new(features: Tensor<2>, way: WayBack) -> Self {
        Self { features, way }
    }

    /// The gradient of the loss with respect to the features; none where it does not depend on them.
    pub fn wanted(&self, of_loss: &Gradients) -> Option<Tensor<2>> {
        self.features.grad(of_loss)
    }

    /// Gradients of the encoder's weights by way of the `place`-th of the own shards, which has these images, given the
    /// gradient of all features. To be asked once for each shard.
    pub fn backward(
        &self,
        shards: Shards,
        (place, images): (usize, &Range<usize>),
        wanted: &Tensor<2>,
    ) -> HashMap<ParamId, Tensor<1>> {
        (self.way)(place, images, shards.part(wanted, images))
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

    fn of(count: usize) -> Sharding {
        Sharding {
            count,
            ..Sharding::default()
        }
    }

    /// Rows that count up from 0.
    fn rows(count: usize, width: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..count * width).map(|value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, [count, width]), &cpu())
    }

    #[test]
    fn shards_are_few_and_nearly_equal_and_have_every_image_once() {
        for (batch, most) in [(10, 4), (9, 4), (8, 4), (5, 5), (3, 8), (7, 1), (2, 2)] {
            let ranges = Shards::new(batch, Sharding::default(), Some(most)).ranges();
            assert_eq!(ranges.len(), batch.div_ceil(most));
            let all: Vec<usize> = ranges.iter().cloned().flatten().collect();
            assert_eq!(all, (0..batch).collect::<Vec<_>>());
            let sizes = ranges.iter().map(ExactSizeIterator::len);
            let (least, largest) = (sizes.clone().min(), sizes.max());
            assert!(largest <= Some(most.min(batch)), "{ranges:?}");
            assert!(least.map(|least| least + 1) >= largest, "{ranges:?}");
        }
        assert_eq!(Shards::new(8, Sharding::default(), None), Shards::Whole);
        let cut = |shards, most| Shards::new(16, of(shards), most).count();
        assert_eq!(
            [
                cut(4, None),
                cut(4, Some(8)),
                cut(4, Some(3)),
                cut(1, Some(8))
            ],
            [4, 4, 8, 2]
        );
    }

    #[test]
    fn one_shard_at_a_time_is_worked_on() {
        let (begun, shards) = (
            std::sync::atomic::AtomicUsize::new(0),
            Shards::new(6, Sharding::default(), Some(2)),
        );
        let count = || begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let results = shards.each_own(|place, images| (place, images.clone(), count()));
        for (place, result) in results.enumerate() {
            assert_eq!(result, (place, 2 * place..2 * place + 2, place + 1));
            let begun = begun.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(begun, place + 1, "the others wait until they are wanted");
        }
    }

    #[test]
    fn a_shard_has_every_stacked_view_of_its_images_and_joining_restores_the_order() {
        let shards = Shards::new(5, Sharding::default(), Some(2));
        for views in 1..=3 {
            let all = rows(5 * views, 2);
            let seen = std::sync::Mutex::new(Vec::new());
            let joined = shards.map(all.clone(), |part| {
                let firsts: Vec<f32> = to_vec(part.clone().narrow(1, 0, 1));
                let rows: Vec<usize> = firsts.iter().map(|value| *value as usize / 2).collect();
                seen.lock().expect("no panic").push(rows);
                part * 3.0
            });
            let seen = seen.into_inner().expect("no panic");
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
        for (batch, shards, most) in [
            (10, 1, Some(10)),
            (10, 1, Some(4)),
            (5, 1, Some(2)),
            (5, 1, Some(1)),
            (10, 2, None),
            (5, 5, None),
        ] {
            let cut = Shards::new(batch, of(shards), most).gradient_of(features, loss);
            for (found, expected) in to_vec(cut(images.clone())).into_iter().zip(&whole) {
                assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
            }
        }
        let constant = |z: Tensor<2>| (z * 0.0).sum();
        let none = Shards::new(10, of(1), Some(3)).gradient_of(features, constant)(images);
        assert!(to_vec(none).iter().all(|value| *value == 0.0));
    }
}
