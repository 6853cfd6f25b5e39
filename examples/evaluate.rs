//! Evaluates a classifier of a run folder on clean images, under PGD and under AutoAttack:
//! `cargo run --release --example evaluate -- RUN METHOD/MODE [IMAGES]`.
//!
//! For instance `runs/quickstart advcl/slf`, on so many of the recipe's test images (40 where it is left out). Without
//! a folder a run of the recipe `smoke` is made in a temporary one, which takes seconds; its figures mean nothing.

use std::error::Error;
use std::path::PathBuf;

use advcl::attack::{Pgd, Suite, Victim, select};
use advcl::evaluate::{accuracy, predictions};
use advcl::experiment::{Experiment, FolderRecipe};
use advcl::tensor::to_tensor;
use advcl::{Context, Model, Recipe};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut context = Context::cpu()?;
    let temporary = tempfile::tempdir()?;
    let (folder, row) = match &args[..] {
        [] => {
            let recipe = Recipe::load("smoke", &["finetune.slf.plan.epochs = 1".to_owned()])?;
            Experiment::open(recipe, temporary.path())?.run(&mut context)?;
            (temporary.path().to_path_buf(), "advcl/slf".to_owned())
        }
        [folder, row, ..] => (PathBuf::from(folder), row.clone()),
        _ => return Err("expected RUN METHOD/MODE [IMAGES]".into()),
    };
    let count = args.get(2).map_or(Ok(40), |count| count.parse())?;

    let recipe = FolderRecipe::load(&folder, &[])?
        .ok_or("no recipe in this folder")?
        .recipe;
    let ball = recipe.threat.ball();
    let experiment = Experiment::open_to_evaluate(recipe, &folder)?;
    let path = experiment.layout().model(&row);
    let classifier = Model::load(&path, &context.device)?.classifier(&path)?;

    let test = &experiment.data.judged;
    let chosen: Vec<usize> = (0..test.images.len().min(count)).collect();
    let split = test.select(&chosen);
    let pgd = Pgd::new(20, None, ball);
    let counted = accuracy("pgd", &classifier, &split, (ball, pgd), 100, &mut context)?.total;
    println!(
        "{row}, {} images, within {} ({:?})",
        counted.images, ball.radius, ball.norm
    );
    println!("  clean       {:3} correct", counted.clean);
    println!("  PGD-20      {:3}", counted.robust);

    // AutoAttack: each attack on the images that the ones before it left.
    let frozen = classifier.frozen();
    let logits = |images| frozen.logits(images);
    let images = to_tensor(split.images.batch(&chosen), &context.device);
    let predicted = predictions(logits(images.clone()));
    let mut left: Vec<usize> = chosen
        .into_iter()
        .filter(|&i| predicted[i] == split.labels[i])
        .collect();
    for attack in Suite::named("autoattack")?.attacks() {
        if left.is_empty() {
            break;
        }
        let labels: Vec<usize> = left.iter().map(|&i| split.labels[i]).collect();
        let victim = Victim {
            logits: &logits,
            images: &select(&images, &left),
            labels: &labels,
            indices: &left,
            ball,
            seed: 0,
        };
        let broken = attack.run(&victim, &mut |_| Ok(()))?.broken;
        let mut broken = broken.into_iter();
        left.retain(|_| !broken.next().unwrap_or_default());
        println!("  {:10}  {:3}", attack.name(), left.len());
    }
    Ok(())
}
