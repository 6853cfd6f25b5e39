//! `advcl predict`: class probabilities for images.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use advcl::burn::tensor::Device;
use advcl::data::{Damaged, ReadImages, Reading, Split, image_files, read_images};
use advcl::evaluate::{Evaluator, StageProgress};
use advcl::nn::Classifier;
use advcl::recipe::reading_with;
use advcl::run::{Model, ModelInfo, model_file};
use advcl::session::Context;
use advcl::{Error, device};
use anyhow::{Context as _, Result};

use crate::args::{self, Shared};
use crate::output::{print, print_exactly, print_json, printable};
use crate::progress::print_status;
use crate::table;

/// Images in a forward pass.
const BATCH: usize = 256;
/// Values of the images in a forward pass: large images come in smaller batches.
const BATCH_VALUES: usize = 1 << 26;
/// Images that are read before they are predicted.
const CHUNK: usize = 4096;
/// Classes that are shown of each image.
const TOP: usize = 3;

/// Predicts the classes of images. A file that cannot be read is reported, and the others are answered.
pub fn predict(what: &args::Predict, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let mut model = LoadedModel::load(&what.model, &device)?;
    let damaged = model.read_as(&shared.set)?;
    let classifier = model.classifier.frozen();
    let [_, height, width] = model.shape();
    let files = image_files(&listed(&what.images)?)?;
    let lines = what.jsonl || what.csv;
    let all = shared.json || what.jsonl || shared.verbose;
    let shown = what.top.unwrap_or(if all { usize::MAX } else { TOP });
    let mut context = Context::new(device);
    let (mut predictions, mut failed, mut fitted) = (Vec::new(), 0, 0);
    if what.csv {
        print_exactly(table::prediction_heads())?;
    }
    for chunk in files.chunks(CHUNK) {
        let read = read_chunk(chunk, files.len(), model.shape(), &model.info.reading)?;
        fitted += read.fitted;
        failed += read.faults.len();
        for (file, error) in read.faults.iter().filter(|_| what.jsonl) {
            let line = serde_json::json!({
                "image": file.to_string_lossy(),
                "error": error.to_string(),
            });
            print_exactly(&format!("{line}\n"))?;
        }
        let indices: Vec<usize> = (0..read.files.len()).collect();
        let evaluator = Evaluator {
            name: "predict",
            logits: &|x| classifier.logits(x),
            classes: model.info.classes.len(),
            split: &Split {
                images: read.images,
                labels: Vec::new(),
            },
            batch_size: predicted_at_once(model.shape()),
        };
        let mut stage = StageProgress::new(evaluator.name, indices.len());
        let clean =
            |batch: &[usize], context: &Context| Ok(evaluator.images(batch, &context.device));
        let logits = evaluator.logit_rows(&indices, &mut stage, &mut context, clean)?;
        let prediction = |(image, row): (PathBuf, &[f32])| {
            let mut classes = table::ranked(row, &model.info.classes);
            classes.truncate(shown);
            table::Prediction { image, classes }
        };
        let found = read.files.into_iter().zip(logits.rows()).map(prediction);
        if lines {
            for prediction in found {
                print_exactly(&match what.csv {
                    true => prediction.csv(),
                    false => format!("{}\n", serde_json::to_string(&prediction)?),
                })?;
            }
        } else {
            predictions.extend(found);
        }
    }
    if fitted > 0 && !shared.quiet {
        let fit = model.info.reading.fit.name();
        print_status(&format!(
            "{fitted} of other sizes: {fit} to {height} × {width}, as the model takes them"
        ));
    }
    if shared.json {
        print_json(&predictions)?;
    } else if !lines {
        print(&table::predictions(&predictions))?;
    }
    require_all_read(failed, files.len(), damaged)
}

/// Reads some of `total` image files for a model, and reports those that cannot be read.
///
/// # Errors
/// The fault of a file that is the only one: there is nothing to go on with.
pub fn read_chunk(
    chunk: &[PathBuf],
    total: usize,
    shape: [usize; 3],
    reading: &Reading,
) -> Result<ReadImages> {
    let mut read = read_images(chunk, shape, reading)?;
    if total == 1
        && let Some((_, error)) = read.faults.pop()
    {
        return Err(error.into());
    }
    for (_, error) in &read.faults {
        print_status(&format!("error: {}", printable(&error.to_string())));
    }
    Ok(read)
}

/// Ends a command that went on without the files that could not be read; in good order where they were to be passed over.
pub fn require_all_read(failed: usize, files: usize, damaged: Damaged) -> Result<()> {
    match (failed, damaged) {
        (0, _) | (_, Damaged::Skip) => Ok(()),
        (failed, Damaged::Refuse) => Err(Error::Unread { failed, files }.into()),
    }
}

/// Number of images of a shape that are predicted at a time.
pub fn predicted_at_once(shape: [usize; 3]) -> usize {
    let values: usize = shape.iter().product();
    (BATCH_VALUES / values.max(1)).clamp(1, BATCH)
}

/// A classifier of a file.
pub struct LoadedModel {
    /// The file.
    pub path: PathBuf,
    /// Description in the file.
    pub info: ModelInfo,
    /// The classifier.
    pub classifier: Classifier,
}

impl LoadedModel {
    /// Reads a model file that has a classifier, given itself or as the folder that holds it.
    pub fn load(named: &Path, device: &Device) -> advcl::Result<Self> {
        let path = model_file(named)?;
        let model = Model::load(&path, device)?;
        Ok(Self {
            classifier: model.classifier(&path)?,
            info: model.info,
            path,
        })
    }

    /// Takes over what `--set` says of the reading of its images; returns what becomes of those that cannot be read.
    pub fn read_as(&mut self, overrides: &[String]) -> advcl::Result<Damaged> {
        let (reading, damaged) = reading_with(self.info.reading, overrides)?;
        self.info.reading = reading;
        Ok(damaged)
    }

    /// Channels, height and width of the images.
    pub fn shape(&self) -> [usize; 3] {
        let [height, width] = self.info.image_size;
        [self.info.channels, height, width]
    }

    /// Number of values of an image.
    pub fn values(&self) -> usize {
        self.shape().iter().product()
    }
}

/// Paths as they are named; `-` stands for those on standard input, one a line.
pub fn listed(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        if path.as_os_str() != "-" {
            all.push(path.clone());
            continue;
        }
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.context("cannot read the list on standard input")?;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if !line.is_empty() {
                all.push(path_of(line));
            }
        }
    }
    Ok(all)
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}
