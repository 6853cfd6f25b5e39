//! Auto-PGD (Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
//! attacks", ICML 2020, section 3): momentum, and a step size for each image that is halved when its loss stops rising.

mod ascent;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::settings::{at_least_one, positive};
use super::{AttackResult, Progress, Victim, pgd, select};
use crate::error::Result;
use crate::loss::{cross_entropy_each, dlr, dlr_targeted};
use crate::tensor::{label_tensor, to_vec};

pub use ascent::{Ascent, ImageState, checkpoints};

/// Fewest classes for the targeted difference of logits ratio; the untargeted one would need one less.
const CLASSES_FOR_DLR: usize = 4;

/// Settings of Auto-PGD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Apgd {
    /// Gradient steps.
    pub iterations: usize,
    /// Random starts, each for the images that the ones before it left.
    pub restarts: usize,
    /// Threshold ρ: the step size is halved where the loss rose in less than this share of the steps since the last
    /// checkpoint.
    pub rho: f64,
    /// Gradients that are averaged in each step, for random classifiers: expectation over transformation.
    pub eot: usize,
}

/// Settings of targeted Auto-PGD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TargetedApgd {
    /// Settings of the ascent.
    #[serde(flatten)]
    pub apgd: Apgd,
    /// Number of target classes, the most probable first, each for the images that the ones before it left; at most all
    /// other classes.
    pub targets: usize,
}

/// Loss that Auto-PGD maximizes.
///
/// With fewer than four classes there is too little for a difference of logits ratio (equations 6 and 7 divide by distances
/// between the largest three and four logits). Cross-entropy takes its place: of the label, or with a target its negative,
/// so that the target's probability rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApgdLoss {
    /// Cross-entropy.
    CrossEntropy,
    /// Difference of logits ratio.
    Dlr,
}

impl Default for Apgd {
    fn default() -> Self {
        Self {
            iterations: 100,
            restarts: 1,
            rho: 0.75,
            eot: 1,
        }
    }
}

impl Default for TargetedApgd {
    fn default() -> Self {
        Self {
            apgd: Apgd::default(),
            targets: 9,
        }
    }
}

impl TargetedApgd {
    /// Refuses settings that cannot be carried out: "targets: expected 1 or more, found 0".
    pub(super) fn check(&self) -> Result<(), String> {
        self.apgd.check()?;
        at_least_one("targets", self.targets)
    }

    /// Attacks the images of `victim` by the targeted difference of logits ratio, target by target.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, progress: Progress) -> Result<AttackResult> {
        let ranked = victim.targets()?;
        let ranks = 0..self.targets.min(ranked.first().map_or(0, Vec::len));
        let target = |rank: usize| ranked.iter().map(|classes| classes[rank]).collect();
        let goals: Vec<Goal> = ranks.map(|rank| Goal::Targets(target(rank))).collect();
        self.apgd.reach(victim, &goals, "TargetedDlr", progress)
    }
}

impl Apgd {
    /// Refuses settings that cannot be carried out: "iterations: expected 1 or more, found 0".
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one("iterations", self.iterations)?;
        at_least_one("restarts", self.restarts)?;
        positive("rho", self.rho)?;
        at_least_one("eot", self.eot)
    }

    /// Attacks the images of `victim`.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, loss: ApgdLoss, progress: Progress) -> Result<AttackResult> {
        let (goal, name) = match loss {
            ApgdLoss::CrossEntropy => (Goal::CrossEntropy, "CrossEntropy"),
            ApgdLoss::Dlr => (Goal::Dlr, "Dlr"),
        };
        self.reach(victim, &[goal], name, progress)
    }

    /// Maximizes goal after goal, each on the images that the ones before it left; `loss` is a part of the random numbers'
    /// purpose.
    ///
    /// An image is broken once it is misclassified at the start or after any step. From then on it takes no time.
    fn reach(
        &self,
        victim: &Victim,
        goals: &[Goal],
        loss: &str,
        progress: Progress,
    ) -> Result<AttackResult> {
        let mut result = AttackResult::unbroken(victim);
        let runs = goals.len() * self.restarts;
        for run in 0..runs {
            let purpose = format!("apgd/{loss}/{run}");
            let mut progress = |share| progress((run as f64 + share) / runs as f64);
            let goal = &goals[run / self.restarts];
            self.once(victim, goal, &purpose, &mut result, &mut progress)?;
        }
        Ok(result)
    }

    /// Climbs from one random start, for all images that are left.
    fn once(
        &self,
        victim: &Victim,
        goal: &Goal,
        purpose: &str,
        result: &mut AttackResult,
        progress: Progress,
    ) -> Result<()> {
        let mut rows = result.remaining();
        if rows.is_empty() {
            return Ok(());
        }
        let start = victim.random(purpose, &rows, |image, rng| victim.ball.edge(image, rng));
        let seen = self.query(victim, goal, &rows, start.clone());
        let mut wrong = victim.misclassified(&rows, seen.logits)?;
        let mut ascent = Ascent::new(
            (victim.ball, self.rho, self.iterations),
            select(victim.images, &rows),
            start.clone(),
            seen.gradient,
            &seen.losses,
        );
        let mut x = start;
        for iteration in 0..self.iterations {
            leave(&mut ascent, &mut rows, &wrong, &x, result);
            if rows.is_empty() {
                return Ok(());
            }
            progress(iteration as f64 / self.iterations as f64)?;
            x = ascent.step();
            let seen = self.query(victim, goal, &rows, x.clone());
            wrong = victim.misclassified(&rows, seen.logits)?;
            ascent.see(seen.gradient, &seen.losses);
        }
        leave(&mut ascent, &mut rows, &wrong, &x, result);
        Ok(())
    }

    /// Queries the classifier about images, `eot` times; logits and losses are those of the last time.
    fn query(&self, victim: &Victim, goal: &Goal, rows: &[usize], x: Tensor<4>) -> Seen {
        let mut last = None;
        let mut total = |x: Tensor<4>| {
            let logits = (victim.logits)(x);
            let losses = goal.losses(victim, rows, logits.clone());
            last = Some((logits.inner(), losses.clone().inner()));
            losses.sum()
        };
        let mut gradient = pgd::gradient(&mut total, x.clone());
        for _ in 1..self.eot {
            gradient = gradient + pgd::gradient(&mut total, x.clone());
        }
        if self.eot > 1 {
            gradient = gradient / self.eot as f64;
        }
        let (logits, losses) = last.expect("the gradient is that of a computed loss");
        Seen {
            gradient,
            losses: to_vec(losses),
            logits,
        }
    }
}

/// Answer of the classifier to a query.
struct Seen {
    gradient: Tensor<4>,
    losses: Vec<f32>,
    logits: Tensor<2>,
}

/// Records the images that are misclassified at `x`, and takes them out of the ascent.
fn leave(
    ascent: &mut Ascent,
    rows: &mut Vec<usize>,
    wrong: &[bool],
    x: &Tensor<4>,
    result: &mut AttackResult,
) {
    let (broken, others): (Vec<usize>, Vec<usize>) =
        (0..wrong.len()).partition(|&place| wrong[place]);
    if !broken.is_empty() {
        let whose: Vec<usize> = broken.iter().map(|&place| rows[place]).collect();
        result.record(&whose, select(x, &broken));
        ascent.keep(&others);
        *rows = others.iter().map(|&place| rows[place]).collect();
    }
}

/// Loss that is maximized from one start.
enum Goal {
    CrossEntropy,
    Dlr,
    /// Targeted difference of logits ratio, with the target of each image of the batch.
    Targets(Vec<usize>),
}

impl Goal {
    /// Loss of each image at `rows`. # Shapes: `[rows, classes]` to `[rows]`.
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
