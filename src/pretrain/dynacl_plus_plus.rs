//! DynACL++, the post-processing of DynACL (Luo, Wang, Wang: "Rethinking the Effect of Data
//! Augmentation in Adversarial Contrastive Learning", ICLR 2023): the features of its encoder are
//! clustered, a linear head learns the clusters, and TRADES on these pseudo-labels then trains
//! encoder and head.
//!
//! As in the released code, the clustered features are those of clean images on the route `normal`,
//! and the route `pgd` is trained further as a network with one BatchNorm. Departure: the attack of
//! TRADES starts from noise, as everywhere here; that code starts from the image itself, where the
//! divergence has no gradient.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Method, SourceInfo, Trained, Trainer};
use crate::check::Check;
use crate::cluster::{KMeans, Points, PseudoLabels};
use crate::criterion::{Criterion, EndToEnd, Task};
use crate::data::Images;
use crate::data::augment::Weak;
use crate::error::{Error, Result};
use crate::finetune::{HeadOnly, features};
use crate::nn::{Backbone, Classifier, Encoder, EncoderConfig, Linear, Route};
use crate::pixels::Pixels;
use crate::random;
use crate::run::layout;
use crate::train::Plan;

/// Keys of a table `[pretrain."dynacl++"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DynAclPlusPlusSettings {
    /// Epochs, batch size and optimizer of TRADES.
    pub plan: Plan,
    /// Epochs, batch size and optimizer of the head before it.
    pub head_plan: Plan,
    /// The encoder to start from: a method of this recipe, `dynacl` by default, or a model file of
    /// any run.
    #[serde(default = "dynacl")]
    pub encoder: String,
    /// Number of clusters; 10 in the paper.
    pub clusters: usize,
    /// Weight of TRADES' divergence; 6 in the paper.
    pub beta: f64,
    /// Gradient steps of the attack; 10 in the paper.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of TRADES' images: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

fn dynacl() -> String {
    "dynacl".to_owned()
}

/// Batch size of the features.
const BATCH: usize = 256;

impl Method for DynAclPlusPlusSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.plan("head_plan", &self.head_plan)?;
        check.in_range("beta", self.beta, 0.0, 1e6)?;
        check.at_least_one("attack_steps", self.attack_steps)?;
        if self.clusters < 2 {
            let problem = format!("expected 2 or more, found {}", self.clusters);
            return check.refuse("clusters", problem, "10 is the paper's number");
        }
        check.views("weak", self.weak.check())
    }

    fn check_images(&self, images: &Images, check: &Check) -> Result<()> {
        check.batch("head_plan", &self.head_plan, images.len())?;
        if self.clusters > images.len() {
            let (clusters, images) = (self.clusters, images.len());
            let problem = format!("{clusters} clusters of only {images} training images");
            return check.refuse("clusters", problem, "use fewer");
        }
        Ok(())
    }

    fn source(&self) -> Option<&str> {
        Some(&self.encoder)
    }

    fn check_source(&self, source: &SourceInfo, own: &EncoderConfig, check: &Check) -> Result<()> {
        if source.encoder != *own {
            let problem = "the encoder to start from has another architecture than [encoder]";
            return check.refuse("encoder", problem, "choose [encoder] alike");
        }
        if !source.projection {
            let problem = "the encoder to start from has no projection head: it was trained with labels, or imported";
            return check.refuse("encoder", problem, "name one of DynACL's or its like");
        }
        Ok(())
    }

    fn starts_at(&self) -> Option<&'static str> {
        Some("encoder")
    }

    // Pseudo-labels and head are kept in the method's folder, for one recipe as a whole.
    fn depends_on_epochs(&self) -> bool {
        true
    }

    fn passes(&self) -> usize {
        2
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let inputs = trainer.inputs;
        let source = trainer.source(self)?;
        let (encoder, images) = (&source.backbone.encoder, &inputs.train.images);
        let labels = trainer.timed(|trainer| self.pseudo_labels(encoder, images, trainer))?;
        let labels = &labels.clusters[0].1;

        let device = trainer.device().clone();
        let task =
            |augment| Task::new(images, labels, self.clusters, augment, inputs.ball, &device);
        let encoder = encoder.on_route(source.info.route);
        let mut rng = random::generator(trainer.context.seed, trainer.stage.name, 0);
        let fresh =
            Linear::new(inputs.encoder.features(), self.clusters, &mut rng, &device).zeros();
        let (name, context) = (trainer.stage.name, &mut *trainer.context);
        let cached = features(name, &encoder, Route::Normal, images, BATCH, context)?;
        let head = HeadOnly::new(
            &encoder,
            Route::Normal,
            task(None),
            Criterion::Standard,
            Some(cached),
        );
        let linear = trainer.fit("head", &head, &self.head_plan, fresh)?;
        let objective = EndToEnd {
            task: task(Some(self.weak.clone())),
            criterion: Criterion::Trades {
                beta: self.beta,
                steps: self.attack_steps,
                step_size: self.attack_step_size.clone(),
            },
        };
        let fresh = Classifier {
            encoder,
            linear,
            route: Route::Normal,
        };
        let trained = trainer.fit("", &objective, &self.plan, fresh)?;
        Ok(Trained::from(Backbone {
            encoder: trained.encoder,
            head_proj: source.backbone.head_proj.clone(),
            fc: Vec::new(),
        }))
    }
}

impl DynAclPlusPlusSettings {
    /// Clusters of the encoder's features, kept in the method's folder: a training that is
    /// continued, maybe on another machine, must use the same ones.
    fn pseudo_labels(
        &self,
        encoder: &Encoder,
        images: &Images,
        trainer: &mut Trainer,
    ) -> Result<PseudoLabels> {
        let path = trainer.stage.folder.join(layout::PSEUDO_LABELS);
        let (count, name) = (self.clusters, trainer.stage.name);
        // Those of another training, which are replaced, do not count.
        if PseudoLabels::recorded(&path)?.as_deref() == Some(trainer.stage.resume.recipe) {
            return PseudoLabels::load(&path, images.len(), &[count]);
        }
        let context = &mut *trainer.context;
        let clean = features(name, encoder, Route::Normal, images, BATCH, context)?;
        let effort = KMeans {
            restarts: 3,
            iterations: 100,
        };
        let mut rng = random::generator(context.seed, &format!("{name}/cluster"), 0);
        let points = Points::new(clean);
        let found = points.cluster(count, effort, &mut rng, context.stop);
        let found = found.ok_or_else(|| Error::Interrupted {
            at: format!("{name}, clustering"),
            path: PathBuf::new(),
        })?;
        let labels = PseudoLabels {
            clusters: vec![(count, found.labels)],
            origin: format!(
                "k-means on the features of {}, seed {}",
                self.encoder, context.seed
            ),
        };
        labels.save(&path, trainer.stage.resume.recipe)?;
        Ok(labels)
    }
}
