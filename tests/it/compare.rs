//! `advcl compare`: rows over seeds, rows that fail, nothing computed twice.

use std::path::Path;

use crate::{Transcript, advcl, contents, folder, get, only_simclr, put};

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
    let all = contents(path).into_iter();
    all.filter(|(path, _)| seeds(path)).collect()
}

#[test]
fn a_comparison_goes_on_after_a_failure_and_computes_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("many.toml"), only_simclr() + MORE);
    // One mode diverges: its rows fail, the others go on.
    let mut transcript = Transcript::new(path);
    let first = advcl(path, "compare many.toml --run run").expect(1);
    transcript.add_without_numbers(&first);

    let before = cells(path);
    let json = advcl(path, "compare many.toml --run run --format json").expect(1);
    assert!(before == cells(path), "a finished row was computed again");
    transcript.add_shape(&json);
    let json = json.json();
    assert_eq!(json["seeds"], serde_json::json!([1, 2]));
    assert_eq!(json["failures"].as_array().map(Vec::len), Some(4));
    // The figures are those of the runs.
    let of = |seed: u64| {
        let file = format!("run/seed-{seed}/acl/slf/result.json");
        let result: serde_json::Value =
            serde_json::from_slice(&get(path.join(file))).expect("a result");
        100.0
            * result["results"][0]["clean_accuracy"]
                .as_f64()
                .expect("a number")
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

    // Without the mode that fails all is well, in the same folder too. One seed more is one more to compute.
    let lines = get(path.join("many.toml"));
    let text = String::from_utf8(lines).expect("text");
    let (start, end) = (
        text.find("[finetune.standard").expect("a table"),
        text.find("[compare]").expect("a table"),
    );
    let without = format!("{}{}", &text[..start], &text[end..]);
    put(path.join("fewer.toml"), &without);
    advcl(path, "compare fewer.toml --run run").expect(0);
    advcl(
        path,
        "compare fewer.toml --run other --set compare.seeds=[1]",
    )
    .expect(0);
    let alone = get(path.join("other/seed-1/acl/slf/model.safetensors"));
    assert!(alone != get(path.join("run/seed-1/simclr/slf/model.safetensors")));
    let one = contents(&path.join("other/seed-1"));
    advcl(
        path,
        "compare fewer.toml --run other --set compare.seeds=[1,2]",
    )
    .expect(0);
    assert!(
        one == contents(&path.join("other/seed-1")),
        "computed again"
    );
    for format in ["md", "csv"] {
        let set = "--set compare.seeds=[1,2]";
        let line = format!("compare fewer.toml --run other --format {format} {set}");
        let answer = advcl(path, &line).expect(0);
        transcript.add_without_numbers(&answer);
        let kept = get(path.join(format!("other/comparison.{format}")));
        assert_eq!(String::from_utf8_lossy(&kept), answer.stdout);
    }
    // Its shares are in the unit of the report's.
    let shares = |command: &str, name: &str| -> Vec<String> {
        let answer = advcl(path, command).expect(0);
        let mut lines = answer.stdout.lines().map(|line| line.split(','));
        let at = lines
            .next()
            .and_then(|mut heads| heads.position(|head| head == name));
        let at = at.unwrap_or_else(|| panic!("no {name} in\n{answer}"));
        let shares = lines.map(|mut cells| cells.nth(at).expect("a cell").to_owned());
        shares.collect()
    };
    let compare = "compare fewer.toml --run other --format csv --set compare.seeds=[1,2]";
    for name in ["clean", "robust"] {
        let [own, reported] = [compare, "report other --format csv"];
        let (own, reported) = (shares(own, name), shares(reported, name));
        assert!(!own.is_empty() && own == reported, "{own:?}, {reported:?}");
    }
    // Some of the methods and seeds, of what is there: nothing is computed, and no file of the whole is replaced.
    let before = contents(&path.join("other"));
    let some = "compare fewer.toml --run other --seeds 1,2 --method supervised --method simclr";
    let answer = advcl(path, some).expect(0);
    transcript.add_without_numbers(&answer);
    assert!(before == contents(&path.join("other")), "{answer}");
    assert!(!answer.stdout.contains("ACL"), "{answer}");
    transcript.refuse("compare fewer.toml --run other --method simcrl");
    transcript.refuse("compare fewer.toml --run other --seeds 1,1");
    transcript.check("a_comparison");
}

#[test]
fn impossible_comparisons_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(path.join("many.toml"), only_simclr() + MORE);
    let mut transcript = Transcript::new(path);
    for set in [
        "compare.seeds=[]",
        "compare.seeds=[1,1]",
        "compare.baseline='simcrl'",
    ] {
        transcript.refuse(&format!("compare many.toml --run run --set {set}"));
    }
    // No training can mend these, so they are refused before any: a share of the labels that leaves
    // a class without, a teacher that is not there.
    let plan = "plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }";
    let more = [
        "[finetune.semi-supervised]\nlabels = 0.02",
        "[pretrain.deacl]\nteacher = 'no/model.safetensors'\nattack_steps = 1",
        "[pretrain.deacl]\nteacher = 'rocl'\nattack_steps = 1",
    ];
    for (case, table) in more.into_iter().enumerate() {
        let recipe = format!("{}{MORE}\n{table}\n{plan}\n", only_simclr());
        put(path.join("bad.toml"), recipe);
        transcript.note(&format!("bad.toml has {}", table.replace('\n', " ")));
        for command in ["compare", "run"] {
            let folder = format!("{command}-{case}");
            transcript.refuse_after_a_start(&format!("{command} bad.toml --run {folder}"));
            for made in ["simclr", "seed-1/simclr"] {
                assert!(!path.join(&folder).join(made).exists(), "{folder}: {made}");
            }
        }
    }
    transcript.check("impossible_comparisons");
}

#[cfg(unix)]
#[test]
fn a_seed_that_is_a_link_to_elsewhere_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    put(
        path.join("r.toml"),
        only_simclr() + "\n[compare]\nseeds = [1]\n",
    );
    put(
        path.join("elsewhere/metrics.jsonl"),
        "precious, and not a whole line",
    );
    let before = contents(&path.join("elsewhere"));
    std::fs::create_dir(path.join("all")).expect("a folder");
    std::os::unix::fs::symlink("../elsewhere", path.join("all/seed-1")).expect("a link");
    let answer = advcl(path, "compare r.toml --run all -q").expect(2);
    let words = "all/seed-1 is a link to";
    assert!(answer.stderr.contains(words), "{answer}");
    assert!(before == contents(&path.join("elsewhere")), "{answer}");
}

#[test]
fn a_probe_is_logged_and_changes_nothing() {
    let folder = folder();
    let path = folder.path();
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
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start("pretrain simclr.toml --run no --set probe.every=1");
    transcript.check("a_probe_without_held_out_images");
}
