//! Tests that golden files which do not fit are refused.

use super::*;
use crate::weights::Tensors;

/// Tensors of each check: those that it must have, and some that it compares with or reads where they are there.
type Names = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const NAMES: &[Names] = &[
    ("high_frequency", &["input"], &["output.r8"]),
    (
        "contrastive_loss",
        &["views", "grad.t0.5"],
        &["loss.t0.1", "grad.t0.1"],
    ),
    (
        "class_losses",
        &[
            "logits",
            "logits_adv",
            "labels",
            "targets",
            "dlr",
            "ce.grad",
        ],
        &[],
    ),
    (
        "encoder",
        &[
            "input",
            "weight.conv1.weight",
            "weight.bn1.bn_list.0.bias",
            "eval.normal.features",
            "train.normal.grad.input",
            "train.pgd.running_var.bn1",
        ],
        &["train.pgd.grad.conv1.weight"],
    ),
    (
        "imagenet_stem",
        &["input", "weight.conv1.weight"],
        &["train.pgd.features"],
    ),
    (
        "advcl_step",
        &[
            "original",
            "view1",
            "view2",
            "labels.10",
            "start_cl",
            "iterate_cl.0",
            "iterate_ce.5",
            "grad_cl.1",
            "loss.total",
        ],
        &["grad.fc_002.bias", "updated.conv1.weight"],
    ),
    (
        "pgd20",
        &[
            "input",
            "linear.weight",
            "linear.bias",
            "labels",
            "start",
            "adv.step1",
            "adv",
            "logits",
            "loss_adv",
        ],
        &[],
    ),
    (
        "shards",
        &[
            "view1",
            "view3",
            "attacked_ce",
            "attacked2",
            "labels.2",
            "labels",
            "linear.bias",
            "advcl.2.loss",
            "attack.4.grad",
        ],
        &["acl.1.grad.conv1.weight"],
    ),
    (
        "kmeans",
        &["points", "centres.start", "centres", "labels"],
        &[],
    ),
    ("transforms", &["input"], &["hflip", "hue.0.08", "pad_crop"]),
    (
        "acl",
        &["view1", "view2", "iterate_2.0", "iterate_1.3", "grad_2.1"],
        &["grad.conv1.weight"],
    ),
    (
        "rocl",
        &[
            "view1",
            "view2",
            "iterate_1.0",
            "iterate_1.3",
            "loss.target",
        ],
        &["grad.conv1.weight"],
    ),
    (
        "deacl",
        &["student_clean", "student_adversarial", "teacher", "loss"],
        &[],
    ),
    (
        "lars",
        &[
            "weight.head_proj.0.weight",
            "weight.conv1.weight",
            "weight.head_proj.0.bias",
            "grad.0.conv1.weight",
            "grad.2.bn1.bn_list.0.weight",
            "updated_all.2.conv1.weight",
        ],
        &[],
    ),
    (
        "dynacl",
        &[
            "100.strength",
            "70.hue",
            "average.0",
            "online.2",
            "average.3",
        ],
        &[],
    ),
    (
        "apgd",
        &[
            "images",
            "labels",
            "targets",
            "logits",
            "model.weight",
            "model.bias",
            "model.bowl",
            "model.centre",
            "linf.ce.iterate",
            "linf.ce.gradient",
            "linf.ce.loss",
            "linf.ce.best",
            "linf.ce.step",
        ],
        &["checkpoints.100"],
    ),
    (
        "fab_projection",
        &["points", "weights", "residuals", "linf"],
        &[],
    ),
    (
        "square_step",
        &[
            "queries",
            "shares",
            "images",
            "linf.start_signs",
            "linf.windows",
            "linf.start",
            "l2.start_turned",
            "l2.side",
            "l2.next",
        ],
        &["pattern.5"],
    ),
];

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_refused() {
    let device = crate::device::open("cpu").expect("the CPU");
    for check in CHECKS {
        let of_check = NAMES.iter().find(|(name, ..)| *name == check.name);
        let (_, required, others) = of_check.expect("tensors of every check");
        let refused = |change: &dyn Fn(&mut Tensors), words: &str| {
            let file = Golden::parse(check.embedded, PathBuf::from("file"));
            let mut file = file.expect("a golden file");
            file.device = device.clone();
            change(&mut file.tensors);
            let error = (check.compute)(&mut file).expect_err(words);
            let text = error.to_string();
            assert!(text.contains(words), "{}, {words}: {text}", check.name);
            assert_eq!((error.exit_code(), error.hint().is_some()), (2, true));
        };
        for name in *required {
            let remove = |tensors: &mut Tensors| {
                tensors.remove(*name).expect("a tensor of this name");
            };
            // Without the prefix of weights, which a model's own names do not have.
            refused(&remove, name.trim_start_matches("weight."));
        }
        for name in required.iter().chain(*others) {
            let shorten = |tensors: &mut Tensors| {
                let (shape, values) = tensors.get_mut(*name).expect("a tensor of this name");
                let row = values.len() / shape[0];
                shape[0] -= 1;
                values.truncate(shape[0] * row);
            };
            // Another tensor may be the one that does not fit.
            refused(&shorten, "tensor ");
        }
    }
}

#[test]
fn inputs_of_another_rank_and_of_no_size_are_refused() {
    let device = crate::device::open("cpu").expect("the CPU");
    let cases: [(&str, &str, Vec<usize>, &str); 7] = [
        ("high_frequency", "input", vec![1, 0, 9, 9], "4 axes"),
        // No values, so that nothing but the shape could claim memory.
        (
            "high_frequency",
            "input",
            vec![0, 1, 1 << 40, 1 << 20],
            "4 axes",
        ),
        ("square_step", "pattern.1", vec![1 << 30, 0], "2 axes"),
        ("dynacl", "average.0", vec![], "1 axes"),
        ("class_losses", "logits", vec![7, 3], "4 classes or more"),
        ("apgd", "model.weight", vec![2, 8], "4 classes or more"),
        (
            "contrastive_loss",
            "views",
            vec![1, 8, 16],
            "2 views or more",
        ),
    ];
    for (name, input, shape, expected) in cases {
        let check = KnownCheck::find(name).expect("a check");
        let file = Golden::parse(check.embedded, PathBuf::from("file"));
        let mut file = file.expect("a golden file");
        file.device = device.clone();
        let values = vec![0.5; shape.iter().product()];
        file.tensors
            .insert(input.to_owned(), (shape.clone(), values));
        let error = (check.compute)(&mut file).expect_err(input).to_string();
        let words = format!("file: tensor {input}: expected {expected}");
        assert!(error.starts_with(&words), "{error}");
        assert!(error.ends_with(&format!("found {shape:?}")), "{error}");
    }
}
