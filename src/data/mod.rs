//! Images in memory, splits, and the formats that they are read from.
//!
//! [`load`] takes the name of the embedded set or a path and finds out the format by content: one file
//! here a format. Whatever the format, the result is a [`Dataset`] of bytes.

mod archive;
pub mod augment;
mod cifar;
pub mod corrupt;
mod decode;
mod embedded;
mod filename;
mod files;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod folder;
mod idx;
pub mod inspect;
mod layout;
mod sample;

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result, nearest};
pub use crate::tensor::Batch;
use archive::Store;
pub use files::read_images;
pub use fingerprint::SplitFingerprint;

/// The names of the data sets inside the program, as [`load`] takes them.
pub const EMBEDDED: &[&str] = &[embedded::NAME];

/// Images of one size, kept as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `[len, channels, height, width]`, one byte a value, row-major.
    pub pixels: Vec<u8>,
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
}

/// Images and, where they are known, their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The images.
    pub images: Images,
    /// One class index an image; empty where the images are unlabeled.
    pub labels: Vec<usize>,
}

/// A data set: its classes and its two splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// How messages and model files call it.
    pub name: String,
    /// Class names in label order; empty where the images are unlabeled.
    pub classes: Vec<String>,
    /// For training.
    pub train: Split,
    /// For the final figures only; empty (zero images) for a flat folder.
    pub test: Split,
}

impl Images {
    /// How many images.
    pub fn len(&self) -> usize {
        // Sizes of zero never come from `load`, but the fields are public.
        self.pixels.len().checked_div(self.image_len()).unwrap_or(0)
    }

    /// Whether there is no image at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values an image: channels × height × width.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Image `i` as `[channels, height, width]`, row-major.
    ///
    /// # Panics
    /// Where `i` is not below [`Images::len`].
    pub fn image(&self, i: usize) -> &[u8] {
        let len = self.image_len();
        &self.pixels[i * len..][..len]
    }

    /// The images at `indices`, in that order; an index may come more than once.
    ///
    /// # Panics
    /// Where an index is not below [`Images::len`].
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_len());
        for &i in indices {
            pixels.extend_from_slice(self.image(i));
        }
        Self { pixels, ..*self }
    }

    /// Gray images as colour ones, all channels alike; colour images as gray ones, by their luma.
    ///
    /// # Panics
    /// For anything but 1 and 3 channels.
    pub fn with_channels(&self, channels: usize) -> Self {
        let plane = self.height * self.width;
        let mut pixels = Vec::with_capacity(self.len() * channels * plane);
        for image in (0..self.len()).map(|i| self.image(i)) {
            match (self.channels, channels) {
                (1, 3) => pixels.extend(image.repeat(3)),
                (3, 1) => pixels.extend((0..plane).map(|p| {
                    let value = |channel: usize| f32::from(image[channel * plane + p]);
                    augment::luma([value(0), value(1), value(2)]).round() as u8
                })),
                (found, wanted) if found == wanted => pixels.extend_from_slice(image),
                (found, wanted) => panic!("cannot make {wanted} channels of {found}"),
            }
        }
        Self {
            pixels,
            channels,
            ..*self
        }
    }

    /// The images at `indices` as `[indices.len(), channels, height, width]`, each byte divided by 255.
    ///
    /// # Panics
    /// Where an index is not below [`Images::len`].
    pub fn batch(&self, indices: &[usize]) -> Batch {
        let mut data = Vec::with_capacity(indices.len() * self.image_len());
        for &i in indices {
            data.extend(self.image(i).iter().map(|&byte| f32::from(byte) / 255.0));
        }
        Batch {
            data,
            shape: [indices.len(), self.channels, self.height, self.width],
        }
    }
}

impl Split {
    /// Images and labels at `indices`, in that order; an unlabeled split stays unlabeled.
    ///
    /// # Panics
    /// Where an index is not below the number of images.
    pub fn select(&self, indices: &[usize]) -> Self {
        let labels = match self.labels.is_empty() {
            true => Vec::new(),
            false => indices.iter().map(|&i| self.labels[i]).collect(),
        };
        Self {
            images: self.images.select(indices),
            labels,
        }
    }
}

impl Dataset {
    /// Refuses unlabeled images and images of one class: for the stages that need classes.
    ///
    /// # Errors
    /// [`Error::Data`] where the data set has fewer than two classes.
    pub fn require_labels(&self) -> Result<()> {
        let problem = match self.classes.as_slice() {
            [] => "expected labeled images, found images without classes".to_owned(),
            // Whatever is said would be right, and robust.
            [only] => format!("expected two classes or more, found {only:?} alone"),
            _ => return Ok(()),
        };
        Err(Error::data(
            &self.name,
            problem,
            "put the images into train/<class>/ and test/<class>/; without labels only pretraining by methods that need none is possible",
        ))
    }

    /// Refuses images (`what`: "training", "test") among which a class has none: for the stages that need classes.
    ///
    /// # Errors
    /// [`Error::Data`] naming the class.
    pub fn require_every_class(&self, split: &Split, what: &str) -> Result<()> {
        let counts = inspect::counts(split, self.classes.len());
        let Some(empty) = counts.iter().position(|&count| count == 0) else {
            return Ok(());
        };
        let problem = format!("class {:?} has no {what} images", self.classes[empty]);
        let hint =
            "add some, or leave the class out; a limit or a share held out may leave none too";
        Err(Error::data(&self.name, problem, hint))
    }

    /// What must hold whatever the format: something to train on, something to test on where there are
    /// labels, some of each class, and images of one shape.
    fn checked(self) -> Result<Self> {
        for (split, name) in [(&self.train, "training"), (&self.test, "test")] {
            if split.images.is_empty() && (name == "training" || !self.classes.is_empty()) {
                let problem = format!("expected {name} images, found none");
                return Err(Error::data(&self.name, problem, "check its files"));
            }
        }
        for (split, name) in [(&self.train, "training"), (&self.test, "test")] {
            self.require_every_class(split, name)?;
        }
        let shape = |images: &Images| [images.channels, images.height, images.width];
        let (train, test) = (shape(&self.train.images), shape(&self.test.images));
        if train != test {
            return Err(Error::data(
                &self.name,
                format!(
                    "expected one shape [channels, height, width], found {train:?} in the training images and {test:?} in the test images"
                ),
                "resize or convert one of the two",
            ));
        }
        Ok(self)
    }
}

/// Loads the embedded set of that name (see [`EMBEDDED`]; `./name` is the path of the same name), or what
/// stands at a path:
/// - a folder with the four IDX files of MNIST, plain or gzip;
/// - CIFAR-10 or CIFAR-100 in the official binary version, a folder or a tar archive;
/// - PNG and JPEG images in `train/<class>/` and `test/<class>/` (`val/` or `valid/` where there is no
///   `test/`), or, unlabeled, in one flat folder; a folder or a tar archive.
///
/// A tar archive may be gzip-compressed; nothing of it is unpacked to disk. Formats are told by content.
///
/// # Errors
/// [`Error::Data`] for an unknown name or a data set that cannot be used, [`Error::Format`] for a damaged
/// file, [`Error::Io`] where the system refuses.
pub fn load(source: &str) -> Result<Dataset> {
    if source == embedded::NAME {
        return embedded::load()?.checked();
    }
    let path = Path::new(source);
    let store = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Store::folder(path),
        Ok(meta) if meta.is_file() => Store::tar(path)?,
        Ok(_) => {
            return Err(Error::data(
                source,
                "expected a file or a folder, found something else",
                "give a folder or a tar archive",
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
    let dataset = if idx::matches(&store, &entries) {
        idx::load(&store)?
    } else if let Some(found) = cifar::find(&store, &entries)? {
        cifar::load(&store, &found)?
    } else {
        folder::load(&store, entries)?
    };
    dataset.checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        Images {
            pixels: (0..12).map(|i| i * 20).collect(),
            channels: 1,
            height: 2,
            width: 2,
        }
    }

    #[test]
    fn select_and_batch_keep_the_order_asked_for() {
        let images = images();
        assert_eq!((images.len(), images.image_len()), (3, 4));
        assert_eq!(images.image(1), [80, 100, 120, 140]);
        assert_eq!(
            images.select(&[2, 0]).pixels,
            [160, 180, 200, 220, 0, 20, 40, 60]
        );
        let batch = images.batch(&[1]);
        assert_eq!(batch.shape, [1, 1, 2, 2]);
        assert_eq!(batch.data[1], 100.0 / 255.0);
        let split = Split {
            images,
            labels: vec![7, 8, 9],
        };
        assert_eq!(split.select(&[2, 0]).labels, [9, 7]);
    }

    #[test]
    fn gray_becomes_colour_and_colour_its_luma() {
        let gray = images();
        let colour = gray.with_channels(3);
        assert_eq!((colour.len(), colour.channels), (3, 3));
        assert_eq!(colour.image(1), [[80, 100, 120, 140]; 3].concat());
        assert_eq!(colour.with_channels(1), gray);
        assert_eq!(gray.with_channels(1), gray);
        assert_eq!(colour.with_channels(3), colour);
        // Red, green, blue and white of 200, by the weights of ITU-R 601.
        let pixels = [[200, 0, 0, 200], [0, 200, 0, 200], [0, 0, 200, 200]].concat();
        let colour = Images {
            pixels,
            channels: 3,
            ..gray
        };
        assert_eq!(colour.with_channels(1).pixels, [60, 117, 23, 200]);
    }

    #[test]
    fn an_image_of_no_size_is_no_image() {
        let images = Images {
            pixels: vec![],
            channels: 1,
            height: 0,
            width: 0,
        };
        assert!(images.is_empty());
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

    #[test]
    fn a_class_without_images_is_refused_by_name() {
        let split = |labels: [usize; 3]| Split {
            images: images(),
            labels: labels.to_vec(),
        };
        for (train, test, words) in [
            ([0, 1, 0], [0, 1, 1], None),
            ([0, 0, 0], [0, 1, 1], Some("\"dog\" has no training images")),
            ([0, 1, 0], [1, 1, 1], Some("\"cat\" has no test images")),
        ] {
            let dataset = Dataset {
                name: "x".into(),
                classes: vec!["cat".into(), "dog".into()],
                train: split(train),
                test: split(test),
            };
            match (dataset.checked(), words) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => {
                    assert!(error.to_string().contains(words), "{error}")
                }
                (outcome, words) => panic!("{words:?}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn train_and_test_of_different_shapes_are_refused() {
        let split = Split {
            images: images(),
            labels: vec![0; 3],
        };
        let mut test = split.clone();
        test.images.width = 4;
        test.images.height = 1;
        let dataset = Dataset {
            name: "x".into(),
            classes: vec!["a".into()],
            train: split,
            test,
        };
        let error = dataset.checked().unwrap_err().to_string();
        assert!(
            error.contains("[1, 2, 2]") && error.contains("[1, 1, 4]"),
            "{error}"
        );
    }
}
