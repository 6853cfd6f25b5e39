//! Every pretraining method on the tiny recipe: what it trains, and that it resumes to the same
//! bits.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use advcl::Error;
use advcl::experiment::Experiment;
use advcl::pretrain::METHODS;
use advcl::recipe::Recipe;
use advcl::session::{Context, Event};
use advcl::weights;

use crate::{TINY, TINY_SUPERVISED, device, folder_after, get};

/// What is added to the tiny recipe, so that every method has a table, and ACL one for each of its
/// forms.
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

[pretrain."advcl+"]
temperature = 0.5
cluster_weight = 3.0
period = 1
attack_steps = 2
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

/// A test for each method: its name in Rust, its table, the parts of its loss in the log, and those
/// of its BatchNorm branches that it does not train.
macro_rules! methods {
    ($($test:ident: $name:literal, $parts:expr, untrained $untrained:expr;)*) => {
        /// The tables that have a test.
        const TESTED: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                trains_its_parts_and_resumes_to_the_same_bits($name, &$parts, &$untrained);
            }
        )*
    };
}

// ANCHOR: methods
methods! {
    simclr: "simclr", [], untrained [];
    advcl: "advcl", ["contrastive", "cluster"], untrained [];
    advcl_without_clusters: "advcl-without", [], untrained ["bn_list.2"];
    rocl: "rocl", ["contrastive", "target"], untrained [];
    acl: "acl", ["clean", "adversarial"], untrained [];
    acl_of_attacked_pairs: "acl-attacked-alone", [], untrained ["bn_list.0"];
    acl_of_attacked_and_clean_images: "acl-attacked-and-clean", [], untrained [];
    dynacl: "dynacl", ["clean", "adversarial"], untrained [];
    advcl_plus: "advcl+", ["clean", "adversarial", "cluster"], untrained [];
    dynacl_plus_plus: "dynacl++", ["natural", "robust"], untrained [];
    deacl: "deacl", ["distilled", "robust"], untrained [];
    supervised: "supervised", [], untrained [];
    adversarial_training: "adversarial-training", [], untrained [];
    trades: "trades", ["natural", "robust"], untrained [];
}
// ANCHOR_END: methods

/// Makes an encoder and those that it needs, by a recipe that is changed by `set`; if `stopping`, it
/// stops after each step of this method and goes on. Returns the parts of the last epoch's loss.
fn make(folder: &Path, name: &str, set: &[String], stopping: bool) -> Vec<String> {
    let text = [TINY, TINY_SUPERVISED, REST].concat();
    let recipe = Recipe::parse("tiny", &text, set).expect("a recipe");
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
                parts = losses.iter().map(|(part, _)| part.clone()).collect();
            }
            _ => {}
        };
        let mut context = Context {
            shards: Default::default(),
            device: device(),
            seed: 3,
            precision: Default::default(),
            stop: &stop,
            observe: Box::new(&mut observe),
            logged: &|_, _, _| true,
        };
        let needs = match name {
            "deacl" => vec!["simclr"],
            "dynacl++" => vec!["dynacl"],
            "advcl" | "advcl+" => vec!["simclr", "labels"],
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
fn every_method_is_tested() {
    for about in METHODS {
        assert!(
            TESTED.contains(&about.name),
            "the method {} has no test: give it a table in REST and a line in `methods!`",
            about.name
        );
    }
}

fn trains_its_parts_and_resumes_to_the_same_bits(name: &str, parts: &[&str], untrained: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let seen = make(&whole, name, &[], false);
    let expected: Vec<&str> = parts.iter().copied().chain(["loss"]).collect();
    assert_eq!(seen, expected);
    make(&stopped, name, &[], true);
    let file = |run: &Path| run.join(name).join("model.safetensors");
    assert!(
        get(file(&whole)) == get(file(&stopped)),
        "resumed, it differs"
    );
    // Every route that the file has was trained; the one that downstream tasks use is among them.
    let (tensors, _) = weights::load(&file(&whole)).expect("a model");
    let means = tensors
        .iter()
        .filter(|(name, _)| name.starts_with("bn1.bn_list.") && name.ends_with(".running_mean"));
    for (tensor, (_, values)) in means {
        let moved = values.iter().any(|value| *value != 0.0);
        let expected = !untrained.iter().any(|branch| tensor.contains(branch));
        assert_eq!(moved, expected, "{tensor}");
    }
    if name != "dynacl++" {
        begun_at_weights_it_is_held_there_and_resumes_to_the_same_bits(name, parts);
    }
}

fn begun_at_weights_it_is_held_there_and_resumes_to_the_same_bits(name: &str, parts: &[&str]) {
    let given = folder_after("run tiny.toml --run run");
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let loose = folder.path().join("loose");
    let weights = given.path().join("run/advcl/model.safetensors");
    let init = format!("pretrain.{name:?}.init = '{}'", weights.display());
    let pull = format!("pretrain.{name:?}.pull = 4.0");
    let (begun, held) = ([init.clone()], [init, pull]);
    let seen = make(&whole, name, &held, false);
    let expected: Vec<&str> = parts.iter().copied().chain(["pull", "loss"]).collect();
    assert_eq!(seen, expected, "begun at weights");
    make(&stopped, name, &held, true);
    let file = |run: &Path| get(run.join(name).join("model.safetensors"));
    assert!(file(&whole) == file(&stopped), "resumed, it differs");
    make(&loose, name, &begun, false);
    assert!(file(&whole) != file(&loose), "the pull changes nothing");
}
