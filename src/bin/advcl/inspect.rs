//! `advcl data inspect`: figures of a data set, and a contact sheet of its views where one is asked for.

use std::path::Path;

use advcl::data::contact_sheet::contact_sheet;
use advcl::data::{Damaged, is_own_picture};
use advcl::files::{check_output, expand_home};
use advcl::recipe::Recipe;
use advcl::run::{Model, model_file};
use advcl::{Error, data, device, preview};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json, printable};
use crate::progress::print_status;
use crate::table;

pub fn inspect(what: &args::Inspect, shared: &Shared) -> Result<()> {
    let recipe = Recipe::load(&what.recipe, &shared.set)?;
    let named = what.source.as_deref().map(expand_home);
    let source = named.as_ref().unwrap_or(&recipe.data.source);
    let reading = recipe.data.reading();
    if let Some(sheet) = &what.sheet {
        check_sheet(sheet, source, what)?;
    }
    let scan = data::scan(source, &reading)?;
    for note in &scan.notes {
        print_status(&printable(&format!("{}: {note}", scan.name)));
    }
    let hints = scan.faults.iter().map(|fault| fault.hint.as_str());
    let hint = data::joint_hint(hints, scan.total() > 0);
    let (failed, files) = (scan.faults.len(), scan.total() + scan.faults.len());
    let columns = match &what.sheet {
        Some(sheet) => draw(sheet, source, &recipe, what, shared)?,
        None => Vec::new(),
    };
    // One for training and one for testing; a third where one is held out too.
    let least = if recipe.data.holdout > 0.0 && scan.images[1] == 0 {
        3
    } else {
        2
    };
    let summary = table::data(scan, &reading, least, columns, what.sheet.as_deref());
    if shared.json {
        print_json(&summary)?;
    } else {
        print(&table::data_text(&summary, shared.verbose))?;
    }
    if failed == 0 || recipe.data.damaged == Damaged::Skip {
        return Ok(());
    }
    print_status(&printable(&format!(
        "training refuses damaged images: {hint}"
    )));
    Err(Error::Unread { failed, files }.into())
}

/// Refuses a contact sheet that would replace something else than one.
fn check_sheet(sheet: &Path, source: &str, what: &args::Inspect) -> Result<()> {
    let model = what.model.as_deref().map(model_file).transpose()?;
    let mut inputs = vec![Path::new(source)];
    inputs.extend(Some(Path::new(&what.recipe)).filter(|recipe| recipe.is_file()));
    inputs.extend(model.as_deref());
    // A contact sheet is no input, even inside the data set, since it is never read as data.
    if !(sheet.is_file() && is_own_picture(sheet)?) {
        check_output(sheet, "--sheet", &inputs, what.replace)?;
    }
    Ok(())
}

/// Draws the contact sheet; returns the names of its columns.
fn draw(
    sheet: &Path,
    source: &str,
    recipe: &Recipe,
    what: &args::Inspect,
    shared: &Shared,
) -> Result<Vec<String>> {
    let device = device::open(&shared.device)?;
    let reading = recipe.data.reading();
    let data = data::load_as(source, &reading, Damaged::Skip)?;
    let model = what.model.as_deref().map(model_file).transpose()?;
    let model = model.map(|path| Model::load(&path, &device)).transpose()?;
    let views = preview::views(&data, recipe, model.as_ref(), what.rows, &device)?;
    let batches: Vec<_> = views.iter().map(|(_, batch)| batch).collect();
    contact_sheet(&batches, 4, sheet)?;
    Ok(views.iter().map(|(name, _)| (*name).to_owned()).collect())
}
