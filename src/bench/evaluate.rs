//! Benchmark of clean and robust evaluation.

use burn::tensor::Device;

use super::layers::Passes;
use super::setup::{Setup, Timing};
use crate::attack::{Ball, Norm, Pgd};
use crate::error::Result;
use crate::logits::predictions;
use crate::loss::cross_entropy_each;
use crate::nn::{Classifier, Encoder, Linear, Route};
use crate::random;
use crate::tensor::{label_tensor, to_tensor};

const CLASSES: usize = 10;
const ATTACK_STEPS: usize = 20;

/// Times an evaluation: predictions for a clean batch, PGD-20 on the cross-entropy, predictions for
/// the adversarial batch. The classifier is a frozen ResNet-18 with a linear head, in evaluation
/// mode.
///
/// [`accuracy`](crate::evaluate::accuracy) attacks only correctly classified images; here every
/// image is attacked, since random weights classify few correctly. One run warms up before the
/// timed ones.
///
/// # Errors
/// [`Error::Recipe`](crate::Error::Recipe) for sizes that cannot be timed.
pub fn evaluate(setup: &Setup, device: &Device) -> Result<Timing> {
    setup.check("bench evaluate", 1)?;
    let mut rng = random::generator(0, "bench", 0);
    let indices: Vec<usize> = (0..setup.batch).collect();
    let images = setup.images(&mut rng);
    let labels: Vec<usize> = indices.iter().map(|i| i % CLASSES).collect();
    let labels = label_tensor(&labels, device);
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
    let pgd = Pgd::new(ATTACK_STEPS, None, ball);
    let passes = Passes::evaluation(ATTACK_STEPS);
    Ok(setup.time((ATTACK_STEPS, passes), device, || {
        let images = to_tensor(images.batch(&indices), device);
        predictions(classifier.logits(images.clone()));
        let loss = |x| cross_entropy_each(classifier.logits(x), labels.clone()).sum();
        let adversarial = pgd.maximize(loss, &images, ball, &mut rng);
        // Predictions are copied to the host, which waits for the device.
        predictions(classifier.logits(adversarial));
    }))
}
