//! Measurement of a few real steps of a recipe's pretraining.

use std::time::Instant;

use advcl::bench::RecipeSteps;
use advcl::burn::tensor::Device;
use advcl::experiment::{Data, Purpose};
use advcl::recipe::Recipe;
use advcl::session::Context;
use anyhow::{Context as _, Result};

use super::choice::Measured;
use crate::signals::{STOP, listen};

/// Measured steps of each method.
const STEPS: usize = 3;

/// Takes a few steps of each method of the recipe in a temporary folder.
pub fn measure(recipe: &Recipe, device: &Device) -> Result<Measured> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    listen()?;
    let started = Instant::now();
    let data = Data::load(recipe, Purpose::Train)?;
    let loading = started.elapsed().as_secs_f64();
    let steps = RecipeSteps {
        recipe,
        pretraining: &data.pretraining,
        target: data.target(),
        held: data.memory(),
        runs: STEPS,
        folder: folder.path(),
    };
    let context = Context::new(device.clone()).stopped_by(&STOP);
    let step = |name| Ok::<_, advcl::Error>(steps.pretraining(name, &context)?.median_seconds);
    Ok(Measured {
        loading,
        simclr: step("simclr")?,
        advcl: step("advcl")?,
    })
}
