//! `advcl bench step RECIPE`, and `--micro-batch`.

use advcl::recipe::Recipe;

use crate::{TINY, TINY_SUPERVISED, advcl, folder, get, put};

/// A mode that trains the encoder, with fewer labels than a batch has.
const FULL: &str = r#"
[finetune.aff]
loss = { pgd = { steps = 1 } }
plan = { epochs = 1, batch_size = 500, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }
"#;

#[test]
fn the_steps_of_a_recipe_are_timed_with_their_memory() {
    let folder = folder();
    let path = folder.path();
    put(
        path.join("all.toml"),
        [TINY, TINY_SUPERVISED, FULL].concat(),
    );
    let json = advcl(path, "bench step all.toml --runs 2 --json").expect(0);
    let json = json.json();
    let timings = json.as_array().expect("a list");
    let tables: Vec<&str> = timings
        .iter()
        .map(|timing| timing["table"].as_str().expect("a name"))
        .collect();
    let expected = [
        "pretrain.simclr",
        "pretrain.advcl",
        "pretrain.adversarial-training",
        "finetune.aff",
    ];
    assert_eq!(tables, expected);
    for timing in timings {
        let number = |key: &str| timing[key].as_f64().expect(key);
        assert_eq!(timing["seconds"].as_array().map(Vec::len), Some(2));
        let median = number("median_seconds");
        assert!(median > 0.0, "{timing}");
        let (batch, steps) = (number("steps"), number("epochs"));
        let whole = batch * steps * median;
        assert!((number("training_seconds") / whole - 1.0).abs() < 1e-9);
        assert!(timing["micro_batch"].is_null());
        if cfg!(target_os = "linux") {
            assert!(number("peak_memory_mib") > 1.0, "{timing}");
        }
        let is_pretraining = timing["table"]
            .as_str()
            .is_some_and(|t| t.starts_with("pretrain"));
        assert_eq!(timing["expected_memory_mib"].is_number(), is_pretraining);
    }
    assert_eq!(timings[0]["shape"], serde_json::json!([16, 1, 28, 28]));
    assert_eq!(timings[0]["steps"], 4, "64 images in batches of 16");
    // As many as there are.
    assert_eq!(timings[3]["shape"][0], 64);

    let one = "bench step all.toml --method advcl --micro-batch 6 --runs 1";
    let text = advcl(path, one).expect(0).stdout;
    for words in [
        "pretrain.advcl",
        "ResNet-10 of width 2, stem strided; batch 16 in micro-batches of 6, 28 × 28 pixels, 1 channel",
        "4 steps, ",
        "2 epochs, ",
        "foretold ",
    ] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    assert!(!text.contains("simclr"), "{text}");
    // A recipe is no run folder, and none is made.
    assert!(!path.join("runs").exists());
}

#[test]
fn what_has_no_step_to_time_is_refused() {
    let folder = folder();
    let path = folder.path();
    for (command, words) in [
        (
            "bench step tiny.toml --method trades",
            "no table [pretrain.trades]",
        ),
        (
            "bench step tiny.toml --mode slf",
            "finetune.slf: the mode trains a linear classifier",
        ),
        (
            "bench step tiny.toml --runs 0",
            "--runs: expected 1 to 10000 measurements, found 0",
        ),
        ("bench step tiny.toml --micro-batch 1", "micro_batch"),
        (
            "bench step tiny.toml --micro-batch 0",
            "--micro-batch: expected 2 or more images, found 0",
        ),
        ("bench step nowhere.toml", "nowhere.toml"),
        ("bench step tiny.toml --width 2", "cannot be used with"),
        ("bench step --method simclr", "required"),
        (
            "bench step --batch 4 --micro-batch 5",
            "--micro-batch: expected 2 to 4 images, found 5",
        ),
        (
            "recipe check tiny.toml --set pretrain.simclr.plan.micro_batch=17",
            "pretrain.simclr.plan.micro_batch: expected 2 to 16 images, found 17",
        ),
    ] {
        let answer = advcl(path, command).expect(2);
        assert!(
            answer.stderr.contains(words),
            "{command}: {words} in\n{answer}"
        );
    }
}

#[test]
fn micro_batches_are_a_key_of_every_plan_that_trains_an_encoder() {
    let text = [TINY, TINY_SUPERVISED, FULL].concat();
    let recipe = Recipe::parse("tiny", &text, &[]).expect("a recipe");
    assert_eq!(
        recipe.micro_batches(8),
        [
            r#"pretrain."simclr".plan.micro_batch = 8"#,
            r#"pretrain."advcl".plan.micro_batch = 8"#,
            r#"pretrain."adversarial-training".plan.micro_batch = 8"#,
            r#"finetune."aff".plan.micro_batch = 8"#,
        ]
    );
    // Batches that are as small already are left alone.
    assert_eq!(recipe.micro_batches(16).len(), 1);
    let set = recipe.micro_batches(8);
    let parted = Recipe::parse("tiny", &text, &set).expect("a recipe");
    let plan = |recipe: &Recipe| {
        recipe
            .pretrain
            .require("advcl")
            .unwrap()
            .method()
            .plan()
            .clone()
    };
    assert_eq!(plan(&parted).micro_batch, Some(8));
    assert_eq!(plan(&recipe).micro_batch, None);
    assert!(!recipe.to_toml().contains("micro_batch"), "today's text");
}

#[test]
fn a_run_in_micro_batches_is_kept_as_such_and_is_another_result() {
    let folder = folder();
    let path = folder.path();
    let run = "pretrain simclr.toml --method simclr -q --run";
    advcl(path, &format!("{run} a --micro-batch 6")).expect(0);
    advcl(path, &format!("{run} b")).expect(0);
    advcl(
        path,
        &format!("{run} c --set pretrain.simclr.plan.micro_batch=6"),
    )
    .expect(0);
    let model = |run: &str| get(path.join(run).join("simclr/model.safetensors"));
    assert!(model("a") == model("c"), "the option stands for the key");
    assert!(
        model("a") != model("b"),
        "BatchNorm's statistics are others"
    );
    let kept = String::from_utf8(get(path.join("a/recipe.toml"))).expect("text");
    assert!(kept.contains("micro_batch = 6"), "{kept}");
    // The folder knows it; without the option the recipe asks for something else, which is made again.
    let again = advcl(path, "pretrain a --method simclr").expect(0).stderr;
    assert!(!again.contains("micro_batch"), "{again}");
    let other = advcl(path, "pretrain simclr.toml --run a --method simclr").expect(0);
    assert!(
        other
            .stderr
            .contains("plan.micro_batch is 6 in the folder, not set in this command"),
        "{other}"
    );
    assert!(model("a") == model("b"));
}
