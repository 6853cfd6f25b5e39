//! The run folder: what daily work adds and changes, and what stays.

use std::path::Path;

use advcl::run::{Model, ModelInfo};

use crate::{Answer, TINY, advcl, copy, device, folder, get, only_simclr, program, put};

/// Gray PNGs of two classes in `train/` and `test/`.
fn images(root: &Path, classes: [&str; 2], each: usize) {
    for (class, name) in classes.iter().enumerate() {
        for number in 0..each {
            let pixel = |i: usize| {
                let inside = (i / 12 * 2 / 12, i % 12 * 2 / 12) == (0, class);
                let noise = (i * 7 + number * 13 + class * 5) % 40;
                (if inside { 180 } else { 60 } + noise) as u8
            };
            let pixels: Vec<u8> = (0..144).map(pixel).collect();
            let split = if number % 4 == 3 { "test" } else { "train" };
            put(
                root.join(format!("{split}/{name}/{number:03}.png")),
                crate::png(12, &pixels),
            );
        }
    }
}

/// A folder with images in `set`, and `r.toml`: SimCLR and a linear classifier on them.
fn with_images() -> tempfile::TempDir {
    let folder = folder();
    images(&folder.path().join("set"), ["a", "b"], 32);
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"set\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    put(folder.path().join("r.toml"), recipe);
    folder
}

/// Pretends that a stage took an hour.
fn took_long(run: &Path, stage: &str) {
    let path = run.join(stage).join("times.json");
    let mut times: serde_json::Value = serde_json::from_slice(&get(&path)).expect("JSON");
    for key in ["pretrain", "finetune"] {
        if times[key] != 0.0 {
            times[key] = 3600.0.into();
        }
    }
    put(path, times.to_string());
}

fn hint(answer: &Answer) -> &str {
    let at = answer.stderr.find("hint: ").expect("a hint");
    answer.stderr[at..].trim()
}

#[test]
fn a_run_is_moved_with_its_data_and_evaluated_from_anywhere() {
    let folder = with_images();
    let path = folder.path();
    advcl(path, "run r.toml --run run -q").expect(0);
    let before = advcl(path, "evaluate run --json -q").expect(0).json();
    // From another working directory.
    std::fs::create_dir(path.join("elsewhere")).expect("a folder");
    let there = path.join("elsewhere");
    let again = advcl(&there, "evaluate ../run --json -q").expect(0).json();
    assert_eq!(again["outcomes"], before["outcomes"]);
    advcl(&there, "report ../run -o r.html -q").expect(0);
    // Both moved; nothing is trained or evaluated again.
    let moved = path.join("moved");
    std::fs::create_dir(&moved).expect("a folder");
    for name in ["set", "run"] {
        std::fs::rename(path.join(name), moved.join(name)).expect("a move");
    }
    let model = get(moved.join("run/simclr/slf/model.safetensors"));
    let result = get(moved.join("run/simclr/slf/result.json"));
    advcl(path, "run moved/run -q").expect(0);
    assert!(get(moved.join("run/simclr/slf/model.safetensors")) == model);
    assert!(get(moved.join("run/simclr/slf/result.json")) == result);
    // The data alone: the message names the places, and the hint works.
    std::fs::rename(moved.join("set"), path.join("images")).expect("a move");
    let lost = advcl(path, "evaluate moved/run -q").expect(2);
    assert!(
        lost.stderr.contains("moved or deleted: expected in "),
        "{lost}"
    );
    assert!(hint(&lost).contains("--set 'data.source = "), "{lost}");
    let found = program(path)
        .args(["evaluate", "moved/run", "--json", "-q", "--set"])
        .arg("data.source = \"images\"")
        .output()
        .expect("the program");
    assert!(found.status.success());
}

#[test]
fn adding_keeps_what_is_there_and_changing_touches_what_depends_on_it() {
    let folder = folder();
    let path = folder.path();
    advcl(path, "run tiny.toml --run run -q").expect(0);
    let model = |stage: &str| get(path.join("run").join(stage).join("model.safetensors"));
    let stages = ["simclr", "advcl", "simclr/slf", "advcl/slf"];
    let before = stages.map(model);
    // A mode and a method more.
    put(
        path.join("more.toml"),
        [TINY, crate::TINY_SUPERVISED, MODE].concat(),
    );
    advcl(path, "run more.toml --run run -q").expect(0);
    assert!(stages.map(model) == before, "adding changed what was there");
    assert!(path.join("run/advcl/alf/model.safetensors").exists());
    assert!(
        path.join("run/adversarial-training/model.safetensors")
            .exists()
    );
    // A key of the classifiers: the encoders stay, and so does the other mode.
    let alf = model("advcl/alf");
    let set = "finetune.slf.plan.epochs=4";
    let changed = advcl(path, &format!("run --run run --set {set}")).expect(0);
    assert!(
        changed
            .stderr
            .contains("continuing the SLF classifier of AdvCL"),
        "{changed}"
    );
    assert!(model("simclr") == before[0] && model("advcl") == before[1]);
    assert!(model("advcl/slf") != before[3] && model("advcl/alf") == alf);
    // The folder's recipe has it now, and what only the folder had.
    let text = String::from_utf8(get(path.join("run/recipe.toml"))).expect("UTF-8");
    assert!(
        text.contains("epochs = 4") && text.contains("[finetune.alf"),
        "{text}"
    );
    advcl(path, "run tiny.toml --run run -q").expect(0);
    let text = String::from_utf8(get(path.join("run/recipe.toml"))).expect("UTF-8");
    assert!(text.contains("[pretrain.adversarial-training"), "{text}");
    // One method alone.
    let advcl_before = model("advcl");
    let args = "pretrain --run run --method simclr --set pretrain.simclr.temperature=0.3";
    let one = advcl(path, args).expect(0);
    assert!(
        one.stderr
            .contains("pretrain.simclr.temperature is 0.5 in the folder, 0.3 in this command"),
        "{one}"
    );
    assert!(model("simclr") != before[0] && model("advcl") == advcl_before);
}

const MODE: &str = r#"
[finetune.alf]
loss = { pgd = { steps = 1 } }
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }
"#;

#[test]
fn what_took_long_is_replaced_used_or_left_alone_as_asked() {
    let folder = folder();
    let path = folder.path();
    put(path.join("r.toml"), only_simclr());
    advcl(path, "run r.toml --run run -q").expect(0);
    took_long(&path.join("run"), "simclr");
    let model = |run: &str| get(path.join(run).join("simclr/model.safetensors"));
    let before = model("run");
    let set = "--set pretrain.simclr.temperature=0.3";
    for command in ["run --run run", "pretrain --run run"] {
        let refused = advcl(path, &format!("{command} {set} -q")).expect(2);
        assert!(
            refused.stderr.contains("SimCLR encoder (made in 1:00:00)"),
            "{refused}"
        );
        assert!(!hint(&refused).contains("delete"), "{refused}");
    }
    let recipe = get(path.join("run/recipe.toml"));
    assert!(model("run") == before);
    // Left alone: a fork copies what holds, here nothing of the encoder.
    let forked = advcl(path, &format!("fork run new {set}")).expect(0);
    assert!(
        forked
            .stdout
            .contains("left    SimCLR encoder: pretrain.simclr.temperature"),
        "{forked}"
    );
    assert!(model("run") == before && get(path.join("run/recipe.toml")) == recipe);
    advcl(path, "run new -q").expect(0);
    assert!(model("new") != before);
    // A fork with another classifier has the encoder and needs not make it again.
    let forked = advcl(path, "fork run other --set finetune.slf.augment=true").expect(0);
    assert!(
        forked.stdout.contains("copied  SimCLR encoder\n"),
        "{forked}"
    );
    assert!(
        forked.stdout.contains("left    SLF classifier of SimCLR"),
        "{forked}"
    );
    advcl(path, "run other -q").expect(0);
    assert!(model("other") == before);
    let again = advcl(path, "fork run other").expect(2);
    assert!(
        again.stderr.contains("expected a new or an empty folder"),
        "{again}"
    );
    // Used as it is.
    let kept = advcl(path, &format!("run --run run {set} --reuse")).expect(0);
    assert!(
        kept.stderr.contains("using the SimCLR encoder as it is"),
        "{kept}"
    );
    assert!(model("run") == before);
    // Replaced.
    advcl(path, &format!("run --run run {set} --replace -q")).expect(0);
    assert!(
        model("run") == model("new"),
        "the same as in a folder of its own"
    );
}

#[test]
fn other_conditions_stand_side_by_side_with_the_older_figures() {
    let folder = with_images();
    let path = folder.path();
    advcl(path, "run r.toml --run run -q").expect(0);
    let model = get(path.join("run/simclr/slf/model.safetensors"));
    let recipe = get(path.join("run/recipe.toml"));
    images(&path.join("others"), ["b", "a"], 16);
    for set in [
        "threat.radius=0.2",
        "threat.norm=\"l2\"",
        "evaluate.steps=3",
        "evaluate.attack=\"fgsm\"",
        "data.source=\"others\"",
    ] {
        advcl(path, &format!("evaluate run -q --set {set}")).expect(0);
    }
    let last = advcl(path, "evaluate run -q --json").expect(0).json();
    let rows = last["outcomes"].as_array().expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["threat"]["radius"], "0.1");
    assert_eq!(
        rows[0]["attacked"]["suite"], "fgsm",
        "the same conditions as the first"
    );
    let summary: serde_json::Value =
        serde_json::from_slice(&get(path.join("run/summary.json"))).expect("JSON");
    let others = summary["other_conditions"].as_array().expect("rows");
    let of = |row: &serde_json::Value| {
        let threat = &row["threat"];
        format!(
            "{} {} {} {}",
            threat["norm"], threat["radius"], row["attack_steps"], row["images"]
        )
    };
    let found: Vec<String> = others.iter().map(of).collect();
    let expected = [
        "\"linf\" \"0.2\" 2 16",
        "\"l2\" \"0.1\" 2 16",
        "\"linf\" \"0.1\" 3 16",
        "\"linf\" \"0.1\" 2 8",
    ];
    assert_eq!(found, expected);
    // Training is what it was.
    assert!(get(path.join("run/simclr/slf/model.safetensors")) == model);
    assert!(get(path.join("run/recipe.toml")) == recipe);
    // A classifier of another learning rate is not what is there.
    let refused = advcl(path, "evaluate run --set finetune.slf.plan.lr=0.2 -q").expect(2);
    assert!(
        refused
            .stderr
            .contains("finetune.slf.plan.lr is 0.1 in the folder, 0.2"),
        "{refused}"
    );
    advcl(
        path,
        "evaluate run --set finetune.slf.plan.lr=0.2 -q --reuse",
    )
    .expect(0);
    // Images of a class that it does not know.
    images(&path.join("strange"), ["a", "c"], 8);
    let strange = advcl(path, "evaluate run -q --set data.source=\"strange\"").expect(2);
    assert!(
        strange.stderr.contains("class \"c\" is not one of those"),
        "{strange}"
    );
}

#[test]
fn more_epochs_go_on_where_the_schedule_allows_it() {
    let folder = folder();
    let path = folder.path();
    let constant = only_simclr().replace(
        "weight_decay = 1e-4, schedule.cosine = {}",
        "weight_decay = 1e-4, schedule.steps = { milestones = [3] }",
    );
    put(path.join("constant.toml"), constant);
    put(path.join("cosine.toml"), only_simclr());
    let model = |run: &str| get(path.join(run).join("simclr/model.safetensors"));
    let pretrain = |args: &str| advcl(path, &format!("pretrain {args}"));
    let more = "--set pretrain.simclr.plan.epochs=4";
    // The same bits as four epochs at once, also where the first two took an hour.
    pretrain("constant.toml --run a -q").expect(0);
    took_long(&path.join("a"), "simclr");
    let longer = pretrain(&format!("constant.toml --run a {more}")).expect(0);
    assert!(
        longer
            .stderr
            .contains("continuing the SimCLR encoder: epoch 2 of 4"),
        "{longer}"
    );
    pretrain(&format!("constant.toml --run b {more} -q")).expect(0);
    assert!(model("a") == model("b"));
    // A cosine has come down to its end: refused with the reason, and with a way that works.
    pretrain("cosine.toml --run c -q").expect(0);
    took_long(&path.join("c"), "simclr");
    let refused = pretrain(&format!("cosine.toml --run c {more} -q")).expect(2);
    assert!(
        refused
            .stderr
            .contains("it cannot be continued: the learning rate at epoch "),
        "{refused}"
    );
    let stretched = "--set pretrain.simclr.plan.stretched=[2]";
    assert!(
        refused
            .stderr
            .contains("--set 'pretrain.simclr.plan.stretched = [2]'"),
        "{refused}"
    );
    pretrain(&format!("cosine.toml --run c {more} {stretched} -q")).expect(0);
    // It is what such a recipe gives from the beginning, too.
    pretrain(&format!("cosine.toml --run d {more} {stretched} -q")).expect(0);
    assert!(model("c") == model("d"));
    // Fewer epochs than are done.
    let fewer = "--set pretrain.simclr.plan.epochs=1";
    took_long(&path.join("a"), "simclr");
    let refused = pretrain(&format!("constant.toml --run a {fewer} -q")).expect(2);
    assert!(
        refused
            .stderr
            .contains("4 epochs are done already, 1 are asked for"),
        "{refused}"
    );
}

#[test]
fn a_recipe_that_the_user_wrote_is_read_and_never_written() {
    let folder = with_images();
    let path = folder.path();
    let text = String::from_utf8(get(path.join("r.toml"))).expect("UTF-8");
    let own = format!("# My notes: radius as agreed on Monday.\n{text}");
    put(path.join("recipe.toml"), &own);
    advcl(path, "run recipe.toml --run . -q").expect(0);
    assert!(
        !path.join("recipe.resolved.toml").exists(),
        "nothing to add to it"
    );
    // With an override, the whole stands beside it, and later commands use that.
    advcl(path, "run . -q --set finetune.slf.plan.epochs=4").expect(0);
    assert!(path.join("recipe.resolved.toml").exists());
    let shown = advcl(path, "recipe show .").expect(0);
    assert!(shown.stdout.contains("epochs = 4"), "{shown}");
    advcl(path, "evaluate . -q").expect(0);
    assert!(get(path.join("recipe.toml")) == own.as_bytes());
    // The user's change counts.
    put(
        path.join("recipe.toml"),
        own.replace("seed = 3", "seed = 4"),
    );
    let shown = advcl(path, "recipe show .").expect(0);
    assert!(
        shown.stdout.contains("seed = 4") && !shown.stdout.contains("epochs = 4"),
        "{shown}"
    );
    advcl(path, "run . -q").expect(0);
}

#[test]
fn another_label_keeps_the_encoder() {
    let folder = with_images();
    let path = folder.path();
    advcl(path, "run r.toml --run run -q").expect(0);
    took_long(&path.join("run"), "simclr");
    let model = |stage: &str| get(path.join("run").join(stage).join("model.safetensors"));
    let before = ["simclr", "simclr/slf"].map(model);
    // The same images in another order, one of them of the other class.
    let set = path.join("set/train");
    std::fs::rename(set.join("a/000.png"), set.join("b/0000.png")).expect("a move");
    std::fs::rename(set.join("a/001.png"), set.join("a/zzz.png")).expect("a move");
    let again = advcl(path, "run run").expect(0);
    assert!(
        again.stderr.contains("the labels are not the same"),
        "{again}"
    );
    assert!(
        model("simclr") == before[0],
        "the encoder depends on no label"
    );
    assert!(model("simclr/slf") != before[1]);
}

#[test]
fn one_row_that_is_missing_does_not_block_the_others() {
    let folder = folder();
    let path = folder.path();
    advcl(path, "pretrain tiny.toml --method simclr --run run -q").expect(0);
    let finetuned = advcl(path, "finetune run").expect(0);
    assert!(
        finetuned.stdout.ends_with("simclr/slf/model.safetensors\n"),
        "{finetuned}"
    );
    assert!(
        finetuned.stderr.contains("advcl/slf: passed over: "),
        "{finetuned}"
    );
    let evaluated = advcl(path, "evaluate run --json").expect(0);
    assert_eq!(
        evaluated.json()["outcomes"].as_array().map(Vec::len),
        Some(1)
    );
    advcl(path, "evaluate run --method advcl -q").expect(2);
}

#[test]
fn folders_of_other_versions_are_told_apart() {
    let folder = folder();
    let path = folder.path();
    put(path.join("r.toml"), only_simclr());
    advcl(path, "run r.toml --run run -q").expect(0);
    copy(&path.join("run"), &path.join("old"));
    // As an earlier version wrote it: dependencies in another form, results without a format.
    for stage in ["simclr", "simclr/slf"] {
        let file = path.join("old").join(stage).join("model.safetensors");
        let mut model = Model::load(&file, &device()).expect("a model");
        model.info = ModelInfo {
            format: 1,
            recipe: "seed = 3\n\n[data]\nimages = 64\npixels = \"fnv1a-0\"\n".to_owned(),
            ..model.info
        };
        model.save(&file).expect("a writable folder");
    }
    let result = path.join("old/simclr/slf/result.json");
    put(
        &result,
        "{\"recipe\": \"seed = 3\", \"clean_accuracy\": 0.9}",
    );
    let refused = advcl(path, "evaluate old -q").expect(2);
    assert!(
        refused.stderr.contains("made by an earlier version"),
        "{refused}"
    );
    advcl(path, "evaluate old -q --reuse").expect(0);
    advcl(path, "report old -o old.html -q").expect(0);
    // And of a later one.
    let about = String::from_utf8(get(path.join("run/run.json"))).expect("UTF-8");
    put(
        path.join("run/run.json"),
        about.replace("\"format\": 2", "\"format\": 3"),
    );
    for command in ["run run", "evaluate run", "report run"] {
        let refused = advcl(path, &format!("{command} -q")).expect(2);
        assert!(
            refused.stderr.contains("format 2 or less, found 3"),
            "{refused}"
        );
    }
}

#[test]
fn comparisons_and_runs_keep_out_of_each_others_folders() {
    let folder = folder();
    let path = folder.path();
    put(
        path.join("r.toml"),
        only_simclr() + "\n[compare]\nseeds = [1]\n",
    );
    advcl(path, "run r.toml --run run -q").expect(0);
    let recipe = get(path.join("run/recipe.toml"));
    let refused = advcl(path, "compare r.toml --run run -q").expect(2);
    assert!(refused.stderr.contains("found a run"), "{refused}");
    assert!(get(path.join("run/recipe.toml")) == recipe);
    advcl(path, "compare r.toml --run all -q").expect(0);
    let refused = advcl(path, "run r.toml --run all -q").expect(2);
    assert!(refused.stderr.contains("found a comparison"), "{refused}");
    // Seeds are added; those that are there are not computed again.
    let model = get(path.join("all/seed-1/simclr/model.safetensors"));
    advcl(
        path,
        "compare r.toml --run all -q --set compare.seeds=[1,2]",
    )
    .expect(0);
    assert!(get(path.join("all/seed-1/simclr/model.safetensors")) == model);
    advcl(path, "compare r.toml --run all -q --set compare.seeds=[3]").expect(0);
    // Another recipe beside the seeds of the first would be averaged with them.
    let other = "--set compare.seeds=[7] --set encoder.width=4";
    let refused = advcl(path, &format!("compare r.toml --run all -q {other}")).expect(2);
    assert!(
        refused
            .stderr
            .contains("encoder.width is 2 in the folder, 4"),
        "{refused}"
    );
}
