//! Stages that need labels: classifiers and their figures.

use std::time::Instant;

use super::state::{State, Work};
use super::{Cell, Experiment, Stale, classifier_title};
use crate::check::Check;
use crate::criterion::{Criterion, EndToEnd, Task, one_hot};
use crate::data::augment::Weak;
use crate::error::{Error, Result};
use crate::finetune::{Entry, HeadOnly, Trains, closed, features, soft_labels};
use crate::loss::diverges;
use crate::nn::{Classifier, Linear};
use crate::random;
use crate::recipe::{Artifact, title, to_text};
use crate::run::{MODEL_FORMAT, Model, ModelInfo, layout};
use crate::session::{Context, Event};
use crate::train::{self, Checkpoint, Resume};
use burn::tensor::Tensor;

impl Experiment {
    /// Finetunes the classifiers of some rows. A row whose encoder is missing is passed over with a note,
    /// unless none is left.
    ///
    /// # Errors
    /// As [`train::fit`]; [`Error::Run`] when there is no encoder yet, and for stale classifiers that took
    /// long; [`Error::Recipe`] for a share of the labels that leaves a class without any.
    pub fn finetune(&self, cells: &[Cell], context: &mut Context) -> Result<()> {
        self.require_permission(cells, &[])?;
        self.remember(context)?;
        self.enter(context, |context| {
            self.each_row(cells, context, |cell, context| {
                self.make_classifier(cell, context)
            })?;
            Ok(())
        })
    }

    /// Does `work` on each row that has what it needs; says what the others lack.
    ///
    /// # Errors
    /// The first row's lack, where no row has what it needs; any other error at once.
    pub(super) fn each_row<T>(
        &self,
        cells: &[Cell],
        context: &mut Context,
        mut work: impl FnMut(&Cell, &mut Context) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (mut done, mut lack, mut notes) = (Vec::new(), None, Vec::new());
        for cell in cells {
            match work(cell, context) {
                Ok(value) => done.push(value),
                Err(error @ Error::Run { .. }) => {
                    let hint = error
                        .hint()
                        .map_or(String::new(), |hint| format!("; {hint}"));
                    notes.push((cell.stage(), format!("passed over: {error}{hint}")));
                    lack.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match lack {
            Some(error) if done.is_empty() => Err(error),
            _ => {
                for (stage, text) in notes {
                    context.note(stage, text);
                }
                Ok(done)
            }
        }
    }

    /// Makes a row's classifier from its encoder. Nothing is left to do where it was trained together with
    /// the encoder.
    pub(super) fn make_classifier(&self, cell: &Cell, context: &mut Context) -> Result<()> {
        let Some(mode) = &cell.mode else {
            return self.require_encoder(&cell.method, context).map(drop);
        };
        self.require_current_encoder(&cell.method)?;
        let what = classifier_title(cell);
        let work = self.work(&what, &cell.stage(), self.classifier_state(cell)?, context)?;
        let Work::Compute {
            continues,
            replaces,
        } = work
        else {
            return Ok(());
        };
        let entry = self.recipe.finetune.require(mode)?;
        let model = self.require_encoder(&cell.method, context)?;
        self.require_labels()?;
        let started = Instant::now();
        let expected = self.expected_classifier(cell)?;
        let (text, begun) = (to_text(&expected), self.checkpoint_text(&expected));
        let mut fitting = Fitting {
            experiment: self,
            cell,
            entry,
            resume: Resume {
                recipe: &begun,
                continues: continues.as_deref(),
                replaces,
            },
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
            reading: target.reading,
            format: MODEL_FORMAT,
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

    /// Refuses an encoder that is missing or not what the recipe asks for.
    fn require_current_encoder(&self, method: &str) -> Result<()> {
        let path = self.encoder_path(method);
        let info = ModelInfo::load(&path)?;
        let run = self.run.path().display();
        let refuse =
            |problem: String, hint: String| Err(Error::run(self.run.path(), problem, hint));
        let Some(info) = info else {
            let hint = format!("make it first: advcl pretrain {run} --method {method}");
            return refuse(format!("no {method} encoder yet"), hint);
        };
        let what = title(Artifact::Encoder(method));
        match self.encoder_state(method)? {
            State::Stale(other) if self.stale != Stale::Reuse => refuse(
                format!(
                    "the {what} was made with other settings or images: {}",
                    other.why
                ),
                format!(
                    "--reuse finetunes it as it is; `advcl pretrain {run} --method {method} --replace` with the same --set makes it again"
                ),
            ),
            State::Shorter { .. } => refuse(
                format!("the {what} has fewer epochs than the recipe asks for"),
                format!(
                    "continue it first: advcl pretrain {run} --method {method} with the same --set"
                ),
            ),
            _ if info.channels != self.data.target().train.images.channels => refuse(
                format!(
                    "the {what} takes images of {} channel(s), these have {}",
                    info.channels,
                    self.data.target().train.images.channels
                ),
                "convert them, or pretrain another encoder".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// Places of the training images that have a label in this mode.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a share of the labels that leaves a class without any, or shards without images.
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
        self.recipe
            .check_labeled(&Check::new(""), entry, chosen.len())?;
        Ok(chosen)
    }
}

/// Finetuning of one classifier, and the time that it takes.
struct Fitting<'a> {
    experiment: &'a Experiment,
    cell: &'a Cell,
    entry: &'a Entry,
    /// Checkpoints that it continues.
    resume: Resume<'a>,
    /// Seconds of training, over all sittings.
    trained: f64,
    /// Seconds of this sitting in the training loop.
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
            targets: (settings.class_weights)
                .weigh(one_hot(&labels, classes, &context.device), &labels),
            chosen,
            augment: settings.augment.then(Weak::default),
            ball: experiment.recipe.threat.ball(),
        };
        let mut rng = random::generator(context.seed, &format!("{stage}/init"), 0);
        let linear = Linear::new(
            model.info.encoder.features(),
            classes,
            &mut rng,
            &context.device,
        );
        if entry.trains() == Trains::Head {
            let cached = match entry.encodes() {
                true => None,
                false => {
                    let images = train.images.select(&task.chosen);
                    let all = features(&stage, encoder, route, &images, batch, context);
                    Some(all?)
                }
            };
            if let (Some(features), false) = (&cached, settings.solver.is_sgd()) {
                let (features, weights) = (features.clone(), settings.class_weights);
                return Ok(Classifier {
                    encoder: encoder.clone(),
                    linear: closed(&stage, features, &labels, classes, weights, context)?,
                    route,
                });
            }
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

    /// Task on all images: those with a label keep it, the others get the probabilities that a standard full finetuning
    /// on the labeled ones predicts (ACL, section 3.3, where the finetuned network is a standard contrastive one; here it is the same encoder).
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
        let soft = soft_labels(&stage, &teacher, &images.select(&rest), batch, context)?;
        Ok(Task {
            images,
            chosen: [labeled, rest].concat(),
            targets: Tensor::cat(vec![hard, soft], 0),
            augment,
            ball,
        })
    }

    /// Trains one part with [`train::fit`].
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
        let (stage, file) = layout::part(&stage, part);
        let checkpoint = Checkpoint {
            path: &folder.join(file),
            resume: self.resume,
            interval: self.experiment.recipe.checkpoint.interval(),
        };
        let plan = self.entry.settings.plan.clone();
        let mut plan = plan.expect("checked: only a classifier in closed form has none");
        // Few labels: one step an epoch.
        if plan.batch_size > images {
            let asked = plan.batch_size;
            let text = format!("batches of all {images} images instead of {asked}");
            context.note(&stage, text);
            plan.batch_size = images;
        }
        let started = Instant::now();
        let mut losses = Vec::new();
        let (model, sittings) = {
            let mut watched = context.watched(|event| {
                if let Event::Step { loss, .. } = event {
                    losses.push(*loss);
                }
            });
            let context = &mut watched;
            train::fit(&stage, objective, fresh, &plan, images, checkpoint, context)?
        };
        if let Some(reason) = diverges(&losses) {
            let advice =
                "its figures are those of a failed training: try a smaller lr in this mode's plan";
            context.note(&stage, format!("warning: {reason}; {advice}"));
        }
        self.trained += sittings.seconds;
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

    #[test]
    fn more_shards_than_labeled_images_are_refused_before_any_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let context = Context::cpu().expect("a CPU");
        let plan = "{ epochs = 1, batch_size = 50, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} }";
        // One image of each class has a label.
        for (shards, mode, refused) in [
            (5, "semi-supervised", None),
            (6, "semi-supervised", Some("2 images")),
            (10, "alf", None),
            (11, "alf", Some("1 image")),
            // Features of a frozen encoder are computed once, without shards.
            (25, "slf", None),
        ] {
            let set = [
                "data.train_limit = 10000".to_owned(),
                format!("shards = {shards}"),
                format!("finetune.{mode} = {{ labels = 0.001, plan = {plan} }}"),
            ];
            let recipe = Recipe::load("smoke", &set).expect("a recipe");
            let run = folder.path().join(format!("{mode}, {shards}"));
            let experiment = Experiment::open(recipe, &run).expect("an experiment");
            let checked = experiment.check_ready(&context);
            let expected = refused.map(|least| {
                format!(
                    "recipe shards: {shards} shards of 10 images, the labeled ones of finetune.{mode}: expected {least} a shard at least"
                )
            });
            let found = checked.err().map(|error| error.to_string());
            assert_eq!(found, expected, "{mode}, {shards}");
        }
    }
}
