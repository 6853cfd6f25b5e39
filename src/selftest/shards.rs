//! Checks of batches that are cut into shards: losses, gradients of the weights and of attacked images. Where several ranks
//! run the self-test, they share the shards.

use std::marker::PhantomData;

use burn::module::Module;
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::golden::Golden;
use super::network::{compare_gradients, linear, model, pseudo_labels};
use super::{GRADIENT, OUTPUT};
use crate::criterion::one_hot;
use crate::error::Result;
use crate::loss::{BASE_TEMPERATURE, FixedViews, contrastive, soft_cross_entropy, trades_kl};
use crate::nn::{Backbone, BatchNormOver, Classifier, Mode, Route, Sharding, Shards};
use crate::pretrain::advcl::cluster_term;
use crate::ranks;
use crate::tensor::to_vec;
use crate::train::{Batch, Loss, Objective, Step, differentiate};

/// A loss of given views.
struct Given<M, F> {
    loss: F,
    model: PhantomData<M>,
}

impl<M: Module, F: Fn(Step<M>) -> Tensor<1>> Objective for Given<M, F> {
    type Model = M;

    fn loss(&self, step: Step<M>) -> Loss {
        Loss {
            total: (self.loss)(step),
            parts: Vec::new(),
        }
    }
}

/// Checks one step of AdvCL, ACL and TRADES on given views, for each number of shards of the file that the ranks can share.
pub fn shards(file: &mut Golden) -> Result<()> {
    let counts = file.numbers("clusters")?;
    let shape: [usize; 4] = file.dims("view1")?;
    let names = ["view1", "view2", "view3", "attacked_cl", "attacked_ce"];
    let views = names.map(|name| file.tensor_of(name, shape));
    let [first, second, third, attacked_cl, attacked_ce] = all(views)?;
    let attacked = ["attacked1", "attacked2"].map(|name| file.tensor_of(name, shape));
    let [attacked1, attacked2] = all(attacked)?;
    let [batch, channels, ..] = shape;
    let backbone = model(file, channels, &counts)?;
    let temperature = file.number("temperature")?;
    let scale = BASE_TEMPERATURE / file.number("base_temperature")?;
    let (weight, beta) = (file.number("cluster_weight")?, file.number("beta")?);
    let labels = pseudo_labels(file, &counts, batch)?;
    let (linear, classes) = linear(file)?;
    file.labels("labels", batch, classes)?;
    let (_, of_images) = file.values("labels")?;
    let of_images: Vec<usize> = of_images.iter().map(|label| *label as usize).collect();
    let targets = one_hot(&of_images, classes, &file.device);
    let classifier = Classifier {
        encoder: backbone.encoder.clone(),
        linear,
        route: Route::Pgd,
    };

    let clean = [&first, &second, &third];
    let advcl = |step: Step<Backbone>| {
        let mut mode = Mode::Train(step.statistics);
        let mut embed =
            |view: &Tensor<4>, route| step.tracked.embed(view.clone(), route, &mut mode);
        let mut all = clean.map(|view| embed(view, Route::Normal)).to_vec();
        all.push(embed(&attacked_cl, Route::Pgd));
        let encoder = &step.tracked.encoder;
        let features = encoder.features(attacked_ce.clone(), Route::PgdCe, &mut mode);
        let cluster = cluster_term(step.tracked, &features, &labels);
        contrastive(all, temperature) * scale + cluster * weight
    };
    let acl = |step: Step<Backbone>| {
        let mut mode = Mode::Train(step.statistics);
        let mut stream = |views: [&Tensor<4>; 2], route| {
            let both = Tensor::cat(views.map(Clone::clone).to_vec(), 0);
            let both = step.tracked.embed(both, route, &mut mode);
            contrastive(both.chunk(2, 0), temperature) * scale
        };
        let clean = stream([&first, &second], Route::Normal);
        (clean + stream([&attacked1, &attacked2], Route::Pgd)) / 2.0
    };
    let trades = |step: Step<Classifier>| {
        let mut mode = Mode::Train(step.statistics);
        let mut logits = |view: &Tensor<4>| step.tracked.forward(view.clone(), &mut mode);
        let clean = logits(&first);
        let natural = soft_cross_entropy(clean.clone(), targets.clone());
        natural + trades_kl(clean, logits(&attacked1)) * beta
    };
    let numbers = file.numbers("shards")?;
    if !numbers.iter().all(|count| (1..=batch).contains(count)) {
        let (place, found) = ("params shards".to_owned(), format!("{numbers:?}"));
        let expected = format!("1 to {batch} shards of {batch} images");
        return Err(file.broken(place, &expected, found));
    }
    let numbers = numbers.into_iter();
    let mut cuts: Vec<(usize, Shards)> = Vec::new();
    for count in numbers.filter(|count| count.is_multiple_of(ranks::count())) {
        let cut = |batchnorm| Shards::new(batch, Sharding { count, batchnorm }, None);
        cuts.push((count, cut(BatchNormOver::Shard)));
        // Over the whole batch, as if it were not cut.
        if crate::device::name(&file.device) == "cpu" {
            cuts.push((1, cut(BatchNormOver::Global)));
        }
    }
    for (count, shards) in cuts {
        compare(file, &format!("advcl.{count}"), &backbone, shards, advcl)?;
        compare(file, &format!("acl.{count}"), &backbone, shards, acl)?;
        compare(
            file,
            &format!("trades.{count}"),
            &classifier,
            shards,
            trades,
        )?;

        let features = |route| {
            let encoder = &backbone.encoder;
            move |x: Tensor<4>| encoder.features(x, route, &mut Mode::Batch)
        };
        let project = |z| backbone.project(z, &mut Mode::Batch);
        let fixed = clean.map(|view| project(shards.map(view.clone(), features(Route::Normal))));
        let fixed = FixedViews::new(fixed.to_vec(), temperature);
        let loss = |z| fixed.contrastive(project(z)) * scale;
        let gradient = shards.gradient_of(features(Route::Pgd), loss)(attacked_cl.clone());
        // Each rank has that of its own images.
        let own = shards.own_images(batch);
        let gradient = to_vec(gradient.narrow(0, own.start, own.len()));
        let gradient = ranks::gather("gradient", &gradient);
        file.compare(&format!("attack.{count}.grad"), &gradient, GRADIENT)?;
    }
    Ok(())
}

/// Compares the loss and its gradients with the golden ones of a name.
fn compare<M: Module>(
    file: &mut Golden,
    name: &str,
    model: &M,
    shards: Shards,
    loss: impl Fn(Step<M>) -> Tensor<1>,
) -> Result<()> {
    let objective = Given {
        loss,
        model: PhantomData,
    };
    let device = file.device.clone();
    let batch = Batch {
        indices: &[],
        epoch: 0,
        shards,
        device: &device,
    };
    let mut unused = ChaCha8Rng::seed_from_u64(0);
    let found = differentiate(&objective, model, batch, &mut unused);
    file.compare_tensor(&format!("{name}.loss"), found.loss.total, OUTPUT)?;
    compare_gradients(
        file,
        &format!("{name}.grad."),
        &found.gradients.named(model),
    )
}

fn all<const N: usize>(tensors: [Result<Tensor<4>>; N]) -> Result<[Tensor<4>; N]> {
    let tensors: Result<Vec<_>> = tensors.into_iter().collect();
    Ok(tensors?.try_into().expect("as many as were asked for"))
}
