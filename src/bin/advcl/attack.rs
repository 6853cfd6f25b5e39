//! `advcl attack`: what it takes to fool a model on single images, and how that looks.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use advcl::attack::Norm;
use advcl::burn::tensor::Tensor;
use advcl::data::{Split, adversarial_png, image_files, picture_png};
use advcl::evaluate::rounded::{magnified, to_8_bits};
use advcl::evaluate::smallest::{Fall, Search};
use advcl::evaluate::standalone::attacked_at_once;
use advcl::evaluate::{Evaluator, StageProgress};
use advcl::files::{check_output, write_output};
use advcl::logits::{LogitRows, Predicted, most_probable};
use advcl::recipe::Threat;
use advcl::session::Context;
use advcl::tensor::{Batch, to_tensor};
use advcl::{Error, device};
use anyhow::Result;
use serde::Serialize;

use crate::args::{self, Shared};
use crate::evaluate::parse_attack;
use crate::examples::check_folder;
use crate::output::{print, print_json};
use crate::predict::{LoadedModel, listed, read_chunk, require_all_read};
use crate::progress::Progress;
use crate::table;

/// Images that are read before they are attacked.
const CHUNK: usize = 256;

/// A class and its probability.
#[derive(Serialize)]
struct Named {
    class: String,
    probability: f32,
}

/// Adversarial image, before and after it is rounded to 8 bits.
#[derive(Serialize)]
struct Found {
    /// Distance from the original.
    distance: f64,
    /// Whether that is within the radius.
    within_radius: bool,
    predicted: Named,
    rounded: Named,
    fools_rounded: bool,
    distance_rounded: f64,
}

/// What was found of an image.
#[derive(Serialize)]
struct Attacked {
    image: String,
    label: String,
    clean: Named,
    norm: Norm,
    radius: f64,
    /// Smallest radius at which the image falls; 0 where the model is wrong anyway, none where it holds.
    falls: Option<f64>,
    /// Largest radius at which the image holds.
    holds: f64,
    /// None where the model is wrong anyway, or where no adversarial image was found.
    adversarial: Option<Found>,
    /// Files that were written.
    files: Vec<String>,
}

/// Attacks images one by one. A file that cannot be read is reported, and the others are attacked.
pub fn attack(what: &args::Attack, shared: &Shared) -> Result<()> {
    let threat = threat_of(&what.threat);
    let suite = parse_attack(&what.attack)?;
    let device = device::open(&shared.device)?;
    let mut model = LoadedModel::load(&what.model, &device)?;
    let damaged = model.read_as(&shared.set)?;
    threat.require_possible(model.values())?;
    let label = what.label.as_deref();
    let label = label
        .map(|name| class_of(name, &model.info.classes))
        .transpose()?;
    let files = image_files(&listed(&what.images)?)?;
    let outputs = match &what.output {
        Some(folder) => outputs(folder, &files, what)?,
        None => Vec::new(),
    };
    let frozen = model.classifier.frozen();
    let logits = |x| frozen.logits(x);
    let mut progress = Progress::new(shared.quiet);
    let mut context = Context::new(device).observed(|event| progress.on_event(event));
    let (mut all, mut failed) = (Vec::new(), 0);
    for (number, chunk) in files.chunks(CHUNK).enumerate() {
        let read = read_chunk(chunk, files.len(), model.shape(), &model.info.reading)?;
        failed += read.faults.len();
        let mut split = Split {
            images: read.images,
            labels: Vec::new(),
        };
        let indices: Vec<usize> = (0..read.files.len()).collect();
        let mut stage = StageProgress::new("attack/clean", indices.len());
        let unlabeled = evaluator(&model, &logits, &split);
        let clean =
            |batch: &[usize], context: &Context| Ok(unlabeled.images(batch, &context.device));
        let clean = unlabeled.logit_rows(&indices, &mut stage, &mut context, clean)?;
        let clean: Vec<Predicted> = clean.rows().map(most_probable).collect();
        split.labels = clean
            .iter()
            .map(|found| label.unwrap_or(found.class))
            .collect();
        let search = Search {
            evaluator: evaluator(&model, &logits, &split),
            suite: &suite,
            ball: threat.ball(),
        };
        let right = |index: &usize| clean[*index].class == split.labels[*index];
        let right: Vec<usize> = indices.iter().copied().filter(right).collect();
        let mut falls = vec![None; indices.len()];
        for (&index, fall) in right.iter().zip(search.run(&right, &mut context)?) {
            falls[index] = Some(fall);
        }
        // Files that could not be read are left out of `read.files`.
        let mut chunk = chunk.iter().enumerate();
        for (index, (file, fall)) in read.files.iter().zip(falls).enumerate() {
            let place = chunk.find(|(_, path)| *path == file);
            let place = place.map(|(place, _)| number * CHUNK + place);
            let files = place.and_then(|place| outputs.get(place));
            let image = Image {
                file,
                index,
                clean: clean[index],
                fall,
            };
            let attacked = one(&image, (&search, &model), files, &context)?;
            if !shared.json {
                print(&text_of(&attacked))?;
            }
            all.push(attacked);
        }
    }
    drop(context);
    progress.finish();
    if shared.json {
        print_json(&all)?;
    }
    require_all_read(failed, files.len(), damaged)
}

/// The model on images.
fn evaluator<'a>(
    model: &LoadedModel,
    logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    split: &'a Split,
) -> Evaluator<'a> {
    Evaluator {
        name: "attack",
        logits,
        classes: model.info.classes.len(),
        split,
        batch_size: attacked_at_once(model.values()),
    }
}

/// The threat model; without a radius, the usual one of the norm.
fn threat_of(given: &args::ThreatArgs) -> Threat {
    let usual = match given.norm() {
        Norm::Linf => "8/255",
        Norm::L2 => "0.5",
    };
    given.threat().unwrap_or_else(|| Threat {
        norm: given.norm(),
        radius: usual.parse().expect("a radius"),
    })
}

/// Index of a class by its name.
fn class_of(name: &str, classes: &[String]) -> advcl::Result<usize> {
    let known = advcl::data::class_name(name);
    classes
        .iter()
        .position(|class| *class == known)
        .ok_or_else(|| {
            let problem = format!("the model has no class {name:?}");
            let hint = format!("it has {}", advcl::data::class_list(classes));
            Error::input("--label", problem, hint)
        })
}

/// Files of an image's pictures: the adversarial image, and the change. Refused where one may not be written.
fn outputs(
    folder: &Path,
    files: &[PathBuf],
    what: &args::Attack,
) -> advcl::Result<Vec<[PathBuf; 2]>> {
    let inputs: Vec<&Path> = what.images.iter().map(PathBuf::as_path).collect();
    check_folder(folder, "-o", &inputs)?;
    let mut taken = HashSet::new();
    let mut all = Vec::new();
    for file in files {
        let stem = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Images of one name in two folders; case does not tell files apart everywhere.
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let mut names = std::iter::once(stem.clone()).chain(numbered);
        let name = names.find(|name| taken.insert(name.to_lowercase()));
        let name = name.expect("one of endless names");
        let paths = ["adversarial", "change"].map(|kind| folder.join(format!("{name}-{kind}.png")));
        for path in &paths {
            check_output(path, "-o", &inputs, what.replace)?;
        }
        all.push(paths);
    }
    Ok(all)
}

/// An image and what was found of it.
struct Image<'a> {
    file: &'a Path,
    /// Index among the images of its part.
    index: usize,
    clean: Predicted,
    /// None where the model is wrong anyway.
    fall: Option<Fall>,
}

/// Describes an attacked image and writes its pictures.
fn one(
    image: &Image,
    (search, model): (&Search, &LoadedModel),
    files: Option<&[PathBuf; 2]>,
    context: &Context,
) -> Result<Attacked> {
    let (shape, classes) = (model.shape(), &model.info.classes);
    let [channels, height, width] = shape;
    let split = search.evaluator.split;
    let label = split.labels[image.index];
    let named = |found: Predicted| Named {
        class: classes[found.class].clone(),
        probability: found.probability,
    };
    let predict = |data: &[f32]| -> advcl::Result<Predicted> {
        let data = data.to_vec();
        let shape = [1, channels, height, width];
        let tensor = to_tensor(Batch { data, shape }, &context.device);
        let logits = LogitRows::read((search.evaluator.logits)(tensor));
        logits.require_finite("attack", &[image.index])?;
        let mut rows = logits.rows();
        Ok(most_probable(rows.next().expect("a row for the image")))
    };
    let (mut adversarial, mut written) = (None, Vec::new());
    let fall = image.fall.clone().unwrap_or_else(|| Fall {
        falls: Some(0.0),
        ..Fall::default()
    });
    if let Some(example) = fall.within.as_ref().or(fall.nearest.as_ref()) {
        let original = split.images.batch(&[image.index]).data;
        let distance = |example: &[f32]| search.ball.norm.distance(example, &original);
        let in_8_bits = to_8_bits(example);
        let rounded = predict(&in_8_bits)?;
        adversarial = Some(Found {
            distance: distance(example),
            within_radius: search.ball.reaches(distance(example)),
            predicted: named(predict(example)?),
            fools_rounded: rounded.class != label,
            rounded: named(rounded),
            distance_rounded: distance(&in_8_bits),
        });
        if let Some([picture, change]) = files {
            if let Some(folder) = picture.parent() {
                std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            }
            write_output(picture, &adversarial_png(example, shape))?;
            let (magnified, _) = magnified(&original, example);
            write_output(change, &picture_png(&magnified, shape))?;
            written = [picture, change]
                .map(|file| file.to_string_lossy().into_owned())
                .to_vec();
        }
    }
    Ok(Attacked {
        image: image.file.to_string_lossy().into_owned(),
        label: classes[label].clone(),
        clean: named(image.clean),
        norm: search.ball.norm,
        radius: search.ball.radius,
        falls: fall.falls,
        holds: fall.holds,
        adversarial,
        files: written,
    })
}

/// A line for people.
fn text_of(attacked: &Attacked) -> String {
    let Attacked {
        image,
        clean,
        label,
        norm,
        radius,
        ..
    } = attacked;
    let named = |found: &Named| table::with_probability(&found.class, found.probability);
    let begin = format!("{image}: {}", named(clean));
    let end = match (&attacked.adversarial, attacked.falls) {
        (None, Some(_)) => format!("which is not {label}: nothing is attacked"),
        (None, None) => format!(
            "holds at {:.4} ({norm}), as far as was tried",
            attacked.holds
        ),
        (Some(found), falls) => {
            let beyond = match found.within_radius {
                true => format!("within {radius:.4} ({norm})"),
                false => format!(
                    "holds within {radius:.4} ({norm}), but at {:.4}",
                    found.distance
                ),
            };
            let rounded = match found.fools_rounded {
                true => "also in 8 bits".to_owned(),
                false => format!("in 8 bits {} again", named(&found.rounded)),
            };
            let falls = falls.unwrap_or(found.distance);
            format!(
                "{beyond} {}, {rounded}; falls at {falls:.4}",
                named(&found.predicted)
            )
        }
    };
    format!("{begin}; {end}\n")
}
