//! Stored results of a row, read only where they belong to the recipe.
//!
//! Every result is stored with the text of all that it depends on. Results of another recipe, as an
//! interrupted command leaves them, are not shown beside figures of this one.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Table;

use super::ReportedRow;
use super::layout::{ATTACK, MEASURES, RESULT, SOUNDNESS, TRANSFER};
use crate::error::Result;
use crate::evaluate::Attacked;
use crate::evaluate::measures::{MEASURES as ALL_MEASURES, Measure, Measures, Transfer};
use crate::evaluate::soundness::Soundness;
use crate::experiment::{Cell, Outcome, Summary};
use crate::files::read_json;
use crate::interval::Interval;
use crate::recipe::{Fingerprint, Fingerprints, Part, Recipe};

/// A result and the text of all that it depends on.
#[derive(Deserialize)]
struct Stored<T> {
    recipe: String,
    #[serde(flatten)]
    value: T,
}

/// A result in parts, with such a text for each part.
#[derive(Deserialize)]
struct StoredParts<T> {
    #[serde(flatten)]
    value: T,
    recipes: BTreeMap<String, String>,
}

/// Reads a JSON file; none where there is no file.
pub(super) fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read_json(path)).transpose()
}

/// Parses the fingerprints of a row's training and evaluation images from the text of its figures.
fn fingerprints(text: &str) -> Option<Fingerprints> {
    let table: Table = toml::from_str(text).ok()?;
    let of = |name: &str| {
        let table = table.get(name)?.as_table()?;
        let text = |key: &str| Some(table.get(key)?.as_str()?.to_owned());
        Some(Fingerprint {
            images: usize::try_from(table.get("images")?.as_integer()?).ok()?,
            pixels: text("pixels")?,
            labels: text("labels")?,
        })
    };
    let files = table.get("files").and_then(|files| files.as_table());
    let files = files.into_iter().flatten();
    let file =
        |(path, print): (&String, &toml::Value)| Some((path.clone(), print.as_str()?.to_owned()));
    Some(Fingerprints {
        train: of("data")?,
        downstream: of("downstream"),
        judged: of("judged")?,
        files: files.filter_map(file).collect(),
    })
}

/// Reads the figures of a row, with the attacks, checks and measures that belong to them. None
/// where nothing was evaluated.
pub(super) fn row(
    run: &Path,
    cell: &Cell,
    recipe: &Recipe,
    summary: Option<&Summary>,
) -> Result<Option<ReportedRow>> {
    let folder = run.join(cell.stage());
    let Some(stored) = optional::<Stored<Outcome>>(&folder.join(RESULT))? else {
        return Ok(None);
    };
    let (text, mut outcome) = (stored.recipe, stored.value);
    if outcome.accuracy.total.images == 0 {
        return Ok(None);
    }
    let prints = fingerprints(&text);
    // For the images that the figures were measured on. Today's images are compared where they are
    // read.
    let expected = |part: Part| prints.as_ref().map(|prints| recipe.text_of(part, prints));
    let mode = cell.mode.as_deref();

    outcome.attacked = None;
    if recipe.evaluate.attack.is_some() {
        let attacked = optional::<Stored<Attacked>>(&folder.join(ATTACK))?;
        let now = expected(Part::Attack(&cell.method, mode));
        let attacked = attacked.filter(|stored| now.as_ref() == Some(&stored.recipe));
        outcome.attacked = attacked.map(|stored| stored.value);
    }
    let soundness = optional::<Stored<Soundness>>(&folder.join(SOUNDNESS))?;
    let soundness = soundness.filter(|stored| stored.recipe == text);
    outcome.soundness = soundness.map(|stored| with_attacks(stored.value, &outcome, summary));
    let measures = optional::<StoredParts<Measures>>(&folder.join(MEASURES))?;
    outcome.measures = measures.and_then(|mut stored| {
        for (name, measure) in ALL_MEASURES {
            let now = expected(Part::Measure(&cell.method, mode, measure.keys()));
            if now.is_none() || now.as_ref() != stored.recipes.get(name) {
                stored.recipes.remove(name);
                stored.value.clear(measure);
            }
        }
        (!stored.recipes.is_empty()).then_some(stored.value)
    });
    let (total, worst) = (&outcome.accuracy.total, outcome.attacked.as_ref());
    Ok(Some(ReportedRow {
        classifier: cell.stage(),
        clean: Interval::wilson(total.clean, total.images),
        robust: Interval::wilson(total.robust, total.images),
        worst: worst.and_then(|all| Interval::wilson(all.robust, all.images)),
        current: expected(cell.figures()).as_ref() == Some(&text),
        recipe: text,
        outcome,
    }))
}

/// Adds the evidence of the attacks beside PGD to the checks. The summary of the same figures is
/// preferred, since it includes the distances of their adversarial examples.
fn with_attacks(mut own: Soundness, outcome: &Outcome, summary: Option<&Summary>) -> Soundness {
    let same = |other: &&Outcome| {
        (&other.method, &other.finetuning) == (&outcome.method, &outcome.finetuning)
            && (&other.accuracy, &other.attacked) == (&outcome.accuracy, &outcome.attacked)
    };
    let summed = summary.and_then(|summary| summary.outcomes.iter().find(same));
    if let Some(summed) = summed.and_then(|outcome| outcome.soundness.clone()) {
        return summed;
    }
    if let Some(attacked) = &outcome.attacked {
        let total = &outcome.accuracy.total;
        own.heed(attacked, (total.robust, total.images));
    }
    own
}

/// Reads the transfer between rows, where it is complete and belongs to the recipe and to these
/// rows.
pub(super) fn transfer(
    run: &Path,
    recipe: &Recipe,
    rows: &[ReportedRow],
) -> Result<Option<Transfer>> {
    let Some(stored) = optional::<StoredParts<Transfer>>(&run.join(TRANSFER))? else {
        return Ok(None);
    };
    let holds = |classifier: &String| {
        let row = rows.iter().find(|row| row.classifier == *classifier)?;
        let cell = row.cell(recipe)?;
        let keys = Measure::Transfer.keys();
        let part = Part::Measure(&cell.method, cell.mode.as_deref(), keys);
        let now = recipe.text_of(part, &fingerprints(&row.recipe)?);
        Some(stored.recipes.get(classifier) == Some(&now))
    };
    let transfer = &stored.value;
    let whole = transfer.accuracy.len() == transfer.classifiers.len();
    let all_hold = transfer
        .classifiers
        .iter()
        .all(|name| holds(name) == Some(true));
    Ok((whole && all_hold).then_some(stored.value))
}
