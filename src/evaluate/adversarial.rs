//! Adversarial examples in a file: the evidence for a robust accuracy, which anyone can check without repeating the attack.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::{Evaluator, StageProgress};
use crate::attack::{Ball, Norm, in_box};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::files::{self, write_atomic};
use crate::logits::{LogitRows, require_finite};
use crate::ranks;
use crate::session::Context;
use crate::weights;

const INDICES: &str = "indices";
const IMAGES: &str = "images";
const METADATA: &str = "advcl_adversarial";

/// Adversarial examples: images that a classifier misclassifies, each near one that it classifies correctly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adversarial {
    /// Index in the split of each example's original, in rising order where attacks wrote them.
    pub indices: Vec<usize>,
    /// Pixels in [0, 1], `[images, channels, height, width]`.
    pub images: Vec<f32>,
    /// Channels, height, width.
    pub shape: [usize; 3],
}

/// Description that a file of adversarial examples carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExamplesInfo {
    /// The classifier: METHOD/MODE.
    pub classifier: String,
    /// Norm of the threat model.
    pub norm: Norm,
    /// Radius ε, in pixels of [0, 1].
    pub radius: f64,
    /// Indices in the split of the images that were evaluated.
    pub among: Vec<usize>,
    /// Everything that the examples depend on, as TOML.
    pub recipe: String,
    /// The batch, where the examples are those of a single one of an unfinished run.
    #[serde(flatten)]
    pub batch: Option<BatchInfo>,
}

/// A finished batch of an unfinished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchInfo {
    /// Indices of the images that were attacked.
    pub tried: Vec<usize>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Adversarial {
    /// No examples yet, for images of this shape (channels, height, width).
    pub fn of_shape(shape: [usize; 3]) -> Self {
        Self {
            shape,
            ..Self::default()
        }
    }

    /// Number of values of an image.
    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Values of one example.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn image(&self, row: usize) -> &[f32] {
        &self.images[row * self.size()..][..self.size()]
    }

    /// Appends the examples of `other`.
    pub fn extend(&mut self, other: Self) {
        self.indices.extend(other.indices);
        self.images.extend(other.images);
    }

    /// The examples of all ranks.
    pub(super) fn of_all_ranks(self) -> Self {
        Self {
            indices: ranks::gather_each("indices", self.indices).concat(),
            images: ranks::gather("examples", &self.images),
            ..self
        }
    }

    /// Sorts the examples by index.
    pub fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.indices.len()).collect();
        order.sort_by_key(|&at| self.indices[at]);
        let size = self.size();
        let image = |&at: &usize| self.images[at * size..(at + 1) * size].iter().copied();
        self.images = order.iter().flat_map(image).collect();
        self.indices = order.iter().map(|&at| self.indices[at]).collect();
    }

    /// Number of examples outside of the ball around their original or of [0, 1]; `originals` are all images of the split.
    pub fn outside(&self, ball: Ball, originals: &Images) -> usize {
        let images = self.images.chunks(self.size().max(1));
        let pairs = self.indices.iter().zip(images);
        let outside = pairs.filter(|(index, image)| {
            let original = |index| originals.batch(&[index]).data;
            **index >= originals.len() || !ball.contains(image, &original(**index))
        });
        outside.count()
    }

    /// Writes the examples of a run folder as safetensors: `indices` (int64) and `images` (float32).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path, info: &ExamplesInfo) -> Result<()> {
        write_atomic(path, &self.content(path, info)?)
    }

    /// Writes the examples where a user wants them: see [`files::write_output`].
    ///
    /// # Errors
    /// As [`Adversarial::save`].
    pub fn save_output(&self, path: &Path, info: &ExamplesInfo) -> Result<()> {
        files::write_output(path, &self.content(path, info)?)
    }

    /// Saves the examples like [`Adversarial::save`], but on the rank that calls it, whichever that is.
    pub(super) fn save_here(&self, path: &Path, info: &ExamplesInfo) -> Result<()> {
        files::write_here(path, &self.content(path, info)?)
    }

    fn content(&self, path: &Path, info: &ExamplesInfo) -> Result<Vec<u8>> {
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
        let info = serde_json::to_string(info).expect("plain values");
        let metadata = HashMap::from([(METADATA.to_owned(), info)]);
        let content =
            safetensors::serialize(tensors, Some(metadata)).map_err(|error| Error::Io {
                action: "write",
                path: path.to_path_buf(),
                source: std::io::Error::other(error),
            })?;
        Ok(weights::with_checksum(content))
    }

    /// Whether a file holds adversarial examples, by its description.
    pub fn is_file(path: &Path) -> bool {
        weights::load_metadata(path).is_ok_and(|metadata| metadata.contains_key(METADATA))
    }

    /// Reads what [`Adversarial::save`] wrote, strictly.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for any other file, and for a truncated one.
    pub fn load(path: &Path) -> Result<(Self, ExamplesInfo)> {
        Self::parse(&files::read(path)?, path)
    }

    /// Reads the content of a file as [`Adversarial::load`] does; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn parse(content: &[u8], path: &Path) -> Result<(Self, ExamplesInfo)> {
        let wrong = |place: &str, expected: &str, found: String| {
            Error::format(path, place, expected, found)
        };
        let complete = "a complete safetensors file";
        let (_, header) = SafeTensors::read_metadata(content)
            .map_err(|error| wrong("header", complete, error.to_string()))?;
        let file = SafeTensors::deserialize(content)
            .map_err(|error| wrong("header", complete, error.to_string()))?;
        let metadata = header.metadata().as_ref();
        let info = metadata.and_then(|all| all.get(METADATA)).ok_or_else(|| {
            let expected = "adversarial examples that advcl wrote";
            wrong(&format!("metadata {METADATA}"), expected, "none".to_owned())
        })?;
        let info: ExamplesInfo = serde_json::from_str(info).map_err(|error| {
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
        Ok((examples, info))
    }
}

/// Result of checking stored adversarial examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The classifier: METHOD/MODE.
    pub classifier: String,
    /// Norm of the threat model.
    pub norm: Norm,
    /// Radius ε of the recipe, by which the examples were checked, in pixels of [0, 1].
    pub radius: f64,
    /// Images that the classifier was evaluated on.
    pub images: usize,
    /// Images that are classified correctly when clean.
    pub clean: usize,
    /// Adversarial examples in the file.
    pub examples: usize,
    /// Examples with every pixel in [0, 1].
    pub in_box: usize,
    /// Examples inside the ball around their original.
    pub in_ball: usize,
    /// Largest distance of an example from its original.
    pub farthest: f64,
    /// Examples that are misclassified while their original is not.
    pub fooled: usize,
    /// Examples that are valid: in the box, in the ball, and misclassified.
    pub valid: usize,
    /// Upper bound of the robust accuracy: share of all images that are classified correctly and have no valid example.
    pub robust_accuracy: f64,
}

impl Verification {
    /// Whether every example is valid.
    pub fn holds(&self) -> bool {
        self.valid == self.examples
    }
}

/// Checks stored examples against their originals and against the classifier that they are meant to fool. `among` are the
/// indices of the images that the run evaluates: the file must count the same ones.
///
/// # Errors
/// [`Error::Format`] for examples of other images: another size, an index out of range or twice; [`Error::Model`] where the
/// file counts other images; [`Error::Interrupted`].
pub fn verify(
    (path, examples, info): (&Path, &Adversarial, &ExamplesInfo),
    evaluator: &Evaluator,
    among: &[usize],
    ball: Ball,
    context: &mut Context,
) -> Result<Verification> {
    let split = evaluator.split;
    check_indices(path, examples, info, &split.images)?;
    check_among(path, info, among)?;
    let name = format!("{}/verify", info.classifier);
    let mut stage = StageProgress::new(&name, info.among.len() + examples.indices.len());
    let predicted = evaluator.predict_clean(&info.among, &mut stage, context)?;
    let mut correct = vec![false; split.images.len()];
    let clean = evaluator.correct(&info.among, &predicted);
    clean.iter().for_each(|&index| correct[index] = true);
    let mut found = Verification {
        classifier: info.classifier.clone(),
        norm: ball.norm,
        radius: ball.radius,
        images: info.among.len(),
        clean: clean.len(),
        examples: examples.indices.len(),
        in_box: 0,
        in_ball: 0,
        farthest: 0.0,
        fooled: 0,
        valid: 0,
        robust_accuracy: 0.0,
    };
    let size = examples.size();
    let rows: Vec<usize> = (0..examples.indices.len()).collect();
    stage.by_batch(&rows, evaluator.batch_size, context, |batch, context| {
        let indices: Vec<usize> = batch.iter().map(|&row| examples.indices[row]).collect();
        let values = &examples.images[batch[0] * size..][..batch.len() * size];
        let originals = split.images.batch(&indices);
        let data = TensorData::new(values.to_vec(), originals.shape);
        let logits = (evaluator.logits)(Tensor::from_data(data, &context.device));
        let logits = LogitRows::read(logits);
        let images = values.chunks(size).zip(originals.data.chunks(size));
        for ((&index, class), (row, (image, original))) in indices
            .iter()
            .zip(logits.predictions())
            .zip(logits.rows().zip(images))
        {
            let in_box = in_box(image);
            // An example that is not finite is in no box, and no fault of the classifier.
            if in_box {
                require_finite(&name, index, row)?;
            }
            let distance = ball.norm.distance(image, original);
            let in_ball = ball.reaches(distance);
            let fooled = in_box && correct[index] && class != split.labels[index];
            found.in_box += usize::from(in_box);
            found.in_ball += usize::from(in_ball);
            found.farthest = found.farthest.max(distance);
            found.fooled += usize::from(fooled);
            found.valid += usize::from(in_box && in_ball && fooled);
        }
        Ok(())
    })?;
    found.robust_accuracy = (found.clean - found.valid) as f64 / found.images as f64;
    Ok(found)
}

/// Refuses examples that cannot be those of `images`: of another size, an index that is out of range or there twice.
///
/// # Errors
/// [`Error::Format`].
pub fn check_indices(
    path: &Path,
    examples: &Adversarial,
    info: &ExamplesInfo,
    images: &Images,
) -> Result<()> {
    let expected = images.shape();
    if examples.shape != expected {
        let (expected, found) = (format!("{expected:?}"), format!("{:?}", examples.shape));
        let place = "tensor images, [channels, height, width]";
        return Err(Error::format(path, place, expected, found));
    }
    let below = format!("indices below {}", images.len());
    let mut seen = vec![false; images.len()];
    for &index in &examples.indices {
        if index >= images.len() {
            let found = index.to_string();
            return Err(Error::format(path, "tensor indices", below, found));
        }
        if std::mem::replace(&mut seen[index], true) {
            let found = format!("{index} twice");
            let expected = "each image once";
            return Err(Error::format(path, "tensor indices", expected, found));
        }
    }
    let place = "the evaluated images";
    let wrong = |expected: &str, found: String| Err(Error::format(path, place, expected, found));
    if info.among.is_empty() {
        return wrong("one image at least", "none".to_owned());
    }
    let mut among = vec![false; images.len()];
    for &index in &info.among {
        if index >= images.len() {
            return wrong(&below, index.to_string());
        }
        if std::mem::replace(&mut among[index], true) {
            return wrong("each image once", format!("{index} twice"));
        }
    }
    match examples.indices.iter().find(|index| !among[**index]) {
        Some(index) => wrong(
            "the originals of all examples",
            format!("an example of image {index}, which is not among them"),
        ),
        None => Ok(()),
    }
}

/// Refuses examples that count other images than those that the run evaluates: leaving out the robust ones would lower
/// the accuracy that they seem to show, and others would not be this run's.
fn check_among(path: &Path, info: &ExamplesInfo, expected: &[usize]) -> Result<()> {
    let missing = |from: &[usize], of: &[usize]| -> Vec<usize> {
        let from: HashSet<&usize> = from.iter().collect();
        of.iter()
            .filter(|index| !from.contains(index))
            .copied()
            .collect()
    };
    let (lacking, others) = (
        missing(&info.among, expected),
        missing(expected, &info.among),
    );
    if lacking.is_empty() && others.is_empty() {
        return Ok(());
    }
    let named = |what: &str, indices: &[usize]| {
        let first: Vec<String> = indices.iter().take(5).map(usize::to_string).collect();
        let dots = if indices.len() > first.len() {
            ", …"
        } else {
            ""
        };
        format!("{} {what} ({}{dots})", indices.len(), first.join(", "))
    };
    let mut found = vec![format!("{} images", info.among.len())];
    if !lacking.is_empty() {
        found.push(named("of the run's are missing", &lacking));
    }
    if !others.is_empty() {
        found.push(named("are not evaluated by the run", &others));
    }
    let problem = format!(
        "expected examples among the {} images that this run attacks (its attack_limit, split and images), found some among {}",
        expected.len(),
        found.join(", ")
    );
    let hint = "verify them with the recipe that they were made with: --set changes a key";
    Err(Error::model(path, problem, hint))
}

/// Whether examples count the images of `expected`, in whatever order.
pub(crate) fn counts_these(info: &ExamplesInfo, expected: &[usize]) -> bool {
    let sorted = |indices: &[usize]| {
        let mut indices = indices.to_vec();
        indices.sort_unstable();
        indices
    };
    sorted(&info.among) == sorted(expected)
}
