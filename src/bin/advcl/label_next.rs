//! `advcl label-next`: a list of the images to label next.

use std::fs;
use std::path::{Path, PathBuf};

use advcl::Error;
use advcl::data::contact_sheet::contact_sheet;
use advcl::data::{Images, is_own_picture};
use advcl::experiment::{Cell, Purpose, Stale, Wanted};
use advcl::files::{self, check_output, write_output};
use advcl::tensor::Batch;
use anyhow::Result;

use crate::args::{self, Shared};
use crate::format::{Table, in_csv};
use crate::output::{print, print_json};
use crate::progress::print_status;
use crate::session::{Access, resolve, with_rows};

/// Heads of the list.
const HEADS: &str = "path,label,split,predicted,strategy,reason\n";
/// Pictures beside each other on the sheet.
const ACROSS: usize = 10;
/// Smallest width of a picture on the sheet, in pixels.
const WIDTH: usize = 64;

pub fn label_next(what: &args::LabelNext, shared: &Shared) -> Result<()> {
    check_targets(what, shared)?;
    let access = Access {
        begun: true,
        purpose: Purpose::Evaluate,
        stale: Stale::Ask,
        reads_only: true,
    };
    let (wanted, notes) = with_rows(&what.row, shared, access, |experiment, cells, context| {
        let cell = one_of(cells)?;
        let wanted = experiment.label_next(cell, what.strategy.into(), what.count, context)?;
        let labeled = experiment.labeled_files();
        let mut notes = Vec::new();
        let is_file = |one: &Wanted| one.path.as_ref().is_some_and(|path| path.is_file());
        if !wanted.iter().all(is_file) {
            notes.push("the images are in archives or arrays: a list names files, so unpack them to read it back");
        }
        let labeled = labeled.filter(|rows| rows.iter().all(|row| row.path.is_file()));
        if labeled.is_none() {
            notes.push("the images that have labels are in archives or arrays: the list has the new ones alone");
        }
        let labeled_paths = labeled.iter().flatten().map(|row| &row.path);
        let paths = wanted.iter().filter_map(|one| one.path.as_ref());
        if paths
            .chain(labeled_paths)
            .any(|path| path.to_str().is_none())
        {
            notes.push("some names are not UTF-8, and a list names no such files: rename them to read it back");
        }
        let mut list = HEADS.to_owned();
        for one in &wanted {
            let path = name_of(one);
            let predicted = one.predicted.as_deref().unwrap_or_default();
            let strategy = serde_json::to_value(one.strategy).expect("a name");
            let strategy = strategy.as_str().unwrap_or_default();
            let cells = [&path, "", "train", predicted, strategy, &one.reason];
            list += &line(cells);
        }
        for row in labeled.iter().flatten() {
            let path = row.path.to_string_lossy();
            list += &line([&path, &row.class, row.split, "", "", ""]);
        }
        write_output(&what.output, list.as_bytes())?;
        if let Some(sheet) = &what.sheet {
            draw(sheet, &experiment.data.pretraining.train.images, &wanted)?;
        }
        Ok((wanted, notes))
    })?;
    if shared.json {
        let list = what.output.to_string_lossy();
        return print_json(&serde_json::json!({ "list": list, "images": wanted }));
    }
    let mut table = Table::new().left("image").left("predicted").left("reason");
    for one in &wanted {
        let predicted = one.predicted.clone().unwrap_or_default();
        table.row([name_of(one), predicted, one.reason.clone()]);
    }
    print(&table.text())?;
    if !shared.quiet {
        for note in notes {
            print_status(note);
        }
        let list = what.output.display();
        print_status(&format!(
            "fill in the column label of {list}, then: --set 'data.source = \"{list}\"'"
        ));
    }
    Ok(())
}

/// Refuses files that may not be written, before any work: those of the run and its images always, any other ones unless they are to be
/// replaced, and one file for both. A list or a sheet of an earlier call is no input, even inside the run or its images, unless
/// the images are read by it.
fn check_targets(what: &args::LabelNext, shared: &Shared) -> Result<()> {
    let named = &what.row.stage.recipe;
    let (recipe, run) = resolve(named, shared)?;
    let sources: Vec<&Path> = recipe.sources().map(Path::new).collect();
    let check = |path: &Path, option: &str, is_earlier: bool| {
        let inputs = sources.iter().copied();
        let inputs = inputs.filter(|source| !is_earlier || source.is_file());
        let recipe = named.recipe.as_deref().map(Path::new);
        let run = [Some(run.as_path()), recipe].into_iter().flatten();
        let run = run.filter(|_| !is_earlier);
        let inputs: Vec<&Path> = inputs.chain(run).collect();
        check_output(path, option, &inputs, what.replace)
    };
    check(&what.output, "-o", is_list(&what.output))?;
    let Some(sheet) = &what.sheet else {
        return Ok(());
    };
    let is_sheet = sheet.is_file() && is_own_picture(sheet).unwrap_or(false);
    check(sheet, "--sheet", is_sheet)?;
    let is_file = !sheet.exists() || sheet.is_file();
    if is_file && place(sheet) == place(&what.output) {
        let problem = "the list of -o is written there".to_owned();
        let hint = "name another file with --sheet".to_owned();
        let path = sheet.clone();
        return Err(Error::Output {
            path,
            problem,
            hint,
        }
        .into());
    }
    Ok(())
}

/// Whether a file begins as the lists of this command do.
fn is_list(path: &Path) -> bool {
    let head = || files::beginning(path, HEADS.len());
    path.is_file() && head().is_ok_and(|head| head == HEADS.as_bytes())
}

/// A path by which two names of one file are told, also of one that is not there yet.
fn place(path: &Path) -> PathBuf {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
    let beside = || Some(folder.ok()?.join(path.file_name()?));
    let real = fs::canonicalize(path).ok();
    real.or_else(beside).unwrap_or_else(|| path.to_path_buf())
}

/// The row whose encoder chooses: the only one, or else that of AdvCL.
fn one_of(cells: &[Cell]) -> advcl::Result<&Cell> {
    if let [cell] = cells {
        return Ok(cell);
    }
    let advcl = cells.iter().find(|cell| cell.method == "advcl");
    advcl.ok_or_else(|| {
        let names: Vec<String> = cells.iter().map(Cell::to_string).collect();
        let problem = format!("expected one encoder, found {}", names.join(", "));
        Error::input("--method", problem, "name one with --method and --mode")
    })
}

/// The image's file, or its number in the run.
fn name_of(one: &Wanted) -> String {
    match &one.path {
        Some(path) => path.to_string_lossy().into_owned(),
        None => format!("image {}", one.image),
    }
}

fn line(cells: [&str; 6]) -> String {
    cells.map(in_csv).join(",") + "\n"
}

/// Draws the images in the order of the list, row by row.
fn draw(sheet: &Path, images: &Images, wanted: &[Wanted]) -> advcl::Result<()> {
    let across = ACROSS.min(wanted.len());
    let down = wanted.len().div_ceil(across);
    let column = |c: usize| {
        let places = (0..down).filter_map(|row| wanted.get(row * across + c));
        let places: Vec<usize> = places.map(|one| one.image).collect();
        let mut batch = images.batch(&places);
        // The last row may be short.
        batch.data.resize(down * images.image_len(), 1.0);
        batch.shape[0] = down;
        batch
    };
    let columns: Vec<Batch> = (0..across).map(column).collect();
    let columns: Vec<&Batch> = columns.iter().collect();
    contact_sheet(&columns, WIDTH.div_ceil(images.width), sheet)
}
