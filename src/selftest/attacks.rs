//! Checks of the attacks' deterministic parts.

use burn::tensor::Tensor;

use super::golden::Golden;
use super::{GRADIENT, OUTPUT};
use crate::attack::apgd::{Ascent, checkpoints};
use crate::attack::{Ball, Norm, pgd};
use crate::error::Result;
use crate::loss;
use crate::tensor::to_vec;

/// Relative error allowed in Auto-PGD's iterates, which follow the golden gradients.
const ITERATES: f64 = 1e-5;

/// Checks Auto-PGD: its checkpoints; in tensors `NORM.LOSS.*` the iterates that follow from given
/// gradients and losses, the best points and the halved steps; and a smooth classifier's gradients
/// and losses at every iterate.
pub fn apgd(file: &mut Golden) -> Result<()> {
    for suffix in file.some_suffixes("checkpoints.")? {
        // So few that their sums fit.
        let count = suffix.parse::<usize>().ok();
        let count = count.filter(|count| *count < 1_000_000);
        let count = count.ok_or_else(|| {
            let expected = "checkpoints.ITERATIONS, less than a million";
            file.broken("tensors".to_owned(), expected, suffix.clone())
        })?;
        let ours: Vec<f32> = checkpoints(count).iter().map(|&at| at as f32).collect();
        file.compare(&format!("checkpoints.{suffix}"), &ours, 0.0)?;
    }
    let images = file.tensor::<4>("images")?;
    let bowls = Bowls::read(file, images.dims())?;
    file.compare_tensor("logits", bowls.logits(images.clone()), OUTPUT)?;
    for (name, norm) in [("linf", Norm::Linf), ("l2", Norm::L2)] {
        let radius = file.number(&format!("epsilon_{name}"))?;
        for loss in ["ce", "dlr", "dlr_targeted"] {
            let prefix = format!("{name}.{loss}");
            climb(file, &prefix, &images, Ball { norm, radius })?;
            slopes(file, &prefix, loss, &bowls, images.dims()[0])?;
        }
    }
    Ok(())
}

/// Compares the iterates that follow from the golden gradients.
fn climb(file: &mut Golden, prefix: &str, images: &Tensor<4>, ball: Ball) -> Result<()> {
    let iterations = file.count("iterations")?;
    let [count, channels, height, width] = images.dims();
    let of = |what: &str| format!("{prefix}.{what}");
    let shape = [iterations + 1, count, channels, height, width];
    let iterates = file.tensor_of(&of("iterate"), shape)?;
    let gradients = file.tensor_of(&of("gradient"), shape)?;
    let losses = file.shaped(&of("loss"), &[iterations + 1, count])?;
    let at = |all: &Tensor<5>, point| all.clone().narrow(0, point, 1).squeeze_dim::<4>(0);
    let rows = |point: usize| &losses[point * count..(point + 1) * count];
    let start = at(&iterates, 0);
    let plan = (ball, file.number("rho")?, iterations);
    let mut climb = Ascent::new(
        plan,
        images.clone(),
        start.clone(),
        at(&gradients, 0),
        rows(0),
    );
    let (mut points, mut steps, mut best) = (vec![start], Vec::new(), Vec::new());
    for point in 1..=iterations {
        note(&climb, &mut steps, &mut best);
        points.push(climb.step());
        climb.see(at(&gradients, point), rows(point));
    }
    note(&climb, &mut steps, &mut best);
    file.compare_tensor(&of("iterate"), Tensor::cat(points, 0), ITERATES)?;
    file.compare_tensor(&of("best"), climb.best().clone(), ITERATES)?;
    file.compare(&of("step"), &steps, OUTPUT)?;
    file.compare(&of("best_loss"), &best, 0.0)
}

fn note(climb: &Ascent, steps: &mut Vec<f32>, best: &mut Vec<f32>) {
    steps.extend(climb.states().iter().map(|image| image.step));
    best.extend(climb.states().iter().map(|image| image.best));
}

/// Compares gradients and losses at all golden iterates, in one batch.
fn slopes(file: &mut Golden, prefix: &str, loss: &str, bowls: &Bowls, count: usize) -> Result<()> {
    let iterates = file.tensor::<5>(&format!("{prefix}.iterate"))?;
    let [points, ..] = iterates.dims();
    let points_of_all = iterates.flatten::<4>(0, 1);
    let labels = file
        .labels("labels", count, bowls.classes)?
        .repeat_dim(0, points);
    let targets = file
        .labels("targets", count, bowls.classes)?
        .repeat_dim(0, points);
    let losses = |x: Tensor<4>| {
        let (logits, labels) = (bowls.logits(x), labels.clone());
        match loss {
            "ce" => loss::cross_entropy_each(logits, labels),
            "dlr" => loss::dlr(logits, labels),
            _ => loss::dlr_targeted(logits, labels, targets.clone()),
        }
    };
    let gradient = pgd::gradient(&mut |x| losses(x).sum(), points_of_all.clone());
    file.compare(
        &format!("{prefix}.loss"),
        &to_vec(losses(points_of_all)),
        OUTPUT,
    )?;
    file.compare_tensor(&format!("{prefix}.gradient"), gradient, GRADIENT)
}

/// A smooth classifier: a linear function plus a paraboloid for each class.
struct Bowls {
    classes: usize,
    weight: Tensor<2>,
    bias: Tensor<1>,
    bowl: Tensor<2>,
    centre: Tensor<2>,
}

impl Bowls {
    /// Reads the file's classifier, which is one of images `[images, channels, height, width]`.
    fn read(file: &Golden, [_, channels, height, width]: [usize; 4]) -> Result<Self> {
        let [classes, _] = file.dims("model.weight")?;
        file.require_classes("model.weight", classes)?;
        let shape = [classes, channels * height * width];
        Ok(Self {
            classes,
            weight: file.tensor_of("model.weight", shape)?,
            bias: file.tensor_of("model.bias", [classes])?,
            bowl: file.tensor_of("model.bowl", shape)?,
            centre: file.tensor_of("model.centre", shape)?,
        })
    }

    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = images.flatten::<2>(1, 3);
        let away = x.clone().unsqueeze_dim::<3>(1) - self.centre.clone().unsqueeze_dim(0);
        let bowls = (away.square() * self.bowl.clone().unsqueeze_dim(0)).sum_dim(2);
        x.matmul(self.weight.clone().transpose())
            + self.bias.clone().unsqueeze_dim(0)
            + bowls.squeeze_dim(2)
    }
}
