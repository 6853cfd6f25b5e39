//! The whole pipeline by the program: what it prints, what it writes, and that both agree.

use std::path::Path;

use advcl::data::{self, Dataset};
use advcl::experiment::Summary;
use advcl::recipe::Recipe;
use advcl::weights;

use crate::{Answer, Transcript, advcl, contents, copy, folder, folder_after, get, png, put};

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

/// Holds the rows of the printed table against the summary's.
fn table_agrees(answer: &Answer, written: &Summary) {
    let lines = answer.stdout.lines().take_while(|line| !line.is_empty());
    let rows: Vec<Vec<&str>> = lines
        .skip(1)
        .map(|line| {
            let cells = line.split("  ").map(str::trim);
            cells.filter(|cell| !cell.is_empty()).collect()
        })
        .collect();
    assert_eq!(rows.len(), written.outcomes.len(), "{answer}");
    for (cells, outcome) in rows.iter().zip(&written.outcomes) {
        let percent = |fraction: f64| format!("{:.1} % of {} (", 100.0 * fraction, outcome.images);
        let (clean, robust) = (outcome.clean_accuracy, outcome.robust_accuracy);
        assert!(cells[2].starts_with(&percent(clean)), "{answer}");
        assert!(cells[3].starts_with(&percent(robust)), "{answer}");
    }
}

/// Holds the accuracies of a row against its counts.
fn accuracies_agree(outcome: &advcl::experiment::Outcome) {
    let (total, classes) = (&outcome.accuracy.total, &outcome.accuracy.classes);
    let images = classes.iter().map(|class| class.images);
    assert_eq!(total.images, images.sum::<usize>());
    let clean = classes.iter().map(|class| class.clean);
    assert_eq!(total.clean, clean.sum::<usize>());
    let robust = classes.iter().map(|class| class.robust);
    assert_eq!(total.robust, robust.sum::<usize>());
    assert!(total.robust <= total.clean && total.clean <= total.images);
    let share = |count: usize| count as f64 / total.images as f64;
    assert_eq!(outcome.clean_accuracy, share(total.clean));
    assert_eq!(outcome.robust_accuracy, share(total.robust));
}

#[test]
fn a_run_is_printed_written_and_not_carried_out_again() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    let first = transcript.run("run smoke", 0);
    let written = summary(path, "runs/smoke");
    table_agrees(&first, &written);
    written.outcomes.iter().for_each(accuracies_agree);

    // Again: the same table, and no file of the folder written anew.
    let before = contents(&path.join("runs"));
    let again = advcl(path, "run smoke").expect(0);
    assert_eq!(first.stdout, again.stdout);
    assert!(
        before == contents(&path.join("runs")),
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
    let json = advcl(path, "run smoke --json").expect(0);
    let read: Summary = serde_json::from_value(json.json()).expect("a summary");
    assert_eq!(read, written);
    transcript.add_shape(&json);
    transcript.run("evaluate --run runs/smoke -v", 0);
    // The figures of one method leave those of the others in the summary.
    transcript.run("evaluate --run runs/smoke --method simclr", 0);
    assert_eq!(summary(path, "runs/smoke"), written);
    agrees_with_predictions(path, &written, &mut transcript);
    transcript.check("a_run");
}

/// `predict` on the images that were evaluated counts as many right ones.
fn agrees_with_predictions(path: &Path, written: &Summary, transcript: &mut Transcript) {
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
        notes: Vec::new(),
        val: None,
        reading: Default::default(),
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
        let answer = advcl(path, &two).expect(0);
        transcript.add_without_classes(&answer);
        let text = answer.stdout;
        let first = |i: usize| {
            predictions[i]["classes"][0]["class"]
                .as_str()
                .expect("a name")
        };
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].contains(first(1)) && lines[1].contains(first(0)),
            "{text}"
        );
    }
}

#[test]
fn stages_one_by_one_give_the_same_files_as_a_run() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
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
        outcomes(&summary(path, "run")),
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
            get(path.join("run").join(file)) == get(path.join("steps").join(file)),
            "{file}"
        );
    }
    // All methods in one go.
    advcl(path, "pretrain tiny.toml --run both").expect(0);
    advcl(path, "finetune --run both").expect(0);
    advcl(path, "evaluate --run both").expect(0);
    assert_eq!(
        outcomes(&summary(path, "run")),
        outcomes(&summary(path, "both"))
    );
    // Another seed is another run.
    advcl(path, "run tiny.toml --run other --set seed=4").expect(0);
    assert!(get(path.join("run").join(simclr)) != get(path.join("other").join(simclr)));
}

#[test]
fn bf16_changes_pretraining_only() {
    let folder = folder();
    let path = folder.path();
    let pretrain = |run: &str| {
        advcl(
            path,
            &format!("pretrain tiny.toml --method simclr --run {run}"),
        )
        .expect(0)
    };
    let file = |run: &str, name: &str| path.join(run).join("simclr").join(name);
    // Without their descriptions: the recipe is in them, and says the precision.
    let model = |run: &str| {
        weights::load(&file(run, "model.safetensors"))
            .expect("a model")
            .0
    };
    let low = pretrain("low --precision bf16");
    assert!(low.stderr.contains("bf16"), "{low}");
    let single = pretrain("single");
    assert!(!single.stderr.contains("bf16"), "{single}");
    assert_eq!(model("low") != model("single"), advcl::nn::has_bf16());
    pretrain("faster --precision auto");
    assert!(
        model("faster") == model("low"),
        "the faster one, if there is a faster one"
    );
    // Finetuning computes in f32 with either option.
    copy(&path.join("low"), &path.join("again"));
    advcl(path, "finetune --method simclr --run low --precision bf16").expect(0);
    advcl(path, "finetune --method simclr --run again").expect(0);
    let slf = |run: &str| get(file(run, "slf/model.safetensors"));
    assert!(slf("low") == slf("again"));
}

#[test]
fn a_change_of_the_evaluation_makes_new_figures_and_keeps_the_models() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let before = contents(&path.join("run"));
    let first = summary(path, "run");
    let again = "evaluate --run run --set evaluate.steps=3";
    let mut transcript = Transcript::new(path);
    transcript.run(again, 0);
    for (name, content) in &before {
        let changed = get(name) != *content;
        let figures = [
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
    // The folder keeps its recipe, and the older figures stand beside the newer ones.
    transcript.run("run --run run", 0);
    assert_eq!(outcomes(&summary(path, "run")), outcomes(&first));
    let others = summary(path, "run").other_conditions;
    assert_eq!(others.len(), first.outcomes.len());
    assert!(others.iter().all(|outcome| outcome.attack_steps == 3));
    transcript.check("a_change_of_the_evaluation");
}

#[test]
fn pseudo_labels_by_the_encoder_of_another_run() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let model = "run/advcl/model.safetensors";
    let run = format!("pretrain tiny.toml --run second --set cluster.model='{model}'");
    advcl(path, &run).expect(0);
    let mut transcript = Transcript::new(path);
    for run in ["run", "second"] {
        let file = path.join(run).join("advcl/model.safetensors");
        let model = advcl::run::Model::load(&file, &crate::device()).expect("a model");
        let origin = model.info.pseudo_labels.expect("an origin");
        transcript.note(&format!("Origin of the pseudo-labels of {run}: {origin}"));
    }
    let labels = |run: &str| get(path.join(run).join("pseudo_labels.safetensors"));
    assert!(labels("run") != labels("second"));
    // Of images of another size.
    for i in 0..64u8 {
        put(
            path.join(format!("flat/{i:02}.png")),
            png(12, &[i * 4; 144]),
        );
    }
    transcript.refuse_after_a_start(&format!(
        "pretrain tiny.toml --run third --set data.source='flat' --set cluster.model='{model}'"
    ));
    transcript.check("pseudo_labels_by_the_encoder_of_another_run");
}
