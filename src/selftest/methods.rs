//! Checks of the other methods: losses and attacks of ACL and RoCL, DeACL's loss, LARS, and
//! DynACL's schedules and moving average.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::golden::Golden;
use super::network::{compare_gradients, compare_iterate, model};
use super::{GRADIENT, OUTPUT};
use crate::attack::{Ball, Norm, pgd};
use crate::data::augment::Strong;
use crate::error::Result;
use crate::loss::{BASE_TEMPERATURE, FixedViews, contrastive};
use crate::nn::{Backbone, Mode, Route, moving_average};
use crate::pretrain::dynacl::DynAclSettings;
use crate::pretrain::{acl, deacl, frozen_features, rocl};
use crate::tensor::to_vec;
use crate::train::{Optimizer, Plan, Schedule, Sgd, named_gradients};
use crate::weights;

/// Network, views, attack and loss of ACL's and RoCL's files.
struct Setting {
    model: Backbone,
    views: [Tensor<4>; 2],
    /// Shape of every view, clean or attacked.
    shape: [usize; 4],
    ball: Ball,
    step_size: f64,
    steps: usize,
    temperature: f64,
    scale: f64,
}

impl Setting {
    fn read(file: &Golden) -> Result<Self> {
        let shape: [usize; 4] = file.dims("view1")?;
        let views = [
            file.tensor_of("view1", shape)?,
            file.tensor_of("view2", shape)?,
        ];
        Ok(Self {
            model: model(file, shape[1], &file.numbers("clusters")?)?,
            views,
            shape,
            ball: Ball {
                norm: Norm::Linf,
                radius: file.number("epsilon")?,
            },
            step_size: file.number("step_size")?,
            steps: file.count("steps")?,
            temperature: file.number("temperature")?,
            scale: BASE_TEMPERATURE / file.number("base_temperature")?,
        })
    }

    /// Golden iterate of a view, counted from 1, after so many steps.
    fn iterate(&self, file: &Golden, view: usize, step: usize) -> Result<Tensor<4>> {
        file.tensor_of(&format!("iterate_{view}.{step}"), self.shape)
    }

    /// Compares the gradient at each golden iterate of `count` views that are attacked together,
    /// and the next iterate.
    fn compare_attack(
        &self,
        file: &mut Golden,
        count: usize,
        objective: impl Fn(Tensor<4>) -> Tensor<1>,
    ) -> Result<()> {
        let originals = Tensor::cat(self.views[..count].to_vec(), 0);
        for step in 0..self.steps {
            let each = (1..=count).map(|v| self.iterate(file, v, step));
            let iterate = Tensor::cat(each.collect::<Result<Vec<_>>>()?, 0);
            let gradient = pgd::gradient(&mut |x| objective(x), iterate.clone());
            let next = self.ball.step(iterate, gradient.clone(), self.step_size);
            let next = self.ball.project(next, &originals);
            let parts = gradient
                .chunk(count, 0)
                .into_iter()
                .zip(next.chunk(count, 0));
            for (v, (gradient, next)) in parts.enumerate() {
                let name = format!("grad_{}.{step}", v + 1);
                file.compare_tensor(&name, gradient, GRADIENT)?;
                let (_, golden) = file.values(&name)?;
                let name = format!("iterate_{}.{}", v + 1, step + 1);
                compare_iterate(file, &name, next, &golden)?;
            }
        }
        Ok(())
    }
}

/// Checks ACL: the attack on both views, both streams, the adversarial-to-standard loss and all
/// gradients.
pub fn acl(file: &mut Golden) -> Result<()> {
    let setting = Setting::read(file)?;
    let (temperature, scale) = (setting.temperature, setting.scale);
    let features = frozen_features(&setting.model, Route::Pgd);
    let objective = acl::joint_loss(&setting.model, temperature);
    setting.compare_attack(file, 2, |x| objective(features(x)) * scale)?;

    let tracked = setting.model.clone().train();
    let attacked = [
        setting.iterate(file, 1, setting.steps)?,
        setting.iterate(file, 2, setting.steps)?,
    ];
    let stream = |views: &[Tensor<4>], route| {
        let both = Tensor::cat(views.to_vec(), 0);
        let both = tracked.embed(both, route, &mut Mode::Batch);
        contrastive(both.chunk(2, 0), temperature) * scale
    };
    let clean = stream(&setting.views, Route::Normal);
    let adversarial = stream(&attacked, Route::Pgd);
    let total = (clean.clone() + adversarial.clone()) / 2.0;
    let gradients = total.backward();
    file.compare_tensor("loss.clean", clean, OUTPUT)?;
    file.compare_tensor("loss.adversarial", adversarial, OUTPUT)?;
    file.compare_tensor("loss.total", total, OUTPUT)?;
    compare_gradients(file, "grad.", &named_gradients(&tracked, &gradients))?;

    let [first, _] = attacked;
    let [_, second] = setting.views.clone();
    let model = &setting.model;
    let pair = vec![
        model.embed(first, Route::Pgd, &mut Mode::Batch),
        model.embed(second, Route::Normal, &mut Mode::Batch),
    ];
    let loss = contrastive(pair, temperature) * scale;
    file.compare_tensor("loss.adversarial_standard", loss, OUTPUT)
}

/// Checks RoCL: the instance-wise attack, both terms and all gradients.
pub fn rocl(file: &mut Golden) -> Result<()> {
    let setting = Setting::read(file)?;
    let (temperature, scale) = (setting.temperature, setting.scale);
    let [first, target] = setting.views.clone();
    let features = frozen_features(&setting.model, Route::Normal);
    let embed = |x| setting.model.project(features(x), &mut Mode::Eval);
    let fixed = FixedViews::new(vec![embed(target.clone())], temperature);
    // Each anchor of a pair has one positive, so the sum over positives is the mean.
    setting.compare_attack(file, 1, |x| fixed.contrastive(embed(x)) * scale)?;

    let tracked = setting.model.clone().train();
    let attacked = setting.iterate(file, 1, setting.steps)?;
    let term = |views: &[Tensor<4>]| {
        let all = Tensor::cat(views.to_vec(), 0);
        let all = tracked.embed(all, Route::Normal, &mut Mode::Batch);
        contrastive(all.chunk(views.len(), 0), temperature) * scale
    };
    let pair = term(&[attacked.clone(), target.clone()]);
    let three = term(&[first, target, attacked]);
    // The file's losses are sums over the positives, of which an anchor has two among three views.
    let total = rocl::released_balance(&three, &pair, 1.0 / file.number("lambda")?) * 2.0;
    let gradients = total.backward();
    file.compare_tensor("loss.contrastive", three * 2.0, OUTPUT)?;
    file.compare_tensor("loss.target", pair, OUTPUT)?;
    file.compare_tensor("loss.total", total, OUTPUT)?;
    compare_gradients(file, "grad.", &named_gradients(&tracked, &gradients))
}

/// Checks DeACL: the loss and the attack's loss, with their gradients.
pub fn deacl(file: &mut Golden) -> Result<()> {
    let shape: [usize; 2] = file.dims("student_clean")?;
    let lifted = |file: &Golden, name: &str| -> Result<Tensor<2>> {
        Ok(file.tensor_of(name, shape)?.autodiff().require_grad())
    };
    let clean = lifted(file, "student_clean")?;
    let attacked = lifted(file, "student_adversarial")?;
    let teacher = file.tensor_of("teacher", shape)?;
    let [distilled, robust] = deacl::terms(clean.clone(), attacked.clone(), teacher.clone());
    let loss = distilled + robust * file.number("robust_weight")?;
    let gradients = loss.backward();
    file.compare_tensor("loss", loss, OUTPUT)?;
    for (name, of) in [("clean", &clean), ("adversarial", &attacked)] {
        let gradient = of.grad(&gradients).map(to_vec).unwrap_or_default();
        file.compare(&format!("grad.student_{name}"), &gradient, GRADIENT)?;
    }
    let attacked = lifted(file, "student_adversarial")?;
    let loss = deacl::attack_loss(attacked.clone(), teacher);
    let gradient = attacked.grad(&loss.backward());
    file.compare_tensor("attack", loss, OUTPUT)?;
    let gradient = gradient.map(to_vec).unwrap_or_default();
    file.compare("attack.grad.student_adversarial", &gradient, GRADIENT)
}

/// One parameter of each shape in the file.
#[derive(Module, Debug)]
struct Parameters {
    matrix: Param<Tensor<2>>,
    kernel: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    scale: Param<Tensor<1>>,
}

const NAMES: [(&str, &str); 4] = [
    ("matrix", "head_proj.0.weight"),
    ("kernel", "conv1.weight"),
    ("bias", "head_proj.0.bias"),
    ("scale", "bn1.bn_list.0.weight"),
];

/// Checks three updates by LARS that adapt every parameter.
pub fn lars(file: &mut Golden) -> Result<()> {
    let mut model = Parameters {
        matrix: Param::from_tensor(file.tensor::<2>(&format!("weight.{}", NAMES[0].1))?),
        kernel: Param::from_tensor(file.tensor::<4>(&format!("weight.{}", NAMES[1].1))?),
        bias: Param::from_tensor(file.tensor::<1>(&format!("weight.{}", NAMES[2].1))?),
        scale: Param::from_tensor(file.tensor::<1>(&format!("weight.{}", NAMES[3].1))?),
    };
    let start = weights::export(&model);
    let (momentum, decay) = (file.number("momentum")?, file.number("weight_decay")?);
    let mut sgd = Sgd::new(momentum, decay, Optimizer::Lars);
    for step in 0..file.count("steps")? {
        let tracked = model.clone().train();
        // A loss with just these gradients.
        let loss = product(file, &tracked.matrix, step, NAMES[0].1)?
            + product(file, &tracked.kernel, step, NAMES[1].1)?
            + product(file, &tracked.bias, step, NAMES[2].1)?
            + product(file, &tracked.scale, step, NAMES[3].1)?;
        model = sgd.step(file.number("lr")?, model, &tracked, &loss.backward());
        let now = weights::export(&model);
        for (field, name) in NAMES {
            let (before, after) = (&start[field].1, &now[field].1);
            let change: Vec<f32> = after.iter().zip(before).map(|(a, b)| a - b).collect();
            file.compare(&format!("updated_all.{}.{name}", step + 1), after, OUTPUT)?;
            file.compare(
                &format!("change_all.{}.{name}", step + 1),
                &change,
                GRADIENT,
            )?;
        }
    }
    Ok(())
}

/// Sum over a parameter times its golden gradient in a step, which must have its shape.
fn product<const D: usize>(
    file: &Golden,
    parameter: &Param<Tensor<D>>,
    step: usize,
    name: &str,
) -> Result<Tensor<1>> {
    let parameter = parameter.val();
    let gradient = file.tensor_of(&format!("grad.{step}.{name}"), parameter.dims())?;
    Ok((parameter * gradient).sum())
}

/// Checks DynACL: the augmentation and the terms' weights of every epoch, and the moving average.
pub fn dynacl(file: &mut Golden) -> Result<()> {
    let (epochs, periods) = (file.numbers("epochs")?, file.numbers("periods")?);
    if periods.len() != epochs.len() || periods.contains(&0) {
        let (place, found) = ("params periods".to_owned(), format!("{periods:?}"));
        let expected = format!("{} numbers from 1, one for each of epochs", epochs.len());
        return Err(file.broken(place, &expected, found));
    }
    for (&epochs, &period) in epochs.iter().zip(&periods) {
        // Before so many values are computed, as many must be there.
        file.shaped(&format!("{epochs}.strength"), &[epochs])?;
        let settings = DynAclSettings {
            plan: Plan {
                epochs,
                batch_size: 2,
                lr: 1.0,
                schedule: Schedule::Steps {
                    milestones: Vec::new(),
                },
                momentum: 0.9,
                weight_decay: 0.0,
                optimizer: Optimizer::Sgd,
                stretched: Vec::new(),
                micro_batch: None,
            },
            temperature: 0.5,
            period,
            reweighting: file.number("reweighting")?,
            average_momentum: file.number("average_momentum")?,
            attack_steps: 1,
            attack_step_size: None,
            strong: Strong {
                scale: (0.1, 1.0),
                ..Strong::default()
            },
        };
        let each = |value: &dyn Fn(usize) -> f32| (0..epochs).map(value).collect::<Vec<_>>();
        let strong = |epoch| settings.strong_at(epoch);
        for (name, values) in [
            ("strength", each(&|e| settings.strength(e) as f32)),
            ("jitter", each(&|e| strong(e).jitter.contrast)),
            ("hue", each(&|e| strong(e).jitter.hue)),
            (
                "jitter_probability",
                each(&|e| strong(e).jitter.probability),
            ),
            ("grayscale_probability", each(&|e| strong(e).grayscale)),
            ("crop_scale", each(&|e| strong(e).scale.0)),
            ("weight.clean", each(&|e| settings.weights(e)[0] as f32)),
            (
                "weight.adversarial",
                each(&|e| settings.weights(e)[1] as f32),
            ),
        ] {
            file.compare(&format!("{epochs}.{name}"), &values, OUTPUT)?;
        }
    }
    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }
    let [length] = file.dims("average.0")?;
    let one = |file: &Golden, name: &str| -> Result<One> {
        Ok(One {
            weight: Param::from_tensor(file.tensor_of(name, [length])?),
        })
    };
    let mut average = one(file, "average.0")?;
    for step in 1..=3 {
        let online = one(file, &format!("online.{step}"))?;
        average = moving_average(average, &online, file.number("average_momentum")?);
        let name = format!("average.{step}");
        file.compare_tensor(&name, average.weight.val(), OUTPUT)?;
    }
    Ok(())
}
