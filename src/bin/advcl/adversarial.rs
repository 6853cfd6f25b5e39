//! `advcl adversarial show`: stored adversarial examples, and what becomes of them in 8 bits.

use std::path::Path;

use advcl::attack::{Attacker, Ball};
use advcl::evaluate::adversarial::{Adversarial, check_indices};
use advcl::evaluate::rounded::{self, Pictured, Rounded};
use advcl::evaluate::standalone::{Standalone, TestImages};
use advcl::experiment::{Purpose, Stale};
use advcl::files::expand_home;
use advcl::session::Context;
use advcl::{Error, device};
use anyhow::Result;
use serde_json::json;

use crate::args::{self, RecipeArg, Shared};
use crate::examples::ExamplesOutput;
use crate::format::{Table, percent_of};
use crate::output::{print, print_json};
use crate::predict::LoadedModel;
use crate::session::{Access, with_experiment};
use crate::table;

/// Prints stored examples, and writes them as pictures where asked.
pub fn show(what: &args::Show, shared: &Shared) -> Result<()> {
    let output = what.output.as_deref().map(ExamplesOutput::pictures);
    if let Some(output) = &output {
        let data = what.data.as_deref().map(Path::new);
        let inputs: Vec<&Path> = data.into_iter().chain([what.file.as_path()]).collect();
        output.check("-o", &inputs)?;
        let alone = what.model.is_none() && shared.run.is_none();
        if let (ExamplesOutput::Sheet(path), true) = (output, alone) {
            let problem = "a contact sheet has the originals, which are not in the file".to_owned();
            let hint = "say where they are: --run RUN, or --model MODEL --data DIR".to_owned();
            let path = path.to_path_buf();
            return Err(Error::Output {
                path,
                problem,
                hint,
            }
            .into());
        }
    }
    let pictured = match (&what.model, &what.data) {
        (Some(model), Some(data)) => of_model(&what.file, model, data, shared)?,
        _ if shared.run.is_some() => {
            let access = Access {
                begun: true,
                purpose: Purpose::Evaluate,
                stale: Stale::Ask,
                reads_only: true,
            };
            let run = RecipeArg { recipe: None };
            with_experiment(&run, shared, access, |experiment, context| {
                experiment.stored(&what.file, context)
            })?
        }
        _ => alone(&what.file)?,
    };
    match shared.json {
        true => print_json(&as_json(&pictured))?,
        false => print(&text_of(&pictured))?,
    }
    match &output {
        Some(output) => output.write(&pictured, shared),
        None => Ok(()),
    }
}

/// Examples of a file, without a classifier that could say anything about them.
fn alone(file: &Path) -> advcl::Result<Pictured> {
    let (examples, info) = Adversarial::load(file)?;
    let [channels, height, width] = examples.shape;
    let possible = matches!(channels, 1 | 3)
        && [height, width]
            .iter()
            .all(|&side| (1..=advcl::data::MAX_SIDE).contains(&side));
    if !possible {
        let found = format!("{:?}", examples.shape);
        let place = "tensor images, [channels, height, width]";
        return Err(Error::format(file, place, "images", found));
    }
    Ok(Pictured {
        originals: advcl::data::Images::new(Vec::new(), examples.shape),
        examples,
        info,
        rounded: Vec::new(),
        classes: Vec::new(),
    })
}

/// Examples of a file with what a model says about them.
fn of_model(file: &Path, model: &Path, data: &str, shared: &Shared) -> Result<Pictured> {
    let (examples, info) = Adversarial::load(file)?;
    let device = device::open(&shared.device)?;
    let mut model = LoadedModel::load(model, &device)?;
    let damaged = model.read_as(&shared.set)?;
    let images = TestImages::load(&expand_home(data), &model.info, damaged)?;
    check_indices(file, &examples, &info, &images.split.images)?;
    let ball = Ball {
        norm: info.norm,
        radius: info.radius,
    };
    let subject = Standalone {
        name: "show",
        classifier: &model.classifier,
        classes: model.info.classes.len(),
        split: &images.split,
        among: &info.among,
        attacker: Attacker::new(ball, 0, None),
        suite: None,
        depends_on: "",
    };
    let frozen = model.classifier.frozen();
    let logits = |x| frozen.logits(x);
    let rounded = rounded::round(
        &examples,
        &subject.evaluator(&logits),
        ball,
        &mut Context::new(device),
    )?;
    Ok(Pictured {
        examples,
        rounded,
        classes: model.info.classes.clone(),
        originals: images.split.images.clone(),
        info,
    })
}

fn as_json(pictured: &Pictured) -> serde_json::Value {
    let class = |class: usize| &pictured.classes[class];
    let example = |found: &Rounded| {
        json!({
            "index": found.index,
            "class": class(found.label),
            "predicted": class(found.predicted.class),
            "probability": found.predicted.probability,
            "rounded": class(found.rounded.class),
            "rounded_probability": found.rounded.probability,
            "fools_rounded": found.fools(),
            "distance_rounded": found.distance,
            "within_radius": found.inside,
        })
    };
    let info = &pictured.info;
    let known = !pictured.rounded.is_empty() || pictured.examples.indices.is_empty();
    json!({
        "classifier": info.classifier,
        "norm": info.norm,
        "radius": info.radius,
        "images": info.among.len(),
        "examples": pictured.examples.indices.len(),
        "fooling_rounded": known.then(|| pictured.fooling()),
        "each": pictured.rounded.iter().map(example).collect::<Vec<_>>(),
    })
}

fn text_of(pictured: &Pictured) -> String {
    let info = &pictured.info;
    let count = pictured.examples.indices.len();
    let mut rows = vec![
        ("classifier".to_owned(), info.classifier.clone()),
        (
            "radius".to_owned(),
            format!("{} ({})", info.radius, info.norm),
        ),
        ("images".to_owned(), info.among.len().to_string()),
        ("examples".to_owned(), count.to_string()),
    ];
    if pictured.rounded.is_empty() {
        return table::pairs(&rows);
    }
    let fooling = pictured.fooling();
    rows.push((
        "fool in 8 bits".to_owned(),
        format!("{fooling} of {count}, {}", percent_of(fooling, count)),
    ));
    let mut table = Table::new()
        .right("image")
        .left("class")
        .left("predicted")
        .left("in 8 bits");
    for found in &pictured.rounded {
        table.row([
            found.index.to_string(),
            pictured.classes[found.label].clone(),
            table::predicted(found.predicted, &pictured.classes),
            table::predicted(found.rounded, &pictured.classes),
        ]);
    }
    format!("{}\n{}", table::pairs(&rows), table.text())
}
