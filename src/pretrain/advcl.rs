//! AdvCL (Fan, Liu, Chen, Zhang, Gan: "When Does Contrastive Learning Preserve Adversarial
//! Robustness from Pretraining to Finetuning?", NeurIPS 2021).
//!
//! Four views of every image: two strong ones and the high-frequency part of a weak one (the
//! original), all on the BatchNorm route `normal`; and the original attacked through the
//! contrastive loss, on `pgd`. A fifth view, attacked through the pseudo-labels on `pgd_ce`,
//! carries the supervision (equation 5). The joint loss is the sum of the two terms below, so each
//! attack maximizes its own term; the update minimizes the same terms.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer, ViewAttack};
use crate::attack::Ball;
use crate::check::Check;
use crate::cluster::PseudoLabels;
use crate::data::augment::{Strong, Weak};
use crate::data::{Batch, Images};
use crate::error::Result;
use crate::loss::{FixedViews, contrastive, mean_cross_entropy};
use crate::nn::{Backbone, Mode, Route};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};
use crate::view::HighFrequency;

/// Keys of a table `[pretrain.advcl]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdvClSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Temperature of the contrastive loss.
    pub temperature: f64,
    /// Weight of the pseudo-label term.
    pub cluster_weight: f64,
    /// Radius of the high-frequency view: frequencies nearer than this to the spectrum's centre are
    /// dropped. There is no such view by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_frequency_radius: Option<f32>,
    /// Number of strong views; 2 by default, as in the paper.
    #[serde(default = "two")]
    pub strong_views: usize,
    /// Numbers of clusters, of those in `[cluster]`: all by default, no pseudo-labels for `[]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Vec<usize>>,
    /// Gradient steps of the attack.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of the strong views.
    #[serde(default)]
    pub strong: Strong,
    /// Augmentation of the original, the view that is attacked and high-pass filtered.
    #[serde(default)]
    pub weak: Weak,
}

fn two() -> usize {
    2
}

impl Method for AdvClSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("temperature", self.temperature, 0.01, 100.0)?;
        check.in_range("cluster_weight", self.cluster_weight, 0.0, 1e6)?;
        if let Some(radius) = self.high_frequency_radius {
            check.in_range("high_frequency_radius", f64::from(radius), 0.0, 1e6)?;
        } else {
            check.at_least_one("strong_views", self.strong_views)?;
        }
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("strong", self.strong.check())?;
        check.views("weak", self.weak.check())
    }

    fn check_images(&self, images: &Images, check: &Check) -> Result<()> {
        let (height, width) = (images.height, images.width);
        let Some(radius) = self.high_frequency_radius else {
            return Ok(());
        };
        if !HighFrequency::new(height, width, radius).drops_everything() {
            return Ok(());
        }
        let problem = format!("nothing of {height} × {width} images is left beyond {radius}");
        let largest = HighFrequency::largest_radius(height, width);
        // Rounded down: the largest itself is an exact distance.
        let largest = (largest * 100.0).floor() / 100.0;
        let hint = format!("the largest useful radius for this size is {largest}");
        check.refuse("high_frequency_radius", problem, hint)
    }

    fn clustered(&self) -> bool {
        self.clusters != Some(Vec::new())
    }

    fn cluster_counts(&self) -> Option<&[usize]> {
        self.clusters.as_deref()
    }

    fn routes(&self) -> usize {
        Route::ALL.len()
    }

    fn route(&self) -> Route {
        Route::Pgd
    }

    fn passes(&self) -> usize {
        let high = usize::from(self.high_frequency_radius.is_some());
        self.strong_views + high + 1 + usize::from(self.clustered())
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let inputs = trainer.inputs;
        let labels = match &self.clusters {
            Some(counts) => &inputs.pseudo_labels.only(counts),
            None => inputs.pseudo_labels,
        };
        let objective = AdvCl::new(&inputs.train.images, self, labels, inputs.ball);
        trainer.train_backbone(self, &labels.counts(), &objective)
    }
}

/// Objective: the contrastive term and the pseudo-label term.
pub struct AdvCl<'a> {
    images: &'a Images,
    settings: &'a AdvClSettings,
    labels: &'a PseudoLabels,
    attack: ViewAttack,
    high_frequency: Option<HighFrequency>,
}

/// The pseudo-label term of a view's features (equation 5): mean cross-entropy over the cluster heads.
pub fn cluster_term(
    model: &Backbone,
    features: &Tensor<2>,
    labels: &[Tensor<1, Int>],
) -> Tensor<1> {
    mean_cross_entropy(model.cluster_logits(features), labels)
}

impl<'a> AdvCl<'a> {
    /// The objective on `images` with pseudo-labels of the same images, whose numbers of clusters
    /// are those of the model's heads.
    pub fn new(
        images: &'a Images,
        settings: &'a AdvClSettings,
        labels: &'a PseudoLabels,
        ball: Ball,
    ) -> Self {
        let filter = |radius| HighFrequency::new(images.height, images.width, radius);
        let step_size = settings.attack_step_size.as_ref();
        Self {
            high_frequency: settings.high_frequency_radius.map(filter),
            images,
            settings,
            labels,
            attack: ViewAttack::new(ball, settings.attack_steps, step_size),
        }
    }
}

impl Objective for AdvCl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let AdvClSettings {
            temperature,
            cluster_weight,
            strong,
            weak,
            ..
        } = self.settings;
        let (shards, own) = (step.shards(), step.own());
        let (rng, indices) = (step.rng, step.indices);
        let mut mode = Mode::Train(step.statistics);

        let filter = self.high_frequency.as_ref();
        let sizes = [indices.len(), self.images.channels];
        let weakened = match filter {
            Some(_) => HighFrequency::needed(own.clone(), sizes),
            None => own.clone(),
        };
        let original = weak.apply_at(weakened, self.images, indices, rng);
        let strong: Vec<Batch> = (0..self.settings.strong_views)
            .map(|_| strong.apply_at(own.clone(), self.images, indices, rng))
            .collect();
        let filtered = filter.map(|filter| filter.apply_at(own, &original));
        let original = to_tensor(original, step.device);
        let labels = self.labels.batch(indices, step.device);

        // The clean views do not depend on the perturbation. The released code forwards them again
        // in every attack iteration; their projections are the same each time, so they are computed
        // once.
        let mut forward = |view| step.tracked.forward(view, Route::Normal, &mut mode);
        let mut clean = Vec::new();
        for view in strong {
            let view = to_tensor(view, step.device);
            let [features, projections] = forward(view.clone());
            step.seen.add(&view, [features]);
            clean.push(projections);
        }
        // Features of views that were made from the original.
        let mut from_original = Vec::new();
        if let Some(view) = filtered {
            let [features, projections] = forward(to_tensor(view, step.device));
            from_original.push(features);
            clean.push(projections);
        }
        let fixed = clean.iter().cloned().map(Tensor::inner).collect();
        let fixed = FixedViews::new(fixed, *temperature);

        let detached = step.detached;
        let features =
            |route| move |x: Tensor<4>| (detached.encoder).features(x, route, &mut Mode::Batch);
        let loss = |z| fixed.contrastive(detached.project(z, &mut Mode::Batch));
        let gradient = shards.gradient_of(features(Route::Pgd), loss);
        let x_cl = self.attack.maximize(gradient, &original, rng);
        let x_ce = (!labels.is_empty()).then(|| {
            let loss = |z| cluster_term(detached, &z, &labels);
            let gradient = shards.gradient_of(features(Route::PgdCe), loss);
            self.attack.maximize(gradient, &original, rng)
        });

        let mut views = clean;
        let [features, projections] = step.tracked.forward(x_cl, Route::Pgd, &mut mode);
        from_original.push(features);
        views.push(projections);
        let contrastive = contrastive(views, *temperature);
        let Some(x_ce) = x_ce else {
            step.seen.add(&original, from_original);
            return Loss {
                total: contrastive,
                parts: Vec::new(),
            };
        };
        let features = (step.tracked.encoder).features(x_ce, Route::PgdCe, &mut mode);
        let cluster = cluster_term(step.tracked, &features, &labels);
        from_original.push(features);
        step.seen.add(&original, from_original);
        Loss {
            total: contrastive.clone() + cluster.clone() * *cluster_weight,
            parts: vec![("contrastive", contrastive), ("cluster", cluster)],
        }
    }
}
