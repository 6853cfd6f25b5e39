//! A run that was stopped anywhere and goes on ends like one that was not, bit for bit.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use advcl::attack::{Ball, Norm};
use advcl::criterion::{Criterion, EndToEnd, Task};
use advcl::finetune::{HeadOnly, features};
use advcl::nn::{Backbone, Linear, Route};
use advcl::pretrain::advcl::AdvCl;
use advcl::pretrain::simclr::{self, SimClr};
use advcl::session::{Context, Event};
use advcl::train::{Checkpoint, Loss, Objective, Plan, Step, fit};
use advcl::weights::{self, Tensors};
use advcl::{Error, Experiment, Recipe, Result, random};

use crate::{advcl_settings, backbone, classifier, device, end_to_end, folder, images};
use crate::{labeled, plan, pseudo_labels, supervised_settings};

const IMAGES: usize = 64;
const EPOCHS: usize = 3;
const STEPS: usize = EPOCHS * IMAGES / 16;

/// What a training came to: the weights, every step's loss, the last checkpoint.
#[derive(PartialEq)]
struct Trained {
    weights: Tensors,
    losses: Vec<(usize, usize, u32)>,
    /// Means of each epoch, as the log has them.
    epochs: Vec<(usize, Vec<(String, f32)>)>,
    checkpoint: Tensors,
}

/// What the events of all sittings told.
#[derive(Default)]
struct Seen {
    losses: Vec<(usize, usize, u32)>,
    epochs: Vec<(usize, Vec<(String, f32)>)>,
}

/// One sitting, asked to stop after those of `stops` that it comes to (counted over the whole run,
/// from 1).
fn sit<O: Objective>(
    objective: &O,
    fresh: O::Model,
    plan: &Plan,
    checkpoint: &Path,
    seen: &mut Seen,
    stops: &[usize],
) -> Result<O::Model> {
    let stop = AtomicBool::new(false);
    let mut observe = |event: &Event| match event {
        Event::Step {
            epoch, step, loss, ..
        } => {
            seen.losses.push((*epoch, *step, loss.to_bits()));
            stop.store(stops.contains(&seen.losses.len()), Ordering::Relaxed);
        }
        Event::Epoch { epoch, losses, .. } => seen.epochs.push((*epoch, losses.clone())),
        _ => {}
    };
    let mut context = Context {
        shards: Default::default(),
        device: device(),
        seed: 7,
        precision: Default::default(),
        stop: &stop,
        observe: Box::new(&mut observe),
        logged: &|_, _, _| true,
    };
    Ok(fit(
        "stage",
        objective,
        fresh,
        plan,
        IMAGES,
        Checkpoint::new(checkpoint, &format!("lr = {}", plan.lr)),
        &mut context,
    )?
    .0)
}

/// Trains to the end, in as many sittings as `stops` makes necessary. Every sitting starts from
/// other initial weights, so that what is not restored shows.
fn train<O: Objective>(
    objective: &O,
    fresh: impl Fn(u64) -> O::Model,
    plan: &Plan,
    stops: &[usize],
) -> Trained {
    let folder = folder();
    let checkpoint = folder.path().join("checkpoint.safetensors");
    let mut seen = Seen::default();
    for sitting in 0..=stops.len() {
        match sit(
            objective,
            fresh(sitting as u64),
            plan,
            &checkpoint,
            &mut seen,
            stops,
        ) {
            Ok(model) => {
                assert_eq!(sitting, stops.len(), "a stop was not heard");
                let (checkpoint, _) = weights::load(&checkpoint).expect("a checkpoint");
                return Trained {
                    weights: weights::export(&model),
                    losses: seen.losses,
                    epochs: seen.epochs,
                    checkpoint,
                };
            }
            Err(Error::Interrupted { at, .. }) => {
                assert_eq!(seen.losses.len(), stops[sitting], "stopped late: {at}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never came to an end");
}

/// Holds interrupted trainings against one that was not.
fn resumes<O: Objective>(name: &str, objective: &O, fresh: impl Fn(u64) -> O::Model, plan: &Plan) {
    let whole = train(objective, &fresh, plan, &[]);
    assert_eq!(whole.losses.len(), STEPS);
    let each: Vec<usize> = (1..=STEPS).collect();
    // The first step, inside an epoch, its last step, the first after it, the very last, several,
    // all.
    for stops in [&[1][..], &[6], &[4], &[9], &[STEPS], &[3, 5, 8], &each] {
        let resumed = train(objective, &fresh, plan, stops);
        assert_eq!(
            whole.losses, resumed.losses,
            "{name}, stopped after {stops:?}: losses"
        );
        assert_eq!(
            whole.epochs, resumed.epochs,
            "{name}, stopped after {stops:?}: means of the epochs, each once"
        );
        assert!(
            whole == resumed,
            "{name}, stopped after {stops:?}: weights or checkpoint differ"
        );
    }
}

fn simclr_settings() -> simclr::SimClrSettings {
    simclr::SimClrSettings {
        plan: plan(EPOCHS, 0.1),
        temperature: 0.5,
        strong: Default::default(),
    }
}

#[test]
fn simclr() {
    let (images, settings) = (images(IMAGES), simclr_settings());
    let objective = SimClr {
        images: &images,
        settings: &settings,
    };
    resumes(
        "SimCLR",
        &objective,
        |seed| backbone(1, seed),
        &settings.plan,
    );
}

/// One training that saves after every step, and every checkpoint as a killed process would leave it. An epoch that was
/// saved and not logged is logged by the next process.
#[test]
fn a_process_that_is_killed_anywhere_loses_no_more_than_an_interval() {
    let (images, settings) = (images(IMAGES), simclr_settings());
    let objective = SimClr {
        images: &images,
        settings: &settings,
    };
    let whole = train(&objective, |seed| backbone(1, seed), &settings.plan, &[]);
    let folder = folder();
    let path = folder.path().join("checkpoint.safetensors");
    let (never, recipe) = (AtomicBool::new(false), format!("lr = {}", settings.plan.lr));
    let go_on = |name: &str, log: &[(usize, Vec<(String, f32)>)], copies: &mut usize| {
        let (path, kept) = (folder.path().join(name), *copies);
        let mut epochs = log.to_vec();
        let mut steps = 0;
        let has = |_: &str, epoch: usize, losses: &[(String, f32)]| {
            log.last()
                .is_some_and(|(last, means)| *last == epoch && means == losses)
        };
        let observe = |event: &Event| match event {
            // What is there now is what a process killed in the next step would leave.
            Event::Step { .. } => {
                steps += 1;
                if kept == 0 && path.exists() {
                    *copies += 1;
                    let copy = folder.path().join(format!("{copies}"));
                    std::fs::copy(&path, copy).expect("a copy");
                }
            }
            Event::Epoch { epoch, losses, .. } => epochs.push((*epoch, losses.clone())),
            _ => {}
        };
        let mut context = Context {
            shards: Default::default(),
            device: device(),
            seed: 7,
            precision: Default::default(),
            stop: &never,
            observe: Box::new(observe),
            logged: &has,
        };
        let checkpoint = Checkpoint {
            interval: std::time::Duration::ZERO,
            ..Checkpoint::new(&path, &recipe)
        };
        let (model, plan) = (backbone(1, kept as u64), &settings.plan);
        let trained = fit(
            "stage",
            &objective,
            model,
            plan,
            IMAGES,
            checkpoint,
            &mut context,
        );
        let (model, _) = trained.expect("nobody stops it");
        drop(context);
        (weights::export(&model), epochs, steps)
    };
    let mut copies = 0;
    let (weights, epochs, steps) = go_on("checkpoint.safetensors", &[], &mut copies);
    assert!(weights == whole.weights && epochs == whole.epochs);
    assert_eq!((steps, copies), (STEPS, STEPS - 1));
    for killed in 1..STEPS {
        // The epoch of a checkpoint between two epochs was saved, and the process killed before it could log it.
        let done = killed / (STEPS / EPOCHS);
        let logged = if killed % (STEPS / EPOCHS) == 0 {
            done - 1
        } else {
            done
        };
        let log = &whole.epochs[..logged];
        let (weights, epochs, steps) = go_on(&killed.to_string(), log, &mut copies);
        assert!(weights == whole.weights, "killed after step {killed}");
        assert_eq!(epochs, whole.epochs, "killed after step {killed}");
        assert_eq!(steps, STEPS - killed, "killed after step {killed}");
    }
    let found = weights::load(&path).expect("a checkpoint").1;
    assert!(
        found["advcl_checkpoint"].contains("\"arithmetic\":[\""),
        "{found:?}"
    );
}

#[test]
fn adversarial_pretraining() {
    let (images, labels, settings) = (
        images(IMAGES),
        pseudo_labels(IMAGES),
        advcl_settings(EPOCHS),
    );
    let ball = Ball {
        norm: Norm::L2,
        radius: 0.5,
    };
    let objective = AdvCl::new(&images, &settings, &labels, ball);
    resumes(
        "AdvCL",
        &objective,
        |seed| backbone(3, seed),
        &settings.plan,
    );
}

#[test]
fn supervised() {
    let (split, settings) = (labeled(IMAGES), supervised_settings(EPOCHS));
    let ball = Ball {
        norm: Norm::Linf,
        radius: 0.1,
    };
    let attacked = end_to_end(&split, &settings, ball).criterion;
    let trades = Criterion::Trades {
        beta: 6.0,
        steps: 2,
        step_size: None,
    };
    for criterion in [attacked, Criterion::Standard, trades] {
        let name = format!("{criterion:?}");
        let objective = EndToEnd {
            criterion,
            ..end_to_end(&split, &settings, ball)
        };
        resumes(&name, &objective, classifier, &settings.plan);
    }
}

#[test]
fn classifier_on_a_frozen_encoder() {
    let split = labeled(IMAGES);
    let encoder = backbone(3, 0).encoder;
    let fresh = |seed| Linear::new(16, 4, &mut random::generator(seed, "head", 0), &device());
    let ball = Ball {
        norm: Norm::Linf,
        radius: 0.1,
    };
    let attacked = Criterion::Pgd {
        steps: 2,
        step_size: None,
    };
    for (augment, criterion) in [
        (false, Criterion::Standard),
        (true, Criterion::Standard),
        (true, attacked),
    ] {
        let (stop, mut observe) = (AtomicBool::new(false), |_: &_| {});
        let mut context = Context {
            shards: Default::default(),
            device: device(),
            seed: 7,
            precision: Default::default(),
            stop: &stop,
            observe: Box::new(&mut observe),
            logged: &|_, _, _| true,
        };
        let route = Route::Pgd;
        let mut all = || features("slf", &encoder, route, &split.images, 20, &mut context);
        let cached = (!augment).then(|| all().expect("nobody asks to stop"));
        let weak = augment.then(Default::default);
        let task = Task::new(&split.images, &split.labels, 4, weak, ball, &device());
        let name = format!("{criterion:?}, augment {augment}");
        let head = HeadOnly::new(&encoder, route, task, criterion, cached);
        resumes(&name, &head, fresh, &plan(EPOCHS, 0.1));
    }
}

#[test]
fn a_checkpoint_of_something_else_is_refused_and_kept() {
    let (images, settings) = (images(IMAGES), simclr_settings());
    let objective = SimClr {
        images: &images,
        settings: &settings,
    };
    let folder = folder();
    let path = folder.path().join("checkpoint.safetensors");
    let sit = |fresh: Backbone, plan: &Plan| {
        sit(&objective, fresh, plan, &path, &mut Seen::default(), &[2])
    };
    sit(backbone(1, 0), &settings.plan)
        .map(drop)
        .expect_err("asked to stop");
    let before = crate::get(&path);
    let cases = [
        (
            "another plan",
            sit(backbone(1, 0), &plan(EPOCHS, 0.2)),
            "another recipe (it has `lr = 0.1`, this one `lr = 0.2`)",
        ),
        (
            "another model",
            sit(backbone(3, 0), &settings.plan),
            "bn_list",
        ),
    ];
    for (what, outcome, words) in cases {
        match outcome.map(drop) {
            Err(error @ Error::Model { .. }) => {
                assert!(error.to_string().contains(words), "{error}")
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    for length in [0, 7, 100, before.len() - 1] {
        crate::put(&path, &before[..length]);
        let outcome = sit(backbone(1, 0), &settings.plan).map(drop);
        assert!(
            matches!(outcome, Err(Error::Format { .. })),
            "cut to {length}: {outcome:?}"
        );
    }
}

#[test]
fn a_checkpoint_of_a_place_that_the_plan_never_comes_to_is_refused_and_kept() {
    let (images, settings) = (images(IMAGES), simclr_settings());
    let objective = SimClr {
        images: &images,
        settings: &settings,
    };
    let folder = folder();
    let path = folder.path().join("checkpoint.safetensors");
    let sit = || {
        let (fresh, plan, mut seen) = (backbone(1, 0), &settings.plan, Seen::default());
        sit(&objective, fresh, plan, &path, &mut seen, &[]).map(drop)
    };
    sit().expect("nobody stops it");
    // The end is such a place: nothing is left to do.
    sit().expect("nothing is left to do");
    let (tensors, metadata) = weights::load(&path).expect("a checkpoint");
    let key = "advcl_checkpoint";
    let whole: serde_json::Value = serde_json::from_str(&metadata[key]).expect("JSON");
    for (epoch, step) in [
        (EPOCHS + 1, 0),
        (EPOCHS, 1),
        (usize::MAX, usize::MAX),
        (1, IMAGES / 16),
        // Before the first step, with figures of an epoch.
        (0, 0),
    ] {
        let mut position = whole.clone();
        position["epoch"] = epoch.into();
        position["step"] = step.into();
        weights::save(&path, &tensors, &[(key, position.to_string())]).expect("a file");
        let before = crate::get(&path);
        let outcome = sit();
        assert!(
            matches!(outcome, Err(Error::Format { .. })),
            "epoch {epoch}, step {step}: {outcome:?}"
        );
        assert!(before == crate::get(&path), "epoch {epoch}, step {step}");
    }
}

#[test]
fn a_plan_that_became_shorter_goes_on_unless_more_than_it_has_begun() {
    let folder = folder();
    let path = folder.path();
    let constant = crate::only_simclr().replace(
        "weight_decay = 1e-4, schedule.cosine = {}",
        "weight_decay = 1e-4, schedule.steps = { milestones = [3] }",
    );
    let open = |run: &str, epochs: usize| {
        let set = [format!("pretrain.simclr.plan.epochs = {epochs}")];
        let recipe = Recipe::parse("constant", &constant, &set).expect("a recipe");
        Experiment::open(recipe, path.join(run)).expect("an experiment")
    };
    // Of four epochs, ten steps: the third epoch has begun.
    let (stop, mut steps) = (AtomicBool::new(false), 0);
    let observe = |event: &Event| {
        if let Event::Step { .. } = event {
            steps += 1;
            stop.store(steps == 10, Ordering::Relaxed);
        }
    };
    let context = Context::cpu().expect("a CPU").stopped_by(&stop);
    let mut context = context.observed(observe);
    let stopped = open("three", 4).pretrain(Some("simclr"), &mut context);
    assert!(
        matches!(stopped, Err(Error::Interrupted { .. })),
        "{stopped:?}"
    );
    drop(context);
    assert_eq!(steps, 10);
    crate::copy(&path.join("three"), &path.join("two"));
    for (run, epochs) in [("three", 3), ("two", 2)] {
        let trained = |run: &str| {
            let experiment = open(run, epochs);
            let mut context = Context::cpu().expect("a CPU");
            let trained = experiment.pretrain(Some("simclr"), &mut context);
            trained.expect("nobody stops it");
            crate::get(experiment.encoder_path("simclr"))
        };
        assert!(trained(run) == trained(&format!("new-{run}")), "{run}");
    }
}

/// SimCLR until a step, then a part of the loss that is no number, or weights that are none.
struct Spoiled<'a> {
    simclr: SimClr<'a>,
    at: usize,
    seen: Cell<usize>,
    loss_stays_finite: bool,
}

impl Objective for Spoiled<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        self.seen.set(self.seen.get() + 1);
        let Loss { total, .. } = self.simclr.loss(step);
        let one = total.clone() / total.clone().inner().autodiff();
        let part = match self.seen.get() == self.at {
            // Square root at zero: the value is 0, the slope is not a number.
            true if self.loss_stays_finite => ((one - 1.0) * 0.0).sqrt(),
            true => one * f32::NAN,
            false => one,
        };
        Loss {
            total: total + part.clone(),
            parts: vec![("spoiled", part)],
        }
    }
}

#[test]
fn divergence_is_named_and_the_last_good_checkpoint_kept() {
    let (images, settings) = (images(IMAGES), simclr_settings());
    // Steps 1 to 4 are the first epoch. A loss that is not finite is noticed at its step; weights
    // at the latest before they are saved.
    for (at, loss_stays_finite, words) in [
        (6, false, "stage: spoiled is NaN at epoch 2, step 2"),
        (8, true, "is NaN at epoch 2, step 4"),
    ] {
        let folder = folder();
        let path = folder.path().join("checkpoint.safetensors");
        let simclr = SimClr {
            images: &images,
            settings: &settings,
        };
        let objective = Spoiled {
            simclr,
            at,
            seen: Cell::new(0),
            loss_stays_finite,
        };
        let mut seen = Seen::default();
        let outcome = sit(
            &objective,
            backbone(1, 0),
            &settings.plan,
            &path,
            &mut seen,
            &[],
        );
        match outcome.map(drop) {
            Err(error @ Error::Diverged { .. }) => {
                assert!(error.to_string().contains(words), "{words}: {error}");
                assert_eq!(error.exit_code(), 1);
            }
            other => panic!("{words}: {other:?}"),
        }
        let (tensors, metadata) = weights::load(&path).expect("the checkpoint of epoch 1");
        assert!(
            metadata["advcl_checkpoint"].contains(r#""epoch":1,"step":0"#),
            "{metadata:?}"
        );
        for (name, (_, values)) in tensors {
            assert!(values.iter().all(|value| value.is_finite()), "{name}");
        }
    }
}
