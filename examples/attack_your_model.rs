//! AutoAttack on a classifier of your own, any closure from images to logits:
//! `cargo run --release --example attack_your_model`.
//!
//! The classifier here compares an image with the mean image of each class; put yours in its place. It gets
//! `[batch, channels, height, width]` in [0, 1], sometimes with autodiff: write it in Burn's tensors, so that attacks
//! can follow gradients. Its own weights carry none.

use std::error::Error;

use advcl::attack::{self, Ball, Norm, Options, Suite};
use advcl::burn::tensor::Tensor;
use advcl::data;
use advcl::tensor::to_tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let device = advcl::device::open("cpu")?;
    let data = data::load("fashion-mnist-12k")?;

    // Your model: the logit of a class is minus the squared distance to its mean image.
    let means = (0..data.classes.len()).map(|class| {
        let of_class: Vec<usize> = (0..data.train.labels.len())
            .filter(|&i| data.train.labels[i] == class)
            .collect();
        let images = to_tensor(data.train.images.batch(&of_class), &device);
        images.mean_dim(0).flatten::<2>(1, 3)
    });
    let means: Tensor<2> = Tensor::cat(means.collect(), 0);
    let logits = |images: Tensor<4>| {
        let images: Tensor<2> = images.flatten(1, 3);
        let products = images.matmul(means.clone().transpose());
        products * 2.0 - means.clone().square().sum_dim(1).transpose()
    };

    let ball = Ball {
        norm: Norm::Linf,
        radius: 0.05,
    };
    let indices: Vec<usize> = (0..50).collect();
    let images = to_tensor(data.test.images.batch(&indices), &device);
    let labels = &data.test.labels[..50];
    let suite = Suite::named("autoattack")?;
    let options = Options::default();
    let outcome = attack::evaluate(&logits, images, labels, ball, &suite, options, &mut |_| {
        Ok(())
    })?;

    let tally = outcome.tally();
    println!(
        "of {} images {} are classified correctly when clean; within {} ({})",
        tally.images, tally.clean, ball.radius, ball.norm
    );
    let mut left = tally.clean;
    for attack in &outcome.attacks {
        left -= attack.broken;
        println!(
            "  {left:3} are still classified correctly after {}",
            attack.attack
        );
    }
    Ok(())
}
