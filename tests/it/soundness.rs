//! Defects of evaluations, planted one by one: each has its warnings, and what is sound has none.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use advcl::attack::{Attacker, Ball, Norm, gaussian};
use advcl::data::Split;
use advcl::evaluate::soundness::{CheckName, Soundness, SoundnessChecks, Verdict, perturbations};
use advcl::evaluate::{Evaluator, predictions};
use advcl::nn::{Mode, Precision};
use advcl::random;
use advcl::session::Context;
use advcl::tensor::to_tensor;
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use crate::without_checksum;
use crate::{
    Transcript, advcl, classifier, contents, device, folder, folder_after, get, images, put,
};

const CHECKS: [&str; 10] = [
    "logits",
    "deterministic",
    "batch-independent",
    "clean-accuracy",
    "class-balance",
    "gradients",
    "perturbations",
    "loss",
    "radius",
    "black-box",
];

const BALL: Ball = Ball {
    norm: Norm::Linf,
    radius: 0.02,
};

/// A classifier.
type Logits<'a> = &'a dyn Fn(Tensor<4>) -> Tensor<2>;

/// A linear classifier of 12 × 12 pixels and 4 classes: its gradients say all that there is to
/// know.
fn linear() -> impl Fn(Tensor<4>) -> Tensor<2> {
    let mut rng = random::generator(1, "linear", 0);
    let values: Vec<f32> = (0..144 * 4)
        .map(|_| rng.random_range(-1.0..=1.0f32))
        .collect();
    let weight = Tensor::<2>::from_data(TensorData::new(values, [144, 4]), &device());
    move |x| {
        let [batch, ..] = x.dims();
        // The mean image is classified as nothing in particular.
        (x - 0.5).reshape([batch, 144]).matmul(weight.clone())
    }
}

/// `count` images, with the labels that `model` gives them.
fn as_said(model: Logits, count: usize) -> Split {
    let images = images(count);
    let all: Vec<usize> = (0..count).collect();
    let labels = predictions(model(to_tensor(images.batch(&all), &device())));
    Split { images, labels }
}

fn examine(
    logits: Logits,
    predict: Logits,
    split: &Split,
    classes: usize,
    ball: Ball,
) -> Soundness {
    let all: Vec<usize> = (0..split.images.len()).collect();
    let said = predictions(logits(to_tensor(split.images.batch(&all), &device())));
    let right = said.iter().zip(&split.labels).filter(|(a, b)| a == b);
    let checks = SoundnessChecks {
        evaluator: Evaluator {
            name: "simclr/slf",
            logits,
            classes,
            split,
            batch_size: 100,
        },
        predict,
        clean: right.count(),
        attacker: Attacker::new(ball, 20, None),
    };
    let mut context = Context {
        shards: Default::default(),
        device: device(),
        seed: 0,
        precision: Precision::F32,
        stop: &AtomicBool::new(false),
        observe: Box::new(|_| ()),
        logged: &|_, _, _| true,
    };
    checks.run(&mut context).expect("findings")
}

fn names(soundness: &Soundness) -> Vec<&str> {
    soundness.warnings().map(|f| f.check.name()).collect()
}

#[track_caller]
fn expect(soundness: &Soundness, warnings: &[&str]) {
    let made: Vec<&str> = (soundness.findings.iter())
        .map(|finding| finding.check.name())
        .collect();
    assert_eq!(made, CHECKS);
    assert_eq!(names(soundness), warnings, "{soundness:#?}");
    for finding in &soundness.findings {
        assert!(!finding.meaning.is_empty() && !finding.found.is_empty());
    }
}

#[test]
fn a_sound_classifier_has_no_warning() {
    let model = linear();
    let split = as_said(&model, 80);
    for (norm, radius) in [
        (Norm::Linf, 0.02),
        (Norm::Linf, 0.2),
        (Norm::Linf, 1.0),
        (Norm::Linf, 0.0),
        (Norm::L2, 0.5),
        (Norm::L2, 0.0),
    ] {
        let ball = Ball { norm, radius };
        expect(&examine(&model, &model, &split, 4, ball), &[]);
    }
    // A batch smaller than the sample changes nothing.
    let network = classifier(2);
    let frozen = network.frozen();
    let logits = |x| frozen.logits(x);
    let predict = |x| network.forward(x, &mut Mode::Eval);
    for radius in [0.01, 0.1] {
        let ball = Ball { radius, ..BALL };
        let split = as_said(&logits, 80);
        expect(&examine(&logits, &predict, &split, 4, ball), &[]);
    }
}

#[test]
fn every_defect_has_its_warnings() {
    let sound = linear();
    let split = as_said(&sound, 80);
    let check = |model: Logits, warnings: &[&str]| {
        expect(&examine(model, model, &split, 4, BALL), warnings);
    };
    // Inputs rounded to 64 values: no gradient, and a search crosses from one value to the next.
    let unclimbed = ["gradients", "loss", "radius", "black-box"];
    check(&|x| sound((x * 64.0).round() / 64.0), &unclimbed);
    // A softmax that is saturated has no gradient either.
    check(&|x| sound(x) * 1e4, &unclimbed);
    // Gradients that are there, and lead the other way.
    let backwards = |x: Tensor<4>| sound(x.clone().detach() * 2.0 - x);
    check(&backwards, &["loss", "radius", "black-box"]);
    // Lots are drawn.
    let calls = Cell::new(0);
    let random = |x: Tensor<4>| {
        calls.set(calls.get() + 1);
        let noise = gaussian(&x, &mut random::generator(0, "lots", calls.get()));
        sound(x + noise * 0.01)
    };
    check(&random, &["deterministic"]);
    // Probabilities for logits.
    check(&|x| softmax(sound(x), 1), &["logits"]);
}

#[test]
fn batchnorm_in_training_mode_has_its_warning() {
    let network = classifier(2);
    let training = |x| network.forward(x, &mut Mode::Batch);
    let split = as_said(&training, 64);
    let found = examine(&training, &training, &split, 4, BALL);
    expect(&found, &["batch-independent"]);
}

#[test]
fn another_model_than_that_of_predict_has_its_warning() {
    let sound = linear();
    let split = as_said(&sound, 80);
    let other = |x: Tensor<4>| sound(x * 0.5 + 0.4);
    let found = examine(&sound, &other, &split, 4, BALL);
    expect(&found, &["clean-accuracy"]);
}

#[test]
fn perturbations_outside_ball_or_box_have_their_warning() {
    let original = [0.0, 0.5, 1.0, 0.25f32];
    for (norm, attacked, holds) in [
        (Norm::Linf, [0.1, 0.4, 0.9, 0.25], true),
        (Norm::Linf, [0.1, 0.4, 0.8999, 0.25], false),
        (Norm::Linf, [-1e-6, 0.5, 1.0, 0.25], false),
        (Norm::Linf, [0.0, 0.5, 1.0, f32::NAN], false),
        (Norm::L2, [0.08, 0.44, 1.0, 0.25], true),
        (Norm::L2, [0.1, 0.4, 1.0, 0.25], false),
    ] {
        let ball = Ball { norm, radius: 0.1 };
        let found = perturbations(ball, &attacked, &original, 4);
        assert_eq!(
            (found.check, found.verdict == Verdict::Holds),
            (CheckName::Perturbations, holds)
        );
    }
}

#[test]
fn what_cannot_be_told_is_no_warning() {
    let sound = linear();
    // Few images, or none that is right.
    for count in [1, 3] {
        let split = as_said(&sound, count);
        let found = examine(&sound, &sound, &split, 4, BALL);
        expect(&found, &[]);
        let black_box = &found.findings[9];
        assert_eq!(black_box.verdict, Verdict::NotChecked);
        assert_eq!(black_box.found, "fewer than 8 images classified correctly");
        // Outputs can be checked for any number of images.
        let summary = found.summary();
        assert_eq!(summary.hold, if count == 1 { 3 } else { 4 }, "{found:#?}");
        assert_eq!((summary.warn, summary.checks()), (0, 10), "{found:#?}");
    }
    let mut split = as_said(&sound, 80);
    split
        .labels
        .iter_mut()
        .for_each(|label| *label = (*label + 1) % 4);
    expect(&examine(&sound, &sound, &split, 4, BALL), &[]);
    // Always the same class: no radius changes that.
    let constant = |x: Tensor<4>| {
        let bias = TensorData::from([[100.0, 0.0, 0.0, 0.0f32]]);
        let logits = sound(x) * 0.2;
        let bias = Tensor::<2>::from_data(bias, &logits.device());
        logits + bias * 0.3
    };
    let split = as_said(&constant, 80);
    assert!(split.labels.iter().all(|label| *label == 0));
    expect(&examine(&constant, &constant, &split, 4, BALL), &[]);
    // A single class is never wrong.
    let single = |x: Tensor<4>| sound(x).narrow(1, 0, 1);
    let split = as_said(&single, 80);
    expect(&examine(&single, &single, &split, 1, BALL), &[]);
}

#[test]
fn a_run_is_checked_once_and_says_so() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.run("evaluate run", 0);
    let summary: serde_json::Value =
        serde_json::from_slice(&get(path.join("run/summary.json"))).expect("JSON");
    for outcome in summary["outcomes"].as_array().expect("rows") {
        let findings = outcome["soundness"]["findings"].as_array().expect("checks");
        let names: Vec<&str> = (findings.iter())
            .filter_map(|finding| finding["check"].as_str())
            .collect();
        assert_eq!(names, CHECKS);
    }

    // Kept; made anew where there is none, as beside results of an earlier version.
    let before = contents(&path.join("run/advcl"));
    let again = advcl(path, "evaluate run --json").expect(0);
    assert_eq!(again.json(), summary);
    let file = path.join("run/advcl/slf/soundness.json");
    std::fs::remove_file(&file).expect("was written");
    assert_eq!(advcl(path, "evaluate run --json").expect(0).json(), summary);
    assert!(
        before == contents(&path.join("run/advcl")),
        "the same again"
    );

    // A warning has a line with its name, its finding and the meaning of that.
    let kept = String::from_utf8(before[&file].clone()).expect("text");
    let changed = kept.replacen("\"verdict\": \"holds\"", "\"verdict\": \"warns\"", 1);
    assert_ne!(kept, changed);
    put(&file, without_checksum(&changed));
    transcript.note("The first check is changed to a warning.");
    transcript.add_without_numbers(&advcl(path, "evaluate run").expect(0));
    transcript.check("soundness_of_a_run");

    // Turned off, there are no findings, and nothing else changes.
    let off = advcl(path, "evaluate run --set evaluate.soundness=false --json").expect(0);
    let mut off = off.json();
    for (row, outcome) in off["outcomes"]
        .as_array_mut()
        .expect("rows")
        .iter_mut()
        .enumerate()
    {
        let expected = &summary["outcomes"][row];
        assert!(outcome.get("soundness").is_none(), "{outcome}");
        outcome["soundness"] = expected["soundness"].clone();
    }
    assert_eq!(off, summary);

    // Attacks beside PGD are evidence too, and where their examples are.
    let line = "evaluate run --method advcl --mode slf --set evaluate.soundness=true";
    let found = |answer: &crate::Answer, check: usize| {
        let finding = &answer.json()["outcomes"][0]["soundness"]["findings"][check];
        let found = finding["found"].as_str().expect("words").to_owned();
        (finding["verdict"] == "holds", found)
    };
    let answer = advcl(path, &format!("{line} --attack square --json")).expect(0);
    let (holds, words) = found(&answer, 9);
    assert!(
        holds && words.contains("of 20 images, ") && words.contains(" are robust to square, "),
        "{words}"
    );
    let (holds, words) = found(&answer, 6);
    let examples = "adversarial examples of other attacks outside";
    assert!(
        holds && words.contains("0 of ") && words.ends_with(examples),
        "{words}"
    );
}

#[test]
fn a_comparison_names_its_warnings() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    let line = "compare simclr.toml --run run";
    transcript.add_without_numbers(&advcl(path, line).expect(0));
    let file = path.join("run/seed-3/simclr/slf/soundness.json");
    let kept = String::from_utf8(get(&file)).expect("text");
    let changed = kept.replacen("\"verdict\": \"holds\"", "\"verdict\": \"warns\"", 1);
    put(&file, without_checksum(&changed));
    transcript.note("The first check is changed to a warning.");
    for format in ["text", "md"] {
        let answer = advcl(path, &format!("{line} --format {format}")).expect(0);
        transcript.add_without_numbers(&answer);
    }
    transcript.check("soundness_of_a_comparison");
    let json = advcl(path, &format!("{line} --json")).expect(0).json();
    let warning = &json["warnings"][0];
    assert_eq!(
        (&warning["seed"], &warning["check"]),
        (&3.into(), &"logits".into())
    );
    assert_eq!(json["checks"], 10);
}
