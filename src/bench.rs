//! Speed of whole pretraining steps, on random images.

use std::time::Instant;

use burn::tensor::Device;
use rand::Rng;
use serde::Serialize;

use crate::attack::{Ball, Norm};
use crate::cluster::PseudoLabels;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::nn::{Backbone, Depth, EncoderConfig, Route, Stem, weights};
use crate::pretrain::advcl::{AdvCl, Settings};
use crate::random;
use crate::train::{Plan, Schedule, Sgd, update};

/// The paper's numbers of clusters.
const COUNTS: [usize; 5] = [2, 10, 50, 100, 500];

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct StepTime {
    /// Channels of the first stage.
    pub width: usize,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
    /// Of each timed step.
    pub seconds: Vec<f64>,
    /// Their median.
    pub median_seconds: f64,
    /// Batch over median.
    pub images_per_second: f64,
}

/// Times whole AdvCL pretraining steps: augmentation, attack, forward, backward, update. ResNet-18, 5 attack
/// steps, K = 2, 10, 50, 100, 500; one step to warm up, then `runs` timed ones.
///
/// # Errors
/// [`Error::Recipe`] for an impossible shape.
pub fn step(shape: [usize; 4], width: usize, runs: usize, device: &Device) -> Result<StepTime> {
    let [batch, channels, height, image_width] = shape;
    let bounded = (2..=65_536).contains(&batch)
        && [1, 3].contains(&channels)
        && (8..=1024).contains(&height)
        && (1..=1024).contains(&width)
        && (1..=10_000).contains(&runs);
    // None of these overflows; together they may still ask for more memory than anybody has.
    if !bounded || batch * channels * height * image_width > 1 << 30 {
        let problem = format!(
            "cannot time batch {batch}, {channels} channels, size {height}, width {width}, {runs} runs"
        );
        return Err(Error::recipe(
            "bench step",
            problem,
            "expected a batch of 2 to 65536, 1 or 3 channels, size 8 to 1024, width 1 to 1024, 1 to 10000 runs, and at most 2^30 values a batch",
        ));
    }
    let mut rng = random::generator(0, "bench", 0);
    let mut pixels = vec![0; shape.iter().product()];
    rng.fill_bytes(&mut pixels);
    let images = Images {
        pixels,
        channels,
        height,
        width: image_width,
    };
    let labels = PseudoLabels {
        clusters: COUNTS
            .map(|k| (k, (0..batch).map(|i| i % k).collect()))
            .to_vec(),
        origin: "bench".to_owned(),
    };
    let settings = Settings {
        plan: Plan {
            epochs: 1,
            batch_size: batch,
            lr: 0.01,
            schedule: Schedule::Steps {
                milestones: Vec::new(),
            },
            momentum: 0.9,
            weight_decay: 1e-4,
        },
        temperature: 0.5,
        cluster_weight: 0.2,
        high_frequency_radius: 8.0,
        attack_steps: 5,
        attack_step_size: None,
        strong: Default::default(),
        weak: Default::default(),
    };
    let ball = Ball {
        norm: Norm::Linf,
        radius: 8.0 / 255.0,
    };
    let objective = AdvCl::new(&images, &settings, &labels, ball, device.clone());
    let config = EncoderConfig {
        depth: Depth::D18,
        width,
        stem: Stem::Cifar,
    };
    let mut model = Backbone::new(
        &config,
        channels,
        Route::ALL.len(),
        &COUNTS,
        &mut rng,
        device,
    );
    let mut sgd = Sgd::new(settings.plan.momentum, settings.plan.weight_decay);
    let indices: Vec<usize> = (0..batch).collect();
    let mut seconds = Vec::with_capacity(runs);
    for run in 0..=runs {
        let started = Instant::now();
        let loss;
        let lr = settings.plan.lr;
        (model, loss) = update(&objective, model, &mut sgd, lr, &indices, 0, &mut rng);
        // Reading the loss and a weight waits for the device.
        weights::to_vec(loss.total);
        weights::to_vec(model.fc[0].bias.val());
        if run > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[runs / 2];
    Ok(StepTime {
        width,
        shape,
        seconds,
        median_seconds: median,
        images_per_second: batch as f64 / median,
    })
}
