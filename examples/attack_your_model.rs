//! AutoAttack on a classifier of your own, any closure from images to logits:
//! `cargo run --release --example attack_your_model`.
//!
//! The classifier here compares an image with the mean image of each class; put yours in its place. It gets
//! `[batch, channels, height, width]` in [0, 1], sometimes with autodiff: write it in Burn's tensors, so that attacks
//! can follow gradients. Its own weights carry none.

use std::error::Error;

use advcl::attack::{Ball, Norm, Suite, Victim, select};
use advcl::burn::tensor::Tensor;
use advcl::data;
use advcl::evaluate::predictions;
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

    let predicted = predictions(logits(images.clone()));
    let mut left: Vec<usize> = indices
        .into_iter()
        .filter(|&i| predicted[i] == labels[i])
        .collect();
    println!(
        "of 50 images {} are correct when clean; within {} (L∞)",
        left.len(),
        ball.radius
    );
    for attack in Suite::named("autoattack")?.attacks() {
        if left.is_empty() {
            break;
        }
        let left_labels: Vec<usize> = left.iter().map(|&i| labels[i]).collect();
        let victim = Victim {
            logits: &logits,
            images: &select(&images, &left),
            labels: &left_labels,
            indices: &left,
            ball,
            seed: 0,
        };
        let mut broken = attack.run(&victim, &mut |_| Ok(()))?.broken.into_iter();
        left.retain(|_| !broken.next().unwrap_or_default());
        println!(
            "  {:3} are still correct after {}",
            left.len(),
            attack.name()
        );
    }
    Ok(())
}
