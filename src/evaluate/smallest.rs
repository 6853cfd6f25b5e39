//! The smallest radius at which an attack turns an image into another class, by bisection.

use std::collections::BTreeMap;

use super::adversarial::Adversarial;
use super::{Evaluator, SuiteRun};
use crate::attack::{Ball, Suite};
use crate::error::Result;
use crate::session::Context;

/// Parts of the threat model's radius to which the smallest one is found.
const PARTS: usize = 64;
/// Radii that are tried, in multiples of the threat model's.
const REACH: usize = 4;

/// Search for the smallest radius at which images fall.
///
/// An attack may miss an adversarial example: what it finds is an upper bound of the true distance.
pub struct Search<'a> {
    /// The classifier, and images with the labels that they are to lose.
    pub evaluator: Evaluator<'a>,
    /// Attacks; an image falls where one of them succeeds.
    pub suite: &'a Suite,
    /// The threat model, where the search begins.
    pub ball: Ball,
}

/// Result of the search for one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fall {
    /// Adversarial example within the threat model's radius.
    pub within: Option<Vec<f32>>,
    /// Example at the smallest radius that was found.
    pub nearest: Option<Vec<f32>>,
    /// Smallest radius at which the image falls; none where it holds as far as was tried.
    pub falls: Option<f64>,
    /// Largest radius at which it holds, below that.
    pub holds: f64,
}

/// Progress of the search for one image, in steps of the precision.
struct State {
    index: usize,
    low: usize,
    high: Option<usize>,
    within: Option<Vec<f32>>,
    nearest: Option<Vec<f32>>,
}

impl Search<'_> {
    /// Distance between two radii that are told apart: 1/64 of the threat model's.
    pub fn precision(&self) -> f64 {
        self.ball.radius / PARTS as f64
    }

    /// Largest radius that is tried: four times the threat model's, or the largest multiple of the precision that does
    /// not reach beyond every image.
    pub fn bound(&self) -> f64 {
        self.steps() as f64 * self.precision()
    }

    fn steps(&self) -> usize {
        let farthest = self
            .ball
            .norm
            .farthest(self.evaluator.split.images.image_len());
        // Rounding must not take a step away from a radius that is the farthest distance itself.
        let most = (farthest / self.precision() * (1.0 + 1e-9)) as usize;
        most.clamp(PARTS, REACH * PARTS)
    }

    /// Finds the smallest radius of the images at `among`, which are classified correctly, in their order.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted); [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, among: &[usize], context: &mut Context) -> Result<Vec<Fall>> {
        let start = |&index: &usize| State {
            index,
            low: 0,
            high: None,
            within: None,
            nearest: None,
        };
        let mut states: Vec<State> = among.iter().map(start).collect();
        let bound = self.steps();
        self.attempt(&mut states, PARTS, context)?;
        for state in &mut states {
            state.within.clone_from(&state.nearest);
        }
        let mut standing: Vec<&mut State> =
            states.iter_mut().filter(|s| s.high.is_none()).collect();
        if bound > PARTS {
            self.attempt(&mut standing, bound, context)?;
        }
        loop {
            // Images that are to be tried at the same radius go together.
            let mut groups: BTreeMap<usize, Vec<&mut State>> = BTreeMap::new();
            for state in &mut states {
                if let Some(high) = state.high
                    && high - state.low > 1
                {
                    let middle = state.low.midpoint(high);
                    groups.entry(middle).or_default().push(state);
                }
            }
            if groups.is_empty() {
                break;
            }
            for (steps, mut group) in groups {
                self.attempt(&mut group, steps, context)?;
            }
        }
        let at = |steps: usize| steps as f64 * self.precision();
        let fall = |state: State| Fall {
            falls: state.high.map(at),
            holds: at(state.low),
            within: state.within,
            nearest: state.nearest,
        };
        Ok(states.into_iter().map(fall).collect())
    }

    /// Attacks images within a radius of so many steps.
    fn attempt<S: std::borrow::BorrowMut<State>>(
        &self,
        states: &mut [S],
        steps: usize,
        context: &mut Context,
    ) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        let among: Vec<usize> = states.iter().map(|state| state.borrow().index).collect();
        let run = SuiteRun {
            evaluator: self.evaluator,
            suite: self.suite,
            ball: Ball {
                radius: steps as f64 * self.precision(),
                ..self.ball
            },
            among: &among,
            folder: None,
            recipe: "",
        };
        let (_, found) = run.run(context)?;
        for state in states.iter_mut().map(S::borrow_mut) {
            match self.example(&found, state.index) {
                Some((image, distance)) => {
                    // It may be nearer than the radius: that many steps suffice for it.
                    let enough = (distance / self.precision() * (1.0 - 1e-6)).ceil() as usize;
                    state.high = Some(enough.clamp(state.low + 1, steps));
                    state.nearest = Some(image.to_vec());
                }
                None => state.low = steps,
            }
        }
        Ok(())
    }

    /// The example of an image among those that were found, with its distance.
    fn example<'a>(&self, found: &'a Adversarial, index: usize) -> Option<(&'a [f32], f64)> {
        let row = found.indices.binary_search(&index).ok()?;
        let image = found.image(row);
        let original = self.evaluator.split.images.batch(&[index]).data;
        Some((image, self.ball.norm.distance(image, &original)))
    }
}
