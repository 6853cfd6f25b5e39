//! Bad input: exit code 2, one clear line that says where, no panic, and nothing that was there is touched.

use std::path::Path;

use crate::{TINY, advcl, folder, put, snapshot};

/// A command line, and words of the message.
pub type Case<'a> = (&'a str, &'a [&'a str]);

/// Runs the program in `folder` and holds it to the rule above.
#[track_caller]
pub fn refused(folder: &Path, args: &str, words: &[&str]) {
    let before = snapshot(folder);
    let answer = advcl(folder, args).expect(2);
    let error = answer
        .stderr
        .find("error: ")
        .unwrap_or_else(|| panic!("no error: {answer}"));
    for word in words {
        assert!(
            answer.stderr[error..].contains(word),
            "expected {word:?} in {answer}"
        );
    }
    assert_eq!(answer.stdout, "", "{answer}");
    let after = snapshot(folder);
    for (path, content) in &before {
        assert!(
            after.get(path) == Some(content),
            "{} changed: {answer}",
            path.display()
        );
    }
    let half = after
        .keys()
        .find(|path| path.extension().is_some_and(|e| e == "part"));
    assert_eq!(half, None, "a temporary file is left: {answer}");
}

/// [`refused`], and no file is added either.
#[track_caller]
pub fn refused_at_the_door(folder: &Path, args: &str, words: &[&str]) {
    let before = snapshot(folder);
    refused(folder, args, words);
    let after = snapshot(folder);
    let added: Vec<_> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .collect();
    assert!(added.is_empty(), "{args:?} added {added:?}");
}

#[test]
fn recipes_and_arguments() {
    let folder = folder();
    let path = folder.path();
    // A line of the tiny recipe changed: the message has the line and the column of what is wrong.
    let written: [(&str, &str, &[&str]); 15] = [
        (
            "width = 2",
            "widht = 2",
            &["column 1: unknown field `widht`, expected one of `depth`, `width`"],
        ),
        (
            "width = 2",
            "width = \"two\"",
            &["column 9: invalid type: string \"two\""],
        ),
        (
            "width = 2",
            "width = 0",
            &["encoder.width: expected 1 to 1024 channels, found 0"],
        ),
        ("width = 2", "", &["missing field `width`"]),
        (
            "depth = 10",
            "depth = 11",
            &["column 9: no ResNet of depth 11: expected 10, 18, 34 or 50"],
        ),
        (
            "radius = \"0.1\"",
            "radius = 1.5",
            &[
                "column 10: expected a distance",
                "between 0 and 1",
                "\"1.5\"",
            ],
        ),
        (
            "radius = \"0.1\"",
            "radius = -0.1",
            &["column 10: expected a distance", "\"-0.1\""],
        ),
        (
            "radius = \"0.1\"",
            "radius = \"8/0\"",
            &["column 10: expected a distance", "\"8/0\""],
        ),
        (
            "norm = \"linf\"",
            "norm = \"l1\"",
            &["column 8: unknown variant `l1`, expected `linf` or `l2`"],
        ),
        (
            "counts = [2, 5]",
            "counts = [1]",
            &["cluster.counts: expected different numbers, 2 or more, found [1]"],
        ),
        ("[finetune.slf]", "[finetune.slf", &["column "]),
        (
            "[finetune.slf]",
            "[finetune.semi-supervized]",
            &[
                "column 11: no finetuning mode \"semi-supervized\"; did you mean \"semi-supervised\"?",
            ],
        ),
        (
            "[pretrain.simclr]",
            "[pretrain.simcrl]",
            &[
                "column ",
                "no pretraining method \"simcrl\"; did you mean \"simclr\"?",
            ],
        ),
        (
            "[pretrain.simclr]",
            "[pretrain.\"simclr-a b\"]",
            &[
                "column ",
                "\"simclr-a b\": a variant is named with letters, digits, - and _",
            ],
        ),
        (
            "split = \"test\"",
            "split = \"holdout\"",
            &["evaluate.split: ", "none are held out", "set data.holdout"],
        ),
    ];
    for (before, after, words) in written {
        assert_eq!(TINY.matches(before).count(), 1, "{before}");
        put(path.join("wrong.toml"), TINY.replace(before, after));
        let line = format!(
            "line {}",
            TINY[..TINY.find(before).expect("counted")]
                .matches('\n')
                .count()
                + 1
        );
        let place = if words[0].starts_with("column ") {
            line.as_str()
        } else {
            ""
        };
        let words = [&["recipe wrong.toml, ", place], words].concat();
        refused_at_the_door(path, "run wrong.toml", &words);
        refused_at_the_door(path, "recipe check wrong.toml", &words);
    }
    put(path.join("latin.toml"), b"seed = 1 # \xe9");
    put(path.join("empty.toml"), "");
    let set: [(&str, &[&str]); 22] = [
        (
            "data.colour=1",
            &[
                "--set \"data.colour=1\": unknown field `colour`, expected one of",
                "hint: ",
            ],
        ),
        (
            "seed",
            &[
                "--set \"seed\", line 1, column 5: key with no value",
                "hint: ",
            ],
        ),
        ("seed=", &["--set \"seed=\", line 1, column "]),
        (
            "seed=-1",
            &["--set \"seed=-1\": invalid value: integer `-1`"],
        ),
        (
            "finetune.slf.plan.epochs=0",
            &["tiny.toml, finetune.slf.plan.epochs: expected 1 or more, found 0"],
        ),
        (
            "finetune.slf.plan.lr=nan",
            &["tiny.toml, finetune.slf.plan.lr: expected a number from 0 to"],
        ),
        (
            "finetune.slff.plan.epochs=1",
            &[
                "--set \"finetune.slff.plan.epochs=1\": no finetuning mode \"slff\"",
                "did you mean \"slf\"?",
            ],
        ),
        (
            "pretrain.advlc.plan.epochs=1",
            &["no pretraining method \"advlc\"", "did you mean \"advcl\"?"],
        ),
        (
            "finetune.slf.loss={pgd={steps=0}}",
            &["tiny.toml, finetune.slf.loss.pgd.steps: expected 1 or more, found 0"],
        ),
        (
            "pretrain.simclr.plan.batch_size=65",
            &[
                "pretrain.simclr.plan.batch_size",
                "larger than the 64 training",
                "hint: --set",
            ],
        ),
        (
            "pretrain.simclr.plan.batch_size=1",
            &["pretrain.simclr.plan.batch_size: expected 2 or more"],
        ),
        (
            "cluster.counts=[2,65]",
            &[
                "cluster.counts: 65 clusters of only 64 training images",
                "hint: ",
            ],
        ),
        (
            "data.train_limit=0",
            &["data.train_limit: expected 10 to 10000", "found 0"],
        ),
        (
            "data.test_limit=3000",
            &["data.test_limit: expected 10 to 2000", "found 3000"],
        ),
        (
            "data.test_limit=9",
            &[
                "data.test_limit: expected 10 to 2000",
                "each of the 10 classes needs an image",
            ],
        ),
        (
            "pretrain.advcl.high_frequency_radius=20",
            &[
                "pretrain.advcl.high_frequency_radius: nothing of 28 × 28 images is left",
                "hint: the largest useful radius for this size is 19.79",
            ],
        ),
        (
            "pretrain.advcl.attack_steps=0",
            &["pretrain.advcl.attack_steps: expected 1 or more, found 0"],
        ),
        (
            "evaluate.steps=0",
            &["evaluate.steps: expected 1 or more, found 0"],
        ),
        (
            "cluster.restarts=0",
            &["cluster.restarts: expected 1 or more, found 0"],
        ),
        (
            "finetune.slf.plan.schedule={cosine={warmup_from=nan}}",
            &["finetune.slf.plan.schedule.cosine.warmup_from: expected a number from 0 to"],
        ),
        (
            "data.holdout=1.5",
            &["data.holdout: expected a number from 0 to 0.9, found 1.5"],
        ),
        (
            "data.source='nowhere'",
            &["data set nowhere: expected the name", "fashion-mnist-12k"],
        ),
    ];
    for (change, words) in set {
        refused_at_the_door(path, &format!("run tiny.toml --set {change}"), words);
        refused_at_the_door(
            path,
            &format!("recipe check tiny.toml --set {change}"),
            words,
        );
    }
    let cases: [Case; 31] = [
        (
            "run nowhere.toml",
            &[
                "cannot read nowhere.toml: No such file",
                "hint: check the path",
            ],
        ),
        (
            "run quickstrat",
            &[
                "recipe quickstrat: no shipped recipe",
                "hint: did you mean \"quickstart\"?",
            ],
        ),
        (
            "recipe show xyz",
            &["recipe xyz: ", "hint: known: quickstart, smoke"],
        ),
        ("run .", &["cannot read .: "]),
        ("run latin.toml", &["cannot read latin.toml: ", "UTF-8"]),
        (
            "run empty.toml",
            &["recipe empty.toml, line 1, column 1: missing field `seed`"],
        ),
        (
            "run tiny.toml --device gpu",
            &["device \"gpu\": no such device", "hint: known: cpu"],
        ),
        (
            "run tiny.toml --device cuda:x",
            &[
                "device \"cuda:x\": expected a number after the colon",
                "cuda:0",
            ],
        ),
        (
            "run tiny.toml --device cpu:1",
            &["device \"cpu:1\": there is one CPU device"],
        ),
        ("selftest --device tpu", &["device \"tpu\": no such device"]),
        (
            "pretrain tiny.toml --method simcrl",
            &[
                "no pretraining method \"simcrl\"",
                "did you mean \"simclr\"?",
            ],
        ),
        (
            "evaluate tiny.toml --method moco",
            &[
                "no pretraining method \"moco\"",
                "hint: known: simclr, advcl",
            ],
        ),
        (
            "pretrain tiny.toml --method trades",
            &[
                "recipe pretrain: no table [pretrain.trades]",
                "hint: add it to the recipe, which has simclr, advcl",
            ],
        ),
        (
            "finetune tiny.toml --mode semi-supervized",
            &[
                "no finetuning mode \"semi-supervized\"",
                "did you mean \"semi-supervised\"?",
            ],
        ),
        (
            "evaluate tiny.toml --mode probe",
            &[
                "no finetuning mode \"probe\"",
                "hint: known: slf, alf, standard-full, aff, semi-supervised",
            ],
        ),
        (
            "evaluate tiny.toml --mode aff",
            &[
                "recipe finetune: no table [finetune.aff]",
                "hint: add it to the recipe, which has slf",
            ],
        ),
        (
            "pretrain tiny.toml --mode slf",
            &["unexpected argument '--mode'"],
        ),
        ("list metods", &["invalid value 'metods'", "'methods'"]),
        (
            "run tiny.toml --run tiny.toml/run",
            &["cannot create tiny.toml/run"],
        ),
        ("run tiny.toml --run tiny.toml", &["tiny.toml"]),
        (
            "bench step --width 0",
            &["bench step: cannot time", "width 0", "hint: expected"],
        ),
        (
            "bench step --batch 1",
            &["cannot time batch 1", "hint: expected a batch of 2 to"],
        ),
        (
            "bench kernels --size 7",
            &["bench kernels: cannot time", "size 7", "hint: expected"],
        ),
        (
            "bench kernels --width 1024 --batch 65536 --size 1024",
            &["cannot time batch 65536", "at most 2^30 values"],
        ),
        (
            "bench evaluate --channels 2 --json",
            &["bench evaluate: cannot time", "2 channels"],
        ),
        (
            "bench evaluate --batch 0",
            &["cannot time batch 0", "hint: expected a batch of 1 to"],
        ),
        ("bench kernels --runs 0", &["cannot time", "0 runs"]),
        (
            "bench kernels --device gpu",
            &["device \"gpu\": no such device"],
        ),
        (
            "bench step --width wide",
            &["invalid value 'wide' for '--width"],
        ),
        ("frobnicate", &["unrecognized subcommand 'frobnicate'"]),
        (
            "data inspect --rows 0",
            &["expected 1 row or more, found 0"],
        ),
    ];
    for (args, words) in cases {
        refused_at_the_door(path, args, words);
    }
    #[cfg(not(feature = "vulkan"))]
    refused_at_the_door(
        path,
        "run tiny.toml --device vulkan",
        &[
            "device \"vulkan\": not compiled in",
            "build with --features vulkan",
        ],
    );
}
