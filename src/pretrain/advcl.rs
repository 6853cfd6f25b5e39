//! AdvCL (Fan, Liu, Chen, Zhang, Gan: "When Does Contrastive Learning Preserve Adversarial Robustness from
//! Pretraining to Finetuning?", NeurIPS 2021).
//!
//! Four views of every image: two strong ones and the high-frequency part of a weak one (the original), all on
//! the BatchNorm route `normal`; and the original attacked through the contrastive loss, on `pgd`. A fifth, attacked
//! through the pseudo-labels on `pgd_ce`, carries the supervision (equation 5). The joint loss separates into the
//! two terms below, so each attack climbs its own; both are used again, unchanged, for the update.

use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::attack::{Ball, Pgd};
use crate::cluster::PseudoLabels;
use crate::data::Images;
use crate::data::augment::{Strong, Weak};
use crate::loss::{FixedViews, contrastive, mean_cross_entropy};
use crate::nn::{Backbone, Mode, Route};
use crate::pixels::Pixels;
use crate::train::{Loss, Objective, Plan, Step, to_tensor};
use crate::view::HighFrequency;

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Of the contrastive loss.
    pub temperature: f64,
    /// Weight of the pseudo-label term.
    pub cluster_weight: f64,
    /// Frequencies nearer than this to the spectrum's centre are dropped from the high-frequency view.
    pub high_frequency_radius: f32,
    /// Of the attack.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Two of the views.
    #[serde(default)]
    pub strong: Strong,
    /// The original, which is attacked and of which the high frequencies are taken.
    #[serde(default)]
    pub weak: Weak,
}

/// The objective.
pub struct AdvCl<'a> {
    images: &'a Images,
    settings: &'a Settings,
    labels: &'a PseudoLabels,
    ball: Ball,
    high_frequency: HighFrequency,
    device: Device,
}

/// The pseudo-label term of an attacked view (equation 5): mean cross-entropy over the cluster heads.
pub fn cluster_term(
    model: &Backbone,
    attacked: Tensor<4>,
    labels: &[Tensor<1, Int>],
    mode: &mut Mode,
) -> Tensor<1> {
    let features = model.encoder.features(attacked, Route::PgdCe, mode);
    mean_cross_entropy(model.cluster_logits(&features), labels)
}

impl<'a> AdvCl<'a> {
    /// `labels` are of the same `images`, and their cluster counts are the model's.
    pub fn new(
        images: &'a Images,
        settings: &'a Settings,
        labels: &'a PseudoLabels,
        ball: Ball,
        device: Device,
    ) -> Self {
        let radius = settings.high_frequency_radius;
        Self {
            high_frequency: HighFrequency::new(images.height, images.width, radius),
            images,
            settings,
            labels,
            ball,
            device,
        }
    }
}

impl Objective for AdvCl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let Settings {
            temperature,
            cluster_weight,
            strong,
            weak,
            ..
        } = self.settings;
        let (rng, indices) = (step.rng, step.indices);
        let mut mode = Mode::Train(step.statistics);

        let original = weak.apply(self.images, indices, rng);
        let clean_views = [
            strong.apply(self.images, indices, rng),
            strong.apply(self.images, indices, rng),
            self.high_frequency.apply(&original),
        ];
        let original = to_tensor(original, &self.device);
        let labels = self.labels.batch(indices, &self.device);

        // The clean views do not depend on the perturbation. The released code forwards them again in every
        // attack iteration; their projections are the same each time, so they are computed once.
        let clean = clean_views.map(|view| {
            step.live
                .embed(to_tensor(view, &self.device), Route::Normal, &mut mode)
        });
        let fixed = FixedViews::new(clean.clone().map(Tensor::inner).to_vec(), *temperature);

        let step_size = self.settings.attack_step_size.as_ref();
        let pgd = Pgd::new(self.settings.attack_steps, step_size, self.ball);
        let climb = |x| fixed.contrastive(step.plain.embed(x, Route::Pgd, &mut Mode::Batch));
        let x_cl = pgd.maximize(climb, &original, self.ball, rng);
        let x_ce = (!labels.is_empty()).then(|| {
            let climb = |x| cluster_term(step.plain, x, &labels, &mut Mode::Batch);
            pgd.maximize(climb, &original, self.ball, rng)
        });

        let mut views = clean.to_vec();
        views.push(step.live.embed(x_cl, Route::Pgd, &mut mode));
        let contrastive = contrastive(views, *temperature);
        let Some(x_ce) = x_ce else {
            return Loss {
                total: contrastive,
                parts: Vec::new(),
            };
        };
        let cluster = cluster_term(step.live, x_ce, &labels, &mut mode);
        Loss {
            total: contrastive.clone() + cluster.clone() * *cluster_weight,
            parts: vec![("contrastive", contrastive), ("cluster", cluster)],
        }
    }
}
