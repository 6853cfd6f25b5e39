//! `advcl report`: a page that is whole, says what is missing, and leaves the run alone.

use std::path::Path;

use advcl::evaluate::measures::Confusion;
use advcl::evaluate::measures::{
    Bin, Calibration, Certified, Corrupted, Curve, MEASURES, Measures, Neighbours, Patched, Point,
};
use advcl::evaluate::soundness::{CheckName, Finding, Soundness, Verdict};
use advcl::smoothing::{Certificate, Smoothing};
use serde_json::{Value, json};

use crate::harness::{Files, refused};
use crate::page::check_page;
use crate::without_checksum;
use crate::{Transcript, advcl, contents, folder_after, get, only_simclr, put};

/// Both rows of the tiny recipe, evaluated.
fn trained() -> tempfile::TempDir {
    folder_after("run tiny.toml --run run")
}

fn text(path: &Path) -> String {
    String::from_utf8(get(path)).expect("UTF-8")
}

/// A file of one result that depends on `depends_on`, as the program writes it.
fn results(value: impl serde::Serialize, depends_on: &Value) -> Vec<u8> {
    let mut value = serde_json::to_value(value).expect("plain values");
    value["depends_on"] = depends_on.clone();
    serde_json::to_vec(&json!({"format": 2, "results": [value]})).expect("plain values")
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&get(path)).expect("JSON")
}

/// Puts attacks, checks, measures and transfer, all made up, into the tiny run.
fn put_results(run: &Path) {
    let row = run.join("advcl/slf");
    let own = json_of(&row.join("result.json"))["results"][0]["depends_on"].clone();
    let all: Vec<Value> = MEASURES
        .iter()
        .map(|(name, _)| {
            let mut value = serde_json::to_value(measures()).expect("plain values");
            value["measure"] = json!(name);
            // Each depends on what it measures, too.
            value["depends_on"] = json!(format!("{}# {name}\n", own.as_str().expect("text")));
            value
        })
        .collect();
    let measured = json!({"format": 2, "results": all});
    put(row.join("measures.json"), measured.to_string());
    let finding = |check, verdict| Finding {
        check,
        verdict,
        found: "a figure < 3".to_owned(),
        meaning: "attacks are <blind> here".to_owned(),
    };
    let soundness = Soundness {
        findings: vec![
            finding(CheckName::Deterministic, Verdict::Holds),
            finding(CheckName::Gradients, Verdict::Warns),
            finding(CheckName::Loss, Verdict::NotChecked),
        ],
    };
    put(row.join("soundness.json"), results(soundness, &own));
    let attacked = json!({
        "suite": "autoattack", "images": 20, "clean": 12, "robust": 0,
        "attacks": [{"attack": "apgd-ce", "images": 12, "broken": 12, "seconds": 61.0}],
        "key": "autoattack-0", "outside": 0, "examples": 9,
    });
    put(row.join("attack.json"), results(attacked, &own));
    let mut summary = json_of(&run.join("summary.json"));
    summary["transfer"] = json!({
        "images": 20, "classifiers": ["simclr/slf", "advcl/slf"],
        "clean": [0.5, 0.6], "accuracy": [[0.1, 0.55], [0.4, 0.2]],
    });
    put(run.join("summary.json"), summary.to_string());
}

/// All that can be measured of a row, made up: 20 images of 10 classes.
fn measures() -> Measures {
    let point = |at: f64, correct: usize| Point::new(at, correct, 20);
    let curve = |norm| Curve {
        norm,
        points: vec![point(0.0, 16), point(0.1, 8), point(0.5, 0)],
    };
    let calibration = || Calibration {
        images: 20,
        error: 0.123,
        bins: vec![Bin::new(0, 0.0, 0), Bin::new(20, 0.7, 12)],
    };
    let mut confusion = Confusion::new(10);
    (0..20).for_each(|image| confusion.add(image / 2, image / 2));
    let kind = |kind: &str| Corrupted::new(kind, [14, 12, 10, 8, 6], 20);
    let mut measures = Measures {
        images: 20,
        radius: vec![
            curve(advcl::attack::Norm::Linf),
            curve(advcl::attack::Norm::L2),
        ],
        steps: vec![point(1.0, 10), point(100.0, 6)],
        corruptions: vec![kind("gaussian_noise"), kind("jpeg_compression")],
        patch: Some(Patched::new((6, 4, 20), [16, 3], 20)),
        smoothing: Some(certified()),
        neighbours: Some(Neighbours::new(20, 14, 4, 20)),
        calibration: Some(calibration()),
        calibration_attacked: Some(calibration()),
        ..Measures::default()
    };
    measures.set_confusion(confusion.clone(), confusion);
    measures
}

/// Certificates of 20 images, made up: 12 with the largest radius, 5 with a small one, of 3 none.
fn certified() -> Certified {
    let settings = Smoothing::default();
    let certificate = |image: usize| {
        let hits = match image {
            0..12 => settings.samples,
            12..17 => 800,
            _ => 400,
        };
        Certificate {
            image,
            votes: vec![(0, settings.selection)],
            class: 0,
            hits,
            radius: settings.radius(hits),
        }
    };
    Certified::new(&settings, (0..20).map(certificate).collect(), &[0; 20])
}

#[test]
fn a_page_has_everything_that_was_measured() {
    let folder = trained();
    let path = folder.path();
    put_results(&path.join("run"));
    let before = contents(&path.join("run"));
    let answer = advcl(path, "report run").expect(0);
    assert_eq!(answer.stdout, "", "{answer}");
    assert!(before == contents(&path.join("run")), "the run was changed");
    let page = text(&path.join("report.html"));
    check_page(&page);
    for id in [
        "accuracy",
        "soundness",
        "attacks",
        "curves",
        "examples",
        "views",
        "map",
        "surface",
        "classes",
        "corruptions",
        "patch",
        "certified",
        "calibration",
        "transfer",
        "training",
        "repeat",
    ] {
        assert!(
            page.contains(&format!("<h2 id=\"h-{id}\">")),
            "no section {id}"
        );
        assert!(page.contains(&format!("href=\"#{id}\"")), "no link to {id}");
    }
    assert!(!page.contains("id=\"missing\""));
    // 6 images by 2 classifiers, three pictures each; 6 images by 6 views.
    assert_eq!(page.matches("<img ").count(), 36 + 36);
    let mut transcript = Transcript::new(path);
    transcript.add_page(&page);
    transcript.check("a_page");
    // The same again, to the bit. A name on the command line is replaced, the default one is not.
    let mut transcript = Transcript::new(path);
    transcript.refuse("report run");
    transcript.check("a_report_that_is_there_already");
    advcl(path, "report run -o report.html --quiet").expect(0);
    assert!(text(&path.join("report.html")) == page, "another page");
}

#[test]
fn results_of_an_earlier_classifier_are_not_shown_and_other_conditions_are() {
    let folder = trained();
    let path = folder.path();
    let run = path.join("run");
    put_results(&run);
    let rows = || {
        let json = advcl(path, "report run --json").expect(0).json();
        json["runs"][0]["rows"].as_array().expect("rows").clone()
    };
    let row = rows()[1].clone();
    assert_eq!(
        (&row["current"], &row["classifier"]),
        (&json!(true), &json!("advcl/slf"))
    );
    let outcome = &row["outcome"];
    assert!(
        !outcome["attacked"].is_null() && !outcome["soundness"].is_null(),
        "{row}"
    );
    assert_eq!(outcome["measures"]["images"], 20);
    // Another radius stands beside it, as what it is; the attack was within the first.
    advcl(path, "evaluate run --method advcl --set threat.radius=0.2").expect(0);
    let found = rows();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1], row);
    assert_eq!(found[2]["current"], false);
    assert_eq!(found[2]["outcome"]["threat"]["radius"], "0.2");
    assert!(found[2]["outcome"]["attacked"].is_null(), "{}", found[2]);
    // Another classifier: nothing of the first is left in the report, and its files stay.
    advcl(path, "run --run run --set finetune.slf.plan.lr=0.2").expect(0);
    let found = rows();
    assert_eq!(found.len(), 2);
    assert!(found[1]["outcome"]["attacked"].is_null(), "{}", found[1]);
    assert!(found[1]["outcome"]["measures"].is_null(), "{}", found[1]);
    let kept = json_of(&run.join("advcl/slf/attack.json"));
    assert_eq!(kept["results"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_headline_is_the_strongest_attack_and_not_the_latest() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    let row = path.join("run/simclr/slf");
    let own = json_of(&row.join("result.json"))["results"][0]["depends_on"].clone();
    // Of 20 images, made up; the latest is last.
    let suite = |name: &str, attack: &str, robust: usize| {
        let tried = json!({"attack": attack, "images": 12, "broken": 12 - robust, "seconds": 1.0});
        json!({
            "suite": name, "images": 20, "clean": 12, "robust": robust, "attacks": [tried],
            "key": name, "outside": 0, "examples": 0, "depends_on": own,
        })
    };
    let (noise, standard) = (suite("noise", "noise", 12), suite("standard", "apgd-ce", 0));
    for (suites, headline, is_upper_bound) in [
        (vec![noise.clone()], "PGD-2", true),
        // RobustBench's name of AutoAttack, as earlier versions kept it.
        (vec![standard, noise], "AutoAttack", false),
    ] {
        let kept = json!({"format": 2, "results": suites});
        put(row.join("attack.json"), kept.to_string());
        let report = advcl(path, "report run --json").expect(0).json();
        let found = &report["runs"][0]["rows"][0];
        let [worst, robust] = ["worst", "robust"].map(|name| found[name]["share"].as_f64());
        let expected = if is_upper_bound { robust } else { Some(0.0) };
        assert_eq!(worst, expected, "{found}");
        advcl(path, "report run -o page.html --replace").expect(0);
        let page = text(&path.join("page.html"));
        let words = format!("correctly under {headline} within");
        assert!(page.contains(&words), "no {words}");
        assert_eq!(page.contains("An upper bound."), is_upper_bound);
        assert_eq!(page.contains("Only PGD and noise attacked"), is_upper_bound);
    }
}

#[test]
fn a_page_names_what_is_missing_and_the_command_that_makes_it() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    let run = "run&amp;<b>";
    std::fs::rename(path.join("run"), path.join(run)).expect("a name");
    advcl(path, &format!("report {run} -o page.html")).expect(0);
    let page = text(&path.join("page.html"));
    check_page(&page);
    assert!(
        page.contains("<h1>run&amp;amp;&lt;b&gt;</h1>"),
        "a name is text"
    );
    let mut transcript = Transcript::new(path);
    transcript.add_page(&page);
    transcript.check("a_page_of_a_run_without_attacks_and_measures");
    for id in ["examples", "map", "surface", "training"] {
        assert!(
            page.contains(&format!("<h2 id=\"h-{id}\">")),
            "no section {id}"
        );
    }
}

#[test]
fn runs_and_seeds_side_by_side() {
    let folder = trained();
    let path = folder.path();
    let seeds = "compare.seeds=[1,2]";
    advcl(path, &format!("compare tiny.toml --run both --set {seeds}")).expect(0);
    advcl(path, "report run both -o page.html --mode slf").expect(0);
    let page = text(&path.join("page.html"));
    check_page(&page);
    let mut transcript = Transcript::new(path);
    transcript.add_page(&page);
    transcript.check("a_page_of_two_runs");
    let mut transcript = Transcript::new(path);
    let json = advcl(path, "report run both --json").expect(0);
    transcript.add_shape(&json);
    let json = json.json();
    let lines = json["lines"].as_array().expect("a list");
    let counts: Vec<&Value> = lines.iter().map(|line| &line["seeds"]).collect();
    assert_eq!(counts, [1, 1, 2, 2]);
    let means = lines[2..].to_vec();
    assert_eq!(json["runs"].as_array().map(Vec::len), Some(3));
    let right = &json["runs"][0]["rows"][0];
    let share = right["outcome"]["clean_accuracy"]
        .as_f64()
        .expect("a share");
    let interval = &right["clean"];
    let end = |key: &str| interval[key].as_f64().expect("a share");
    assert!(
        end("low") < share && share < end("high") && end("share") == share,
        "{interval}"
    );

    let csv = advcl(path, "report both --format csv").expect(0);
    transcript.add_without_numbers(&csv);
    let lines = csv.stdout.lines();
    let cells: Vec<usize> = lines.map(|line| line.split(',').count()).collect();
    assert!(cells.iter().all(|count| *count == cells[0]), "{csv}");
    for args in ["run", "both", "both --method advcl"] {
        let args = format!("report {args} --format md");
        transcript.add_without_numbers(&advcl(path, &args).expect(0));
    }
    transcript.check("reports_without_a_page");
    advcl(path, "report both --format md -o table.md").expect(0);
    assert!(text(&path.join("table.md")).starts_with("# Robustness report"));

    // Nor do evaluations on fewer images, which stand beside those of the recipe, change a mean.
    advcl(path, "evaluate both/seed-2 --set data.test_limit=10").expect(0);
    let json = advcl(path, "report both --json").expect(0).json();
    assert_eq!(json["lines"], json!(means));
    assert_eq!(json["comparisons"][0]["rows"][0]["images"], 20);

    // Figures of other settings are in no mean and in no test.
    let file = path.join("both/seed-2/simclr/slf/result.json");
    let other = text(&file)
        .replace("\\nsteps = 2\\n", "\\nsteps = 3\\n")
        .replace("\"attack_steps\": 2", "\"attack_steps\": 3");
    assert_ne!(text(&file), other);
    put(file, without_checksum(&other));
    let json = advcl(path, "report both --json").expect(0).json();
    assert_eq!(json["lines"][0]["seeds"], 1);
    assert_eq!(json["runs"][1]["missing"], json!(["simclr/slf"]));
    let compared = &json["comparisons"][0];
    assert_eq!(compared["rows"][0]["seeds"], json!([1]));
    assert_eq!(compared["differences"][0]["points"]["count"], 1);
}

#[test]
fn a_report_replaces_reports_and_nothing_else_without_a_word() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    put(path.join("mine.csv"), "run,seconds\n");
    for args in [
        "report run --format csv -o run/recipe.toml",
        "report run --format csv -o run/recipe.toml --replace",
        "report run -o run/simclr/slf/result.json --replace",
        "report run --format md -o run/simclr/model.safetensors --replace",
        "report run --format json -o mine.csv",
        "report run -o mine.csv",
    ] {
        refused(path, args, Files::Untouched);
    }
    // A report of an earlier call, in whatever format, also in the run's folder.
    for format in ["md", "csv", "json", "html", "md"] {
        advcl(path, &format!("report run --format {format} -o run/r -q")).expect(0);
    }
    assert!(text(&path.join("run/r")).starts_with("# Robustness report"));
    advcl(path, "report run --format csv -o mine.csv --replace").expect(0);
    assert!(text(&path.join("mine.csv")).starts_with("run,method,"));
}

#[test]
fn folders_that_are_no_run_are_refused() {
    let folder = trained();
    let path = folder.path();
    std::fs::create_dir(path.join("empty")).expect("a folder");
    put(
        path.join("begun/recipe.toml"),
        get(path.join("run/recipe.toml")),
    );
    let mut transcript = Transcript::new(path);
    for args in [
        "report",
        "report nowhere",
        "report tiny.toml",
        "report empty",
        "report begun",
        "report run begun",
        "report run --method advlc",
        "report run --mode aff",
        "report run --set seed=9",
        "report run --device quantum",
        "report run -o empty",
        "report run -o nowhere/page.html",
    ] {
        transcript.refuse(args);
    }
    let copy = |name: &str| {
        crate::copy(&path.join("run"), &path.join(name));
        path.join(name)
    };
    // Files that another version wrote, or that were changed.
    let old = copy("old");
    put(
        old.join("advcl/slf/result.json"),
        "{\"format\": 2, \"results\": [{\"depends_on\": \"\", \"accuracy\": 0.5}]}",
    );
    transcript.note("A result of other keys.");
    transcript.refuse("report old");
    let note = String::from_utf8(get(old.join("run.json"))).expect("UTF-8");
    put(
        old.join("run.json"),
        note.replace(env!("CARGO_PKG_VERSION"), "0.0.1"),
    );
    transcript.note("The same of another version.");
    transcript.refuse("report old");
    let cut = copy("cut");
    std::fs::remove_file(cut.join("summary.json")).expect("was there");
    put(cut.join("advcl/slf/measures.json"), "{\"images\": 3");
    transcript.note("Measures that are cut off.");
    transcript.refuse("report cut");
    let without = copy("without");
    std::fs::remove_file(without.join("advcl/slf/model.safetensors")).expect("was there");
    transcript.note("One row has no model: the others are reported.");
    let page = advcl(path, "report without --format md").expect(0);
    assert!(!page.stdout.contains("AdvCL"), "{page}");
    transcript.check("impossible_reports");
}

#[test]
fn images_may_have_moved_but_must_be_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    for split in ["train", "test"] {
        for image in 0..24u8 {
            let class = if image % 2 == 0 { "dark" } else { "light" };
            let value = |i: usize| image % 2 * 120 + (i as u8 % 7) * 9 + image * 2;
            let pixels: Vec<u8> = (0..144).map(value).collect();
            let file = format!("images/{split}/{class}/{image}.png");
            put(path.join(file), crate::png(12, &pixels));
        }
    }
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"images\"")
        .replace("train_limit = 64\ntest_limit = 20\n", "");
    put(path.join("tiny.toml"), recipe);
    advcl(path, "run tiny.toml --run run").expect(0);
    advcl(path, "report run -o page.html").expect(0);
    std::fs::rename(path.join("images"), path.join("moved")).expect("a folder");
    let mut transcript = Transcript::new(path);
    transcript.refuse("report run -o new.html");
    advcl(path, "report run -o moved.html --set data.source=\"moved\"").expect(0);
    assert!(get(path.join("moved.html")) == get(path.join("page.html")));
    put(
        path.join("moved/test/dark/0.png"),
        crate::png(12, &[200; 144]),
    );
    transcript.note("One image is another.");
    transcript.refuse("report run -o new.html --set data.source=\"moved\"");
    transcript.check("a_report_of_images_that_moved");
}
