//! Checks that need no network: views, transforms, losses and k-means.

use burn::tensor::Tensor;

use super::golden::Golden;
use super::{GRADIENT, OUTPUT};
use crate::cluster::Points;
use crate::data::Batch;
use crate::data::augment::{self, Window};
use crate::error::{Error, Result};
use crate::loss;
use crate::tensor::to_vec;
use crate::view::HighFrequency;

fn batch(file: &Golden, name: &str) -> Result<Batch> {
    let shape: [usize; 4] = file.dims(name)?;
    let data = file.shaped(name, &shape)?;
    Ok(Batch { data, shape })
}

/// Checks the high-frequency view: tensor `output….rR` is the view of `input…` at radius R.
pub fn high_frequency(file: &mut Golden) -> Result<()> {
    for suffix in file.some_suffixes("output")? {
        let place = || format!("tensor output{suffix}");
        let radius = suffix
            .rsplit_once(".r")
            .and_then(|(which, r)| Some((which, r.parse().ok()?)));
        let (which, radius) = radius.ok_or_else(|| {
            Error::format(
                &file.path,
                place(),
                "a name that ends in .rRADIUS",
                suffix.clone(),
            )
        })?;
        let input = batch(file, &format!("input{which}"))?;
        let filter = HighFrequency::new(input.shape[2], input.shape[3], radius);
        file.compare(
            &format!("output{suffix}"),
            &filter.apply(&input).data,
            OUTPUT,
        )?;
    }
    Ok(())
}

/// Checks the transforms of images: each tensor but `input` is named after a transform and its
/// parameter.
pub fn transforms(file: &mut Golden) -> Result<()> {
    let input = batch(file, "input")?;
    let [_, channels, height, width] = input.shape;
    let shape = [channels, height, width];
    let (crop, padded) = (file.numbers("crop")?, file.numbers("pad_crop")?);
    let (&[top, left, h, w], &[padding, y, x]) = (&crop[..], &padded[..]) else {
        let found = format!("{crop:?}, {padded:?}");
        return Err(Error::format(
            &file.path,
            "params",
            "crop of 4 and pad_crop of 3 numbers",
            found,
        ));
    };
    let crop = Window {
        top,
        left,
        height: h,
        width: w,
    };
    let padded = Window {
        top: y,
        left: x,
        height,
        width,
    };
    if !crop.fits(height, width) {
        let found = format!("{crop:?} of {height} × {width}");
        return Err(Error::format(
            &file.path,
            "params crop",
            "a crop inside the image",
            found,
        ));
    }
    for name in file.suffixes("").into_iter().filter(|name| name != "input") {
        let (transform, factor) = match name.split_once('.') {
            Some((transform, factor)) => (transform, factor.parse::<f32>().ok()),
            None => (name.as_str(), None),
        };
        let apply = |image: &[f32]| {
            let mut edited = image.to_vec();
            let i = &mut edited[..];
            match (transform, factor) {
                ("hflip", _) => augment::hflip(i, width),
                ("grayscale", _) => augment::grayscale(i, channels),
                ("brightness", Some(factor)) => augment::adjust_brightness(i, factor),
                ("contrast", Some(factor)) => augment::adjust_contrast(i, channels, factor),
                ("saturation", Some(factor)) => augment::adjust_saturation(i, channels, factor),
                ("hue", Some(turns)) => augment::adjust_hue(i, channels, turns),
                ("resized_crop", _) => {
                    edited = augment::resized_crop(image, shape, crop, [height, width]);
                }
                ("pad_crop", _) => edited = augment::pad_crop(image, shape, padding, padded),
                _ => return None,
            }
            Some(edited)
        };
        let images = input.data.chunks(channels * height * width);
        let ours: Option<Vec<Vec<f32>>> = images.map(apply).collect();
        let ours = ours.ok_or_else(|| {
            let expected = "a transform that this program has";
            Error::format(&file.path, "tensors", expected, name.clone())
        })?;
        file.compare(&name, &ours.concat(), OUTPUT)?;
    }
    Ok(())
}

/// Checks Lloyd's iterations from given centres.
pub fn kmeans(file: &mut Golden) -> Result<()> {
    let points = file.tensor::<2>("points")?;
    let [_, dimensions] = points.dims();
    let points = Points::new(points);
    let [clusters, _] = file.dims("centres.start")?;
    let start = file.shaped("centres.start", &[clusters, dimensions])?;
    let ours = points.lloyd(start, file.count("iterations")?);
    file.compare("centres", &ours.centres, OUTPUT)?;
    let labels: Vec<f32> = ours.labels.iter().map(|&label| label as f32).collect();
    file.compare("labels", &labels, 0.0)
}

/// Checks the contrastive loss of `views`: `loss.tT` and `grad.tT` at temperature T.
pub fn contrastive_loss(file: &mut Golden) -> Result<()> {
    let scale = loss::BASE_TEMPERATURE / file.number("base_temperature")?;
    for suffix in file.some_suffixes("loss.t")? {
        let temperature: f64 = suffix.parse().map_err(|_| {
            Error::format(&file.path, "tensors", "loss.tTEMPERATURE", suffix.clone())
        })?;
        let views = file.tensor::<3>("views")?.autodiff().require_grad();
        let [count, ..] = views.dims();
        if count < 2 {
            return Err(file.misshapen("views", "2 views or more", &views.dims()));
        }
        let view = |v| views.clone().narrow(0, v, 1).squeeze_dim::<2>(0);
        // In the attack's form all views but one are fixed: each view in turn gives its part of the
        // gradient.
        let mut parts = Vec::new();
        for v in 0..count {
            let others = (0..count).filter(|&other| other != v);
            let others = others.map(|other| view(other).inner()).collect();
            let loss = loss::FixedViews::new(others, temperature).contrastive(view(v)) * scale;
            let part = gradient(&loss, &views).narrow(0, v, 1);
            file.compare_tensor(&format!("loss.t{suffix}"), loss, OUTPUT)?;
            parts.push(part);
        }
        let loss = loss::contrastive((0..count).map(view).collect(), temperature) * scale;
        let gradient = gradient(&loss, &views);
        file.compare_tensor(&format!("loss.t{suffix}"), loss, OUTPUT)?;
        for gradient in [gradient, Tensor::cat(parts, 0)] {
            file.compare_tensor(&format!("grad.t{suffix}"), gradient, GRADIENT)?;
        }
    }
    Ok(())
}

fn gradient<const D: usize>(loss: &Tensor<1>, of: &Tensor<D>) -> Tensor<D> {
    of.grad(&loss.backward())
        .unwrap_or_else(|| of.clone().inner().zeros_like())
}

/// Checks the losses of logits, per image except for the means, and the gradients of their sums.
pub fn class_losses(file: &mut Golden) -> Result<()> {
    let [batch, classes] = file.dims("logits")?;
    file.require_classes("logits", classes)?;
    let labels = file.labels("labels", batch, classes)?;
    let targets = file.labels("targets", batch, classes)?;
    let logits = || -> Result<_> { Ok(file.tensor::<2>("logits")?.autodiff().require_grad()) };
    let single = |f: &dyn Fn(Tensor<2>) -> Tensor<1>| -> Result<_> {
        let logits = logits()?;
        let loss = f(logits.clone());
        Ok((
            to_vec(loss.clone().inner()),
            to_vec(gradient(&loss.sum(), &logits)),
        ))
    };
    let each = [
        ("ce", single(&|z| loss::cross_entropy(z, labels.clone()))?),
        ("dlr", single(&|z| loss::dlr(z, labels.clone()))?),
        (
            "dlr_targeted",
            single(&|z| loss::dlr_targeted(z, labels.clone(), targets.clone()))?,
        ),
    ];
    let (clean, attacked) = (
        logits()?,
        file.tensor_of("logits_adv", [batch, classes])?
            .autodiff()
            .require_grad(),
    );
    let kl = loss::trades_kl(clean.clone(), attacked.clone());
    let gradients = kl.backward();
    let of = |tensor: &Tensor<2>| tensor.grad(&gradients).map(to_vec).unwrap_or_default();
    let (of_clean, of_attacked) = (of(&clean), of(&attacked));
    for (name, (loss, gradient)) in each {
        file.compare(name, &loss, OUTPUT)?;
        file.compare(&format!("{name}.grad"), &gradient, GRADIENT)?;
    }
    file.compare_tensor("trades_kl", kl, OUTPUT)?;
    file.compare("trades_kl.grad", &of_clean, GRADIENT)?;
    file.compare("trades_kl.grad_adv", &of_attacked, GRADIENT)
}
