//! Certified accuracy by randomised smoothing.

use super::{Certified, MeasuredClassifier};
use crate::error::Result;
use crate::ranks;
use crate::session::Context;
use crate::smoothing::{Certificate, Smoothed, Smoothing};

impl MeasuredClassifier<'_> {
    /// Certified accuracy in L2 by randomised smoothing. An image costs as many forward passes as it has noisy copies.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn smoothing(&self, settings: &Smoothing, context: &mut Context) -> Result<Certified> {
        let name = format!("{}/smoothing", self.name);
        let device = context.device.clone();
        let smoothed = Smoothed {
            logits: &|x| self.logits(x),
            settings,
            seed: context.seed,
            batch_size: self.batch_size,
            device: &device,
            stage: &name,
        };
        let (mut done, total) = (0, self.among.len() * settings.copies());
        let mut certificates = Vec::new();
        for &index in &self.among[ranks::own_part(self.among.len())] {
            let image = self.split.images.batch(&[index]);
            let progress = &mut |copies: usize| {
                // The other ranks are taken to be as far.
                done = (done + copies * ranks::count()).min(total);
                context.progress(&name, done, total, "noisy images")
            };
            certificates.push(smoothed.certify(index, &image, progress)?);
        }
        let all = ranks::gather_each("certificates", certificates);
        let mut all: Vec<Certificate> = all.concat();
        all.sort_by_key(|one| one.image);
        Ok(Certified::new(settings, all, &self.split.labels))
    }
}
