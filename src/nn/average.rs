//! A moving average of a network's weights.

use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Whether a parameter of this name is trained; BatchNorm's running statistics are not. (Without autodiff a parameter
/// does not tell.)
fn is_trained(name: Option<&String>) -> bool {
    !name.is_some_and(|name| name.starts_with("running_"))
}

/// A copy that shares nothing with its source: neither parameters' identities, by which optimizers and statistics know
/// them, nor what happens to either afterwards.
pub fn unshared<M: Module>(module: &M) -> M {
    #[derive(Default)]
    struct Anew {
        path: Vec<String>,
    }
    impl ModuleMapper for Anew {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let trained = is_trained(self.path.last());
            Param::from_tensor(param.val()).set_require_grad(trained)
        }
    }
    module.clone().map(&mut Anew::default())
}

/// `momentum · average + (1 − momentum) · online`, of everything that is trained. What is not, BatchNorm's running
/// statistics, stays the average's own.
pub fn moving_average<M: Module>(average: M, online: &M, momentum: f64) -> M {
    struct Values(VecDeque<Tensor<1>>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push_back(param.val().reshape([-1]));
        }
    }
    struct Moved {
        path: Vec<String>,
        online: VecDeque<Tensor<1>>,
        momentum: f64,
    }
    impl ModuleMapper for Moved {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let online = self.online.pop_front().expect("the same module");
            if !is_trained(self.path.last()) {
                return param;
            }
            let momentum = self.momentum;
            param.map(|own| {
                let online = online.reshape(own.dims());
                own * momentum + online * (1.0 - momentum)
            })
        }
    }
    let mut values = Values(VecDeque::new());
    online.visit(&mut values);
    average.map(&mut Moved {
        path: Vec::new(),
        online: values.0,
        momentum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::engine::tests::Turn;
    use crate::nn::{Backbone, Depth, EncoderConfig, Mode, Route, Statistics, Stem};
    use crate::train::{Optimizer, Sgd};
    use crate::weights;
    use crate::{device, random};

    #[test]
    fn an_average_shares_nothing_with_its_source_and_follows_it() {
        let _turn = Turn::take();
        let device = device::open("cpu").expect("the CPU");
        let config = EncoderConfig {
            depth: Depth::D10,
            width: 2,
            stem: Stem::Strided,
        };
        let mut rng = random::generator(0, "average", 0);
        let online = Backbone::new(&config, 1, 2, &[], &mut rng, &device);
        let average = unshared(&online);
        let start = weights::export(&average);
        assert!(start == weights::export(&online));

        // The source is trained, statistics and all: the copy stays.
        let tracked = online.clone().train();
        let mut statistics = Statistics::default();
        let mut mode = Mode::Train(&mut statistics);
        let images = Tensor::ones([4, 1, 8, 8], &device);
        let loss = tracked
            .embed(images, Route::Normal, &mut mode)
            .square()
            .sum()
            + tracked.encoder.conv1.weight.val().square().sum();
        let mut sgd = Sgd::new(0.0, 0.1, Optimizer::Sgd);
        let stepped = sgd.step(0.5, online, &tracked, &loss.backward());
        let both = [statistics.absorb_into(stepped), average];
        let [online, average] = both;
        let trained = weights::export(&online);
        assert!(start == weights::export(&average));

        // Nor do its own identities let it be taken for the source.
        let untouched = sgd.step(
            0.5,
            average.clone(),
            &tracked,
            &loss_of(&tracked).backward(),
        );
        assert!(start == weights::export(&untouched));

        let moved = weights::export(&moving_average(average, &online, 0.75));
        let mut changed = 0;
        for (name, (_, values)) in &moved {
            let (before, towards) = (&start[name].1, &trained[name].1);
            for ((value, before), towards) in values.iter().zip(before).zip(towards) {
                let share = if name.contains("running_") { 0.0 } else { 0.25 };
                let expected = before + share * (towards - before);
                assert!((value - expected).abs() < 1e-6, "{name}");
                changed += usize::from(value != before);
            }
        }
        assert!(changed > 100, "{changed} values moved");
    }

    fn loss_of(tracked: &Backbone) -> Tensor<1> {
        tracked.encoder.conv1.weight.val().square().sum()
    }
}
