//! The program from the door: what it prints, what it writes, and that both agree.

use std::path::Path;

use advcl::data::{self, Dataset};
use advcl::experiment::Summary;
use advcl::recipe::Recipe;

use crate::{Answer, advcl, copy, folder, get, png, put, snapshot};

fn summary(folder: &Path, run: &str) -> Summary {
    let text = get(folder.join(run).join("summary.json"));
    serde_json::from_slice(&text).expect("a summary")
}

/// The outcomes without their times, which no two runs share.
fn outcomes(summary: &Summary) -> Vec<String> {
    let timeless = |mut outcome: advcl::experiment::Outcome| {
        outcome.seconds = Default::default();
        format!("{outcome:?}")
    };
    summary.outcomes.iter().cloned().map(timeless).collect()
}

#[test]
fn smoke_end_to_end_and_again() {
    let folder = folder();
    let path = folder.path();
    let first = advcl(path, "run smoke").expect(0);
    let written = summary(path, "runs/smoke");
    let lines: Vec<Vec<&str>> = first
        .stdout
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split("  ").collect())
        .collect();
    assert_eq!(lines.len(), 1 + written.outcomes.len(), "{first}");
    let last = first.stdout.lines().last();
    assert_eq!(last, Some("soundness: 27 checks hold"), "{first}");
    for (line, outcome) in lines[1..].iter().zip(&written.outcomes) {
        let cells: Vec<&str> = line
            .iter()
            .map(|cell| cell.trim())
            .filter(|c| !c.is_empty())
            .collect();
        let percent = |fraction: f64| format!("{:.1} % of {} (", 100.0 * fraction, outcome.images);
        let (title, finetuning) = match outcome.method.as_str() {
            "simclr" => ("SimCLR", "SLF"),
            "advcl" => ("AdvCL", "SLF"),
            "adversarial-training" => ("Adversarial training", "end to end"),
            other => panic!("{other}"),
        };
        assert_eq!(cells[..2], [title, finetuning], "{first}");
        let (clean, robust) = (outcome.clean_accuracy, outcome.robust_accuracy);
        assert!(cells[2].starts_with(&percent(clean)), "{first}");
        assert!(cells[3].starts_with(&percent(robust)), "{first}");
        assert_eq!(
            cells[4],
            format!("{} (L∞)", outcome.threat.radius),
            "{first}"
        );
        assert_eq!(cells[5], format!("PGD-{}", outcome.attack_steps), "{first}");
        let (total, classes) = (&outcome.accuracy.total, &outcome.accuracy.classes);
        assert_eq!(
            total.images,
            classes.iter().map(|class| class.images).sum::<usize>()
        );
        assert_eq!(
            total.clean,
            classes.iter().map(|class| class.clean).sum::<usize>()
        );
        assert_eq!(
            total.robust,
            classes.iter().map(|class| class.robust).sum::<usize>()
        );
        assert!(total.robust <= total.clean && total.clean <= total.images);
        assert_eq!(
            outcome.clean_accuracy,
            total.clean as f64 / total.images as f64
        );
    }
    assert!(first.stderr.contains("run folder: runs/smoke"), "{first}");

    // Again: the same table, and no file of the folder written anew.
    let before = snapshot(&path.join("runs"));
    let again = advcl(path, "run smoke").expect(0);
    assert_eq!(first.stdout, again.stdout);
    assert!(
        before == snapshot(&path.join("runs")),
        "a finished run changed"
    );
    // The folder knows its recipe.
    for command in ["run", "evaluate"] {
        let answer = advcl(path, &format!("{command} --run runs/smoke --quiet")).expect(0);
        assert_eq!(
            (first.stdout.as_str(), ""),
            (answer.stdout.as_str(), answer.stderr.as_str())
        );
    }
    let json = advcl(path, "run smoke --json").expect(0).json();
    assert_eq!(
        serde_json::from_value::<Summary>(json).expect("a summary"),
        written
    );
    let verbose = advcl(path, "evaluate --run runs/smoke -v").expect(0).stdout;
    for class in &written.classes {
        assert!(
            verbose.lines().any(|line| line.starts_with(class.as_str())),
            "{class}: {verbose}"
        );
    }
    // One method's figures alone do not throw the other's out of the summary.
    let one = advcl(path, "evaluate --run runs/smoke --method simclr").expect(0);
    let table = one.stdout.lines().take_while(|line| !line.is_empty());
    assert_eq!(table.count(), 2, "{one}");
    assert_eq!(summary(path, "runs/smoke"), written);
    agrees_with_predictions(path, &written);
}

/// `predict` on the very images that were judged counts as many right ones.
fn agrees_with_predictions(path: &Path, written: &Summary) {
    let recipe = Recipe::load("smoke", &[]).expect("a shipped recipe");
    let Dataset {
        test,
        name,
        classes,
        ..
    } = data::load(&recipe.data.source).expect("the embedded set");
    let judged = Dataset {
        train: test.clone(),
        test,
        name,
        classes,
    };
    let judged = match recipe.data.test_limit {
        Some(limit) => {
            judged
                .limit_train(limit, recipe.seed)
                .expect("enough images")
                .train
        }
        None => judged.train,
    };
    let names: Vec<String> = (0..judged.images.len())
        .map(|i| format!("{i:04}.png"))
        .collect();
    for (i, name) in names.iter().enumerate() {
        put(
            path.join("images").join(name),
            png(28, judged.images.image(i)),
        );
    }
    let models = ["simclr/slf", "advcl/slf", "adversarial-training"];
    assert_eq!(written.outcomes.len(), models.len());
    for (outcome, model) in written.outcomes.iter().zip(models) {
        let model = format!("runs/smoke/{model}");
        let json = advcl(path, &format!("predict {model} images --json"))
            .expect(0)
            .json();
        let predictions = json.as_array().expect("a list");
        assert_eq!(predictions.len(), names.len());
        let mut right = 0;
        for (i, prediction) in predictions.iter().enumerate() {
            assert_eq!(prediction["image"], format!("images/{}", names[i]));
            let ranked = prediction["classes"].as_array().expect("a list");
            assert_eq!(ranked.len(), written.classes.len());
            let each: Vec<f64> = ranked
                .iter()
                .filter_map(|class| class["probability"].as_f64())
                .collect();
            assert!(
                (each.iter().sum::<f64>() - 1.0).abs() < 1e-5,
                "{prediction}"
            );
            assert!(each.is_sorted_by(|a, b| a >= b), "{prediction}");
            right += usize::from(ranked[0]["class"] == written.classes[judged.labels[i]]);
        }
        assert_eq!(right, outcome.accuracy.total.clean, "{model}");
        // In words: the first three classes of the same images.
        let two = format!("predict {model}/model.safetensors images/0001.png images/0000.png");
        let text = advcl(path, &two).expect(0).stdout;
        let first = |i: usize| {
            predictions[i]["classes"][0]["class"]
                .as_str()
                .expect("a name")
        };
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.len() == 2
                && lines[0].starts_with("images/0001.png")
                && lines[0].contains(first(1)),
            "{text}"
        );
        assert!(
            lines[1].starts_with("images/0000.png") && lines[1].contains(first(0)),
            "{text}"
        );
    }
}

#[test]
fn the_steps_one_by_one_come_to_the_same() {
    let folder = folder();
    let path = folder.path();
    advcl(path, "run tiny.toml --run whole").expect(0);
    // The recipe is named once; after that the folder has it.
    let made = |answer: Answer, file: &str| {
        let answer = answer.expect(0);
        assert_eq!(answer.stdout, format!("steps/{file}\n"), "{answer}");
        assert!(path.join("steps").join(file).exists(), "{answer}");
    };
    let simclr = "simclr/model.safetensors";
    let advcl_model = "advcl/model.safetensors";
    let [simclr_slf, advcl_slf] =
        ["simclr", "advcl"].map(|name| format!("{name}/slf/model.safetensors"));
    made(
        advcl(path, "pretrain tiny.toml --method simclr --run steps"),
        simclr,
    );
    made(
        advcl(path, "cluster --run steps"),
        "pseudo_labels.safetensors",
    );
    made(
        advcl(path, "pretrain --method advcl --run steps"),
        advcl_model,
    );
    made(
        advcl(path, "finetune --method advcl --run steps"),
        &advcl_slf,
    );
    made(
        advcl(path, "finetune --method simclr --mode slf --run steps"),
        &simclr_slf,
    );
    advcl(path, "evaluate --run steps").expect(0);
    assert_eq!(
        outcomes(&summary(path, "whole")),
        outcomes(&summary(path, "steps"))
    );
    for file in [
        simclr,
        advcl_model,
        &simclr_slf,
        &advcl_slf,
        "pseudo_labels.safetensors",
        "recipe.toml",
    ] {
        assert!(
            get(path.join("whole").join(file)) == get(path.join("steps").join(file)),
            "{file}"
        );
    }
    // All methods in one go.
    advcl(path, "pretrain tiny.toml --run both").expect(0);
    advcl(path, "finetune --run both").expect(0);
    advcl(path, "evaluate --run both").expect(0);
    assert_eq!(
        outcomes(&summary(path, "whole")),
        outcomes(&summary(path, "both"))
    );
    // Another seed is another run.
    advcl(path, "run tiny.toml --run other --set seed=4").expect(0);
    assert!(get(path.join("whole").join(simclr)) != get(path.join("other").join(simclr)));
}

#[test]
fn bf16_is_a_way_to_pretrain_and_nothing_else() {
    let folder = folder();
    let path = folder.path();
    let pretrain = |run: &str| {
        advcl(
            path,
            &format!("pretrain tiny.toml --method simclr --run {run}"),
        )
        .expect(0)
    };
    let file = |run: &str, name: &str| get(path.join(run).join("simclr").join(name));
    let model = |run: &str| file(run, "model.safetensors");
    let low = pretrain("low --precision bf16");
    assert!(low.stderr.contains("bf16"), "{low}");
    let single = pretrain("single");
    assert!(!single.stderr.contains("bf16"), "{single}");
    assert_eq!(model("low") != model("single"), advcl::nn::has_bf16());
    // Finetuning is f32, whatever is asked for.
    copy(&path.join("low"), &path.join("again"));
    advcl(path, "finetune --method simclr --run low --precision bf16").expect(0);
    advcl(path, "finetune --method simclr --run again").expect(0);
    let slf = |run: &str| file(run, "slf/model.safetensors");
    assert!(slf("low") == slf("again"));
    let wrong = advcl(path, "info --precision f16").expect(2);
    assert!(wrong.stderr.contains("f32, bf16"), "{wrong}");
}

#[test]
fn figures_are_measured_anew_where_evaluate_changes_and_nothing_else_is_lost() {
    let folder = folder();
    let path = folder.path();
    advcl(path, "run tiny.toml --run run").expect(0);
    let before = snapshot(&path.join("run"));
    let first = summary(path, "run");
    let again = "evaluate --run run --set evaluate.steps=3";
    let answer = advcl(path, again).expect(0);
    assert!(answer.stdout.contains("PGD-3"), "{answer}");
    for (name, content) in &before {
        let changed = get(name) != *content;
        let figures = [
            "recipe.toml",
            "metrics.jsonl",
            "summary.json",
            "result.json",
            "soundness.json",
            "slf/times.json",
        ];
        assert_eq!(
            changed,
            figures.iter().any(|figure| name.ends_with(figure)),
            "{}",
            name.display()
        );
    }
    for outcome in summary(path, "run").outcomes {
        assert_eq!(outcome.attack_steps, 3);
    }
    // The folder keeps the new settings; back to the old ones, the old figures.
    assert!(
        advcl(path, "run --run run")
            .expect(0)
            .stdout
            .contains("PGD-3")
    );
    advcl(path, "run tiny.toml --run run").expect(0);
    assert_eq!(outcomes(&summary(path, "run")), outcomes(&first));
}

#[test]
fn any_runs_encoder_can_be_clustered_if_it_fits_the_images() {
    let folder = folder();
    let path = folder.path();
    advcl(path, "run tiny.toml --run first").expect(0);
    let model = "first/advcl/model.safetensors";
    let run = format!("pretrain tiny.toml --run second --set cluster.model='{model}'");
    advcl(path, &run).expect(0);
    let info = |run: &str| {
        let path = path.join(run).join("advcl/model.safetensors");
        let device = crate::device();
        advcl::run::Model::load(&path, &device)
            .expect("a model")
            .info
    };
    let origin = |run: &str| info(run).pseudo_labels.expect("an origin");
    for words in [model, "advcl", "ResNet-10 (width 2)", "seed 3"] {
        assert!(origin("second").contains(words), "{}", origin("second"));
    }
    assert!(
        origin("first").contains("a SimCLR ResNet-10"),
        "{}",
        origin("first")
    );
    let labels = |run: &str| get(path.join(run).join("pseudo_labels.safetensors"));
    assert!(labels("first") != labels("second"));
    // Of images of another size.
    for i in 0..64u8 {
        put(
            path.join(format!("flat/{i:02}.png")),
            png(12, &[i * 4; 144]),
        );
    }
    let other = format!(
        "pretrain tiny.toml --run third --set data.source='flat' --set cluster.model='{model}'"
    );
    let answer = advcl(path, &other).expect(2);
    let words = "first/advcl/model.safetensors: expected a model of images (1, [12, 12]), found (1, [28, 28])";
    assert!(answer.stderr.contains(words), "{answer}");
}
