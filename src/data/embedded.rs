//! The embedded data set: 12,000 images of Fashion-MNIST, so that a first run needs no download.
//! Origin and licence are in `data/fashion-mnist-12k/`.

use std::path::Path;

use super::dataset::Dataset;
use super::idx::{self, Idx};
use crate::error::Result;

/// Name of the data set.
pub(super) const NAME: &str = "fashion-mnist-12k";

const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// One of the four files.
macro_rules! file {
    ($name:literal) => {{
        let content = include_bytes!(concat!("../../data/fashion-mnist-12k/", $name)).as_slice();
        Idx {
            path: Path::new(concat!("fashion-mnist-12k/", $name)),
            content,
            length: content.len() as u64,
        }
    }};
}

/// Loads 10,000 training and 2,000 test images, 28 × 28 pixels, gray.
///
/// # Errors
/// None, unless the program was built from damaged files.
pub(super) fn load() -> Result<Dataset> {
    let classes: Vec<String> = CLASSES.map(String::from).into();
    Ok(Dataset {
        name: NAME.into(),
        train: idx::split(
            file!("train-images-idx3-ubyte.gz"),
            Some(file!("train-labels-idx1-ubyte.gz")),
            &classes,
        )?,
        test: idx::split(
            file!("t10k-images-idx3-ubyte.gz"),
            Some(file!("t10k-labels-idx1-ubyte.gz")),
            &classes,
        )?,
        classes,
        notes: Vec::new(),
        val: None,
        reading: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use crate::data::load;

    #[test]
    fn the_embedded_set_is_balanced_and_of_the_documented_size() {
        let set = load("fashion-mnist-12k").unwrap();
        let images = &set.train.images;
        assert_eq!((images.channels, images.height, images.width), (1, 28, 28));
        assert_eq!(set.train.counts(10), [1000; 10]);
        assert_eq!(set.test.counts(10), [200; 10]);
        assert_eq!(set.classes.len(), 10);
        set.require_labels().unwrap();
    }
}
