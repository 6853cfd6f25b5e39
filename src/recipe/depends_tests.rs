use super::*;
use crate::finetune::MODES;
use crate::pretrain::METHODS;

fn print(pixels: &str) -> SplitFingerprint {
    SplitFingerprint {
        images: 256,
        pixels: pixels.to_owned(),
        order: format!("{pixels} in order"),
        labels: "labels".to_owned(),
    }
}

fn prints() -> Fingerprints {
    Fingerprints {
        train: print("train"),
        downstream: None,
        evaluated: print("evaluated"),
        files: BTreeMap::new(),
    }
}

fn recipe(name: &str, set: &[&str]) -> Recipe {
    let set: Vec<String> = set.iter().map(|line| (*line).to_owned()).collect();
    Recipe::load(name, &set).expect("a recipe")
}

/// A recipe with every table and every key that there is.
pub fn full() -> Recipe {
    recipe(
        "compare-quick",
        &[
            "data.holdout = 0.1",
            "data.train_limit = 900",
            "data.test_limit = 200",
            "downstream = { source = 'fashion-mnist-12k', train_limit = 90, test_limit = 20, convert_channels = true }",
            "probe = { every = 1, neighbours = 5 }",
            "precision = 'bf16'",
            "shards = 2",
            "checkpoint.minutes = 5.0",
            "pretrain.\"advcl+\" = { temperature = 0.5, cluster_weight = 3.0, period = 1, attack_steps = 1, plan = { epochs = 1, batch_size = 50, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} } }",
            "pretrain.acl.init = './weights.safetensors'",
            "pretrain.acl.pull = 0.5",
            "pretrain.acl.attack_radius = '9/255'",
            "pretrain.acl.plan.micro_batch = 10",
            "evaluate.attack = 'autoattack'",
            "evaluate.attack_limit = 10",
            "evaluate.measure_limit = 10",
            "evaluate.smoothing = { sigma = 0.5, samples = 200, selection = 10, alpha = 0.01 }",
            "evaluate.patch = { size = 0.1, places = 2, steps = 5, step_size = 0.2 }",
            "evaluate.step_size = 0.01",
            "evaluate.soundness = false",
            "finetune.standard-full = { plan = { epochs = 1, batch_size = 50, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} } }",
            "finetune.semi-supervised = { plan = { epochs = 1, batch_size = 50, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} }, labels = 0.5, augment = true }",
        ],
    )
}

/// Every artifact of a recipe by name, with the facts that its types know.
fn artifacts(recipe: &Recipe) -> Vec<(String, Artifact<'_>, Facts)> {
    let mut all = Vec::new();
    for entry in recipe.pretrain.entries() {
        let facts = Facts {
            attacks: entry.method().attacks(),
            own_radius: entry.common().attack_radius.is_some(),
            ..Facts::default()
        };
        let artifact = Artifact::Encoder(&entry.name);
        all.push((title(artifact), artifact, facts));
    }
    for entry in recipe.finetune.entries() {
        let facts = Facts {
            attacks: entry.loss().attacks(),
            labels: true,
            steps: entry.settings.solver.is_sgd(),
            ..Facts::default()
        };
        let artifact = Artifact::Classifier(&entry.name);
        all.push((title(artifact), artifact, facts));
    }
    for artifact in [
        Artifact::PseudoLabels,
        Artifact::Pgd,
        Artifact::Suite,
        Artifact::Measure(&FOR_SOME_MEASURES),
    ] {
        all.push((title(artifact), artifact, Facts::default()));
    }
    all
}

fn dotted(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.to_owned()
    } else {
        format!("{prefix}.{key}")
    }
}

/// Calls `f` with every table below `table`, itself included, by its dotted name.
fn each_table(table: &mut Table, name: &str, f: &mut impl FnMut(&mut Table, &str)) {
    f(table, name);
    for (key, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            each_table(inner, &dotted(name, key), f);
        }
    }
}

#[test]
fn every_key_that_is_there_and_every_key_to_come_makes_some_result_stale() {
    let recipe = full();
    let whole = Table::try_from(&recipe).expect("plain values");
    for name in METHODS.iter().map(|method| method.name) {
        assert!(
            recipe.pretrain.get(name).is_some(),
            "{name} is missing in the full recipe"
        );
    }
    for name in MODES.iter().map(|mode| mode.name) {
        assert!(
            recipe.finetune.require(name).is_ok(),
            "{name} is missing in the full recipe"
        );
    }
    let all = artifacts(&recipe);
    let picked = |whole: &Table| -> Vec<Table> {
        all.iter()
            .map(|(_, artifact, facts)| pick(whole, *artifact, *facts))
            .collect()
    };
    let before = picked(&whole);
    // What is known not to matter: images count by their pixels, and these keys decide what is computed.
    let free = |key: &str| {
        NEVER
            .iter()
            .any(|table| key == *table || key.starts_with(&format!("{table}.")))
            || NEVER_OF_EVALUATE
                .iter()
                .any(|name| key == format!("evaluate.{name}"))
    };
    // Each key that there is, changed.
    let (mut changes, mut tables) = (Vec::new(), Vec::new());
    each_table(&mut whole.clone(), "", &mut |table, name| {
        tables.push(name.to_owned());
        for (key, value) in table.iter() {
            if !matches!(value, Value::Table(_)) {
                changes.push(dotted(name, key));
            }
        }
    });
    assert!(
        changes.len() > 100,
        "the full recipe has many keys: {changes:?}"
    );
    // And a key in each table that nobody has thought of.
    changes.extend(tables.iter().map(|table| dotted(table, "new")));
    for change in changes {
        let mut changed = whole.clone();
        each_table(&mut changed, "", &mut |table, name| {
            let Some(key) = change.strip_prefix(name) else {
                return;
            };
            let key = key.trim_start_matches('.');
            if !key.contains('.') && (table.contains_key(key) || key == "new") {
                table.insert(key.to_owned(), Value::String("changed".to_owned()));
            }
        });
        assert_ne!(changed, whole, "{change}");
        let stale = picked(&changed) != before;
        // A new table at the top matters to everything; so do new methods.
        assert_eq!(stale, !free(&change), "{change}");
    }
    // No name on the lists is misspelt.
    let evaluate = whole["evaluate"].as_table().expect("a table");
    for key in NEVER {
        assert!(whole.contains_key(key), "{key}");
    }
    for key in NEVER_OF_EVALUATE {
        assert!(evaluate.contains_key(key), "{key}");
    }
    for key in FOR_SOME_MEASURES {
        let found = key
            .split_once('.')
            .map_or(whole.get(key), |(_, key)| evaluate.get(key));
        assert!(found.is_some(), "{key}");
    }
}

/// Dependencies of everything below an encoder, put together as a run does.
fn chain(recipe: &Recipe, prints: &Fingerprints) -> BTreeMap<&'static str, String> {
    let of = |artifact, upstream: Upstream| {
        recipe
            .dependencies(artifact, prints, upstream)
            .expect("its tables")
    };
    let simclr = of(Artifact::Encoder("simclr"), &[]);
    let labels = of(Artifact::PseudoLabels, &[(CLUSTERED, &simclr)]);
    let advcl = of(Artifact::Encoder("advcl"), &[(PSEUDO_LABELS, &labels)]);
    let at = of(Artifact::Encoder("adversarial-training"), &[]);
    let slf = of(Artifact::Classifier("slf"), &[(PRETRAINED, &simclr)]);
    let advcl_slf = of(Artifact::Classifier("slf"), &[(PRETRAINED, &advcl)]);
    let pgd = of(Artifact::Pgd, &[(CLASSIFIER, &slf)]);
    let advcl_pgd = of(Artifact::Pgd, &[(CLASSIFIER, &advcl_slf)]);
    let at_pgd = of(Artifact::Pgd, &[(CLASSIFIER, &at)]);
    let suite = of(Artifact::Suite, &[(CLASSIFIER, &slf)]);
    let curve = of(Artifact::Measure(&["threat"]), &[(CLASSIFIER, &slf)]);
    let corruptions = of(Artifact::Measure(&[]), &[(CLASSIFIER, &slf)]);
    let patch = of(
        Artifact::Measure(&["evaluate.patch"]),
        &[(CLASSIFIER, &slf)],
    );
    let smoothing = of(
        Artifact::Measure(&["evaluate.smoothing"]),
        &[(CLASSIFIER, &slf)],
    );
    [
        ("SimCLR", simclr),
        ("labels", labels),
        ("AdvCL", advcl),
        ("AT", at),
        ("SimCLR SLF", slf),
        ("AdvCL SLF", advcl_slf),
        ("PGD on SimCLR", pgd),
        ("PGD on AdvCL", advcl_pgd),
        ("PGD on AT", at_pgd),
        ("suite", suite),
        ("curve", curve),
        ("corruptions", corruptions),
        ("patch", patch),
        ("smoothing", smoothing),
    ]
    .into_iter()
    .map(|(name, table)| (name, to_text(&table)))
    .collect()
}

#[test]
fn an_encoder_whose_attacks_have_a_radius_of_their_own_keeps_through_another_threat() {
    let own = "pretrain.advcl.attack_radius = 0.2";
    let encoder = |radius: &str, norm: &str| {
        let threat = format!("threat = {{ norm = '{norm}', radius = {radius} }}");
        let recipe = recipe("smoke", &[own, &threat]);
        let found = recipe.dependencies(Artifact::Encoder("advcl"), &prints(), &[]);
        found.expect("its table")
    };
    assert_eq!(encoder("0.1", "linf"), encoder("0.3", "linf"));
    assert_ne!(encoder("0.1", "linf"), encoder("0.1", "l2"));
}

#[test]
fn a_change_makes_stale_what_depends_on_it_and_nothing_else() {
    let everything: Vec<&str> = chain(&recipe("smoke", &[]), &prints())
        .into_keys()
        .collect();
    let attacks = [
        "suite",
        "curve",
        "PGD on SimCLR",
        "PGD on AdvCL",
        "PGD on AT",
    ];
    let below_simclr: Vec<&str> = everything
        .iter()
        .copied()
        .filter(|name| !name.contains("AT"))
        .collect();
    let below_advcl = ["AdvCL", "AdvCL SLF", "PGD on AdvCL"];
    let below_at = ["AT", "PGD on AT"];
    let finetuned: Vec<&str> = everything
        .iter()
        .copied()
        .filter(|name| !["SimCLR", "labels", "AdvCL", "AT", "PGD on AT"].contains(name))
        .collect();
    let threat = [&attacks[..], &below_advcl, &["AT"]].concat();
    let clustered = [&["labels"][..], &below_advcl].concat();
    let before = chain(&recipe("smoke", &[]), &prints());
    let stale = |after: BTreeMap<&'static str, String>| -> Vec<&str> {
        let differs = after.iter().filter(|(name, text)| before[*name] != **text);
        differs.map(|(name, _)| *name).collect()
    };
    let sorted = |names: &[&'static str]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        names
    };
    for (change, expected) in [
        ("seed = 1", &everything[..]),
        ("encoder.width = 5", &everything),
        ("pretrain.simclr.plan.lr = 0.2", &below_simclr),
        ("pretrain.advcl.attack_steps = 3", &below_advcl),
        ("pretrain.adversarial-training.attack_steps = 3", &below_at),
        ("cluster.restarts = 2", &clustered),
        ("threat.radius = 0.2", &threat),
        ("pretrain.advcl.attack_radius = 0.2", &below_advcl),
        ("finetune.slf.augment = true", &finetuned),
        ("finetune.slf.solver = 'lbfgs'", &finetuned),
        ("finetune.slf.class_weights = 'balanced'", &finetuned),
        ("evaluate.steps = 4", &attacks[2..]),
        (
            "evaluate.measure_limit = 9",
            &["curve", "corruptions", "patch", "smoothing"],
        ),
        ("evaluate.patch.places = 2", &["patch"]),
        ("evaluate.smoothing.samples = 50", &["smoothing"]),
        ("evaluate.attack = 'fgsm'", &["suite"]),
        ("evaluate.attack_limit = 9", &["suite"]),
        ("evaluate.soundness = false", &[]),
        ("evaluate.batch_size = 7", &[]),
        ("data.test_limit = 50", &[]),
        ("data.train_limit = 255", &[]),
        ("data.source = 'elsewhere'", &[]),
    ] {
        let found = stale(chain(&recipe("smoke", &[change]), &prints()));
        assert_eq!(sorted(&found), sorted(expected), "{change}");
    }
    // Images by their pixels; labels where they are learnt from; another order for what goes by place.
    let with = |change: fn(&mut Fingerprints)| {
        let mut prints = prints();
        change(&mut prints);
        stale(chain(&recipe("smoke", &[]), &prints))
    };
    let figures = [&attacks[..], &["corruptions", "patch", "smoothing"]].concat();
    let labeled = [&finetuned[..], &below_at].concat();
    for (found, expected) in [
        (
            with(|prints| prints.train.pixels = "z".to_owned()),
            &everything[..],
        ),
        (
            with(|prints| prints.train.labels = "z".to_owned()),
            &labeled,
        ),
        (with(|prints| prints.train.order = "z".to_owned()), &[]),
        (
            with(|prints| prints.evaluated.pixels = "z".to_owned()),
            &figures,
        ),
        (
            with(|prints| prints.evaluated.order = "z".to_owned()),
            &figures,
        ),
    ] {
        assert_eq!(sorted(&found), sorted(expected));
    }
}

#[test]
fn a_plan_that_nobody_follows_does_not_matter() {
    let text = |set: &[&str]| {
        let recipe = recipe("smoke", set);
        let found = recipe.dependencies(Artifact::Classifier("slf"), &prints(), &[]);
        to_text(&found.expect("its table"))
    };
    let (closed, epochs) = (
        "finetune.slf.solver = 'lbfgs'",
        "finetune.slf.plan.epochs = 7",
    );
    assert_eq!(text(&[closed]), text(&[closed, epochs]));
    assert_ne!(text(&[]), text(&[epochs]));
}

#[test]
fn files_count_by_their_content_wherever_they_are() {
    let text = |path: &str, content: &str| {
        let cluster = format!(
            "cluster = {{ counts = [2, 10], restarts = 1, iterations = 1, labels_file = '{path}' }}"
        );
        let recipe = recipe("smoke", &[&cluster]);
        assert_eq!(recipe.files(), [path]);
        let mut prints = prints();
        prints.files.insert(path.to_owned(), content.to_owned());
        to_text(
            &recipe
                .dependencies(Artifact::PseudoLabels, &prints, &[])
                .expect("tables"),
        )
    };
    assert_eq!(text("a/b.c", "1"), text("elsewhere/d.e", "1"));
    assert_ne!(text("a/b.c", "1"), text("a/b.c", "2"));
}

#[test]
fn differences_name_key_and_side() {
    let text = |set: &[&str]| {
        let recipe = recipe("smoke", set);
        let simclr = recipe.dependencies(Artifact::Encoder("simclr"), &prints(), &[]);
        let simclr = simclr.expect("its table");
        recipe
            .dependencies(
                Artifact::Classifier("slf"),
                &prints(),
                &[(PRETRAINED, &simclr)],
            )
            .expect("its table")
    };
    let found = differences(&text(&[]), &text(&["pretrain.simclr.temperature = 0.25"]));
    assert_eq!(
        in_words(&found),
        "pretrain.simclr.temperature is 0.5 in the folder, 0.25 in this command"
    );
    let found = differences(&text(&[]), &text(&["finetune.slf.labels = 0.5"]));
    assert_eq!(
        in_words(&found),
        "finetune.slf.labels is not set in the folder, 0.5 in this command"
    );
    let found = differences(
        &text(&[]),
        &text(&[
            "seed = 9",
            "encoder.width = 5",
            "encoder.depth = 18",
            "finetune.slf.labels = 0.5",
        ]),
    );
    assert!(in_words(&found).ends_with("; and 1 more"), "{found:?}");
}
