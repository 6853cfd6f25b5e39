//! Names of the files in a run folder.

use std::path::{Path, PathBuf};

/// Model file: an encoder, or a classifier with its encoder.
pub const MODEL: &str = "model.safetensors";
/// Recipe of the run; written by the program unless the user's own stands there.
pub const RECIPE: &str = "recipe.toml";
/// Recipe of the run with all overrides, where [`RECIPE`] is the user's own file.
pub const RESOLVED_RECIPE: &str = "recipe.resolved.toml";
/// Format of the folder, the machine that wrote it, and where the data was.
pub const ABOUT: &str = "run.json";

/// Folder of a classifier's unfinished attack suites.
pub const ATTACK_PIECES: &str = "attack";

/// Pseudo-labels of the training images: of the run, or of a method that makes its own.
pub const PSEUDO_LABELS: &str = "pseudo_labels.safetensors";

/// Places of a run's files below its folder.
///
/// A method's encoder lives in `METHOD/`, a classifier on it in `METHOD/MODE/`; `stage` is either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Layout of the run in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The run folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Recipe of the run, or the user's.
    pub fn recipe(&self) -> PathBuf {
        self.root.join(RECIPE)
    }

    /// Recipe with all overrides, where the other one is the user's.
    pub fn resolved_recipe(&self) -> PathBuf {
        self.root.join(RESOLVED_RECIPE)
    }

    /// Format and machine.
    pub fn about(&self) -> PathBuf {
        self.root.join(ABOUT)
    }

    /// Lock of the process that works in the folder.
    pub fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Log of epochs and figures, a JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// Table of all rows.
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// Accuracy of each classifier on adversarial examples of the others.
    pub fn transfer(&self) -> PathBuf {
        self.root.join("transfer.json")
    }

    /// Pseudo-labels of all training images.
    pub fn pseudo_labels(&self) -> PathBuf {
        self.root.join(PSEUDO_LABELS)
    }

    /// Seconds that clustering took.
    pub fn cluster_time(&self) -> PathBuf {
        self.root.join("cluster_time.json")
    }

    /// Folder of a stage.
    pub fn stage(&self, stage: &str) -> PathBuf {
        self.root.join(stage)
    }

    /// Model of a stage.
    pub fn model(&self, stage: &str) -> PathBuf {
        self.stage(stage).join(MODEL)
    }

    /// Seconds that a stage took.
    pub fn times(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("times.json")
    }

    /// Clean accuracy and PGD.
    pub fn results(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("result.json")
    }

    /// Attack suites beside PGD.
    pub fn attacks(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("attack.json")
    }

    /// Soundness checks.
    pub fn soundness(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("soundness.json")
    }

    /// Curves, corruptions, confusion, calibration and more.
    pub fn measures(&self, stage: &str) -> PathBuf {
        self.stage(stage).join("measures.json")
    }

    /// Adversarial examples that an attack suite found; `key` tells suites and conditions apart.
    pub fn adversarial(&self, stage: &str, key: &str) -> PathBuf {
        self.stage(stage)
            .join(format!("adversarial-{key}.safetensors"))
    }

    /// Folder of an unfinished attack suite's batches.
    pub fn attack_pieces(&self, stage: &str, key: &str) -> PathBuf {
        self.stage(stage).join(ATTACK_PIECES).join(key)
    }

    /// Run folder of one seed of a comparison.
    pub fn seed(&self, seed: u64) -> Self {
        Self::new(self.root.join(format!("{SEED}{seed}")))
    }
}

/// Beginning of the names of a comparison's run folders.
pub const SEED: &str = "seed-";

/// Name of a part of a stage in logs, and the file of its checkpoint; a stage of one part calls it "".
pub fn part(stage: &str, part: &str) -> (String, String) {
    if part.is_empty() {
        (stage.to_owned(), "checkpoint.safetensors".to_owned())
    } else {
        let file = format!("checkpoint_{part}.safetensors");
        (format!("{stage}/{part}"), file)
    }
}
