//! Benchmark of whole pretraining steps.

use burn::tensor::Device;

use super::layers::Passes;
use super::setup::{Setup, Timing};
use crate::attack::{Ball, Norm};
use crate::cluster::PseudoLabels;
use crate::error::Result;
use crate::nn::{Backbone, Route, Shards};
use crate::pretrain::advcl::{AdvCl, AdvClSettings};
use crate::random;
use crate::tensor::to_vec;
use crate::train::{Batch, Optimizer, Plan, Schedule, Sgd, require_ranks, update};

/// Numbers of clusters in the AdvCL paper.
const COUNTS: [usize; 5] = [2, 10, 50, 100, 500];
const ATTACK_STEPS: usize = 5;

/// Times whole AdvCL pretraining steps: augmentation, attack, forward, backward, update. ResNet-18,
/// 5 attack steps, K = 2, 10, 50, 100, 500. One step warms up before the timed ones.
///
/// # Errors
/// [`Error::Recipe`](crate::Error::Recipe) for sizes that cannot be timed.
pub fn step(setup: &Setup, device: &Device) -> Result<Timing> {
    // The contrastive loss needs other images as negatives.
    setup.check("bench step", 2)?;
    setup.check_micro_batch()?;
    require_ranks(setup.sharding.count)?;
    let batch = setup.batch;
    let mut rng = random::generator(0, "bench", 0);
    let images = setup.images(&mut rng);
    let labels = PseudoLabels {
        clusters: COUNTS
            .map(|k| (k, (0..batch).map(|i| i % k).collect()))
            .to_vec(),
        origin: "bench".to_owned(),
    };
    let settings = AdvClSettings {
        plan: Plan {
            epochs: 1,
            batch_size: batch,
            lr: 0.01,
            schedule: Schedule::Steps {
                milestones: Vec::new(),
            },
            momentum: 0.9,
            weight_decay: 1e-4,
            optimizer: Optimizer::Sgd,
            stretched: Vec::new(),
            micro_batch: setup.micro_batch,
        },
        temperature: 0.5,
        cluster_weight: 0.2,
        high_frequency_radius: Some(8.0),
        strong_views: 2,
        clusters: None,
        attack_steps: ATTACK_STEPS,
        attack_step_size: None,
        strong: Default::default(),
        weak: Default::default(),
    };
    let ball = Ball {
        norm: Norm::Linf,
        radius: 8.0 / 255.0,
    };
    let objective = AdvCl::new(&images, &settings, &labels, ball);
    let model = Backbone::new(
        &setup.encoder(),
        setup.channels,
        Route::ALL.len(),
        &COUNTS,
        &mut rng,
        device,
    );
    let mut sgd = Sgd::new(
        settings.plan.momentum,
        settings.plan.weight_decay,
        Optimizer::Sgd,
    );
    let indices: Vec<usize> = (0..batch).collect();
    let mut kept = Some(model);
    let passes = Passes::advcl_step(ATTACK_STEPS);
    Ok(setup.time((ATTACK_STEPS, passes), device, || {
        let model = kept.take().expect("each step returns a model");
        let lr = settings.plan.lr;
        let batch = Batch {
            indices: &indices,
            epoch: 0,
            shards: Shards::new(setup.batch, setup.sharding, setup.micro_batch),
            device,
        };
        let (model, loss) = update(&objective, model, &mut sgd, lr, batch, &mut rng);
        // Reading the loss and a weight waits for the device.
        to_vec(loss.total);
        to_vec(model.fc[0].bias.val());
        kept = Some(model);
    }))
}
