//! Evaluates a classifier of a run folder on clean images, under PGD and under AutoAttack:
//! `cargo run --release --example evaluate -- RUN METHOD/MODE [IMAGES]`.
//!
//! For instance `runs/quickstart advcl/slf`, on so many of the recipe's test images (40 where it is left out). Without
//! a folder a run of the recipe `smoke` is made in a temporary one, which takes seconds; its figures mean nothing.

use std::error::Error;
use std::path::PathBuf;

use advcl::attack::{self, Attacker, Options, Suite};
use advcl::evaluate::Evaluator;
use advcl::experiment::{Experiment, FolderRecipe};
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
    let classifier = Model::load(&path, &context.device)?
        .classifier(&path)?
        .frozen();
    let logits = |images| classifier.logits(images);

    let test = &experiment.data.judged;
    let chosen: Vec<usize> = (0..test.images.len().min(count)).collect();
    let evaluator = Evaluator {
        name: &row,
        logits: &logits,
        classes: experiment.data.target().classes.len(),
        split: test,
        batch_size: 100,
    };
    let pgd = Attacker::new(ball, 20, None);
    let counted = evaluator.accuracy(&chosen, pgd, &mut context)?.total;
    let (images, radius, norm) = (counted.images, ball.radius, ball.norm);
    println!("{row}, {images} images, within {radius} ({norm})");
    println!("  clean       {:3} correct", counted.clean);
    println!("  PGD-20      {:3}", counted.robust);

    // AutoAttack: each attack on the images that the ones before it left.
    let images = evaluator.images(&chosen, &context.device);
    let labels = evaluator.labels(&chosen);
    let suite = Suite::named("autoattack")?;
    let options = Options::default();
    let outcome = attack::evaluate(&logits, images, &labels, ball, &suite, options, &mut |_| {
        Ok(())
    })?;
    let mut left = outcome.tally().clean;
    for attack in &outcome.attacks {
        left -= attack.broken;
        println!("  {:10}  {left:3}", attack.attack);
    }
    Ok(())
}
