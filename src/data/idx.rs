//! IDX, the format of MNIST and similar data sets: four files, plain or gzip, with their official
//! names.
//!
//! A file has a big-endian header (magic number, then one u32 per dimension) and unsigned bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::archive::Store;
use super::dataset::{Dataset, Split};
use super::entry::Entry;
use super::images::Images;
use super::stream::{self, gunzip, is_gzip, read_error};
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
/// File of class names, one per line; not one of the official files.
const CLASS_FILE: &str = "classes.txt";

/// Accepted names of a file: with a hyphen or a dot, plain or gzip.
fn spellings(split: &str, kind: &str) -> [String; 4] {
    let (stem, digit) = match kind {
        "images" => ("images", 3),
        _ => ("labels", 1),
    };
    let [hyphen, dot] = ["-", "."].map(|mark| format!("{split}-{stem}{mark}idx{digit}-ubyte"));
    [hyphen.clone(), dot.clone(), hyphen + ".gz", dot + ".gz"]
}

/// Whether a folder holds any of the four files.
pub(super) fn matches(store: &Store, entries: &[Entry]) -> bool {
    let known = |name: &String| {
        ["train", "t10k"].iter().any(|split| {
            spellings(split, "images").contains(name) || spellings(split, "labels").contains(name)
        })
    };
    !store.is_tar()
        && entries
            .iter()
            .any(|entry| !entry.is_folder && known(&entry.name))
}

/// Reads the four files of a folder, and the class names in `classes.txt`. Without that file the
/// classes are called "0" to "9" at most, up to the largest label in use.
///
/// # Errors
/// [`Error::Data`] for a missing file or a label without a class, [`Error::Format`] for a damaged
/// file.
pub(super) fn load(store: &Store) -> Result<Dataset> {
    let classes = class_names(store.path())?;
    let read = |split: &str| -> Result<Split> {
        let (images, labels) = (find(store, split, "images")?, find(store, split, "labels")?);
        self::split(Idx::open(&images)?, Idx::open(&labels)?, &classes)
    };
    let (train, test) = (read("train")?, read("t10k")?);
    let mut classes = classes.clone();
    if !store.path().join(CLASS_FILE).exists() {
        // Digits above the largest label are not classes.
        let last = train.labels.iter().chain(&test.labels).max();
        classes.truncate(last.map_or(0, |label| label + 1));
    }
    Ok(Dataset {
        name: store.name(),
        train,
        test,
        classes,
        notes: Vec::new(),
        val: None,
        reading: Default::default(),
    })
}

/// Reads one split from its two files.
///
/// # Errors
/// See [`load`].
pub(super) fn split<R: BufRead, L: BufRead>(
    images: Idx<'_, R>,
    labels: Idx<'_, L>,
    classes: &[String],
) -> Result<Split> {
    let (images, labels) = (images.header::<3>(IMAGES)?, labels.header::<1>(LABELS)?);
    let labels_path = labels.path;
    let ([len, height, width], [label_len]) = (images.sizes, labels.sizes);
    if label_len != len {
        return Err(Error::format(
            labels_path,
            "header, byte 4",
            format!("{len} labels, one per image"),
            label_len.to_string(),
        ));
    }
    let (pixels, bytes) = (images.values()?, labels.values()?);
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

fn find(store: &Store, split: &str, kind: &str) -> Result<PathBuf> {
    let names = spellings(split, kind);
    let found = names
        .iter()
        .map(|name| store.path().join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::data(
            store.path().display().to_string(),
            format!("expected {} or {}, found neither", names[0], names[2]),
            "all four IDX files are needed: train and t10k, images and labels",
        )
    })
}

fn class_names(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(CLASS_FILE);
    if !path.exists() {
        return Ok((0..10).map(|label| label.to_string()).collect());
    }
    let names = stream::class_names(&path, files::open(&path)?)?;
    if names.is_empty() {
        let expected = "one class name per line";
        return Err(Error::format(path, "text", expected, "no names"));
    }
    Ok(names)
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
                "all four",
            ],
        );
    }
}
