//! Runs of a suite's attacks one after the other, batch by batch, wherever the images come from and the results go.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Attack, AttackResult, AttackTally, Progress, Suite, Victim, in_stage};
use crate::error::Result;
use crate::logits::finite_predictions;
use crate::ranks;

/// A batch of images that one attack of a suite is to be run on.
pub(crate) struct Job<'a> {
    /// Number of the attack in its suite, from 0.
    pub number: usize,
    /// The attack.
    pub attack: &'a Attack,
    /// Number of the batch, from 0.
    pub batch: usize,
    /// Indices of the images.
    pub indices: &'a [usize],
    /// Images of the batches before.
    pub done: usize,
    /// Images of all batches.
    pub total: usize,
}

/// Result of a [`Job`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct JobResult {
    /// Indices of the broken images.
    pub broken: Vec<usize>,
    /// Seconds of computation.
    pub seconds: f64,
}

/// Runs the attacks of a suite one after the other on the images at `correct`, each on those that the ones before it left.
/// `run` attacks one batch; ranks take batches by turns. Returns the counts of each attack and the images that all attacks
/// left.
pub(crate) fn run_suite(
    suite: &Suite,
    correct: &[usize],
    batch_size: usize,
    mut run: impl FnMut(&Job) -> Result<JobResult>,
) -> Result<(Vec<AttackTally>, Vec<usize>)> {
    let mut left = correct.to_vec();
    let mut tallies = Vec::new();
    for (number, attack) in suite.attacks().iter().enumerate() {
        let mut tally = AttackTally {
            attack: attack.kind(),
            images: left.len(),
            broken: 0,
            seconds: 0.0,
        };
        let mut broken = Vec::new();
        let batches = left.chunks(batch_size).enumerate();
        let own = batches.filter(|(batch, _)| batch % ranks::count() == ranks::own());
        let results = own.map(|(batch, indices)| {
            let result = run(&Job {
                number,
                attack,
                batch,
                indices,
                done: batch * batch_size,
                total: left.len(),
            })?;
            Ok((batch, result))
        });
        let results = results.collect::<Result<Vec<_>>>()?;
        let mut results = ranks::gather_each("attacked batches", results).concat();
        results.sort_by_key(|(batch, _)| *batch);
        for (_, result) in results {
            broken.extend(result.broken);
            tally.seconds += result.seconds;
        }
        tally.broken = broken.len();
        let broken: HashSet<usize> = broken.into_iter().collect();
        left.retain(|index| !broken.contains(index));
        tallies.push(tally);
    }
    Ok((tallies, left))
}

/// Runs an attack and classifies its adversarial examples once more without gradients: only those that are misclassified
/// then count as broken. Errors of logits name `stage`.
pub(crate) fn run_confirmed(
    attack: &Attack,
    victim: &Victim,
    stage: &str,
    progress: Progress,
) -> Result<AttackResult> {
    let mut result = attack.run(victim, progress).map_err(in_stage(stage))?;
    let logits = (victim.logits)(result.images.clone());
    let predicted = finite_predictions(stage, victim.indices, logits)?;
    for ((broken, class), label) in result.broken.iter_mut().zip(predicted).zip(victim.labels) {
        *broken &= class != *label;
    }
    Ok(result)
}
