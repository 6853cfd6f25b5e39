//! Attacks one after the other, each on what the ones before it left: the state of every batch is kept, so that work that
//! is stopped goes on where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::adversarial::{About, Adversarial};
use crate::attack::{Attack, Ball, Suite, Victim};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::logits::classes_said;
use crate::nn::FrozenClassifier;
use crate::session::Context;
use crate::tensor::to_tensor;
use crate::tensor::to_vec;

/// What one attack did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Its name.
    pub attack: String,
    /// Images that it was tried on: those that the attacks before it left.
    pub images: usize,
    /// Of these, broken by it.
    pub broken: usize,
    /// Seconds, all sittings together.
    pub seconds: f64,
}

/// What a whole suite of attacks did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attacked {
    /// Its name: "autoattack", "square", "custom".
    pub suite: String,
    /// Images judged.
    pub images: usize,
    /// Of these, classified correctly as they are.
    pub clean: usize,
    /// Of these, classified correctly after every attack.
    pub robust: usize,
    /// Attack by attack.
    pub attacks: Vec<Tried>,
}

impl Attacked {
    /// Share of all images that no attack broke, in [0, 1].
    pub fn robust_accuracy(&self) -> f64 {
        self.robust as f64 / self.images as f64
    }
}

/// Who is attacked, how, and where unfinished work is kept.
pub struct Siege<'a> {
    /// METHOD/MODE, for logs and files.
    pub classifier: &'a str,
    /// The attacks.
    pub suite: &'a Suite,
    /// Where adversarial examples may be.
    pub ball: Ball,
    /// Images at a time; results do not depend on it.
    pub batch_size: usize,
    /// Which images of the split are judged.
    pub among: &'a [usize],
    /// For the files of finished batches; removed by the caller once the whole is kept elsewhere.
    pub folder: &'a Path,
    /// All that the outcome depends on, as TOML: files of other work are not used.
    pub recipe: &'a str,
}

/// A batch that one attack is done with.
struct Piece {
    broken: Adversarial,
    seconds: f64,
}

impl Siege<'_> {
    /// Attacks `model` on those images of `split` that it classifies correctly. Returns the counts, and an adversarial example of
    /// each image that was broken.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when asked to stop; [`Error::Logits`]; [`Error::Format`] for a file of unfinished work that was
    /// changed; what an attack refuses.
    pub fn lay(
        &self,
        model: &FrozenClassifier,
        split: &Split,
        context: &mut Context,
    ) -> Result<(Attacked, Adversarial)> {
        let count = self.among.len();
        let mut survivors = Vec::new();
        let stage = format!("{}/clean", self.classifier);
        for (batch, indices) in self.among.chunks(self.batch_size).enumerate() {
            let images = to_tensor(split.images.batch(indices), &context.device);
            let said = classes_said(&stage, indices, model.logits(images))?;
            let right = indices.iter().zip(said);
            let right = right.filter(|(index, class)| split.labels[**index] == *class);
            survivors.extend(right.map(|(index, _)| *index));
            let done = batch * self.batch_size + indices.len();
            context.progress(&stage, done, count, "images")?;
        }
        let shape = [
            split.images.channels,
            split.images.height,
            split.images.width,
        ];
        let mut outcome = Attacked {
            suite: self.suite.name().to_owned(),
            images: count,
            clean: survivors.len(),
            robust: 0,
            attacks: Vec::new(),
        };
        let mut examples = Adversarial::of_shape(shape);
        for (number, attack) in self.suite.attacks().iter().enumerate() {
            let mut tried = Tried {
                attack: attack.name().to_owned(),
                images: survivors.len(),
                broken: 0,
                seconds: 0.0,
            };
            let mut broken = vec![false; split.images.len()];
            for (batch, indices) in survivors.chunks(self.batch_size).enumerate() {
                let path = self.piece(number, attack, batch);
                let done = (batch * self.batch_size, survivors.len());
                let piece = match self.load(&path, indices)? {
                    Some(piece) => piece,
                    None => {
                        let piece = self.attack(attack, model, split, indices, done, context)?;
                        self.save(&path, indices, &piece)?;
                        piece
                    }
                };
                tried.seconds += piece.seconds;
                tried.broken += piece.broken.indices.len();
                piece.broken.indices.iter().for_each(|&i| broken[i] = true);
                examples.extend(piece.broken);
            }
            survivors.retain(|&index| !broken[index]);
            outcome.attacks.push(tried);
        }
        outcome.robust = survivors.len();
        examples.sort();
        Ok((outcome, examples))
    }

    /// One attack on one batch.
    fn attack(
        &self,
        attack: &Attack,
        model: &FrozenClassifier,
        split: &Split,
        indices: &[usize],
        (done, total): (usize, usize),
        context: &mut Context,
    ) -> Result<Piece> {
        let started = Instant::now();
        let images = split.images.batch(indices);
        let (shape, originals) = (images.shape, images.data.clone());
        let images = to_tensor(images, &context.device);
        let labels: Vec<usize> = indices.iter().map(|&i| split.labels[i]).collect();
        let (stage, seed) = (
            format!("{}/{}", self.classifier, attack.name()),
            context.seed,
        );
        let mut tell = |share: f64| {
            let now = done + (share * indices.len() as f64) as usize;
            context.progress(&stage, now, total, "images")
        };
        let victim = Victim {
            logits: &|x| model.logits(x),
            images: &images,
            labels: &labels,
            indices,
            ball: self.ball,
            seed,
        };
        let found = attack.run(&victim, &mut tell);
        let found = found.map_err(|error| match error {
            Error::Logits { image, value, .. } => Error::Logits {
                stage: stage.clone(),
                image,
                value,
            },
            other => other,
        })?;
        // What counts is what the classifier says when it is asked again, without a gradient.
        let said = classes_said(&stage, indices, model.logits(found.images.clone()))?;
        let mut broken = Adversarial::of_shape([shape[1], shape[2], shape[3]]);
        let size = originals.len() / indices.len();
        let values = to_vec(found.images);
        for (row, &index) in indices.iter().enumerate() {
            if found.broken[row] && said[row] != labels[row] {
                broken.indices.push(index);
                broken.images.extend(&values[row * size..(row + 1) * size]);
            }
        }
        Ok(Piece {
            broken,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn piece(&self, number: usize, attack: &Attack, batch: usize) -> PathBuf {
        let name = format!("{number:02}-{}-{batch:05}.safetensors", attack.name());
        self.folder.join(name)
    }

    /// The batch as an earlier sitting left it; none where there was none, or of other images.
    fn load(&self, path: &Path, indices: &[usize]) -> Result<Option<Piece>> {
        if !path.exists() {
            return Ok(None);
        }
        let (broken, about) = Adversarial::load(path)?;
        let tried = about.more.get("tried") == Some(&json!(indices));
        let seconds = about.more.get("seconds").and_then(|s| s.as_f64());
        let inside = broken.indices.iter().all(|index| indices.contains(index));
        match seconds {
            Some(seconds) if tried && inside && about.recipe == self.recipe => {
                Ok(Some(Piece { broken, seconds }))
            }
            _ => Ok(None),
        }
    }

    fn save(&self, path: &Path, indices: &[usize], piece: &Piece) -> Result<()> {
        std::fs::create_dir_all(self.folder).map_err(Error::io("create", self.folder))?;
        let more = BTreeMap::from([
            ("tried".to_owned(), json!(indices)),
            ("seconds".to_owned(), json!(piece.seconds)),
        ]);
        piece.broken.save(path, &self.about(more))
    }

    /// What a file of examples says of itself.
    pub fn about(&self, more: BTreeMap<String, serde_json::Value>) -> About {
        About {
            among: self.among.to_vec(),
            classifier: self.classifier.to_owned(),
            norm: self.ball.norm,
            radius: self.ball.radius,
            recipe: self.recipe.to_owned(),
            more,
        }
    }
}
