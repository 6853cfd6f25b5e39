//! Memory that a recipe's encoders will take, held against what the machine has.

use super::Experiment;
use super::state::State;
use crate::data::Images;
use crate::device;
use crate::error::{Error, Result};
use crate::memory::{self, Memory, in_words};
use crate::pretrain::Method;
use crate::pretrain::memory::{MARGIN, peak};
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
        let (data, other) = (&self.data.pretraining, self.data.downstream.as_ref());
        let images = &data.train.images;
        let sets = std::iter::once(data).chain(other);
        let splits = sets.flat_map(|data| [&data.train, &data.test]);
        let splits = splits.chain([&self.data.judged]).chain(&self.data.held_out);
        let held = Images::memory_of(splits.map(|split| &split.images));
        let shape = images.shape();
        peak(method, &self.recipe.encoder, shape, held)
    }

    /// Refuses methods whose pretraining cannot fit into the memory of the machine, however the estimate is off.
    ///
    /// # Errors
    /// [`Error::Recipe`] with both figures and a batch size that fits.
    pub(super) fn require_memory(&self, methods: &[String], context: &Context) -> Result<()> {
        if device::name(&context.device) != "cpu" {
            return Ok(());
        }
        let Some(Memory { total, .. }) = memory::machine() else {
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
        let problem = format!(
            "expected to take {} of memory with batches of {batch}, this machine has {}",
            in_words(expected),
            in_words(total)
        );
        let hint = format!("choose a smaller plan.batch_size{fitting}, data.size or encoder.width");
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
                "expected to take {} of memory, {} are free: a smaller plan.batch_size takes less",
                in_words(expected),
                in_words(available)
            );
            context.note(method, text);
        }
        Ok(())
    }
}
