//! Measurement of a few real steps of a recipe's pretraining.

use std::time::Instant;

use advcl::burn::tensor::Device;
use advcl::experiment::Experiment;
use advcl::recipe::Recipe;
use advcl::session::{Context, Event};
use anyhow::{Context as _, Result};

use super::choice::{Choice, Measured};
use crate::signals::{STOP, listen};

/// Steps of each method; the first is not measured.
const STEPS: usize = 4;

/// Runs a few steps of each method of the recipe in a temporary folder.
pub fn measure(recipe: &Recipe, choice: &Choice, device: &Device) -> Result<Measured> {
    let used = (STEPS * choice.batch)
        .max(choice.classes)
        .min(choice.images);
    let epochs = STEPS.div_ceil((used / choice.batch).max(1));
    let clusters = choice.clusters.iter().filter(|count| **count <= used);
    let mut overrides = vec![
        format!("data.train_limit = {used}"),
        format!("cluster.counts = {:?}", clusters.collect::<Vec<_>>()),
        "cluster.restarts = 1".to_owned(),
    ];
    for name in ["simclr", "advcl"] {
        overrides.push(format!("pretrain.{name}.plan.epochs = {epochs}"));
        overrides.push(format!(
            "pretrain.{name}.plan.schedule = {{ cosine = {{}} }}"
        ));
    }
    let recipe = Recipe::parse("init", &recipe.to_toml(), &overrides)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    listen()?;
    let started = Instant::now();
    let experiment = Experiment::open(recipe, folder.path())?;
    let loading = started.elapsed().as_secs_f64();
    let mut times: Vec<(String, Instant)> = Vec::new();
    {
        let mut context = Context::new(device.clone())
            .stopped_by(&STOP)
            .observed(|event| {
                if let Event::Step { stage, .. } = event {
                    times.push((stage.clone(), Instant::now()));
                }
            });
        experiment.pretrain(None, &mut context)?;
    }
    let step = |name: &str| {
        let of_it: Vec<Instant> = times
            .iter()
            .filter(|(stage, _)| stage == name)
            .map(|(_, at)| *at)
            .collect();
        let mut steps: Vec<f64> = of_it
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied().unwrap_or(1.0)
    };
    Ok(Measured {
        loading,
        simclr: step("simclr"),
        advcl: step("advcl"),
    })
}
