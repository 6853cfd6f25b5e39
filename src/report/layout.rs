//! Names of the files that a report reads in a run folder.

/// The recipe of a run or of a comparison.
pub(super) const RECIPE: &str = "recipe.toml";
/// Version, device and cores.
pub(super) const MACHINE: &str = "run.json";
/// The table of a run.
pub(super) const SUMMARY: &str = "summary.json";
/// Adversarial examples of one classifier on others.
pub(super) const TRANSFER: &str = "transfer.json";
/// The log, with an event on each line.
pub(super) const METRICS: &str = "metrics.jsonl";
/// Clean accuracy of a row, and PGD.
pub(super) const RESULT: &str = "result.json";
/// The attacks beside PGD on a row.
pub(super) const ATTACK: &str = "attack.json";
/// The soundness checks of a row.
pub(super) const SOUNDNESS: &str = "soundness.json";
/// Everything else that was measured of a row.
pub(super) const MEASURES: &str = "measures.json";
/// A model, in its stage's folder.
pub(super) const MODEL: &str = "model.safetensors";
/// Prefix of the folders of a comparison's seeds.
pub(super) const SEED: &str = "seed-";
