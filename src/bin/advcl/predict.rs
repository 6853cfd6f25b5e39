//! `advcl predict`: class probabilities for images.

use std::path::{Path, PathBuf};

use advcl::data::read_images;
use advcl::run::{Model, models_below};
use advcl::tensor::{to_tensor, to_vec};
use advcl::{Error, device};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json};
use crate::table;

pub fn predict(what: &args::Predict, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let path = model_file(&what.model)?;
    let model = Model::load(&path, &device)?;
    let classifier = model.classifier(&path)?.frozen();
    let [height, width] = model.info.image_size;
    let (files, images) = read_images(&what.images, [model.info.channels, height, width])?;
    let indices: Vec<usize> = (0..files.len()).collect();
    let mut predictions = Vec::with_capacity(files.len());
    for chunk in indices.chunks(256) {
        let logits = classifier.logits(to_tensor(images.batch(chunk), &device));
        let classes = logits.dims()[1];
        for (&index, row) in chunk.iter().zip(to_vec(logits).chunks(classes)) {
            let ranked = table::ranked(row, &model.info.classes);
            predictions.push(table::Prediction {
                image: files[index].clone(),
                classes: ranked,
            });
        }
    }
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
    let file = path.join("model.safetensors");
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
        let named: Vec<String> = with_classifiers
            .map(|folder| folder.display().to_string())
            .collect();
        let problem = "this is a run folder, with a folder for each model";
        return Err(Error::run(
            path,
            problem,
            format!("name one: {}", named.join(", ")),
        ));
    }
    Ok(file)
}
