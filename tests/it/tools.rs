//! The program's smaller commands, its help, and how it behaves when nobody listens.

use std::fs;
use std::path::Path;

use advcl::data;
use advcl::recipe::{Recipe, SHIPPED};

use crate::{advcl, folder, put};

#[test]
fn recipes_are_printed_as_they_are_read() {
    let folder = folder();
    let path = folder.path();
    let list = advcl(path, "recipe list").expect(0).stdout;
    let json = advcl(path, "recipe list --json").expect(0).json();
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
        let shown = advcl(path, &format!("recipe show {name}")).expect(0).stdout;
        put(path.join("shown.toml"), &shown);
        assert_eq!(
            advcl(path, "recipe show shown.toml").expect(0).stdout,
            shown
        );
        let recipe = Recipe::load(name, &[]).expect("a shipped recipe");
        assert_eq!(
            Recipe::parse("shown", &shown, &[]).expect("what was shown"),
            recipe
        );
        let json = advcl(path, &format!("recipe show {name} --json"))
            .expect(0)
            .json();
        assert_eq!(
            serde_json::from_value::<Recipe>(json).expect("a recipe"),
            recipe
        );
        // Those that need no other data can be carried out as shown.
        if data::EMBEDDED.contains(&recipe.data.source.as_str()) {
            assert_eq!(
                advcl(path, "recipe check shown.toml").expect(0).stdout,
                "ok\n"
            );
        }
    }
    // Overrides: in order, of a key, of a table, of a key that was left out.
    let set =
        "--set seed=1 --set seed=9 --set data.holdout=0.25 --set threat={norm='l2',radius='1/2'}";
    let shown = advcl(path, &format!("recipe show smoke {set}"));
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
    advcl(path, "pretrain tiny.toml --method simclr --run run").expect(0);
    let more = "fashion-mnist-12k --model run/simclr --sheet attacked.png --rows 2";
    for (answer, file, rows, columns) in [
        (advcl(path, "data inspect"), "views.png", 10, 5),
        (
            advcl(path, &format!("data inspect {more}")),
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
    let json = advcl(path, "data inspect --json --sheet views.png")
        .expect(0)
        .json();
    assert_eq!(
        (json["train"].as_u64(), json["test"].as_u64()),
        (Some(10_000), Some(2_000))
    );
}

#[test]
fn bench_says_what_it_timed() {
    let folder = folder();
    let step = "bench step --width 2 --batch 4 --size 16 --runs 1 --json";
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
    let bare = advcl(folder.path(), "").expect(2);
    assert!(
        bare.stderr.contains("Example: advcl run quickstart"),
        "{bare}"
    );
    let version = advcl(folder.path(), "--version").expect(0).stdout;
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
