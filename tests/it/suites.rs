//! Attacks by name, on classifiers of which it is known what can be broken.

use advcl::attack::{Attack, AttackKind, AttackResult, Ball, Norm, Suite, Victim};
use advcl::data::{Images, Split};
use advcl::error::Error;
use advcl::evaluate::Evaluator;
use advcl::evaluate::smallest::Search;
use advcl::random;
use advcl::session::Context;
use advcl::tensor::to_vec;
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use crate::device;

const SHAPE: [usize; 3] = [1, 3, 4];
const SIZE: usize = 12;
/// With its published settings, but for queries: thousands find no more in classifiers this small.
fn only(kind: AttackKind) -> Attack {
    let suite: Suite = match kind {
        AttackKind::Square => {
            serde_json::from_str(r#"[{ "kind": "square", "queries": 300 }]"#).expect("a list")
        }
        _ => Suite::named(kind.name()).expect("a name"),
    };
    suite.attacks()[0].clone()
}

/// `logits = weight (x - 1/2)`, and images that it classifies as it should.
struct Linear {
    weight: Vec<Vec<f32>>,
    images: Vec<Vec<f32>>,
    labels: Vec<usize>,
}

impl Linear {
    fn new(classes: usize, images: usize) -> Self {
        let mut rng = random::generator(classes as u64, "linear", 0);
        let mut row = |low: f32, high: f32| -> Vec<f32> {
            (0..SIZE).map(|_| rng.random_range(low..high)).collect()
        };
        let mut linear = Self {
            weight: (0..classes).map(|_| row(-1.0, 1.0)).collect(),
            images: (0..images).map(|_| row(0.35, 0.65)).collect(),
            labels: Vec::new(),
        };
        let best = |image: &Vec<f32>| {
            let logit = |class: &usize| linear.logit(*class, image);
            (0..classes).max_by(|a, b| logit(a).total_cmp(&logit(b)))
        };
        linear.labels = linear.images.iter().filter_map(best).collect();
        linear
    }

    fn logit(&self, class: usize, image: &[f32]) -> f32 {
        let terms = self.weight[class].iter().zip(image);
        terms.map(|(w, x)| w * (x - 0.5)).sum()
    }

    fn logits(&self, x: Tensor<4>) -> Tensor<2> {
        let shape = [self.weight.len(), SIZE];
        let weight =
            Tensor::<2>::from_data(TensorData::new(self.weight.concat(), shape), &x.device());
        (x.flatten::<2>(1, 3) - 0.5).matmul(weight.transpose())
    }

    /// The distance to the nearest point of another class: the margin over the dual norm of the
    /// weights' difference.
    fn distance(&self, image: usize, norm: Norm) -> f64 {
        let own = self.labels[image];
        let others = (0..self.weight.len()).filter(|&class| class != own);
        let to = others.map(|class| {
            let gap = self.logit(own, &self.images[image]) - self.logit(class, &self.images[image]);
            let slope = self.weight[own].iter().zip(&self.weight[class]);
            let slope = slope.map(|(a, b)| f64::from(a - b));
            let dual = match norm {
                Norm::Linf => slope.map(f64::abs).sum(),
                Norm::L2 => slope.map(|s| s * s).sum::<f64>().sqrt(),
            };
            f64::from(gap) / dual
        });
        to.fold(f64::INFINITY, f64::min)
    }

    fn attack(&self, attack: &Attack, ball: Ball, rows: &[usize]) -> Result<AttackResult, Error> {
        self.attack_through(attack, ball, rows, &|x| self.logits(x))
    }

    fn attack_through(
        &self,
        attack: &Attack,
        ball: Ball,
        rows: &[usize],
        logits: &dyn Fn(Tensor<4>) -> Tensor<2>,
    ) -> Result<AttackResult, Error> {
        let values: Vec<f32> = rows.iter().flat_map(|&r| self.images[r].clone()).collect();
        let shape = [rows.len(), SHAPE[0], SHAPE[1], SHAPE[2]];
        let images = Tensor::from_data(TensorData::new(values, shape), &device());
        let labels: Vec<usize> = rows.iter().map(|&row| self.labels[row]).collect();
        let victim = Victim {
            logits,
            images: &images,
            labels: &labels,
            indices: rows,
            ball,
            seed: 3,
        };
        attack.run(&victim, &mut |_| Ok(()))
    }
}

/// A radius that about half of the images are safe from.
fn median(distances: &[f64]) -> f64 {
    let mut sorted = distances.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2] * 1.001
}

#[test]
fn attacks_break_what_can_be_broken_and_nothing_else() {
    for norm in [Norm::Linf, Norm::L2] {
        for classes in [2, 3, 4, 10] {
            let linear = Linear::new(classes, 40);
            let rows: Vec<usize> = (0..40).collect();
            let distances: Vec<f64> = rows.iter().map(|&row| linear.distance(row, norm)).collect();
            let radius = median(&distances);
            let ball = Ball { norm, radius };
            for kind in AttackKind::ALL {
                let case = format!("{kind}, {classes} classes, {norm:?} {radius}");
                let found = linear.attack(&only(kind), ball, &rows).expect(&case);
                let moved = to_vec(found.images);
                for (row, &distance) in distances.iter().enumerate() {
                    let name = format!("{case}, image {row} at {distance}");
                    let example = &moved[row * SIZE..(row + 1) * SIZE];
                    if found.broken[row] {
                        assert!(distance <= radius * 1.0001, "{name}: cannot be broken");
                        let own = linear.logit(linear.labels[row], example);
                        let more = |class| linear.logit(class, example) > own - 1e-6;
                        assert!(
                            (0..classes).any(|c| c != linear.labels[row] && more(c)),
                            "{name}"
                        );
                        assert!(example.iter().all(|v| (0.0..=1.0).contains(v)), "{name}");
                        // With three classes the targeted cross-entropy also pushes away from the
                        // third.
                    } else if kind == AttackKind::FabT || kind == AttackKind::ApgdT && classes != 3
                    {
                        assert!(distance > radius * 0.98, "{name}: was not broken");
                    }
                }
                // With two classes there is one way to go.
                let broken = found.broken.iter().filter(|&&broken| broken).count();
                let all = distances.iter().filter(|&&d| d < radius * 0.98).count();
                if classes == 2 && kind.name().starts_with("apgd") {
                    assert!(broken >= all, "{case}: {broken} of {all}");
                }
            }
        }
    }
}

#[test]
fn the_smallest_radius_is_found_by_bisection() {
    let linear = Linear::new(2, 12);
    let shape = [12, SHAPE[0], SHAPE[1], SHAPE[2]];
    let bytes = |image: &Vec<f32>| image.iter().map(|v| (v * 255.0).round() as u8).collect();
    let pixels: Vec<Vec<u8>> = linear.images.iter().map(bytes).collect();
    // Rounded, as images are kept.
    let to_unit = |image: &Vec<u8>| image.iter().map(|&v| f32::from(v) / 255.0).collect();
    let linear = Linear {
        images: pixels.iter().map(to_unit).collect(),
        ..linear
    };
    let split = Split {
        images: Images::new(pixels.concat(), [shape[1], shape[2], shape[3]]),
        labels: linear.labels.clone(),
    };
    let logits = |x| linear.logits(x);
    let suite = Suite::named("apgd-ce").expect("a name");
    let among: Vec<usize> = (0..12).collect();
    for (norm, radius) in [(Norm::Linf, 0.1), (Norm::L2, 0.3)] {
        let search = Search {
            evaluator: Evaluator {
                name: "linear",
                logits: &logits,
                classes: 2,
                split: &split,
                batch_size: 5,
            },
            suite: &suite,
            ball: Ball { norm, radius },
        };
        let mut context = Context::new(device());
        let found = search.run(&among, &mut context).expect("finite logits");
        let mut fell = 0;
        for (image, found) in found.iter().enumerate() {
            let nearest = linear.distance(image, norm);
            let case = format!("{norm}, image {image} at {nearest}: {found:?}");
            let Some(falls) = found.falls else {
                assert!(nearest > 0.99 * search.bound(), "{case}");
                continue;
            };
            fell += 1;
            assert!(falls >= nearest * 0.9999, "{case}: cannot be broken");
            assert!(falls <= nearest * 1.02 + search.precision(), "{case}");
            assert!(falls - found.holds <= search.precision() * 1.0001, "{case}");
            assert_eq!(found.within.is_some(), falls <= radius, "{case}");
            assert!(found.nearest.is_some(), "{case}");
        }
        assert!(fell > 3, "{norm}: {fell} are no test");
    }
}

#[test]
fn a_result_does_not_depend_on_the_batch() {
    for norm in [Norm::Linf, Norm::L2] {
        let linear = Linear::new(5, 12);
        let rows: Vec<usize> = (0..12).collect();
        let distances: Vec<f64> = rows.iter().map(|&row| linear.distance(row, norm)).collect();
        let radius = median(&distances);
        let ball = Ball { norm, radius };
        for kind in AttackKind::ALL {
            let attack = only(kind);
            let together = linear.attack(&attack, ball, &rows).expect("finite logits");
            let moved = to_vec(together.images);
            for &row in &rows {
                let alone = linear.attack(&attack, ball, &[row]).expect("finite logits");
                assert_eq!(
                    alone.broken[0], together.broken[row],
                    "{kind} {norm:?}, image {row}"
                );
                if alone.broken[0] {
                    let alone = to_vec(alone.images);
                    let together = &moved[row * SIZE..(row + 1) * SIZE];
                    let gaps = alone.iter().zip(together).map(|(a, b)| (a - b).abs());
                    let gap = gaps.fold(0.0, f32::max);
                    assert!(gap < 1e-5, "{kind} {norm:?}, image {row}: {gap}");
                }
            }
        }
    }
}

#[test]
fn where_nothing_can_be_done_nothing_is_broken() {
    for classes in [1, 2, 3, 4, 10] {
        let linear = Linear::new(classes, 6);
        let rows: Vec<usize> = (0..6).collect();
        for norm in [Norm::Linf, Norm::L2] {
            for kind in AttackKind::ALL {
                let case = format!("{kind}, {classes} classes, {norm:?}");
                let none = Ball { norm, radius: 0.0 };
                let found = linear.attack(&only(kind), none, &rows).expect(&case);
                assert_eq!(found.broken, [false; 6], "{case}, no room");
                // Logits that do not change: every gradient is zero.
                let ball = Ball { norm, radius: 0.3 };
                let first: Vec<f32> = (0..classes)
                    .map(|c| if c == 0 { 1.0 } else { 0.0 })
                    .collect();
                let first = Tensor::<2>::from_data(TensorData::new(first, [1, classes]), &device());
                let constant = |x: Tensor<4>| x.flatten::<2>(1, 3).sum_dim(1) * 0.0 + first.clone();
                let same = Linear {
                    labels: vec![0; 6],
                    images: linear.images.clone(),
                    weight: linear.weight.clone(),
                };
                let found = same.attack_through(&only(kind), ball, &rows, &constant);
                assert_eq!(
                    found.expect(&case).broken,
                    [false; 6],
                    "{case}, no gradient"
                );
            }
        }
    }
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    let linear = Linear::new(4, 3);
    for norm in [Norm::Linf, Norm::L2] {
        for kind in AttackKind::ALL {
            let ball = Ball { norm, radius: 0.2 };
            let shape = [1, SHAPE[0], SHAPE[1], SHAPE[2]];
            let data = TensorData::new(linear.images[1].clone(), shape);
            let original = Tensor::<4>::from_data(data, &device());
            // No number once the image has moved.
            let sick = |x: Tensor<4>| {
                let far = (x.clone() - original.clone())
                    .square()
                    .flatten::<2>(1, 3)
                    .sum_dim(1);
                linear.logits(x) + (-far + 1e-9).sqrt() * 0.0
            };
            let error = linear.attack_through(&only(kind), ball, &[1], &sick);
            let Err(Error::Logits { image, value, .. }) = error else {
                panic!("{kind} {norm:?}: no error");
            };
            assert!(image == 1 && value.is_nan(), "{kind}: {image}, {value}");
        }
    }
}
