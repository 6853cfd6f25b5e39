//! What every attack must keep to, whatever it climbs.

use advcl::attack::{AttackKind, Ball, Norm, Pgd, Suite, Victim};
use advcl::loss::cross_entropy_each;
use advcl::nn::{Classifier, Linear, Route, Statistics};
use advcl::pretrain::advcl::AdvCl;
use advcl::random;
use advcl::tensor::{to_tensor, to_vec};
use advcl::train::{Objective, Seen, Step};
use advcl::weights;
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use crate::{advcl_settings, backbone, device, images, pseudo_labels};

const SHAPE: [usize; 4] = [4, 3, 5, 6];
const EACH: usize = 90;

/// Numbers in [-1, 1] from a seed.
fn noise(seed: u64) -> Vec<f32> {
    use rand::RngExt;
    let mut rng = random::generator(seed, "noise", 0);
    (0..SHAPE.iter().product())
        .map(|_| rng.random_range(-1.0..=1.0f32))
        .collect()
}

fn tensor(values: Vec<f32>) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, SHAPE), &device())
}

/// Black, white, gray, and everything with both ends of [0, 1] in it.
fn originals() -> [(&'static str, Tensor<4>); 4] {
    let count = SHAPE.iter().product();
    let mixed = noise(1)
        .into_iter()
        .map(|value| (value * 0.8 + 0.5).clamp(0.0, 1.0));
    [
        ("black", tensor(vec![0.0; count])),
        ("white", tensor(vec![1.0; count])),
        ("gray", tensor(vec![0.5; count])),
        ("mixed", tensor(mixed.collect())),
    ]
}

/// How far each image is from its original.
fn distances(norm: Norm, a: &[f32], b: &[f32]) -> Vec<f64> {
    let distance = |(a, b): (&[f32], &[f32])| {
        let differences = a.iter().zip(b).map(|(a, b)| f64::from(a - b));
        match norm {
            Norm::Linf => differences.fold(0.0, |most, d| f64::max(most, d.abs())),
            Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
        }
    };
    a.chunks(EACH).zip(b.chunks(EACH)).map(distance).collect()
}

#[test]
fn every_attack_of_a_suite_stays_in_ball_and_box() {
    // A linear classifier with small margins, so that the examples lie at the edge; images at both ends of [0, 1].
    let slopes: Vec<Tensor<4>> = (2..6).map(|seed| tensor(noise(seed))).collect();
    let logits = |x: Tensor<4>| {
        let [count, ..] = x.dims();
        let logit = |slope: &Tensor<4>| {
            let slope = slope.clone().narrow(0, 0, 1).repeat_dim(0, count);
            (x.clone() * slope).flatten::<2>(1, 3).sum_dim(1)
        };
        Tensor::cat(slopes.iter().map(logit).collect(), 1)
    };
    let mut broken = 0;
    for norm in [Norm::Linf, Norm::L2] {
        for radius in [0.0, 1e-3, 8.0 / 255.0, 0.3, 1.0] {
            for (name, original) in originals() {
                for kind in AttackKind::ALL {
                    let case = format!("{kind}, {norm:?} {radius} {name}");
                    let ball = Ball { norm, radius };
                    let suite = match kind {
                        AttackKind::Square => {
                            let text = r#"[{ "kind": "square", "queries": 40 }]"#;
                            serde_json::from_str(text).expect("a list")
                        }
                        _ => Suite::named(kind.name()).expect("a name"),
                    };
                    let labels = advcl::logits::predictions(logits(original.clone()));
                    let attack = |seed| {
                        let victim = Victim {
                            logits: &logits,
                            images: &original,
                            labels: &labels,
                            indices: &[0, 1, 2, 3],
                            ball,
                            seed,
                        };
                        let found = suite.attacks()[0].run(&victim, &mut |_| Ok(()));
                        let found = found.expect("finite logits");
                        (found.broken, to_vec(found.images))
                    };
                    let (found, images) = (attack(1), to_vec(original.clone()));
                    assert!(found == attack(1), "{case}: the same seed");
                    let examples = found.1.chunks(EACH).zip(images.chunks(EACH));
                    let examples = examples.zip(&found.0).filter(|(_, broken)| **broken);
                    for ((example, image), _) in examples {
                        let boxed = example.iter().all(|value| (0.0..=1.0).contains(value));
                        assert!(boxed, "{case}: box");
                        let distance = distances(norm, example, image)[0];
                        let most = radius * (1.0 + 1e-5) + 1e-7;
                        assert!(distance <= most, "{case}: at {distance}");
                        broken += 1;
                    }
                    if radius == 0.0 {
                        assert_eq!(found.0, [false; 4], "{case}: no room");
                    }
                }
            }
        }
    }
    assert!(broken > 200, "{broken} examples are no test");
}

#[test]
fn pgd_stays_in_ball_and_box() {
    let slope = tensor(noise(2));
    for norm in [Norm::Linf, Norm::L2] {
        for radius in [0.0, 1e-3, 8.0 / 255.0, 0.3, 1.0] {
            for (name, original) in originals() {
                for (steps, step_size) in [(0, 0.1), (1, 2.0), (7, radius / 4.0), (3, 0.0)] {
                    let case = format!("{norm:?} {radius} {name}, {steps} steps of {step_size}");
                    let ball = Ball { norm, radius };
                    let climb = |x: Tensor<4>| (x * slope.clone()).sum();
                    let attack = |seed| {
                        let mut rng = random::generator(seed, "attack", 0);
                        to_vec(Pgd { steps, step_size }.maximize(climb, &original, ball, &mut rng))
                    };
                    let (attacked, images) = (attack(1), to_vec(original.clone()));
                    assert!(
                        attacked.iter().all(|value| (0.0..=1.0).contains(value)),
                        "{case}: box"
                    );
                    for distance in distances(norm, &attacked, &images) {
                        assert!(
                            distance <= radius * (1.0 + 1e-5) + 1e-7,
                            "{case}: at {distance}"
                        );
                    }
                    assert_eq!(attacked, attack(1), "{case}: the same seed");
                    if radius == 0.0 {
                        assert_eq!(attacked, images, "{case}: no radius, no change");
                    } else if steps == 0 || step_size == 0.0 {
                        // The start alone: random, and a point of the ball by the other assertions.
                        let mut rng = random::generator(1, "attack", 0);
                        let start = to_vec(ball.random_start(&original, &mut rng));
                        assert_eq!(attacked, start, "{case}: the start");
                        assert_ne!(attacked, images, "{case}: the start is not the image");
                        assert_ne!(attacked, attack(2), "{case}: another seed");
                    }
                }
            }
        }
    }
}

#[test]
fn a_linear_loss_is_climbed_to_its_maximum() {
    // Known in closed form: the ball's corner for L∞ (clamped into the box), its point along the slope for L2.
    let slope = noise(2);
    let climb = |x: Tensor<4>| (x * tensor(slope.clone())).sum();
    for (name, original) in originals() {
        let radius = 0.1;
        let mut rng = random::generator(1, "attack", 0);
        let pgd = Pgd {
            steps: 10,
            step_size: 0.05,
        };
        let ball = Ball {
            norm: Norm::Linf,
            radius,
        };
        let attacked = to_vec(pgd.maximize(climb, &original, ball, &mut rng));
        let best = to_vec(original.clone()).into_iter().zip(&slope);
        let best = best.map(|(x, g)| (x + radius as f32 * g.signum()).clamp(0.0, 1.0));
        for (ours, best) in attacked.iter().zip(best) {
            assert!((ours - best).abs() < 1e-6, "{name}: {ours}, at best {best}");
        }
    }
    let (_, gray) = originals()[2].clone();
    let mut rng = random::generator(1, "attack", 0);
    let pgd = Pgd {
        steps: 50,
        step_size: 0.1,
    };
    let attacked = to_vec(pgd.maximize(
        climb,
        &gray,
        Ball {
            norm: Norm::L2,
            radius: 0.4,
        },
        &mut rng,
    ));
    for (image, slope) in attacked.chunks(EACH).zip(slope.chunks(EACH)) {
        let length = slope.iter().map(|g| g * g).sum::<f32>().sqrt();
        for (ours, g) in image.iter().zip(slope) {
            assert!((ours - 0.5 - 0.4 * g / length).abs() < 1e-3, "L2: {ours}");
        }
    }
}

#[test]
fn pgd_raises_a_classifiers_loss_and_the_classifier_stays_as_it_was() {
    let device = device();
    let backbone = backbone(3, 1);
    let mut rng = random::generator(4, "head", 0);
    let linear = Linear::new(16, 10, &mut rng, &device);
    let before = (weights::export(&backbone), weights::export(&linear));
    let classifier = Classifier {
        encoder: backbone.encoder.clone(),
        linear: linear.clone(),
        route: Route::Pgd,
    }
    .frozen();
    let batch = to_tensor(images(32).batch(&(0..32).collect::<Vec<_>>()), &device);
    let labels = advcl::tensor::label_tensor(&(0..32).map(|i| i % 10).collect::<Vec<_>>(), &device);
    let losses = |x: Tensor<4>| cross_entropy_each(classifier.logits(x), labels.clone());
    let clean = to_vec(losses(batch.clone()));
    for ball in [
        Ball {
            norm: Norm::Linf,
            radius: 0.1,
        },
        Ball {
            norm: Norm::L2,
            radius: 1.0,
        },
    ] {
        let mut reached = vec![clean.iter().sum::<f32>()];
        for steps in [1, 20] {
            let pgd = Pgd {
                steps,
                step_size: ball.radius / 4.0,
            };
            let attacked = pgd.climb(|x| losses(x).sum(), batch.clone(), &batch, ball);
            reached.push(to_vec(losses(attacked)).iter().sum());
        }
        assert!(
            reached[0] < reached[1] && reached[1] < reached[2],
            "{ball:?}: {reached:?}"
        );
    }
    assert_eq!(
        before,
        (weights::export(&backbone), weights::export(&linear))
    );
}

#[test]
fn a_pretraining_step_changes_nothing_but_through_its_statistics() {
    let (images, labels, settings) = (images(16), pseudo_labels(16), advcl_settings(1));
    let ball = Ball {
        norm: Norm::Linf,
        radius: 0.1,
    };
    let objective = AdvCl::new(&images, &settings, &labels, ball);
    let detached = backbone(3, 1);
    let tracked = detached.clone().train();
    let before = weights::export(&detached);
    let mut statistics = Statistics::default();
    let loss = objective.loss(Step {
        tracked: &tracked,
        detached: &detached,
        indices: &(0..16).collect::<Vec<_>>(),
        epoch: 0,
        rng: &mut random::generator(0, "step", 0),
        device: &device(),
        statistics: &mut statistics,
        seen: &mut Seen::default(),
    });
    let gradients = loss.total.backward();
    assert!(!advcl::train::named_gradients(&tracked, &gradients).is_empty());
    assert!(
        before == weights::export(&detached),
        "the detached model changed"
    );
    assert!(
        before == weights::export(&tracked),
        "the tracked model changed"
    );

    let after = weights::export(&statistics.absorb_into(detached));
    for (name, value) in &before {
        let statistic = name.contains(".running_");
        // Every branch was used, so every statistic follows its batch; no parameter does.
        assert_eq!(*value != after[name], statistic, "{name}");
    }
}
