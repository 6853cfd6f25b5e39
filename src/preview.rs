//! Preview of a data set under a recipe: the views that AdvCL pretraining makes of its images.

use burn::tensor::{Device, Tensor};

use crate::attack::{Attacker, Victim};
use crate::data::{Batch, Dataset};
use crate::error::{Error, Result};
use crate::logits::predictions;
use crate::loss::FixedViews;
use crate::nn::{Classifier, Mode};
use crate::pretrain::MethodSettings;
use crate::random;
use crate::recipe::Recipe;
use crate::run::Model;
use crate::tensor::{to_tensor, to_vec};
use crate::view::HighFrequency;

/// Makes views of `rows` random training images: the image, two strong views, a weak view, its high
/// frequencies (shifted to gray) and, if a model is given, the weak view attacked by PGD with the
/// recipe's threat model.
///
/// If the model has a classifier, the attack maximizes the cross-entropy with its prediction for
/// the weak view; otherwise it maximizes the contrastive loss against a strong view.
///
/// # Errors
/// [`Error::Recipe`] for a recipe without AdvCL, [`Error::Data`] for `rows` = 0 or a model of other
/// images.
pub fn views(
    data: &Dataset,
    recipe: &Recipe,
    model: Option<&Model>,
    rows: usize,
    device: &Device,
) -> Result<Vec<(&'static str, Batch)>> {
    if rows == 0 {
        let hint = "10 is usual";
        return Err(Error::data(
            &data.name,
            "expected 1 row or more, found 0",
            hint,
        ));
    }
    let images = &data.train.images;
    let settings = recipe.pretrain.entries().iter().find_map(|entry| {
        let MethodSettings::AdvCl(settings) = &entry.settings.method else {
            return None;
        };
        Some(settings)
    });
    let settings = settings.ok_or_else(|| {
        let hint = "name another recipe with --recipe, such as quickstart";
        Error::recipe(
            "pretrain.advcl",
            "the recipe has no table [pretrain.advcl], which says how views are made",
            hint,
        )
    })?;
    let mut rng = random::generator(recipe.seed, "inspect", 0);
    let mut chosen = random::permutation(images.len(), &mut rng);
    chosen.truncate(rows);
    let weak = settings.weak.apply(images, &chosen, &mut rng);
    let strong = settings.strong.apply(images, &chosen, &mut rng);
    let mut views = vec![
        ("image", images.batch(&chosen)),
        ("strong", strong.clone()),
        ("strong", settings.strong.apply(images, &chosen, &mut rng)),
        ("weak", weak.clone()),
    ];
    if let Some(radius) = settings.high_frequency_radius {
        let filter = HighFrequency::new(images.height, images.width, radius);
        let mut high = filter.apply(&weak);
        high.data.iter_mut().for_each(|value| *value += 0.5);
        views.push(("high-frequency", high));
    }
    if let Some(model) = model {
        let info = &model.info;
        let found = [info.channels, info.image_size[0], info.image_size[1]];
        let expected = images.shape();
        if found != expected {
            let problem =
                format!("images are {expected:?} (channels, height, width), the model's {found:?}");
            return Err(Error::data(
                &data.name,
                problem,
                "name a model of this data set",
            ));
        }
        let evaluate = &recipe.evaluate;
        let step_size = evaluate.step_size.as_ref();
        let Attacker { ball, pgd } = Attacker::new(recipe.threat.ball(), evaluate.steps, step_size);
        let shape = weak.shape;
        let weak = to_tensor(weak, device);
        let encoder = &model.backbone.encoder;
        let attacked = if let Some(linear) = model.linear.clone() {
            let classifier = Classifier {
                encoder: encoder.clone(),
                linear,
                route: info.route,
            }
            .frozen();
            let victim = Victim {
                logits: &|x| classifier.logits(x),
                images: &weak,
                labels: &predictions(classifier.logits(weak.clone())),
                indices: &chosen,
                ball,
                seed: recipe.seed,
            };
            victim.last_iterates(pgd)
        } else {
            let embed = |x: Tensor<4>| model.backbone.embed(x, info.route, &mut Mode::Eval);
            let other = embed(to_tensor(strong, device));
            let other = FixedViews::new(vec![other], settings.temperature);
            let loss = |x| other.contrastive(embed(x));
            pgd.maximize(loss, &weak, ball, &mut rng)
        };
        views.push((
            "adversarial",
            Batch {
                data: to_vec(attacked),
                shape,
            },
        ));
    }
    Ok(views)
}
