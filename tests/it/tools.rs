//! The smaller commands, the help texts, and outputs that are closed or full.

use std::fs;
use std::path::Path;

use advcl::bench::{Layer, Passes, resnet18};
use advcl::data;
use advcl::finetune::MODES;
use advcl::nn::Stem;
use advcl::pretrain::METHODS;
use advcl::recipe::{Recipe, SHIPPED};

use crate::{Transcript, advcl, folder, folder_after, get, put};

#[test]
fn a_printed_recipe_is_read_as_the_same() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.run("recipe list", 0);
    let json = advcl(path, "recipe list --json").expect(0).json();
    for (index, (name, about, _)) in SHIPPED.iter().enumerate() {
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
    let shown = transcript.run(&format!("recipe show smoke {set}"), 0);
    transcript.check("recipes");
    let recipe = Recipe::parse("shown", &shown.stdout, &[]).expect("what was shown");
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
fn methods_modes_and_recipes_are_listed() {
    let folder = folder();
    let methods: Vec<_> = METHODS.iter().map(|m| (m.name, m.about)).collect();
    let modes: Vec<_> = MODES.iter().map(|m| (m.name, m.about)).collect();
    let recipes: Vec<_> = SHIPPED.iter().map(|(n, about, _)| (*n, *about)).collect();
    let mut transcript = Transcript::new(folder.path());
    for (what, known) in [("methods", methods), ("modes", modes), ("recipes", recipes)] {
        let list = |more: &str| advcl(folder.path(), &format!("list {what}{more}")).expect(0);
        let text = list("");
        transcript.add(&text);
        let rows: Vec<(&str, &str)> = text
            .stdout
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(name, about)| (name, about.trim_start()))
            .collect();
        assert_eq!(rows, known, "{text}");
        assert_eq!(text.stdout.lines().count(), known.len());
        let named = |(name, about): &_| serde_json::json!({ "name": name, "about": about });
        let expected: Vec<_> = known.iter().map(named).collect();
        assert_eq!(list(" --json").json(), serde_json::json!(expected));
        let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), known.len(), "{what}: a name comes twice");
    }
    let recipes = |args: &str| advcl(folder.path(), args).expect(0).stdout;
    assert_eq!(recipes("list recipes"), recipes("recipe list"));
    transcript.check("lists");
}

#[test]
fn data_inspect_draws_every_view() {
    let folder = folder_after("pretrain tiny.toml --method simclr --run run");
    let path = folder.path();
    let more = "fashion-mnist-12k --model run/simclr --sheet attacked.png --rows 2";
    let mut transcript = Transcript::new(path);
    for (args, file, rows, columns) in [
        ("data inspect --sheet views.png", "views.png", 10, 5),
        (&format!("data inspect {more}"), "attacked.png", 2, 6),
    ] {
        transcript.run(args, 0);
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
    let json = advcl(path, "data inspect --json --sheet views.png").expect(0);
    transcript.add_shape(&json);
    transcript.check("data_inspect");
    let json = json.json();
    assert_eq!(
        (json["train"].as_u64(), json["test"].as_u64()),
        (Some(10_000), Some(2_000))
    );
}

/// The number at `pointer` ("/gemm/gflops"), which must be above zero.
#[track_caller]
fn positive(json: &serde_json::Value, pointer: &str) -> f64 {
    let number = json.pointer(pointer).and_then(|value| value.as_f64());
    let number = number.unwrap_or_else(|| panic!("no number {pointer} in {json}"));
    assert!(number > 0.0, "{pointer} in {json}");
    number
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs(),
        "expected {expected}, found {found}"
    );
}

#[test]
fn bench_measures_steps_and_evaluations() {
    let folder = folder();
    let mut transcript = Transcript::new(folder.path());
    let shape = "--width 2 --batch 4 --size 16 --runs 2";
    let layers = resnet18(Stem::Cifar, 2, 3, 16);
    for (what, attack_steps, passes) in [
        ("step", 5, Passes::advcl_step(5)),
        ("evaluate", 20, Passes::evaluation(20)),
    ] {
        let json = advcl(folder.path(), &format!("bench {what} {shape} --json"));
        let json = json.expect(0);
        transcript.add_shape(&json);
        let json = json.json();
        assert_eq!(json["width"], 2);
        assert_eq!(json["shape"], serde_json::json!([4, 3, 16, 16]));
        assert_eq!(json["attack_steps"], attack_steps);
        assert_eq!(json["seconds"].as_array().map(Vec::len), Some(2));
        let seconds = positive(&json, "/median_seconds");
        near(positive(&json, "/images_per_second"), 4.0 / seconds);
        let gflops = positive(&json, "/gflops");
        near(gflops, passes.operations(&layers) * 4.0 / seconds / 1e9);
        let peak = positive(&json, "/gemm/gflops");
        near(positive(&json, "/of_gemm_peak"), gflops / peak);
        positive(&json, "/threads");
        if cfg!(target_os = "linux") {
            positive(&json, "/peak_memory_mib");
        }
    }
    // One image is enough where nothing is contrasted.
    let one = "bench evaluate --width 1 --batch 1 --size 8 --channels 1 --runs 1";
    transcript.add_of_this_machine(&advcl(folder.path(), one).expect(0));
    transcript.check("bench");
}

#[test]
fn bench_measures_every_kernel() {
    let folder = folder();
    let kernels = "bench kernels --width 2 --batch 3 --size 9 --channels 1 --runs 1 --conv direct";
    let mut transcript = Transcript::new(folder.path());
    let json = advcl(folder.path(), &format!("{kernels} --json")).expect(0);
    transcript.add_shape(&json);
    let json = json.json();
    assert_eq!(json["algorithm"], "direct");
    assert_eq!(json["instructions"], advcl::nn::instruction_sets()[0]);
    let peak = positive(&json, "/gemm/gflops");
    let layers = resnet18(Stem::Cifar, 2, 1, 9);
    assert_eq!(json["layers"].as_array().map(Vec::len), Some(layers.len()));
    for (index, layer) in layers.iter().enumerate() {
        let speed = &json["layers"][index];
        let shape = ["input", "output", "size", "kernel", "stride", "count"];
        let expected = [
            layer.input,
            layer.output,
            layer.size,
            layer.kernel,
            layer.stride,
            layer.count,
        ];
        assert_eq!(
            shape.map(|key| speed[key].as_u64()),
            expected.map(|n| Some(n as u64))
        );
        for pass in ["forward", "data_gradient", "weight_gradient"] {
            let seconds = positive(speed, &format!("/{pass}/seconds"));
            let gflops = positive(speed, &format!("/{pass}/gflops"));
            near(gflops, layer.operations() * 3.0 / seconds / 1e9);
            near(
                positive(speed, &format!("/{pass}/of_gemm_peak")),
                gflops / peak,
            );
        }
    }
    let norms = json["batch_norm"].as_array().expect("a list");
    let shapes: Vec<_> = norms
        .iter()
        .map(|norm| (norm["channels"].as_u64(), norm["size"].as_u64()))
        .collect();
    assert_eq!(
        shapes,
        [(2, 9), (4, 5), (8, 3), (16, 2)].map(|(c, s)| (Some(c), Some(s)))
    );
    for norm in norms {
        positive(norm, "/forward/gb_per_second");
        positive(norm, "/backward/gb_per_second");
    }
    transcript.add_of_this_machine(&advcl(folder.path(), kernels).expect(0));
    transcript.check("bench_kernels");
}

#[test]
fn operations_are_those_of_a_resnet18() {
    // Its usual figures for 32 × 32 colour images at width 64: 0.555 · 10⁹ multiplications, 11.16
    // million weights.
    let layers = resnet18(Stem::Cifar, 64, 3, 32);
    let forward = Passes {
        forward: 1,
        to_images: 0,
        to_weights: 0,
    };
    assert_eq!(forward.operations(&layers), 2.0 * 555_417_600.0);
    let weights = |layer: &Layer| layer.count * layer.input * layer.output * layer.kernel.pow(2);
    assert_eq!(layers.iter().map(weights).sum::<usize>(), 11_159_232);
    // And for ImageNet's 224 × 224, less the classifier.
    let large = resnet18(Stem::Imagenet, 64, 3, 224);
    assert_eq!(forward.operations(&large), 2.0 * 1_813_561_344.0);
    // 15 forwards, 15 gradients of inputs (the stem's only in the 10 attack steps), 5 of weights.
    let stem = layers[0].operations();
    let all = forward.operations(&layers);
    assert_eq!(
        Passes::advcl_step(5).operations(&layers),
        35.0 * all - 5.0 * stem
    );
    assert_eq!(Passes::evaluation(20).operations(&layers), 42.0 * all);
}

/// Adds the help of a command and of those below it, as the help itself lists them. Their number.
fn add_help(transcript: &mut Transcript, command: &str) -> usize {
    let help = transcript.run(&format!("{command}--help"), 0);
    let lines = help.stdout.lines().count();
    assert!(lines <= 54, "{lines} lines: {help}");
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
    let names = names.filter(|name| *name != "help");
    let below = names.map(|name| add_help(transcript, &format!("{command}{name} ")));
    1 + below.sum::<usize>()
}

#[test]
fn every_help_is_short_and_has_an_example() {
    let folder = folder();
    let mut transcript = Transcript::new(folder.path());
    let count = add_help(&mut transcript, "");
    assert!(count >= 18, "only {count} commands were found");
    let options = transcript.run("help options", 0);
    assert_eq!(
        options.stdout,
        advcl(folder.path(), "options").expect(0).stdout
    );
    for name in ["--run", "--set", "--device", "--verbose"] {
        let line = |line: &str| line.contains(&format!("{name} "));
        assert!(options.stdout.lines().any(line), "{name}");
        let own = advcl(folder.path(), "finetune --help").expect(0);
        // Examples may use them.
        let mut own = own.stdout.lines().map(str::trim_start);
        assert!(
            !own.any(|line| line.starts_with(name)),
            "{name} has a page of its own"
        );
    }
    transcript.check("help");
    // No arguments: the same help, but not as a success.
    let bare = advcl(folder.path(), "").expect(2);
    let help = advcl(folder.path(), "--help").expect(0);
    assert_eq!(bare.stderr, help.stdout);
    let version = advcl(folder.path(), "--version").expect(0).stdout;
    assert_eq!(version, format!("advcl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_for_every_shell() {
    let folder = folder();
    let path = folder.path();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = advcl(path, &format!("completions {shell}")).expect(0);
        for word in ["label-next", "save-adversarial", "tensorboard"] {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
        put(path.join(shell), script.stdout.as_bytes());
    }
    // Asked as a user's shell asks, where there is one.
    let ask = "source ./bash; COMP_WORDS=(advcl eval); COMP_CWORD=1; _advcl advcl eval advcl; echo ${COMPREPLY[@]}";
    let asked = std::process::Command::new("bash")
        .args(["--norc", "-c", ask])
        .current_dir(path)
        .output();
    if let Ok(asked) = asked {
        let said = String::from_utf8_lossy(&asked.stdout);
        assert_eq!(said.trim(), "evaluate", "{asked:?}");
    }
}

#[test]
fn manual_pages() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.run("man", 0);
    let listed = transcript.run("man pages", 0).stdout;
    assert_eq!(listed, advcl(path, "man pages").expect(0).stdout);
    let whole = advcl(path, "man").expect(0).stdout;
    assert_eq!(get(path.join("pages/advcl.1")), whole.as_bytes());
    let page = get(path.join("pages/advcl-evaluate.1"));
    let page = String::from_utf8(page).expect("UTF-8");
    for words in ["\\-\\-verify", "\\-\\-set", "advcl evaluate runs/a"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    put(path.join("other/advcl.1"), b"words");
    transcript.refuse("man other");
    transcript.check("manual_pages");
}

#[test]
fn info_describes_this_machine() {
    let folder = folder();
    let mut transcript = Transcript::new(folder.path());
    transcript.add_of_this_machine(&advcl(folder.path(), "info").expect(0));
    transcript.add_shape(&advcl(folder.path(), "info --json").expect(0));
    transcript.check("info");
}

#[cfg(unix)]
#[test]
fn a_closed_or_full_output_causes_no_panic() {
    use std::process::Stdio;
    let folder = folder();
    // With a closed stderr the run goes on; with a closed stdout it ends without an error.
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
        let mut command = crate::program(folder.path());
        let answer = crate::answer(command.args(["recipe", "list"]).stdout(full)).expect(3);
        let mut transcript = Transcript::new(folder.path());
        transcript.add(&answer);
        transcript.check("a_full_output");
        for option in ["--help", "--version"] {
            let full = fs::File::options().write(true).open("/dev/full");
            let mut command = crate::program(folder.path());
            command.arg(option).stdout(full.expect("writable"));
            let answer = crate::answer(&mut command).expect(3);
            assert!(answer.stderr.contains("cannot write to stdout"), "{answer}");
        }
    }
    // Files have the permissions that the umask allows.
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
