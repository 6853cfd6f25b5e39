//! Memory that a recipe's encoders will take, held against what the machine has.

use super::Experiment;
use super::state::State;
use crate::device;
use crate::error::{Error, Result};
use crate::memory::{self, Memory, in_words};
use crate::pretrain::Method;
use crate::pretrain::memory::{MARGIN, peak, peak_with};
use crate::session::Context;

/// Share of the memory that is suggested to be used.
const SUGGESTED: f64 = 0.8;

impl Experiment {
    /// Peak memory in bytes that pretraining one of the recipe's methods is expected to take on the CPU, within
    /// [`MARGIN`].
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that the recipe does not have.
    pub fn expected_memory(&self, method: &str) -> Result<u64> {
        let entry = self.recipe.pretrain.require(method)?;
        Ok(self.peak(entry.method()))
    }

    fn peak(&self, method: &dyn Method) -> u64 {
        let shape = self.data.pretraining.train.images.shape();
        peak(method, &self.recipe.encoder, shape, self.data.memory())
    }

    /// The largest micro-batch, a power of two, with which pretraining by a method fits into a share of the memory; none
    /// where there is none.
    fn fitting_micro_batch(&self, method: &dyn Method, total: u64) -> Option<usize> {
        let shape = self.data.pretraining.train.images.shape();
        let (encoder, held) = (&self.recipe.encoder, self.data.memory());
        let plan = method.plan();
        let now = plan.micro_batch.unwrap_or(plan.batch_size);
        let powers = (1..usize::BITS).rev().map(|power| 1 << power);
        let fits = |most: &usize| {
            let expected = peak_with(method, Some(*most), encoder, shape, held);
            expected as f64 <= SUGGESTED * total as f64
        };
        powers.filter(|most| *most < now).find(fits)
    }

    /// Refuses methods whose pretraining cannot fit into the memory of the machine or of its GPU, however the estimate is off.
    ///
    /// # Errors
    /// [`Error::Recipe`] with both figures, and a micro-batch and a batch size that fit.
    pub(super) fn require_memory(&self, methods: &[String], context: &Context) -> Result<()> {
        let total = match device::name(&context.device).as_str() {
            "cpu" => memory::machine().map(|Memory { total, .. }| total),
            _ => device::own_memory(&context.device),
        };
        let Some(total) = total else {
            return Ok(());
        };
        for name in methods {
            let expected = self.expected_memory(name)?;
            let is_too_much = expected as f64 * (1.0 - MARGIN) > total as f64;
            if is_too_much && !matches!(self.encoder_state(name)?, State::Fresh) {
                return Err(self.refused(name, expected, total)?);
            }
        }
        Ok(())
    }

    fn refused(&self, name: &str, expected: u64, total: u64) -> Result<Error> {
        let method = self.recipe.pretrain.require(name)?.method();
        let batch = method.plan().batch_size;
        // As if all of it grew with the batch: on the safe side.
        let each = expected as f64 / batch as f64;
        let fitting = (SUGGESTED * total as f64 / each) as usize;
        let fitting = match fitting {
            0..4 => String::new(),
            count => format!("; {} fits", 1 << count.ilog2()),
        };
        let at_once = match method.plan().micro_batch {
            Some(most) if most < batch => format!(" in micro-batches of {most}"),
            _ => String::new(),
        };
        let problem = format!(
            "expected to take {} of memory with batches of {batch}{at_once}, this device has {}",
            in_words(expected),
            in_words(total)
        );
        let smaller =
            format!("choose a smaller plan.batch_size{fitting}, data.size or encoder.width");
        let hint = match self.fitting_micro_batch(method, total) {
            Some(most) => format!("--micro-batch {most} fits, and takes longer; or {smaller}"),
            None => smaller,
        };
        Ok(Error::recipe(format!("pretrain.{name}"), problem, hint))
    }

    /// Says where pretraining a method is expected to take more memory than is free.
    pub(super) fn warn_of_memory(&self, method: &str, context: &mut Context) -> Result<()> {
        let Some(Memory { available, .. }) = memory::machine() else {
            return Ok(());
        };
        let expected = self.expected_memory(method)?;
        if device::name(&context.device) == "cpu" && expected > available {
            let text = format!(
                "expected to take {} of memory, {} are free: --micro-batch or a smaller plan.batch_size takes less",
                in_words(expected),
                in_words(available)
            );
            context.note(method, text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn a_refusal_names_a_micro_batch_that_fits() {
        let folder = tempfile::tempdir().expect("a folder");
        let set = [
            "encoder = { depth = 10, width = 16, stem = 'cifar' }",
            "pretrain.simclr.plan.batch_size = 256",
        ];
        let recipe = Recipe::load("smoke", &set.map(str::to_owned)).expect("a recipe");
        let method = recipe
            .pretrain
            .require("simclr")
            .expect("a method")
            .method();
        let experiment = Experiment::open(recipe.clone(), folder.path()).expect("an experiment");
        let expected = experiment.expected_memory("simclr").expect("a method");
        let hint = |total: u64| {
            let error = experiment.refused("simclr", expected, total);
            let error = error.expect("a method");
            error.hint().expect("a hint").to_owned()
        };
        let total = expected / 2;
        let most = experiment
            .fitting_micro_batch(method, total)
            .expect("one fits");
        assert!(
            hint(total).starts_with(&format!("--micro-batch {most} fits, and takes longer; or ")),
            "{}",
            hint(total)
        );
        let shape = experiment.data.pretraining.train.images.shape();
        let within = |most| {
            peak_with(
                method,
                Some(most),
                &recipe.encoder,
                shape,
                experiment.data.memory(),
            ) as f64
        };
        assert!(within(most) <= SUGGESTED * total as f64);
        assert!(within(2 * most) > SUGGESTED * total as f64);
        // The weights alone are more.
        assert!(hint(1_000_000).starts_with("choose a smaller plan.batch_size"));
    }
}
