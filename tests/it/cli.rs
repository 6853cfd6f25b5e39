//! The program from the door: what it prints, what it writes, and that both agree.

use std::fs;
use std::path::Path;

use advcl::data::{self, Dataset};
use advcl::experiment::Summary;
use advcl::recipe::{Recipe, SHIPPED};

use crate::{Answer, advcl, folder, get, png, put, snapshot};

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
    let first = advcl(path, ["run", "smoke"]).expect(0);
    let written = summary(path, "runs/smoke");
    let lines: Vec<Vec<&str>> = first
        .stdout
        .lines()
        .map(|line| line.split("  ").collect())
        .collect();
    assert_eq!(lines.len(), 1 + written.outcomes.len(), "{first}");
    for (line, outcome) in lines[1..].iter().zip(&written.outcomes) {
        let cells: Vec<&str> = line
            .iter()
            .map(|cell| cell.trim())
            .filter(|c| !c.is_empty())
            .collect();
        let percent = |fraction: f64| format!("{:.1} %", 100.0 * fraction);
        assert_eq!(cells[0], outcome.method.title(), "{first}");
        assert_eq!(cells[2], percent(outcome.clean_accuracy), "{first}");
        assert_eq!(cells[3], percent(outcome.robust_accuracy), "{first}");
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
    let again = advcl(path, ["run", "smoke"]).expect(0);
    assert_eq!(first.stdout, again.stdout);
    assert!(
        before == snapshot(&path.join("runs")),
        "a finished run changed"
    );
    // The folder knows its recipe.
    for command in ["run", "evaluate"] {
        let answer = advcl(path, [command, "--run", "runs/smoke", "--quiet"]).expect(0);
        assert_eq!(
            (first.stdout.as_str(), ""),
            (answer.stdout.as_str(), answer.stderr.as_str())
        );
    }
    let json = advcl(path, ["run", "smoke", "--json"]).expect(0).json();
    assert_eq!(
        serde_json::from_value::<Summary>(json).expect("a summary"),
        written
    );
    let verbose = advcl(path, ["evaluate", "--run", "runs/smoke", "-v"])
        .expect(0)
        .stdout;
    for class in &written.classes {
        assert!(
            verbose.lines().any(|line| line.starts_with(class.as_str())),
            "{class}: {verbose}"
        );
    }
    // One method's figures alone do not throw the other's out of the summary.
    let one = advcl(
        path,
        ["evaluate", "--run", "runs/smoke", "--method", "simclr"],
    )
    .expect(0);
    assert_eq!(one.stdout.lines().count(), 2, "{one}");
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
    for (method, outcome) in ["simclr", "advcl"].into_iter().zip(&written.outcomes) {
        let model = format!("runs/smoke/{method}");
        let json = advcl(path, ["predict", &model, "images", "--json"])
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
        assert_eq!(right, outcome.accuracy.total.clean, "{method}");
        // In words: the first three classes of the same images.
        let text = advcl(
            path,
            [
                "predict",
                &format!("{model}/model.safetensors"),
                "images/0001.png",
                "images/0000.png",
            ],
        );
        let text = text.expect(0).stdout;
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
    advcl(path, ["run", "tiny.toml", "--run", "whole"]).expect(0);
    // The recipe is named once; after that the folder has it.
    let made = |answer: Answer, file: &str| {
        let answer = answer.expect(0);
        assert_eq!(answer.stdout, format!("steps/{file}\n"), "{answer}");
        assert!(path.join("steps").join(file).exists(), "{answer}");
    };
    let simclr = "simclr/model.safetensors";
    let advcl_model = "advcl/model.safetensors";
    made(
        advcl(
            path,
            [
                "pretrain",
                "tiny.toml",
                "--method",
                "simclr",
                "--run",
                "steps",
            ],
        ),
        simclr,
    );
    made(
        advcl(path, ["cluster", "--run", "steps"]),
        "pseudo_labels.safetensors",
    );
    made(
        advcl(path, ["pretrain", "--method", "advcl", "--run", "steps"]),
        advcl_model,
    );
    made(
        advcl(path, ["finetune", "--method", "advcl", "--run", "steps"]),
        advcl_model,
    );
    made(
        advcl(path, ["finetune", "--method", "simclr", "--run", "steps"]),
        simclr,
    );
    advcl(path, ["evaluate", "--run", "steps"]).expect(0);
    assert_eq!(
        outcomes(&summary(path, "whole")),
        outcomes(&summary(path, "steps"))
    );
    for file in [
        simclr,
        advcl_model,
        "pseudo_labels.safetensors",
        "recipe.toml",
    ] {
        assert!(
            get(path.join("whole").join(file)) == get(path.join("steps").join(file)),
            "{file}"
        );
    }
    // All methods in one go.
    advcl(path, ["pretrain", "tiny.toml", "--run", "both"]).expect(0);
    advcl(path, ["finetune", "--run", "both"]).expect(0);
    advcl(path, ["evaluate", "--run", "both"]).expect(0);
    assert_eq!(
        outcomes(&summary(path, "whole")),
        outcomes(&summary(path, "both"))
    );
    // Another seed is another run.
    advcl(
        path,
        ["run", "tiny.toml", "--run", "other", "--set", "seed = 4"],
    )
    .expect(0);
    assert!(get(path.join("whole").join(simclr)) != get(path.join("other").join(simclr)));
}

#[test]
fn recipes_are_printed_as_they_are_read() {
    let folder = folder();
    let path = folder.path();
    let list = advcl(path, ["recipe", "list"]).expect(0).stdout;
    let json = advcl(path, ["recipe", "list", "--json"]).expect(0).json();
    for (index, (name, about, _)) in SHIPPED.iter().enumerate() {
        assert!(
            list.lines()
                .any(|line| line.starts_with(name) && line.ends_with(about)),
            "{name}: {list}"
        );
        assert_eq!(
            (json[index]["name"].as_str(), json[index]["about"].as_str()),
            (Some(*name), Some(*about))
        );
        let shown = advcl(path, ["recipe", "show", name]).expect(0).stdout;
        put(path.join("shown.toml"), &shown);
        assert_eq!(
            advcl(path, ["recipe", "show", "shown.toml"])
                .expect(0)
                .stdout,
            shown
        );
        let recipe = Recipe::load(name, &[]).expect("a shipped recipe");
        assert_eq!(
            Recipe::parse("shown", &shown, &[]).expect("what was shown"),
            recipe
        );
        let json = advcl(path, ["recipe", "show", name, "--json"])
            .expect(0)
            .json();
        assert_eq!(
            serde_json::from_value::<Recipe>(json).expect("a recipe"),
            recipe
        );
        // Those that need no other data can be carried out as shown.
        if data::EMBEDDED.contains(&recipe.data.source.as_str()) {
            assert_eq!(
                advcl(path, ["recipe", "check", "shown.toml"])
                    .expect(0)
                    .stdout,
                "ok\n"
            );
        }
    }
    // Overrides: in order, of a key, of a table, of a key that was left out.
    let set = [
        "seed = 1",
        "seed = 9",
        "data.holdout = 0.25",
        "threat = { norm = \"l2\", radius = \"1/2\" }",
    ];
    let [a, b, c, d] = set;
    let shown = advcl(
        path,
        [
            "recipe", "show", "smoke", "--set", a, "--set", b, "--set", c, "--set", d,
        ],
    );
    let recipe = Recipe::parse("shown", &shown.expect(0).stdout, &[]).expect("what was shown");
    assert_eq!(
        (
            recipe.seed,
            recipe.data.holdout,
            recipe.threat.radius.value()
        ),
        (9, 0.25, 0.5)
    );
    assert_eq!(
        recipe.data.train_limit,
        Recipe::load("smoke", &[]).expect("smoke").data.train_limit
    );
}

#[test]
fn data_inspect_draws_every_view() {
    let folder = folder();
    let path = folder.path();
    advcl(
        path,
        [
            "pretrain",
            "tiny.toml",
            "--method",
            "simclr",
            "--run",
            "run",
        ],
    )
    .expect(0);
    let model = [
        "--model",
        "run/simclr",
        "--sheet",
        "attacked.png",
        "--rows",
        "2",
    ];
    let [a, b, c, d, e, f] = model;
    for (answer, file, rows, columns) in [
        (advcl(path, ["data", "inspect"]), "views.png", 10, 5),
        (
            advcl(
                path,
                ["data", "inspect", "fashion-mnist-12k", a, b, c, d, e, f],
            ),
            "attacked.png",
            2,
            6,
        ),
    ] {
        let answer = answer.expect(0);
        for words in [
            "10000 training, 2000 test",
            "28 × 28, 1 channel",
            file,
            "high-frequency",
            "ankle boot",
        ] {
            assert!(answer.stdout.contains(words), "{words:?} in {answer}");
        }
        let sheet = image::open(path.join(file))
            .expect("a picture")
            .into_luma8();
        let side = |count: u32| count * (28 * 4 + 2) - 2;
        assert_eq!(sheet.dimensions(), (side(columns), side(rows)), "{file}");
        assert!(
            sheet.pixels().any(|pixel| pixel.0 == [0])
                && sheet.pixels().any(|pixel| pixel.0 == [255])
        );
    }
    let json = advcl(path, ["data", "inspect", "--json"]).expect(0).json();
    assert_eq!(
        (json["train"].as_u64(), json["test"].as_u64()),
        (Some(10_000), Some(2_000))
    );
}

#[test]
fn bench_says_what_it_timed() {
    let folder = folder();
    let step = [
        "bench", "step", "--width", "2", "--batch", "4", "--size", "16", "--runs", "1", "--json",
    ];
    let json = advcl(folder.path(), step).expect(0).json();
    assert_eq!(json["shape"], serde_json::json!([4, 3, 16, 16]));
    let (seconds, rate) = (
        json["median_seconds"].as_f64(),
        json["images_per_second"].as_f64(),
    );
    let (seconds, rate) = seconds.zip(rate).unwrap_or_else(|| panic!("{json}"));
    assert!(
        seconds > 0.0 && (seconds * rate - 4.0).abs() < 1e-6,
        "{json}"
    );
}

/// The help of a command, and of those below it, as the help itself lists them.
fn check_help(path: &Path, command: &[String]) -> usize {
    let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
    args.push("--help");
    let help = crate::answer(crate::program(path).args(&args)).expect(0);
    let lines = help.stdout.lines().count();
    assert!(lines <= 40, "{lines} lines: {help}");
    assert!(
        help.stdout.contains("Example: advcl "),
        "no example: {help}"
    );
    assert!(
        help.stdout.lines().all(|line| line.chars().count() <= 100),
        "wide: {help}"
    );
    let listed = help
        .stdout
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| *name != "help").map(str::to_owned);
    let below = |name: String| check_help(path, &[command, &[name]].concat());
    1 + names.map(below).sum::<usize>()
}

#[test]
fn every_help_is_short_and_has_an_example() {
    let folder = folder();
    let count = check_help(folder.path(), &[]);
    assert!(count >= 16, "only {count} commands were found");
    // No arguments: the same help, but not as a success.
    let bare = advcl(folder.path(), []).expect(2);
    assert!(
        bare.stderr.contains("Example: advcl run quickstart"),
        "{bare}"
    );
    let version = advcl(folder.path(), ["--version"]).expect(0).stdout;
    assert_eq!(version, format!("advcl {}\n", env!("CARGO_PKG_VERSION")));
}

#[cfg(unix)]
#[test]
fn nobody_reading_is_no_reason_to_panic() {
    use std::process::Stdio;
    let folder = folder();
    // stderr is closed: the run goes on. stdout is closed: nothing more is said.
    let run = ["run", "tiny.toml", "--run", "run"];
    let mut command = crate::program(folder.path());
    let mut child = command
        .args(run)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stderr.take());
    assert_eq!(
        child.wait().expect("a child of ours").code(),
        Some(0),
        "without stderr"
    );
    assert!(folder.path().join("run/summary.json").exists());
    let mut command = crate::program(folder.path());
    let mut child = command
        .args(run)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    assert_eq!(
        child.wait().expect("a child of ours").code(),
        Some(0),
        "without stdout"
    );
    if Path::new("/dev/full").exists() {
        let full = fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("writable");
        let answer = crate::answer(
            crate::program(folder.path())
                .args(["recipe", "list"])
                .stdout(full),
        )
        .expect(2);
        assert!(
            answer
                .stderr
                .contains("error: cannot write to stdout\ncaused by: No space left"),
            "{answer}"
        );
    }
    // Files are for everybody whom the umask lets.
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| {
        fs::metadata(folder.path().join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("run/simclr/model.safetensors"), mode("tiny.toml"));
}
