//! `advcl data inspect`: figures of a data set, and a contact sheet of its views.

use std::path::{Path, PathBuf};

use advcl::data::contact_sheet::contact_sheet;
use advcl::data::is_own_picture;
use advcl::files::check_output;
use advcl::recipe::Recipe;
use advcl::run::Model;
use advcl::{data, device, preview};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json};
use crate::predict::model_file;
use crate::progress::print_status;
use crate::table;

/// Default name of the contact sheet.
const SHEET: &str = "views.png";

pub fn inspect(what: &args::Inspect, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let usual = PathBuf::from(SHEET);
    let sheet = what.sheet.as_ref().unwrap_or(&usual);
    let recipe = Recipe::load(&what.recipe, &shared.set)?;
    let source = what.source.as_ref().unwrap_or(&recipe.data.source);
    let model_path = what.model.as_deref().map(model_file).transpose()?;
    let mut inputs = vec![Path::new(source)];
    inputs.extend(Some(Path::new(&what.recipe)).filter(|recipe| recipe.is_file()));
    inputs.extend(model_path.as_deref());
    // A contact sheet is no input, even inside the data set, since it is never read as data.
    if !(sheet.is_file() && is_own_picture(sheet)?) {
        check_output(sheet, "--sheet", &inputs, what.replace)?;
    }
    let data = data::load(source)?;
    for note in &data.notes {
        print_status(&format!("{}: {note}", data.name));
    }
    let model = model_path.map(|path| Model::load(&path, &device));
    let views = preview::views(
        &data,
        &recipe,
        model.transpose()?.as_ref(),
        what.rows,
        &device,
    )?;
    let columns: Vec<_> = views.iter().map(|(_, batch)| batch).collect();
    contact_sheet(&columns, 4, sheet)?;
    let summary = table::data(&data, &views, sheet);
    if shared.json {
        print_json(&summary)
    } else {
        print(&table::data_text(&summary))
    }
}
