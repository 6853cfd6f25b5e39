//! Adversarial training with labels: its loss, its place beside the methods without labels, its end
//! without them.

use advcl::attack::{Ball, Norm, Pgd};
use advcl::criterion::{Criterion, EndToEnd, Task};
use advcl::data::Split;
use advcl::data::augment::Weak;
use advcl::experiment::Experiment;
use advcl::loss::cross_entropy;
use advcl::nn::{Backbone, Classifier, Encoder, Linear, Mode, Route, Statistics};
use advcl::pretrain::adversarial_training::AdversarialTrainingSettings;
use advcl::random;
use advcl::recipe::Recipe;
use advcl::run::Model;
use advcl::session::Context;
use advcl::tensor::{label_tensor, to_tensor, to_vec};
use advcl::train::{Checkpoint, Loss, Objective, Seen, Step, fit};
use advcl::weights;
use burn::module::Module;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::{TINY_SUPERVISED, Transcript, end_to_end, folder_after, supervised_settings};
use crate::{advcl, classifier, contents, device, folder, get, labeled, png, put};

const METHOD: &str = "adversarial-training";

/// The loss of the first 16 images, and the model with its running statistics moved.
fn loss(
    split: &Split,
    settings: &AdversarialTrainingSettings,
    radius: f64,
    model: &Classifier,
) -> (f32, Classifier) {
    let objective = end_to_end(split, settings, linf(radius));
    let mut statistics = Statistics::default();
    let Loss { total, parts } = objective.loss(Step {
        tracked: &model.clone().train(),
        detached: model,
        indices: &(0..16).collect::<Vec<_>>(),
        epoch: 0,
        rng: &mut random::generator(1, "step", 0),
        device: &device(),
        statistics: &mut statistics,
        seen: &mut Seen::default(),
    });
    assert!(parts.is_empty());
    (to_vec(total)[0], statistics.absorb_into(model.clone()))
}

#[track_caller]
fn weights_equal(a: &Classifier, b: &Classifier) {
    assert!(
        weights::export(a) == weights::export(b),
        "statistics differ"
    );
}

fn linf(radius: f64) -> Ball {
    Ball {
        norm: Norm::Linf,
        radius,
    }
}

#[test]
fn the_loss_is_the_cross_entropy_of_attacked_images() {
    let (split, model) = (labeled(32), classifier(1));
    let mut settings = supervised_settings(1);
    let indices: Vec<usize> = (0..16).collect();
    let labels = label_tensor(&split.labels[..16], &device());
    let value = |images, mode: &mut Mode| {
        let loss = cross_entropy(model.forward(images, mode), labels.clone());
        to_vec(loss)[0]
    };
    // An attacker who can do nothing leaves supervised training.
    for padding in [0, 4] {
        (settings.weak.padding, settings.weak.flip) = (padding, 0.0);
        let mut rng = random::generator(1, "step", 0);
        let images = settings.weak.apply(&split.images, &indices, &mut rng);
        if padding == 0 {
            assert_eq!(images, split.images.batch(&indices));
        }
        let images = to_tensor(images, &device());
        let mut statistics = Statistics::default();
        let clean = value(images.clone(), &mut Mode::Train(&mut statistics));
        let (found, moved) = loss(&split, &settings, 0.0, &model);
        assert_eq!(found, clean, "padding {padding}");
        weights_equal(&moved, &statistics.absorb_into(model.clone()));

        // One who can do something: PGD on the same loss, with the batch's statistics; the running
        // ones see its outcome, and nothing on the way.
        let climb = |x| cross_entropy(model.forward(x, &mut Mode::Batch), labels.clone());
        let pgd = Pgd::new(2, settings.attack_step_size.as_ref(), linf(0.1));
        let attacked = pgd.maximize(climb, &images, linf(0.1), &mut rng);
        let mut statistics = Statistics::default();
        let robust = value(attacked, &mut Mode::Train(&mut statistics));
        let (found, moved) = loss(&split, &settings, 0.1, &model);
        assert_eq!(found, robust, "padding {padding}");
        assert!(robust > clean + 0.01, "{robust} attacked, {clean} clean");
        weights_equal(&moved, &statistics.absorb_into(model.clone()));
    }
    // It is of these labels.
    let other = Split {
        labels: vec![0; 32],
        ..split.clone()
    };
    let of = |split: &Split| loss(split, &settings, 0.1, &model).0;
    assert_ne!(of(&split), of(&other));
}

#[test]
fn what_a_recipe_says_is_what_is_trained() {
    let more = TINY_SUPERVISED.replace(
        "attack_step_size = \"0.05\"",
        "weak = { padding = 2, flip = 0.25 }",
    );
    let plan = "plan = { epochs = 1, batch_size = 16, lr = 0.05, momentum = 0.8, weight_decay = 1e-3, schedule.cosine = {} }";
    let weak = Weak {
        padding: 2,
        flip: 0.25,
    };
    let text = format!(
        "{}{more}
        [pretrain.supervised]\nweak = {{ padding = 2, flip = 0.25 }}\n{plan}
        [pretrain.trades]\nbeta = 3.0\nattack_steps = 2\nattack_step_size = \"0.05\"\nweak = {{ padding = 2, flip = 0.25 }}\n{plan}",
        crate::only_simclr()
    );
    let recipe = Recipe::parse("three", &text, &[]).expect("a recipe");
    let folder = tempfile::tempdir().expect("a folder");
    let experiment = Experiment::open(recipe, folder.path()).expect("an experiment");
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
    let train = &experiment.data.pretraining.train;
    let pgd = Criterion::Pgd {
        steps: 2,
        step_size: None,
    };
    let trades = Criterion::Trades {
        beta: 3.0,
        steps: 2,
        step_size: Some("0.05".parse().expect("a distance")),
    };
    for (name, criterion) in [
        ("supervised", Criterion::Standard),
        (METHOD, pgd),
        ("trades", trades),
    ] {
        let mut rng = random::generator(3, &format!("{name}/init"), 0);
        let fresh = Classifier {
            encoder: Encoder::new(&crate::encoder(), 1, 1, &mut rng, &device()),
            linear: Linear::new(16, 10, &mut rng, &device()),
            route: Route::Normal,
        };
        let augment = Some(weak.clone());
        let (images, labels) = (&train.images, &train.labels);
        let task = Task::new(images, labels, 10, augment, linf(0.1), &device());
        let entry = experiment.recipe.pretrain.require(name).expect("a table");
        let path = folder.path().join(name).with_extension("checkpoint");
        let checkpoint = Checkpoint::new(&path, "");
        let objective = EndToEnd { task, criterion };
        let plan = entry.method().plan();
        let trained = fit(name, &objective, fresh, plan, 64, checkpoint, &mut context);
        let (trained, _) = trained.expect("training");
        let mut expected = weights::export(&Backbone::without_heads(trained.encoder));
        for (part, tensor) in weights::export(&trained.linear) {
            expected.insert(format!("linear.{part}"), tensor);
        }
        experiment
            .pretrain(Some(name), &mut context)
            .expect("training");
        let (found, _) = weights::load(&experiment.encoder_path(name)).expect("a model");
        assert!(found == expected, "{name}: another training");
    }
}

#[test]
fn it_stands_beside_the_others_with_the_classifier_that_it_trained() {
    let folder = folder_after("run supervised.toml --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.run("evaluate run", 0);
    let outcome = &advcl(path, "run --run run --json").expect(0).json()["outcomes"][2];
    assert_eq!(
        (&outcome["method"], &outcome["finetuning"]),
        (&METHOD.into(), &"end-to-end".into())
    );
    assert!(outcome["seconds"]["finetune"] == 0.0 && outcome["seconds"]["pretrain"] != 0.0);

    // The file has an encoder with one BatchNorm branch and the classifier; no head that nothing
    // trained.
    let file = path.join(format!("run/{METHOD}/model.safetensors"));
    let (tensors, _) = weights::load(&file).expect("a model");
    let heads = ["head_proj.", "fc_"];
    assert!(
        !tensors
            .keys()
            .any(|name| heads.iter().any(|head| name.starts_with(head)))
    );
    assert!(!tensors.keys().any(|name| name.contains("bn_list.1")));
    assert_eq!(tensors["linear.weight"].0, [10, 16]);
    let info = Model::load(&file, &device()).expect("a model").info;
    assert_eq!((info.route, info.classes.len()), (Route::Normal, 10));

    // There is nothing to finetune; and its row alone comes without another's.
    let before = contents(path);
    advcl(path, &format!("finetune --run run --method {METHOD}")).expect(0);
    transcript.run(&format!("evaluate --run run --method {METHOD}"), 0);
    assert!(before == contents(path), "a finished run changed");
    for command in ["finetune", "evaluate"] {
        let args = format!("{command} --run run --method {METHOD} --mode slf");
        transcript.refuse(&args);
    }
    transcript.check("a_supervised_method_beside_the_others");
    put(path.join("photo.png"), png(28, &[9; 28 * 28]));
    advcl(path, &format!("predict run/{METHOD} photo.png")).expect(0);
    advcl(
        path,
        &format!("data inspect --model run/{METHOD} --sheet views.png"),
    )
    .expect(0);

    // Nothing of the others depends on it, and nothing of it on them.
    let without = folder_after("run tiny.toml --run run");
    for file in ["simclr/model.safetensors", "advcl/model.safetensors"] {
        let of = |folder: &Path| get(folder.join("run").join(file));
        assert!(of(path) == of(without.path()), "{file}");
    }
    let alone = format!("pretrain supervised.toml --run alone --method {METHOD}");
    advcl(path, &alone).expect(0);
    let alone = get(path.join(format!("alone/{METHOD}/model.safetensors")));
    assert!(alone == get(file), "with the others and alone");
}

#[cfg(unix)]
#[test]
fn interrupted_and_killed_it_ends_like_one_that_was_not() {
    use crate::signals::{ended, signal, start, wait_for_epoch, without_progress};
    let folder = folder();
    let path = folder.path();
    let start = |run: &str| {
        let args = format!("pretrain supervised.toml --method {METHOD}");
        let set = ["pretrain.adversarial-training.plan.epochs = 40"];
        start(path, &args, run, &set)
    };
    ended(start("whole")).expect(0);
    let mut transcript = Transcript::new(path);
    for name in ["-INT", "-KILL"] {
        let mut child = start("run");
        wait_for_epoch(&mut child, path, METHOD);
        signal(&child, name);
        let answer = ended(child);
        if name == "-INT" {
            let answer = without_progress(answer.expect(1));
            transcript.add_without_numbers(&answer);
        }
    }
    let resumed = ended(start("run")).expect(0);
    transcript.add_without_numbers(&without_progress(resumed));
    transcript.check("interrupted_supervised_training");
    let model = |run: &str| get(path.join(run).join(METHOD).join("model.safetensors"));
    assert!(model("whole") == model("run"), "resumed, it differs");
}

#[test]
fn without_labels_it_is_refused_before_any_work_and_the_others_are_not() {
    let folder = folder();
    let path = folder.path();
    for i in 0..64u8 {
        let file = path.join(format!("flat/{i:02}.png"));
        put(file, png(12, &[i * 4; 144]));
    }
    let flat = "supervised.toml --run run --set data.source='flat'";
    let only = format!("pretrain {flat} --method {METHOD}");
    let mut transcript = Transcript::new(path);
    for command in [format!("run {flat}"), format!("pretrain {flat}"), only] {
        transcript.refuse_after_a_start(&command);
        for made in ["simclr", METHOD] {
            assert!(!path.join("run").join(made).exists(), "{command}: {made}");
        }
    }
    for step in [
        "pretrain --method simclr",
        "cluster",
        "pretrain --method advcl",
    ] {
        let recipe = if step.ends_with("simclr") {
            flat
        } else {
            "--run run"
        };
        advcl(path, &format!("{step} {recipe}")).expect(0);
    }
    transcript.refuse_after_a_start(&format!("pretrain --run run --method {METHOD}"));
    // Labeled images beside others without labels: no method may take the latter for labeled ones.
    for i in 0..64u8 {
        let file = path.join(format!("more/{i:02}.png"));
        put(file, png(28, &[i * 4; 784]));
    }
    let mixed = "supervised.toml --run mixed --set data.unlabeled=['more']";
    for command in [
        format!("run {mixed}"),
        format!("pretrain {mixed} --method {METHOD}"),
    ] {
        transcript.refuse_after_a_start(&command);
    }
    // As the hint says.
    let apart = mixed.replace("--run mixed", "--run apart");
    let without = format!("pretrain {apart} --set data.unlabeled=[] --method {METHOD}");
    advcl(path, &without).expect(0);
    transcript.check("a_supervised_method_without_labels");
}

#[test]
fn a_model_with_neither_head_nor_classifier_is_refused() {
    let folder = folder_after("run supervised.toml --run run");
    let path = folder.path();
    let file = path.join(format!("run/{METHOD}/model.safetensors"));
    let (mut tensors, metadata) = weights::load(&file).expect("a model");
    tensors.retain(|name, _| !name.starts_with("linear."));
    let mut info: serde_json::Value = serde_json::from_str(&metadata["advcl"]).expect("JSON");
    info["classes"] = serde_json::json!([]);
    weights::save(&file, &tensors, &[("advcl", info.to_string())]).expect("a writable folder");
    let mut transcript = Transcript::new(path);
    transcript.refuse(&format!("predict run/{METHOD} flat"));
    transcript.check("a_model_with_neither_head_nor_classifier");
}
