//! Active learning in a run: which of its unlabeled images to label next.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cell, Experiment};
use crate::active::typical;
use crate::data::{Images, Split};
use crate::error::{Error, Result};
use crate::evaluate::{Evaluator, StageProgress};
use crate::finetune::features;
use crate::logits::{LogitRows, margin};
use crate::random;
use crate::run::Model;
use crate::session::Context;
use crate::tensor::unit_rows;

/// Strategy by which images are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Typical images of clusters without a label ([`typical`]).
    Coverage,
    /// Images whose prediction has the smallest margin under attack.
    Uncertain,
    /// Half by each.
    Mixed,
}

/// Image that is to be labeled.
#[derive(Clone, Debug, Serialize)]
pub struct Wanted {
    /// Index among the run's images for pretraining.
    pub image: usize,
    /// Its file; none where it did not come from one.
    #[serde(serialize_with = "crate::files::as_optional_text")]
    pub path: Option<PathBuf>,
    /// Strategy that chose it.
    pub strategy: Strategy,
    /// What spoke for it, in words.
    pub reason: String,
    /// Class that the classifier predicts, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<String>,
}

/// Image that has a label.
pub struct Labeled {
    /// Its file.
    pub path: PathBuf,
    /// Name of its class.
    pub class: String,
    /// "train", "val" or "test".
    pub split: &'static str,
}

/// Prediction of an image: its class, and the margin under attack.
struct Margin {
    class: usize,
    margin: f32,
}

impl Experiment {
    /// Chooses the `count` unlabeled images to label next, by the encoder of `cell`, and by its classifier where the strategy
    /// asks for uncertainty.
    ///
    /// # Errors
    /// [`Error::Data`] where every image has a label, and [`Error::Input`] for a count that cannot be; [`Error::Run`] when
    /// encoder or classifier is missing; [`Error::Features`] and [`Error::Logits`]; [`Error::Interrupted`].
    pub fn label_next(
        &self,
        cell: &Cell,
        strategy: Strategy,
        count: usize,
        context: &mut Context,
    ) -> Result<Vec<Wanted>> {
        let (first, pool) = self.unlabeled()?;
        if count == 0 || count > pool.len() {
            let problem = format!("expected 1 to {} images, found {count}", pool.len());
            return Err(Error::input("--count", problem, "that many have no label"));
        }
        let context = &mut context.watched(|_| ());
        context.seed = self.recipe.seed;
        let by_coverage = match strategy {
            Strategy::Coverage => count,
            Strategy::Uncertain => 0,
            Strategy::Mixed => count.div_ceil(2),
        };
        let mut wanted = Vec::new();
        if by_coverage > 0 {
            let path = self.encoder_path(&cell.method);
            self.require_model(
                &path,
                &format!("advcl pretrain --run {}", self.run.path().display()),
            )?;
            let model = Model::load(&path, &context.device)?;
            let (encoder, route) = (&model.backbone.encoder, model.info.route);
            let batch = self.recipe.evaluate.batch_size;
            let mut unit = |images: &Images| -> Result<_> {
                let all = features("label-next", encoder, route, images, batch, context)?;
                Ok(unit_rows(all))
            };
            let own = unit(&pool)?;
            let labeled = match self.labeled_images() {
                Some(images) if !images.is_empty() => Some(unit(images)?),
                _ => None,
            };
            let mut rng = random::generator(context.seed, "label-next", 0);
            let chosen = typical(own, labeled, by_coverage, &mut rng, context.stop);
            let Some(chosen) = chosen else {
                return Err(Error::Interrupted {
                    at: "label-next, clustering".to_owned(),
                    path: PathBuf::new(),
                });
            };
            wanted.extend(chosen.into_iter().map(|one| Wanted {
                image: one.image,
                path: pool.path(one.image),
                strategy: Strategy::Coverage,
                reason: format!("typical of {} similar images", one.cluster),
                predicted: None,
            }));
        }
        if by_coverage < count {
            let path = self.model_path(cell);
            let hint = format!("advcl finetune --run {}", self.run.path().display());
            self.require_model(&path, &hint)?;
            let model = Model::load(&path, &context.device)?;
            let margins = self.margins(&model, &path, &pool, context)?;
            let mut order: Vec<usize> = (0..pool.len()).collect();
            order.sort_by(|&a, &b| {
                margins[a]
                    .margin
                    .total_cmp(&margins[b].margin)
                    .then(a.cmp(&b))
            });
            order.retain(|image| wanted.iter().all(|one| one.image != *image));
            for one in &mut wanted {
                one.predicted = Some(model.info.classes[margins[one.image].class].clone());
            }
            let steps = self.attacker().pgd.steps;
            for image in order.into_iter().take(count - by_coverage) {
                let Margin { class, margin } = margins[image];
                wanted.push(Wanted {
                    image,
                    path: pool.path(image),
                    strategy: Strategy::Uncertain,
                    reason: format!("margin {margin:.2} under PGD-{steps}"),
                    predicted: Some(model.info.classes[class].clone()),
                });
            }
        }
        wanted.iter_mut().for_each(|one| one.image += first);
        Ok(wanted)
    }

    /// Images of the run that have labels; none where one of them did not come from a file.
    pub fn labeled_files(&self) -> Option<Vec<Labeled>> {
        let target = self.data.target();
        let held_out = match self.recipe.data.holdout > 0.0 {
            true => "train",
            false => "val",
        };
        let no_images = Split {
            images: target.train.images.select(&[]),
            labels: Vec::new(),
        };
        let held = self.data.held_out.as_ref().unwrap_or(&no_images);
        let mut all = Vec::new();
        for (split, name) in [
            (&target.train, "train"),
            (held, held_out),
            (&target.test, "test"),
        ] {
            for (i, &label) in split.labels.iter().enumerate() {
                all.push(Labeled {
                    path: split.images.path(i)?,
                    class: target.classes[label].clone(),
                    split: name,
                });
            }
        }
        Some(all)
    }

    /// Images without labels, and how many images are before them among those for pretraining.
    fn unlabeled(&self) -> Result<(usize, Images)> {
        let all = &self.data.pretraining.train;
        // Labeled images come first: more are joined to them.
        let first = match self.recipe.data.unlabeled.is_empty() {
            true => all.labels.len(),
            false => self.labeled_images().map_or(0, Images::len),
        };
        let rest: Vec<usize> = (first..all.images.len()).collect();
        if rest.is_empty() {
            let problem = "every image of this run has a label";
            let hint =
                "name folders of images without labels: --set 'data.unlabeled = [\"photos\"]'";
            return Err(Error::data(&self.data.pretraining.name, problem, hint));
        }
        Ok((first, all.images.select(&rest)))
    }

    /// Training images that have labels.
    fn labeled_images(&self) -> Option<&Images> {
        let target = self.data.target();
        (!target.train.labels.is_empty()).then_some(&target.train.images)
    }

    fn require_model(&self, path: &Path, command: &str) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let problem = format!("{} is not there yet", path.display());
        Err(Error::run(
            self.run.path(),
            problem,
            format!("make it first: {command}"),
        ))
    }

    /// Predictions of images, and their margins under this recipe's attack: the predicted class's logit over the largest
    /// other one, below 0 where the attack changes the prediction.
    fn margins(
        &self,
        model: &Model,
        path: &Path,
        pool: &Images,
        context: &mut Context,
    ) -> Result<Vec<Margin>> {
        let classifier = model.classifier(path)?.frozen();
        let logits = |x| classifier.logits(x);
        let indices: Vec<usize> = (0..pool.len()).collect();
        let unlabeled = Split {
            images: pool.clone(),
            labels: Vec::new(),
        };
        let evaluator = Evaluator {
            name: "label-next",
            logits: &logits,
            classes: model.info.classes.len(),
            split: &unlabeled,
            batch_size: self.recipe.evaluate.batch_size,
        };
        let mut stage = StageProgress::new("label-next/clean", pool.len());
        let predicted = evaluator.predict_clean(&indices, &mut stage, context)?;
        // The attack leads away from what is predicted.
        let split = Split {
            labels: predicted.clone(),
            ..unlabeled.clone()
        };
        let evaluator = Evaluator {
            split: &split,
            ..evaluator
        };
        let attacker = self.attacker();
        let mut attacked = LogitRows::default();
        let mut stage = StageProgress::new("label-next/attack", pool.len());
        stage.by_batch(&indices, evaluator.batch_size, context, |batch, context| {
            let rows = LogitRows::read(logits(evaluator.pgd(batch, attacker, context)));
            rows.require_finite("label-next", batch)?;
            attacked.extend(rows);
            Ok(())
        })?;
        let margin = |(row, class): (&[f32], usize)| Margin {
            class,
            margin: margin(row, class),
        };
        Ok(attacked.rows().zip(predicted).map(margin).collect())
    }
}
