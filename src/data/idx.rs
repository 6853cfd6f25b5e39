//! IDX, the format of MNIST and similar data sets: up to four files, plain or gzip, with their official
//! names.
//!
//! A file has a big-endian header (magic number, then one u32 per dimension) and unsigned bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::archive::Store;
use super::class_names::{CLASS_FILE, class_names_beside};
use super::dataset::{Dataset, Split, TEST_ALONE};
use super::entry::Entry;
use super::folders::folder_of;
use super::images::Images;
use super::stream::{gunzip, is_gzip, read_error};
use crate::error::{Error, Result};
use crate::files;

/// Magic number of images: unsigned bytes in three dimensions.
const IMAGES: u32 = 0x0000_0803;
/// Magic number of labels: unsigned bytes in one dimension.
const LABELS: u32 = 0x0000_0801;
/// Most bytes that a byte of gzip stands for: the limit of its format, 258 bytes in two bits, and some more.
const MAX_RATIO: u64 = 1040;
/// Most bytes after the last value that are counted.
const MAX_REST: u64 = 1 << 20;

/// Accepted names of a file: with a hyphen or a dot, plain or gzip.
fn spellings(split: &str, kind: &str) -> [String; 4] {
    let (stem, digit) = match kind {
        "images" => ("images", 3),
        _ => ("labels", 1),
    };
    let [hyphen, dot] = ["-", "."].map(|mark| format!("{split}-{stem}{mark}idx{digit}-ubyte"));
    [hyphen.clone(), dot.clone(), hyphen + ".gz", dot + ".gz"]
}

/// Folder of IDX files: the store itself or, where there are no images in it, one below it; none in archives.
///
/// # Errors
/// [`Error::Data`] for several such folders.
pub(super) fn find(store: &Store, entries: &[Entry]) -> Result<Option<String>> {
    let known = |name: &str| {
        let spelled =
            |split: &str, kind: &str| spellings(split, kind).iter().any(|known| known == name);
        let split = |split: &&str| spelled(split, "images") || spelled(split, "labels");
        ["train", "t10k"].iter().any(split)
    };
    if !store.is_folder() {
        return Ok(None);
    }
    folder_of(store.path(), "IDX", entries, known)
}

/// Reads the files of a folder: images with or without labels, with or without those of the test split, and the
/// class names in `classes.txt`. Without that file the classes are called "0" to "9" at most, up to the largest
/// label in use.
///
/// # Errors
/// [`Error::Data`] for a missing file or a label without a class, [`Error::Format`] for a damaged
/// file.
pub(super) fn load(store: &Store, folder: &str) -> Result<Dataset> {
    let folder = store.path().join(folder);
    let listed = class_names_beside(&folder)?;
    let digits = || (0..10).map(|label| label.to_string()).collect();
    let mut classes = listed.clone().unwrap_or_else(digits);
    let there = |split: &str, kind: &str| find_file(&folder, split, kind);
    let has = |split: &str| there(split, "images").is_some() || there(split, "labels").is_some();
    // Images for tests and nothing else are what there is to evaluate on.
    let alone = has("t10k") && !has("train");
    let first = if alone { "t10k" } else { "train" };
    let labeled = there(first, "labels").is_some();
    let read = |split: &str| -> Result<Split> {
        let (images, labels) = (require(&folder, split, "images")?, there(split, "labels"));
        if labeled != labels.is_some() {
            require(&folder, first, "labels")?;
            require(&folder, split, "labels")?;
        }
        let labels = labels.as_deref().map(Idx::open).transpose()?;
        self::split(Idx::open(&images)?, labels, &classes)
    };
    let train = read(first)?;
    // A file of labels alone is a mistake.
    let test = match has("t10k") && !alone {
        true => read("t10k")?,
        false => train.select(&[]),
    };
    if listed.is_none() {
        // Digits above the largest label are not classes.
        let last = train.labels.iter().chain(&test.labels).max();
        classes.truncate(last.map_or(0, |label| label + 1));
    }
    if !labeled {
        classes.clear();
    }
    Ok(Dataset {
        name: store.name(),
        train,
        test,
        classes,
        notes: alone.then(|| TEST_ALONE.to_owned()).into_iter().collect(),
        val: None,
        reading: Default::default(),
    })
}

/// Reads one split from its file of images, and that of labels where there is one.
///
/// # Errors
/// See [`load`].
pub(super) fn split<R: BufRead, L: BufRead>(
    images: Idx<'_, R>,
    labels: Option<Idx<'_, L>>,
    classes: &[String],
) -> Result<Split> {
    let images = images.header::<3>(IMAGES)?;
    let [len, height, width] = images.sizes;
    let labels = labels.map(|labels| labels.header::<1>(LABELS));
    let labels = labels.transpose()?;
    if let Some(labels) = labels.as_ref().filter(|labels| labels.sizes != [len]) {
        return Err(Error::format(
            labels.path,
            "header, byte 4",
            format!("{len} labels, one per image"),
            labels.sizes[0].to_string(),
        ));
    }
    let pixels = images.values()?;
    let labels_path = labels.as_ref().map_or(Path::new(""), |labels| labels.path);
    let bytes = labels.map(Values::values).transpose()?.unwrap_or_default();
    let labels_read: Vec<usize> = bytes.into_iter().map(usize::from).collect();
    if let Some(i) = labels_read.iter().position(|&label| label >= classes.len()) {
        return Err(Error::data(
            labels_path.display().to_string(),
            format!(
                "label {}: expected a class from 0 to {}, found {}",
                i + 1,
                classes.len() - 1,
                labels_read[i]
            ),
            format!("list all class names in {CLASS_FILE} beside it, one per line"),
        ));
    }
    Ok(Split {
        images: Images::new(pixels, [1, height, width]),
        labels: labels_read,
    })
}

/// An IDX file.
pub(super) struct Idx<'a, R> {
    /// Name for messages.
    pub(super) path: &'a Path,
    /// Bytes of the file.
    pub(super) content: R,
    /// Number of bytes in the file.
    pub(super) length: u64,
}

impl<'a> Idx<'a, BufReader<File>> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for anything but a regular file.
    fn open(path: &'a Path) -> Result<Self> {
        let file = files::open(path)?;
        let about = file.metadata().map_err(Error::io("read", path))?;
        Ok(Self {
            path,
            content: BufReader::new(file),
            length: about.len(),
        })
    }
}

/// Values of an IDX file whose header was read.
struct Values<'a, const D: usize> {
    path: &'a Path,
    sizes: [usize; D],
    total: usize,
    content: Box<dyn Read + 'a>,
}

impl<'a, R: BufRead + 'a> Idx<'a, R> {
    /// Reads the header of a file with `D` dimensions, and holds the sizes in it against the file's length.
    fn header<const D: usize>(mut self, magic: u32) -> Result<Values<'a, D>> {
        let path = self.path;
        let bad = |place: String, expected: String, found: String| {
            Err(Error::format(path, place, expected, found))
        };
        let failed = |error| read_error(path, "compressed data", "a whole gzip stream", error);
        let compressed = is_gzip(self.content.fill_buf().map_err(failed)?);
        let mut content = gunzip(self.content).map_err(failed)?;
        let mut header = Vec::new();
        let header_len = 4 * (D + 1);
        content
            .by_ref()
            .take(header_len as u64)
            .read_to_end(&mut header)
            .map_err(failed)?;
        if header.len() < header_len {
            return bad(
                "header".into(),
                format!("{header_len} bytes"),
                format!("{} bytes", header.len()),
            );
        }
        let word = |i: usize| u32::from_be_bytes([0, 1, 2, 3].map(|k| header[4 * i + k]));
        if word(0) != magic {
            let expected = format!("magic number {magic:#010x}");
            return bad(
                "header, byte 0".into(),
                expected,
                format!("{:#010x}", word(0)),
            );
        }
        let mut sizes = [0; D];
        let mut total = Some(1usize);
        for (i, size) in sizes.iter_mut().enumerate() {
            *size = word(i + 1) as usize;
            if *size == 0 {
                return bad(
                    format!("header, byte {}", 4 * (i + 1)),
                    "a size of at least 1".into(),
                    "0".into(),
                );
            }
            total = total.and_then(|total| total.checked_mul(*size));
        }
        let Some(total) = total.filter(|&total| total < isize::MAX as usize) else {
            return bad(
                "header, byte 4".into(),
                "sizes that fit in memory".into(),
                product(&sizes),
            );
        };
        let expected = || format!("{total} bytes ({})", product(&sizes));
        let place = || format!("data from byte {header_len}");
        let most = self.length.saturating_mul(MAX_RATIO);
        if compressed && total as u64 > most {
            let found = format!("{most} at most in {} bytes of gzip", self.length);
            return bad(place(), expected(), found);
        }
        let there = self.length.saturating_sub(header_len as u64);
        if !compressed && total as u64 != there {
            return bad(place(), expected(), format!("{there} bytes"));
        }
        Ok(Values {
            path,
            sizes,
            total,
            content,
        })
    }
}

/// Sizes as a product: "60000 × 28 × 28".
fn product(sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    sizes.join(" × ")
}

impl<const D: usize> Values<'_, D> {
    /// Reads the values, of which there must be as many as the header says.
    fn values(mut self) -> Result<Vec<u8>> {
        let (path, total) = (self.path, self.total);
        let failed = |error| read_error(path, "compressed data", "a whole gzip stream", error);
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(total).is_err() {
            return Err(Error::data(
                path.display().to_string(),
                format!("expected memory for {total} bytes, found too little"),
                "use fewer images",
            ));
        }
        self.content
            .by_ref()
            .take(total as u64)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        // Also reads what follows: trailing bytes, and gzip's checksum.
        let mut rest = self.content.take(MAX_REST);
        let rest = io::copy(&mut rest, &mut io::sink()).map_err(failed)?;
        let found = bytes.len() as u64 + rest;
        if found == total as u64 {
            return Ok(bytes);
        }
        let header_len = 4 * (D + 1);
        let more = if rest < MAX_REST { "" } else { " or more" };
        Err(Error::format(
            path,
            format!("data from byte {header_len}"),
            format!("{total} bytes ({})", product(&self.sizes)),
            format!("{found} bytes{more}"),
        ))
    }
}

/// Path of a file in one of its spellings.
fn find_file(folder: &Path, split: &str, kind: &str) -> Option<PathBuf> {
    let paths = spellings(split, kind).map(|name| folder.join(name));
    paths.into_iter().find(|path| path.is_file())
}

/// Path of a file that has to be there.
fn require(folder: &Path, split: &str, kind: &str) -> Result<PathBuf> {
    find_file(folder, split, kind).ok_or_else(|| {
        let names = spellings(split, kind);
        Error::data(
            folder.display().to_string(),
            format!("expected {} or {}, found neither", names[0], names[2]),
            "IDX files: images of train, also of t10k where there are test images, and labels for both or none",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fixtures::{gzip, load_path, put, refused};
    use super::*;

    fn idx(magic: u32, sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = magic.to_be_bytes().to_vec();
        sizes
            .iter()
            .for_each(|size| file.extend(size.to_be_bytes()));
        file.extend(bytes);
        file
    }

    /// Two training and two test images of 1 × 2 pixels, in every spelling that is allowed.
    fn good() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        put(
            at("train-images-idx3-ubyte.gz"),
            &gzip(&idx(IMAGES, &[2, 1, 2], &[1, 2, 3, 4])),
        );
        put(at("train-labels-idx1-ubyte"), &idx(LABELS, &[2], &[1, 0]));
        put(
            at("t10k-images.idx3-ubyte"),
            &idx(IMAGES, &[2, 1, 2], &[5, 6, 7, 8]),
        );
        put(
            at("t10k-labels.idx1-ubyte.gz"),
            &gzip(&idx(LABELS, &[2], &[1, 0])),
        );
        dir
    }

    #[test]
    fn plain_and_gzip_hyphen_and_dot() {
        let dir = good();
        let set = load_path(dir.path()).unwrap();
        assert_eq!(set.train.images.pixels(), [1, 2, 3, 4]);
        assert_eq!(
            (set.train.labels, set.test.labels),
            (vec![1, 0], vec![1, 0])
        );
        assert_eq!(set.classes, ["0", "1"]);
        put(dir.path().join("classes.txt"), b"a\r\n\n j k \n");
        assert_eq!(load_path(dir.path()).unwrap().classes, ["a", "j k"]);
    }

    #[test]
    fn folders_above_missing_splits_and_missing_labels() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("data/MNIST/raw");
        let images = |name: &str| put(raw.join(name), &idx(IMAGES, &[2, 1, 2], &[1, 2, 3, 4]));
        let labels = |name: &str| put(raw.join(name), &idx(LABELS, &[2], &[1, 0]));
        images("train-images-idx3-ubyte");
        for above in ["data/MNIST/raw", "data/MNIST", "data", "."] {
            let set = load_path(&dir.path().join(above)).unwrap();
            assert_eq!(set.train.images.pixels(), [1, 2, 3, 4], "{above}");
            assert!(set.classes.is_empty() && set.train.labels.is_empty());
            assert_eq!((set.test.images.len(), set.notes), (0, vec![]));
        }
        labels("train-labels-idx1-ubyte");
        let set = load_path(dir.path()).unwrap();
        assert_eq!((set.train.labels, set.classes.len()), (vec![1, 0], 2));
        assert_eq!(
            set.notes,
            ["no test images (data.test_share keeps some for it)"]
        );
        // Test images need labels where training images have them.
        images("t10k-images-idx3-ubyte");
        refused(dir.path(), &["expected t10k-labels-idx1-ubyte or"]);
        labels("t10k-labels-idx1-ubyte");
        assert_eq!(load_path(dir.path()).unwrap().test.labels, [1, 0]);
        let train_labels = raw.join("train-labels-idx1-ubyte");
        fs::remove_file(train_labels).unwrap();
        refused(dir.path(), &["expected train-labels-idx1-ubyte or"]);
        // Two data sets below one folder.
        put(
            dir.path().join("data/KMNIST/raw/train-images-idx3-ubyte"),
            b"",
        );
        refused(
            &dir.path().join("data"),
            &["found 2: KMNIST/raw/, MNIST/raw/"],
        );
    }

    #[test]
    fn a_damaged_file_says_where() {
        let cases: [(&str, Vec<u8>, &[&str]); 11] = [
            // Neither claims memory for what cannot be there.
            (
                "train-images-idx3-ubyte.gz",
                gzip(&idx(IMAGES, &[1 << 20, 1 << 10, 1 << 10], &[])),
                &["expected 1099511627776 bytes", "at most in"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                gzip(&idx(IMAGES, &[2, 1, 2], &[1; 2 << 20])),
                &["expected 4 bytes", "found 1048580 bytes or more"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                gzip(&idx(LABELS, &[2, 1, 2], &[1; 4])),
                &["byte 0: expected magic number 0x00000803, found 0x00000801"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                gzip(&idx(IMAGES, &[2, 1, 2], &[1; 3])),
                &["data from byte 16: expected 4 bytes (2 × 1 × 2), found 3 bytes"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                gzip(&idx(IMAGES, &[2, 1, 2], &[1; 7])),
                &["expected 4 bytes", "found 7 bytes"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                gzip(&[0, 0, 8]),
                &["header: expected 16 bytes, found 3 bytes"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                idx(IMAGES, &[u32::MAX; 3], &[]),
                &["sizes that fit in memory"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                idx(IMAGES, &[u32::MAX, 1 << 20, 1], &[0; 9]),
                &["found 9 bytes"],
            ),
            (
                "train-images-idx3-ubyte.gz",
                idx(IMAGES, &[2, 0, 2], &[]),
                &["byte 8: expected a size of at least 1, found 0"],
            ),
            (
                "train-labels-idx1-ubyte",
                idx(LABELS, &[3], &[0; 3]),
                &["byte 4: expected 2 labels, one per image, found 3"],
            ),
            (
                "train-labels-idx1-ubyte",
                idx(LABELS, &[2], &[0, 10]),
                &[
                    "label 2: expected a class from 0 to 9, found 10",
                    "classes.txt",
                ],
            ),
        ];
        for (name, bytes, words) in cases {
            let dir = good();
            put(dir.path().join(name), &bytes);
            refused(dir.path(), &[words, &[name]].concat());
        }
    }

    #[test]
    fn a_gzip_stream_cut_anywhere_is_an_error() {
        let dir = good();
        let path = dir.path().join("t10k-labels.idx1-ubyte.gz");
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            put(&path, &whole[..len]);
            assert!(
                matches!(load_path(dir.path()), Err(Error::Format { .. })),
                "{len}"
            );
        }
    }

    #[test]
    fn a_missing_file_and_empty_class_names_are_errors() {
        let dir = good();
        put(dir.path().join("classes.txt"), b" \n");
        refused(dir.path(), &["one class name per line"]);
        put(dir.path().join("classes.txt"), &[0xff]);
        refused(dir.path(), &["UTF-8"]);
        fs::remove_file(dir.path().join("classes.txt")).unwrap();
        fs::remove_file(dir.path().join("t10k-labels.idx1-ubyte.gz")).unwrap();
        refused(
            dir.path(),
            &[
                "expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz",
                "labels for both or none",
            ],
        );
    }
}
