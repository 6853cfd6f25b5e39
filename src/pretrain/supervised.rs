//! Standard supervised training, with the labels of all training images: what is accurate and falls to any attack.

use serde::{Deserialize, Serialize};

use super::{Given, Method, Trained, Trainer};
use crate::check::Check;
use crate::criterion::{Criterion, EndToEnd, Task};
use crate::data::augment::Weak;
use crate::error::Result;
use crate::train::Plan;

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// What is seen: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for Settings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.views("weak", self.weak.check())
    }

    fn supervised(&self) -> bool {
        true
    }

    fn attacks(&self) -> bool {
        false
    }

    fn pretrain(&self, given: &Given, trainer: &mut Trainer) -> Result<Trained> {
        fit(given, trainer, &self.plan, &self.weak, Criterion::Standard)
    }
}

/// Trains an encoder and its classifier together, with all labels.
pub(super) fn fit(
    given: &Given,
    trainer: &mut Trainer,
    plan: &Plan,
    weak: &Weak,
    criterion: Criterion,
) -> Result<Trained> {
    let (train, classes) = (given.train, given.classes);
    let augment = Some(weak.clone());
    let device = &given.device;
    let objective = EndToEnd {
        task: Task::new(
            &train.images,
            &train.labels,
            classes,
            augment,
            given.ball,
            device,
        ),
        criterion,
    };
    let fresh = trainer.fresh_classifier(classes);
    Ok(trainer.fit("", &objective, plan, fresh)?.into())
}
