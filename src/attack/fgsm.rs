//! The fast gradient sign method (Goodfellow et al., ICLR 2015): one step to the edge of the ball.

use super::{Found, Tell, Victim, pgd};
use crate::error::Result;
use crate::loss::cross_entropy_each;

/// Steps from the images as they are along the gradient of the cross-entropy, by its sign or in L2 its direction.
///
/// # Errors
/// What `tell` answers; [`Error::Logits`](crate::Error::Logits).
pub fn run(victim: &Victim, tell: Tell) -> Result<Found> {
    tell(0.0)?;
    let mut found = Found::nothing(victim);
    let rows = found.left();
    let labels = victim.labels_of(&rows);
    let mut climb = |x| cross_entropy_each((victim.logits)(x), labels.clone()).sum();
    let (images, ball) = (victim.images, victim.ball);
    let gradient = pgd::gradient(&mut climb, images.clone());
    let moved = ball.step(images.clone(), gradient, ball.radius);
    found.judge(victim, &rows, ball.project(moved, images))?;
    Ok(found)
}
