//! ResNet (He et al., CVPR 2016) with routed BatchNorm.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::by_id::gradients_by_id;
use super::engine;
use super::layer::Conv;
use super::norm::{BatchNorm, Mode, Route, RouteNorm, Statistics};
use super::shards::{Deferred, Passes, Shards, WayBack, leaf, share_one_graph, towards};

/// The usual depths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "usize", into = "usize")]
#[schemars(extend("enum" = [10, 18, 34, 50]))]
pub enum Depth {
    /// One basic block a stage.
    D10,
    /// Two basic blocks a stage.
    D18,
    /// 3, 4, 6, 3 basic blocks.
    D34,
    /// 3, 4, 6, 3 bottleneck blocks, four times as wide at their ends.
    D50,
}

impl Depth {
    /// Blocks of each of the four stages.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Self::D10 => [1; 4],
            Self::D18 => [2; 4],
            Self::D34 | Self::D50 => [3, 4, 6, 3],
        }
    }

    /// Output channels of a block over its inner ones.
    fn expansion(self) -> usize {
        if self == Self::D50 { 4 } else { 1 }
    }
}

impl TryFrom<usize> for Depth {
    type Error = String;

    fn try_from(depth: usize) -> Result<Self, String> {
        match depth {
            10 => Ok(Self::D10),
            18 => Ok(Self::D18),
            34 => Ok(Self::D34),
            50 => Ok(Self::D50),
            _ => Err(format!(
                "no ResNet of depth {depth}: expected 10, 18, 34 or 50"
            )),
        }
    }
}

impl From<Depth> for usize {
    fn from(depth: Depth) -> Self {
        match depth {
            Depth::D10 => 10,
            Depth::D18 => 18,
            Depth::D34 => 34,
            Depth::D50 => 50,
        }
    }
}

/// The first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 3 × 3, stride 1: for 32 × 32 images.
    Cifar,
    /// 3 × 3, stride 2: a quarter of the work, for larger images or smaller machines.
    Strided,
    /// 7 × 7, stride 2, then the maxima of 3 × 3 pixels at stride 2: for 224 × 224 images, as in torchvision and timm.
    Imagenet,
}

impl Stem {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cifar, Self::Strided, Self::Imagenet];

    /// Name in recipes and model files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cifar => "cifar",
            Self::Strided => "strided",
            Self::Imagenet => "imagenet",
        }
    }

    /// Height and width of the first convolution's kernel.
    pub fn kernel(self) -> usize {
        match self {
            Self::Cifar | Self::Strided => 3,
            Self::Imagenet => 7,
        }
    }

    /// Stride of the first convolution.
    pub fn stride(self) -> usize {
        match self {
            Self::Cifar => 1,
            Self::Strided | Self::Imagenet => 2,
        }
    }

    /// Whether maxima are taken behind the first convolution.
    pub fn is_pooled(self) -> bool {
        self == Self::Imagenet
    }
}

/// What fixes the encoder's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// 10, 18, 34 or 50.
    pub depth: Depth,
    /// Channels of the first stage; each next stage has twice as many.
    pub width: usize,
    /// The first layer.
    pub stem: Stem,
}

impl EncoderConfig {
    /// Length of a feature vector.
    pub fn features(&self) -> usize {
        saturating_product(&[8, self.width, self.depth.expansion()])
    }

    /// Number of values in a weight file of an [`Encoder`]: parameters and running statistics. Counted
    /// without building one, and saturating, so that it can be asked about any configuration.
    pub fn values(&self, channels: usize, routes: usize) -> usize {
        let conv = |input: usize, output: usize, kernel: usize| {
            let norm = BatchNorm::values(output).saturating_mul(routes);
            saturating_product(&[input, output, kernel, kernel]).saturating_add(norm)
        };
        let expansion = self.depth.expansion();
        let mut values = conv(channels, self.width, self.stem.kernel());
        let mut input = self.width;
        for (index, blocks) in self.depth.blocks().into_iter().enumerate() {
            let inner = self.width.saturating_mul(1 << index);
            let output = inner.saturating_mul(expansion);
            for block in 0..blocks {
                let parts = match expansion {
                    1 => [conv(input, inner, 3), conv(inner, inner, 3), 0],
                    _ => [
                        conv(input, inner, 1),
                        conv(inner, inner, 3),
                        conv(inner, output, 1),
                    ],
                };
                let is_strided = block == 0 && index > 0;
                let shortcut = match is_strided || input != output {
                    true => conv(input, output, 1),
                    false => 0,
                };
                let parts = parts.into_iter().chain([shortcut]);
                values = parts.fold(values, usize::saturating_add);
                input = output;
            }
        }
        values
    }

    /// Number of values that a forward pass of one image of `[height, width]` keeps for the way back: the image, of
    /// every convolution what comes out of it and out of its norm, and maxima. Saturating.
    pub fn kept_values(&self, channels: usize, [height, width]: [usize; 2]) -> usize {
        let halved = |[h, w]: [usize; 2]| [h.div_ceil(2), w.div_ceil(2)];
        let mut size = [height, width];
        let mut kept = saturating_product(&[channels, height, width]);
        if self.stem.stride() == 2 {
            size = halved(size);
        }
        let expansion = self.depth.expansion();
        if self.stem.is_pooled() {
            let [height, width] = halved(size);
            kept = kept.saturating_add(saturating_product(&[height, width, self.width]));
        }
        let mut keep = |[h, w]: [usize; 2], channels: usize| {
            kept = kept.saturating_add(saturating_product(&[2, h, w, channels]));
        };
        keep(size, self.width);
        if self.stem.is_pooled() {
            size = halved(size);
        }
        let mut input = self.width;
        for (index, blocks) in self.depth.blocks().into_iter().enumerate() {
            let inner = self.width.saturating_mul(1 << index);
            let output = inner.saturating_mul(expansion);
            for block in 0..blocks {
                let before = size;
                if block == 0 && index > 0 {
                    size = halved(size);
                }
                match expansion {
                    1 => keep(size, inner),
                    _ => {
                        keep(before, inner);
                        keep(size, inner);
                    }
                }
                keep(size, output);
                if size != before || input != output {
                    keep(size, output);
                }
                input = output;
            }
        }
        kept
    }

    /// Number of values of the largest intermediate result of one image of `[height, width]`: those of the first stage,
    /// or of the first layer where its maxima are taken. Saturating.
    pub fn largest_values(&self, size: [usize; 2]) -> usize {
        let [height, width] = size.map(|side| side.div_ceil(self.stem.stride()));
        let first = saturating_product(&[height, width, self.width]);
        match self.stem.is_pooled() {
            // Its first stage has a quarter of the pixels, and at most four times the channels.
            true => first,
            false => first.saturating_mul(self.depth.expansion()),
        }
    }
}

/// Product that stays at the largest number where it would be larger.
pub(super) fn saturating_product(factors: &[usize]) -> usize {
    factors.iter().copied().fold(1, usize::saturating_mul)
}

/// Mean and standard deviation by channel: part of a model, so that its images are pixels in [0, 1] like everyone's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Unchecked")]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// Smallest deviation that pixels are divided by: below it the quotients are not numbers to compute with.
const SMALLEST_DEVIATION: f32 = 1e-6;
/// Largest mean, of either sign.
const LARGEST_MEAN: f32 = 1e6;

/// [`Normalize`] as a file says it.
#[derive(Deserialize)]
struct Unchecked {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<Unchecked> for Normalize {
    type Error = String;

    fn try_from(found: Unchecked) -> Result<Self, String> {
        Self::new(found.mean, found.std)
    }
}

impl Normalize {
    /// One mean and one deviation a channel, in pixels.
    ///
    /// # Errors
    /// In words, where that is not what they are.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self, String> {
        let counts = (mean.len(), std.len());
        if counts.0 != counts.1 || counts.0 == 0 {
            return Err(format!("{} means and {} deviations", counts.0, counts.1));
        }
        let wrong = |value: &&f32| !value.is_finite();
        if let Some(value) = mean.iter().chain(&std).find(wrong) {
            return Err(format!("{value} is no number"));
        }
        if let Some(value) = std.iter().find(|value| **value < SMALLEST_DEVIATION) {
            let expected = format!("expected {SMALLEST_DEVIATION} or more");
            return Err(format!("a deviation of {value}: {expected}"));
        }
        match mean.iter().find(|value| value.abs() > LARGEST_MEAN) {
            Some(value) => Err(format!(
                "a mean of {value}: expected {LARGEST_MEAN} or less, of pixels from 0 to 1"
            )),
            None => Ok(Self { mean, std }),
        }
    }

    /// Mean of each channel.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviation of each channel.
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// Of the images.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// The images less the mean, over the deviation; as they are where there is nothing to normalise by.
    pub(super) fn apply(own: Option<&Self>, images: Tensor<4>) -> Tensor<4> {
        let Some(Self { mean, std }) = own else {
            return images;
        };
        let by_channel = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [1, values.len(), 1, 1]);
            Tensor::<4>::from_data(data, &images.device().inner())
        };
        let (mean, std) = (by_channel(mean), by_channel(std));
        let lift = |x: Tensor<4>| match images.is_autodiff() {
            true => x.autodiff(),
            false => x,
        };
        (images.clone() - lift(mean)) / lift(std)
    }
}

/// The projection of a shortcut whose shape changes.
#[derive(Module, Debug)]
pub(super) struct Downsample {
    pub conv: Conv,
    pub bn: RouteNorm,
}

/// A residual block: two 3 × 3 convolutions, or the 1-3-1 bottleneck where `conv3` is there.
#[derive(Module, Debug)]
pub(super) struct Block {
    pub conv1: Conv,
    pub bn1: RouteNorm,
    pub conv2: Conv,
    pub bn2: RouteNorm,
    pub conv3: Option<Conv>,
    pub bn3: Option<RouteNorm>,
    pub downsample: Option<Downsample>,
}

impl Block {
    fn forward(&self, x: Tensor<4>, route: Route, mode: &mut Mode) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(down) => {
                let projected = down.conv.forward(x.clone());
                down.bn.forward(projected, None, false, route, mode)
            }
            None => x.clone(),
        };
        let y = self
            .bn1
            .forward(self.conv1.forward(x), None, true, route, mode);
        let y = self.conv2.forward(y);
        match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => {
                let y = conv3.forward(self.bn2.forward(y, None, true, route, mode));
                bn3.forward(y, Some(shortcut), true, route, mode)
            }
            _ => self.bn2.forward(y, Some(shortcut), true, route, mode),
        }
    }
}

/// Images in [0, 1] to feature vectors. Field names are those of the paper's released weights.
#[derive(Module, Debug)]
pub struct Encoder {
    pub(super) conv1: Conv,
    pub(super) bn1: RouteNorm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    /// Whether maxima are taken behind the first convolution.
    #[module(skip)]
    pub(super) is_pooled: bool,
    #[module(skip)]
    normalize: Option<Normalize>,
}

impl Encoder {
    /// A fresh encoder for images of `channels`, with `routes` BatchNorm branches.
    pub fn new(
        config: &EncoderConfig,
        channels: usize,
        routes: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let width = config.width;
        let norm = |channels| RouteNorm::new(channels, routes, device);
        let stem = config.stem;
        let conv1 = Conv::new([channels, width, stem.kernel()], stem.stride(), rng, device);
        let mut input = width;
        let bottleneck = config.depth.expansion() > 1;
        let mut stage = |index: usize| -> Vec<Block> {
            let inner = width << index;
            let output = inner * config.depth.expansion();
            let block = |b: usize| {
                let stride = if b == 0 && index > 0 { 2 } else { 1 };
                let mut conv = |shape, stride| Conv::new(shape, stride, rng, device);
                let block = Block {
                    conv1: if bottleneck {
                        conv([input, inner, 1], 1)
                    } else {
                        conv([input, inner, 3], stride)
                    },
                    bn1: norm(inner),
                    conv2: conv([inner, inner, 3], if bottleneck { stride } else { 1 }),
                    bn2: norm(inner),
                    conv3: bottleneck.then(|| conv([inner, output, 1], 1)),
                    bn3: bottleneck.then(|| norm(output)),
                    downsample: (stride != 1 || input != output).then(|| Downsample {
                        conv: conv([input, output, 1], stride),
                        bn: norm(output),
                    }),
                };
                input = output;
                block
            };
            (0..config.depth.blocks()[index]).map(block).collect()
        };
        Self {
            conv1,
            bn1: norm(width),
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            is_pooled: stem.is_pooled(),
            normalize: None,
        }
    }

    /// The same, but its images are normalised inside, as weights that were made elsewhere may want them.
    pub fn normalized(mut self, normalize: Option<Normalize>) -> Self {
        self.normalize = normalize;
        self
    }

    /// By what its images are normalised inside, if they are.
    pub fn normalize(&self) -> Option<&Normalize> {
        self.normalize.as_ref()
    }

    /// Images to features; in [`Mode::Train`] by the statistics' shards, which leave the way back of each to later.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` in [0, 1] to `[batch, features]`.
    pub fn features(&self, images: Tensor<4>, route: Route, mode: &mut Mode) -> Tensor<2> {
        match mode {
            Mode::Train(statistics) if statistics.shards() != Shards::Whole => {
                self.features_in_shards(images, route, statistics)
            }
            _ => self.pass(images, route, mode),
        }
    }

    /// Features of all shards, as a leaf of the loss's graph where gradients of the weights are tracked.
    fn features_in_shards(
        &self,
        images: Tensor<4>,
        route: Route,
        statistics: &mut Statistics,
    ) -> Tensor<2> {
        let is_tracked = self.conv1.weight.val().is_autodiff();
        let (shards, later) = (statistics.shards(), is_tracked && !share_one_graph());
        let passes = shards.passes().filter(|_| later);
        let passed = shards.each_own(|_, own| {
            let mut seen = Statistics::default();
            let encoder = match passes {
                Some(Passes::Twice) => self.valid(),
                // Weights of its own: a graph that shares a node with another thread's cannot be gone back at the same time.
                Some(Passes::Together) => self.valid().train(),
                Some(Passes::Once) | None => self.clone(),
            };
            let images = shards.part(&images, own);
            let features = encoder.pass(images, route, &mut Mode::Train(&mut seen));
            (features, (encoder, seen))
        });
        let (kept, others): (Vec<Tensor<2>>, Vec<_>) = passed.unzip();
        let (encoders, of_shards): (Vec<Self>, _) = others.into_iter().unzip();
        statistics.push_means(of_shards);
        let views = shards.views(images.dims()[0]);
        if !later {
            return shards.joined(views, kept);
        }
        let features = kept.iter().cloned().map(Tensor::inner).collect();
        let features = leaf(shards.joined(views, features));
        let encoder = self.clone();
        let way: WayBack = if passes == Some(Passes::Twice) {
            let images = images.inner();
            Box::new(move |_, own, wanted| {
                let images = shards.part(&images, own);
                let features = encoder.pass(images, route, &mut Mode::Batch);
                gradients_by_id(&encoder, &towards(features, wanted).backward())
            })
        } else {
            Box::new(move |place, _, wanted| {
                let (encoder, features) = (&encoders[place], kept[place].clone());
                gradients_by_id(encoder, &towards(features, wanted).backward())
            })
        };
        statistics.defer(Deferred::new(features.clone(), way));
        features
    }

    /// One forward pass of all images.
    fn pass(&self, images: Tensor<4>, route: Route, mode: &mut Mode) -> Tensor<2> {
        let images = Normalize::apply(self.normalize.as_ref(), images);
        let x = self.conv1.forward(engine::inside(images));
        let x = self.bn1.forward(x, None, true, route, mode);
        let x = match self.is_pooled {
            true => engine::max_pool(x),
            false => x,
        };
        let x = self.blocks().fold(x, |x, b| b.forward(x, route, mode));
        engine::pool(x)
    }

    /// With one BatchNorm branch: this route's, as the first.
    ///
    /// # Panics
    /// When the encoder was built without this route.
    pub fn on_route(&self, route: Route) -> Self {
        let mut own = self.clone();
        own.change_norms(|norm| norm.keep(route));
        own
    }

    /// With `routes` BatchNorm branches, each of them a copy of this route's.
    ///
    /// # Panics
    /// When the encoder was built without this route.
    pub fn with_copies_of(&self, route: Route, routes: usize) -> Self {
        let mut own = self.clone();
        own.change_norms(|norm| norm.copy(route, routes));
        own
    }

    fn change_norms(&mut self, change: impl Fn(&mut RouteNorm)) {
        let Self {
            bn1,
            layer1,
            layer2,
            layer3,
            layer4,
            ..
        } = self;
        change(bn1);
        for block in [layer1, layer2, layer3, layer4].into_iter().flatten() {
            change(&mut block.bn1);
            change(&mut block.bn2);
            block.bn3.iter_mut().for_each(&change);
            let shortcut = block.downsample.iter_mut();
            shortcut.for_each(|shortcut| change(&mut shortcut.bn));
        }
    }

    /// In the order in which they follow each other.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
            .into_iter()
            .flatten()
    }
}
