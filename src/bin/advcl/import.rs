//! `advcl import`: makes a model file from weights of PyTorch.

use advcl::files::check_output;
use advcl::import::ImportSettings;
use advcl::nn::Normalize;
use advcl::run::{IMPORTED, Model};
use advcl::{Error, device};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::{print, print_json};
use crate::progress::print_status;
use crate::table;

pub fn import(what: &args::Import, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let mut inputs = vec![what.weights.as_path()];
    inputs.extend(what.classes.as_deref());
    // An earlier import, unchanged since, can be made again from its weights: nothing is lost with it.
    let earlier = Model::load(&what.output, &device).is_ok_and(|m| m.info.method == IMPORTED);
    check_output(&what.output, "-o", &inputs, what.replace || earlier)?;
    let normalize = if what.mean.is_empty() {
        None
    } else {
        let numbers = Normalize::new(what.mean.clone(), what.std.clone());
        let hint =
            "give one number per channel: --mean 0.4914,0.4822,0.4465 --std 0.247,0.243,0.262";
        Some(numbers.map_err(|problem| Error::model(&what.weights, problem, hint))?)
    };
    let settings = ImportSettings {
        stem: what.stem,
        image_size: what.image_size,
        route: what.route,
        normalize,
        prefix: what.prefix.clone(),
        classes: what.classes.clone(),
    };
    let imported = advcl::import::import(&what.weights, &settings, &device)?;
    imported.model.save_output(&what.output)?;
    if earlier && !what.replace {
        let output = what.output.display();
        print_status(&format!(
            "note: {output} was an earlier import, and is replaced"
        ));
    }
    for note in &imported.notes {
        print_status(&format!("note: {note}"));
    }
    if shared.json {
        return print_json(&serde_json::json!({
            "model": what.output.to_string_lossy(),
            "prefix": imported.prefix,
            "info": imported.model.info,
            "notes": imported.notes,
            "left_out": imported.left_out,
        }));
    }
    print(&table::imported(&imported, &what.output))
}
