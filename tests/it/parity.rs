//! Golden vectors: the program reproduces them, and notices when they are wrong.

use std::fs;
use std::path::Path;

use advcl::weights;

use crate::harness::{Files, refused};
use crate::{Answer, Transcript, advcl, copy, folder, get, put};

const CHECKS: [&str; 8] = [
    "high_frequency",
    "contrastive_loss",
    "class_losses",
    "encoder",
    "advcl_step",
    "pgd20",
    "kmeans",
    "transforms",
];

/// Checks of another first layer, the other methods and the attacks: embedded only.
const EMBEDDED_ONLY: [&str; 11] = [
    "shards",
    "batch_norm",
    "imagenet_stem",
    "acl",
    "rocl",
    "deacl",
    "lars",
    "dynacl",
    "apgd",
    "fab_projection",
    "square_step",
];

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// Changes the values of one tensor of a golden file.
fn change(path: &Path, tensor: &str, change: impl Fn(f32) -> f32) {
    edit(path, tensor, |_, values| {
        values.iter_mut().for_each(|value| *value = change(*value));
    });
}

/// Changes shape and values of one tensor of a golden file.
fn edit(path: &Path, tensor: &str, edit: impl Fn(&mut Vec<usize>, &mut Vec<f32>)) {
    let (mut tensors, metadata) = weights::load(path).expect("a golden file");
    let (shape, values) = tensors
        .get_mut(tensor)
        .unwrap_or_else(|| panic!("no tensor {tensor}"));
    edit(shape, values);
    let metadata: Vec<(&str, String)> = metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    weights::save(path, &tensors, &metadata).expect("a writable folder");
}

#[test]
fn every_golden_vector_is_reproduced() {
    let folder = folder();
    // Other sizes, widths, channels and seeds than the embedded ones, each on its own and both at
    // once.
    copy(&golden("rgb32"), &folder.path().join("colour"));
    copy(&golden("gray28"), &folder.path().join("gray"));
    let cases = [
        (advcl(folder.path(), "selftest"), vec!["embedded"]),
        (
            advcl(folder.path(), "selftest colour gray"),
            vec!["colour", "gray"],
        ),
    ];
    for (answer, sources) in cases {
        let answer = answer.expect(0);
        let lines: Vec<&str> = answer.stdout.lines().collect();
        let mut checks = CHECKS.to_vec();
        if sources == ["embedded"] {
            checks.extend(EMBEDDED_ONLY);
        }
        assert_eq!(lines.len(), checks.len() * sources.len(), "{answer}");
        for source in sources {
            for check in &checks {
                let is_it = |line: &&&str| {
                    line.starts_with("ok ")
                        && line.contains(&format!(" {check} "))
                        && line.ends_with(&format!("[{source}]"))
                };
                assert_eq!(
                    lines.iter().filter(is_it).count(),
                    1,
                    "{check} of {source}: {answer}"
                );
            }
        }
    }
}

#[test]
fn a_wrong_number_fails_its_check_and_no_other() {
    // One quantity of each kind that a check compares: an output, a statistic, a gradient, an
    // iterate, a label.
    type Case = (&'static str, &'static str, fn(f32) -> f32);
    let cases: [Case; 6] = [
        ("encoder", "eval.pgd.features", |value| value * 1.01),
        ("encoder", "train.pgd_ce.running_var.bn1", |value| {
            value * 1.001
        }),
        ("pgd20", "logits_adv", |value| value * 1.001),
        ("pgd20", "adv.step1", |value| value + 1e-5),
        ("contrastive_loss", "grad.t0.5", |value| -value),
        ("kmeans", "labels", |value| value + 1.0),
    ];
    let folder = folder();
    let put_golden = |name: &str, check: &str| {
        let file = format!("{check}.safetensors");
        let path = folder.path().join(name).join(&file);
        put(&path, get(golden("rgb20").join(file)));
        path
    };
    for (check, ..) in cases {
        put_golden("right", check);
    }
    put_golden("right", "class_losses");
    advcl(folder.path(), "selftest right").expect(0);
    // Each wrong number in a folder of its own, beside a check that stays right.
    let mut args = "selftest".to_owned();
    for (index, (check, tensor, wrong)) in cases.into_iter().enumerate() {
        let name = format!("wrong{index}");
        change(&put_golden(&name, check), tensor, wrong);
        put_golden(&name, "class_losses");
        args += &format!(" {name}");
    }
    let answer = advcl(folder.path(), &args).expect(1);
    let lines = |start: &str| -> Vec<&str> {
        let lines = answer.stdout.lines();
        lines.filter(|line| line.starts_with(start)).collect()
    };
    let (failed, passed, missed) = (lines("FAIL"), lines("ok"), lines("      miss"));
    assert_eq!(
        [failed.len(), passed.len(), missed.len()],
        [6; 3],
        "{answer}"
    );
    for (index, (check, tensor, _)) in cases.into_iter().enumerate() {
        let has = |line: &str, check: &str| {
            line.contains(&format!(" {check} ")) && line.ends_with(&format!("[wrong{index}]"))
        };
        assert!(has(failed[index], check), "{tensor}: {answer}");
        assert!(missed[index].contains(tensor), "{tensor}: {answer}");
        assert!(
            passed.iter().any(|line| has(line, "class_losses")),
            "{answer}"
        );
    }
    let mut transcript = Transcript::new(folder.path());
    transcript.add_without_numbers(&Answer {
        stdout: [failed, missed].concat().join("\n") + "\n",
        ..answer
    });
    transcript.check("wrong_numbers");
}

#[test]
fn a_golden_file_that_is_none_is_bad_input() {
    let kmeans = get(golden("gray28").join("kmeans.safetensors"));
    let folder = folder();
    let at = |name: &str, content: &[u8]| put(folder.path().join(name), content);
    at("cut/kmeans.safetensors", &kmeans[..kmeans.len() - 100]);
    at("empty/kmeans.safetensors", b"");
    at("text/kmeans.safetensors", b"not a safetensors file");
    at("none/kmeans.txt", b"");
    // A tensor away, and a check that this version does not know.
    let path = folder.path().join("lacking/kmeans.safetensors");
    at("lacking/kmeans.safetensors", &kmeans);
    let (mut tensors, metadata) = weights::load(&path).expect("a golden file");
    let (_, params) = metadata.get_key_value("params").expect("params");
    tensors.remove("points");
    let entries = |check: &str| [("check", check.to_owned()), ("params", params.clone())];
    weights::save(&path, &tensors, &entries("kmeans")).expect("a writable folder");
    let path = folder.path().join("unknown/kmeans.safetensors");
    fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    weights::save(&path, &tensors, &entries("k-medians")).expect("a writable folder");

    let mut transcript = Transcript::new(folder.path());
    for name in [
        "cut", "empty", "text", "none", "nowhere", "lacking", "unknown",
    ] {
        transcript.refuse(&format!("selftest {name}"));
    }
    transcript.check("wrong_golden_files");
}

#[test]
fn a_golden_file_with_a_tensor_of_another_shape_is_bad_input() {
    let folder = folder();
    for (check, tensor, expected, found) in [
        ("class_losses", "logits_adv", "[7, 10]", "[7, 5]"),
        ("kmeans", "centres.start", "[5, 6]", "[5, 3]"),
        ("pgd20", "linear.weight", "[10, 16]", "[10, 8]"),
        ("advcl_step", "view2", "[6, 3, 20, 20]", "[6, 3, 20, 10]"),
        ("acl", "iterate_1.0", "[6, 3, 20, 20]", "[6, 3, 20, 10]"),
        ("dynacl", "100.strength", "[100]", "[50]"),
        ("square_step", "pattern.8", "[8, 8]", "[8, 4]"),
    ] {
        let file = format!("{check}.safetensors");
        let path = folder.path().join(check).join(&file);
        put(&path, get(golden("rgb20").join(&file)));
        edit(&path, tensor, |shape, values| {
            *shape.last_mut().expect("an axis") /= 2;
            values.truncate(shape.iter().product());
        });
        let refused = refused(
            folder.path(),
            &format!("selftest {check}"),
            Files::Untouched,
        );
        let words = format!(
            "error: {check}/{file}: tensor {tensor}: expected {expected}, found {found}\nhint: "
        );
        assert!(refused.stderr.starts_with(&words), "{refused}");
    }
}
