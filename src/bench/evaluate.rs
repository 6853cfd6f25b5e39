//! Benchmark of clean and robust evaluation.

use burn::tensor::Device;

use super::layers::Passes;
use super::setup::{Setup, Timing};
use crate::attack::{Attacker, Ball, Norm};
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::Evaluator;
use crate::logits::predictions;
use crate::nn::{Classifier, Encoder, Linear, Route};
use crate::random;

const CLASSES: usize = 10;
const ATTACK_STEPS: usize = 20;

/// Times an evaluation: predictions for a clean batch, PGD-20 on the cross-entropy, predictions for
/// the adversarial batch. The classifier is a frozen ResNet-18 with a linear head, in evaluation
/// mode.
///
/// [`Evaluator::accuracy`] attacks only correctly classified images; here every image is attacked,
/// since random weights classify few correctly. One run warms up before the timed ones.
///
/// # Errors
/// [`Error::Recipe`](crate::Error::Recipe) for sizes that cannot be timed.
pub fn evaluate(setup: &Setup, device: &Device) -> Result<Timing> {
    setup.check("bench evaluate", 1)?;
    let mut rng = random::generator(0, "bench", 0);
    let indices: Vec<usize> = (0..setup.batch).collect();
    let split = Split {
        images: setup.images(&mut rng),
        labels: indices.iter().map(|i| i % CLASSES).collect(),
    };
    let config = setup.encoder();
    let classifier = Classifier {
        encoder: Encoder::new(&config, setup.channels, 1, &mut rng, device),
        linear: Linear::new(config.features(), CLASSES, &mut rng, device),
        route: Route::Normal,
    };
    let classifier = classifier.frozen();
    let ball = Ball {
        norm: Norm::Linf,
        radius: 8.0 / 255.0,
    };
    let attacker = Attacker::new(ball, ATTACK_STEPS, None);
    let evaluator = Evaluator {
        name: "bench",
        logits: &|x| classifier.logits(x),
        classes: CLASSES,
        split: &split,
        batch_size: setup.batch,
    };
    let passes = Passes::evaluation(ATTACK_STEPS);
    Ok(setup.time((ATTACK_STEPS, passes), device, || {
        let batch = evaluator.batch(&indices, device);
        predictions(classifier.logits(batch.images.clone()));
        let victim = evaluator.victim(&batch, ball, 0);
        let attacked = victim.last_iterates(attacker.pgd);
        // Predictions are on the host, so the device is waited for.
        predictions(classifier.logits(attacked));
    }))
}
