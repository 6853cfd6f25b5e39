//! WebDataset: images and their labels side by side in tar archives, one or many.
//!
//! Members with the same key are one sample; the key is the path up to the first dot of the file's name. The label is
//! in `KEY.cls` (a number, or the name of a class) or in `KEY.json` (the field `label`, `cls` or `class`).
//! <https://github.com/webdataset/webdataset>

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::archive::Store;
use super::class_names::class_names;
use super::entry::Entry;
use super::filename::is_junk;
use super::labels::{Label, Sample, Splits, layout, require_split, split_of};
use super::layout::Layout;
use super::stream::{read_at_most, read_error};
use crate::error::{Error, Result};
use crate::files;

/// Largest file of a label in bytes.
const MAX_LABEL: u64 = 1 << 20;
/// Longest name of a class in bytes.
const MAX_NAME: usize = 1 << 10;
/// Files of class names beside the archives, or in the one archive: one a line, or JSON.
const NAME_FILES: [&str; 5] = [
    "classes.txt",
    "classnames.txt",
    "class_names.txt",
    "meta.json",
    "dataset_info.json",
];
/// Fields of a JSON file that hold the label.
const LABEL_FIELDS: [&str; 3] = ["label", "cls", "class"];

/// Archives that were found.
pub(super) struct Shards {
    shards: Vec<Shard>,
    /// Names of the classes that numbers stand for.
    names: Option<Vec<String>>,
}

/// One archive.
struct Shard {
    /// Name in the folder; empty for an archive that is the whole set.
    name: String,
    /// The archive, if it is not the whole set.
    store: Option<Store>,
    samples: Vec<Found>,
    /// Samples without an image.
    imageless: usize,
}

/// A sample of an archive.
struct Found {
    /// Name of the image in the archive.
    image: String,
    label: Option<Label>,
}

impl Shard {
    fn store<'a>(&'a self, set: &'a Store) -> &'a Store {
        self.store.as_ref().unwrap_or(set)
    }

    fn split(&self, image: &str) -> Option<&'static str> {
        // The word of a file's name is part of its key.
        let folder = image.rsplit_once('/').map_or("", |(folder, _)| folder);
        split_of(&self.name).or_else(|| split_of(&format!("{folder}/")))
    }
}

/// Looks for samples in a tar archive, or in the archives of a folder that holds no images.
///
/// # Errors
/// [`Error::Io`]; those of archives.
pub(super) fn find(store: &Store, entries: &[Entry]) -> Result<Option<Shards>> {
    let wanted = |entry: &&Entry| !entry.is_folder && !is_junk(&entry.name);
    let files = || entries.iter().filter(wanted);
    if store.is_tar() {
        let shard = Shard {
            name: String::new(),
            store: None,
            ..read_shard(store, entries)?
        };
        let mut found = Shards {
            shards: vec![shard],
            names: None,
        };
        if !found.has_labels() {
            return Ok(None);
        }
        found.names = names_in_archive(store, entries)?;
        return Ok(Some(found));
    }
    if !store.is_folder() || files().any(|entry| entry.is_image) {
        return Ok(None);
    }
    let mut archives: Vec<&Entry> = files().filter(|entry| is_tar(&entry.name)).collect();
    archives.sort_by(|a, b| a.name.cmp(&b.name));
    let mut shards = Vec::new();
    for archive in archives {
        let mut shard_store = Store::archive(&store.path_of(&archive.name))?;
        let members = shard_store.list()?;
        shards.push(Shard {
            name: archive.name.clone(),
            ..read_shard(&shard_store, &members)?
        });
        if let Some(shard) = shards.last_mut() {
            shard.store = Some(shard_store);
        }
    }
    let names = names_in_folder(store, entries)?;
    let found = Shards { shards, names };
    // One archive of another kind is better given itself.
    let is_set = found.has_labels() || found.shards.len() > 1;
    Ok(is_set.then_some(found))
}

impl Shards {
    fn has_labels(&self) -> bool {
        let mut samples = self.shards.iter().flat_map(|shard| &shard.samples);
        samples.any(|sample| sample.label.is_some())
    }
}

/// Splits and classes of all samples. They are sorted by class, then by archive and name.
///
/// # Errors
/// [`Error::Data`] for an archive without images, and for a mixture of images with and without labels.
pub(super) fn open(set: Store, found: Shards) -> Result<(Store, Layout)> {
    let source = set.path().display().to_string();
    let mut splits = Splits::new();
    let mut notes = Vec::new();
    let mut imageless = 0;
    let in_shard = |shard: &Shard, image: &str| match shard.name.as_str() {
        "" => image.to_owned(),
        name => format!("{name}/{image}"),
    };
    let has_splits = found.shards.iter().any(|shard| {
        let mut samples = shard.samples.iter();
        samples.any(|sample| shard.split(&sample.image).is_some())
    });
    for shard in &found.shards {
        if shard.samples.is_empty() {
            return Err(Error::data(
                shard.store(&set).path().display().to_string(),
                "expected images in each archive of the folder, found none",
                "unpack it, or give the archive itself",
            ));
        }
        if shard.store.is_some() {
            let own = shard.store(&set).notes();
            notes.extend(own.iter().map(|note| format!("{}: {note}", shard.name)));
        }
        imageless += shard.imageless;
        for sample in &shard.samples {
            let name = in_shard(shard, &sample.image);
            let split = shard.split(&sample.image);
            let split = require_split(&source, &name, split, has_splits)?;
            let label = sample.label.clone();
            splits
                .entry(split)
                .or_default()
                .push(Sample { name, label });
        }
    }
    if !found.has_labels() {
        notes.push(format!(
            "{} archives without labels (KEY.cls, KEY.json): the images are taken without labels",
            found.shards.len()
        ));
    }
    if imageless > 0 {
        notes.push(format!("samples without an image: {imageless}, left out"));
    }
    let mut layout = layout(&source, splits, found.names.as_deref())?;
    notes.append(&mut layout.notes);
    layout.notes = notes;
    let shards = found.shards.into_iter();
    let shards = shards.filter_map(|shard| Some((shard.name, shard.store?)));
    let shards: BTreeMap<String, Store> = shards.collect();
    let store = match shards.is_empty() {
        true => set,
        false => Store::shards(set.path(), shards),
    };
    Ok((store, layout))
}

/// Whether a file is called like a tar archive.
fn is_tar(name: &str) -> bool {
    let name = name.to_lowercase();
    let mut extensions = [".tar", ".tar.gz", ".tgz"].into_iter();
    extensions.any(|extension| name.ends_with(extension))
}

/// Key and extension of a member: `a/b` and `seg.png` of `a/b.seg.png`.
fn key_of(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, ""),
    }
}

/// Members of one key.
#[derive(Default)]
struct Members<'a> {
    images: Vec<&'a str>,
    cls: Option<&'a str>,
    json: Option<&'a str>,
}

/// Puts the members of an archive together into samples, sorted by key, and reads their labels.
fn read_shard(store: &Store, entries: &[Entry]) -> Result<Shard> {
    let mut keys: BTreeMap<&str, Members> = BTreeMap::new();
    for entry in entries {
        if entry.is_folder || is_junk(&entry.name) {
            continue;
        }
        let (key, extension) = key_of(&entry.name);
        let members = keys.entry(key).or_default();
        match extension.to_lowercase().as_str() {
            "cls" => members.cls = Some(&entry.name),
            "json" => members.json = Some(&entry.name),
            _ if entry.is_image => members.images.push(&entry.name),
            _ => {}
        }
    }
    let mut shard = Shard {
        name: String::new(),
        store: None,
        samples: Vec::new(),
        imageless: 0,
    };
    let mut wanted = HashMap::new();
    for mut members in keys.into_values() {
        let label = members.cls.or(members.json);
        if members.images.len() > 1 {
            // `KEY.jpg` is the image; `KEY.mask.png` belongs to it.
            members.images.retain(|name| !key_of(name).1.contains('.'));
        }
        if let Some(label) = label {
            match members.images.is_empty() {
                true => shard.imageless += 1,
                // One image has one label: others of the sample are refused as images without.
                false => drop(wanted.insert(label.to_owned(), shard.samples.len())),
            }
        }
        let found = |image: &&str| Found {
            image: (*image).to_owned(),
            label: None,
        };
        shard.samples.extend(members.images.iter().map(found));
    }
    if !wanted.is_empty() {
        let names: HashMap<usize, String> = wanted.iter().map(|(n, &i)| (i, n.clone())).collect();
        store.read(&wanted, |sample, content| {
            let name = &names[&sample];
            shard.samples[sample].label = read_label(&store.path_of(name), content)?;
            Ok(())
        })?;
    }
    Ok(shard)
}

/// Label in a `.cls` or `.json` file; none where there is none in it.
fn read_label(path: &Path, content: &mut dyn Read) -> Result<Option<Label>> {
    let bytes = read_at_most(content, MAX_LABEL)
        .map_err(|error| read_error(path, "label", "a whole file", error))?;
    let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return Ok(None);
    };
    let is_cls = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("cls"));
    let label = match is_cls {
        true => Label::parse(&text),
        false => serde_json::from_str(&text)
            .ok()
            .and_then(|json| label_in(&json)),
    };
    Ok(label.filter(|label| !matches!(label, Label::Text(text) if text.len() > MAX_NAME)))
}

/// Label in the fields of a JSON object.
fn label_in(json: &Value) -> Option<Label> {
    LABEL_FIELDS
        .iter()
        .find_map(|field| match json.get(field)? {
            Value::Number(number) => number.as_u64().map(Label::Number),
            Value::String(text) => Label::parse(text),
            _ => None,
        })
}

/// Class names in a file of the folder itself.
fn names_in_folder(store: &Store, entries: &[Entry]) -> Result<Option<Vec<String>>> {
    for known in NAME_FILES {
        if entries.iter().any(|entry| entry.name == known) {
            let path = store.path_of(known);
            let names = names_in(&path, &mut files::open(&path)?)?;
            if names.is_some() {
                return Ok(names);
            }
        }
    }
    Ok(None)
}

/// Class names in a member at the top of the archive.
fn names_in_archive(store: &Store, entries: &[Entry]) -> Result<Option<Vec<String>>> {
    let known = |name: &&str| entries.iter().any(|entry| entry.name == **name);
    let wanted = NAME_FILES.iter().copied().filter(known);
    let wanted: HashMap<String, usize> = wanted.map(str::to_owned).zip(0..).collect();
    let mut found = None;
    if !wanted.is_empty() {
        store.read(&wanted, |_, content| {
            let names = names_in(store.path(), content)?;
            found = found.take().or(names);
            Ok(())
        })?;
    }
    Ok(found)
}

/// Class names in a text: one a line, a JSON list, or a JSON object with such a list.
fn names_in(path: &Path, content: &mut dyn Read) -> Result<Option<Vec<String>>> {
    let mut bytes = Vec::new();
    content
        .take(MAX_LABEL + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| read_error(path, "class names", "a whole file", error))?;
    let is_json = bytes
        .trim_ascii_start()
        .first()
        .is_some_and(|c| b"[{".contains(c));
    if !is_json {
        return class_names(path, &mut bytes.as_slice()).map(Some);
    }
    let json: Option<Value> = serde_json::from_slice(&bytes).ok();
    Ok(json.and_then(|json| {
        let fields = ["classes", "class_names", "classnames", "names", "labels"];
        let lists = fields.iter().filter_map(|field| json.get(field));
        let list = lists.chain([&json]).find_map(Value::as_array)?;
        let name = |name: &Value| name.as_str().map(str::to_owned);
        list.iter().map(name).collect()
    }))
}

#[cfg(test)]
mod tests;
