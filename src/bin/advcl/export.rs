//! `advcl export`: a model for other programs.

use std::path::{Path, PathBuf};

use advcl::data::Images;
use advcl::device;
use advcl::experiment::{Cell, Data, FolderRecipe, Outcome, Purpose, has_begun, kept_outcomes};
use advcl::export::{
    self, ExportFormat, ExportSettings, Exported, Figure, MOST, Notes, OnnxInput, ThreatModel,
    Verified,
};
use advcl::files::{check_output, write_output};
use advcl::nn::{Depth, Stem};
use advcl::recipe::{SplitName, Threat};
use advcl::run::{Layout, Model, ModelInfo, layout, model_file};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json};
use crate::progress::print_status;
use crate::table;

pub fn export(what: &args::Export, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let path = model_file(&what.model)?;
    let settings = ExportSettings {
        format: what.format.into(),
        features: what.features,
        route: what.route,
        input: what.input.into(),
    };
    let place = Place::of(&path);
    let output = what.output.clone();
    let output = output.unwrap_or_else(|| default_output(&path, place.as_ref(), &settings));
    check_output(&output, "-o", &[&path], what.replace)?;
    let model = Model::load(&path, &device)?;
    let info = &model.info;
    let mut notes = Notes::default();
    let mut real = None;
    if let Some(place) = &place {
        notes = place.notes()?;
        match place.images() {
            Ok(images)
                if images.shape()[0] == info.channels && images.shape()[1..] == info.image_size =>
            {
                real = Some(images);
            }
            Ok(_) => {}
            Err(error) if !shared.quiet => {
                print_status(&format!("compared on random images alone: {error}"));
            }
            Err(_) => {}
        }
    }
    let exported = export::export(&model, &path, &device, &settings, &notes, real.as_ref())?;
    write_output(&output, &exported.content)?;
    if shared.json {
        let metadata: serde_json::Map<_, _> = exported
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone().into()))
            .collect();
        return print_json(&serde_json::json!({
            "file": output.to_string_lossy(),
            "format": settings.format.name(),
            "output": exported.output,
            "metadata": metadata,
            "verified": exported.verified,
        }));
    }
    print(&table::pairs(&rows(
        &exported, info, &settings, &notes, &output,
    )))?;
    if settings.format == ExportFormat::Torchvision && !shared.quiet {
        print_status(&in_torchvision(info, &settings, &output));
    }
    Ok(())
}

/// What was written, a line each.
fn rows(
    exported: &Exported,
    info: &ModelInfo,
    settings: &ExportSettings,
    notes: &Notes,
    output: &Path,
) -> Vec<(String, String)> {
    let [height, width] = info.image_size;
    let (depth, stem) = (usize::from(info.encoder.depth), info.encoder.stem.name());
    let shape = format!("[batch, {}, {height}, {width}]", info.channels);
    let input = match (settings.format, &info.normalize) {
        (ExportFormat::Onnx, _) => settings.input.meaning(),
        (ExportFormat::Torchvision, Some(_)) => "float, normalised as in its metadata",
        _ => OnnxInput::Float.meaning(),
    };
    let mut rows = vec![
        ("file", output.display().to_string()),
        (
            "network",
            format!(
                "ResNet-{depth} of width {}, stem {stem}, BatchNorm branch {}",
                info.encoder.width,
                exported.route.name()
            ),
        ),
        ("images", format!("{shape}, {input}")),
        (exported.output, format!("[batch, {}]", exported.outputs)),
    ];
    if exported.route != info.route && !settings.features {
        let fitted = format!("the classifier was fitted on {}", info.route.name());
        rows.push(("note", fitted));
    }
    if exported.metadata.iter().any(|(key, _)| *key == "figures") {
        rows.push((
            "figures",
            format!("{}, in its metadata", notes.figures.len()),
        ));
    }
    let images = match &exported.verified {
        Verified {
            random, real: 0, ..
        } => format!("{random} random images"),
        Verified { random, real, .. } => format!("{random} random and {real} real images"),
    };
    let verified = format!("read again: the model's outputs to {MOST:.0e} on {images}");
    rows.push(("verified", verified));
    let owned = rows
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    owned.collect()
}

/// Lines of Python that load a state dict into torchvision's own ResNet, which is of width 64.
fn in_torchvision(info: &ModelInfo, settings: &ExportSettings, output: &Path) -> String {
    let (depth, width) = (info.encoder.depth, info.encoder.width);
    if width != 64 {
        return format!(
            "torchvision's ResNet is of width 64, this one of {width}: README.md has the lines of Python that load it"
        );
    }
    let block = match depth {
        Depth::D50 => "Bottleneck",
        _ => "BasicBlock",
    };
    let mut lines = vec![
        "in PyTorch:".to_owned(),
        format!(
            "net = torchvision.models.ResNet(torchvision.models.resnet.{block}, {:?}, num_classes={})",
            depth.blocks(),
            info.classes.len().max(1),
        ),
    ];
    let (stem, channels) = (info.encoder.stem, info.channels);
    // Its own first layer is for three channels.
    if stem != Stem::Imagenet || channels != 3 {
        let (kernel, stride) = (stem.kernel(), stem.stride());
        lines.push(format!(
            "net.conv1 = torch.nn.Conv2d({channels}, 64, {kernel}, {stride}, {}, bias=False)",
            kernel / 2
        ));
    }
    if !stem.is_pooled() {
        lines.push("net.maxpool = torch.nn.Identity()".to_owned());
    }
    if settings.features {
        lines.push("net.fc = torch.nn.Identity()".to_owned());
    }
    lines.push(format!(
        "net.load_state_dict(safetensors.torch.load_file({:?}))",
        output.display().to_string()
    ));
    lines.join("\n  ")
}

/// Place of a model in a run folder.
struct Place {
    run: PathBuf,
    cell: Cell,
}

impl Place {
    /// The place of a model file METHOD/model.safetensors or METHOD/MODE/model.safetensors below a run folder.
    fn of(model: &Path) -> Option<Self> {
        let folder = model.canonicalize().ok()?.parent()?.to_path_buf();
        if model.file_name()? != layout::MODEL {
            return None;
        }
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let above = folder.parent()?;
        if has_begun(above) {
            let (run, method) = (above.to_path_buf(), name(&folder)?);
            return Some(Self {
                run,
                cell: Cell { method, mode: None },
            });
        }
        let run = above.parent().filter(|run| has_begun(run))?.to_path_buf();
        let (method, mode) = (name(above)?, Some(name(&folder)?));
        Some(Self {
            run,
            cell: Cell { method, mode },
        })
    }

    /// Threat model and figures.
    fn notes(&self) -> advcl::Result<Notes> {
        let recipe = FolderRecipe::load(&self.run, &[])?;
        let kept = kept_outcomes(&Layout::new(&self.run), &self.cell)?;
        Ok(Notes {
            threat: recipe.map(|found| threat_model(&found.recipe.threat)),
            figures: kept
                .iter()
                .flat_map(|(_, outcome)| figures(outcome))
                .collect(),
        })
    }

    /// Images that the run's classifiers are evaluated on.
    fn images(&self) -> advcl::Result<Images> {
        let recipe = FolderRecipe::load(&self.run, &[])?
            .expect("a run that has begun")
            .recipe;
        Ok(Data::load(&recipe, Purpose::Evaluate)?.judged.images)
    }
}

fn threat_model(threat: &Threat) -> ThreatModel {
    ThreatModel {
        norm: threat.norm,
        radius: threat.radius.clone(),
    }
}

/// Accuracies of an outcome: clean, under PGD, and under each suite.
fn figures(outcome: &Outcome) -> Vec<Figure> {
    let figure = |attack: &str, images: usize, correct: usize| Figure {
        data: outcome.evaluated.data.clone(),
        split: match outcome.split {
            SplitName::Test => "test",
            SplitName::Holdout => "holdout",
        }
        .to_owned(),
        attack: attack.to_owned(),
        threat: (attack != "none").then(|| threat_model(&outcome.threat)),
        images,
        correct,
        accuracy: correct as f64 / images.max(1) as f64,
    };
    let total = &outcome.accuracy.total;
    let pgd = format!("PGD-{}", outcome.attack_steps);
    let suites = outcome.attacked.iter().chain(&outcome.other_attacks);
    let mut all = vec![
        figure("none", total.images, total.clean),
        figure(&pgd, total.images, total.robust),
    ];
    all.extend(suites.map(|suite| figure(&suite.suite, suite.images, suite.robust)));
    all
}

/// The model's name with the format's ending, in the working directory.
fn default_output(path: &Path, place: Option<&Place>, settings: &ExportSettings) -> PathBuf {
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let mut name = match place {
        Some(place) => place.cell.model_stage().replace('/', "-"),
        None => stem(path),
    };
    if settings.features {
        name += "-features";
    }
    PathBuf::from(match settings.format {
        ExportFormat::Onnx => format!("{name}.onnx"),
        ExportFormat::Torchvision => format!("{name}-torchvision.safetensors"),
        ExportFormat::Safetensors => format!("{name}-exported.safetensors"),
    })
}
