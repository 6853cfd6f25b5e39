//! Checks of the network: encoder, a whole AdvCL step, PGD-20.

use std::collections::HashMap;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};

use super::golden::{Distance, Golden};
use super::{GRADIENT, ITERATE, OUTPUT, TRAJECTORY};
use crate::attack::{Ball, Norm, Pgd, pgd};
use crate::data::Batch;
use crate::error::Result;
use crate::loss::{FixedViews, contrastive, cross_entropy_each, mean_cross_entropy};
use crate::nn::{
    Backbone, Classifier, Depth, EncoderConfig, Linear, Mode, Route, Statistics, Stem,
};
use crate::pretrain::advcl::cluster_term;
use crate::random;
use crate::tensor::to_vec;
use crate::train::{Optimizer, Sgd, named_gradients};
use crate::view::HighFrequency;
use crate::weights;

/// Settings of the golden encoder, ResNet-18, with the stem that the shape of its weights tells.
fn config(file: &Golden) -> Result<EncoderConfig> {
    let (first, _) = file.values("weight.conv1.weight")?;
    Ok(EncoderConfig {
        depth: Depth::D18,
        width: file.count("width")?,
        stem: match first[..] {
            [_, _, 7, 7] => Stem::Imagenet,
            _ => Stem::Cifar,
        },
    })
}

/// The golden model with the file's weights.
pub(super) fn model(file: &Golden, channels: usize, clusters: &[usize]) -> Result<Backbone> {
    let config = config(file)?;
    if clusters.contains(&0) {
        let (place, found) = ("params clusters".to_owned(), format!("{clusters:?}"));
        return Err(file.broken(place, "whole numbers from 1", found));
    }
    // Every value is replaced by the file's.
    let mut rng = random::generator(0, "placeholder", 0);
    let routes = Route::ALL.len();
    let values = Backbone::values(&config, channels, routes, true, clusters);
    file.load(values, || {
        let device = &file.device;
        Backbone::new(&config, channels, routes, clusters, &mut rng, device)
    })
}

/// The linear classifier on the golden encoder's features, and its number of classes.
pub(super) fn linear(file: &Golden) -> Result<(Linear, usize)> {
    let [classes] = file.dims("linear.bias")?;
    let shape = [classes, config(file)?.features()];
    let linear = Linear {
        weight: Param::from_tensor(file.tensor_of("linear.weight", shape)?),
        bias: Param::from_tensor(file.tensor_of("linear.bias", [classes])?),
    };
    Ok((linear, classes))
}

/// Pseudo-labels of a batch for each number of clusters, of which a loss needs one at least.
pub(super) fn pseudo_labels(
    file: &Golden,
    counts: &[usize],
    batch: usize,
) -> Result<Vec<Tensor<1, Int>>> {
    if counts.is_empty() {
        let (place, found) = ("params clusters".to_owned(), "none".to_owned());
        return Err(file.broken(place, "a number of clusters or more", found));
    }
    let labels = counts
        .iter()
        .map(|&k| file.labels(&format!("labels.{k}"), batch, k));
    labels.collect()
}

/// Numbers of clusters from the names of a file's weights, `fc_K.bias`, where the constants do not
/// list them.
fn clusters_of(file: &Golden) -> Vec<usize> {
    let names = file.suffixes("weight.fc_");
    names
        .iter()
        .filter_map(|name| name.strip_suffix(".bias")?.parse().ok())
        .collect()
}

/// Compares gradients with the golden tensors of a prefix, of which there must be one at least, all
/// parameters together; none of ours may be missing.
pub(super) fn compare_gradients(
    file: &mut Golden,
    prefix: &str,
    ours: &HashMap<String, Vec<f32>>,
) -> Result<()> {
    let mut distance = Distance::default();
    for name in file.some_suffixes(prefix)? {
        let ours = ours.get(&name).map_or(&[][..], Vec::as_slice);
        let golden = file.values_for(&format!("{prefix}{name}"), ours)?;
        distance.add(ours, &golden);
    }
    file.record(
        format!("{prefix}* (all parameters)"),
        distance.relative(),
        GRADIENT,
    );
    Ok(())
}

/// Checks the features of every route in both modes, running statistics and gradients.
pub fn encoder(file: &mut Golden) -> Result<()> {
    let input = file.tensor::<4>("input")?;
    let model = model(file, input.dims()[1], &file.numbers("clusters")?)?;
    for (index, route) in Route::ALL.into_iter().enumerate() {
        let name = route.name();
        let features = model
            .encoder
            .features(input.clone(), route, &mut Mode::Eval);
        file.compare_tensor(&format!("eval.{name}.features"), features, OUTPUT)?;

        let tracked = model.clone().train();
        let images = input.clone().autodiff().require_grad();
        let mut statistics = Statistics::default();
        let mut mode = Mode::Train(&mut statistics);
        let features = tracked.encoder.features(images.clone(), route, &mut mode);
        let shape = features.dims();
        let count = shape[0] * shape[1];
        let probe = (0..count)
            .map(|i| -1.0 + 2.0 * i as f32 / (count - 1) as f32)
            .collect();
        let probe: Vec<f32> = probe;
        let probe = Tensor::<2>::from_data(TensorData::new(probe, shape), &file.device);
        let gradients = (features.clone() * probe).sum().backward();
        file.compare_tensor(&format!("train.{name}.features"), features, OUTPUT)?;
        let of_images = images.grad(&gradients).map(to_vec).unwrap_or_default();
        file.compare(&format!("train.{name}.grad.input"), &of_images, GRADIENT)?;

        let moved = weights::export(&statistics.absorb_into(model.clone()));
        for statistic in ["running_mean", "running_var"] {
            let (_, ours) = &moved[&format!("bn1.bn_list.{index}.{statistic}")];
            file.compare(&format!("train.{name}.{statistic}.bn1"), ours, OUTPUT)?;
        }
        if route == Route::Pgd {
            compare_gradients(file, "train.pgd.grad.", &{
                // `grad.input` has the same prefix.
                let mut ours = named_gradients(&tracked, &gradients);
                ours.insert("input".to_owned(), of_images);
                ours
            })?;
        }
    }
    let projection = model.embed(input, Route::Pgd, &mut Mode::Eval);
    file.compare_tensor("eval.pgd.projection", projection, OUTPUT)
}

/// Compares the result of an attack step with the golden next iterate wherever the golden gradient
/// is clearly not zero: the attack steps along the gradient's sign, which near zero depends on
/// rounding.
pub(super) fn compare_iterate(
    file: &mut Golden,
    name: &str,
    ours: Tensor<4>,
    gradient: &[f32],
) -> Result<()> {
    let ours = to_vec(ours);
    let golden = file.values_for(name, &ours)?;
    let mean = gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>() / gradient.len() as f64;
    let errors = ours
        .iter()
        .zip(&golden)
        .zip(gradient)
        .filter(|(_, g)| f64::from(g.abs()) > 1e-3 * mean)
        .map(|((a, b), _)| f64::from((a - b).abs()));
    let worst = errors.fold(0.0, |worst: f64, e| {
        if e.is_nan() {
            f64::INFINITY
        } else {
            worst.max(e)
        }
    });
    file.record(format!("{name} (absolute)"), worst, ITERATE);
    Ok(())
}

/// Checks a whole AdvCL step with given views, random starts and pseudo-labels.
pub fn advcl_step(file: &mut Golden) -> Result<()> {
    let counts = file.numbers("clusters")?;
    let original = file.tensor::<4>("original")?;
    let shape = original.dims();
    let [batch, channels, height, width] = shape;
    let model = model(file, channels, &counts)?;
    let ball = Ball {
        norm: Norm::Linf,
        radius: file.number("epsilon")?,
    };
    let step_size = file.number("step_size")?;
    let steps = file.count("steps")?;
    let temperature = file.number("temperature")?;
    let scale = crate::loss::BASE_TEMPERATURE / file.number("base_temperature")?;
    let labels = pseudo_labels(file, &counts, batch)?;

    let filter = HighFrequency::new(height, width, file.number("radius")? as f32);
    let host = Batch {
        data: to_vec(original.clone()),
        shape,
    };
    let high = crate::tensor::to_tensor(filter.apply(&host), &file.device);
    let views = [
        file.tensor_of("view1", shape)?,
        file.tensor_of("view2", shape)?,
        high,
    ];
    let tracked = model.clone().train();
    let clean = |model: &Backbone| {
        views
            .clone()
            .map(|view| model.embed(view, Route::Normal, &mut Mode::Batch))
    };
    let fixed = FixedViews::new(clean(&model).to_vec(), temperature);
    let heads = counts.len() as f64;
    // The golden attack maximizes the sum over the heads, which has the mean's direction.
    let objective_cl = |x| fixed.contrastive(model.embed(x, Route::Pgd, &mut Mode::Batch)) * scale;
    let objective_ce = |x| {
        let features = (model.encoder).features(x, Route::PgdCe, &mut Mode::Batch);
        cluster_term(&model, &features, &labels) * heads
    };

    let objectives: [(&str, &dyn Fn(Tensor<4>) -> Tensor<1>); 2] =
        [("cl", &objective_cl), ("ce", &objective_ce)];
    let mut finals = Vec::new();
    for (kind, objective) in objectives {
        let start = original.clone() + file.tensor_of(&format!("start_{kind}"), shape)?;
        file.compare_tensor(&format!("iterate_{kind}.0"), start, OUTPUT)?;
        for step in 0..steps {
            let iterate = file.tensor_of(&format!("iterate_{kind}.{step}"), shape)?;
            let gradient = pgd::gradient(&mut |x| objective(x), iterate.clone());
            let name = format!("grad_{kind}.{step}");
            file.compare_tensor(&name, gradient.clone(), GRADIENT)?;
            let next = ball.project(ball.step(iterate, gradient, step_size), &original);
            let (_, golden) = file.values(&name)?;
            compare_iterate(file, &format!("iterate_{kind}.{}", step + 1), next, &golden)?;
        }
        let start = file.tensor_of(&format!("iterate_{kind}.0"), shape)?;
        let free = Pgd { steps, step_size }.climb(objective, start, &original, ball);
        finals.push(to_vec(objective(free))[0]);
    }

    let x_cl = file.tensor_of(&format!("iterate_cl.{steps}"), shape)?;
    let x_ce = file.tensor_of(&format!("iterate_ce.{steps}"), shape)?;
    let mut all = clean(&tracked).to_vec();
    all.push(tracked.embed(x_cl, Route::Pgd, &mut Mode::Batch));
    let loss_cl = contrastive(all, temperature) * scale;
    let features = tracked
        .encoder
        .features(x_ce, Route::PgdCe, &mut Mode::Batch);
    let loss_ce = mean_cross_entropy(tracked.cluster_logits(&features), &labels);
    let total = loss_cl.clone() + loss_ce.clone() * file.number("cluster_weight")?;
    let reached = [
        to_vec(loss_cl.clone().inner())[0],
        to_vec(loss_ce.clone().inner())[0] * heads as f32,
    ];
    for ((kind, ours), golden) in ["cl", "ce"].into_iter().zip(finals).zip(reached) {
        let error = f64::from((ours - golden).abs() / golden.abs());
        file.record(
            format!("final loss of a free attack ({kind})"),
            error,
            TRAJECTORY,
        );
    }
    let gradients = total.backward();
    file.compare_tensor("loss.contrastive", loss_cl, OUTPUT)?;
    file.compare_tensor("loss.cluster", loss_ce, OUTPUT)?;
    file.compare_tensor("loss.total", total, OUTPUT)?;
    compare_gradients(file, "grad.", &named_gradients(&tracked, &gradients))?;

    let mut sgd = Sgd::new(
        file.number("momentum")?,
        file.number("weight_decay")?,
        Optimizer::Sgd,
    );
    let updated =
        weights::export(&sgd.step(file.number("lr")?, model.clone(), &tracked, &gradients));
    let updated = updated
        .into_iter()
        .map(|(name, (_, values))| (name, values))
        .collect();
    compare_gradients(file, "updated.", &updated)
}

/// Checks PGD-20 on encoder and linear classifier in evaluation mode.
pub fn pgd20(file: &mut Golden) -> Result<()> {
    let input = file.tensor::<4>("input")?;
    let backbone = model(file, input.dims()[1], &clusters_of(file))?;
    let (linear, classes) = linear(file)?;
    let route = file.params["route"].as_str().unwrap_or_default().parse()?;
    let classifier = Classifier {
        encoder: backbone.encoder,
        linear,
        route,
    };
    // With BatchNorm folded into the weights, as in evaluation.
    let classifier = classifier.frozen();
    let shape = input.dims();
    let labels = file.labels("labels", shape[0], classes)?;
    let ball = Ball {
        norm: Norm::Linf,
        radius: file.number("epsilon")?,
    };
    let attack = Pgd {
        steps: file.count("steps")?,
        step_size: file.number("step_size")?,
    };

    file.compare_tensor("logits", classifier.logits(input.clone()), OUTPUT)?;
    let objective = |x| cross_entropy_each(classifier.logits(x), labels.clone()).sum();
    let start = input.clone() + file.tensor_of("start", shape)?;
    let gradient = pgd::gradient(&mut |x| objective(x), start.clone());
    let first = ball.project(
        ball.step(start.clone(), gradient.clone(), attack.step_size),
        &input,
    );
    compare_iterate(file, "adv.step1", first, &to_vec(gradient))?;

    let each = |x| cross_entropy_each(classifier.logits(x), labels.clone());
    let golden = file.tensor_of("adv", shape)?;
    file.compare_tensor("logits_adv", classifier.logits(golden.clone()), OUTPUT)?;
    file.compare_tensor("loss_adv", each(golden), OUTPUT)?;
    let mean =
        |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    let golden = mean(&file.values("loss_adv")?.1);
    let free = mean(&to_vec(each(attack.climb(objective, start, &input, ball))));
    file.record(
        "final loss of a free attack",
        (free - golden).abs() / golden,
        TRAJECTORY,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_that_a_file_declares_claim_no_memory_that_its_weights_do_not() {
        let content = include_bytes!("../../golden/rgb20/encoder.safetensors");
        let missing = "values in the weights, found";
        let zero = "params clusters: expected whole numbers from 1";
        for (key, value, words) in [
            ("width", json!(999_999), missing),
            ("clusters", json!([2, 1_u64 << 40]), missing),
            ("clusters", json!([2, u64::MAX]), missing),
            ("clusters", json!([0]), zero),
        ] {
            let mut file = Golden::parse(content, PathBuf::from("encoder")).expect("a file");
            file.device = crate::device::open("cpu").expect("the CPU");
            file.params[key] = value;
            let error = encoder(&mut file).expect_err(words);
            assert!(error.to_string().contains(words), "{key}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
