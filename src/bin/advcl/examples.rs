//! Files of adversarial examples that a user names: safetensors, a folder of pictures, or a contact sheet.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use advcl::Error;
use advcl::data::contact_sheet::contact_sheet;
use advcl::data::{adversarial_png, is_adversarial_picture, is_own_picture};
use advcl::evaluate::adversarial::Adversarial;
use advcl::evaluate::rounded::{Pictured, Rounded};
use advcl::files::{self, check_output, write_output};
use advcl::tensor::Batch;
use anyhow::Result;

use crate::args::Shared;
use crate::format::{Table, percent_of};
use crate::progress::print_status;

/// List of the pictures in their folder.
const LIST: &str = "adversarial.csv";
/// Beginning of that list.
const HEADS: [&str; 10] = [
    "file",
    "index",
    "class",
    "predicted",
    "probability",
    "rounded",
    "rounded_probability",
    "fools_rounded",
    "distance_rounded",
    "within_radius",
];
/// Rows of a contact sheet.
const SHEET_ROWS: usize = 32;
/// Ends of names that promise another format than is written.
const OTHER_FORMATS: [&str; 14] = [
    "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff", "npy", "npz", "pt", "pth", "pkl", "h5",
    "csv",
];

/// How adversarial examples are written, by the name that they are given.
pub enum ExamplesOutput<'a> {
    /// Safetensors: every bit of them.
    File(&'a Path),
    /// A folder with a PNG each, rounded to 8 bits, and a list of them.
    Folder(&'a Path),
    /// A PNG of some of them beside their originals.
    Sheet(&'a Path),
}

impl<'a> ExamplesOutput<'a> {
    /// A folder that is there or is named with a slash at its end, a contact sheet by the name `.png`, else safetensors.
    pub fn of(path: &'a Path) -> Self {
        let slash = path.to_string_lossy().ends_with(std::path::is_separator);
        if path.is_dir() || slash {
            Self::Folder(path)
        } else {
            Self::of_pictures(path, Self::File)
        }
    }

    /// A contact sheet by the name `.png`, else a folder.
    pub fn pictures(path: &'a Path) -> Self {
        Self::of_pictures(path, Self::Folder)
    }

    fn of_pictures(path: &'a Path, other: fn(&'a Path) -> Self) -> Self {
        match extension(path).as_str() {
            "png" => Self::Sheet(path),
            _ => other(path),
        }
    }

    /// Refuses an output where writing it would lose something that is not of its kind, before hours of attacks; `inputs`
    /// are the images that are read.
    pub fn check(&self, option: &str, inputs: &[&Path]) -> advcl::Result<()> {
        match self {
            Self::File(path) => {
                if OTHER_FORMATS.contains(&extension(path).as_str()) {
                    let problem = "adversarial examples are written as safetensors, or as PNG";
                    let hint = format!(
                        "{option} FILE.safetensors keeps every bit, {option} DIR/ writes a PNG each"
                    );
                    let (path, problem) = (path.to_path_buf(), problem.to_owned());
                    return Err(Error::Output {
                        path,
                        problem,
                        hint,
                    });
                }
                check_file(path, option, inputs, || {
                    Ok((!Adversarial::is_file(path)).then_some("holds no adversarial examples"))
                })
            }
            Self::Sheet(path) => check_file(path, option, inputs, || {
                Ok((!is_own_picture(path)?).then_some("is no contact sheet"))
            }),
            Self::Folder(path) => {
                check_folder(path, option, inputs)?;
                earlier(path, option).map(drop)
            }
        }
    }

    /// Writes examples as pictures, and says how many fool the classifier once they are rounded. (A file is written by
    /// whoever has it.)
    pub fn write(&self, pictured: &Pictured, shared: &Shared) -> Result<()> {
        let count = pictured.examples.indices.len();
        match self {
            Self::File(path) => pictured.examples.save_output(path, &pictured.info)?,
            Self::Folder(path) => write_folder(path, pictured)?,
            Self::Sheet(path) if count > 0 => {
                write_sheet(path, pictured)?;
                if count > SHEET_ROWS && !shared.quiet {
                    print_status(&format!(
                        "{}: the first {SHEET_ROWS} of {count}; a folder gets them all",
                        path.display()
                    ));
                }
            }
            Self::Sheet(path) => print_status(&format!(
                "{}: not written: there is no adversarial example",
                path.display()
            )),
        }
        if !shared.quiet && !pictured.rounded.is_empty() {
            print_status(&in_words(pictured));
        }
        Ok(())
    }
}

/// Refuses a file that may not be written, or that is there and is not of the kind that is written, as `other` says.
fn check_file(
    path: &Path,
    option: &str,
    inputs: &[&Path],
    other: impl Fn() -> advcl::Result<Option<&'static str>>,
) -> advcl::Result<()> {
    check_output(path, option, inputs, true)?;
    let is_file = fs::metadata(path).is_ok_and(|about| about.is_file());
    match is_file.then(other).transpose()?.flatten() {
        Some(what) => Err(Error::Output {
            path: path.to_path_buf(),
            problem: format!("the file exists already, and {what}"),
            hint: format!("name another file with {option}"),
        }),
        None => Ok(()),
    }
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_lowercase()
}

/// What rounding to 8 bits makes of the examples.
fn in_words(pictured: &Pictured) -> String {
    let (count, fooling) = (pictured.rounded.len(), pictured.fooling());
    let beyond = pictured.rounded.iter().filter(|example| !example.inside);
    format!(
        "{fooling} of {count} adversarial images ({}) fool the classifier still once they are rounded to 8 bits; {} of {count} are beyond the radius then",
        percent_of(fooling, count),
        beyond.count()
    )
}

/// Refuses a folder that cannot be one, or that lies in the images that are read: they would be other images afterwards.
pub fn check_folder(path: &Path, option: &str, inputs: &[&Path]) -> advcl::Result<()> {
    let refuse = |problem: String| {
        Err(Error::Output {
            path: path.to_path_buf(),
            problem,
            hint: format!("name another folder with {option}"),
        })
    };
    if fs::symlink_metadata(path).is_ok() && !path.is_dir() {
        return refuse("it is no folder".to_owned());
    }
    // The folder itself may not be there yet.
    let there = path
        .ancestors()
        .map(|folder| match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        });
    let there = there
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .next();
    let is_around = |input: &&&Path| {
        let input = fs::canonicalize(input).ok().filter(|input| input.is_dir());
        input
            .zip(there.as_ref())
            .is_some_and(|(input, there)| there.starts_with(input))
    };
    match inputs.iter().find(is_around) {
        Some(input) => refuse(format!(
            "it lies in the images of {}, and would be read with them",
            input.display()
        )),
        None => Ok(()),
    }
}

/// Pictures in a folder that an earlier call wrote.
///
/// # Errors
/// [`Error::Output`] where there is anything else.
fn earlier(folder: &Path, option: &str) -> advcl::Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    if !folder.exists() {
        return Ok(pictures);
    }
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let list = path.file_name().is_some_and(|name| name == LIST);
        let ours = path.is_file()
            && match list {
                true => files::read_text(&path)?.starts_with(&HEADS[..2].join(",")),
                false => is_adversarial_picture(&path)?,
            };
        if !ours {
            return Err(Error::Output {
                path: folder.to_path_buf(),
                problem: format!("the folder holds other files: {}", path.display()),
                hint: format!("name an empty or a new folder with {option}"),
            });
        }
        if !list {
            pictures.push(path);
        }
    }
    Ok(pictures)
}

/// A class in a file's name.
pub fn in_file_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "-_".contains(c) {
            c
        } else {
            '_'
        }
    };
    name.chars().take(40).map(plain).collect()
}

fn write_folder(folder: &Path, pictured: &Pictured) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let before = earlier(folder, "-o")?;
    let examples = &pictured.examples;
    let class = |class: usize| pictured.classes.get(class).map_or("?", String::as_str);
    let name = |row: usize| match pictured.rounded.get(row) {
        Some(found) => format!(
            "{:05}-{}-as-{}.png",
            found.index,
            in_file_name(class(found.label)),
            in_file_name(class(found.rounded.class))
        ),
        None => format!("{:05}.png", examples.indices[row]),
    };
    let mut table = HEADS.into_iter().fold(Table::new(), Table::left);
    let mut written = HashSet::new();
    for row in 0..examples.indices.len() {
        let path = folder.join(name(row));
        write_output(&path, &adversarial_png(examples.image(row), examples.shape))?;
        let known = pictured.rounded.get(row);
        let cell = |value: fn(&Rounded) -> String| known.map_or(String::new(), value);
        let named = |value: fn(&Rounded) -> usize| {
            known.map_or(String::new(), |found| class(value(found)).to_owned())
        };
        table.row([
            name(row),
            examples.indices[row].to_string(),
            named(|found| found.label),
            named(|found| found.predicted.class),
            cell(|found| found.predicted.probability.to_string()),
            named(|found| found.rounded.class),
            cell(|found| found.rounded.probability.to_string()),
            cell(|found| found.fools().to_string()),
            cell(|found| found.distance.to_string()),
            cell(|found| found.inside.to_string()),
        ]);
        written.insert(path);
    }
    write_output(&folder.join(LIST), table.csv().as_bytes())?;
    // Pictures of an earlier call beside these would be taken for some of them.
    for path in before.iter().filter(|path| !written.contains(*path)) {
        fs::remove_file(path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

/// Draws originals, changes and adversarial images side by side.
fn write_sheet(path: &Path, pictured: &Pictured) -> advcl::Result<()> {
    let rows = pictured.examples.indices.len().min(SHEET_ROWS);
    let [channels, height, width] = pictured.examples.shape;
    let column = |values: Vec<f32>| Batch {
        data: values,
        shape: [rows, channels, height, width],
    };
    let pairs: Vec<_> = (0..rows).map(|row| pictured.change(row)).collect();
    let images = (0..rows).flat_map(|row| pictured.examples.image(row).to_vec());
    let [original, change, image] = [
        column(
            pairs
                .iter()
                .flat_map(|(_, original)| original.clone())
                .collect(),
        ),
        column(
            pairs
                .iter()
                .flat_map(|(change, _)| change.clone())
                .collect(),
        ),
        column(images.collect()),
    ];
    let scale = (128 / height.max(width)).clamp(1, 4);
    contact_sheet(&[&original, &change, &image], scale, path)
}
