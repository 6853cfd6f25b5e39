//! `advcl data inspect`: figures of a data set, and a contact sheet of its views where one is asked for.

use std::path::Path;

use advcl::data::contact_sheet::contact_sheet;
use advcl::data::is_own_picture;
use advcl::files::check_output;
use advcl::recipe::Recipe;
use advcl::run::Model;
use advcl::{data, device, preview};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json, printable};
use crate::predict::model_file;
use crate::progress::print_status;
use crate::table;

pub fn inspect(what: &args::Inspect, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let recipe = Recipe::load(&what.recipe, &shared.set)?;
    let source = what.source.as_ref().unwrap_or(&recipe.data.source);
    let model_path = what.model.as_deref().map(model_file).transpose()?;
    let mut inputs = vec![Path::new(source)];
    inputs.extend(Some(Path::new(&what.recipe)).filter(|recipe| recipe.is_file()));
    inputs.extend(model_path.as_deref());
    // A contact sheet is no input, even inside the data set, since it is never read as data.
    if let Some(sheet) = &what.sheet
        && !(sheet.is_file() && is_own_picture(sheet)?)
    {
        check_output(sheet, "--sheet", &inputs, what.replace)?;
    }
    let data = data::load_as(source, &recipe.data.reading(), recipe.data.damaged)?;
    for note in &data.notes {
        print_status(&printable(&format!("{}: {note}", data.name)));
    }
    let model = model_path.map(|path| Model::load(&path, &device));
    let model = model.transpose()?;
    let mut columns = Vec::new();
    if let Some(sheet) = &what.sheet {
        let views = preview::views(&data, &recipe, model.as_ref(), what.rows, &device)?;
        let batches: Vec<_> = views.iter().map(|(_, batch)| batch).collect();
        contact_sheet(&batches, 4, sheet)?;
        columns.extend(views.iter().map(|(name, _)| (*name).to_owned()));
    }
    let summary = table::data(&data, columns, what.sheet.as_deref());
    if shared.json {
        print_json(&summary)
    } else {
        print(&table::data_text(&summary))
    }
}
