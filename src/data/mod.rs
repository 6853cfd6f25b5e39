//! Data sets: images in memory, their splits, and the formats that they are read from.
//!
//! [`load`] takes the name of an embedded data set or a path, and detects the format by content.
//! The result is a [`Dataset`] of bytes, whatever the format. Each format has a file of its own.

mod archive;
mod arrived;
pub mod augment;
mod block;
mod cache;
mod cifar;
mod class_names;
pub mod contact_sheet;
pub mod corrupt;
mod dataset;
mod decode;
mod embedded;
mod entry;
mod filename;
mod files;
mod fingerprint;
mod fit;
#[cfg(test)]
mod fixtures;
mod folder;
mod folders;
mod hugging_face;
mod idx;
mod images;
mod labels;
mod layout;
mod listing;
mod loading;
mod manifest;
mod npz;
mod own_output;
mod png;
mod reading;
mod sample;
mod scan;
mod stamp;
mod stl10;
mod stream;
mod tar_members;
mod tarball;
mod tiff;
mod twins;
mod walk;
mod webdataset;
mod webp;
mod zip_members;

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result, nearest};
pub use crate::tensor::Batch;
use archive::Store;
use cache::Slot;
pub use cache::{CachedFile, cached_files, remove_cached};
pub use class_names::{class_list, class_name, read_class_names};
pub(crate) use dataset::TEST_ALONE;
pub use dataset::{Dataset, Split};
pub use decode::MAX_SIDE;
pub use filename::names_a_set;
pub use files::{ReadImages, image_files, read_images};
pub use fingerprint::SplitFingerprint;
pub use fit::{Fit, Interpolation};
use folder::Loaded;
pub use folder::joint_hint;
pub use images::Images;
use layout::Layout;
pub use loading::{Cache, Decoded, LARGE, Loading, choose_loading};
pub use own_output::{is_adversarial_picture, is_own_page, is_own_picture};
pub use png::{adversarial_png, picture_png};
use reading::Wanted;
pub use reading::{Channels, Damaged, Reading, Size};
pub use scan::{Fault, FoundSize, Repeat, Repeats, SPLITS, Scan};

/// Names of the data sets that are part of the program, as [`load`] takes them.
pub const EMBEDDED: &[&str] = &[embedded::NAME];

/// Loads a data set as it is; see [`load_as`].
///
/// # Errors
/// Those of [`load_as`].
pub fn load(source: &str) -> Result<Dataset> {
    load_as(source, &Reading::default(), Damaged::Refuse)
}

/// Loads a data set: an embedded one by its name (see [`EMBEDDED`]), or one of these at a path
/// (`./name` for a path that is called like an embedded data set):
/// - IDX files as of MNIST, plain or gzip: a folder with them, or one around it;
/// - CIFAR-10 or CIFAR-100 in the official binary version, STL-10 in its own: a folder or a tar archive;
/// - NumPy's `.npz` as of MedMNIST or Keras (bytes, `n × height × width` or `× 3`), or a folder with one;
/// - a list of images, one a row with its label and split: `.csv`, `.tsv`, or `.jsonl`;
/// - images (PNG, JPEG, WebP, BMP, TIFF, GIF) in `train/<class>/`, with or without `test/<class>/` (`val/`,
///   `valid/`, `validation/`), in class folders alone, or, unlabeled, in any other tree; a folder, a tar archive or a
///   zip archive;
/// - WebDataset: a tar archive, or a folder of them (`train-000000.tar`, `train/000000.tar`), of images with their labels in
///   `KEY.cls` or `KEY.json`, or without labels; class names in `classes.txt` beside them;
/// - where the feature `parquet` is on: Parquet files in Hugging Face's form, one or a folder of them
///   (`train-00000-of-00001.parquet`, also in `data/`).
///
/// All of them may be without labels or without test images.
///
/// A tar archive may be gzip-compressed; nothing is unpacked to disk. Files that this program wrote
/// into the folder (contact sheets, reports, weights, run folders) are not read as data, nor are files that are no
/// images. Links count as the files that they lead to, also inside an archive; what leads outside or nowhere is left
/// out. [`Dataset::notes`] says so, and what was converted.
///
/// `reading` says what becomes of images of several sizes and kinds, `damaged` of those that cannot be read.
///
/// # Errors
/// [`Error::Data`] for an unknown name or an unusable data set, [`Error::Format`] for a damaged
/// file, [`Error::Io`] if a file cannot be read.
pub fn load_as(source: &str, reading: &Reading, damaged: Damaged) -> Result<Dataset> {
    read(source, Wanted::Labels, reading, damaged)
}

/// Loads more images for pretraining: the training images of a data set without their labels; of STL-10 the unlabeled
/// ones. Otherwise as [`load_as`].
///
/// # Errors
/// Those of [`load_as`].
pub fn load_unlabeled(source: &str, reading: &Reading, damaged: Damaged) -> Result<Dataset> {
    read(source, Wanted::Images, reading, damaged)
}

fn read(source: &str, wanted: Wanted, reading: &Reading, damaged: Damaged) -> Result<Dataset> {
    let path = Path::new(source);
    let find = |stamp: &dyn Fn() -> Option<String>| {
        let stamp = || Some(format!("{wanted:?} {}", stamp()?));
        Slot::find(path, reading, damaged, stamp)
    };
    // An archive is known by its own length and time: the cache has it without a look inside.
    let mut slot = match filename::is_list(source) {
        true => None,
        false => find(&|| stamp::of_archive(path)),
    };
    if let Some(kept) = slot.as_ref().and_then(Slot::load) {
        return Ok(kept);
    }
    let (store, layout) = match open(source, wanted, reading, damaged)? {
        Opened::Read(dataset) => return dataset.checked(),
        Opened::Files(store, layout) => (store, layout),
    };
    if slot.is_none() {
        slot = find(&|| stamp::of_files(&layout, |name| store.file_of(name)));
        if let Some(kept) = slot.as_ref().and_then(Slot::load) {
            return Ok(kept);
        }
    }
    let (mut dataset, part) = match folder::load(&store, layout, reading, damaged, slot.as_ref())? {
        Loaded::Decoded(dataset, part) => (dataset, part),
        Loaded::Kept(dataset) => return Ok(dataset),
    };
    dataset.notes.splice(..0, store.notes());
    let mut dataset = dataset.checked()?;
    if let Some(part) = part {
        let note = match part.finish(&dataset) {
            Ok(file) => {
                let file = file.display();
                format!("decoded images are kept in {file} (`advcl cache clear` removes it)")
            }
            Err(error) => format!("decoded images are kept in no file: {error}"),
        };
        dataset.notes.push(note);
    }
    Ok(dataset)
}

/// Looks at a data set as [`load_as`] would read it, without keeping its pixels. Images of several sizes, and images that
/// cannot be read, are listed.
///
/// # Errors
/// Those of [`load_as`] that no image alone causes; where no image can be read, the fault of the first.
pub fn scan(source: &str, reading: &Reading) -> Result<Scan> {
    match open(source, Wanted::Labels, reading, Damaged::Skip)? {
        Opened::Read(dataset) => {
            dataset.check()?;
            Ok(scan::dataset(&dataset))
        }
        Opened::Files(store, layout) => {
            let mut scan = scan::files(&store, layout, reading)?;
            scan.notes.splice(..0, store.notes());
            Ok(scan)
        }
    }
}

/// A data set of a known format.
enum Opened {
    /// Read, because its images are no files.
    Read(Dataset),
    /// Listed image files.
    Files(Store, Layout),
}

/// Finds the format of a data set, and reads it where its images are no files.
fn open(source: &str, wanted: Wanted, reading: &Reading, damaged: Damaged) -> Result<Opened> {
    let whole = |dataset: Dataset| {
        let dataset = match wanted {
            Wanted::Labels => dataset.with_notes_of_splits(),
            Wanted::Images => dataset.ignoring_labels(),
        };
        Ok(Opened::Read(dataset.read_as(reading)))
    };
    let of_wanted = |layout: Layout| match wanted {
        Wanted::Labels => layout,
        Wanted::Images => layout.without_labels(),
    };
    if source == embedded::NAME {
        return whole(embedded::load()?);
    }
    let path = Path::new(source);
    let mut store = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Store::folder(path),
        Ok(meta) if meta.is_file() => {
            if filename::is_list(source) {
                let (store, layout) = manifest::open(path, wanted, damaged)?;
                return Ok(Opened::Files(store, layout));
            }
            if npz::is_named_like_one(path) {
                return whole(npz::load(path)?);
            }
            if stl10::is_named_like_unlabeled(path) {
                let dataset = stl10::load_unlabeled(path, reading)?;
                return Ok(Opened::Read(dataset));
            }
            if let Some(found) = hugging_face::find_file(path)? {
                let (files, layout) = hugging_face::open(found)?;
                return Ok(Opened::Files(Store::tables(files), of_wanted(layout)));
            }
            Store::archive(path)?
        }
        Ok(_) => {
            return Err(Error::data(
                source,
                "expected a file or a folder, found something else",
                "give a folder, a tar archive or a zip archive",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = nearest(source, EMBEDDED.iter().copied());
            return Err(Error::data(
                source,
                "expected the name of an embedded data set or an existing path, found neither",
                format!("{hint}; or check the path"),
            ));
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let entries = store.list()?;
    let tables = store
        .is_folder()
        .then(|| hugging_face::find(path, &entries, |name| store.path_of(name)))
        .flatten();
    let (idx, cifar) = (idx::find(&store, &entries)?, cifar::find(&store, &entries)?);
    let stl10 = stl10::find(&store, &entries)?;
    let there = [
        ("IDX files", idx.is_some()),
        ("CIFAR", cifar.is_some()),
        ("STL-10", stl10.is_some()),
    ];
    let there: Vec<&str> = there
        .iter()
        .filter(|kind| kind.1)
        .map(|kind| kind.0)
        .collect();
    if there.len() > 1 {
        let problem = format!("expected one data set, found {}", there.join(" and "));
        return Err(Error::data(
            source,
            problem,
            "give the folder of one of them",
        ));
    }
    let opened = if let Some(folder) = idx {
        whole(idx::load(&store, &folder)?)?
    } else if let Some(found) = cifar {
        whole(cifar::load(&store, &found)?)?
    } else if let Some(found) = stl10 {
        Opened::Read(stl10::load(&store, &found, wanted, reading)?)
    } else if let Some(file) = npz::find(&store, &entries) {
        whole(npz::load(&file)?)?
    } else if let Some(found) = tables {
        let (files, layout) = hugging_face::open(found)?;
        return Ok(Opened::Files(Store::tables(files), of_wanted(layout)));
    } else if let Some(found) = webdataset::find(&store, &entries)? {
        let (store, layout) = webdataset::open(store, found)?;
        return Ok(Opened::Files(store, of_wanted(layout)));
    } else {
        let layout = Layout::of(&store.path().display().to_string(), entries)?;
        return Ok(Opened::Files(store, of_wanted(layout)));
    };
    let Opened::Read(mut dataset) = opened else {
        return Ok(opened);
    };
    dataset.notes.splice(..0, store.notes());
    Ok(Opened::Read(dataset))
}

#[cfg(test)]
mod tests {
    use super::fixtures::{gray_png, put, zip};
    use super::*;

    #[test]
    fn a_look_lists_a_member_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.zip");
        let image = gray_png(2, 2, 0);
        let mut archive = zip(&[("a.png", &image), ("b.png", &image)]);
        // In the content of the first member, behind its header and name.
        archive[30 + "a.png".len() + 20] ^= 0x10;
        put(&path, &archive);
        let found = scan(path.to_str().unwrap(), &Reading::default()).unwrap();
        assert_eq!((found.total(), found.faults.len()), (1, 1));
        assert_eq!(found.faults[0].image, path.join("a.png"));
    }

    #[test]
    fn an_unknown_name_is_an_error_with_the_nearest() {
        let error = load("fashion-mnist").unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("did you mean \"fashion-mnist-12k\"?"),
            "{hint}"
        );
        assert!(matches!(load("").unwrap_err(), Error::Data { .. }));
    }
}
