//! Auto-PGD (Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
//! attacks", ICML 2020, section 3): momentum, and steps that halve themselves where an image gets no further.

mod climb;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Found, Tell, Victim, pgd, select};
use crate::error::Result;
use crate::loss::{cross_entropy_each, dlr, dlr_targeted};
use crate::tensor::{label_tensor, to_vec};

pub use climb::{Climb, Progress, checkpoints};

/// The targeted difference of logits ratio needs so many, the other one less.
const CLASSES_FOR_DLR: usize = 4;

/// How APGD climbs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apgd {
    /// Steps.
    pub iterations: usize,
    /// Random starts, each on the images that the ones before it left.
    pub restarts: usize,
    /// ρ: a step is halved where less than this share of the steps since the last look rose.
    pub rho: f64,
    /// Gradients whose mean is followed, for classifiers that are random: expectation over transformation.
    pub eot: usize,
    /// Of the targeted loss: how many classes an image is pushed to, the likeliest first, each where the ones before it left
    /// it unbroken. With C classes there are no more than C − 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub targets: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What is climbed.
///
/// With fewer than four classes there is too little for a difference of logits ratio (equations 6 and 7 divide by distances
/// between the largest three and four logits). Cross-entropy takes its place: of the label, or with a target its negative,
/// so that the target's probability rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy.
    CrossEntropy,
    /// Difference of logits ratio.
    Dlr,
    /// Difference of logits ratio to a target.
    TargetedDlr,
}

impl Default for Apgd {
    fn default() -> Self {
        Self {
            iterations: 100,
            restarts: 1,
            rho: 0.75,
            eot: 1,
            targets: 0,
        }
    }
}

impl Apgd {
    /// The targeted attack of AutoAttack.
    pub fn targeted() -> Self {
        Self {
            targets: 9,
            ..Self::default()
        }
    }

    /// Attacks.
    ///
    /// An image is broken once it is misclassified at the start or after any step. From then on it takes no time.
    ///
    /// # Errors
    /// What `tell` answers; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, loss: Loss, tell: Tell) -> Result<Found> {
        let mut found = Found::nothing(victim);
        let goals = match loss {
            Loss::CrossEntropy => vec![Goal::CrossEntropy],
            Loss::Dlr => vec![Goal::Dlr],
            Loss::TargetedDlr => by_rank(victim, self.targets)?,
        };
        let runs = goals.len() * self.restarts;
        for run in 0..runs {
            let purpose = format!("apgd/{loss:?}/{run}");
            let mut tell = |share| tell((run as f64 + share) / runs as f64);
            let goal = &goals[run / self.restarts];
            self.once(victim, goal, &purpose, &mut found, &mut tell)?;
        }
        Ok(found)
    }

    /// One start, of all images that are left.
    fn once(
        &self,
        victim: &Victim,
        goal: &Goal,
        purpose: &str,
        found: &mut Found,
        tell: Tell,
    ) -> Result<()> {
        let mut rows = found.left();
        if rows.is_empty() {
            return Ok(());
        }
        let start = victim.draw(purpose, &rows, |image, rng| victim.ball.edge(image, rng));
        let seen = self.look(victim, goal, &rows, start.clone());
        let mut wrong = victim.wrong(&rows, seen.logits)?;
        let mut climb = Climb::new(
            (victim.ball, self.rho, self.iterations),
            select(victim.images, &rows),
            start.clone(),
            seen.gradient,
            &seen.losses,
        );
        let mut x = start;
        for iteration in 0..self.iterations {
            leave(&mut climb, &mut rows, &wrong, &x, found);
            if rows.is_empty() {
                return Ok(());
            }
            tell(iteration as f64 / self.iterations as f64)?;
            x = climb.step();
            let seen = self.look(victim, goal, &rows, x.clone());
            wrong = victim.wrong(&rows, seen.logits)?;
            climb.see(seen.gradient, &seen.losses);
        }
        leave(&mut climb, &mut rows, &wrong, &x, found);
        Ok(())
    }

    /// Asks the classifier about images, `eot` times; logits and losses are of the last time.
    fn look(&self, victim: &Victim, goal: &Goal, rows: &[usize], x: Tensor<4>) -> Seen {
        let mut last = None;
        let mut climb = |x: Tensor<4>| {
            let logits = (victim.logits)(x);
            let losses = goal.losses(victim, rows, logits.clone());
            last = Some((logits.inner(), losses.clone().inner()));
            losses.sum()
        };
        let mut gradient = pgd::gradient(&mut climb, x.clone());
        for _ in 1..self.eot {
            gradient = gradient + pgd::gradient(&mut climb, x.clone());
        }
        if self.eot > 1 {
            gradient = gradient / self.eot as f64;
        }
        let (logits, losses) = last.expect("the gradient is of what was computed");
        Seen {
            gradient,
            losses: to_vec(losses),
            logits,
        }
    }
}

/// What a look at the classifier showed.
struct Seen {
    gradient: Tensor<4>,
    losses: Vec<f32>,
    logits: Tensor<2>,
}

/// Images that are misclassified at `x` are found, and climb no further.
fn leave(
    climb: &mut Climb,
    rows: &mut Vec<usize>,
    wrong: &[bool],
    x: &Tensor<4>,
    found: &mut Found,
) {
    let (broken, others): (Vec<usize>, Vec<usize>) =
        (0..wrong.len()).partition(|&place| wrong[place]);
    if !broken.is_empty() {
        let whose: Vec<usize> = broken.iter().map(|&place| rows[place]).collect();
        found.put(&whose, select(x, &broken));
        climb.keep(&others);
        *rows = others.iter().map(|&place| rows[place]).collect();
    }
}

/// What is climbed from one start.
enum Goal {
    CrossEntropy,
    Dlr,
    /// The target of each image of the batch.
    Targets(Vec<usize>),
}

impl Goal {
    /// Of the images at `rows`; `[rows]`.
    fn losses(&self, victim: &Victim, rows: &[usize], logits: Tensor<2>) -> Tensor<1> {
        let labels = victim.labels_of(rows);
        let enough = logits.dims()[1] >= CLASSES_FOR_DLR;
        match self {
            Self::Dlr if enough => dlr(logits, labels),
            Self::CrossEntropy | Self::Dlr => cross_entropy_each(logits, labels),
            Self::Targets(targets) => {
                let targets: Vec<usize> = rows.iter().map(|&row| targets[row]).collect();
                let targets = label_tensor(&targets, &victim.images.device());
                if enough {
                    dlr_targeted(logits, labels, targets)
                } else {
                    -cross_entropy_each(logits, targets)
                }
            }
        }
    }
}

/// The classes that images are pushed to, rank by rank.
fn by_rank(victim: &Victim, count: usize) -> Result<Vec<Goal>> {
    let rivals = victim.rivals()?;
    let ranks = 0..count.min(rivals.first().map_or(0, Vec::len));
    let target = |rank: usize| rivals.iter().map(|order| order[rank]).collect();
    Ok(ranks.map(|rank| Goal::Targets(target(rank))).collect())
}
