//! Every finetuning mode on one small encoder.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use advcl::Error;
use advcl::experiment::{Cell, Experiment};
use advcl::recipe::Recipe;
use advcl::session::{Context, Event};
use advcl::weights::{self, Tensors};

use crate::bad_input::refused;
use crate::{advcl, device, get, only_simclr, png, put, snapshot};

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

/// The tables and what the rows say, in the order of the modes.
const ROWS: [(&str, &str); 7] = [
    ("slf", "SLF"),
    ("slf-half", "SLF (half)"),
    ("alf", "ALF"),
    ("standard-full", "standard full"),
    ("aff", "AFF"),
    ("aff-pgd", "AFF (pgd)"),
    ("semi-supervised", "semi-supervised"),
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
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("modes.toml"), modes());
    let first = advcl(path, "run modes.toml --run run").expect(0);
    let rows: Vec<Vec<&str>> = first
        .stdout
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split("  ").map(str::trim).take(2).collect())
        .collect();
    assert_eq!(
        rows,
        ROWS.map(|(_, title)| vec!["SimCLR", title]),
        "{first}"
    );

    let before = snapshot(path);
    let again = advcl(path, "run --run run").expect(0);
    assert_eq!(first.stdout, again.stdout);
    assert!(before == snapshot(path), "a finished run changed");
    let summary = advcl(path, "run --run run --json").expect(0).json();
    let outcomes = summary["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), ROWS.len());

    // The encoder is the one that pretraining alone makes.
    advcl(path, "pretrain modes.toml --run alone").expect(0);
    let file = path.join("run/simclr/model.safetensors");
    assert!(get(&file) == get(path.join("alone/simclr/model.safetensors")));
    put(path.join("photo.png"), png(28, &[9; 28 * 28]));
    let before = snapshot(path);
    let (encoder, none) = parts(&file);
    assert!(none.is_empty());
    let mut classifiers = Vec::new();
    for ((mode, title), outcome) in ROWS.into_iter().zip(outcomes) {
        assert_eq!(
            (&outcome["method"], &outcome["finetuning"]),
            (&"simclr".into(), &mode.into())
        );
        for stage in ["finetune", "evaluate"] {
            assert!(outcome["seconds"][stage] != 0.0, "{mode}: {outcome}");
        }
        // Beside its classifier stand the checkpoints of the parts that it was trained in.
        let own = path.join("run/simclr").join(mode);
        let mut names: Vec<_> = snapshot(&own).into_keys().collect();
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

        let row = advcl(path, &format!("evaluate --run run --mode {mode}")).expect(0);
        let lines = row.stdout.lines().take_while(|line| !line.is_empty());
        let lines: Vec<&str> = lines.collect();
        let alone = lines.len() == 2 && lines[1].starts_with(&format!("SimCLR  {title}  "));
        assert!(alone, "{row}");
        advcl(path, &format!("predict run/simclr/{mode} photo.png")).expect(0);
    }
    assert!(before == snapshot(path), "looking changed something");
    // An encoder alone predicts nothing, and says what does.
    let words = [
        "run/simclr/model.safetensors: an encoder alone",
        "hint: name one: run/simclr/aff, run/simclr/aff-pgd, run/simclr/alf, run/simclr/semi-",
    ];
    refused(path, "predict run/simclr photo.png", &words);
}

#[test]
fn labels_that_leave_a_class_without_any_are_refused_before_the_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("modes.toml"), modes());
    let words = [
        "recipe finetune.semi-supervised.labels: 6 of 64 labels leave class ",
        " without any",
        "hint: use a larger share",
    ];
    let few = "--set finetune.semi-supervised.labels=0.1";
    refused(path, &format!("run modes.toml --run run {few}"), &words);
    assert!(
        !path.join("run/simclr").exists(),
        "said before anything is computed"
    );
    advcl(path, &format!("pretrain modes.toml --run run {few}")).expect(0);
    refused(path, "finetune --run run --mode semi-supervised", &words);
    advcl(path, "finetune --run run --mode slf-half").expect(0);
    // What is no share at all needs no data.
    for labels in ["0", "1.5", "-0.5", "nan"] {
        let set = format!("recipe check modes.toml --set finetune.slf-half.labels={labels}");
        let words = ["modes.toml, finetune.slf-half.labels: expected a share above 0, up to 1"];
        refused(path, &set, &words);
    }
}

/// Finetunes semi-supervised in as many sittings as `stops` (steps, counted over all of them) make necessary.
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
            device: device(),
            seed: 3,
            precision: Default::default(),
            stop: &stop,
            observe: Box::new(&mut observe),
        };
        let finetuned = experiment.finetune(std::slice::from_ref(&cell), &mut context);
        drop(context);
        match finetuned {
            Ok(()) => assert_eq!(sitting, stops.len(), "a stop was not heard"),
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
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("modes.toml"), modes());
    let recipe = Recipe::parse("modes", &modes(), &[]).expect("a recipe");
    advcl(path, "pretrain modes.toml --run whole").expect(0);
    crate::copy(&path.join("whole"), &path.join("run"));
    let whole = sittings(&recipe, &path.join("whole"), &[]);
    // Within an epoch of the teacher, its end, the first step after it, the end of an epoch, the very last.
    let resumed = sittings(&recipe, &path.join("run"), &[1, 4, 5, 8, 12]);
    assert!(whole == resumed, "resumed, it differs");
}
