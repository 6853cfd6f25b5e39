//! `advcl compare`: rows over seeds, rows that fail, nothing computed twice.

use std::path::Path;

use crate::bad_input::refused;
use crate::{advcl, get, only_simclr, put, snapshot};

/// What is added to [`only_simclr`]: two methods more, one that fails by its labels, and seeds.
const MORE: &str = r#"
[pretrain.acl]
temperature = 0.5
attack_steps = 1
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[pretrain.supervised]
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[finetune.aff]
loss = { trades = { beta = 6.0, steps = 1 } }
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }

[finetune.standard-full]
plan = { epochs = 10, batch_size = 16, lr = 1000.0, momentum = 0.9, weight_decay = 1.0, schedule.cosine = {} }

[compare]
seeds = [1, 2]
baseline = "acl"
"#;

/// Only `seed-*`: the tables beside them are written each time.
fn cells(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let seeds = |path: &Path| path.to_string_lossy().contains("seed-");
    let all = snapshot(path).into_iter();
    all.filter(|(path, _)| seeds(path)).collect()
}

#[test]
fn rows_over_seeds_failures_beside_them_and_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("many.toml"), only_simclr() + MORE);
    // One mode diverges: its rows fail, the others go on.
    let first = advcl(path, "compare many.toml --run run").expect(1);
    assert!(first.stderr.contains("4 rows failed"), "{first}");
    let words = "seed 1, simclr/standard-full failed, continuing with the rest: \
                 simclr/standard-full: ";
    assert!(first.stderr.contains(words), "{first}");
    let rows: Vec<(&str, &str)> = first
        .stdout
        .lines()
        .skip(2)
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let mut cells = line.split("  ").map(str::trim).filter(|c| !c.is_empty());
            (cells.next().unwrap_or(""), cells.next().unwrap_or(""))
        })
        .collect();
    let expected = [
        ("SimCLR", "SLF"),
        ("SimCLR", "AFF"),
        ("ACL", "SLF"),
        ("ACL", "AFF"),
        ("Supervised", "end to end"),
    ];
    assert_eq!(rows, expected, "{first}");
    for title in [
        "Robust accuracy lost by cheap finetuning",
        "Difference from ACL, paired by seed",
        "Failed",
    ] {
        assert!(first.stdout.contains(title), "{title}: {first}");
    }

    let before = cells(path);
    let json = advcl(path, "compare many.toml --run run --format json").expect(1);
    assert!(before == cells(path), "a finished row was computed again");
    let json = json.json();
    assert_eq!(json["seeds"], serde_json::json!([1, 2]));
    assert_eq!(json["failures"].as_array().map(Vec::len), Some(4));
    // The figures are those of the runs.
    let of = |seed: u64| {
        let file = format!("run/seed-{seed}/acl/slf/result.json");
        let result: serde_json::Value =
            serde_json::from_slice(&get(path.join(file))).expect("a result");
        100.0 * result["clean_accuracy"].as_f64().expect("a number")
    };
    let (a, b) = (of(1), of(2));
    let clean = &json["rows"][2]["clean"];
    let near = |value: &serde_json::Value, expected: f64| {
        let value = value.as_f64().expect("a number");
        assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
    };
    near(&clean["mean"], (a + b) / 2.0);
    near(&clean["deviation"], (a - b).abs() / 2f64.sqrt());

    // Each seed has a log of its own.
    let log = String::from_utf8(get(path.join("run/seed-2/metrics.jsonl"))).expect("text");
    let epochs = log.lines().filter(|line| line.contains(r#""epoch":1"#));
    assert!(epochs.count() > 3, "{log}");

    // The folder knows its recipe.
    let own = advcl(path, "compare --run run --format json").expect(1);
    assert_eq!(own.json(), json);

    // One seed more is one more to compute; without the mode that fails, all is well.
    let lines = get(path.join("many.toml"));
    let text = String::from_utf8(lines).expect("text");
    let (start, end) = (
        text.find("[finetune.standard").expect("a table"),
        text.find("[compare]").expect("a table"),
    );
    let without = format!("{}{}", &text[..start], &text[end..]);
    put(path.join("fewer.toml"), &without);
    let other = advcl(path, "compare fewer.toml --run run").expect(2);
    assert!(other.stderr.contains("seed-1"), "{other}");
    advcl(
        path,
        "compare fewer.toml --run other --set compare.seeds=[1]",
    )
    .expect(0);
    let alone = get(path.join("other/seed-1/acl/slf/model.safetensors"));
    assert!(alone != get(path.join("run/seed-1/simclr/slf/model.safetensors")));
    let one = snapshot(&path.join("other/seed-1"));
    advcl(
        path,
        "compare fewer.toml --run other --set compare.seeds=[1,2]",
    )
    .expect(0);
    assert!(
        one == snapshot(&path.join("other/seed-1")),
        "computed again"
    );
    for (format, start) in [
        (
            "md",
            "fashion-mnist-12k, seeds 1, 2\n\n| method | finetuning |",
        ),
        ("csv", "method,finetuning,seeds,clean,"),
    ] {
        let set = "--set compare.seeds=[1,2]";
        let line = format!("compare fewer.toml --run other --format {format} {set}");
        let answer = advcl(path, &line).expect(0);
        assert!(answer.stdout.starts_with(start), "{answer}");
        let kept = get(path.join(format!("other/comparison.{format}")));
        assert_eq!(String::from_utf8_lossy(&kept), answer.stdout);
    }
}

#[test]
fn impossible_comparisons_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("many.toml"), only_simclr() + MORE);
    for (set, words) in [
        (
            "compare.seeds=[]",
            "compare.seeds: expected different seeds, found []",
        ),
        (
            "compare.seeds=[1,1]",
            "compare.seeds: expected different seeds",
        ),
        (
            "compare.baseline='simcrl'",
            "hint: did you mean \"simclr\"?",
        ),
    ] {
        refused(
            path,
            &format!("compare many.toml --run run --set {set}"),
            &[words],
        );
        assert!(!path.join("run").exists(), "{set}");
    }
    // What no training can mend is said before any: a share of the labels that leaves a class without, a teacher that
    // is not there.
    let plan = "plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }";
    let more = [
        (
            format!("[finetune.semi-supervised]\nlabels = 0.02\n{plan}"),
            "finetune.semi-supervised.labels: 1 of 64 labels leave class",
        ),
        (
            format!("[pretrain.deacl]\nteacher = 'no/model.safetensors'\nattack_steps = 1\n{plan}"),
            "cannot read no/model.safetensors",
        ),
        (
            format!("[pretrain.deacl]\nteacher = 'rocl'\nattack_steps = 1\n{plan}"),
            "pretrain.deacl: DeACL learns from \"rocl\": there is none",
        ),
    ];
    for (case, (table, words)) in more.into_iter().enumerate() {
        put(
            path.join("bad.toml"),
            format!("{}{MORE}\n{table}\n", only_simclr()),
        );
        for command in ["compare", "run"] {
            let folder = format!("{command}-{case}");
            refused(
                path,
                &format!("{command} bad.toml --run {folder}"),
                &[words],
            );
            for made in ["simclr", "seed-1/simclr"] {
                assert!(!path.join(&folder).join(made).exists(), "{folder}: {made}");
            }
        }
    }
}

#[test]
fn a_probe_is_logged_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("simclr.toml"), only_simclr());
    let set = "--set data.holdout=0.25 --set probe.every=1";
    advcl(path, &format!("pretrain simclr.toml --run probed {set}")).expect(0);
    advcl(
        path,
        "pretrain simclr.toml --run plain --set data.holdout=0.25",
    )
    .expect(0);
    let model = |run: &str| get(path.join(run).join("simclr/model.safetensors"));
    assert!(model("probed") == model("plain"));
    let metrics = String::from_utf8(get(path.join("probed/metrics.jsonl"))).expect("text");
    let shares: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|event| event["event"] == "epoch")
        .map(|event| {
            assert_eq!(event["figures"][0][0], "knn", "{event}");
            event["figures"][0][1].as_f64().expect("a share")
        })
        .collect();
    assert_eq!(shares.len(), 2, "{metrics}");
    assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
    // Ten classes: after two epochs neighbours know more than chance does.
    assert!(shares[1] > 0.15, "{shares:?}");
    let words = ["probe: held-out images are to be classified, but none are held out"];
    refused(
        path,
        "pretrain simclr.toml --run no --set probe.every=1",
        &words,
    );
}
