//! Every pretraining method on the tiny recipe, through its own objective.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use advcl::Error;
use advcl::experiment::Experiment;
use advcl::pretrain::METHODS;
use advcl::recipe::Recipe;
use advcl::session::{Context, Event};
use advcl::weights;

use crate::{TINY, TINY_SUPERVISED, device, get};

/// What is added to the tiny recipe, so that every method has a table, and ACL one for each of its forms.
const REST: &str = r#"
[pretrain.rocl]
temperature = 0.5
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.acl]
temperature = 0.5
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 1.5, optimizer = "lars", momentum = 0.9, weight_decay = 1e-6, schedule.cosine = {} }

[pretrain.acl-attacked-alone]
temperature = 0.5
streams = "adversarial-adversarial"
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.acl-attacked-and-clean]
temperature = 0.5
streams = "adversarial-standard"
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.dynacl]
temperature = 0.5
period = 1
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain."dynacl++"]
clusters = 3
beta = 6.0
attack_steps = 2
head_plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.deacl]
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.advcl-without]
temperature = 0.5
cluster_weight = 0.2
clusters = []
strong_views = 1
high_frequency_radius = 8.0
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.supervised]
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.trades]
beta = 6.0
attack_steps = 2
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }
"#;

/// The names of a loss's parts, in the log.
const PARTS: [(&str, &[&str]); 13] = [
    ("simclr", &[]),
    ("advcl", &["contrastive", "cluster"]),
    ("advcl-without", &[]),
    ("rocl", &["contrastive", "target"]),
    ("acl", &["clean", "adversarial"]),
    ("acl-attacked-alone", &[]),
    ("acl-attacked-and-clean", &[]),
    ("dynacl", &["clean", "adversarial"]),
    ("dynacl++", &["natural", "robust"]),
    ("deacl", &["distilled", "robust"]),
    ("supervised", &[]),
    ("adversarial-training", &[]),
    ("trades", &["natural", "robust"]),
];

/// Makes an encoder, with all that it stands on. Where it is told to, it stops after each step of this method and goes
/// on. The parts of the last epoch's loss.
fn make(folder: &Path, name: &str, stopping: bool) -> Vec<&'static str> {
    let text = [TINY, TINY_SUPERVISED, REST].concat();
    let recipe = Recipe::parse("tiny", &text, &[]).expect("a recipe");
    let experiment = Experiment::open(recipe, folder).expect("an experiment");
    let mut parts = Vec::new();
    for sitting in 0.. {
        assert!(sitting < 40, "{name} does not come to an end");
        let stop = AtomicBool::new(false);
        let mut observe = |event: &Event| match event {
            Event::Step { stage, .. } if stopping && stage.split('/').next() == Some(name) => {
                stop.store(true, Ordering::Relaxed);
            }
            Event::Epoch { stage, losses, .. } if stage == name => {
                parts = losses.iter().map(|(part, _)| *part).collect();
            }
            _ => {}
        };
        let mut context = Context {
            device: device(),
            seed: 3,
            precision: Default::default(),
            stop: &stop,
            observe: Box::new(&mut observe),
        };
        let needs = match name {
            "deacl" => vec!["simclr"],
            "dynacl++" => vec!["dynacl"],
            "advcl" => vec!["simclr", "labels"],
            _ => vec![],
        };
        let each = needs.into_iter().chain([name]);
        let made = each.map(|name| match name {
            "labels" => experiment.cluster(&mut context),
            name => experiment.pretrain(Some(name), &mut context),
        });
        match made.collect::<Result<(), Error>>() {
            Ok(()) => break,
            Err(Error::Interrupted { .. }) if stopping => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
    parts
}

#[test]
fn every_method_trains_what_it_says_and_resumes_to_the_same_bits() {
    let all: Vec<&str> = METHODS.iter().map(|about| about.name).collect();
    let tested: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    assert!(all.iter().all(|name| tested.contains(name)), "{all:?}");
    for (name, parts) in PARTS {
        let folder = tempfile::tempdir().expect("a folder");
        let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
        let seen = make(&whole, name, false);
        let expected: Vec<&str> = parts.iter().copied().chain(["loss"]).collect();
        assert_eq!(seen, expected, "{name}");
        make(&stopped, name, true);
        let file = |run: &Path| run.join(name).join("model.safetensors");
        assert!(
            get(file(&whole)) == get(file(&stopped)),
            "{name}: resumed, it differs"
        );
        // Every route that the file has was trained; the one that downstream tasks use is among them.
        let (tensors, _) = weights::load(&file(&whole)).expect("a model");
        let means = tensors.iter().filter(|(name, _)| {
            name.starts_with("bn1.bn_list.") && name.ends_with(".running_mean")
        });
        for (tensor, (_, values)) in means {
            let unused = name == "advcl-without" && tensor.contains("bn_list.2")
                || name == "acl-attacked-alone" && tensor.contains("bn_list.0");
            let moved = values.iter().any(|value| *value != 0.0);
            assert_eq!(moved, !unused, "{name}: {tensor}");
        }
    }
}
