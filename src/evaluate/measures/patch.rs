//! Accuracy under an adversarial patch.

use super::{MeasuredClassifier, Patched};
use crate::attack::{Ball, Norm, Patch, in_stage};
use crate::error::Result;
use crate::evaluate::StageProgress;
use crate::ranks;
use crate::session::Context;

impl MeasuredClassifier<'_> {
    /// Accuracy under an adversarial patch. Only images that are classified correctly are attacked; the others count as not
    /// robust.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn patch(&self, patch: &Patch, context: &mut Context) -> Result<Patched> {
        self.evaluate(|evaluator| {
            let count = self.among.len();
            let name = format!("{}/patch", self.name);
            let mut stage = StageProgress::new(&name, 2 * count);
            let predicted = evaluator.predict_clean(self.among, &mut stage, context)?;
            let correct = evaluator.correct(self.among, &predicted);
            let mut robust = 0;
            // Any values in [0, 1]: what keeps an image within this ball is the square alone.
            let ball = Ball {
                norm: Norm::Linf,
                radius: 1.0,
            };
            let own = ranks::own_batches(correct.len(), self.batch_size);
            for batch in correct[own].chunks(self.batch_size) {
                let images = evaluator.batch(batch, &context.device);
                let victim = evaluator.victim(&images, ball, context.seed);
                let progress = &mut |share: f64| {
                    let done = stage.done + (share * batch.len() as f64) as usize;
                    context.progress(stage.name, done, stage.total, "images")
                };
                let result = patch.run(&victim, progress).map_err(in_stage(stage.name))?;
                robust += result.remaining().len();
                stage.done += batch.len();
            }
            let robust = ranks::sum_counts("robust images", vec![robust])[0];
            context.progress(&name, 2 * count, 2 * count, "images")?;
            let side = patch.side(self.split.images.height, self.split.images.width);
            let tried = (side, patch.places, patch.steps);
            Ok(Patched::new(tried, [correct.len(), robust], count))
        })
    }
}
