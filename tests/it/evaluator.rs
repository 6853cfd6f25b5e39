//! No figure depends on the batch size or on the order of the images.

use std::sync::atomic::AtomicBool;

use advcl::attack::{
    self, Apgd, Attack, AttackKind, Attacker, Ball, Norm, Options, Patch, PerImage, RestartedPgd,
    Square, Suite, TargetedApgd,
};
use advcl::data::Split;
use advcl::evaluate::adversarial::{Adversarial, verify};
use advcl::evaluate::measures::{MeasuredClassifier, Measures, Predictions, transfer};
use advcl::evaluate::soundness::{CheckName, Soundness, SoundnessChecks, Verdict};
use advcl::evaluate::{Accuracy, Attacked, Evaluator, SuiteRun};
use advcl::nn::{Classifier, Mode, Precision};
use advcl::probe::Known;
use advcl::session::Context;
use advcl::smoothing::{Certificate, Smoothing};
use advcl::tensor::{to_tensor, to_vec};

use crate::{classifier, device, images};

const COUNT: usize = 40;

/// Images whose labels are a classifier's predictions, but for every fifth.
fn split(classifier: &Classifier) -> Split {
    let (images, all) = (images(COUNT), (0..COUNT).collect::<Vec<_>>());
    let logits = classifier
        .frozen()
        .logits(to_tensor(images.batch(&all), &device()));
    let mut labels = advcl::logits::predictions(logits);
    labels
        .iter_mut()
        .step_by(5)
        .for_each(|label| *label = (*label + 1) % 4);
    Split { images, labels }
}

fn suite() -> Suite {
    let square = Square {
        queries: 40,
        ..Square::default()
    };
    let pgd = RestartedPgd {
        restarts: 2,
        steps: 5,
        ..RestartedPgd::default()
    };
    let apgd = Apgd {
        iterations: 8,
        ..Apgd::default()
    };
    let suite = Suite::new(vec![
        Attack::published(AttackKind::Fgsm),
        Attack::Pgd(pgd),
        Attack::Square(square),
        Attack::ApgdT(TargetedApgd { apgd, targets: 2 }),
    ]);
    suite.expect("a suite")
}

/// A threat model in which PGD breaks some images and leaves others.
fn ball(norm: Norm) -> Ball {
    let radius = match norm {
        Norm::Linf => 0.3,
        Norm::L2 => 2.5,
    };
    Ball { norm, radius }
}

fn patch() -> Patch {
    Patch {
        size: 0.7,
        places: 2,
        steps: 6,
        ..Patch::default()
    }
}

fn smoothing() -> Smoothing {
    Smoothing {
        sigma: "2".parse().expect("a distance"),
        samples: 30,
        selection: 10,
        ..Smoothing::default()
    }
}

/// Everything that an evaluation computes, with times left out.
#[derive(Debug, PartialEq)]
struct Figures {
    accuracy: Accuracy,
    attacked: Attacked,
    examples: Adversarial,
    valid: usize,
    soundness: Soundness,
    measures: Measures,
    transfer: [Vec<usize>; 2],
}

fn figures(
    classifier: &Classifier,
    split: &Split,
    (among, batch_size): (&[usize], usize),
    ball: Ball,
) -> Figures {
    let stop = AtomicBool::new(false);
    let context = &mut Context {
        shards: Default::default(),
        device: device(),
        seed: 3,
        precision: Precision::F32,
        stop: &stop,
        observe: Box::new(|_| ()),
        logged: &|_, _, _| true,
    };
    let frozen = classifier.frozen();
    let evaluator = Evaluator {
        name: "simclr/slf",
        logits: &|x| frozen.logits(x),
        classes: 4,
        split,
        batch_size,
    };
    let attacker = Attacker::new(ball, 5, None);
    let accuracy = evaluator
        .accuracy(among, attacker, context)
        .expect("an accuracy");

    let folder = tempfile::tempdir().expect("a folder");
    let run = SuiteRun {
        evaluator,
        suite: &suite(),
        ball,
        among,
        folder: Some(folder.path()),
        recipe: "made up",
    };
    let (mut attacked, examples) = run.run(context).expect("an outcome");
    attacked
        .attacks
        .iter_mut()
        .for_each(|tally| tally.seconds = 0.0);
    let attacked = attacked.with_pgd(&accuracy);
    let mut info = run.info(None);
    info.among.sort_unstable();
    let file = folder.path().join("examples");
    let verified = verify((&file, &examples, &info), &evaluator, among, ball, context);

    let checks = SoundnessChecks {
        evaluator,
        predict: &|x| classifier.forward(x, &mut Mode::Eval),
        clean: accuracy.total.clean,
        attacker,
    };
    let soundness = checks.run(context).expect("findings");

    let measured = |name: &str, classifier: &Classifier| {
        let images = (split, among);
        MeasuredClassifier::new(name.to_owned(), classifier, images, attacker, batch_size)
    };
    let own = measured("simclr/slf", classifier);
    let clean = own.predictions(false, context).expect("predictions");
    let moved = own.predictions(true, context).expect("predictions");
    let batch = to_tensor(split.images.batch(&[0, 1, 2, 3]), &context.device);
    let known = Known::new(own.encoder.features(batch), &split.labels[..4], 4);
    let mut measures = Measures {
        images: among.len(),
        radius: own.radius(context).expect("curves"),
        steps: own.steps(context).expect("a curve"),
        corruptions: own.corruptions(context).expect("corruptions"),
        patch: Some(own.patch(&patch(), context).expect("a patch")),
        smoothing: Some(own.smoothing(&smoothing(), context).expect("certificates")),
        neighbours: Some(Predictions::compare_neighbours(&clean, &moved, &known)),
        ..Measures::default()
    };
    measures.set_confusion(clean.confusion(), moved.confusion());
    // Confidences are summed in the order of the images: equal up to the last digits.
    let calibration = |predictions: &Predictions| {
        let mut found = predictions.calibration();
        let rounded = |value: f64| (value * 1e9).round() / 1e9;
        found.error = rounded(found.error);
        found
            .bins
            .iter_mut()
            .for_each(|bin| bin.confidence = rounded(bin.confidence));
        Some(found)
    };
    measures.calibration = calibration(&clean);
    measures.calibration_attacked = calibration(&moved);
    let all = [own, measured("acl/slf", &crate::classifier(5))];
    let transfer =
        [None, Some(&all[1])].map(|source| transfer(source, &all, context).expect("counts"));
    Figures {
        accuracy,
        attacked,
        examples,
        valid: verified.expect("examples").valid,
        soundness,
        measures,
        transfer,
    }
}

#[test]
fn no_figure_depends_on_the_batch_size_or_on_the_order_of_the_images() {
    let classifier = classifier(2);
    let split = split(&classifier);
    let all: Vec<usize> = (0..COUNT).collect();
    // Backwards, every third first.
    let other: Vec<usize> = [2, 1, 0]
        .into_iter()
        .flat_map(|first| (first..COUNT).step_by(3).rev())
        .collect();
    for norm in [Norm::Linf, Norm::L2] {
        let ball = ball(norm);
        let whole = figures(&classifier, &split, (&all, COUNT), ball);
        let total = &whole.accuracy.total;
        let case = format!("{norm:?}: {total:?}");
        assert_eq!((total.images, total.clean), (COUNT, 32), "{case}");
        assert!(0 < total.robust && total.robust < 32, "{case}");
        assert!(whole.attacked.robust <= total.robust, "{case}");
        assert_eq!(whole.attacked.pgd.as_ref(), Some(total), "{case}");
        assert_eq!(whole.valid, whole.examples.indices.len(), "{case}");
        assert!(whole.valid > 0, "{case}");
        let patch = whole.measures.patch.expect("measured");
        assert!(
            0.0 < patch.robust.share && patch.robust.share < patch.clean.share,
            "{patch:?}"
        );
        let certified = whole.measures.smoothing.as_ref().expect("measured");
        let some = |one: &Certificate| 0 < one.hits && one.hits < 30;
        assert!(certified.certificates.iter().any(some), "{certified:?}");
        for (among, batch_size) in [(&all, 7), (&other, 13)] {
            let found = figures(&classifier, &split, (among, batch_size), ball);
            assert!(
                found == whole,
                "{case}, batches of {batch_size}: {found:#?} and {whole:#?}"
            );
        }
    }
}

#[test]
fn the_headline_the_suite_and_the_library_agree_on_pgd() {
    let classifier = classifier(2);
    let (split, frozen) = (split(&classifier), classifier.frozen());
    let all: Vec<usize> = (0..COUNT).collect();
    let logits = |x| frozen.logits(x);
    let ball = ball(Norm::Linf);
    let whole = figures(&classifier, &split, (&all, 9), ball);
    let pgd = RestartedPgd {
        steps: 5,
        ..RestartedPgd::default()
    };
    let suite = Suite::new(vec![Attack::Pgd(pgd)]).expect("a suite");
    let options = Options {
        seed: 3,
        ..Options::default()
    };
    let batch = to_tensor(split.images.batch(&all), &device());
    let outcome = attack::evaluate(
        &logits,
        batch.clone(),
        &split.labels,
        ball,
        &suite,
        options,
        &mut |_| Ok(()),
    )
    .expect("an outcome");
    assert_eq!(outcome.per_image, whole.accuracy.per_image);

    // The whole suite, with its examples.
    let progress = &mut |_| Ok(());
    let suite = self::suite();
    let labels = &split.labels;
    let outcome = attack::evaluate(&logits, batch, labels, ball, &suite, options, progress);
    let outcome = outcome.expect("an outcome");
    assert_eq!(outcome.per_image, whole.attacked.per_image);
    let (values, size) = (to_vec(outcome.images), split.images.image_len());
    let examples = whole.examples.images.chunks(size);
    for (&index, example) in whole.examples.indices.iter().zip(examples) {
        assert!(values[index * size..][..size] == *example, "image {index}");
    }
}

#[test]
fn pgd_is_counted_on_the_images_of_a_suite() {
    let classifier = classifier(2);
    let split = split(&classifier);
    let ball = ball(Norm::Linf);
    let all: Vec<usize> = (0..COUNT).collect();
    let whole = figures(&classifier, &split, (&all, 9), ball);
    let some = [3, 4, 5, 20, 38];
    let few = figures(&classifier, &split, (&some, 9), ball);
    let pgd = few.attacked.clone().with_pgd(&whole.accuracy).pgd;
    assert_eq!(pgd, Some(few.accuracy.total));
    assert_eq!(few.accuracy.total.images, 5);
    // What holds for an image does not depend on the others.
    for index in some {
        let outcome = |per_image: &PerImage| per_image.0[index];
        assert_eq!(
            outcome(&few.accuracy.per_image),
            outcome(&whole.accuracy.per_image)
        );
        assert_eq!(
            outcome(&few.attacked.per_image),
            outcome(&whole.attacked.per_image)
        );
    }
    // Not all images of the suite were seen by PGD.
    assert_eq!(whole.attacked.with_pgd(&few.accuracy).pgd, None);
}

#[test]
fn a_classifier_of_one_class_is_told_apart_from_a_robust_one() {
    // All labels alike in number, and one prediction for every image.
    let mut network = classifier(2);
    let (constant, images) = (network.linear.zeros(), images(COUNT));
    network.linear = constant;
    let split = Split {
        images,
        labels: (0..COUNT).map(|i| i % 4).collect(),
    };
    let ball = ball(Norm::Linf);
    let all: Vec<usize> = (0..COUNT).collect();
    let found = figures(&network, &split, (&all, COUNT), ball);
    let total = found.accuracy.total;
    assert_eq!(
        (total.clean, total.robust),
        (10, 10),
        "robust, and worth nothing"
    );
    let warnings: Vec<CheckName> = found.soundness.warnings().map(|f| f.check).collect();
    assert!(warnings.contains(&CheckName::ClassBalance), "{warnings:?}");
    let radius = found
        .soundness
        .findings
        .iter()
        .find(|f| f.check == CheckName::Radius);
    assert_eq!(radius.map(|f| f.verdict), Some(Verdict::NotChecked));
}
