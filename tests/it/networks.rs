//! Small networks, images and settings, for tests of the library.

use advcl::attack::Ball;
use advcl::cluster::PseudoLabels;
use advcl::criterion::{Criterion, EndToEnd, Task};
use advcl::data::{Images, Split};
use advcl::nn::{Backbone, Classifier, Depth, Encoder, EncoderConfig, Linear, Route, Stem};
use advcl::random;
use advcl::train::{Optimizer, Plan, Schedule};
use burn::tensor::Device;
use rand::RngExt;

/// The CPU.
pub fn device() -> Device {
    advcl::device::open("cpu").expect("compiled in by default")
}

/// `count` images of random patches, gray, 12 × 12: black, white and what is between.
pub fn images(count: usize) -> Images {
    let mut rng = random::generator(5, "images", 0);
    let patches: Vec<u8> = (0..count * 16)
        .map(|_| [0, 60, 180, 255][rng.random_range(0..4)])
        .collect();
    let pixel = |i: usize| patches[i / 144 * 16 + i % 144 / 36 * 4 + i % 12 / 3];
    Images::new((0..count * 144).map(pixel).collect(), [1, 12, 12])
}

/// A small backbone with cluster heads of 2 and 5.
pub fn backbone(routes: usize, seed: u64) -> Backbone {
    let mut rng = random::generator(seed, "backbone", 0);
    Backbone::new(&encoder(), 1, routes, &[2, 5], &mut rng, &device())
}

/// The smallest encoder that has everything.
pub fn encoder() -> EncoderConfig {
    EncoderConfig {
        depth: Depth::D10,
        width: 2,
        stem: Stem::Strided,
    }
}

/// The same encoder with a classifier of 4 classes.
pub fn classifier(seed: u64) -> Classifier {
    let (mut rng, device) = (random::generator(seed, "classifier", 0), device());
    Classifier {
        encoder: Encoder::new(&encoder(), 1, 1, &mut rng, &device),
        linear: Linear::new(encoder().features(), 4, &mut rng, &device),
        route: Route::Normal,
    }
}

/// `count` of [`images`] with labels of 4 classes.
pub fn labeled(count: usize) -> Split {
    Split {
        images: images(count),
        labels: (0..count).map(|i| i % 4).collect(),
    }
}

/// Labels for the heads of [`backbone`].
pub fn pseudo_labels(images: usize) -> PseudoLabels {
    let labels = |k: usize| (k, (0..images).map(|i| (i * 7 + i / 3) % k).collect());
    PseudoLabels {
        clusters: vec![labels(2), labels(5)],
        origin: "counted".to_owned(),
    }
}

/// Batches of 16.
pub fn plan(epochs: usize, lr: f64) -> Plan {
    Plan {
        epochs,
        batch_size: 16,
        lr,
        schedule: Schedule::Cosine {
            warmup_epochs: 1,
            warmup_from: 0.01,
        },
        momentum: 0.9,
        weight_decay: 1e-4,
        optimizer: Optimizer::Sgd,
        stretched: Vec::new(),
        micro_batch: None,
    }
}

/// AdvCL with two attack steps.
pub fn advcl_settings(epochs: usize) -> advcl::pretrain::advcl::AdvClSettings {
    advcl::pretrain::advcl::AdvClSettings {
        plan: plan(epochs, 0.1),
        temperature: 0.5,
        cluster_weight: 0.2,
        high_frequency_radius: Some(4.0),
        strong_views: 2,
        clusters: None,
        attack_steps: 2,
        attack_step_size: Some("0.05".parse().expect("a distance")),
        strong: Default::default(),
        weak: Default::default(),
    }
}

/// Adversarial training with two attack steps.
pub fn supervised_settings(
    epochs: usize,
) -> advcl::pretrain::adversarial_training::AdversarialTrainingSettings {
    advcl::pretrain::adversarial_training::AdversarialTrainingSettings {
        plan: plan(epochs, 0.1),
        attack_steps: 2,
        attack_step_size: Some("0.05".parse().expect("a distance")),
        weak: Default::default(),
    }
}

/// The objective that these settings mean, of 4 classes.
pub fn end_to_end<'a>(
    split: &'a Split,
    settings: &advcl::pretrain::adversarial_training::AdversarialTrainingSettings,
    ball: Ball,
) -> EndToEnd<'a> {
    let augment = Some(settings.weak.clone());
    EndToEnd {
        task: Task::new(&split.images, &split.labels, 4, augment, ball, &device()),
        criterion: Criterion::Pgd {
            steps: settings.attack_steps,
            step_size: settings.attack_step_size.clone(),
        },
    }
}
