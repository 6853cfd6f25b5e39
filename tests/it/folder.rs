//! The run folder: which results stay when daily work adds or changes something.

use std::path::Path;

use advcl::run::{Model, ModelInfo};

use crate::{
    TINY, Transcript, advcl, answer, copy, device, folder, folder_after, get, only_simclr, program,
    put,
};

/// Gray PNGs of two classes in `train/` and `test/`.
pub fn images(root: &Path, classes: [&str; 2], each: usize) {
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
pub fn with_images() -> tempfile::TempDir {
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
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start("evaluate moved/run -q");
    transcript.check("data_that_moved");
    let mut found = program(path);
    found.args(["evaluate", "moved/run", "--json", "-q", "--set"]);
    answer(found.arg("data.source = \"images\"")).expect(0);
}

#[test]
fn adding_keeps_what_is_there_and_changing_touches_what_depends_on_it() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
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
    let mut transcript = Transcript::new(path);
    transcript.run(&format!("run --run run --set {set}"), 0);
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
    transcript.run(args, 0);
    transcript.check("changed_keys");
    assert!(model("simclr") != before[0] && model("advcl") == advcl_before);
}

const MODE: &str = r#"
[finetune.alf]
loss = { pgd = { steps = 1 } }
plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }
"#;

#[test]
fn a_long_result_is_replaced_used_or_kept_as_asked() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    took_long(&path.join("run"), "simclr");
    let model = |run: &str| get(path.join(run).join("simclr/model.safetensors"));
    let before = model("run");
    let set = "--set pretrain.simclr.temperature=0.3";
    let mut transcript = Transcript::new(path);
    let command = |name: &str| format!("{name} --run run {set} -q");
    transcript.refuse_all(&["run", "pretrain"].map(command));
    let recipe = get(path.join("run/recipe.toml"));
    assert!(model("run") == before);
    // Left alone: a fork copies what holds, here nothing of the encoder.
    transcript.run(&format!("fork run new {set}"), 0);
    assert!(model("run") == before && get(path.join("run/recipe.toml")) == recipe);
    advcl(path, "run new -q").expect(0);
    assert!(model("new") != before);
    // A fork with another classifier has the encoder and needs not make it again.
    transcript.run("fork run other --set finetune.slf.augment=true", 0);
    advcl(path, "run other -q").expect(0);
    assert!(model("other") == before);
    transcript.refuse("fork run other");
    // Used as it is.
    transcript.run(&format!("run --run run {set} --reuse"), 0);
    transcript.check("a_long_result");
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
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start("evaluate run --set finetune.slf.plan.lr=0.2 -q");
    advcl(
        path,
        "evaluate run --set finetune.slf.plan.lr=0.2 -q --reuse",
    )
    .expect(0);
    // Images of a class that it does not know.
    images(&path.join("strange"), ["a", "c"], 8);
    transcript.refuse_after_a_start("evaluate run -q --set data.source=\"strange\"");
    transcript.check("other_conditions");
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
    let model = |run: &str| get(path.join(run).join("simclr/model.safetensors"));
    let pretrain = |args: &str| advcl(path, &format!("pretrain {args}")).expect(0);
    let mut transcript = Transcript::new(path);
    let more = "--set pretrain.simclr.plan.epochs=4";
    // The same bits as four epochs at once, also where the first two took an hour.
    pretrain("constant.toml --run a -q");
    took_long(&path.join("a"), "simclr");
    transcript.run(&format!("pretrain constant.toml --run a {more}"), 0);
    pretrain(&format!("constant.toml --run b {more} -q"));
    assert!(model("a") == model("b"));
    // A cosine has come down to its end: refused with the reason, and with a way that works.
    pretrain("simclr.toml --run c -q");
    took_long(&path.join("c"), "simclr");
    transcript.refuse(&format!("pretrain simclr.toml --run c {more} -q"));
    // Where the learning rate is another one too, stretching is no such way.
    let other = format!("pretrain simclr.toml --run c {more} --set pretrain.simclr.plan.lr=0.01");
    let refused = advcl(path, &other).expect(2);
    assert!(refused.stderr.contains("cannot be continued"), "{refused}");
    assert!(!refused.stderr.contains("stretched"), "{refused}");
    let stretched = "--set pretrain.simclr.plan.stretched=[2]";
    pretrain(&format!("simclr.toml --run c {more} {stretched} -q"));
    // It is what such a recipe gives from the beginning, too.
    pretrain(&format!("simclr.toml --run d {more} {stretched} -q"));
    assert!(model("c") == model("d"));
    // Fewer epochs than are done.
    let fewer = "--set pretrain.simclr.plan.epochs=1";
    took_long(&path.join("a"), "simclr");
    transcript.refuse(&format!("pretrain constant.toml --run a {fewer} -q"));
    transcript.check("more_epochs");
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
    let mut transcript = Transcript::new(path);
    transcript.run("run run", 0);
    transcript.check("another_label");
    assert!(
        model("simclr") == before[0],
        "the encoder depends on no label"
    );
    assert!(model("simclr/slf") != before[1]);
}

#[test]
fn one_row_that_is_missing_does_not_block_the_others() {
    let folder = folder_after("pretrain tiny.toml --method simclr --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.run("finetune run", 0);
    let evaluated = advcl(path, "evaluate run --json").expect(0);
    assert_eq!(
        evaluated.json()["outcomes"].as_array().map(Vec::len),
        Some(1)
    );
    transcript.refuse_after_a_start("evaluate run --method advcl -q");
    transcript.check("a_missing_row");
}

#[test]
fn folders_of_other_versions_are_recognized() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
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
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start("evaluate old -q");
    advcl(path, "evaluate old -q --reuse").expect(0);
    advcl(path, "report old -o old.html -q").expect(0);
    // And of a later one.
    let about = String::from_utf8(get(path.join("run/run.json"))).expect("UTF-8");
    put(
        path.join("run/run.json"),
        about.replace("\"format\": 2", "\"format\": 3"),
    );
    let command = |name: &str| format!("{name} run -q");
    transcript.refuse_all(&["run", "evaluate", "report"].map(command));
    transcript.check("folders_of_other_versions");
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
    let mut transcript = Transcript::new(path);
    transcript.refuse("compare r.toml --run run -q");
    assert!(get(path.join("run/recipe.toml")) == recipe);
    advcl(path, "compare r.toml --run all -q").expect(0);
    transcript.refuse("run r.toml --run all -q");
    // What a process left that was killed while it wrote files of the comparison itself.
    let (left, users) = (path.join("all/.aB3dEf.part"), path.join("all/movie.part"));
    for file in [&left, &users] {
        put(file, "");
    }
    // Seeds are added; those that are there are not computed again.
    let model = get(path.join("all/seed-1/simclr/model.safetensors"));
    advcl(
        path,
        "compare r.toml --run all -q --set compare.seeds=[1,2]",
    )
    .expect(0);
    assert!(get(path.join("all/seed-1/simclr/model.safetensors")) == model);
    assert!(!left.exists() && users.exists());
    advcl(path, "compare r.toml --run all -q --set compare.seeds=[3]").expect(0);
    // Another recipe beside the seeds of the first would be averaged with them.
    let other = "--set compare.seeds=[7] --set encoder.width=4";
    transcript.refuse(&format!("compare r.toml --run all -q {other}"));
    transcript.check("comparisons_and_runs_in_one_folder");
}
