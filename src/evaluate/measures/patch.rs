//! Accuracy under an adversarial patch.

use super::{MeasuredClassifier, Patched};
use crate::attack::{Ball, Norm, Patch, in_stage};
use crate::error::Result;
use crate::session::Context;

impl MeasuredClassifier<'_> {
    /// Accuracy under an adversarial patch. Only images that are classified correctly are attacked; the others count as not
    /// robust.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn patch(&self, patch: &Patch, context: &mut Context) -> Result<Patched> {
        // Any values in [0, 1]: what keeps an image within this ball is the square alone.
        let ball = Ball {
            norm: Norm::Linf,
            radius: 1.0,
        };
        let (correct, robust) =
            self.robust_counts("patch", ball, context, |victim, stage, context| {
                let images = victim.labels.len() as f64;
                let progress = &mut |share: f64| {
                    let done = stage.done + (share * images) as usize;
                    context.progress(stage.name, done, stage.total, "images")
                };
                let result = patch.run(victim, progress).map_err(in_stage(stage.name))?;
                Ok([result.remaining().len()])
            })?;
        let side = patch.side(self.split.images.height, self.split.images.width);
        let tried = (side, patch.places, patch.steps);
        Ok(Patched::new(tried, [correct, robust[0]], self.among.len()))
    }
}
