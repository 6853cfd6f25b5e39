//! CIFAR-10 and CIFAR-100 in the official binary version, from a folder or the official archive.
//!
//! A record is one label byte (CIFAR-100: two, coarse and fine; the fine one is used) and 3,072
//! bytes: the red, green and blue plane of 32 × 32 pixels, which is `[3, 32, 32]` in memory.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::archive::Store;
use super::class_names::class_names;
use super::dataset::{Dataset, Split};
use super::entry::Entry;
use super::images::Images;
use super::stream::read_error;
use crate::error::{Error, Result};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// Files of CIFAR-10 or CIFAR-100.
struct Version {
    /// Folder of the files in the official archive.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// File with the class names, one per line.
    names: &'static str,
    /// Number of label bytes in a record; the last one is used.
    label_bytes: usize,
    /// Number of classes.
    classes: usize,
}

const VERSIONS: [Version; 2] = [
    Version {
        folder: "cifar-10-batches-bin/",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        names: "batches.meta.txt",
        label_bytes: 1,
        classes: 10,
    },
    Version {
        folder: "cifar-100-binary/",
        train: &["train.bin"],
        test: "test.bin",
        names: "fine_label_names.txt",
        label_bytes: 2,
        classes: 100,
    },
];

/// The version that was found, and its place in the store.
pub(super) struct FoundFiles {
    version: &'static Version,
    /// Prefix of each file name: empty or the official folder.
    prefix: &'static str,
    /// Names of the files that exist, with their index in [`FoundFiles::wanted`].
    files: HashMap<String, usize>,
}

impl FoundFiles {
    /// All file names of a version: training files in order, the test file, the class names.
    fn wanted(version: &'static Version, prefix: &str) -> impl Iterator<Item = String> {
        let names = version.train.iter().chain([&version.test, &version.names]);
        names.map(move |name| format!("{prefix}{name}"))
    }
}

/// Looks for CIFAR-10 and CIFAR-100, at the top level or in their official folders.
///
/// # Errors
/// [`Error::Data`] if there is more than one.
pub(super) fn find(store: &Store, entries: &[Entry]) -> Result<Option<FoundFiles>> {
    let mut found = Vec::new();
    for version in &VERSIONS {
        for prefix in ["", version.folder] {
            let wanted: Vec<String> = FoundFiles::wanted(version, prefix).collect();
            let files: HashMap<String, usize> = entries
                .iter()
                .filter(|entry| !entry.is_folder)
                .filter_map(|entry| {
                    let index = wanted.iter().position(|name| *name == entry.name)?;
                    Some((entry.name.clone(), index))
                })
                .collect();
            if files.keys().any(|name| name.ends_with(".bin")) {
                found.push(FoundFiles {
                    version,
                    prefix,
                    files,
                });
            }
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(Error::data(
            store.path().display().to_string(),
            format!("expected one CIFAR data set, found {}", found.len()),
            "give the folder of one of them",
        )),
    }
}

/// Reads the files of a data set, each with any number of records. There may be no test images; classes are numbers
/// where their names are not there.
///
/// # Errors
/// [`Error::Data`] for a missing file, [`Error::Format`] for part of a record, a file without any, or a label out of
/// range.
pub(super) fn load(store: &Store, found: &FoundFiles) -> Result<Dataset> {
    let version = found.version;
    let wanted: Vec<String> = FoundFiles::wanted(version, found.prefix).collect();
    let training = &wanted[..version.train.len()];
    if let Some(missing) = training
        .iter()
        .find(|name| !found.files.contains_key(*name))
    {
        return Err(Error::data(
            store.path().display().to_string(),
            format!("expected {missing} beside the other CIFAR files, found none"),
            "the official archive of the binary version holds them all",
        ));
    }
    // For error messages.
    let paths: Vec<PathBuf> = wanted.iter().map(|name| store.path().join(name)).collect();
    let mut names = None;
    let mut files: Vec<Option<Records>> = Vec::new();
    files.resize_with(version.train.len() + 1, || None);
    store.read(&found.files, |index, content| {
        let path = &paths[index];
        match files.get_mut(index) {
            Some(file) => *file = Some(Records::read(path.clone(), version.label_bytes, content)?),
            None => names = Some(class_names(path, content)?),
        }
        Ok(())
    })?;
    let test = files.pop().flatten();
    let files: Vec<Records> = files.into_iter().flatten().collect();
    let numbers = || (0..version.classes).map(|label| label.to_string());
    let mut classes = names.clone().unwrap_or_else(|| numbers().collect());
    for file in files.iter().chain(&test) {
        file.check_labels(classes.len())?;
    }
    let (train, test) = (
        join(store, files)?,
        join(store, test.into_iter().collect())?,
    );
    if names.is_none() {
        // Numbers above the largest label are not classes.
        let last = train.labels.iter().chain(&test.labels).max();
        classes.truncate(last.map_or(0, |label| label + 1));
    }
    Ok(Dataset {
        name: store.name(),
        classes,
        train,
        test,
        notes: Vec::new(),
        val: None,
        reading: Default::default(),
    })
}

/// Labels and pixels of one file.
struct Records {
    path: PathBuf,
    labels: Vec<usize>,
    pixels: Vec<u8>,
}

impl Records {
    fn read(path: PathBuf, label_bytes: usize, content: &mut dyn Read) -> Result<Self> {
        let mut content = BufReader::with_capacity(1 << 16, content);
        let size = label_bytes + PIXELS;
        let mut record = Vec::with_capacity(size);
        let (mut labels, mut pixels) = (Vec::new(), Vec::new());
        loop {
            record.clear();
            let place = || format!("record {}", labels.len() + 1);
            let len = content
                .by_ref()
                .take(size as u64)
                .read_to_end(&mut record)
                .map_err(|error| read_error(&path, place(), "a whole record", error))?;
            if len == 0 {
                break;
            }
            if len < size {
                let place = place();
                return Err(Error::format(
                    path,
                    place,
                    format!("{size} bytes"),
                    format!("{len} bytes"),
                ));
            }
            labels.push(usize::from(record[label_bytes - 1]));
            if pixels.try_reserve(PIXELS).is_err() {
                return Err(too_large(&path, labels.len()));
            }
            pixels.extend_from_slice(&record[label_bytes..]);
        }
        if labels.is_empty() {
            return Err(Error::format(path, "content", "records", "an empty file"));
        }
        Ok(Self {
            path,
            labels,
            pixels,
        })
    }

    fn check_labels(&self, classes: usize) -> Result<()> {
        let Some(i) = self.labels.iter().position(|&label| label >= classes) else {
            return Ok(());
        };
        Err(Error::format(
            &self.path,
            format!("record {}", i + 1),
            format!("a label below {classes}, the number of classes"),
            self.labels[i].to_string(),
        ))
    }
}

/// Joins the records of several files. Each file's records are freed as they are copied.
///
/// # Errors
/// [`Error::Data`] where memory does not suffice.
fn join(store: &Store, files: Vec<Records>) -> Result<Split> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let bytes = files.iter().map(|file| file.pixels.len()).sum();
    if pixels.try_reserve_exact(bytes).is_err() {
        return Err(too_large(store.path(), bytes / PIXELS));
    }
    for mut file in files {
        pixels.append(&mut file.pixels);
        labels.append(&mut file.labels);
    }
    Ok(Split {
        images: Images::new(pixels, [3, SIDE, SIDE]),
        labels,
    })
}

fn too_large(path: &Path, images: usize) -> Error {
    Error::data(
        path.display().to_string(),
        format!("expected memory for {images} images of {PIXELS} bytes, found too little"),
        "use fewer images",
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{gzip, load_path, put, refused, tar};
    use super::*;

    fn records(labels: &[&[u8]], fill: u8) -> Vec<u8> {
        let record = |label: &&[u8]| [*label, &[fill; PIXELS]].concat();
        labels.iter().flat_map(record).collect()
    }

    fn cifar10() -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("batches.meta.txt".into(), b"plane\ncar\nbird\n\n".to_vec())];
        for i in (1..=5u8).rev() {
            files.push((format!("data_batch_{i}.bin"), records(&[&[i % 3], &[0]], i)));
        }
        files.push(("test_batch.bin".into(), records(&[&[2], &[0], &[1]], 9)));
        files
    }

    fn write(folder: &Path, files: &[(String, Vec<u8>)]) {
        files
            .iter()
            .for_each(|(name, bytes)| put(folder.join(name), bytes));
    }

    #[test]
    fn cifar10_from_a_folder_its_parent_and_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar-10-batches-bin");
        write(&inner, &cifar10());
        let set = load_path(&inner).unwrap();
        assert_eq!(set.classes, ["plane", "car", "bird"]);
        assert_eq!(set.train.labels, [1, 0, 2, 0, 0, 0, 1, 0, 2, 0]);
        assert_eq!(set.train.images.image(2), [2; PIXELS]);
        assert_eq!(
            (set.test.labels.as_slice(), set.test.images.len()),
            (&[2, 0, 1][..], 3)
        );
        assert_eq!(load_path(dir.path()).unwrap().train, set.train);

        let files = cifar10();
        let names: Vec<String> = files
            .iter()
            .map(|(name, _)| format!("cifar-10-batches-bin/{name}"))
            .collect();
        let members: Vec<(&str, &[u8])> = names
            .iter()
            .zip(&files)
            .map(|(name, (_, bytes))| (name.as_str(), bytes.as_slice()))
            .collect();
        let archive = dir.path().join("cifar-10-binary.tar.gz");
        put(&archive, &gzip(&tar(&members)));
        let packed = load_path(&archive).unwrap();
        assert_eq!((packed.train, packed.test), (set.train, set.test));
        assert_eq!(packed.name, "cifar-10-binary");
    }

    #[test]
    fn cifar100_uses_the_fine_label() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar-100-binary");
        put(inner.join("train.bin"), &records(&[&[19, 1], &[0, 0]], 1));
        put(inner.join("test.bin"), &records(&[&[7, 1], &[3, 0]], 2));
        put(inner.join("fine_label_names.txt"), b"apple\nfish\n");
        put(inner.join("coarse_label_names.txt"), b"fruit\n");
        let set = load_path(dir.path()).unwrap();
        assert_eq!(
            (set.train.labels, set.test.labels),
            (vec![1, 0], vec![1, 0])
        );

        write(&dir.path().join("cifar-10-batches-bin"), &cifar10());
        refused(dir.path(), &["expected one CIFAR data set, found 2"]);
    }

    #[test]
    fn without_test_images_and_without_names() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &cifar10());
        std::fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
        let set = load_path(dir.path()).unwrap();
        assert_eq!((set.train.images.len(), set.test.images.len()), (10, 0));
        assert_eq!(
            set.notes,
            ["no test images (data.test_share keeps some for it)"]
        );
        std::fs::remove_file(dir.path().join("batches.meta.txt")).unwrap();
        assert_eq!(load_path(dir.path()).unwrap().classes, ["0", "1", "2"]);
    }

    #[test]
    fn truncated_out_of_range_missing_and_empty() {
        let at = |name: &str, bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), &cifar10());
            put(dir.path().join(name), bytes);
            dir
        };
        let cut = at("data_batch_3.bin", &records(&[&[0], &[0]], 0)[..5000]);
        refused(
            cut.path(),
            &["data_batch_3.bin: record 2: expected 3073 bytes, found 1927 bytes"],
        );
        let label = at("test_batch.bin", &records(&[&[0], &[3]], 0));
        refused(
            label.path(),
            &[
                "test_batch.bin: record 2: expected a label below 3",
                "found 3",
            ],
        );
        let empty = at("test_batch.bin", &[]);
        refused(empty.path(), &["test_batch.bin", "found an empty file"]);
        let names = at("batches.meta.txt", &[0xff]);
        refused(
            names.path(),
            &["batches.meta.txt: text: expected class names in UTF-8"],
        );
        let missing = at("x", &[]);
        std::fs::remove_file(missing.path().join("data_batch_4.bin")).unwrap();
        refused(
            missing.path(),
            &["expected data_batch_4.bin", "official archive"],
        );
    }
}
