//! `advcl predict`: class probabilities for images.

use std::path::{Path, PathBuf};

use advcl::data::{Split, read_images};
use advcl::evaluate::{Evaluator, StageProgress};
use advcl::run::{Model, layout, models_below, some_of};
use advcl::session::Context;
use advcl::{Error, device};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json};
use crate::table;

/// Images in a forward pass.
const BATCH: usize = 256;
/// Values of the images in a forward pass: large images come in smaller batches.
const BATCH_VALUES: usize = 1 << 26;

/// Predicts the classes of images.
pub fn predict(what: &args::Predict, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let path = model_file(&what.model)?;
    let model = Model::load(&path, &device)?;
    let classifier = model.classifier(&path)?.frozen();
    let [height, width] = model.info.image_size;
    let (files, images) = read_images(&what.images, [model.info.channels, height, width])?;
    let batch_size = (BATCH_VALUES / images.image_len().max(1)).clamp(1, BATCH);
    let indices: Vec<usize> = (0..files.len()).collect();
    let evaluator = Evaluator {
        name: "predict",
        logits: &|x| classifier.logits(x),
        classes: model.info.classes.len(),
        split: &Split {
            images,
            labels: Vec::new(),
        },
        batch_size,
    };
    let mut stage = StageProgress::new(evaluator.name, files.len());
    let mut context = Context::new(device);
    let clean = |batch: &[usize], context: &Context| Ok(evaluator.images(batch, &context.device));
    let logits = evaluator.logit_rows(&indices, &mut stage, &mut context, clean)?;
    let prediction = |(image, row): (&PathBuf, &[f32])| table::Prediction {
        image: image.clone(),
        classes: table::ranked(row, &model.info.classes),
    };
    let predictions: Vec<_> = files.iter().zip(logits.rows()).map(prediction).collect();
    if shared.json {
        return print_json(&predictions);
    }
    let shown = if shared.verbose { usize::MAX } else { 3 };
    print(&table::predictions(&predictions, shown))
}

/// Returns the path of a model file, given itself or as the folder that holds it.
pub fn model_file(path: &Path) -> advcl::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let file = path.join(layout::MODEL);
    let encoders = if file.exists() {
        Vec::new()
    } else {
        models_below(path)
    };
    if !encoders.is_empty() {
        let with_classifiers = encoders.into_iter().flat_map(|folder| {
            let below = models_below(&folder);
            std::iter::once(folder).chain(below)
        });
        let named: Vec<PathBuf> = with_classifiers.collect();
        let problem = "this is a run folder, with a folder for each model";
        return Err(Error::run(
            path,
            problem,
            format!("name one: {}", some_of(&named)),
        ));
    }
    Ok(file)
}
