//! Lists of images: CSV or JSON lines with a path in each row, and with a label and a split where they are known.
//!
//! Paths are the user's own choice: they begin at the list's folder, or are absolute. The images of a list and the
//! same ones in `train/<class>/` give the same data set.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization as _;

use super::archive::Store;
use super::class_names::class_name;
use super::dataset::not_used;
use super::layout::{Classes, Item, Layout, TEST, TRAIN, split_of_name};
use super::reading::{Damaged, Wanted};
use crate::error::{Error, Result};
use crate::files;
use rows::{MOST, Row};

/// Finds the images of a list.
///
/// # Errors
/// [`Error::Format`] for a list that cannot be read; [`Error::Data`] for rows with a fault, all of one kind together,
/// and as for a folder of images.
pub(super) fn open(path: &Path, wanted: Wanted, damaged: Damaged) -> Result<(Store, Layout)> {
    let source = path.display().to_string();
    let mut rows = rows::read(path)?;
    if rows.is_empty() {
        let hint = "a row for each image: path,label,split";
        return Err(Error::data(source, "expected rows, found none", hint));
    }
    let mut list = List {
        source: &source,
        all: rows.len(),
        left_out: Vec::new(),
    };
    list.refuse(
        "expected a path in each row, found none in",
        rows.iter().filter(|row| row.path.is_empty()),
        "a row is a path, and a label and a split where they are known",
    )?;
    rows.iter_mut().for_each(|row| row.path = clean(&row.path));
    let folder = path.parent().unwrap_or(Path::new(""));
    let found: Vec<Option<PathBuf>> = rows
        .par_iter()
        .map(|row| find_file(folder, &row.path))
        .collect();
    let mut places: HashMap<String, PathBuf> = HashMap::with_capacity(rows.len());
    let (mut there, mut missing, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for (row, place) in rows.into_iter().zip(found) {
        match place {
            None => missing.push(row),
            Some(place) => match places.insert(row.path.clone(), place) {
                None => there.push(row),
                Some(_) => twice.push(row),
            },
        }
    }
    list.refuse(
        "expected each image once, found again",
        &twice,
        "keep one row of each image",
    )?;
    list.require_files(&missing, there.is_empty(), damaged)?;
    let mut layout = list.layout(there)?;
    if wanted == Wanted::Images {
        layout = layout.without_labels();
    }
    layout.left_out.extend(list.left_out);
    Ok((Store::listed(path, places), layout))
}

/// A list for messages.
struct List<'a> {
    source: &'a str,
    /// Number of rows.
    all: usize,
    /// Sentences about images that are not used.
    left_out: Vec<String>,
}

impl List<'_> {
    /// Refuses rows with a fault of one kind, the first of them by line and path.
    fn refuse<'r>(
        &self,
        problem: &str,
        rows: impl IntoIterator<Item = &'r Row>,
        hint: &str,
    ) -> Result<()> {
        match named(rows) {
            (0, _) => Ok(()),
            (count, named) => Err(Error::data(
                self.source,
                format!("{problem} {count} of {} rows: {named}", self.all),
                hint,
            )),
        }
    }

    /// Refuses rows whose files are not there, or goes on without them.
    fn require_files(&mut self, missing: &[Row], are_all: bool, damaged: Damaged) -> Result<()> {
        if damaged == Damaged::Skip && !are_all && !missing.is_empty() {
            let (count, named) = named(missing);
            self.left_out.push(format!(
                "rows without a file that are passed over: {count}, {named}"
            ));
            return Ok(());
        }
        let hint = match missing.first().map(|row| row.path.as_str()) {
            Some(path) if path.contains("://") => "images are read from disk: download them",
            Some(path) if path.contains('\\') => "write / between the parts of a path",
            _ => "paths begin at the list's own folder, or are absolute",
        };
        self.refuse(
            "expected an image file for each row, found none for",
            missing,
            hint,
        )
    }

    /// Splits and classes of rows.
    fn layout(&mut self, mut rows: Vec<Row>) -> Result<Layout> {
        rows.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let by_line = |rows: &[Row], has: fn(&Row) -> bool| {
            let mut lacking: Vec<Row> = rows.iter().filter(|row| !has(row)).cloned().collect();
            lacking.sort_unstable_by_key(|row| row.line);
            lacking
        };
        if rows.iter().any(|row| !row.split.is_empty()) {
            self.refuse(
                "expected train, val or test as the split, found another or none in",
                &by_line(&rows, |row| split(&row.split).is_some()),
                "training, testing, valid, validation and dev are known too",
            )?;
        }
        let lacking = by_line(&rows, |row| !row.label.is_empty());
        if lacking.len() < rows.len() {
            self.refuse(
                "expected a label in each row, found none in",
                &lacking,
                "put images without labels into a list of their own, and name it in data.unlabeled",
            )?;
        }
        let labeled = lacking.is_empty();
        let mut splits: BTreeMap<String, Classes> = BTreeMap::new();
        for row in rows {
            let classes = splits.entry(split(&row.split).unwrap_or(TRAIN).to_owned());
            let images = classes.or_default().entry(class_name(&row.label));
            images.or_default().push(row.path);
        }
        if labeled {
            return Layout::labeled(self.source, splits);
        }
        if !splits.contains_key(TRAIN) {
            let problem = "expected rows of the split train, found none";
            let hint = "without a column split all images are training images";
            return Err(Error::data(self.source, problem, hint));
        }
        let images = |classes: Classes| classes.into_values().flatten();
        let train = splits.remove(TRAIN).into_iter().flat_map(images);
        let train = train.map(|name| Item { name, label: 0 }).collect();
        let others = splits.into_values().flat_map(images).count();
        Ok(Layout {
            train,
            notes: vec![
                "no column of labels (label, class, target): the images are taken without"
                    .to_owned(),
            ],
            left_out: not_used(others).into_iter().collect(),
            ..Layout::default()
        })
    }
}

/// Number of rows, and the first of them in words.
fn named<'r>(rows: impl IntoIterator<Item = &'r Row>) -> (usize, String) {
    let (mut count, mut named) = (0, Vec::new());
    for row in rows {
        count += 1;
        if named.len() < MOST {
            named.push(row.to_string());
        }
    }
    if count > MOST {
        named.push("…".to_owned());
    }
    (count, named.join(", "))
}

/// Name of a split as folders have it; none for an unknown one.
fn split(written: &str) -> Option<&'static str> {
    match split_of_name(written) {
        None if written.eq_ignore_ascii_case("dev") => Some(TEST[1]),
        // All names of it mean the same split.
        Some(name) if name != TRAIN && name != TEST[0] => Some(TEST[1]),
        known => known,
    }
}

/// A path without empty and `.` parts, so that spellings of one path are one; `~/` is the home folder.
fn clean(written: &str) -> String {
    let path = files::expand_home(written);
    if path.contains("://") {
        return path;
    }
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let joined = parts.collect::<Vec<_>>().join("/");
    match path.starts_with('/') {
        true => format!("/{joined}"),
        false => joined,
    }
}

/// The file of a row, under the name that it has on this disk: a list from a Mac may have "é" as two characters.
fn find_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let spellings = [name.to_owned(), name.nfc().collect(), name.nfd().collect()];
    let paths = spellings.into_iter().map(|name: String| folder.join(name));
    paths.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
