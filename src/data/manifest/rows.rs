//! Rows of a list of images, from CSV or JSON lines.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files;

/// Names of the column of paths; the first one that is there is taken.
const PATH: [&str; 12] = [
    "path",
    "file_name",
    "filename",
    "file_path",
    "filepath",
    "file",
    "image_path",
    "image_file",
    "image_name",
    "image",
    "img_path",
    "img",
];
/// Names of the column of labels.
const LABEL: [&str; 6] = [
    "label",
    "class",
    "target",
    "class_name",
    "label_name",
    "category",
];
/// Names of the column of splits.
const SPLIT: [&str; 4] = ["split", "subset", "set", "partition"];
/// Columns that are named in a message.
const NAMED: usize = 8;
/// Rows that are named in a message, of all that have a fault.
pub(super) const MOST: usize = 5;

/// A row of a list; a text is empty where there is none.
#[derive(Clone)]
pub(super) struct Row {
    /// Line in the file, counted from 1.
    pub(super) line: u64,
    /// Path of the image.
    pub(super) path: String,
    /// Name of the class.
    pub(super) label: String,
    /// Name of the split.
    pub(super) split: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "line {}", self.line),
            path => write!(f, "line {} ({path})", self.line),
        }
    }
}

/// Reads the rows of a list.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for what is neither CSV nor JSON lines, and for a row with more or fewer fields
/// than the header; [`Error::Data`] without a column of paths.
pub(super) fn read(path: &Path) -> Result<Vec<Row>> {
    let text = files::read_text(path)?;
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("jsonl" | "ndjson") => json_lines(path, &text),
        _ => csv(path, &text),
    }
}

/// Columns of a list, by their places or names.
struct Columns<T> {
    path: T,
    label: Option<T>,
    split: Option<T>,
}

impl<T: Clone> Columns<T> {
    /// Finds the columns among names as they are written.
    fn of(path: &Path, names: &[(String, T)]) -> Result<Self> {
        let plain = |name: &str| name.trim().to_lowercase().replace([' ', '-'], "_");
        let find = |known: &[&str]| {
            let mut places = known.iter().filter_map(|known| {
                let mut names = names.iter();
                names.find(|(name, _)| plain(name) == *known)
            });
            places.next().map(|(_, place)| place.clone())
        };
        let Some(paths) = find(&PATH) else {
            let mut found: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
            if found.len() > NAMED {
                found.truncate(NAMED);
                found.push("…");
            }
            return Err(Error::data(
                path.display().to_string(),
                format!(
                    "expected a column of paths (path, file_name, filename, image), found the columns {}",
                    found.join(", ")
                ),
                "name the columns in the first line: path,label,split",
            ));
        };
        Ok(Self {
            path: paths,
            label: find(&LABEL),
            split: find(&SPLIT),
        })
    }
}

fn csv(path: &Path, text: &str) -> Result<Vec<Row>> {
    let broken = |line: u64, error: csv::Error| {
        let expected = "comma-separated values";
        Error::format(path, format!("line {line}"), expected, error.to_string())
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator(text))
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| broken(1, error))?;
    let names = header.iter().enumerate();
    let names: Vec<(String, usize)> = names.map(|(i, name)| (name.to_owned(), i)).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(path, &names)?;
    let (mut rows, mut others, mut other) = (Vec::new(), Vec::new(), 0);
    for record in reader.records() {
        let after = rows.last().map_or(1, |row: &Row| row.line);
        let record = record.map_err(|error| broken(after + 1, error))?;
        let start = record.position();
        // The place before empty lines above the row.
        let line = start.map_or(0, |start| start.line() + line_ends(text, start.byte()));
        if record.len() != names.len() {
            other += 1;
            if other <= MOST {
                others.push(format!("line {line} ({})", record.len()));
            }
        }
        let text = |column: usize| record.get(column).unwrap_or_default().to_owned();
        rows.push(Row {
            line,
            path: text(columns.path),
            label: columns.label.map(text).unwrap_or_default(),
            split: columns.split.map(text).unwrap_or_default(),
        });
    }
    if other == 0 {
        return Ok(rows);
    }
    if other > MOST {
        others.push("…".to_owned());
    }
    Err(Error::data(
        path.display().to_string(),
        format!(
            "expected {} fields in each row, as in the header, found another number in {other} of {} rows: {}",
            names.len(),
            rows.len(),
            others.join(", ")
        ),
        "a field with the separator in it needs quotes",
    ))
}

/// Number of line ends in a row at a byte of a text.
fn line_ends(text: &str, byte: u64) -> u64 {
    let bytes = text.as_bytes().get(byte as usize..).unwrap_or_default();
    let ends = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'));
    ends.filter(|byte| **byte == b'\n').count() as u64
}

/// The separator that is most often in the first line: comma, semicolon or tab.
fn separator(text: &str) -> u8 {
    let first = text.lines().find(|line| !line.trim().is_empty());
    let first = first.unwrap_or_default();
    let count = |mark: u8| first.bytes().filter(|byte| *byte == mark).count();
    // Of equals the last one counts.
    *b"\t;,"
        .iter()
        .max_by_key(|mark| count(**mark))
        .expect("three marks")
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<Row>> {
    let lines = || {
        (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty())
    };
    let object = |line: u64, text: &str| -> Result<Map<String, Value>> {
        serde_json::from_str(text).map_err(|error| {
            Error::format(
                path,
                format!("line {line}"),
                "a JSON object",
                error.to_string(),
            )
        })
    };
    // Read twice, because a row need not have all keys: far less memory than to keep what is not used.
    let mut keys = BTreeSet::new();
    for (line, text) in lines() {
        let new = object(line, text)?.into_iter().map(|(key, _)| key);
        keys.extend(new);
    }
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<(String, String)> = keys.into_iter().map(|key| (key.clone(), key)).collect();
    let columns = Columns::of(path, &names)?;
    let rows = lines().map(|(line, text)| {
        let object = object(line, text)?;
        let text = |key: &String| match object.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.trim().to_owned()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(value) => Err(Error::format(
                path,
                format!("line {line}"),
                format!("one text or number as {key}"),
                if value.is_array() {
                    "a list"
                } else {
                    "an object"
                },
            )),
        };
        let maybe = |key: &Option<String>| key.as_ref().map_or(Ok(String::new()), text);
        Ok(Row {
            line,
            path: text(&columns.path)?,
            label: maybe(&columns.label)?,
            split: maybe(&columns.split)?,
        })
    });
    rows.collect()
}
