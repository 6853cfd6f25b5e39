use std::path::Path;
use std::sync::atomic::AtomicBool;

use rand::RngExt;
use rand_distr::StandardNormal;

use super::regression::{EXACT, Regression};
use super::*;
use crate::random::generator;
use crate::weights;

static GO: AtomicBool = AtomicBool::new(false);

/// Features of overlapping classes around centres of their own, image after image, and the labels.
fn clouds(counts: &[usize], features: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
    let mut rng = generator(seed, "clouds", 0);
    let mut normal = || rng.sample::<f32, _>(StandardNormal);
    let centres: Vec<f32> = (0..counts.len() * features).map(|_| normal()).collect();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (class, &count) in counts.iter().enumerate() {
        for _ in 0..count {
            labels.push(class);
            let centre = &centres[class * features..][..features];
            values.extend(centre.iter().map(|c| c + 1.5 * normal()));
        }
    }
    (values, labels)
}

fn examples<'a>(data: &'a (Vec<f32>, Vec<usize>), weights: &'a [f64]) -> Examples<'a> {
    Examples {
        features: &data.0,
        labels: &data.1,
        weights,
    }
}

fn chosen(examples: Examples, seed: u64) -> Chosen {
    let fitted: Result<Chosen, ()> = fit(examples, seed, &GO, |_| Ok(()));
    fitted.expect("nobody refuses")
}

fn near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs() / largest;
        assert!(error <= tolerance, "{what}: {found}, expected {expected}");
    }
}

#[test]
fn minima_are_those_of_scikit_learn() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/logistic/minima.safetensors");
    let (tensors, _) = weights::load(&file).expect("golden/make_logistic.py wrote it");
    let (shape, features) = &tensors["features"];
    let labels: Vec<usize> = tensors["labels"].1.iter().map(|&l| l as usize).collect();
    assert_eq!(shape[0], labels.len());
    let f64s = |name: &str| -> Vec<f64> {
        let values = tensors[name].1.iter();
        values.map(|&x| f64::from(x)).collect()
    };
    for kind in ["alike", "balanced"] {
        let weights = f64s(&format!("{kind}.weights"));
        let all: Vec<usize> = (0..labels.len()).collect();
        let regression = Regression::new(
            Examples {
                features,
                labels: &labels,
                weights: &weights,
            },
            &GO,
        );
        for (index, strength) in f64s("strengths").into_iter().enumerate() {
            let what = format!("{kind}, {strength}");
            let point = regression.minimum(&all, strength, regression.zeros(), EXACT);
            let found = regression.unscaled(&point);
            let expected = |part: &str| f64s(&format!("{kind}.{index}.{part}"));
            near(&found.weight, &expected("weight"), 1e-4, &what);
            near(&found.bias, &expected("bias"), 1e-4, &what);
        }
    }
}

#[test]
fn the_minimum_does_not_depend_on_the_start() {
    let data = clouds(&[40, 30, 10], 9, 1);
    let regression = Regression::new(examples(&data, &[1.0; 3]), &GO);
    let all: Vec<usize> = (0..80).collect();
    let expected = regression.minimum(&all, 1e-3, regression.zeros(), EXACT);
    let mut rng = generator(2, "start", 0);
    for _ in 0..3 {
        let start = expected
            .iter()
            .map(|_| 5.0 * rng.sample::<f64, _>(StandardNormal));
        // A number added to all biases changes nothing: only their differences are determined.
        let mut found = regression.minimum(&all, 1e-3, start.collect(), EXACT);
        let shift = (0..3)
            .map(|c| found[27 + c] - expected[27 + c])
            .sum::<f64>()
            / 3.0;
        found[27..].iter_mut().for_each(|bias| *bias -= shift);
        near(&found, &expected, 1e-5, "from elsewhere");
    }
}

#[test]
fn results_are_the_same_for_any_number_of_threads() {
    let data = clouds(&[300, 250, 60], 12, 3);
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads")
            .install(|| chosen(examples(&data, &[1.0; 3]), 0))
    };
    let one = of(1);
    assert_eq!(one, of(3));
    assert!(one.held_out.is_some_and(|loss| loss < 3f64.ln()), "{one:?}");
}

#[test]
fn cross_validation_finds_the_strength_that_helps_on_other_images() {
    // Labels that have nothing to do with the features: nothing but a strong penalty is right.
    let (features, _) = clouds(&[60, 60], 20, 4);
    let labels: Vec<usize> = (0..120).map(|image| image % 2).collect();
    let noise = chosen(examples(&(features, labels), &[1.0; 2]), 0);
    assert!(noise.strength >= 1.0, "{noise:?}");
    // Classes that are far apart.
    let clear = chosen(examples(&clouds(&[60, 60], 20, 4), &[1.0; 2]), 0);
    assert!(clear.strength <= 0.1, "{clear:?}");
    assert!(clear.held_out < noise.held_out);
}

#[test]
fn few_images_and_features_that_do_not_vary_are_fitted_too() {
    // One image of each class: nothing can be held out.
    let single = chosen(examples(&clouds(&[1, 1, 1], 4, 5), &[1.0; 3]), 0);
    assert_eq!((single.strength, single.held_out), (USUAL, None));
    assert!(single.fitted.weight.iter().all(|w| w.is_finite()));
    // A class that has no image among many.
    let lonely = chosen(examples(&clouds(&[20, 1], 4, 5), &[1.0; 2]), 0);
    assert!(lonely.fitted.bias.iter().all(|b| b.is_finite()));
    let flat = chosen(examples(&(vec![2.0; 12], vec![0, 0, 1, 1]), &[1.0; 2]), 0);
    assert_eq!(flat.fitted.weight, [0.0; 6]);
    // One class: nothing to tell apart.
    let one = chosen(examples(&(vec![1.0, 2.0, 3.0], vec![0, 0, 0]), &[1.0]), 0);
    assert_eq!(one.fitted.weight, [0.0]);
}

#[test]
fn a_wish_to_stop_ends_it_between_two_fits() {
    let data = clouds(&[30, 30], 4, 6);
    let mut calls = 0;
    let fitted = fit(examples(&data, &[1.0; 2]), 0, &GO, |_| {
        calls += 1;
        if calls == 2 { Err("stop") } else { Ok(()) }
    });
    assert_eq!((fitted, calls), (Err("stop"), 2));
}
