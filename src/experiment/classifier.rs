//! Stages that need labels: classifiers and their figures.

use std::time::Instant;

use super::{Cell, Experiment};
use crate::criterion::{Criterion, EndToEnd, Task, one_hot};
use crate::data::augment::Weak;
use crate::error::{Error, Result};
use crate::finetune::{Entry, HeadOnly, Trains, features, soft_labels};
use crate::nn::{Classifier, Linear};
use crate::random;
use crate::run::{Model, ModelInfo};
use crate::session::Context;
use crate::train::{self, Checkpoint};
use burn::tensor::Tensor;

impl Experiment {
    /// Makes a row's classifier from its encoder. Nothing is left to do where it was trained together with the encoder.
    ///
    /// # Errors
    /// As [`train::fit`]; [`Error::Run`] when there is no encoder yet; [`Error::Recipe`] for a share of the labels that
    /// leaves a class without any.
    pub fn finetune(&self, cell: &Cell, context: &mut Context) -> Result<()> {
        let Some(mode) = &cell.mode else {
            return self.require_encoder(&cell.method, context).map(drop);
        };
        if self.load_classifier(cell, context)?.is_some() {
            return Ok(());
        }
        let entry = self.recipe.finetune.require(mode)?;
        let model = self.require_encoder(&cell.method, context)?;
        self.require_labels()?;
        let started = Instant::now();
        let text = self.text_of(cell.classifier());
        let mut fitting = Fitting {
            experiment: self,
            cell,
            entry,
            text: &text,
            trained: 0.0,
            looped: 0.0,
        };
        let classifier = fitting.classifier(&model, context)?;
        let beside = started.elapsed().as_secs_f64() - fitting.looped;
        let seconds = fitting.trained + beside;
        self.set_seconds(&cell.stage(), |times| times.finetune = seconds)?;
        let target = self.data.target();
        let images = &target.train.images;
        let info = ModelInfo {
            classes: target.classes.clone(),
            image_size: [images.height, images.width],
            finetuning: Some(mode.clone()),
            recipe: text,
            ..model.info
        };
        let mut backbone = model.backbone;
        backbone.encoder = classifier.encoder;
        Model {
            info,
            backbone,
            linear: Some(classifier.linear),
        }
        .save(&self.model_path(cell))
    }

    /// The images that have a label in this mode.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a share of the labels that leaves a class without any.
    pub(super) fn labeled(&self, entry: &Entry) -> Result<Vec<usize>> {
        let target = self.data.target();
        let (train, classes) = (&target.train, target.classes.len());
        let count = (train.images.len() as f64 * entry.labels()).round() as usize;
        let chosen = train.limited(classes, count.max(1), self.recipe.seed);
        let mut found = vec![0; classes];
        chosen.iter().for_each(|&i| found[train.labels[i]] += 1);
        if let Some(empty) = found.iter().position(|&count| count == 0) {
            let problem = format!(
                "{} of {} labels leave class {:?} without any",
                chosen.len(),
                train.images.len(),
                target.classes[empty]
            );
            let key = format!("finetune.{}.labels", entry.name);
            return Err(Error::recipe(
                key,
                problem,
                "use a larger share of the labels",
            ));
        }
        Ok(chosen)
    }
}

/// A classifier in the making, and the time that it takes.
struct Fitting<'a> {
    experiment: &'a Experiment,
    cell: &'a Cell,
    entry: &'a Entry,
    /// All that it depends on, as TOML.
    text: &'a str,
    /// Seconds of training, all sittings together.
    trained: f64,
    /// Seconds of this sitting in the loop.
    looped: f64,
}

impl Fitting<'_> {
    fn classifier(&mut self, model: &Model, context: &mut Context) -> Result<Classifier> {
        let (experiment, entry) = (self.experiment, self.entry);
        let target = experiment.data.target();
        let (train, classes) = (&target.train, target.classes.len());
        let (stage, batch) = (self.cell.stage(), experiment.recipe.evaluate.batch_size);
        let (encoder, route) = (&model.backbone.encoder, model.info.route);
        let settings = &entry.settings;
        let chosen = experiment.labeled(entry)?;
        let labels: Vec<usize> = chosen.iter().map(|&i| train.labels[i]).collect();
        let mut task = Task {
            images: &train.images,
            targets: one_hot(&labels, classes, &context.device),
            chosen,
            augment: settings.augment.then(Weak::default),
            ball: experiment.recipe.threat.ball(),
        };
        let mut rng = random::generator(context.seed, &format!("{stage}/init"), 0);
        let linear = Linear::new(
            experiment.recipe.encoder.features(),
            classes,
            &mut rng,
            &context.device,
        );
        if entry.trains() == Trains::Head {
            let cached = match (settings.augment, entry.loss()) {
                (false, Criterion::Standard) => {
                    let images = train.images.select(&task.chosen);
                    let all = features(&stage, encoder, route, &images, batch, context);
                    Some(all.map_err(|error| experiment.here(error))?)
                }
                _ => None,
            };
            let images = task.chosen.len();
            let objective = HeadOnly::new(encoder, route, task, entry.loss(), cached);
            let linear = self.fit("", &objective, linear, images, context)?;
            return Ok(Classifier {
                encoder: encoder.clone(),
                linear,
                route,
            });
        }
        let fresh = Classifier {
            encoder: encoder.clone(),
            linear: linear.zeros(),
            route,
        };
        if entry.soft_labels() && task.chosen.len() < train.images.len() {
            task = self.label_the_rest(task, fresh.clone(), context)?;
        }
        let images = task.chosen.len();
        let objective = EndToEnd {
            task,
            criterion: entry.loss(),
        };
        self.fit("", &objective, fresh, images, context)
    }

    /// All images: those with a label keep it, the others get what a standard full finetuning on the labeled ones says of
    /// them (ACL, section 3.3, where the finetuned network is a standard contrastive one; here it is the same encoder).
    fn label_the_rest<'t>(
        &mut self,
        task: Task<'t>,
        fresh: Classifier,
        context: &mut Context,
    ) -> Result<Task<'t>> {
        let (images, ball, augment) = (task.images, task.ball, task.augment.clone());
        let (labeled, hard) = (task.chosen.clone(), task.targets.clone());
        let objective = EndToEnd {
            task,
            criterion: Criterion::Standard,
        };
        let count = labeled.len();
        let teacher = self.fit("teacher", &objective, fresh, count, context)?;
        let rest: Vec<usize> = (0..images.len())
            .filter(|i| labeled.binary_search(i).is_err())
            .collect();
        let stage = format!("{}/soft-labels", self.cell.stage());
        let batch = self.experiment.recipe.evaluate.batch_size;
        let soft = soft_labels(&stage, &teacher, &images.select(&rest), batch, context)
            .map_err(|error| self.experiment.here(error))?;
        Ok(Task {
            images,
            chosen: [labeled, rest].concat(),
            targets: Tensor::cat(vec![hard, soft], 0),
            augment,
            ball,
        })
    }

    /// Trains a part, as [`train::fit`] does.
    fn fit<O: train::Objective>(
        &mut self,
        part: &str,
        objective: &O,
        fresh: O::Model,
        images: usize,
        context: &mut Context,
    ) -> Result<O::Model> {
        let stage = self.cell.stage();
        let folder = self.experiment.run.stage(&stage)?;
        let (stage, file) = train::part(&stage, part);
        let checkpoint = Checkpoint {
            path: &folder.join(file),
            recipe: self.text,
        };
        let mut plan = self.entry.settings.plan.clone();
        // Few labels: one step an epoch.
        plan.batch_size = plan.batch_size.min(images);
        let started = Instant::now();
        let fitted = train::fit(&stage, objective, fresh, &plan, images, checkpoint, context);
        let (model, seconds) = fitted?;
        self.trained += seconds;
        self.looped += started.elapsed().as_secs_f64();
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn labels_are_the_same_share_of_each_class_and_seeded() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |seed: u64, labels: f64| {
            let plan = "epochs = 1, batch_size = 50, lr = 0.1, momentum = 0.9, weight_decay = 0.0";
            let mode = format!(
                "finetune.semi-supervised = {{ labels = {labels}, plan = {{ {plan}, schedule.cosine = {{}} }} }}"
            );
            let seed = format!("seed = {seed}");
            let all = "data.train_limit = 10000".to_owned();
            let recipe = Recipe::load("smoke", &[all, seed.clone(), mode]).expect("a recipe");
            let run = folder.path().join(format!("{seed}, {labels}"));
            Experiment::open(recipe, &run).expect("an experiment")
        };
        let labeled = |seed, labels| {
            let experiment = open(seed, labels);
            let entry = experiment.recipe.finetune.require("semi-supervised");
            let chosen = experiment.labeled(entry.expect("its table"));
            let train = &experiment.data.pretraining.train;
            chosen.map(|chosen| {
                let mut counts = vec![0; 10];
                chosen.iter().for_each(|&i| counts[train.labels[i]] += 1);
                (chosen, counts)
            })
        };
        // 1000 images of each class.
        for (labels, each) in [(0.1, 100), (0.01, 10), (1.0, 1000)] {
            let (chosen, counts) = labeled(0, labels).expect("enough labels");
            assert_eq!(counts, [each; 10], "{labels}");
            assert!(chosen.is_sorted_by(|a, b| a < b), "{labels}: each once");
        }
        let (chosen, counts) = labeled(0, 0.0105).expect("enough labels");
        assert_eq!(
            (counts.iter().min(), counts.iter().max()),
            (Some(&10), Some(&11))
        );
        assert_eq!(chosen.len(), 105);
        assert_eq!(labeled(0, 0.0105).expect("the same again").0, chosen);
        assert_ne!(labeled(1, 0.0105).expect("another seed").0, chosen);
        let error = labeled(0, 0.0009).expect_err("nine labels of ten classes");
        let words = "recipe finetune.semi-supervised.labels: 9 of 10000 labels leave class ";
        assert!(error.to_string().starts_with(words), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
