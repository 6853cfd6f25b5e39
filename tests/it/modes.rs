//! Every finetuning mode on one small encoder.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use advcl::Error;
use advcl::experiment::{Cell, Experiment};
use advcl::recipe::Recipe;
use advcl::session::{Context, Event};
use advcl::weights::{self, Tensors};

use crate::{Transcript, advcl, contents, device, folder_after, get, only_simclr, png, put};

/// What is added to [`only_simclr`] for the other modes, and for variants of two.
const MODES: &str = r#"
[finetune.alf]
loss = { pgd = { steps = 2 } }
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }

[finetune.standard-full]
augment = true
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }

[finetune.aff]
loss = { trades = { beta = 6.0, steps = 2 } }
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }

[finetune.aff-pgd]
loss = { pgd = { steps = 2 } }
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }

[finetune.semi-supervised]
labels = 0.5
loss = { trades = { beta = 6.0, steps = 2 } }
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }

[finetune.slf-half]
labels = 0.5
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }
"#;

/// The modes' tables in the order of their rows.
const ROWS: [&str; 7] = [
    "slf",
    "slf-half",
    "alf",
    "standard-full",
    "aff",
    "aff-pgd",
    "semi-supervised",
];

fn modes() -> String {
    only_simclr() + MODES
}

/// A model's encoder with its heads of pretraining, and its classifier.
fn parts(path: &Path) -> (Tensors, Tensors) {
    let (tensors, _) = weights::load(path).expect("a model");
    let is_linear = |(name, _): &(String, _)| name.starts_with("linear.");
    let (linear, rest) = tensors.into_iter().partition(is_linear);
    (rest, linear)
}

#[test]
fn every_mode_makes_a_row_and_a_second_run_makes_nothing() {
    // The encoder is the one that pretraining alone makes.
    let folder = folder_after("pretrain simclr.toml --run alone");
    let path = folder.path();
    put(path.join("modes.toml"), modes());
    let mut transcript = Transcript::new(path);
    let first = transcript.run("run modes.toml --run run", 0);
    let file = path.join("run/simclr/model.safetensors");
    assert!(get(&file) == get(path.join("alone/simclr/model.safetensors")));

    let before = contents(path);
    let again = advcl(path, "run --run run").expect(0);
    assert_eq!(first.stdout, again.stdout);
    assert!(before == contents(path), "a finished run changed");
    let summary = advcl(path, "run --run run --json").expect(0).json();
    let outcomes = summary["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), ROWS.len());

    put(path.join("photo.png"), png(28, &[9; 28 * 28]));
    let before = contents(path);
    let (encoder, none) = parts(&file);
    assert!(none.is_empty());
    let mut classifiers = Vec::new();
    for (mode, outcome) in ROWS.into_iter().zip(outcomes) {
        assert_eq!(
            (&outcome["method"], &outcome["finetuning"]),
            (&"simclr".into(), &mode.into())
        );
        for stage in ["finetune", "evaluate"] {
            assert!(outcome["seconds"][stage] != 0.0, "{mode}: {outcome}");
        }
        // Beside its classifier stand the checkpoints of the parts that it was trained in.
        let own = path.join("run/simclr").join(mode);
        let mut names: Vec<_> = contents(&own).into_keys().collect();
        names.iter_mut().for_each(|name| {
            *name = name.strip_prefix(&own).expect("a path below").to_path_buf();
        });
        let mut expected = vec![
            "checkpoint.safetensors",
            "model.safetensors",
            "result.json",
            "soundness.json",
            "times.json",
        ];
        if mode == "semi-supervised" {
            expected.insert(1, "checkpoint_teacher.safetensors");
        }
        let expected: Vec<_> = expected.iter().map(Path::new).collect();
        assert_eq!(names, expected, "{mode}");
        let (tensors, linear) = parts(&own.join("model.safetensors"));
        let frozen = mode.starts_with("slf") || mode == "alf";
        let moved = |name: &&String| tensors[*name] != encoder[*name];
        let names: Vec<&String> = encoder.keys().collect();
        assert!(names.len() == tensors.len());
        if frozen {
            assert!(!names.iter().any(moved), "{mode}: the encoder moved");
        } else {
            // All but the heads of pretraining, which have no part in it.
            for name in &names {
                let head = name.starts_with("head_proj.");
                assert_eq!(moved(name), !head, "{mode}: {name}");
            }
        }
        assert_eq!(linear.len(), 2);
        assert!(!classifiers.contains(&linear), "{mode}: another's");
        classifiers.push(linear);

        transcript.run(&format!("evaluate --run run --mode {mode} --quiet"), 0);
        advcl(path, &format!("predict run/simclr/{mode} photo.png")).expect(0);
    }
    assert!(
        before == contents(path),
        "a second evaluation changed a file"
    );
    transcript.note("An encoder alone has no classifier.");
    transcript.refuse("predict run/simclr photo.png");
    transcript.check("every_mode");
}

#[test]
fn labels_that_leave_a_class_without_any_are_refused_before_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("modes.toml"), modes());
    let few = "--set finetune.semi-supervised.labels=0.1";
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start(&format!("run modes.toml --run run {few}"));
    assert!(
        !path.join("run/simclr").exists(),
        "refused after a computation"
    );
    advcl(path, &format!("pretrain modes.toml --run run {few}")).expect(0);
    transcript.refuse_after_a_start("finetune --run run --mode semi-supervised");
    advcl(path, "finetune --run run --mode slf-half").expect(0);
    transcript.note("Shares that are none need no data to be refused.");
    for labels in ["0", "1.5", "-0.5", "nan"] {
        let set = format!("finetune.slf-half.labels={labels}");
        transcript.refuse(&format!("recipe check modes.toml --set {set}"));
    }
    transcript.check("labels_that_leave_a_class_without_any");
}

/// Finetunes semi-supervised in as many sittings as `stops` (steps, counted over all of them) make
/// necessary.
fn sittings(recipe: &Recipe, run: &Path, stops: &[usize]) -> Vec<u8> {
    let experiment = Experiment::open(recipe.clone(), run).expect("an experiment");
    let cell = Cell {
        method: "simclr".to_owned(),
        mode: Some("semi-supervised".to_owned()),
    };
    let (stop, mut steps) = (AtomicBool::new(false), Vec::new());
    for sitting in 0..=stops.len() {
        stop.store(false, Ordering::Relaxed);
        let mut observe = |event: &Event| {
            if let Event::Step { stage, .. } = event {
                steps.push(stage.clone());
                stop.store(stops.contains(&steps.len()), Ordering::Relaxed);
            }
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
        let finetuned = experiment.finetune(std::slice::from_ref(&cell), &mut context);
        drop(context);
        match finetuned {
            Ok(()) => assert_eq!(sitting, stops.len(), "a stop had no effect"),
            Err(Error::Interrupted { .. }) => assert_eq!(steps.len(), stops[sitting]),
            Err(other) => panic!("{other}"),
        }
    }
    // Two epochs of 32 labeled images, then two of all 64.
    let (teacher, student) = steps.split_at(4);
    let stage = "simclr/semi-supervised";
    assert!(teacher.iter().all(|s| *s == format!("{stage}/teacher")));
    assert!(student.len() == 8 && student.iter().all(|s| s == stage));
    get(experiment.model_path(&cell))
}

#[test]
fn semi_supervised_interrupted_in_either_part_ends_like_one_that_was_not() {
    let folder = folder_after("pretrain simclr.toml --run alone");
    let path = folder.path();
    let recipe = Recipe::parse("modes", &modes(), &[]).expect("a recipe");
    for run in ["whole", "run"] {
        crate::copy(&path.join("alone/simclr"), &path.join(run).join("simclr"));
    }
    let whole = sittings(&recipe, &path.join("whole"), &[]);
    // Within an epoch of the teacher, its end, the first step after it, the end of an epoch, the
    // very last.
    let resumed = sittings(&recipe, &path.join("run"), &[1, 4, 5, 8, 12]);
    assert!(whole == resumed, "resumed, it differs");
}
