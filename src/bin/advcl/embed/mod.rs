//! `advcl embed`: features of images as a file, and images whose features are close to those of an earlier one.

mod features_file;
#[cfg(feature = "parquet")]
mod parquet_file;

use std::path::{Path, PathBuf};

use advcl::active::similar;
use advcl::burn::tensor::{Device, Tensor, TensorData};
use advcl::data::{self, Damaged, Images, Reading};
use advcl::files::check_output;
use advcl::finetune::require_finite;
use advcl::nn::FrozenEncoder;
use advcl::recipe::reading_with;
use advcl::run::{Model, model_file};
use advcl::session::Context;
use advcl::tensor::{Batch, to_tensor, to_vec, unit_rows};
use advcl::{Error, device, ranks};
use anyhow::Result;
use serde::Serialize;

use features_file::Kind;

use crate::args::{self, Shared};
use crate::format::Table;
use crate::output::{print, print_json, printable};
use crate::predict::{listed, predicted_at_once, read_chunk, require_all_read};
use crate::progress::{Progress, print_status};
use crate::signals::{STOP, listen};

/// Images that are read before their features are computed.
const CHUNK: usize = 4096;

/// What is known of an image beside its features.
#[derive(Clone, Debug, Default, Serialize)]
struct Origin {
    /// Its file; "train/17" for the eighteenth image of a split that has no files.
    path: String,
    split: String,
    label: String,
}

/// A file of features that is being written. It appears under its name when it is finished.
trait FeaturesFile {
    /// Adds the features of images, `[images, features]`, row-major.
    fn add(&mut self, origins: &[Origin], features: &[f32]) -> Result<()>;

    /// Writes what is left.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// An encoder, and how images are read for it.
struct Embedder {
    encoder: FrozenEncoder,
    shape: [usize; 3],
    features: usize,
    reading: Reading,
    damaged: Damaged,
    normalized: bool,
    device: Device,
}

impl Embedder {
    fn load(path: &Path, normalized: bool, device: Device, overrides: &[String]) -> Result<Self> {
        let model = Model::load(&model_file(path)?, &device)?;
        let [height, width] = model.info.image_size;
        let (reading, damaged) = reading_with(model.info.reading, overrides)?;
        Ok(Self {
            encoder: FrozenEncoder::new(&model.backbone.encoder, model.info.route),
            shape: [model.info.channels, height, width],
            features: model.info.encoder.features(),
            reading,
            damaged,
            normalized,
            device,
        })
    }

    /// Calls `each` with the features of every image, `[images, features]`, row-major, a batch at a time, and shows how far it
    /// is. A file that cannot be read is reported. Returns the number of those, and of all.
    fn each(
        &self,
        sources: &[PathBuf],
        shared: &Shared,
        each: impl FnMut(Vec<Origin>, Vec<f32>) -> Result<()>,
    ) -> Result<(usize, usize)> {
        let mut progress = Progress::new(shared.quiet);
        let mut context = Context::new(self.device.clone())
            .stopped_by(&STOP)
            .observed(|event| progress.on_event(event));
        let counts = self.each_within(sources, &mut context, each);
        drop(context);
        progress.finish();
        counts
    }

    fn each_within(
        &self,
        sources: &[PathBuf],
        context: &mut Context,
        mut each: impl FnMut(Vec<Origin>, Vec<f32>) -> Result<()>,
    ) -> Result<(usize, usize)> {
        let (files, sets) = files_and_sets(sources)?;
        let (mut failed, mut all) = (0, files.len());
        let mut done = 0;
        for chunk in files.chunks(CHUNK) {
            let read = read_chunk(chunk, files.len(), self.shape, &self.reading)?;
            failed += read.faults.len();
            let origin = |i: usize| Origin {
                path: read.files[i].to_string_lossy().into_owned(),
                ..Origin::default()
            };
            self.of_images(
                &read.images,
                origin,
                (done, files.len()),
                context,
                &mut each,
            )?;
            done += chunk.len();
        }
        for source in sets {
            let set = self.load_set(source)?;
            let splits = [
                ("train", Some(&set.train)),
                ("val", set.val.as_ref()),
                ("test", Some(&set.test)),
            ];
            for (name, split) in splits {
                let Some(split) = split else { continue };
                let origin = |i: usize| Origin {
                    path: match split.images.path(i) {
                        Some(path) => path.to_string_lossy().into_owned(),
                        None => format!("{name}/{i}"),
                    },
                    split: name.to_owned(),
                    label: split
                        .labels
                        .get(i)
                        .map_or(String::new(), |label| set.classes[*label].clone()),
                };
                all += split.images.len();
                self.of_images(
                    &split.images,
                    origin,
                    (0, split.images.len()),
                    context,
                    &mut each,
                )?;
            }
        }
        Ok((failed, all))
    }

    fn load_set(&self, source: &Path) -> Result<data::Dataset> {
        let reading = self.reading.for_shape(self.shape);
        let set = data::load_as(&source.to_string_lossy(), &reading, Damaged::Skip)?;
        for note in &set.notes {
            print_status(&printable(&format!("{}: {note}", set.name)));
        }
        Ok(set)
    }

    /// Features of a batch, `[images, features]`, row-major.
    fn features_of(&self, images: Batch) -> Vec<f32> {
        let features = self.encoder.features(to_tensor(images, &self.device));
        to_vec(match self.normalized {
            true => unit_rows(features),
            false => features,
        })
    }

    /// The features of one part of the images; `progress` is how many are before it, and how many there are.
    fn of_images(
        &self,
        images: &Images,
        origin: impl Fn(usize) -> Origin,
        (before, total): (usize, usize),
        context: &mut Context,
        each: &mut impl FnMut(Vec<Origin>, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let indices: Vec<usize> = (0..images.len()).collect();
        let mut done = before;
        // Every rank has a part of each of these.
        let at_once = predicted_at_once(self.shape) * ranks::count();
        for batch in indices.chunks(at_once) {
            let own = &batch[ranks::own_part(batch.len())];
            let features = match own.is_empty() {
                true => Vec::new(),
                false => self.features_of(images.batch(own)),
            };
            let features = ranks::gather("features", &features);
            let origins: Vec<Origin> = batch.iter().map(|&i| origin(i)).collect();
            let name = |image: usize| origins[image].path.clone();
            require_finite("embed", &features, origins.len(), name)?;
            each(origins, features)?;
            done += batch.len();
            context.progress("embed", done, total, "images")?;
        }
        Ok(())
    }
}

/// Nothing, on ranks that do not write.
struct Nowhere;

impl FeaturesFile for Nowhere {
    fn add(&mut self, _: &[Origin], _: &[f32]) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Sources as image files, and those that are data sets: a folder is one where no image files are found in it.
fn files_and_sets(sources: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<&PathBuf>)> {
    let (mut files, mut sets) = (Vec::new(), Vec::new());
    for source in sources {
        let name = source.to_string_lossy();
        let is_set = match source.exists() {
            true => !source.is_dir() && data::names_a_set(&name),
            false => data::EMBEDDED.contains(&&*name),
        };
        if is_set {
            sets.push(source);
            continue;
        }
        match data::image_files(&listed(std::slice::from_ref(source))?) {
            Ok(found) => files.extend(found),
            Err(_) if source.is_dir() => sets.push(source),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((files, sets))
}

/// Writes the features of images, in the order in which they are named.
pub fn embed(what: &args::Embed, shared: &Shared) -> Result<()> {
    let kind = Kind::of(&what.output)?;
    let inputs: Vec<&Path> = what
        .images
        .iter()
        .chain([&what.model])
        .map(PathBuf::as_path)
        .collect();
    let made = kind.files(&what.output);
    for file in &made {
        check_output(file, "-o", &inputs, what.replace)?;
    }
    let device = device::open(&shared.device)?;
    listen()?;
    let embedder = Embedder::load(&what.model, what.normalize, device, &shared.set)?;
    let mut output = match ranks::speaks() {
        true => kind.create(&what.output, embedder.features)?,
        false => Box::new(Nowhere),
    };
    let mut count = 0;
    let (failed, files) = embedder.each(&what.images, shared, |origins, features| {
        count += origins.len();
        output.add(&origins, &features)
    })?;
    ranks::alone(|| output.finish())?;
    if shared.json {
        let made: Vec<_> = made.iter().map(|path| path.to_string_lossy()).collect();
        print_json(&serde_json::json!({
            "files": made, "images": count, "features": embedder.features, "failed": failed,
        }))?;
    } else {
        let names: Vec<String> = made.iter().map(|path| path.display().to_string()).collect();
        print(&format!(
            "{count} images, {} features each: {}\n",
            embedder.features,
            names.join(", ")
        ))?;
    }
    require_all_read(failed, files, embedder.damaged)
}

/// An image, the second one, and the first that it is like to the encoder.
#[derive(Serialize)]
struct Pair<'a> {
    first: &'a Origin,
    second: &'a Origin,
    cosine: f32,
}

/// Lists images whose features have a large cosine with those of an earlier one, each once.
pub fn duplicates(what: &args::Duplicates, shared: &Shared) -> Result<()> {
    if !(what.threshold > 0.0 && what.threshold <= 1.0) {
        let problem = format!(
            "expected a cosine above 0, 1 at most, found {}",
            what.threshold
        );
        return Err(Error::input("--threshold", problem, "0.99 is usual").into());
    }
    let device = device::open(&shared.device)?;
    listen()?;
    let embedder = Embedder::load(&what.model, true, device, &shared.set)?;
    let (mut origins, mut features) = (Vec::new(), Vec::new());
    let (failed, files) = embedder.each(&what.images, shared, |of, rows| {
        origins.extend(of);
        features.extend(rows);
        Ok(())
    })?;
    let data = TensorData::new(features, [origins.len(), embedder.features]);
    let found = similar(&Tensor::from_data(data, &embedder.device), what.threshold);
    let pair = |(a, b, cosine): (usize, usize, f32)| Pair {
        first: &origins[a],
        second: &origins[b],
        cosine,
    };
    let pairs: Vec<Pair> = found.into_iter().map(pair).collect();
    if shared.json {
        print_json(&pairs)?;
    } else {
        let mut table = Table::new().right("cosine").left("image").left("like");
        for pair in &pairs {
            let row = [
                format!("{:.4}", pair.cosine),
                pair.second.path.clone(),
                pair.first.path.clone(),
            ];
            table.row(row);
        }
        print(&table.text())?;
        print_status(&format!(
            "{} of {} images are like an earlier one, with a cosine of {} or more",
            pairs.len(),
            origins.len(),
            what.threshold
        ));
    }
    require_all_read(failed, files, embedder.damaged)
}
