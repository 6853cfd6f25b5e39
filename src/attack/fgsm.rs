//! The fast gradient sign method (Goodfellow et al., ICLR 2015): one step to the edge of the ball.

use super::{AttackResult, Progress, Victim, pgd};
use crate::error::Result;
use crate::loss::cross_entropy_each;

/// Steps from the clean images along the gradient of the cross-entropy: its sign, or in L2 its direction.
///
/// # Errors
/// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
pub fn run(victim: &Victim, progress: Progress) -> Result<AttackResult> {
    progress(0.0)?;
    let mut result = AttackResult::unbroken(victim);
    let rows = result.remaining();
    let labels = victim.labels_of(&rows);
    let mut loss = |x| cross_entropy_each((victim.logits)(x), labels.clone()).sum();
    let (images, ball) = (victim.images, victim.ball);
    let gradient = pgd::gradient(&mut loss, images.clone());
    let moved = ball.step(images.clone(), gradient, ball.radius);
    result.query(victim, &rows, ball.project(moved, images))?;
    Ok(result)
}
