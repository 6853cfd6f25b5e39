//! Unequal classes, and the linear classifier in closed form.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Transcript, advcl, answer, contents, folder, get, only_simclr, png, program, put};

/// A gray PNG whose upper half is brighter the larger the class, with noise.
fn picture(class: usize, number: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let bright = if i < 72 { 60 * class } else { 0 };
        (60 + bright + (i * 7 + number * 13 + class * 5) % 40) as u8
    };
    png(12, &(0..144).map(pixel).collect::<Vec<u8>>())
}

/// A folder with a recipe for 32 training and 16 test images of two classes, three times as many of the first.
fn unequal() -> tempfile::TempDir {
    let folder = folder();
    for (split, counts) in [("train", [24, 8]), ("test", [12, 4])] {
        for (class, name) in ["many", "few"].into_iter().enumerate() {
            for number in 0..counts[class] {
                let file = format!("set/{split}/{name}/{number:02}.png");
                let picture = picture(class, number + 100 * split.len());
                put(folder.path().join(file), picture);
            }
        }
    }
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"set\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    let closed = "\n[finetune.slf-closed]\nsolver = \"lbfgs\"\n";
    put(folder.path().join("r.toml"), recipe + closed);
    folder
}

fn without(value: &mut Value, key: &str) {
    match value {
        Value::Object(entries) => {
            entries.remove(key);
            entries.values_mut().for_each(|value| without(value, key));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| without(value, key)),
        _ => {}
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&get(path)).expect("JSON")
}

#[test]
fn accuracy_of_unequal_classes_is_shown_class_by_class_too() {
    let folder = unequal();
    let path = folder.path();
    let run = advcl(path, "run r.toml --run run").expect(0);
    let title = "\nevery class counts alike; they have 4 to 12 images\nclassifier ";
    assert!(run.stdout.contains(title), "{run}");
    let json = advcl(path, "run --run run --json").expect(0).json();
    assert!(json == json_of(&path.join("run/summary.json")));
    for outcome in json["outcomes"].as_array().expect("rows") {
        let classes = outcome["accuracy"]["classes"].as_array().expect("classes");
        for kind in ["clean", "robust"] {
            let shares: Vec<f64> = classes
                .iter()
                .map(|class| {
                    class[kind].as_f64().expect("a count")
                        / class["images"].as_f64().expect("a count")
                })
                .collect();
            let worst = usize::from(shares[1] < shares[0]);
            let expected = json!({
                "balanced_accuracy": (shares[0] + shares[1]) / 2.0,
                "worst_class": json["classes"][worst],
                "worst_accuracy": shares[worst],
                "worst_images": classes[worst]["images"],
            });
            assert_eq!(outcome["by_class"][kind], expected, "{outcome}");
        }
    }
    // Files of before have the counts alone.
    let file = path.join("run/summary.json");
    let mut old = json_of(&file);
    without(&mut old, "by_class");
    put(&file, old.to_string());
    let report = advcl(path, "report run --format json").expect(0).json();
    let found = &report["lines"][0]["by_class"];
    assert_eq!(*found, json["outcomes"][0]["by_class"]);
}

#[test]
fn a_classifier_in_closed_form_is_the_same_for_any_number_of_threads() {
    let folder = unequal();
    let path = folder.path();
    advcl(path, "pretrain r.toml --run run").expect(0);
    let finetuned = |threads: &str, set: &[&str]| {
        let mut command = program(path);
        command.env("RAYON_NUM_THREADS", threads);
        command.args([
            "finetune",
            "--run",
            "run",
            "--mode",
            "slf-closed",
            "--replace",
        ]);
        for set in set {
            command.args(["--set", set]);
        }
        let answer = answer(&mut command).expect(0);
        (
            answer,
            get(path.join("run/simclr/slf-closed/model.safetensors")),
        )
    };
    let (first, model) = finetuned("1", &[]);
    let note = "simclr/slf-closed: L2 penalty ";
    assert!(first.stderr.contains(note), "{first}");
    let names: Vec<_> = contents(&path.join("run/simclr/slf-closed"))
        .into_keys()
        .collect();
    assert_eq!(names.len(), 2, "a model and its times: {names:?}");
    // A plan does not matter to it, weights of the classes do.
    let plan = "finetune.slf-closed.plan={ epochs = 1, batch_size = 2, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} }";
    let (again, same) = finetuned("1", &[plan]);
    assert!(!again.stderr.contains(note) && model == same, "{again}");
    let balanced = "finetune.slf-closed.class_weights=balanced";
    let (_, weighted) = finetuned("1", &[balanced]);
    assert!(weighted != model);
    let (_, back) = finetuned("2", &["finetune.slf-closed.class_weights=none"]);
    assert!(back == model, "other threads, other bits");
    // The steps of a plan heed the weights too.
    let slf = || get(path.join("run/simclr/slf/model.safetensors"));
    advcl(path, "finetune --run run --mode slf").expect(0);
    let before = slf();
    advcl(
        path,
        "finetune --run run --mode slf --set finetune.slf.class_weights=balanced",
    )
    .expect(0);
    assert!(slf() != before);
}

#[test]
fn solvers_and_weights_that_do_not_fit_the_mode_are_refused() {
    let folder = folder();
    let path = folder.path();
    let plan = "plan = { epochs = 1, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} }";
    let more = format!("\n[finetune.aff]\n{plan}\n\n[finetune.semi-supervised]\n{plan}\n");
    put(path.join("r.toml"), only_simclr() + &more);
    let planless = only_simclr().replace("[finetune.slf]\nplan", "[finetune.slf]\n# plan");
    put(path.join("planless.toml"), planless);
    let mut transcript = Transcript::new(path);
    for set in [
        "aff.solver=lbfgs",
        "slf.solver=adam",
        "semi-supervised.class_weights=balanced",
        "slf.class_weights=half",
    ] {
        transcript.refuse(&format!("recipe check r.toml --set finetune.{set}"));
    }
    let both = "--set finetune.slf.solver=lbfgs --set finetune.slf.augment=true";
    transcript.refuse(&format!("recipe check r.toml {both}"));
    transcript.refuse("recipe check planless.toml");
    transcript.run(
        "recipe check planless.toml --set finetune.slf.solver=lbfgs",
        0,
    );
    transcript.check("solvers_and_weights");
}

#[test]
fn figures_by_class_are_of_the_classes_that_they_are_named_after() {
    let folder = folder();
    let path = folder.path();
    let put_class = |set: &str, (class, name): (usize, &str), counts: [usize; 2]| {
        for (split, count) in ["train", "test"].into_iter().zip(counts) {
            for number in 0..count {
                let file = format!("{set}/{split}/{name}/{number:02}.png");
                put(path.join(file), picture(class, number + 100 * split.len()));
            }
        }
    };
    for class in ["a", "b", "c"].into_iter().enumerate() {
        put_class("set", class, [8, 4]);
    }
    // Without the first class, so that the others have other places here.
    put_class("other", (1, "b"), [20, 6]);
    put_class("other", (2, "c"), [1, 3]);
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"set\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    put(path.join("r.toml"), recipe);
    advcl(path, "run r.toml --run run").expect(0);
    let evaluate = "evaluate run --set data.source=other --measure confusion,features";
    let text = advcl(path, &format!("{evaluate} -v")).expect(0);
    for (class, images) in [("a", 0), ("b", 6), ("c", 3)] {
        let rows = text.stdout.lines();
        let mut rows = rows.filter(|row| row.split_whitespace().next() == Some(class));
        // Accuracy by class, then the confusion.
        let row = rows.next().expect("a row");
        let found = row.split_whitespace().nth(1);
        assert_eq!(found, Some(images.to_string().as_str()), "{text}");
        let row = rows.next().expect("another row");
        let counted = row.contains(&format!(" of {images} ("));
        assert_eq!(counted, images > 0, "{text}");
    }
    let json = advcl(path, &format!("{evaluate} --json")).expect(0).json();
    let outcome = &json["outcomes"][0];
    for classes in [&json["classes"], &outcome["classes"]] {
        assert_eq!(*classes, json!(["a", "b", "c"]));
    }
    assert_eq!(outcome["accuracy"]["classes"][1]["images"], 6);
    // Nearly all of the known images are of class b, and so are nearly all neighbours.
    let right = outcome["measures"]["neighbours"]["clean"].as_f64();
    assert!(right.expect("a share") >= 0.6, "{outcome}");
    let kept = json_of(&path.join("run/summary.json"));
    assert_eq!(kept["classes"], json["classes"]);
}
