//! Confusion of classes: which class is predicted for the images of each.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Numbers of images by true class and predicted class.
///
/// Kept in files as an object for each true class, in label order, from predicted class to images: `[{"0": 9, "2": 1}, …]`.
/// Pairs without images are left out, so that thousands of classes take no more than their images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion(Vec<BTreeMap<usize, usize>>);

impl Confusion {
    /// No images of so many classes.
    pub fn new(classes: usize) -> Self {
        Self(vec![BTreeMap::new(); classes])
    }

    /// Counts an image.
    ///
    /// # Panics
    /// Where the label is not below the number of classes.
    pub fn add(&mut self, label: usize, predicted: usize) {
        *self.0[label].entry(predicted).or_default() += 1;
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.0.len()
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        (0..self.classes()).map(|class| self.of_class(class)).sum()
    }

    /// Number of images of a class.
    pub fn of_class(&self, class: usize) -> usize {
        self.row(class).map(|(_, images)| images).sum()
    }

    /// Number of images of a class for which another, or itself, is predicted.
    pub fn get(&self, class: usize, predicted: usize) -> usize {
        let row = self.0.get(class);
        row.and_then(|row| row.get(&predicted))
            .copied()
            .unwrap_or(0)
    }

    /// Predicted classes of a class's images and their numbers, in label order.
    pub fn row(&self, class: usize) -> impl Iterator<Item = (usize, usize)> {
        let row = self.0.get(class).into_iter().flatten();
        row.map(|(&predicted, &images)| (predicted, images))
    }
}

/// A row as files have it: of this version, or the numbers of all classes as earlier versions wrote them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Sparse(BTreeMap<String, u32>),
    Dense(Vec<u32>),
}

impl<'de> Deserialize<'de> for Confusion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Vec::<Row>::deserialize(deserializer)?;
        let classes = rows.len();
        let row = |row: Row| -> Result<BTreeMap<usize, usize>, D::Error> {
            let named: Vec<(String, u32)> = match row {
                Row::Sparse(row) => row.into_iter().collect(),
                Row::Dense(row) => {
                    let numbered = row.into_iter().enumerate();
                    let numbered = numbered.filter(|(_, images)| *images > 0);
                    numbered
                        .map(|(at, images)| (at.to_string(), images))
                        .collect()
                }
            };
            let entry = |(name, images): (String, u32)| match name.parse() {
                Ok(predicted) if predicted < classes => Ok((predicted, images as usize)),
                _ => Err(D::Error::custom(format!(
                    "expected a predicted class below {classes}, found {name:?}"
                ))),
            };
            named.into_iter().map(entry).collect()
        };
        rows.into_iter()
            .map(row)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_thousand_classes_take_little_room() {
        let mut confusion = Confusion::new(5_000);
        (0..500).for_each(|image| confusion.add(image, (image * 7) % 5_000));
        let text = serde_json::to_string(&confusion).expect("plain values");
        assert!(text.len() < 100_000, "{} bytes", text.len());
        assert_eq!(
            serde_json::from_str::<Confusion>(&text).expect("itself"),
            confusion
        );
        assert_eq!((confusion.images(), confusion.get(3, 21)), (500, 1));
    }

    #[test]
    fn matrices_of_earlier_versions_are_read_and_impossible_ones_refused() {
        let read = |text: &str| serde_json::from_str::<Confusion>(text);
        let mut expected = Confusion::new(2);
        [(0, 0), (0, 1), (0, 1)]
            .into_iter()
            .for_each(|(a, b)| expected.add(a, b));
        assert_eq!(read("[[1, 2], [0, 0]]").expect("an older one"), expected);
        assert_eq!(
            read("[{\"0\": 1, \"1\": 2}, {}]").expect("today's"),
            expected
        );
        for wrong in [
            "[[1, 2]]",
            "[{\"7\": 1}]",
            "[{\"x\": 1}]",
            "[[-1]]",
            "[[99999999999]]",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
