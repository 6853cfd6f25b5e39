//! BatchNorm routes do not leak into each other, and a frozen encoder is frozen.

use advcl::attack::{Ball, Norm};
use advcl::cluster::PseudoLabels;
use advcl::experiment::Experiment;
use advcl::nn::{Mode, Route, Statistics};
use advcl::pretrain::advcl::AdvCl;
use advcl::recipe::Recipe;
use advcl::session::Context;
use advcl::tensor::{to_tensor, to_vec};
use advcl::train::{Checkpoint, Optimizer, Sgd, fit};
use advcl::weights::{self, Tensors};
use burn::module::Module;
use burn::tensor::Tensor;
use std::sync::atomic::AtomicBool;

use crate::{TINY, advcl_settings, backbone, device, images, pseudo_labels};

/// The branches that differ between two models, by the number in `bn_list.N`.
fn changed_branches(before: &Tensors, after: &Tensors) -> Vec<String> {
    let branch = |name: &str| {
        let (_, rest) = name.split_once("bn_list.")?;
        rest.split('.').next().map(str::to_owned)
    };
    let mut changed: Vec<String> = before
        .iter()
        .filter(|(name, value)| **value != after[*name])
        .filter_map(|(name, _)| branch(name))
        .collect();
    changed.sort();
    changed.dedup();
    changed
}

fn batch() -> Tensor<4> {
    to_tensor(images(16).batch(&(0..16).collect::<Vec<_>>()), &device())
}

#[test]
fn training_on_a_route_moves_its_branch_alone() {
    for (index, route) in Route::ALL.into_iter().enumerate() {
        let detached = backbone(3, 1);
        let before = weights::export(&detached);
        let tracked = detached.clone().train();
        let mut statistics = Statistics::default();
        let features = tracked
            .encoder
            .features(batch(), route, &mut Mode::Train(&mut statistics));
        let gradients = features.square().sum().backward();
        let stepped = Sgd::new(0.9, 1e-4, Optimizer::Sgd).step(0.1, detached, &tracked, &gradients);
        let after = weights::export(&statistics.absorb_into(stepped));

        assert_eq!(
            changed_branches(&before, &after),
            [index.to_string()],
            "{route:?}"
        );
        for (name, value) in &before {
            // All of the branch's statistics; the convolutions, which all routes share; no head.
            let own = name.contains(&format!("bn_list.{index}.running_"));
            if own || name.contains("conv") {
                assert_ne!(*value, after[name], "{route:?}: {name}");
            }
            if name.starts_with("head_proj") || name.starts_with("fc_") {
                assert_eq!(*value, after[name], "{route:?}: {name}");
            }
        }
    }
}

#[test]
fn a_pass_in_evaluation_or_batch_mode_changes_nothing() {
    let model = backbone(3, 1);
    let before = weights::export(&model);
    for route in Route::ALL {
        let first = to_vec(model.embed(batch(), route, &mut Mode::Eval));
        model.embed(batch(), route, &mut Mode::Batch);
        model.clone().train().embed(batch(), route, &mut Mode::Eval);
        assert_eq!(
            first,
            to_vec(model.embed(batch(), route, &mut Mode::Eval)),
            "{route:?}"
        );
    }
    assert_eq!(before, weights::export(&model));
}

#[test]
fn routes_give_different_features_once_their_statistics_differ() {
    let model = backbone(3, 1);
    let of = |model: &advcl::nn::Backbone, route| {
        to_vec(model.encoder.features(batch(), route, &mut Mode::Eval))
    };
    assert_eq!(
        of(&model, Route::Normal),
        of(&model, Route::Pgd),
        "fresh branches are the same"
    );
    let normal = of(&model, Route::Normal);
    let mut statistics = Statistics::default();
    model
        .encoder
        .features(batch(), Route::Pgd, &mut Mode::Train(&mut statistics));
    let model = statistics.absorb_into(model);
    assert_eq!(normal, of(&model, Route::Normal));
    assert_eq!(normal, of(&model, Route::PgdCe));
    assert_ne!(normal, of(&model, Route::Pgd));
}

#[test]
fn advcl_uses_the_routes_that_the_paper_says() {
    let images = images(32);
    let settings = advcl_settings(1);
    let ball = Ball {
        norm: Norm::Linf,
        radius: 0.1,
    };
    let without = PseudoLabels {
        clusters: Vec::new(),
        origin: String::new(),
    };
    // Without pseudo-labels nothing goes through the third branch.
    for (labels, expected) in [
        (pseudo_labels(32), vec!["0", "1", "2"]),
        (without, vec!["0", "1"]),
    ] {
        let folder = crate::folder();
        let objective = AdvCl::new(&images, &settings, &labels, ball);
        let (stop, mut observe) = (AtomicBool::new(false), |_: &_| {});
        let mut context = Context {
            shards: Default::default(),
            device: device(),
            seed: 1,
            precision: Default::default(),
            stop: &stop,
            observe: Box::new(&mut observe),
            logged: &|_, _, _| true,
        };
        let fresh = backbone(3, 1);
        let before = weights::export(&fresh);
        let checkpoint = folder.path().join("c");
        let trained = fit(
            "advcl",
            &objective,
            fresh,
            &settings.plan,
            32,
            Checkpoint::new(&checkpoint, ""),
            &mut context,
        );
        let (model, _) = trained.expect("training");
        assert_eq!(
            changed_branches(&before, &weights::export(&model)),
            expected
        );
    }
}

/// What is added to [`TINY`] for a second mode that leaves the encoder alone.
const TINY_ALF: &str = r#"
[finetune.alf]
loss = { pgd = { steps = 2 } }
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.steps = { milestones = [1] } }
"#;

#[test]
fn finetuning_leaves_the_encoder_bit_for_bit() {
    let text = [TINY, TINY_ALF].concat();
    for augment in [false, true] {
        let folder = crate::folder();
        let set = ["slf", "alf"].map(|mode| format!("finetune.{mode}.augment = {augment}"));
        let recipe = Recipe::parse("tiny", &text, &set).expect("the tiny recipe");
        let experiment =
            Experiment::open(recipe, folder.path().join("run")).expect("an experiment");
        let (stop, mut observe) = (AtomicBool::new(false), |_: &_| {});
        let mut context = Context {
            shards: Default::default(),
            device: device(),
            seed: 3,
            precision: Default::default(),
            stop: &stop,
            observe: Box::new(&mut observe),
            logged: &|_, _, _| true,
        };
        experiment
            .pretrain(Some("simclr"), &mut context)
            .expect("SimCLR");
        experiment.cluster(&mut context).expect("clusters");
        experiment
            .pretrain(Some("advcl"), &mut context)
            .expect("AdvCL");
        let cells = experiment.cells(None, None).expect("all rows");
        assert_eq!(cells.len(), 4);
        let mut heads = Vec::new();
        for cell in cells {
            let path = experiment.encoder_path(&cell.method);
            let file = crate::get(&path);
            let (encoder, _) = weights::load(&path).expect("a model");
            experiment
                .finetune(std::slice::from_ref(&cell), &mut context)
                .expect("finetuning");
            let same = file == crate::get(&path);
            assert!(same, "{cell:?}, augment {augment}: the encoder's file");
            let made = experiment.model_path(&cell);
            let (mut model, _) = weights::load(&made).expect("a model");
            for name in ["linear.weight", "linear.bias"] {
                let (_, values) = model.remove(name).unwrap_or_else(|| panic!("no {name}"));
                assert!(
                    values.iter().any(|value| *value != 0.0),
                    "{name} is all zeros"
                );
                heads.push(values);
            }
            assert!(
                encoder == model,
                "{cell:?}, augment {augment}: the encoder moved"
            );
        }
        // Each row has a head of its own.
        for (i, head) in heads.iter().enumerate() {
            assert!(!heads[..i].contains(head), "head {i}, augment {augment}");
        }
    }
}
