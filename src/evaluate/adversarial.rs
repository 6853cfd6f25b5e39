//! Adversarial examples in a file: the evidence for a robust accuracy, which anyone can check without repeating the attack.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::attack::{Ball, Norm};
use crate::data::{Images, Split};
use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::nn::FrozenClassifier;
use crate::session::Context;
use crate::tensor::to_vec;

/// How far beyond ball or box a value may lie by rounding to f32.
const ROUNDING: f64 = 1e-5;

const INDICES: &str = "indices";
const IMAGES: &str = "images";
const METADATA: &str = "advcl_adversarial";

/// Images that a classifier gets wrong, each near one that it gets right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adversarial {
    /// Which images of the split they are near, in rising order where attacks wrote them.
    pub indices: Vec<usize>,
    /// `[images, channels, height, width]`, pixels in [0, 1].
    pub images: Vec<f32>,
    /// Channels, height, width.
    pub shape: [usize; 3],
}

/// What the file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The classifier: METHOD/MODE.
    pub classifier: String,
    /// How distance is measured.
    pub norm: Norm,
    /// ε, in pixels of [0, 1].
    pub radius: f64,
    /// Which images of the split were judged.
    pub among: Vec<usize>,
    /// All that the examples depend on, as TOML.
    pub recipe: String,
    /// Anything else, as a piece of unfinished work needs it.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

impl Adversarial {
    /// None yet, of images of that shape (channels, height, width).
    pub fn of_shape(shape: [usize; 3]) -> Self {
        Self {
            shape,
            ..Self::default()
        }
    }

    /// Values of an image.
    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Takes those of `other` too.
    pub fn extend(&mut self, other: Self) {
        self.indices.extend(other.indices);
        self.images.extend(other.images);
    }

    /// Brings them into the order of their indices.
    pub fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.indices.len()).collect();
        order.sort_by_key(|&at| self.indices[at]);
        let size = self.size();
        let image = |&at: &usize| self.images[at * size..(at + 1) * size].iter().copied();
        self.images = order.iter().flat_map(image).collect();
        self.indices = order.iter().map(|&at| self.indices[at]).collect();
    }

    /// How many are not where an attack may put them; `originals` are all images of the split.
    pub fn outside(&self, ball: Ball, originals: &Images) -> usize {
        let images = self.images.chunks(self.size().max(1));
        let pairs = self.indices.iter().zip(images);
        let outside = pairs.filter(|(index, image)| {
            **index >= originals.len() || !inside(ball, image, &originals.batch(&[**index]).data)
        });
        outside.count()
    }

    /// Writes them as safetensors: `indices` (int64) and `images` (float32).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path, about: &About) -> Result<()> {
        let indices: Vec<u8> = self
            .indices
            .iter()
            .flat_map(|&i| (i as i64).to_le_bytes())
            .collect();
        let images: Vec<u8> = self.images.iter().flat_map(|v| v.to_le_bytes()).collect();
        let [channels, height, width] = self.shape;
        let count = self.indices.len();
        let whole = "as many bytes as the shape says";
        let tensors = [
            (
                INDICES,
                TensorView::new(Dtype::I64, vec![count], &indices).expect(whole),
            ),
            (
                IMAGES,
                TensorView::new(Dtype::F32, vec![count, channels, height, width], &images)
                    .expect(whole),
            ),
        ];
        let about = serde_json::to_string(about).expect("plain values");
        let metadata = HashMap::from([(METADATA.to_owned(), about)]);
        let content =
            safetensors::serialize(tensors, Some(metadata)).map_err(|error| Error::Io {
                action: "write",
                path: path.to_path_buf(),
                source: std::io::Error::other(error),
            })?;
        write_atomic(path, &content)
    }

    /// Reads what [`Adversarial::save`] wrote, strictly.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for anything that is not such a file, or is one in part.
    pub fn load(path: &Path) -> Result<(Self, About)> {
        let content = std::fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |place: &str, expected: &str, found: String| {
            Error::format(path, place, expected, found)
        };
        let complete = "a complete safetensors file";
        let (_, header) = SafeTensors::read_metadata(&content)
            .map_err(|error| wrong("header", complete, error.to_string()))?;
        let file = SafeTensors::deserialize(&content)
            .map_err(|error| wrong("header", complete, error.to_string()))?;
        let metadata = header.metadata().as_ref();
        let about = metadata.and_then(|all| all.get(METADATA)).ok_or_else(|| {
            let expected = "adversarial examples that advcl wrote";
            wrong(&format!("metadata {METADATA}"), expected, "none".to_owned())
        })?;
        let about: About = serde_json::from_str(about).map_err(|error| {
            let expected = "a description that this version understands";
            wrong(&format!("metadata {METADATA}"), expected, error.to_string())
        })?;
        let tensor = |name: &str, dtype: Dtype| {
            let found = file.tensor(name);
            let found = found.map_err(|_| {
                let place = format!("tensor {name}");
                wrong(&place, "to be there", "none of that name".to_owned())
            })?;
            if found.dtype() != dtype {
                let place = format!("tensor {name}");
                let kind = format!("{:?}", found.dtype());
                return Err(wrong(&place, &format!("{dtype:?}"), kind));
            }
            Ok(found)
        };
        let indices = tensor(INDICES, Dtype::I64)?;
        let images = tensor(IMAGES, Dtype::F32)?;
        let (bytes, _) = indices.data().as_chunks::<8>();
        let index = |bytes: &[u8; 8]| {
            let value = i64::from_le_bytes(*bytes);
            usize::try_from(value)
                .map_err(|_| wrong("tensor indices", "numbers from 0", value.to_string()))
        };
        let indices: Vec<usize> = bytes.iter().map(index).collect::<Result<_>>()?;
        let &[count, channels, height, width] = images.shape() else {
            let found = format!("{:?}", images.shape());
            let expected = "[images, channels, height, width]";
            return Err(wrong("tensor images", expected, found));
        };
        if count != indices.len() {
            let expected = format!("{} images, one an index", indices.len());
            return Err(wrong("tensor images", &expected, count.to_string()));
        }
        let (bytes, _) = images.data().as_chunks::<4>();
        let examples = Self {
            indices,
            images: bytes.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            shape: [channels, height, width],
        };
        Ok((examples, about))
    }
}

/// What a check of stored adversarial examples comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The classifier: METHOD/MODE.
    pub classifier: String,
    /// How distance is measured.
    pub norm: Norm,
    /// ε by which they were checked, the recipe's, in pixels of [0, 1].
    pub radius: f64,
    /// Images that classifiers are judged by.
    pub images: usize,
    /// Of these, classified correctly as they are.
    pub clean: usize,
    /// Adversarial examples in the file.
    pub examples: usize,
    /// Of these, with every pixel in [0, 1].
    pub in_box: usize,
    /// Of these, inside the ball around their image.
    pub in_ball: usize,
    /// The largest distance found.
    pub farthest: f64,
    /// Examples that are misclassified while their image is not.
    pub fooled: usize,
    /// Examples that are all of this.
    pub valid: usize,
    /// Share of all images that is classified correctly and has no valid example against it: robust accuracy is no more.
    pub robust_accuracy: f64,
}

impl Verification {
    /// Whether every example is what it should be.
    pub fn holds(&self) -> bool {
        self.valid == self.examples
    }
}

/// Holds stored examples against the images that they are near and the classifier that they shall fool.
///
/// # Errors
/// [`Error::Format`] for examples that are of other images: another size, an index out of range or twice;
/// [`Error::Interrupted`].
pub fn verify(
    (path, examples, about): (&Path, &Adversarial, &About),
    classifier: &FrozenClassifier,
    split: &Split,
    ball: Ball,
    batch_size: usize,
    context: &mut Context,
) -> Result<Verification> {
    let images = &split.images;
    let expected = [images.channels, images.height, images.width];
    if examples.shape != expected {
        let (expected, found) = (format!("{expected:?}"), format!("{:?}", examples.shape));
        let place = "tensor images, [channels, height, width]";
        return Err(Error::format(path, place, expected, found));
    }
    let mut seen = vec![false; images.len()];
    for &index in &examples.indices {
        if index >= images.len() {
            let expected = format!("indices below {}", images.len());
            let found = index.to_string();
            return Err(Error::format(path, "tensor indices", expected, found));
        }
        if std::mem::replace(&mut seen[index], true) {
            let found = format!("{index} twice");
            return Err(Error::format(
                path,
                "tensor indices",
                "each image once",
                found,
            ));
        }
    }
    let stage = format!("{}/verify", about.classifier);
    if let Some(index) = about.among.iter().find(|&&index| index >= images.len()) {
        let expected = format!("indices below {}", images.len());
        return Err(Error::format(
            path,
            "the judged images",
            expected,
            index.to_string(),
        ));
    }
    let judged = about.among.len();
    let mut right = vec![false; images.len()];
    let total = judged + examples.indices.len();
    for (number, indices) in about.among.chunks(batch_size).enumerate() {
        let batch = crate::tensor::to_tensor(images.batch(indices), &context.device);
        let said = crate::logits::classes_said(&stage, indices, classifier.logits(batch))?;
        for (&index, class) in indices.iter().zip(said) {
            right[index] = class == split.labels[index];
        }
        let done = number * batch_size + indices.len();
        context.progress(&stage, done, total, "images")?;
    }
    let clean = right.iter().filter(|&&right| right).count();
    let mut found = Verification {
        classifier: about.classifier.clone(),
        norm: ball.norm,
        radius: ball.radius,
        images: judged,
        clean,
        examples: examples.indices.len(),
        in_box: 0,
        in_ball: 0,
        farthest: 0.0,
        fooled: 0,
        valid: 0,
        robust_accuracy: 0.0,
    };
    let size = examples.size();
    for (number, indices) in examples.indices.chunks(batch_size).enumerate() {
        let first = number * batch_size;
        let values = &examples.images[first * size..(first + indices.len()) * size];
        let originals = images.batch(indices);
        let data = TensorData::new(values.to_vec(), originals.shape);
        let batch = Tensor::from_data(data, &context.device);
        let logits = classifier.logits(batch);
        let said = super::predictions(logits.clone());
        let classes = logits.dims()[1];
        let logits = to_vec(logits);
        for (row, (&index, class)) in indices.iter().zip(said).enumerate() {
            let (own, original) = (
                &values[row * size..(row + 1) * size],
                &originals.data[row * size..(row + 1) * size],
            );
            let in_box = own.iter().all(|v| (0.0..=1.0).contains(v));
            // An example that is not finite is in no box, and no fault of the classifier.
            if in_box {
                super::require_finite(&stage, index, &logits[row * classes..][..classes])?;
            }
            let distance = distance(ball.norm, own, original);
            let in_ball = distance <= ball.radius * (1.0 + ROUNDING) + f64::from(f32::EPSILON);
            let fooled = in_box && right[index] && class != split.labels[index];
            found.in_box += usize::from(in_box);
            found.in_ball += usize::from(in_ball);
            found.farthest = found.farthest.max(distance);
            found.fooled += usize::from(fooled);
            found.valid += usize::from(in_box && in_ball && fooled);
        }
        context.progress(
            &stage,
            images.len() + first + indices.len(),
            total,
            "images",
        )?;
    }
    found.robust_accuracy = (clean - found.valid) as f64 / judged as f64;
    Ok(found)
}

/// How far apart two images are; infinite where a value is not finite.
fn distance(norm: Norm, a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b));
    let distance = match norm {
        Norm::Linf => differences.fold(0.0, |far: f64, d| match d.is_nan() {
            true => f64::INFINITY,
            false => far.max(d.abs()),
        }),
        Norm::L2 => differences.map(|d| d * d).sum::<f64>().sqrt(),
    };
    match distance.is_nan() {
        true => f64::INFINITY,
        false => distance,
    }
}

/// Whether all of `images` are where an attack may put them: for the attacks' own results.
pub fn inside(ball: Ball, image: &[f32], original: &[f32]) -> bool {
    let in_box = image.iter().all(|v| (0.0..=1.0).contains(v));
    let limit = ball.radius * (1.0 + ROUNDING) + f64::from(f32::EPSILON);
    in_box && distance(ball.norm, image, original) <= limit
}
