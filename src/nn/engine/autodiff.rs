//! The way back of each operation, for any backend.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, TensorMetadata};
use burn::tensor::Shape;

use super::{EngineOps, Normed};

/// Sums over all but the channels.
fn sum_of_channels<B: EngineOps>(values: FloatTensor<B>) -> FloatTensor<B> {
    let rows = super::rows(&values.shape());
    let channels = Shape::new([rows[1]]);
    B::float_reshape(
        B::float_sum_dim(B::float_reshape(values, rows), 0),
        channels,
    )
}

/// Registers the gradients of a convolution's input and weight and of its shift, for those that ask, given the one
/// behind ReLU.
fn conv_shift_gradients<B: EngineOps>(
    [of_x, of_w, of_shift]: [Option<NodeId>; 3],
    [x, w]: [FloatTensor<B>; 2],
    dy: FloatTensor<B>,
    stride: usize,
    grads: &mut Gradients,
) {
    if let Some(node) = of_shift {
        grads.register::<B>(node, sum_of_channels::<B>(dy.clone()));
    }
    if let Some(node) = of_w {
        let dw = B::engine_conv_weight(x.clone(), w.clone(), dy.clone(), stride);
        grads.register::<B>(node, dw);
    }
    if let Some(node) = of_x {
        grads.register::<B>(node, B::engine_conv_data(x, w, dy, stride));
    }
}

/// The gradients of an affine's scale and shift: sums of `g · x` and of `g` over the rows.
fn affine_parameters<B: EngineOps>(
    masked: FloatTensor<B>,
    x: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let sum = sum_of_channels::<B>;
    (sum(B::float_mul(masked.clone(), x)), sum(masked))
}

impl<B: EngineOps, C: CheckpointStrategy> EngineOps for Autodiff<B, C> {
    fn engine_conv(x: FloatTensor<Self>, w: FloatTensor<Self>, stride: usize) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 2> for Back {
            type State = (NodeId, NodeId, usize);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let [of_x, of_w] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, w, stride) = ops.state;
                let x: FloatTensor<B> = saved.retrieve_node_output(x);
                let w: FloatTensor<B> = saved.retrieve_node_output(w);
                if let Some(node) = of_x {
                    let dx = B::engine_conv_data(x.clone(), w.clone(), dy.clone(), stride);
                    grads.register::<B>(node.id, dx);
                }
                if let Some(node) = of_w {
                    grads.register::<B>(node.id, B::engine_conv_weight(x, w, dy, stride));
                }
            }
        }
        match Back
            .prepare::<C>([x.node(), w.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&w), stride);
                let ((x, _x), (w, _w)) = (x.into_parts(), w.into_parts());
                prep.finish(state, B::engine_conv(x, w, stride))
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (w, _w)) = (x.into_parts(), w.into_parts());
                prep.finish(B::engine_conv(x, w, stride))
            }
        }
    }

    fn engine_conv_shift(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        stride: usize,
        relu: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 3> for Back {
            type State = (NodeId, NodeId, Option<FloatTensor<B>>, usize);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node);
                let (x, w, y, stride) = ops.state;
                let dy = match y {
                    Some(y) => B::engine_relu_backward(dy, y),
                    None => dy,
                };
                let inputs = [x, w].map(|node| saved.retrieve_node_output(node));
                let parents = ops.parents.map(|node| node.map(|node| node.id));
                conv_shift_gradients::<B>(parents, inputs, dy, stride, grads);
            }
        }
        let nodes = [x.node(), w.node(), shift.node()];
        match Back.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (at_x, at_w) = (prep.checkpoint(&x), prep.checkpoint(&w));
                let ((x, _x), (w, _w), (s, _s)) =
                    (x.into_parts(), w.into_parts(), shift.into_parts());
                let y = B::engine_conv_shift(x, w, s, stride, relu);
                prep.finish((at_x, at_w, relu.then(|| y.clone()), stride), y)
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (w, _w), (s, _s)) =
                    (x.into_parts(), w.into_parts(), shift.into_parts());
                prep.finish(B::engine_conv_shift(x, w, s, stride, relu))
            }
        }
    }

    fn engine_conv_shift_add(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 4> for Back {
            type State = (NodeId, NodeId, FloatTensor<B>, usize);

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node);
                let (x, w, y, stride) = ops.state;
                let dy = B::engine_relu_backward(dy, y);
                let [of_x, of_w, of_shift, of_residual] = ops.parents;
                if let Some(node) = of_residual {
                    grads.register::<B>(node.id, dy.clone());
                }
                let inputs = [x, w].map(|node| saved.retrieve_node_output(node));
                let parents = [of_x, of_w, of_shift].map(|node| node.map(|node| node.id));
                conv_shift_gradients::<B>(parents, inputs, dy, stride, grads);
            }
        }
        let nodes = [x.node(), w.node(), shift.node(), residual.node()];
        match Back.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (at_x, at_w) = (prep.checkpoint(&x), prep.checkpoint(&w));
                let ((x, _x), (w, _w), (s, _s)) =
                    (x.into_parts(), w.into_parts(), shift.into_parts());
                let (r, _r) = residual.into_parts();
                let y = B::engine_conv_shift_add(x, w, s, r, stride);
                prep.finish((at_x, at_w, y.clone(), stride), y)
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (w, _w), (s, _s)) =
                    (x.into_parts(), w.into_parts(), shift.into_parts());
                let (r, _r) = residual.into_parts();
                prep.finish(B::engine_conv_shift_add(x, w, s, r, stride))
            }
        }
    }

    fn engine_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 1> for Back {
            type State = NodeId;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let [parent] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let x: FloatTensor<B> = saved.retrieve_node_output(ops.state);
                if let Some(node) = parent {
                    grads.register::<B>(node.id, B::engine_pool_backward(x, dy));
                }
            }
        }
        match Back.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                let (x, _x) = x.into_parts();
                prep.finish(state, B::engine_pool(x))
            }
            OpsKind::UnTracked(prep) => {
                let (x, _x) = x.into_parts();
                prep.finish(B::engine_pool(x))
            }
        }
    }

    fn engine_max_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 1> for Back {
            type State = (NodeId, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let [parent] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, y) = ops.state;
                let x: FloatTensor<B> = saved.retrieve_node_output(x);
                if let Some(node) = parent {
                    grads.register::<B>(node.id, B::engine_max_pool_backward(x, y, dy));
                }
            }
        }
        match Back.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let at_x = prep.checkpoint(&x);
                let (x, _x) = x.into_parts();
                let y = B::engine_max_pool(x);
                prep.finish((at_x, y.clone()), y)
            }
            OpsKind::UnTracked(prep) => {
                let (x, _x) = x.into_parts();
                prep.finish(B::engine_max_pool(x))
            }
        }
    }

    fn engine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> Normed<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 3> for Back {
            type State = (NodeId, NodeId, [FloatTensor<B>; 4], bool);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let parents = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, weight, [y, mean, var, shift], relu) = ops.state;
                let x: FloatTensor<B> = saved.retrieve_node_output(x);
                let weight: FloatTensor<B> = saved.retrieve_node_output(weight);
                let (dx, dw, db) =
                    B::engine_norm_backward(dy, x, y, weight, mean, var, shift, relu);
                for (node, gradient) in parents.into_iter().zip([dx, dw, db]) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }
        let nodes = [x.node(), weight.node(), bias.node()];
        let (y, mean, var, shift) = match Back.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (at_x, at_weight) = (prep.checkpoint(&x), prep.checkpoint(&weight));
                let ((x, _x), (w, _w), (b, _b)) =
                    (x.into_parts(), weight.into_parts(), bias.into_parts());
                let (y, mean, var, shift) = B::engine_norm(x, w, b, relu);
                let kept = [y.clone(), mean.clone(), var.clone(), shift.clone()];
                (
                    prep.finish((at_x, at_weight, kept, relu), y),
                    mean,
                    var,
                    shift,
                )
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (w, _w), (b, _b)) =
                    (x.into_parts(), weight.into_parts(), bias.into_parts());
                let (y, mean, var, shift) = B::engine_norm(x, w, b, relu);
                (prep.finish(y), mean, var, shift)
            }
        };
        (
            y,
            Self::from_inner(mean),
            Self::from_inner(var),
            Self::from_inner(shift),
        )
    }

    fn engine_norm_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> Normed<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 4> for Back {
            type State = (NodeId, NodeId, [FloatTensor<B>; 4]);

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let parents = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, weight, [y, mean, var, shift]) = ops.state;
                let x: FloatTensor<B> = saved.retrieve_node_output(x);
                let weight: FloatTensor<B> = saved.retrieve_node_output(weight);
                let (dx, dw, db, dr) =
                    B::engine_norm_add_backward(dy, x, y, weight, mean, var, shift);
                for (node, gradient) in parents.into_iter().zip([dx, dw, db, dr]) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }
        let nodes = [x.node(), weight.node(), bias.node(), residual.node()];
        let (y, mean, var, shift) = match Back.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (at_x, at_weight) = (prep.checkpoint(&x), prep.checkpoint(&weight));
                let ((x, _x), (w, _w), (b, _b)) =
                    (x.into_parts(), weight.into_parts(), bias.into_parts());
                let (r, _r) = residual.into_parts();
                let (y, mean, var, shift) = B::engine_norm_add(x, w, b, r);
                let kept = [y.clone(), mean.clone(), var.clone(), shift.clone()];
                (prep.finish((at_x, at_weight, kept), y), mean, var, shift)
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (w, _w), (b, _b)) =
                    (x.into_parts(), weight.into_parts(), bias.into_parts());
                let (r, _r) = residual.into_parts();
                let (y, mean, var, shift) = B::engine_norm_add(x, w, b, r);
                (prep.finish(y), mean, var, shift)
            }
        };
        (
            y,
            Self::from_inner(mean),
            Self::from_inner(var),
            Self::from_inner(shift),
        )
    }

    fn engine_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 3> for Back {
            type State = (NodeId, NodeId, FloatTensor<B>, bool);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let [of_x, of_scale, of_shift] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, scale, y, relu) = ops.state;
                let x: FloatTensor<B> = saved.retrieve_node_output(x);
                let scale: FloatTensor<B> = saved.retrieve_node_output(scale);
                if of_scale.is_some() || of_shift.is_some() {
                    let masked = if relu {
                        B::relu_backward(y.clone(), dy.clone())
                    } else {
                        dy.clone()
                    };
                    let (dscale, dshift) = affine_parameters::<B>(masked, x);
                    for (node, gradient) in [(of_scale, dscale), (of_shift, dshift)] {
                        if let Some(node) = node {
                            grads.register::<B>(node.id, gradient);
                        }
                    }
                }
                if let Some(node) = of_x {
                    grads.register::<B>(node.id, B::engine_affine_backward(dy, y, scale, relu));
                }
            }
        }
        match Back
            .prepare::<C>([x.node(), scale.node(), shift.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let (at_x, at_scale) = (prep.checkpoint(&x), prep.checkpoint(&scale));
                let ((x, _x), (a, _a), (b, _b)) =
                    (x.into_parts(), scale.into_parts(), shift.into_parts());
                let y = B::engine_affine(x, a, b, relu);
                prep.finish((at_x, at_scale, y.clone(), relu), y)
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (a, _a), (b, _b)) =
                    (x.into_parts(), scale.into_parts(), shift.into_parts());
                prep.finish(B::engine_affine(x, a, b, relu))
            }
        }
    }

    fn engine_affine_add(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Back;
        impl<B: EngineOps> Backward<B, 4> for Back {
            type State = (NodeId, NodeId, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 4>,
                grads: &mut Gradients,
                saved: &mut Checkpointer,
            ) {
                let [of_x, of_scale, of_shift, of_residual] = ops.parents;
                let dy = grads.consume::<B>(&ops.node);
                let (x, scale, y) = ops.state;
                let x: FloatTensor<B> = saved.retrieve_node_output(x);
                let scale: FloatTensor<B> = saved.retrieve_node_output(scale);
                let (dx, masked) = B::engine_affine_add_backward(dy, y, scale);
                if of_scale.is_some() || of_shift.is_some() {
                    let (dscale, dshift) = affine_parameters::<B>(masked.clone(), x);
                    for (node, gradient) in [(of_scale, dscale), (of_shift, dshift)] {
                        if let Some(node) = node {
                            grads.register::<B>(node.id, gradient);
                        }
                    }
                }
                for (node, gradient) in [(of_x, dx), (of_residual, masked)] {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }
        let nodes = [x.node(), scale.node(), shift.node(), residual.node()];
        match Back.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (at_x, at_scale) = (prep.checkpoint(&x), prep.checkpoint(&scale));
                let ((x, _x), (a, _a), (b, _b)) =
                    (x.into_parts(), scale.into_parts(), shift.into_parts());
                let (r, _r) = residual.into_parts();
                let y = B::engine_affine_add(x, a, b, r);
                prep.finish((at_x, at_scale, y.clone()), y)
            }
            OpsKind::UnTracked(prep) => {
                let ((x, _x), (a, _a), (b, _b)) =
                    (x.into_parts(), scale.into_parts(), shift.into_parts());
                let (r, _r) = residual.into_parts();
                prep.finish(B::engine_affine_add(x, a, b, r))
            }
        }
    }
}
